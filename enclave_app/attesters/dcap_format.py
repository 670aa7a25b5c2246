"""Bytes of an Intel SGX ECDSA quote, version 3, as the software quoting enclave writes them.

Source: Intel SGX ECDSA Quote Library Reference, appendix A.4 (quote format); Intel SDM vol. 3D (REPORT). All
integers are little-endian; signatures are raw r ‖ s and public keys raw x ‖ y, 32 bytes each, big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERTIFICATION_PCK_CHAIN: Final = 5
ATTESTATION_KEY_P256: Final = 2

FLAG_INIT: Final = 0x01
FLAG_DEBUG: Final = 0x02
FLAG_MODE64BIT: Final = 0x04
XFRM_AVX512: Final = 0xE7
"""x87, SSE, AVX and AVX-512 state: what current SGX platforms report."""


@dataclass(frozen=True)
class ReportBody:
    """The 384-byte SGX report body. `flags` and `xfrm` are 64 bits each; the byte strings have their field's size."""

    cpu_svn: bytes
    mrenclave: bytes
    mrsigner: bytes
    report_data: bytes
    isv_prod_id: int = 0
    isv_svn: int = 0
    flags: int = FLAG_INIT | FLAG_MODE64BIT
    xfrm: int = XFRM_AVX512
    miscselect: int = 0
    isv_ext_prod_id: bytes = bytes(16)
    config_id: bytes = bytes(64)
    config_svn: int = 0
    isv_family_id: bytes = bytes(16)

    def encode(self) -> bytes:
        """384 bytes. Raises ValueError when a field has another size than its own."""
        sizes = (
            ("cpu_svn", self.cpu_svn, 16),
            ("isv_ext_prod_id", self.isv_ext_prod_id, 16),
            ("mrenclave", self.mrenclave, 32),
            ("mrsigner", self.mrsigner, 32),
            ("config_id", self.config_id, 64),
            ("isv_family_id", self.isv_family_id, 16),
            ("report_data", self.report_data, 64),
        )
        for name, value, size in sizes:
            # struct's "s" would silently pad or cut, and so bind something else than was asked for (R2).
            if len(value) != size:
                raise ValueError(f"{name} has {len(value)} bytes, expected {size}")
        return struct.pack(
            "<16sI12x16sQQ32s32x32s32x64sHHH42x16s64s",
            self.cpu_svn,
            self.miscselect,
            self.isv_ext_prod_id,
            self.flags,
            self.xfrm,
            self.mrenclave,
            self.mrsigner,
            self.config_id,
            self.isv_prod_id,
            self.isv_svn,
            self.config_svn,
            self.isv_family_id,
            self.report_data,
        )


def quote_header(qe_svn: int, pce_svn: int, user_data: bytes) -> bytes:
    """The 48-byte header of a version 3 quote; `user_data` is 20 bytes (the QE's own id, then zeros)."""
    return struct.pack("<HHIHH16s20s", 3, ATTESTATION_KEY_P256, 0, qe_svn, pce_svn, INTEL_QE_VENDOR, user_data)


def signature_section(
    quote_signature: bytes, attestation_key: bytes, qe_report: bytes, qe_signature: bytes, auth: bytes, chain: bytes
) -> bytes:
    """ECDSA signature data with its own length in front, ending in the PCK chain (certification data type 5)."""
    data = b"".join(
        (
            quote_signature,
            attestation_key,
            qe_report,
            qe_signature,
            struct.pack("<H", len(auth)),
            auth,
            struct.pack("<HI", CERTIFICATION_PCK_CHAIN, len(chain)),
            chain,
        )
    )
    return struct.pack("<I", len(data)) + data


def raw_public_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """x ‖ y, 64 bytes."""
    numbers = key.public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def sign_raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA with SHA-256 over `message` as r ‖ s, 64 bytes."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
