"""What a relying party wants of an enclave. An unset or empty field refuses; a skipped check is written `skip` (R21).

As YAML:

    measurements: ["0x…32 bytes"]      enclaves that may answer
    anchors: ["0x…32 bytes"]           digests of the root certificates that count (R4)
    statuses: [UpToDate]               TCB statuses taken
    evaluation_floor: 17               oldest tcbEvaluationDataNumber taken
    report_data: "0x…64 bytes"         what the evidence has to bind (R2)
    advisories: skip                   or a list of refused advisories
    platforms: ["0x…32 bytes"]         platform ids (SHA-256 of a PPID) that may host (R5)
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from enclave_app.protocol.errors import Refused
from oracle.attestation.errors import Code, PolicyError
from oracle.attestation.types import INTEL_NAMES, TcbStatus, intel_name
from oracle.yamlfile import parse_yaml

SKIP = "skip"
Skip = Literal["skip"]


def _bytes_of(size: int) -> BeforeValidator:
    def convert(value: object) -> object:
        if isinstance(value, str):
            if not value.startswith("0x"):
                raise ValueError(f"expected 0x and {2 * size} hex digits")
            value = bytes.fromhex(value[2:])
        if not isinstance(value, bytes) or len(value) != size:
            raise ValueError(f"expected {size} bytes, written as 0x and {2 * size} hex digits")
        return value

    return BeforeValidator(convert)


def _status(value: object) -> object:
    if isinstance(value, str):
        if value not in INTEL_NAMES:
            raise ValueError(f"expected one of {', '.join(INTEL_NAMES)}")
        return INTEL_NAMES[value]
    return value


_HEX = PlainSerializer(lambda value: "0x" + value.hex(), when_used="json")
Bytes32 = Annotated[bytes, _bytes_of(32), _HEX]
Bytes64 = Annotated[bytes, _bytes_of(64), _HEX]
Status = Annotated[TcbStatus, BeforeValidator(_status), PlainSerializer(intel_name, when_used="json")]


class AppraisalPolicy(BaseModel):
    """Frozen; unknown fields are refused. `None` means unset, which `appraise` refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measurements: tuple[Bytes32, ...] | Skip | None = None
    anchors: tuple[Bytes32, ...] | Skip | None = None
    statuses: tuple[Status, ...] | Skip | None = None
    evaluation_floor: Annotated[int, Field(ge=0, lt=2**32, strict=True)] | Skip | None = None
    report_data: Skip | Bytes64 | None = None
    advisories: tuple[Annotated[str, Field(min_length=1)], ...] | Skip | None = None
    platforms: tuple[Bytes32, ...] | Skip | None = None

    @classmethod
    def from_yaml(cls, text: str) -> AppraisalPolicy:
        """Read a policy as laid out at the top of this module. Raises PolicyError."""
        try:
            value = parse_yaml(text.encode("utf-8", "replace"))
            if not isinstance(value, dict):
                raise ValueError("the document is no mapping")
            return cls.model_validate(value)
        except (Refused, ValidationError, ValueError, TypeError) as cause:
            raise PolicyError(
                Code.POLICY_FORMAT,
                found=f"a policy that cannot be read ({' '.join(str(cause).split())})",
                expected=f"the fields {', '.join(cls.model_fields)}",
                action="correct the policy file",
            ) from cause
