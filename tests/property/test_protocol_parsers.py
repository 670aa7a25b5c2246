"""Every parser of outside bytes raises `Refused` and nothing else, whatever it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from enclave_app.protocol import canonical, params, release, shares, streaming, structs, wire
from enclave_app.protocol.bundle import BundleHeader, read_bundle
from enclave_app.protocol.canonical import Document
from enclave_app.protocol.digests import parse_digest, sha256
from enclave_app.protocol.eip712 import Domain, Struct
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.hpke import OVERHEAD, PUBLIC_KEY_BYTES, PublicKey, SealingKey
from enclave_app.protocol.manifest import Manifest, read_manifest
from enclave_app.protocol.output import unpad
from enclave_app.protocol.rules import check_agreement, check_request
from enclave_app.protocol.signing import recover
from tests.property.hostile import places, replaced

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = json.loads((VECTORS / "eip712.json").read_text("utf-8"))["cases"]
BUNDLE = bytes.fromhex(json.loads((VECTORS / "bundle.json").read_text("utf-8"))["bundle"][2:])
DOMAIN = json.loads((VECTORS / "params.json").read_text("utf-8"))["domain"]
VALID: dict[type[Document], Any] = {
    **{getattr(structs, case["type"]): case["value"] for case in CASES},
    Manifest: json.loads(json.loads((VECTORS / "manifest.json").read_text("utf-8"))["cases"][0]["canonical"]),
    BundleHeader: json.loads(json.loads((VECTORS / "bundle.json").read_text("utf-8"))["header"]),
    params.ParamDomain: json.loads(DOMAIN),
}
_DECLARED = [kind for module in (release, wire) for kind in vars(module).values() if isinstance(kind, type)]
DOCUMENTS: list[type[Document]] = [*VALID, Domain, Evidence, shares.ShareList, structs.Chain]
DOCUMENTS += [kind for kind in _DECLARED if issubclass(kind, Document) and kind not in (*DOCUMENTS, Document)]
STRUCTS = [kind for kind in DOCUMENTS if issubclass(kind, Struct)]
KEY = SealingKey(bytes(32))

lean = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

keys = st.sampled_from(
    sorted({field.alias or name for kind in DOCUMENTS for name, field in kind.model_fields.items()})
) | st.text(max_size=4)
texts = (
    st.text(st.characters(), max_size=12)
    | st.sampled_from(
        ["0x", "0x" + "00" * 32, "0x" + "Ab" * 20, "1", "-1", "01", "\ud800", "2024-02-30", "true", "1e400"]
    )
    | st.integers(0, 1 << 257).map(str)
)
atoms = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)


def only_refused(parse: Callable[[], object]) -> object:
    """What `parse` returns, or its refusal; every other exception is the test's failure."""
    try:
        return parse()
    except Refused as error:
        return error


@lean
@given(st.binary(max_size=200) | values.map(lambda v: json.dumps(v).encode()), st.booleans())
@example(b"[" * 100_000, False)
@example(b'"\\ud800"', True)
@example(b"1" * 5000, False)
def test_json_from_outside(data: bytes, is_canonical: bool) -> None:
    value = only_refused(lambda: canonical.load(data, canonical=is_canonical))
    if is_canonical and not isinstance(value, Refused):
        assert canonical.dump(value) == data


@pytest.mark.parametrize("kind", DOCUMENTS, ids=lambda kind: kind.__name__)
@settings(lean, max_examples=12)
@given(value=values)
def test_any_json_as_a_document(kind: type[Document], value: Any) -> None:
    only_refused(lambda: canonical.validate(kind, value))


@pytest.mark.parametrize("kind", list(VALID), ids=lambda kind: kind.__name__)
@settings(lean, max_examples=25)
@given(data=st.data())
def test_a_document_with_one_part_replaced(kind: type[Document], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(VALID[kind])))
    changed = replaced(VALID[kind], path, data.draw(values))
    text = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
    document = only_refused(lambda: canonical.parse(kind, text))
    if isinstance(document, Document):
        assert document.canonical() == text
    loose = only_refused(lambda: canonical.parse(kind, text, canonical=False))
    if isinstance(loose, Document):
        assert canonical.parse(kind, loose.canonical()) == loose
    if isinstance(loose, structs.Agreement):
        only_refused(lambda: check_agreement(loose))
    if isinstance(loose, structs.TaskRequest):
        agreement = canonical.validate(structs.Agreement, VALID[structs.Agreement])
        only_refused(lambda: check_request(agreement, loose))
    if isinstance(loose, Struct):
        assert type(loose).abi_decode(loose.abi_encode()) == loose
        assert len(loose.struct_hash()) == 32


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
@settings(lean, max_examples=12)
@given(
    data=st.binary(max_size=300)
    | st.lists(st.integers(0, 400), max_size=30).map(lambda n: b"".join(i.to_bytes(32, "big") for i in n))
)
def test_abi_from_outside(kind: type[Struct], data: bytes) -> None:
    value = only_refused(lambda: kind.abi_decode(data))
    if isinstance(value, Struct):
        assert value.abi_encode() == data


AGREEMENT_ABI = bytes.fromhex(next(case["abi"] for case in CASES if case["type"] == "Agreement")[2:])


