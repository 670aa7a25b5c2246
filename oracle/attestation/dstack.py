"""A Nitro document inside what dstack stores of an attestation, where the document comes first.

Source: Dstack-TEE/dstack, `dstack-attest`: an attestation in SCALE is quote, runtime events, report data, configuration.
What follows the quote is nobody's signed word, so only tools that read files call this; the protocol takes bare documents.
"""

from __future__ import annotations

from typing import Final

from enclave_app.appraise import cbor
from enclave_app.appraise.errors import EvidenceRefused
from enclave_app.appraise.nitro import parse_document

REPORT_DATA: Final = 64
_NO_EVENTS: Final = b"\0"


def bare_document(evidence: bytes) -> bytes:
    """The document alone, when dstack's remainder follows it, with the report data that it signs; else `evidence` as it is."""
    try:
        _, end = cbor.decode(evidence)
        document = parse_document(evidence[:end])
    except EvidenceRefused:
        return evidence
    head = _NO_EVENTS + (document.user_data or b"")
    rest = evidence[end:]
    size, used = _compact(rest[len(head) :])
    configuration = rest[len(head) + used :]
    if not rest.startswith(head) or len(head) != len(_NO_EVENTS) + REPORT_DATA or len(configuration) != size:
        return evidence
    if configuration[:1] + configuration[-1:] != b"{}" or not configuration.isascii():
        return evidence
    return evidence[:end]


def _compact(data: bytes) -> tuple[int | None, int]:
    """A SCALE compact number of one or two bytes, and its length."""
    if not data:
        return None, 0
    match data[0] & 3:
        case 0:
            return data[0] >> 2, 1
        case 1 if len(data) > 1:
            return int.from_bytes(data[:2], "little") >> 2, 2
    return None, 0
