"""docs/protocol.md says what the code does: types, tags, numbers, off values, messages."""

from __future__ import annotations

import json
import re
from enum import IntEnum
from pathlib import Path

import pytest

from enclave_app.protocol import (
    abi_output,
    bundle,
    canonical,
    evidence,
    hpke,
    manifest,
    params,
    release,
    rules,
    shares,
    structs,
    wire,
)
from enclave_app.protocol.canonical import Document
from enclave_app.protocol.digests import tag
from enclave_app.protocol.eip712 import _DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, Struct
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from oracle.receipt import CHAIN_LINKS, LINKS, document, links
from oracle.receipt.onchain import CHAIN
from oracle.receipt.verify import FORMAT

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
TAGS = json.loads((ROOT / "tests" / "vectors" / "digests.json").read_text("utf-8"))["tags"]
STRUCTS = {s.type_name(): s for s in vars(structs).values() if isinstance(s, type) and issubclass(s, Struct)}


def section(title: str) -> str:
    """What stands under a heading, up to the next."""
    (found,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return str(found)


def rows(text: str) -> list[list[str]]:
    lines = [re.split(r"(?<!\\)\|", line.strip("|")) for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if not set("".join(line)) <= set("-")]


def test_type_strings() -> None:
    (block,) = re.findall(r"^```\n(Agreement\(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    declared = {line.split("(")[0]: line for line in block.splitlines()}
    own = {
        name: kind.encode_type().split(")")[0] + ")"
        for name, kind in STRUCTS.items()
        if name not in ("Struct", "Chain", "RegisteredIdentity")
    }
    assert declared == own


def test_domain() -> None:
    assert f"`{_DOMAIN_TYPE}` with name `{DOMAIN_NAME}`, version `{DOMAIN_VERSION}`" in TEXT


def test_tags() -> None:
    table = {name.strip("`"): value.strip("`") for name, value, _ in rows(section("2. Tagged digests"))[1:]}
    assert table == TAGS == {name: "0x" + tag(name).hex() for name in TAGS}
    assert set(re.findall(r'(?:tag\(|H\()"([a-z-]+)"', TEXT)) <= set(table)


def test_off_values() -> None:
    table = dict(rows(section("Off values"))[1:])
    shown = {1: "1", 0: "0", ZERO32: "0", ZERO_ADDRESS: "0"}
    code = {f"`Agreement.{p}`": "true" if v is True else shown[v] for p, v in rules.AGREEMENT_OFF.items()}
    code |= {f"`TaskRequest.{p}`": shown[v] for p, v in rules.REQUEST_OFF.items()}
    assert table == code


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("`Function.kind`", structs.FunctionKind),
        ("`Dataset.policy`", structs.DatasetPolicy),
        ("`KeyRelease.confirmation`", structs.Confirmation),
        ("`Output.kind`, `Out.kind`", structs.OutputKind),
        ("`Result.outcome`", structs.Outcome),
        ("`tee`", structs.Tee),
        ("`tcbStatus`", structs.TcbStatus),
    ],
)
def test_numbers(field: str, kind: type[IntEnum]) -> None:
    values = dict(rows(section("What the numbers mean"))[1:])[field]
    assert re.findall(r"\b(\d+) ([A-Z][A-Z_]+)", values) == [(str(member.value), member.name) for member in kind]


def test_anyone() -> None:
    assert f"`0x{structs.ANYONE.hex()}`" in section("What the numbers mean")


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("What an agreement must hold", rules.MAX_DATASETS),
        ("What an agreement must hold", rules.MAX_COLUMNS),
        ("What an agreement must hold", rules.MAX_POLICY_LIST),
        ("What an agreement must hold", rules.MAX_RECIPIENTS),
        ("What an agreement must hold", rules.MAX_OWNERS),
        ("What an agreement must hold", rules.MAX_PARAMS),
        ("What an agreement must hold", params.MAX_PARAMS),
        ("What an agreement must hold", rules.AS_OF_WINDOW),
        ("What an agreement must hold", rules.MAX_DEADLINE),
        ("What an agreement must hold", rules.MAX_CALLBACK_GAS),
        ("4. JSON", canonical.MAX_DOCUMENT),
        ("4. JSON", canonical.MAX_DEPTH + 1),
        ("4. JSON", canonical.MAX_VALUES),
        ("5. Sealed datasets", manifest.MAX_MANIFEST),
        ("5. Sealed datasets", manifest.MAX_COLUMNS),
        ("5. Sealed datasets", bundle.MAX_HEADER),
        ("6. Sharing keys", shares.MAX_SHARE_LIST),
        ("6. Sharing keys", hpke.MAX_MESSAGE),
        ("6. Sharing keys", hpke.PUBLIC_KEY_BYTES),
        ("Public outputs", abi_output.MAX_PUBLIC_BYTES),
        ("10. Messages", release.MAX_BODY),
        ("10. Messages", wire.MAX_BATCH),
        ("11. Receipts", document.MAX_RECEIPT),
        ("11. Receipts", document.MAX_FUNCTION),
        ("11. Receipts", rules.AS_OF_WINDOW + links.CLOCK_SKEW),
        ("11. Receipts", links.CLOCK_SKEW),
        ("11. Receipts", links.FUTURE),
    ],
)
def test_limits(where: str, number: int) -> None:
    assert re.search(rf"(?<!\d){number}(?!\d)", section(where))


