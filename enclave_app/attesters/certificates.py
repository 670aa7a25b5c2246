"""The certificates that an SEV-SNP host hands its guest with a report.

Source: AMD 56421 (GHCB specification) 2.03, section 4.1.8.1: entries of GUID, offset and length, up to one of zeros.
"""

from __future__ import annotations

import ssl
import uuid
from typing import Final

from enclave_app.attesters.base import EvidenceError

VCEK: Final = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK: Final = uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK: Final = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
ARK: Final = uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")

_ENTRY: Final = 24
_END: Final = bytes(_ENTRY)
_SIGNED_BY_VLEK: Final = 1
"""SIGNING_KEY, bits 4:2 at 0x48 of the report: 0 VCEK, 1 VLEK."""


def endorsements(table: bytes, report: bytes) -> tuple[bytes, ...]:
    """(ek, ask, ark) in DER, (ek,) where the host lacks one of the others, () where it lacks the key that signed `report`.

    Raises EvidenceError for bytes that are no such table.
    """
    found = read_table(table)
    signing_key = (int.from_bytes(report[0x48:0x4C], "little") >> 2) & 7
    ek = found.get(VLEK if signing_key == _SIGNED_BY_VLEK else VCEK)
    if ek is None:
        return ()
    chain = tuple(found[guid] for guid in (ASK, ARK) if guid in found)
    return (ek, *chain) if len(chain) == 2 else (ek,)


def read_table(table: bytes) -> dict[uuid.UUID, bytes]:
    """GUID → certificate in DER. Nothing at all is an empty table. Raises EvidenceError."""
    found: dict[uuid.UUID, bytes] = {}
    if not any(table):
        return found
    places: list[tuple[uuid.UUID, int, int]] = []
    position = 0
    while (entry := table[position : position + _ENTRY]) != _END:
        if len(entry) != _ENTRY:
            raise EvidenceError("the host's certificate table has no end")
        position += _ENTRY
        # The GUID's bytes lie in the order of its text, unlike in UEFI's tables.
        guid = uuid.UUID(bytes=entry[:16])
        places.append((guid, int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:24], "little")))
    for guid, offset, length in places:
        if guid in found or offset < position + _ENTRY or not 0 < length <= len(table) - offset:
            raise EvidenceError(f"the host's certificate table has a wrong entry {guid}: {length} bytes at {offset}")
        found[guid] = _der(table[offset : offset + length])
    return found


def _der(certificate: bytes) -> bytes:
    """Some hosts were given PEM files."""
    if not certificate.startswith(b"-----BEGIN"):
        return certificate
    try:
        return ssl.PEM_cert_to_DER_cert(certificate.decode("ascii"))
    except ValueError as error:
        raise EvidenceError("the host's certificate table holds a PEM file that is no certificate") from error
