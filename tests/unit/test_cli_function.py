"""`oracle function`; trials run in the enclave's own sandbox, as a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from enclave_app.protocol.bundle import read_bundle
from tests.cli_kit import answer, oracle, refusal

SPEC = """
name: ages
description: Mean age by sex
kind: sql
entry: query.sql
tables:
  people: {sex: string, age: int64}
params:
  - {name: smallest_group, type: integer, min: 1, max: 100}
  - {name: only, type: choice, values: [all, f]}
outputs: [result]
"""
QUERY = """
SELECT sex, avg(age) AS age FROM people WHERE $only = 'all' OR sex = $only
GROUP BY sex HAVING count(*) >= $smallest_group ORDER BY sex
"""
PARAMS = ("--param", "smallest_group=2", "--param", "only=all")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "function.yaml").write_text(SPEC)
    (tmp_path / "query.sql").write_text(QUERY)
    (tmp_path / "people.csv").write_text("sex,age\nf,30\nf,50\nm,20\n")
    return tmp_path


@pytest.fixture
def bundle(source: Path) -> Path:
    answer("function", "pack", source / "function.yaml", "--out", source / "f.eofb")
    return source / "f.eofb"


def test_a_packed_function_has_the_id_that_was_said(source: Path) -> None:
    made = answer("function", "pack", source / "function.yaml", "--out", source / "f.eofb")
    packed = read_bundle((source / "f.eofb").read_bytes(), bytes.fromhex(made["function_id"][2:]))
    assert made["param_domain"] == "0x" + packed.header.params.id.hex()


def test_a_bundle_is_not_overwritten(source: Path, bundle: Path) -> None:
    assert refusal("function", "pack", source, "--out", bundle)["code"] == "file.exists"


def test_a_description_without_outputs_is_refused(source: Path) -> None:
    (source / "function.yaml").write_text(SPEC.replace("outputs: [result]", ""))
    error = refusal("function", "pack", source, "--out", source / "f")
    assert error["code"] == "yaml.invalid"
    assert "outputs" in error["message"]


def test_inspect_shows_the_code(bundle: Path) -> None:
    shown = answer("function", "inspect", bundle)
    assert shown["source"] == QUERY
    assert shown["tables"] == {"people": {"sex": "string", "age": "int64"}}
    ran = oracle("function", "inspect", bundle)
    assert "HAVING count(*) >= $smallest_group" in ran.stdout
    assert "1 to 100" in ran.stdout


def test_a_changed_bundle_is_refused(bundle: Path) -> None:
    bundle.write_bytes(bundle.read_bytes().replace(b"avg", b"sum"))
    assert refusal("function", "inspect", bundle)["code"] == "bundle.file"


def test_a_function_runs_on_sample_rows(source: Path, bundle: Path) -> None:
    ran = answer("function", "test", bundle, "--sample", f"people={source / 'people.csv'}", *PARAMS)
    assert ran["outputs"] == {"result": [{"sex": "f", "age": 40.0}]}


@pytest.mark.parametrize("file", [".", "function.yaml"])
def test_a_function_is_tried_before_it_is_packed(source: Path, file: str) -> None:
    ran = answer("function", "test", source / file, "--sample", f"people={source / 'people.csv'}", *PARAMS)
    assert ran["outputs"] == {"result": [{"sex": "f", "age": 40.0}]}


def test_people_see_the_rows(source: Path, bundle: Path) -> None:
    ran = oracle("function", "test", bundle, "--sample", f"people={source / 'people.csv'}", *PARAMS)
    assert ran.code == 0
    assert "40.0" in ran.stdout


def test_a_public_output_is_shown_as_a_contract_reads_it(source: Path) -> None:
    (source / "query.sql").write_text("SELECT count(*) AS n, $only AS only FROM people WHERE age > $smallest_group")
    words = ("function", "test", source, "--public", "--sample", f"people={source / 'people.csv'}", *PARAMS)
    shown = answer(*words)["public_outputs"]["result"]
    assert shown["abi"] == "(int256, string)"
    assert [(c["column"], c["type"], c["solidity"]) for c in shown["columns"]] == [
        ("n", "int64", "int256"),
        ("only", "string", "string"),
    ]
    assert shown["data"].startswith("0x" + "00" * 31)
    ran = oracle(*words)
    assert "abi.decode" in ran.stdout
    assert "PUBLIC" in ran.stderr


def test_rows_that_a_contract_cannot_read_are_refused_by_name(source: Path, bundle: Path) -> None:
    words = ("function", "test", bundle, "--public", "--sample", f"people={source / 'people.csv'}", *PARAMS)
    refused = refusal(*words)
    assert refused["code"] == "output.type"
    assert "double" in refused["message"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--param", "smallest_group=0", "--param", "only=all"), "params.value"),
        (("--param", "smallest_group=two", "--param", "only=all"), "params.value"),
        (("--param", "smallest_group=2"), "params.names"),
        ((*PARAMS, "--param", "more=1"), "params.names"),
    ],
)
def test_parameters_outside_their_domain_are_refused(
    source: Path, bundle: Path, words: tuple[str, ...], code: str
) -> None:
    assert refusal("function", "test", bundle, "--sample", f"people={source / 'people.csv'}", *words)["code"] == code


def test_a_sample_that_is_no_pair_is_a_wrong_command_line(bundle: Path) -> None:
    assert oracle("function", "test", bundle, "--sample", "people.csv").code == 2


def test_publishing_stores_the_function_and_its_domain(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "storage"
    made = answer("function", "publish", bundle, "--storage", target.as_uri())
    assert {"0x" + path.name for path in target.iterdir()} == {made["function_id"], made["param_domain"]}


def test_storage_that_is_no_uri_is_refused(bundle: Path) -> None:
    assert refusal("function", "publish", bundle, "--storage", "ftp://host/folder")["code"] == "storage.uri"
