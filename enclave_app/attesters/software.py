"""A software quoting enclave: SGX quotes (version 3) in Intel's own format, under a development root (R4).

It stands where the hardware and Intel's quoting enclave would. Verifiers run the very same code on its quotes; only
the trust anchor tells them apart. Source: Intel SGX ECDSA Quote Library Reference, appendix A.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from enclave_app.attesters.base import checked_report_data
from enclave_app.attesters.collateral import QE_FLAGS, QE_ISV_PROD_ID, QE_ISV_SVN, QE_MRSIGNER
from enclave_app.attesters.dcap_format import (
    FLAG_INIT,
    FLAG_MODE64BIT,
    ReportBody,
    quote_header,
    raw_public_key,
    sign_raw,
    signature_section,
)
from enclave_app.attesters.measure import measure_program, package_root
from enclave_app.attesters.platform import DEVELOPMENT_CPU_SVN, Platform
from enclave_app.protocol.measurement import TEE_SGX, sgx_measurement

MRSIGNER: Final = hashlib.sha256(b"enclave-oracle/development/signer").digest()
QE_MRENCLAVE: Final = hashlib.sha256(b"enclave-oracle/development/quoting-enclave/1").digest()
QE_AUTH: Final = bytes(range(32))
ISV_PROD_ID: Final = 1
ISV_SVN: Final = 1


@dataclass(frozen=True)
class SoftwareEnclave:
    """Who a software enclave says it is. `mrenclave` is 32 bytes; `launch_config` is its canonical launch bytes."""

    mrenclave: bytes
    launch_config: bytes
    flags: int = FLAG_INIT | FLAG_MODE64BIT

    @classmethod
    def of_program(
        cls, launch_config: bytes, root: Path | None = None, extra: Mapping[str, str] | None = None
    ) -> SoftwareEnclave:
        """The enclave that the package at `root` (this one unless given) becomes. Raises MeasureError."""
        return cls(measure_program(root or package_root(), extra or {}), launch_config)

    @property
    def measurement(self) -> bytes:
        """The 32 bytes that agreements list, known before any launch."""
        return sgx_measurement(self.report(DEVELOPMENT_CPU_SVN, bytes(64)).encode())

    def report(self, cpu_svn: bytes, report_data: bytes) -> ReportBody:
        return ReportBody(
            cpu_svn=cpu_svn,
            mrenclave=self.mrenclave,
            mrsigner=MRSIGNER,
            report_data=report_data,
            isv_prod_id=ISV_PROD_ID,
            isv_svn=ISV_SVN,
            flags=self.flags,
            # R3: the launch configuration is measured, in the register that SGX has for it.
            config_id=hashlib.sha256(self.launch_config).digest() + bytes(32),
        )


class SoftwareAttester:
    """Mints quotes for one enclave on one development platform; the attestation key is new for each instance."""

    kind: Final = "software"
    tee: Final = TEE_SGX
    simulated: Final = True

    def __init__(self, platform: Platform, enclave: SoftwareEnclave) -> None:
        self._platform = platform
        self._enclave = enclave
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certified_key = self._certify_key()

    @classmethod
    def open(cls, directory: Path, enclave: SoftwareEnclave) -> SoftwareAttester:
        """From a directory that `python -m enclave_app.attesters.platform` made. Raises PlatformError."""
        return cls(Platform.load(directory), enclave)

    @property
    def enclave(self) -> SoftwareEnclave:
        return self._enclave

    async def quote(self, report_data: bytes) -> bytes:
        """A version 3 quote over exactly 64 bytes. Raises ReportDataError for another length."""
        body = self._enclave.report(self._platform.cpu_svn, checked_report_data(report_data))
        header = quote_header(QE_ISV_SVN, self._platform.pce_svn, hashlib.sha256(self._platform.ppid).digest()[:20])
        signed = header + body.encode()
        qe_report, qe_signature = self._certified_key
        return signed + signature_section(
            sign_raw(self._key, signed),
            raw_public_key(self._key.public_key()),
            qe_report,
            qe_signature,
            QE_AUTH,
            self._platform.chain_pem,
        )

    async def endorsements(self) -> tuple[bytes, ...]:
        return ()

    def _certify_key(self) -> tuple[bytes, bytes]:
        """The QE report that binds the attestation key, and the PCK key's signature over it."""
        binding = hashlib.sha256(raw_public_key(self._key.public_key()) + QE_AUTH).digest() + bytes(32)
        report = ReportBody(
            cpu_svn=self._platform.cpu_svn,
            mrenclave=QE_MRENCLAVE,
            mrsigner=QE_MRSIGNER,
            report_data=binding,
            isv_prod_id=QE_ISV_PROD_ID,
            isv_svn=QE_ISV_SVN,
            flags=QE_FLAGS | FLAG_MODE64BIT,
        ).encode()
        return report, sign_raw(self._platform.pck_key, report)