@lean
@given(st.integers(0, len(AGREEMENT_ABI) // 32 - 1), st.integers(0, 2000) | st.integers(0, (1 << 256) - 1))
def test_an_agreements_abi_with_one_word_replaced(index: int, number: int) -> None:
    data = AGREEMENT_ABI[: 32 * index] + number.to_bytes(32, "big") + AGREEMENT_ABI[32 * index + 32 :]
    value = only_refused(lambda: structs.Agreement.abi_decode(data))
    if isinstance(value, Struct):
        assert value.abi_encode() == data


@lean
@given(values)
def test_any_python_value_as_an_abi_tuple(value: Any) -> None:
    for kind in (structs.Host, structs.Broker, structs.Output, structs.Result):
        only_refused(lambda kind=kind: kind.from_abi(value))  # type: ignore[misc]


@lean
@given(st.binary(max_size=64) | st.integers(0, 400).map(lambda n: BUNDLE[: -n or None]), st.booleans())
def test_bundles(data: bytes, with_magic: bool) -> None:
    raw = b"EOFB\x01" + data if with_magic else data
    only_refused(lambda: read_bundle(raw, None))
    only_refused(lambda: read_bundle(raw, sha256(raw)))


@lean
@given(st.integers(0, len(BUNDLE) - 1), st.integers(1, 255))
def test_a_bundle_with_one_byte_changed_is_another_or_none(position: int, change: int) -> None:
    raw = bytearray(BUNDLE)
    raw[position] ^= change
    found = only_refused(lambda: read_bundle(bytes(raw), None))
    assert isinstance(found, Refused) or found.id != sha256(BUNDLE)  # type: ignore[attr-defined]


@lean
@given(st.binary(max_size=100))
def test_blobs_named_by_their_digest(data: bytes) -> None:
    only_refused(lambda: read_manifest(data, sha256(data)))
    only_refused(lambda: shares.read_share_list(data, bytes(32), sha256(data)))
    only_refused(lambda: shares.read_share_list(data, bytes(32), None))
    only_refused(lambda: params.read_domain(data, sha256(data)))


@lean
@given(st.dictionaries(st.sampled_from(["min_cases", "cutoff", "since", "unit", "strict"]), atoms) | values)
def test_parameters(value: Any) -> None:
    domain = canonical.parse(params.ParamDomain, DOMAIN.encode())
    only_refused(lambda: domain.read(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()))


@lean
@given(st.binary(max_size=120), st.integers(0, 3))
def test_packed_answers(data: bytes, count: int) -> None:
    for raw in (data, b"\x01\x02" + count.to_bytes(2, "big") + data):
        found = only_refused(lambda raw=raw: release.unpack_answer(raw))  # type: ignore[misc]
        if not isinstance(found, Refused):
            assert release.pack_answer(*found) == raw  # type: ignore[misc]


@lean
@given(st.binary(max_size=60))
def test_padding(data: bytes) -> None:
    only_refused(lambda: unpad(data))
    only_refused(lambda: unpad(b"\x01" + data))


@lean
@given(st.binary(min_size=65, max_size=65) | st.binary(max_size=70), st.binary(max_size=33))
def test_signatures(signature: bytes, digest: bytes) -> None:
    only_refused(lambda: recover(digest.ljust(32, b"\0"), signature))
    only_refused(lambda: recover(digest.ljust(32, b"\0"), signature[:64] + b"\x1b"))
    only_refused(lambda: recover(digest, signature))


@lean
@given(st.text(max_size=70) | st.binary(max_size=40).map(bytes.hex))
def test_digest_texts(text: str) -> None:
    only_refused(lambda: parse_digest(text))


@settings(lean, max_examples=20)
@given(st.binary(max_size=64), st.integers(0, PUBLIC_KEY_BYTES - 1), st.integers(0, 255))
def test_public_keys(data: bytes, position: int, byte: int) -> None:
    only_refused(lambda: PublicKey(data))
    wire_key = bytearray(KEY.public.wire)
    wire_key[position] = byte
    key = only_refused(lambda: PublicKey(bytes(wire_key)))
    if isinstance(key, PublicKey):
        assert key.seal(b"", b"")


@settings(lean, max_examples=20)
@given(st.binary(max_size=64), st.integers(0, OVERHEAD - 1))
def test_sealed_messages(data: bytes, cut: int) -> None:
    for message in (data, b"\x01" + data.ljust(OVERHEAD, b"\0"), KEY.public.seal(data, b"info")[:cut]):
        found = only_refused(lambda message=message: KEY.open(message, b"info"))  # type: ignore[misc]
        assert isinstance(found, Refused)


@settings(lean, max_examples=30)
@given(st.binary(max_size=100), st.integers(0, 3), st.integers(-40, 40))
def test_streams(data: bytes, segments: int, extra: int) -> None:
    only_refused(lambda: streaming.decrypt(bytes(32), data, b""))
    long = bytes([streaming.HEADER]) + bytes(max(0, segments * streaming.SEGMENT + extra))
    assert isinstance(only_refused(lambda: streaming.decrypt(bytes(32), long, b"")), Refused)
