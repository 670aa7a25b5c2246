"""Canonical JSON: one byte string for one value, and one reading for one byte string."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol import canonical
from enclave_app.protocol.bundle import BundleHeader
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import Manifest, read_manifest
from enclave_app.protocol.params import ParamDomain, read_domain
from enclave_app.protocol.release import SignedShares
from enclave_app.protocol.shares import BrokerShares, ShareList, read_share_list

VECTORS_DIR = Path(__file__).parents[1] / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS_DIR / f"{name}.json").read_text("utf-8"))


VECTORS = vectors("canonical")
TABLE = vectors("manifest")["cases"][0]["canonical"]
DOMAIN = vectors("params")["domain"]
HEADER = vectors("bundle")["header"]
SHARES = (
    ShareList(
        dataset=bytes(32),
        threshold=1,
        brokers=(BrokerShares(broker=bytes([171]) * 32, envelope=b"\xab", digests=(bytes([205]) * 32,)),),
    )
    .canonical()
    .decode()
)


def document(case: dict[str, Any]) -> bytes:
    if "bytes" in case:
        return bytes.fromhex(case["bytes"][2:])
    r = case["repeat"]
    text: str = r["head"] + r["unit"] * r["times"] + r["tail"]
    return text.encode()


@pytest.mark.parametrize("text", VECTORS["accepted"])
def test_canonical_form_is_read_and_written_alike(text: str) -> None:
    assert canonical.dump(canonical.load(text.encode())) == text.encode()


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: f"{case['code']}-{document(case)[:12]!r}")
def test_other_forms_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        canonical.load(document(case))
    assert caught.value.code == case["code"]


def test_size_is_bounded_before_parsing() -> None:
    with pytest.raises(Refused) as caught:
        canonical.load(b"[]", limit=1)
    assert caught.value.code == "json.size"


def test_other_forms_may_be_taken_for_messages() -> None:
    assert canonical.load(b'{"b": 1, "a": -0}', canonical=False) == {"a": 0, "b": 1}


@pytest.mark.parametrize("value", [1.5, b"x", {1: 2}, object()])
def test_what_has_no_form_is_refused(value: object) -> None:
    with pytest.raises(Refused):
        canonical.dump(value)


Edit = Callable[[dict[str, Any]], Any]


def rewritten(text: str, edit: Edit) -> bytes:
    value = json.loads(text)
    edit(value)
    return canonical.dump(value)


# Each is canonical JSON and means what the document means, so its digest would name the same thing a second time.
SECOND_FORMS: list[tuple[type[canonical.Document], str, Edit]] = [
    (Manifest, TABLE, lambda v: v.pop("format")),
    (Manifest, TABLE, lambda v: v.pop("v")),
    (Manifest, TABLE, lambda v: v["files"][0].update(size=int(v["files"][0]["size"]))),
    (Manifest, TABLE, lambda v: v.update(lineage="0x" + v["lineage"][2:].upper())),
    (ShareList, SHARES, lambda v: v["brokers"][0].update(envelope="0xAB")),
    (ParamDomain, DOMAIN, lambda v: v.pop("v")),
    (BundleHeader, HEADER, lambda v: v.update(salt="0x" + v["salt"][2:].upper())),
    (BundleHeader, HEADER, lambda v: v["params"].pop("format")),
]


@pytest.mark.parametrize(("model", "text", "edit"), SECOND_FORMS)
def test_a_second_form_of_a_document_is_refused(model: type[canonical.Document], text: str, edit: Edit) -> None:
    assert canonical.parse(model, text.encode()).canonical() == text.encode()
    data = rewritten(text, edit)
    assert canonical.validate(model, json.loads(data)).canonical() == text.encode()
    with pytest.raises(Refused) as caught:
        canonical.parse(model, data)
    assert caught.value.code == "document.canonical"


# What pydantic would take in its lax mode, and what breaks a document's own rules.
BROKEN: list[tuple[type[canonical.Document], str, Edit]] = [
    (Manifest, TABLE, lambda v: v.update(v="1")),
    (Manifest, TABLE, lambda v: v.update(v=2)),
    (Manifest, TABLE, lambda v: v.update(format="enclave-oracle/shares")),
    (Manifest, TABLE, lambda v: v.update(encryption="parquet-aes-gcm-ctr-v1")),
    (Manifest, TABLE, lambda v: v.update(extra=1)),
    (Manifest, TABLE, lambda v: v.update(files=[])),
    (Manifest, TABLE, lambda v: v["files"][0].update(size=-1)),
    (Manifest, TABLE, lambda v: v["files"][0].update(size="0x10")),
    (Manifest, TABLE, lambda v: v["files"][0].update(size=True)),
    (Manifest, TABLE, lambda v: v["files"][0].update(size="18446744073709551616")),
    (Manifest, TABLE, lambda v: v["files"][0].update(sha256="0x00")),
    (Manifest, TABLE, lambda v: v["columns"][0].update(key="1")),
    (Manifest, TABLE, lambda v: v["columns"][0].update(key=True)),
    (Manifest, TABLE, lambda v: v["columns"][0].update(key=0)),
    (Manifest, TABLE, lambda v: v["columns"][0].update(key=4)),
    (Manifest, TABLE, lambda v: v["columns"][0].update(name="")),
    (Manifest, TABLE, lambda v: v["columns"][0].update(name="größe µm")),
    (Manifest, TABLE, lambda v: v["columns"][0].update(name="gro\u0308ße")),
    (Manifest, TABLE, lambda v: v["columns"][0].update(name="pat\u202eient")),
    (Manifest, TABLE, lambda v: v["columns"][0].update(name="pat\u200bient")),
    (Manifest, TABLE, lambda v: v["columns"][0].update(name="a\nb")),
    (Manifest, TABLE, lambda v: v.update(columns=[])),
    (Manifest, TABLE, lambda v: v.update(keys=[])),
    (Manifest, TABLE, lambda v: v.update(keys=[v["keys"][0]] * 4)),
    (Manifest, TABLE, lambda v: v.update(encryption="tink-aes256-gcm-hkdf-1mb")),
    (ShareList, SHARES, lambda v: v.update(threshold="1")),
    (ShareList, SHARES, lambda v: v.update(threshold=0)),
    (ShareList, SHARES, lambda v: v.update(threshold=2)),
    (ShareList, SHARES, lambda v: v.update(brokers=v["brokers"] * 2)),
    (ShareList, SHARES, lambda v: v["brokers"][0].update(digests=[])),
    (ParamDomain, DOMAIN, lambda v: v["params"][0].update(type="float")),
    (ParamDomain, DOMAIN, lambda v: v["params"][0].update(min="1")),
    (ParamDomain, DOMAIN, lambda v: v["params"][0].update(min=101)),
    (ParamDomain, DOMAIN, lambda v: v["params"][0].update(name="Min")),
    (ParamDomain, DOMAIN, lambda v: v["params"][0].update(name="min\n")),
    (ParamDomain, DOMAIN, lambda v: v["params"][1].update(min="x1")),
    (ParamDomain, DOMAIN, lambda v: v["params"][1].update(min="1\n")),
    (ParamDomain, DOMAIN, lambda v: v["params"][1].update(min="11")),
    (ParamDomain, DOMAIN, lambda v: v["params"][2].update(min=0)),
    (ParamDomain, DOMAIN, lambda v: v["params"][2].update(min="2000-01-01T00:00:00")),
    (ParamDomain, DOMAIN, lambda v: v["params"][2].update(min="2031-01-01")),
    (ParamDomain, DOMAIN, lambda v: v["params"][3].update(values=[])),
    (ParamDomain, DOMAIN, lambda v: v["params"].append(v["params"][0])),
    (BundleHeader, HEADER, lambda v: v.update(deterministic="true")),
    (BundleHeader, HEADER, lambda v: v.update(deterministic=1)),
    (BundleHeader, HEADER, lambda v: v.update(kind="shell")),
    (BundleHeader, HEADER, lambda v: v.update(entry="other.sql")),
    (BundleHeader, HEADER, lambda v: v.update(outputs=["a", "a"])),
    (BundleHeader, HEADER, lambda v: v["files"][0].update(path="../main.sql")),
    (BundleHeader, HEADER, lambda v: v["files"][0].update(path="README\n")),
    (BundleHeader, HEADER, lambda v: v["files"].append(v["files"][0])),
    (BundleHeader, HEADER, lambda v: v["tables"][0].update(name="Hospital")),
    (BundleHeader, HEADER, lambda v: v["params"]["params"].append(v["params"]["params"][0])),
]


@pytest.mark.parametrize(("model", "text", "edit"), BROKEN)
def test_one_wrong_field_is_refused(model: type[canonical.Document], text: str, edit: Edit) -> None:
    with pytest.raises(Refused) as caught:
        canonical.parse(model, rewritten(text, edit))
    assert caught.value.code == "document.invalid"


def test_python_names_are_refused() -> None:
    share_list = {"output": 0, "manifest": "0x", "share_list": "0x", "shares": {}, "signature": "0x"}
    with pytest.raises(Refused, match="shareList"):
        canonical.validate(SignedShares, share_list)


def test_an_error_quotes_no_strangers_text() -> None:
    marker = "marker\n" * 50
    value = json.loads(TABLE) | {marker: 1, "lineage": marker}
    with pytest.raises(Refused) as caught:
        canonical.validate(Manifest, value)
    assert "\n" not in caught.value.message
    assert caught.value.message.count("marker") <= 6
    domain = json.loads(DOMAIN)
    domain["params"][0]["type"] = marker
    with pytest.raises(Refused) as caught:
        canonical.validate(ParamDomain, domain)
    assert "marker" not in caught.value.message


@pytest.mark.parametrize("case", vectors("manifest")["cases"], ids=lambda case: case["name"])
def test_manifest_is_named_by_its_digest(case: dict[str, str]) -> None:
    data, expected = case["canonical"].encode(), bytes.fromhex(case["id"][2:])
    assert read_manifest(data, expected).id == expected
    with pytest.raises(Refused) as caught:
        read_manifest(data, bytes(32))
    assert caught.value.code == "manifest.digest"


def test_manifest_names_the_keys_of_columns() -> None:
    manifest = canonical.parse(Manifest, TABLE.encode())
    assert manifest.key_indexes(("面積", "patient")) == (0, 1, 3)
    with pytest.raises(Refused) as caught:
        manifest.key_indexes(("patient", "x\ny"))
    assert caught.value.code == "manifest.column"
    assert "\n" not in caught.value.message


def test_parameter_domain_is_named_by_its_digest() -> None:
    expected = bytes.fromhex(vectors("params")["id"][2:])
    assert read_domain(DOMAIN.encode(), expected).id == expected
    with pytest.raises(Refused) as caught:
        read_domain(DOMAIN.encode(), bytes(32))
    assert caught.value.code == "params.domain"


@pytest.mark.parametrize("case", vectors("params")["refused"], ids=lambda case: case["params"][:60])
def test_parameters_outside_their_domain_are_refused(case: dict[str, str]) -> None:
    domain = canonical.parse(ParamDomain, DOMAIN.encode())
    with pytest.raises(Refused) as caught:
        domain.read(case["params"].encode())
    assert caught.value.code == case["code"]


def test_parameters_are_read() -> None:
    (good,) = vectors("params")["accepted"]
    assert canonical.parse(ParamDomain, DOMAIN.encode()).read(good.encode()) == {
        "min_cases": 5,
        "cutoff": Decimal("2.50"),
        "since": datetime.date(2024, 2, 29),
        "unit": "µm",
        "strict": True,
    }


def test_share_list_is_named_by_its_digest() -> None:
    shares = canonical.parse(ShareList, SHARES.encode())
    assert read_share_list(SHARES.encode(), bytes(32), shares.id) == shares
    for dataset, expected, code in (
        (bytes(32), bytes(32), "shares.digest"),
        (bytes([1]) * 32, shares.id, "shares.dataset"),
        (bytes([1]) * 32, None, "shares.dataset"),
    ):
        with pytest.raises(Refused) as caught:
            read_share_list(SHARES.encode(), dataset, expected)
        assert caught.value.code == code
