"""How a running enclave obtains evidence about itself (RATS, RFC 9334: the Attester)."""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

REPORT_DATA_BYTES: Final = 64


class AttesterError(Exception):
    """The enclave cannot obtain evidence. The message says what was found, what was expected and what to do.

    `code` is a stable name for programs, as in `protocol.errors`.
    """

    code: ClassVar[str] = "attester.failed"


class ReportDataError(AttesterError):
    """Report data is not exactly 64 bytes. It is never padded or cut: either would bind something else (R2)."""

    code = "attester.report_data"


class PlatformError(AttesterError):
    """The platform directory or device that evidence comes from is missing or unusable, or it refuses."""

    code = "attester.platform"


class PlatformTimeout(AttesterError):
    """The platform does not answer in time."""

    code = "attester.timeout"


class EvidenceError(AttesterError):
    """What the platform gave is not evidence, or not over the report data that was asked for."""

    code = "attester.evidence"


class UnknownAttester(AttesterError):
    """No attester of that name exists in this build, or `auto` finds none that this machine could use."""

    code = "attester.unknown"


class Attester(Protocol):
    """A source of evidence. `kind` is its configuration name; `tee` is 1 for SGX, 2 for TDX, 3 for SEV-SNP, 4 for Nitro."""

    @property
    def kind(self) -> str: ...

    @property
    def tee(self) -> int: ...

    @property
    def simulated(self) -> bool:
        """Whether something stands in for the hardware (R4). Only for people: what proves it is the trust anchor."""
        ...

    async def quote(self, report_data: bytes) -> bytes:
        """Evidence over exactly 64 bytes. Raises ReportDataError for another length, another AttesterError otherwise."""
        ...

    async def endorsements(self) -> tuple[bytes, ...]:
        """Certificates in DER that the platform gave with the latest quote; for SEV-SNP the endorsement key's, and
        where the host has them the ASK's and the ARK's. Unverified, and empty where verifiers get theirs elsewhere."""
        ...


def checked_report_data(report_data: bytes) -> bytes:
    """`report_data` itself if it is exactly 64 bytes; raises ReportDataError otherwise."""
    if len(report_data) != REPORT_DATA_BYTES:
        raise ReportDataError(
            f"report data has {len(report_data)} bytes, expected exactly {REPORT_DATA_BYTES}; "
            "hash what you bind and append the zeros yourself"
        )
    return bytes(report_data)
