"""One 32-byte measurement per enclave, over every code and configuration register of its TEE kind (R3).

    measurement = SHA-256(TAG ‖ tee ‖ register ‖ register ‖ …)

`TAG` is SHA-256("enclave-oracle/measurement/1"), `tee` one byte (1 SGX, 2 TDX, 3 SNP, 4 Nitro), and the registers are
copied in the byte order of the raw report body, in the order of the tables below. Left out are only what says nothing
about code or configuration: the platform's own SVNs and settings, the TDX module's identity (all the TCB's business), the
report data, the ids of one run, reserved bytes, and MRSERVICETD, which a verifier requires to be zero.

A Nitro document lists its registers: each is hashed as index (1 byte) ‖ length (1 byte) ‖ value, by rising index, without
PCR3 and PCR4, which name the parent instance's role and id and not the enclave.

Layouts: Intel SGX SDM vol. 3D, REPORT; Intel TDX DCAP Quoting Library API, TD Quote Body 1.0 and 1.5; AMD SEV Secure Nested
Paging Firmware ABI (56860), ATTESTATION_REPORT; AWS Nitro Enclaves User Guide, "Verifying the root of trust".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

TAG: Final = hashlib.sha256(b"enclave-oracle/measurement/1").digest()

TEE_SGX: Final = 1
TEE_TDX: Final = 2
TEE_SNP: Final = 3
TEE_NITRO: Final = 4

SGX_BODY_BYTES: Final = 384
TDX_BODY_BYTES: Final = (584, 648)
"""TD report 1.0 (quote v4) and 1.5 (quote v5); the measured registers lie at the same offsets in both."""
SNP_REPORT_BYTES: Final = 1184
NITRO_PARENT_PCRS: Final = frozenset({3, 4})
"""Of the parent instance: its role's and its own id."""

SGX_REGISTERS: Final[tuple[tuple[str, int, int], ...]] = (
    ("miscselect", 16, 4),
    ("attributes", 48, 16),
    ("mrenclave", 64, 32),
    ("mrsigner", 128, 32),
    ("isvprodid", 256, 2),
    ("isvsvn", 258, 2),
    ("isvextprodid", 32, 16),
    ("configid", 192, 64),
    ("configsvn", 260, 2),
    ("isvfamilyid", 304, 16),
)
"""(name, offset in the report body, bytes), in the order in which they are hashed."""

TDX_REGISTERS: Final[tuple[tuple[str, int, int], ...]] = (
    ("tdattributes", 120, 8),
    ("xfam", 128, 8),
    ("mrtd", 136, 48),
    ("mrconfigid", 184, 48),
    ("mrowner", 232, 48),
    ("mrownerconfig", 280, 48),
    ("rtmr0", 328, 48),
    ("rtmr1", 376, 48),
    ("rtmr2", 424, 48),
    ("rtmr3", 472, 48),
)
"""(name, offset in the report body, bytes), in the order in which they are hashed."""

SNP_REGISTERS: Final[tuple[tuple[str, int, int], ...]] = (
    ("guestsvn", 0x04, 4),
    ("policy", 0x08, 8),
    ("familyid", 0x10, 16),
    ("imageid", 0x20, 16),
    ("vmpl", 0x30, 4),
    ("measurement", 0x90, 48),
    ("hostdata", 0xC0, 32),
    ("idkeydigest", 0xE0, 48),
    ("authorkeydigest", 0x110, 48),
)
"""(name, offset in the attestation report, bytes), in the order in which they are hashed."""


def sgx_measurement(report_body: bytes) -> bytes:
    """The 32-byte measurement of a 384-byte SGX report body. Raises ValueError for any other length."""
    if len(report_body) != SGX_BODY_BYTES:
        raise ValueError(f"an SGX report body has {SGX_BODY_BYTES} bytes, found {len(report_body)}")
    return _measure(TEE_SGX, SGX_REGISTERS, report_body)


def tdx_measurement(report_body: bytes) -> bytes:
    """The 32-byte measurement of a 584- or 648-byte TD report body. Raises ValueError for any other length."""
    if len(report_body) not in TDX_BODY_BYTES:
        raise ValueError(f"a TD report body has one of {TDX_BODY_BYTES} bytes, found {len(report_body)}")
    return _measure(TEE_TDX, TDX_REGISTERS, report_body)


def snp_measurement(report: bytes) -> bytes:
    """The 32-byte measurement of a 1184-byte SEV-SNP attestation report. Raises ValueError for any other length."""
    if len(report) != SNP_REPORT_BYTES:
        raise ValueError(f"an SEV-SNP report has {SNP_REPORT_BYTES} bytes, found {len(report)}")
    return _measure(TEE_SNP, SNP_REGISTERS, report)


def nitro_measurement(pcrs: Mapping[int, bytes]) -> bytes:
    """The 32-byte measurement of a Nitro document's registers, index (0 to 31) → value (at most 64 bytes)."""
    digest = hashlib.sha256(TAG + bytes([TEE_NITRO]))
    for index in sorted(pcrs.keys() - NITRO_PARENT_PCRS):
        digest.update(bytes([index, len(pcrs[index])]) + pcrs[index])
    return digest.digest()


def _measure(tee: int, registers: tuple[tuple[str, int, int], ...], body: bytes) -> bytes:
    digest = hashlib.sha256(TAG + bytes([tee]))
    for _, offset, size in registers:
        digest.update(body[offset : offset + size])
    return digest.digest()
