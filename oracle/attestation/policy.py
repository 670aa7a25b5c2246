"""What a relying party wants of an enclave. An unset or empty field refuses; a skipped check is written `skip` (R21).

As YAML:

    measurements: ["0x…32 bytes"]      enclaves that may answer
    registers: skip                    or single measured registers: {mrtd: ["0x…"], rtmr3: ["0x…"]}
    anchors: ["0x…32 bytes"]           digests of the root certificates that count (R4)
    report_data: "0x…64 bytes"         what the evidence has to bind (R2)
    platforms: ["0x…32 bytes"]         platform ids (SHA-256 of a PPID, a chip id or PCR4) that may host (R5)

Intel's evidence (SGX, TDX) needs these as well:

    statuses: [UpToDate]               TCB statuses taken
    evaluation_floor: 17               oldest tcbEvaluationDataNumber taken
    advisories: skip                   or a list of refused advisories

and AMD's (SNP) these:

    snp:
      vmpl: [0]                        privilege levels that may ask
      min_tcb:                         for each processor line taken, the least version of each component
        Milan: {bootloader: 4, tee: 0, snp: 24, microcode: 219}
        Turin: {fmc: 1, bootloader: 1, tee: 1, snp: 1, microcode: 1}
      keys: [VCEK]                     or VLEK, which names a cloud provider and no chip
      migration_agent: refuse          a guest policy that lets an agent copy the guest
      smt: refuse                      a guest policy that allows simultaneous multithreading
      single_socket: require           a guest policy that allows one socket only
      alias_check: require             the firmware's check for aliased memory, done

Debug evidence is no matter of policy: it is never genuine.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from enclave_app.appraise.snp import LINES, Signer
from enclave_app.protocol.errors import Refused
from oracle.attestation.errors import Code, PolicyError
from oracle.attestation.types import INTEL_NAMES, TcbStatus, intel_name
from oracle.yamlfile import parse_yaml, yaml_path

SKIP = "skip"
Skip = Literal["skip"]
MAX_REGISTER = 64
_TYPE = re.compile(r"[\[(]|^constrained-")


def _bytes_of(size: int | None) -> BeforeValidator:
    """`size` None takes any length that a register has."""
    form = "0x and hex digits" if size is None else f"{size} bytes, written as 0x and {2 * size} hex digits"

    def convert(value: object) -> object:
        if isinstance(value, str):
            if not value.startswith("0x"):
                raise ValueError(f"expected {form}")
            value = bytes.fromhex(value[2:])
        if not isinstance(value, bytes) or (
            not 1 <= len(value) <= MAX_REGISTER if size is None else len(value) != size
        ):
            raise ValueError(f"expected {form}")
        return value

    return BeforeValidator(convert)


def _status(value: object) -> object:
    if isinstance(value, str):
        if value not in INTEL_NAMES:
            raise ValueError(f"expected one of {', '.join(INTEL_NAMES)}")
        return INTEL_NAMES[value]
    return value


def _key(value: object) -> object:
    if isinstance(value, str):
        if value not in (Signer.VCEK.name, Signer.VLEK.name):
            raise ValueError("expected VCEK or VLEK")
        return Signer[value]
    return value


def _levels(value: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    for name, level in value.items():
        if name not in LINES:
            raise ValueError(f"expected one of {', '.join(LINES)}")
        wanted = {component for component, _ in LINES[name].tcb}
        if level.keys() != wanted:
            raise ValueError(f"expected {', '.join(sorted(wanted))} for {name}")
    return value


_HEX = PlainSerializer(lambda value: "0x" + value.hex(), when_used="json")
Bytes32 = Annotated[bytes, _bytes_of(32), _HEX]
Bytes64 = Annotated[bytes, _bytes_of(64), _HEX]
Register = Annotated[bytes, _bytes_of(None), _HEX]
Status = Annotated[TcbStatus, BeforeValidator(_status), PlainSerializer(intel_name, when_used="json")]
Key = Annotated[Signer, BeforeValidator(_key), PlainSerializer(lambda key: key.name, when_used="json")]
Svn = Annotated[int, Field(ge=0, le=255, strict=True)]
MinTcb = Annotated[dict[str, dict[str, Svn]], AfterValidator(_levels)]


class SnpPolicy(BaseModel):
    """What only SEV-SNP evidence has to say. `None` means unset, which `appraise` refuses for such evidence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vmpl: tuple[Annotated[int, Field(ge=0, le=3, strict=True)], ...] | Skip | None = None
    min_tcb: MinTcb | Skip | None = None
    keys: tuple[Key, ...] | Skip | None = None
    migration_agent: Literal["refuse"] | Skip | None = None
    smt: Literal["refuse"] | Skip | None = None
    single_socket: Literal["require"] | Skip | None = None
    alias_check: Literal["require"] | Skip | None = None


class AppraisalPolicy(BaseModel):
    """Frozen; unknown fields are refused. `None` means unset, which `appraise` refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measurements: tuple[Bytes32, ...] | Skip | None = None
    registers: dict[str, tuple[Register, ...]] | Skip | None = None
    anchors: tuple[Bytes32, ...] | Skip | None = None
    report_data: Skip | Bytes64 | None = None
    platforms: tuple[Bytes32, ...] | Skip | None = None
    statuses: tuple[Status, ...] | Skip | None = None
    evaluation_floor: Annotated[int, Field(ge=0, lt=2**32, strict=True)] | Skip | None = None
    advisories: tuple[Annotated[str, Field(min_length=1)], ...] | Skip | None = None
    snp: SnpPolicy | None = None

    @classmethod
    def from_yaml(cls, text: str) -> AppraisalPolicy:
        """Read a policy as laid out at the top of this module. Raises PolicyError."""
        try:
            value = parse_yaml(text.encode("utf-8", "replace"))
            if not isinstance(value, dict):
                raise ValueError("the document is no mapping")
            return cls.model_validate(value)
        except (Refused, ValidationError, ValueError, TypeError) as cause:
            told = _told(cause) if isinstance(cause, ValidationError) else " ".join(str(cause).split())
            raise PolicyError(
                Code.POLICY_FORMAT,
                found=f"a policy that cannot be read ({told})",
                expected=f"the fields {', '.join(cls.model_fields)}",
                action="correct the policy file",
            ) from cause


def _told(error: ValidationError) -> str:
    """Each wrong place as the file has it, without the names that pydantic gives the types tried there."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[:8]
    return "; ".join(
        f"{yaml_path(tuple(part for part in item['loc'] if not _TYPE.search(str(part))))}: "
        f"{item['msg'].removeprefix('Value error, ')}"
        for item in found
    )
