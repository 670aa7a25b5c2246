"""How a running enclave obtains evidence about itself (RATS, RFC 9334: the Attester)."""

from __future__ import annotations

from typing import Final, Protocol

REPORT_DATA_BYTES: Final = 64


class AttesterError(Exception):
    """The enclave cannot obtain evidence. The message says what was found, what was expected and what to do."""


class ReportDataError(AttesterError):
    """Report data is not exactly 64 bytes. It is never padded or cut: either would bind something else (R2)."""


class PlatformError(AttesterError):
    """The platform directory or device that evidence comes from is missing or unusable."""


class UnknownAttester(AttesterError):
    """No attester of that name exists in this build."""


class Attester(Protocol):
    """A source of evidence. `kind` is its configuration name; `tee` is 1 for SGX and 2 for TDX evidence."""

    @property
    def kind(self) -> str: ...

    @property
    def tee(self) -> int: ...

    async def quote(self, report_data: bytes) -> bytes:
        """Evidence over exactly 64 bytes. Raises ReportDataError for another length, PlatformError otherwise."""
        ...


def checked_report_data(report_data: bytes) -> bytes:
    """`report_data` itself if it is exactly 64 bytes; raises ReportDataError otherwise."""
    if len(report_data) != REPORT_DATA_BYTES:
        raise ReportDataError(
            f"report data has {len(report_data)} bytes, expected exactly {REPORT_DATA_BYTES}; "
            "hash what you bind and append the zeros yourself"
        )
    return bytes(report_data)
