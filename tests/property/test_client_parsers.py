"""Whatever comes in, the parsers of YAML and agreement files give a value or a typed refusal."""

from __future__ import annotations

import contextlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Broker,
    Chain,
    Dataset,
    Enclaves,
    Function,
    KeyRelease,
    Limits,
    Output,
    Price,
)
from oracle.agreement.document import AgreementDocument, parse_document
from oracle.agreement.draft import build_draft
from oracle.agreement.explain import explain
from oracle.agreement.requesters import requester_proof, requesters_root
from oracle.agreement.sign import sign
from oracle.agreement.units import show_wei, wei
from oracle.function.spec import FunctionSpec, pack_function
from oracle.yamlfile import parse_yaml, validate_yaml

OWNER = SigningKey(b"\x07" * 32)
ONE = b"\x01" * 32
ADDRESS = "0x" + "11" * 20
AGREEMENT = Agreement(
    oracle=ADDRESS,
    enclave_registry=ADDRESS,
    fn=Function(
        id=ONE,
        sealed_id=ZERO32,
        shares_digest=ZERO32,
        owner=OWNER.address,
        kind=1,
        deterministic=True,
        limits=Limits(memory_mib=1, time_seconds=1, output_bytes=1, output_rows=1),
    ),
    data=(
        Dataset(
            name="t",
            owner=OWNER.address,
            id_or_stream=ONE,
            lineage=ONE,
            shares_digest=ONE,
            policy=1,
            min_version=0,
            columns=("a",),
            budget=0,
        ),
    ),
    tee=Enclaves(
        measurements=(ONE,),
        anchors=(ONE,),
        status_mask=2,
        eval_floor=1,
        grace_days=0,
        max_evidence_age=1,
        any_host=True,
        operators=(),
        platforms=(),
    ),
    keys=KeyRelease(
        brokers=(Broker(hpke_key=ONE, signer=ADDRESS),),
        threshold=1,
        max_releases=1,
        confirmation=1,
        confirm_blocks=0,
        release_delay=0,
    ),
    param_domain=ONE,
    outputs=(Output(name="result", kind=1, recipients=(ZERO32,), owners=(ADDRESS,), size_class=1),),
    access=Access(requesters=ANYONE, quota=1, quota_per_requester=1),
    price=Price(token=ZERO_ADDRESS, fee=0, min_fee=0, failed_fee=0, to=(), bps=()),
    not_before=1,
    not_after=2,
    activate_before=2,
    supersedes=ZERO32,
    auditors=ZERO32,
    salt=ONE,
)
DOCUMENT = sign(AgreementDocument(chain=Chain(chain_id=31337, agreement_registry=ADDRESS), agreement=AGREEMENT), OWNER)

plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.binary(max_size=8).map(lambda b: "0x" + b.hex())
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in [(*path, key), *places(item, (*path, key))]]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    changed = json.loads(json.dumps(value))
    inner = changed
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = new
    return changed


BASE = json.loads(DOCUMENT.canonical())


@given(st.binary(max_size=300))
def test_any_bytes_as_yaml_give_a_value_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(Refused):
        parse_yaml(data)


@given(st.text(alphabet="[]{}:,-&*!|>'\"#%@`\n a1?", max_size=80))
def test_any_yaml_punctuation_gives_a_value_or_a_refusal(text: str) -> None:
    with contextlib.suppress(Refused):
        parse_yaml(text.encode())


@given(values)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, default_style='"') if isinstance(value, str) else None
    if text is not None and text.isprintable():
        assert parse_yaml(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 0x00ab", {"a": "0x00ab"}),
        ("a: 010", {"a": "010"}),
        ("a: yes", {"a": "yes"}),
        ("a: 1.50", {"a": "1.50"}),
        ("a: 2026-12-31", {"a": "2026-12-31"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: [true, 7, ~, '7']", {"a": [True, 7, None, "7"]}),
        ("", None),
    ],
)
def test_yaml_scalars_are_what_they_look_like(text: str, value: object) -> None:
    assert parse_yaml(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: &x 1\nb: *x", "yaml.syntax"),
        ("a: 1\na: 2", "yaml.key"),
        ("? [a]\n: 1", "yaml.key"),
        ("[" * 1000, "yaml.depth"),
        ("a: [1", "yaml.syntax"),
        ("--- 1\n--- 2", "yaml.syntax"),
        ("a: " + "x" * (1 << 20), "yaml.size"),
    ],
)
def test_yaml_that_could_be_read_two_ways_is_refused(text: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_yaml(text.encode())
    assert refused.value.code == code


@given(st.binary(max_size=300))
def test_any_bytes_as_a_document_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        parse_document(data)


@given(st.sampled_from(places(BASE)), values)
@settings(max_examples=300)
def test_a_document_changed_in_one_place_is_refused_or_still_explained(path: tuple[Any, ...], new: Any) -> None:
    try:
        document = parse_document(json.dumps(replaced(BASE, path, new)).encode())
    except Refused:
        return
    assert explain(document)
    if document.signatures:
        assert document.agreement == AGREEMENT


@given(values)
def test_any_value_as_a_draft_is_refused(value: Any) -> None:
    with pytest.raises(Refused):
        build_draft(value, base=Path("/nonexistent"), now=1)


@given(values)
def test_any_value_as_a_function_gives_a_bundle_or_a_refusal(value: Any) -> None:
    spec = {"name": "f", "kind": "sql", "entry": "q.sql", "tables": value, "params": value, "outputs": ["result"]}
    with contextlib.suppress(Refused):
        pack_function(validate_yaml(FunctionSpec, spec), "SELECT 1")


@given(st.integers(0, 10**30))
def test_ether_amounts_are_exact_both_ways(amount: int) -> None:
    shown = show_wei(amount)
    if amount and amount < 10**36:
        assert Fraction(shown.split()[0]) * 10**18 == amount
        if len(shown.split(".")[0]) <= 18:
            assert wei(shown) == amount


@given(st.sets(st.binary(min_size=20, max_size=20).map(lambda b: "0x" + b.hex()), min_size=1, max_size=30))
def test_every_requester_proof_has_the_trees_depth(addresses: set[str]) -> None:
    listed = {address: 1 + number for number, address in enumerate(sorted(addresses))}
    assert len(requesters_root(listed)) == 32
    longest = (2 * len(listed) - 1).bit_length() - 1
    for address in listed:
        assert longest - 1 <= len(requester_proof(listed, address)) <= longest
