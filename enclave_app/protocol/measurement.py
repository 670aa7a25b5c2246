"""One 32-byte measurement per enclave, over every code and configuration register of its TEE kind (R3).

    measurement = SHA-256(TAG ‖ tee ‖ register ‖ register ‖ …)

`TAG` is SHA-256("enclave-oracle/measurement/1"), `tee` one byte (1 SGX, 2 TDX), and the registers are copied in the
byte order of the raw report body, in the order of the tables below. Left out are only what says nothing about code
or configuration: the platform's own SVNs, the TDX module's identity (both are the TCB status's business), the
report data, reserved bytes, and MRSERVICETD, which a verifier requires to be zero.

Layouts: Intel SGX SDM vol. 3D, REPORT; Intel TDX DCAP Quoting Library API, TD Quote Body 1.0 and 1.5.
"""

from __future__ import annotations

import hashlib
from typing import Final

TAG: Final = hashlib.sha256(b"enclave-oracle/measurement/1").digest()

TEE_SGX: Final = 1
TEE_TDX: Final = 2
TEE_SNP: Final = 3
TEE_NITRO: Final = 4

SGX_BODY_BYTES: Final = 384
TDX_BODY_BYTES: Final = (584, 648)
"""TD report 1.0 (quote v4) and 1.5 (quote v5); the measured registers lie at the same offsets in both."""

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


def _measure(tee: int, registers: tuple[tuple[str, int, int], ...], body: bytes) -> bytes:
    digest = hashlib.sha256(TAG + bytes([tee]))
    for _, offset, size in registers:
        digest.update(body[offset : offset + size])
    return digest.digest()
