"""The SGX extension of a PCK certificate, 1.2.840.113741.1.13.1, as DER.

Source: Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5.
"""

from __future__ import annotations

from typing import Final

OID: Final = "1.2.840.113741.1.13.1"


def encode_sgx_extension(ppid: bytes, cpu_svn: bytes, pce_svn: int, pce_id: bytes, fmspc: bytes) -> bytes:
    """DER of the extension's value for a standard (single package) platform.

    `ppid` and `cpu_svn` are 16 bytes, `pce_id` 2, `fmspc` 6; each CPUSVN byte is also one TCB component SVN.
    """
    for name, value, size in (("ppid", ppid, 16), ("cpu_svn", cpu_svn, 16), ("pce_id", pce_id, 2), ("fmspc", fmspc, 6)):
        if len(value) != size:
            raise ValueError(f"{name} has {len(value)} bytes, expected {size}")
    components = [_entry(f"{OID}.2.{i}", _integer(svn)) for i, svn in enumerate(cpu_svn, start=1)]
    tcb = _tlv(
        0x30,
        *components,
        _entry(f"{OID}.2.17", _integer(pce_svn)),
        _entry(f"{OID}.2.18", _tlv(0x04, cpu_svn)),
    )
    return _tlv(
        0x30,
        _entry(f"{OID}.1", _tlv(0x04, ppid)),
        _entry(f"{OID}.2", tcb),
        _entry(f"{OID}.3", _tlv(0x04, pce_id)),
        _entry(f"{OID}.4", _tlv(0x04, fmspc)),
        _entry(f"{OID}.5", _tlv(0x0A, b"\x00")),
    )


def _entry(oid: str, value: bytes) -> bytes:
    return _tlv(0x30, _oid(oid), value)


def _tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return _tlv(0x06, bytes([first * 40 + second]), *(_base128(arc) for arc in rest))


def _base128(arc: int) -> bytes:
    groups = [arc & 0x7F]
    while arc := arc >> 7:
        groups.append(arc & 0x7F | 0x80)
    return bytes(reversed(groups))
