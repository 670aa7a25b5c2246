"""Nitro documents that hold, and each with one thing changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from enclave_app.appraise import cbor
from enclave_app.appraise.errors import Code, EvidenceRefused
from enclave_app.appraise.nitro import NitroClaims, parse_document, verify_document
from enclave_app.protocol.structs import Tee
from tests import nitro_kit as kit
from tests import recorded_kit
from tests.nitro_kit import DAY, HOUR, NOW
from tests.recorded_kit import named

LINKS = kit.links()
CHAIN = kit.chain(LINKS)
ROOT = kit.root_of(CHAIN)
DOCUMENT = kit.sign(cbor2.dumps(kit.content(CHAIN)), LINKS[-1].key)
AWS = bytes.fromhex(recorded_kit.MANIFEST["roots"]["aws_nitro"]["der_sha256"])
# What a dstack container adds is no part of the document (`oracle/attestation/dstack.py`).
RECORDED = [(case, run) for case, run in recorded_kit.runs("nitro") if case["name"] != "dstack-prod-2025"]


def check(document: bytes = DOCUMENT, root: bytes = ROOT, now: int = NOW) -> NitroClaims:
    return verify_document(parse_document(document), root, now)


def refused(code: Code, call: Callable[[], Any]) -> None:
    with pytest.raises(EvidenceRefused) as caught:
        call()
    assert caught.value.code is code
    assert all((caught.value.found, caught.value.expected, caught.value.action))


def said(**fields: Any) -> bytes:
    """A document that says something else, signed as it should be."""
    return kit.sign(cbor2.dumps(kit.content(CHAIN, **fields)), LINKS[-1].key)


@pytest.mark.parametrize(("case", "run"), RECORDED, ids=named(RECORDED))
def test_a_recorded_document_gives_what_its_manifest_says(case: dict[str, Any], run: dict[str, Any]) -> None:
    document = parse_document(recorded_kit.evidence(case))
    if run["expected"] == "ok":
        assert verify_document(document, AWS, run["now"]).valid_until == run["valid_until"]
        refused(Code.COLLATERAL_EXPIRED, lambda: verify_document(document, AWS, run["valid_until"]))
        refused(Code.COLLATERAL_NOT_YET_VALID, lambda: verify_document(document, AWS, run["valid_from"] - 1))
        refused(Code.ROOT_MISMATCH, lambda: verify_document(document, ROOT, run["now"]))
    else:
        refused(Code.DEBUG_ENCLAVE, lambda: verify_document(document, AWS, run["now"]))


@pytest.mark.parametrize("case", recorded_kit.cases("nitro"), ids=lambda case: case["name"])
def test_a_recorded_document_parses_into_its_recorded_fields(case: dict[str, Any]) -> None:
    data = recorded_kit.evidence(case)
    document = parse_document(data[: cbor.decode(data)[1]])
    found = {
        "module_id": document.module_id,
        "timestamp_ms": document.timestamp,
        "pcrs": {str(index): value.hex() for index, value in document.pcrs.items() if any(value)},
        "n_pcrs": len(document.pcrs),
        "public_key": (document.public_key or b"").hex(),
        "user_data": (document.user_data or b"").hex(),
        "nonce": (document.nonce or b"").hex(),
    }
    assert found == case["fields"]


def test_a_minted_document_gives_the_claims_that_were_put_in() -> None:
    claims = check()

    assert claims.tee is Tee.NITRO
    assert claims.report_data == bytes(range(64))
    assert claims.root == hashlib.sha256(CHAIN[0]).digest()
    assert claims.platform == hashlib.sha256(kit.pcr("4")).digest()
    assert claims.valid_until == NOW + 3 * HOUR


def test_a_tagged_message_is_the_same_document() -> None:
    tagged = kit.sign(cbor2.dumps(kit.content(CHAIN)), LINKS[-1].key, tagged=True)
    assert tagged[0] == 0xD2
    assert check(tagged).measurement == check().measurement


def test_padding_is_cut_and_counted() -> None:
    document = parse_document(DOCUMENT + bytes(70))
    assert (document.trailing, document.raw) == (70, DOCUMENT)
    assert replace(document, trailing=0) == parse_document(DOCUMENT)


def test_each_register_but_the_parent_s_changes_the_measurement() -> None:
    """R3"""
    before = kit.content(CHAIN)["pcrs"]
    for index in range(32):
        changed = parse_document(said(pcrs={**before, index: kit.pcr("changed")})).measurement
        assert (changed == check().measurement) == (index in (3, 4)), index


def test_digests_have_the_documented_layout() -> None:
    registers = kit.content(CHAIN)["pcrs"]
    tag = hashlib.sha256(b"enclave-oracle/measurement/1").digest()
    hashed = b"".join(bytes([index, 48]) + registers[index] for index in (0, 1, 2, *range(5, 16)))
    assert check().measurement == hashlib.sha256(tag + b"\x04" + hashed).digest()

    assert check().svn_digest == hashlib.sha256(hashlib.sha256(b"enclave-oracle/svn/1").digest() + b"\x04").digest()
    behind = b"".join(len(der).to_bytes(4, "big") + der for der in CHAIN)
    assert check().collateral == hashlib.sha256(behind).digest()


def test_another_instance_is_another_platform() -> None:
    pcrs = {**kit.content(CHAIN)["pcrs"], 4: kit.pcr("another")}
    assert check(said(pcrs=pcrs)).platform != check().platform


# Form


@pytest.mark.parametrize(
    ("code", "document"),
    [
        (Code.EVIDENCE_TOO_SHORT, b""),
        (Code.EVIDENCE_TOO_SHORT, DOCUMENT[:-1]),
        (Code.EVIDENCE_TOO_LONG, DOCUMENT + bytes(32768)),
        (Code.EVIDENCE_TRAILING_BYTES, DOCUMENT + b"\x01"),
        (Code.EVIDENCE_TRAILING_BYTES, DOCUMENT + bytes(64) + b"\x01"),
        (Code.DOCUMENT_FIELD, cbor2.dumps([b"", {}, b""])),
        (Code.DOCUMENT_FIELD, cbor2.dumps({})),
        (Code.DOCUMENT_ENCODING, b"\xd1" + DOCUMENT),
        (Code.DOCUMENT_ENCODING, b"\xd2\xd2" + DOCUMENT),
        (Code.DOCUMENT_HEADER, kit.sign(cbor2.dumps(kit.content(CHAIN)), LINKS[-1].key, protected=cbor2.dumps({1: -7}))),
        (Code.DOCUMENT_HEADER, kit.sign(cbor2.dumps(kit.content(CHAIN)), LINKS[-1].key, protected=cbor2.dumps({}))),
        (Code.DOCUMENT_HEADER, kit.sign(cbor2.dumps(kit.content(CHAIN)), LINKS[-1].key,
                                        protected=cbor2.dumps({1: -35, 4: b"key"}))),
        (Code.DOCUMENT_HEADER, kit.sign(cbor2.dumps(kit.content(CHAIN)), LINKS[-1].key, protected=kit.PROTECTED + b"\0")),
        (Code.DOCUMENT_HEADER, kit.sign(cbor2.dumps(kit.content(CHAIN)), LINKS[-1].key, unprotected={1: -35})),
        (Code.DOCUMENT_FIELD, cbor2.dumps([kit.PROTECTED, {}, cbor2.dumps(kit.content(CHAIN)), bytes(95)])),
        (Code.DOCUMENT_FIELD, kit.sign(cbor2.dumps(kit.content(CHAIN)) + b"\0", LINKS[-1].key)),
        (Code.DOCUMENT_FIELD, kit.sign(cbor2.dumps([1]), LINKS[-1].key)),
        (Code.DOCUMENT_ENCODING, kit.sign(b"\xa2\x61a\x01\x61a\x02", LINKS[-1].key)),
        (Code.DOCUMENT_ENCODING, kit.sign(b"\xa1\x61a\x18\x01", LINKS[-1].key)),
        (Code.DOCUMENT_ENCODING, kit.sign(b"\xa1\x61a\xf9\x3c\x00", LINKS[-1].key)),
        (Code.DOCUMENT_ENCODING, kit.sign(b"\xa1\x61a\x5f\x41a\xff", LINKS[-1].key)),
    ],
)  # fmt: skip
def test_a_message_of_another_form_is_refused(code: Code, document: bytes) -> None:
    refused(code, lambda: parse_document(document))


PCRS = kit.content(CHAIN)["pcrs"]


@pytest.mark.parametrize(
    "fields",
    [
        *({name: ...} for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")),
        {"extra": 1},
        {"module_id": ""},
        {"module_id": b"i"},
        {"digest": "SHA256"},
        {"timestamp": 0},
        {"timestamp": -1},
        {"timestamp": "1"},
        {"pcrs": {}},
        {"pcrs": []},
        {"pcrs": [bytes(48)]},
        {"pcrs": {**PCRS, 32: bytes(48)}},
        {"pcrs": {**PCRS, -1: bytes(48)}},
        {"pcrs": {**PCRS, "0": bytes(48)}},
        {"pcrs": {**PCRS, 0: bytes(47)}},
        {"pcrs": {**PCRS, 0: 1}},
        {"pcrs": {**PCRS, 4: bytes(48)}},
        *({"pcrs": {index: value for index, value in PCRS.items() if index != gone}} for gone in (0, 1, 2, 4)),
        {"certificate": b""},
        {"certificate": bytes(1025)},
        {"certificate": None},
        {"cabundle": []},
        {"cabundle": CHAIN[0]},
        {"cabundle": CHAIN[:1] * 9},
        {"cabundle": [*CHAIN[:-1], b""]},
        {"cabundle": [*CHAIN[:-1], "x"]},
        {"public_key": bytes(1025)},
        {"user_data": bytes(513)},
        {"nonce": bytes(513)},
        {"nonce": "x"},
    ],
    ids=lambda fields: text if len(text := str(fields)) < 60 else "-".join(fields),
)
def test_a_field_of_another_form_is_refused(fields: dict[str, Any]) -> None:
    refused(Code.DOCUMENT_FIELD, lambda: parse_document(said(**fields)))


def test_what_the_enclave_puts_in_may_be_anything_within_bounds_or_nothing() -> None:
    most = {"public_key": bytes(1024), "user_data": bytes(512), "nonce": bytes(512)}
    assert check(said(**most)).document.nonce == bytes(512)
    assert check(said(**dict.fromkeys(most, ...))).report_data == b""
    assert check(said(**dict.fromkeys(most, b""))).report_data == b""


# Verification


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_debug_enclave_is_refused(index: int) -> None:
    refused(Code.DEBUG_ENCLAVE, lambda: check(said(pcrs={**PCRS, index: bytes(48)})))


def test_another_root_is_refused() -> None:
    refused(Code.ROOT_MISMATCH, lambda: check(root=AWS))


@pytest.mark.parametrize("offset", [-1, -96, -200])
def test_one_changed_bit_is_refused(offset: int) -> None:
    at = len(DOCUMENT) + offset
    changed = DOCUMENT[:at] + bytes([DOCUMENT[at] ^ 1]) + DOCUMENT[at + 1 :]
    with pytest.raises(EvidenceRefused):
        check(changed)


def test_a_changed_claim_under_the_old_signature_is_refused() -> None:
    message = cbor2.loads(DOCUMENT)
    message[2] = cbor2.dumps(kit.content(CHAIN, nonce=b"another"))
    refused(Code.DOCUMENT_SIGNATURE, lambda: check(cbor2.dumps(message)))


def test_a_document_that_another_key_signed_is_refused() -> None:
    refused(Code.DOCUMENT_SIGNATURE, lambda: check(kit.sign(cbor2.dumps(kit.content(CHAIN)), kit.key())))


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("shift", [0, -1], ids=["at its end", "before its start"])
def test_each_certificate_has_to_hold(index: int, shift: int) -> None:
    ended = LINKS[index].but(end=NOW) if shift == 0 else LINKS[index].but(start=NOW + 1)
    of = [*LINKS[:index], ended, *LINKS[index + 1 :]]
    code = Code.COLLATERAL_EXPIRED if shift == 0 else Code.COLLATERAL_NOT_YET_VALID
    refused(code, lambda: check(*kit.document(of)))


def test_a_document_has_to_be_of_its_certificate_s_time() -> None:
    refused(Code.COLLATERAL_NOT_YET_VALID, lambda: check(said(timestamp=(NOW + 1) * 1000)))
    refused(Code.COLLATERAL_NOT_YET_VALID, lambda: check(said(timestamp=(NOW - DAY) * 1000)))
    assert check(said(timestamp=NOW * 1000 + 999)).verified_at == NOW


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        *((index, {"ca": False}) for index in range(4)),
        *((index, {"usage": False}) for index in range(5)),
        *((index, {"constraints": False}) for index in range(4)),
        *((index, {"ca": False, "cert_sign": True}) for index in range(4)),
        *((index, {"cert_sign": False}) for index in range(4)),
        (4, {"ca": True}),
        (1, {"path": 1}),
        (2, {"path": 0}),
        *((index, {"key": ec.generate_private_key(ec.SECP256R1())}) for index in range(5)),
    ],
)
def test_a_certificate_that_may_not_do_what_it_does_is_refused(index: int, changes: dict[str, Any]) -> None:
    of = [*LINKS[:index], LINKS[index].but(**changes), *LINKS[index + 1 :]]
    refused(Code.CERTIFICATE_CHAIN, lambda: check(*kit.document(of)))


def test_a_chain_with_a_missing_swapped_or_foreign_certificate_is_refused() -> None:
    foreign = kit.chain(kit.links())
    for bundle in (
        [*CHAIN[:2], CHAIN[3]],
        [CHAIN[0], CHAIN[2], CHAIN[1], CHAIN[3]],
        [CHAIN[0], foreign[1], *CHAIN[2:4]],
        [*CHAIN[:3], foreign[3]],
        CHAIN[:1],
    ):
        refused(Code.CERTIFICATE_CHAIN, lambda: check(said(cabundle=bundle)))  # noqa: B023


def test_a_root_issues_itself() -> None:
    issued = [kit.certificate(LINKS[0], LINKS[0].but(name="another")), *CHAIN[1:]]
    document = kit.sign(cbor2.dumps(kit.content(issued)), LINKS[-1].key)
    refused(Code.CERTIFICATE_CHAIN, lambda: check(document, kit.root_of(issued)))


def test_an_unreadable_certificate_is_refused() -> None:
    refused(Code.CERTIFICATE_FORMAT, lambda: check(said(certificate=CHAIN[-1][:-1])))
    refused(Code.CERTIFICATE_FORMAT, lambda: check(said(cabundle=[*CHAIN[:3], CHAIN[3] + b"\0"])))


# CBOR

VALUES = st.recursive(
    st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=40) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers(-5, 300) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


def depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth, parts), default=0)


@given(VALUES)
def test_what_another_encoder_wrote_is_read(value: Any) -> None:
    data = cbor2.dumps(value)
    if depth(value) <= cbor.MAX_DEPTH:
        assert cbor.decode(data) == (value, len(data))
    else:
        refused(Code.DOCUMENT_ENCODING, lambda: cbor.decode(data))


BYTE = st.integers(0, 255)
CHANGED = st.builds(lambda value, at, byte: _changed(cbor2.dumps(value), at, byte), VALUES, st.integers(0), BYTE)


@given(st.binary(max_size=40) | CHANGED)
def test_what_we_read_another_decoder_reads_the_same(data: bytes) -> None:
    try:
        value, end = cbor.decode(data)
    except EvidenceRefused:
        return
    assert cbor2.loads(data[:end]) == value


def _changed(data: bytes, at: int, byte: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([byte]) + data[at + 1 :]


def test_maps_and_arrays_of_indefinite_length_are_read() -> None:
    assert cbor.decode(bytes.fromhex("bf0102ff")) == ({1: 2}, 4)
    assert cbor.decode(bytes.fromhex("9f01bf02f6ffff")) == ([1, {2: None}], 7)


@pytest.mark.parametrize(
    "data",
    [
        *("1801", "190018", "1a00000018", "1b0000000000000018", "5801ff", "9801f6", "b80101f6", "1c", "1f", "3f"),
        *("5f4101ff", "7f6161ff", "c000", "f4", "f5", "f7", "f800", "f97c00", "fb7ff8000000000000", "ff", "61ff"),
        *("a201020102", "bf01020102ff", "a1f600", "a1800000", "8181818181f6"),
    ],
)
def test_cbor_in_another_form_is_refused(data: str) -> None:
    refused(Code.DOCUMENT_ENCODING, lambda: cbor.decode(bytes.fromhex(data)))


@pytest.mark.parametrize(
    "data", ["", "18", "19ff", "42ff", "82f6", "a101", "9f", "bf01", "9bffffffffffffffff", "5bffffffffffffffff"]
)
def test_cbor_that_ends_early_is_refused(data: str) -> None:
    refused(Code.EVIDENCE_TOO_SHORT, lambda: cbor.decode(bytes.fromhex(data)))


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_heads_are_the_shortest(number: int) -> None:
    assert cbor.head(0, number) == cbor2.dumps(number)
