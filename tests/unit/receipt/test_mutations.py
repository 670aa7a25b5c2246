"""Each single field of a valid receipt, changed alone, is refused, and the link that is named is the right one."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_app.attesters.platform import DevelopmentAuthority
from oracle.attestation import intel_root
from oracle.receipt import LINKS, Expected, Verdict, read_receipt, verify_receipt
from oracle.receipt.document import ReceiptCollateral
from oracle.receipt.verify import Report
from tests.receipt_kit import collateral, make_story

Path = tuple[str | int, ...]
STORY, OTHER = make_story(), make_story()
RAW = STORY.receipt
VALID: dict[str, Any] = json.loads(RAW)
STRANGE: dict[str, Any] = json.loads(OTHER.receipt)
EXPECTED = Expected(agreement_id=STORY.record.result.agreement_id)

NAMED: dict[str, str] = {
    "format": "format",
    "v": "format",
    "assurance": "assurance",
    "chain": "agreement",
    "agreementId": "agreement",
    "taskId": "request",
    "agreement": "agreement",
    "consents": "consent",
    "function": "function",
    "paramDomain": "request",
    "manifests": "datasets",
    "request": "request",
    "evidence.tee": "evidence",
    "evidence.quote": "evidence",
    "evidence.signer": "binding",
    "evidence.sealingKey": "binding",
    "evidence.blockHash": "binding",
    "evidence.operator": "host",
    "evidence.operatorSignature": "host",
    "evidence.endorsements": "evidence",
    "evidence.voucher": "result",
    "collateral": "evidence",
    "root": "evidence",
    "releases": "releases",
    "result": "result",
    "signature": "result",
    "outputs": "outputs",
}
"""Where a change of each field has to be found. A field of the receipt that is missing here fails the tests."""


def check(data: bytes) -> Report:
    return verify_receipt(data, EXPECTED, STORY.time + 60, allow_simulated=True)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path


def changed(path: Path, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(VALID)
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


def at(path: Path, document: Any = VALID) -> Any:
    for key in path:
        document = document[key]
    return document


def changes(value: Any) -> Iterator[Any]:
    """The same kind of value, changed a little, in a few ways."""
    match value:
        case bool():
            yield not value
        case "SIMULATED":
            yield "ATTESTED"
        case int():
            yield value + 1
        case str() if value.startswith("0x") and len(value) > 2:
            digits = value[2:]
            for place in {0, len(digits) // 2, len(digits) - 1}:
                yield f"0x{digits[:place]}{int(digits[place], 16) ^ 1:x}{digits[place + 1 :]}"
        case str() if value == "0x":
            yield "0x00"
        case str() if value.isdigit():
            yield str(int(value) + 1)
        case str():
            middle = len(value) // 2
            yield value[:middle] + chr(ord(value[middle]) ^ 1) + value[middle + 1 :]
        case None:
            yield {"anchor": "0x" + "11" * 32, "measurement": "0x" + "22" * 32}
        case []:
            yield ["0x" + "11" * 32]
        case _:
            raise AssertionError(f"no change is known for {value!r}")


def link_of(path: Path) -> str:
    top = ".".join(str(part) for part in path[:2])
    return NAMED[top] if top in NAMED else NAMED[str(path[0])]


LEAVES = list(leaves(VALID))
MUTATIONS = [(path, value) for path in LEAVES for value in changes(at(path))]


def test_the_valid_receipt_is_authentic_and_says_that_it_is_simulated() -> None:
    found = check(RAW)
    assert (found.verdict, found.failed, found.reason) == (Verdict.AUTHENTIC, None, None)
    assert found.simulated
    assert found.outcome == "succeeded"
    assert [link.name for link in found.links] == ["format", *LINKS]
    assert all(link.ok and link.detail for link in found.links)


def test_every_leaf_is_mutated_and_there_are_enough() -> None:
    assert {path for path, _ in MUTATIONS} == set(LEAVES)
    assert len(LEAVES) >= 120
    assert len(MUTATIONS) >= 200
    assert {str(path[0]) for path in LEAVES} == set(VALID)


@pytest.mark.parametrize(
    ("path", "value"),
    [pytest.param(p, v, id=f"{'.'.join(map(str, p))}-{n}") for n, (p, v) in enumerate(MUTATIONS)],
)
def test_a_changed_field_is_refused_by_its_link(path: Path, value: Any) -> None:
    found = check(dumped(changed(path, value)))
    assert found.verdict is Verdict.REFUSED
    assert found.failed == link_of(path), found.links
    assert found.reason


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_a_missing_field_is_refused(path: Path) -> None:
    document = copy.deepcopy(VALID)
    del at(path[:-1], document)[path[-1]]
    found = check(dumped(document))
    assert found.verdict is Verdict.REFUSED
    # An entry of a list leaves a document of the right form, and is missed by what counts the entries.
    assert found.failed == (link_of(path) if isinstance(path[-1], int) else "format")


def edited(edit: Callable[[dict[str, Any]], None]) -> bytes:
    document = copy.deepcopy(VALID)
    edit(document)
    return dumped(document)


def swap(items: list[Any]) -> None:
    items[0], items[1] = items[1], items[0]


def other_signatures(document: dict[str, Any]) -> None:
    first, second = document["releases"]
    first["signature"], second["signature"] = second["signature"], first["signature"]


def from_other(*names: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update({name: STRANGE[name] for name in names})


def with_spaces(text: str) -> str:
    """The same certificates, with other white space."""
    return text.replace("\n-----END", " \n-----END", 1)


def spaced_quote(document: dict[str, Any]) -> None:
    quote = bytes.fromhex(document["evidence"]["quote"][2:])
    begin = quote.index(b"-----BEGIN")
    end = quote.index(b"\n", begin + 30)
    document["evidence"]["quote"] = "0x" + (quote[:end] + b"\t" + quote[end + 1 :]).hex()


FOREIGN = json.loads(ReceiptCollateral.of(collateral(DevelopmentAuthority(STORY.time))).canonical())
STRUCTURAL: dict[str, tuple[bytes, str, str]] = {
    "a release dropped": (edited(lambda d: d["releases"].pop()), "releases", "release.too_few"),
    "releases swapped": (edited(lambda d: swap(d["releases"])), "releases", "release.order"),
    "a release twice": (
        edited(lambda d: d.update(releases=[d["releases"][0]] * 2)),
        "releases",
        "release.order",
    ),
    "signatures of two brokers swapped": (edited(other_signatures), "releases", "release.signature"),
    "no release": (edited(lambda d: d.update(releases=[])), "format", "document.invalid"),
    "releases of another task": (edited(from_other("releases")), "releases", "release.signature"),
    "consents swapped": (edited(lambda d: swap(d["consents"])), "consent", "consent.signature"),
    "a consent dropped": (edited(lambda d: d["consents"].pop()), "consent", "consent.count"),
    "a consent emptied": (edited(lambda d: d["consents"].__setitem__(0, "0x")), "consent", "consent.on_chain"),
    "consents to another agreement": (edited(from_other("consents")), "consent", "consent.signature"),
    "terms of another agreement": (edited(from_other("agreement")), "agreement", "agreement.id"),
    "another agreement": (edited(from_other("agreement", "agreementId")), "agreement", "agreement.unexpected"),
    "the function left out": (edited(lambda d: d.update(function=None)), "function", "function.missing"),
    "another function": (edited(from_other("function")), "function", "bundle.digest"),
    "manifests swapped": (edited(lambda d: swap(d["manifests"])), "datasets", "manifest.digest"),
    "a manifest dropped": (edited(lambda d: d["manifests"].pop()), "datasets", "datasets.count"),
    "another request": (edited(from_other("request", "taskId")), "request", "request.agreement"),
    "another enclave": (edited(from_other("evidence")), "host", "host.not_agreed"),
    "the root left out": (edited(lambda d: d.update(root=None)), "evidence", "evidence.anchor_not_listed"),
    "Intel's root brought along": (
        edited(lambda d: d.update(root="0x" + intel_root().hex())),
        "evidence",
        "evidence.root_pinned",
    ),
    "collateral of another root": (
        edited(lambda d: d.update(collateral=FOREIGN)),
        "evidence",
        "evidence.form",
    ),
    "white space in the collateral": (
        edited(lambda d: d["collateral"].update(pckCrlIssuerChain=with_spaces(d["collateral"]["pckCrlIssuerChain"]))),
        "evidence",
        "evidence.form",
    ),
    "white space in the quote": (edited(spaced_quote), "evidence", "evidence.form"),
    "zeros behind the quote": (
        edited(lambda d: d["evidence"].update(quote=d["evidence"]["quote"] + "00")),
        "evidence",
        "evidence.form",
    ),
    "no operator, and its signature": (
        edited(lambda d: d["evidence"].update(operator="0x" + "00" * 20)),
        "host",
        "host.not_agreed",
    ),
    "another task's result": (edited(from_other("result", "signature")), "result", "signature.signer"),
    "an output's manifest dropped": (edited(lambda d: d.update(outputs=[])), "outputs", "result.outputs"),
    "an output's manifest twice": (edited(lambda d: d["outputs"].append(d["outputs"][0])), "outputs", "result.outputs"),
    "another output": (edited(from_other("outputs")), "outputs", "manifest.digest"),
    "an unknown field": (edited(lambda d: d.update(note="")), "format", "document.invalid"),
    "a key twice": (RAW.replace(b'{"agreement":', b'{"v":1,"agreement":', 1), "format", "json.duplicate"),
    "a number with a fraction": (RAW.replace(b'"v":1', b'"v":1.0'), "format", "json.float"),
    "a later version": (RAW.replace(b'"v":1', b'"v":2'), "format", "document.invalid"),
    "nested too deeply": (b"[" * 100 + b"]" * 100, "format", "json.depth"),
    "cut short": (RAW[:-1], "format", "json.syntax"),
    "empty": (b"", "format", "json.syntax"),
    "no object": (b"[]", "format", "document.invalid"),
}


@pytest.mark.parametrize(("data", "link", "reason"), STRUCTURAL.values(), ids=STRUCTURAL)
def test_a_rearranged_receipt_is_refused_by_its_link(data: bytes, link: str, reason: str) -> None:
    found = check(data)
    assert (found.verdict, found.failed, found.reason) == (Verdict.REFUSED, link, reason)


def test_the_layout_of_the_json_does_not_matter() -> None:
    again = json.dumps(dict(reversed(VALID.items())), indent=3, ensure_ascii=False).encode()
    assert again != RAW
    assert check(again).verdict is Verdict.AUTHENTIC


def refused_or_equal(data: bytes) -> None:
    if check(data).verdict is not Verdict.REFUSED:
        assert read_receipt(data) == read_receipt(RAW)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_refused_or_changes_nothing(place: int, mask: int) -> None:
    refused_or_equal(RAW[:place] + bytes([RAW[place] ^ mask]) + RAW[place + 1 :])


def test_a_flipped_byte_of_quote_or_collateral_is_refused_or_changes_nothing() -> None:
    """Where certificates travel as text, and vendors' formats leave bytes to nobody."""
    draw = random.Random(7)
    quote, chains = bytes.fromhex(VALID["evidence"]["quote"][2:]), VALID["collateral"]
    for _ in range(150):
        place, mask = draw.randrange(len(quote)), draw.randrange(1, 256)
        flipped = quote[:place] + bytes([quote[place] ^ mask]) + quote[place + 1 :]
        assert check(dumped(changed(("evidence", "quote"), "0x" + flipped.hex()))).verdict is Verdict.REFUSED
        name = draw.choice([name for name, text in chains.items() if not text.startswith("0x")])
        place = draw.randrange(len(chains[name]))
        text = chains[name][:place] + chr(ord(chains[name][place]) ^ draw.randrange(1, 64)) + chains[name][place + 1 :]
        refused_or_equal(dumped(changed(("collateral", name), text)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(RAW) - 1), st.binary(max_size=40), st.integers(0, 40))
def test_bytes_put_in_or_taken_out_are_refused_or_change_nothing(place: int, put: bytes, taken: int) -> None:
    refused_or_equal(RAW[:place] + put + RAW[place + taken :])


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=20)
    | st.binary(max_size=70).map(lambda b: "0x" + b.hex()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_json_in_any_place_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(LEAVES))
    place = path[: data.draw(st.integers(1, len(path)))]
    refused_or_equal(dumped(changed(place, data.draw(JSON_VALUES))))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert check(data).failed == "format"