MESSAGES = {
    kind.__name__: kind
    for module in (release, wire, evidence)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Document) and kind.__module__ == module.__name__
} | {"Chain": structs.Chain, "RegisteredIdentity": structs.RegisteredIdentity}


def test_messages() -> None:
    table = {row[0]: re.findall(r"`(\w+)`:", row[1]) for row in rows(section("10. Messages")) if row[0] in MESSAGES}
    assert table == {name: [f.alias or n for n, f in kind.model_fields.items()] for name, kind in MESSAGES.items()}


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (manifest.Manifest, "5. Sealed datasets"),
        (bundle.BundleHeader, "5. Sealed datasets"),
        (shares.ShareList, "6. Sharing keys"),
    ],
)
def test_documents(kind: type[Document], where: str) -> None:
    own = [f"`{field.alias or name}`" for name, field in kind.model_fields.items()]
    named = [row[0] for row in rows(section(where))]
    starts = [i for i, name in enumerate(named) if name == own[0]]
    assert any(named[i : i + len(own)] == own for i in starts)


RECEIPT_PARTS = (document.ReceiptEvidence, document.ReceiptCollateral, document.SignedStatement)


def test_receipts() -> None:
    text = section("11. Receipts")
    fields = [row[0] for row in rows(text) if row[0].startswith("`")]
    own = [f"`{field.alias or name}`" for name, field in document.Receipt.model_fields.items()]
    assert fields[: len(own)] == own
    assert fields[len(own) :] == [f"`{name}`" for name in (FORMAT, *LINKS, CHAIN, *CHAIN_LINKS)]
    parts = {row[0]: re.findall(r"`(\w+)`:", row[1]) for row in rows(text) if not row[0].startswith("`")}
    for kind in RECEIPT_PARTS:
        assert parts[kind.__name__] == [field.alias or name for name, field in kind.model_fields.items()]


def test_parameter_types() -> None:
    named = [row[0].strip("`") for row in rows(section("5. Sealed datasets"))]
    start = named.index("type") + 1
    assert named[start:] == ["integer", "decimal", "date", "choice", "boolean"]
    assert params._DECIMAL.pattern in section("5. Sealed datasets").replace("\\|", "|")


def test_calls() -> None:
    calls = set(re.findall(r"^\| `((?:GET|POST|DELETE) /v1/\S+)` \|", TEXT, re.MULTILINE))
    sources = (wire.__doc__ or "") + (release.ReleaseBody.__doc__ or "") + (release.OutputBody.__doc__ or "")
    assert calls == {f"{verb} {path}" for verb, path in re.findall(r"(GET|POST|DELETE)\s+(/v1/[\w/]+)", sources)}
