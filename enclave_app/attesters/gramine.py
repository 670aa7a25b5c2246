"""SGX under Gramine: the pseudo-files of /dev/attestation.

Source: Gramine's documentation, Attestation and Secret Provisioning, "Low-level /dev/attestation interface". They are of
one process; what is written into `user_report_data` counts when the file is closed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from enclave_app.attesters.base import PlatformError, checked_report_data
from enclave_app.attesters.bound import MAX_QUOTE, sgx_quote
from enclave_app.attesters.device import FILE_SYSTEM, SECONDS, Hardware, read_file, write_file
from enclave_app.protocol.measurement import TEE_SGX

DIRECTORY: Final = Path("/dev/attestation")
_MAX_LINE: Final = 64


class GramineAttester(Hardware):
    def __init__(self, root: Path = FILE_SYSTEM, seconds: float = SECONDS) -> None:
        super().__init__("gramine", TEE_SGX, DIRECTORY, root, seconds)

    async def quote(self, report_data: bytes) -> bytes:
        """A version 3 quote. Raises AttesterError's kinds."""
        data = checked_report_data(report_data)
        return sgx_quote(await self._device.call(lambda: self._quote(data)), data)

    def _quote(self, data: bytes) -> bytes:
        scheme = attestation_type(self.path)
        if scheme != "dcap":
            raise PlatformError(
                f'Gramine attests by {scheme!r}, expected dcap; set sgx.remote_attestation = "dcap" in the manifest'
            )
        write_file(self.path / "user_report_data", data)
        return read_file(self.path / "quote", MAX_QUOTE)


def attestation_type(directory: Path = DIRECTORY) -> str:
    """`none`, `epid` or `dcap`. Raises OSError and EvidenceError."""
    return read_file(directory / "attestation_type", _MAX_LINE).decode("ascii", "replace").strip()
