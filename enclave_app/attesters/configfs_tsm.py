"""TDX and SEV-SNP guests: the Linux kernel's report interface, /sys/kernel/config/tsm/report.

Source: Documentation/ABI/testing/configfs-tsm-report, drivers/virt/coco/guest/report.c. A directory made there is a
request of one's own. What is written into `inblob` counts when the file is closed, and that close tells no error;
`generation` counts such writes, so it tells whether ours arrived and no other did.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from enclave_app.attesters import certificates
from enclave_app.attesters.base import EvidenceError, PlatformError, checked_report_data
from enclave_app.attesters.bound import MAX_QUOTE, snp_report, tdx_quote
from enclave_app.attesters.device import FILE_SYSTEM, SECONDS, Hardware, read_file, write_file
from enclave_app.protocol.measurement import TEE_SNP, TEE_TDX

REPORTS: Final = Path("/sys/kernel/config/tsm/report")
ATTEMPTS: Final = 3
PROVIDERS: Final = {"tdx": "tdx_guest", "snp": "sev_guest"}
TEES: Final = {"tdx": TEE_TDX, "snp": TEE_SNP}

_AGAIN: Final = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR})
_MAX_LINE: Final = 64


class ConfigfsTsmAttester(Hardware):
    """`kind` is "tdx" or "snp". For SEV-SNP the report is that of VMPL 0, which is what the kernel asks for by itself."""

    def __init__(self, kind: str, root: Path = FILE_SYSTEM, seconds: float = SECONDS) -> None:
        super().__init__(kind, TEES[kind], REPORTS, root, seconds)
        self._provider = PROVIDERS[kind]
        self._endorsements: tuple[bytes, ...] = ()

    async def quote(self, report_data: bytes) -> bytes:
        """A TDX quote, or an SEV-SNP report. Raises AttesterError's kinds."""
        data = checked_report_data(report_data)
        evidence, auxiliary = await self._device.call(lambda: self._report(data))
        if self.kind == "tdx":
            return tdx_quote(evidence, data)
        report = snp_report(evidence, data)
        self._endorsements = certificates.endorsements(auxiliary, report)
        return report

    async def endorsements(self) -> tuple[bytes, ...]:
        return self._endorsements

    def _report(self, data: bytes) -> tuple[bytes, bytes]:
        for _ in range(ATTEMPTS):
            with self._request() as place:
                provider = _line(place / "provider")
                if provider != self._provider:
                    raise PlatformError(
                        f"{self.path} is of {provider!r}, expected {self._provider}; correct `attester`"
                    )
                before = _generation(place)
                try:
                    write_file(place / "inblob", data)
                    evidence = read_file(place / "outblob", MAX_QUOTE)
                    auxiliary = read_file(place / "auxblob", MAX_QUOTE) if self.kind == "snp" else b""
                except OSError as error:
                    if error.errno not in _AGAIN:
                        raise
                    continue
                if _generation(place) == before + 1:
                    return evidence, auxiliary
        raise PlatformError(f"{self.path} stays busy, or something else writes into this enclave's requests")

    @contextlib.contextmanager
    def _request(self) -> Iterator[Path]:
        place = self.path / f"enclave-{secrets.token_hex(8)}"
        os.mkdir(place, 0o700)  # noqa: PTH102 - beside rmdir, which configfs allows for a directory with its own files in it
        try:
            yield place
        finally:
            os.rmdir(place)  # noqa: PTH106


def _line(path: Path) -> str:
    return read_file(path, _MAX_LINE).decode("ascii", "replace").strip()


def _generation(place: Path) -> int:
    text = _line(place / "generation")
    if not text.isdecimal():
        raise EvidenceError(f"{place}/generation is {text!r}, expected a number")
    return int(text)
