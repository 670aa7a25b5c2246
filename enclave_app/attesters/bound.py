"""Evidence cut to its own length, and compared with what was asked for.

Not a verification: whoever relies on evidence does that. It catches a quote over stale or foreign report data, which
shared pseudo-files allow, before it leaves the enclave.

Sources: Intel SGX and TDX DCAP Quoting Library API, quote formats 3, 4 and 5; AMD 56860, ATTESTATION_REPORT.
"""

from __future__ import annotations

from typing import Final

from enclave_app.attesters.base import EvidenceError

MAX_QUOTE: Final = 32_768
"""Bytes; Linux's limit of a report, and above the largest quote with its certificate chain."""
SNP_REPORT_BYTES: Final = 1184

_HEADER: Final = 48
_SGX_BODY: Final = 384
_TDX_BODY: Final = 584
_TDX_BODIES_V5: Final = {2: 584, 3: 648}
"""Type of the body → bytes."""
_V5_BODY_HEADER: Final = 6
_TEE_TYPES: Final = {"SGX": 0, "TDX": 0x81}
_SGX_REPORT_DATA: Final = 320
_TDX_REPORT_DATA: Final = 520
_SNP_REPORT_DATA: Final = 0x50


def sgx_quote(data: bytes, report_data: bytes) -> bytes:
    """A version 3 quote without the zeros behind it. Raises EvidenceError."""
    version = _version(data, "SGX")
    if version != 3:
        raise EvidenceError(f"an SGX quote has version {version}, expected 3: ask for a DCAP (ECDSA) quote")
    return _quote(data, report_data, _HEADER, _SGX_BODY, _SGX_REPORT_DATA)


def tdx_quote(data: bytes, report_data: bytes) -> bytes:
    """A version 4 or 5 quote without the zeros behind it. Raises EvidenceError."""
    version = _version(data, "TDX")
    if version == 4:
        return _quote(data, report_data, _HEADER, _TDX_BODY, _TDX_REPORT_DATA)
    if version != 5:
        raise EvidenceError(f"a TDX quote has version {version}, expected 4 or 5")
    kind, size = _number(data, _HEADER, 2), _number(data, _HEADER + 2, 4)
    if _TDX_BODIES_V5.get(kind) != size:
        raise EvidenceError(
            f"a TDX quote has a body of type {kind} with {size} bytes; expected 2 with 584 or 3 with 648"
        )
    return _quote(data, report_data, _HEADER + _V5_BODY_HEADER, size, _TDX_REPORT_DATA)


def snp_report(data: bytes, report_data: bytes) -> bytes:
    """An attestation report. Raises EvidenceError."""
    if len(data) != SNP_REPORT_BYTES:
        raise EvidenceError(f"an SEV-SNP report has {len(data)} bytes, expected {SNP_REPORT_BYTES}")
    _compare(data[_SNP_REPORT_DATA : _SNP_REPORT_DATA + len(report_data)], report_data)
    return data


def _version(data: bytes, tee: str) -> int:
    found = _number(data, 4, 4)
    if found != _TEE_TYPES[tee]:
        raise EvidenceError(f"a quote is of TEE type {found:#x}, expected {_TEE_TYPES[tee]:#x} for {tee}")
    return _number(data, 0, 2)


def _quote(data: bytes, report_data: bytes, body: int, size: int, offset: int) -> bytes:
    start = body + size
    end = start + 4 + _number(data, start, 4)
    if end > len(data):
        raise EvidenceError(f"a quote declares {end} bytes, found {len(data)}")
    # Quoting libraries hand out the largest size that a quote may have; what verifiers get has one length only.
    if any(data[end:]):
        raise EvidenceError(f"something follows a quote's declared end at {end}")
    _compare(data[body + offset : body + offset + len(report_data)], report_data)
    return data[:end]


def _compare(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise EvidenceError(
            f"evidence is over report data {found.hex()}, expected {expected.hex()}; something else asks in between (R2)"
        )


def _number(data: bytes, offset: int, size: int) -> int:
    """Little-endian; of a quote that ends before, what is there. That no quote is that short shows in its declared end."""
    return int.from_bytes(data[offset : offset + size], "little")
