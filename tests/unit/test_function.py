"""Packing, inspecting and trying functions; trials run in the enclave's own sandbox, as a process of its own."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from eth_abi.abi import encode
from sklearn.datasets import load_breast_cancer

from enclave_app.protocol.bundle import read_bundle
from enclave_app.protocol.errors import OracleError, Permanent, Refused
from enclave_app.protocol.structs import Limits
from oracle.dataset.seal import seal
from oracle.function.inspect import inspect_function, publish_function
from oracle.function.spec import FunctionSpec, pack_directory, pack_function
from oracle.function.trial import PublicRow, try_function, try_public
from oracle.storage import open_storage
from oracle.yamlfile import parse_yaml, validate_yaml

SPEC = """
name: tumour-size
description: Mean radius by diagnosis
kind: sql
entry: query.sql
tables:
  clinic: {patient: int64, malignant: bool}
  imaging: {patient: int64, mean_radius: double}
params:
  - {name: smallest_group, type: integer, min: 5, max: 100}
outputs: [result]
"""
QUERY = """
SELECT malignant, count(*) AS cases, round(avg(mean_radius), 6) AS radius
FROM clinic JOIN imaging USING (patient) GROUP BY malignant HAVING count(*) >= $smallest_group
"""
LIMITS = Limits(memory_mib=512, time_seconds=20, output_bytes=1 << 20, output_rows=100)


def spec(text: str = SPEC, **changes: object) -> FunctionSpec:
    return validate_yaml(FunctionSpec, {**parse_yaml(text.encode()), **changes})


def samples() -> dict[str, pa.Table | Path]:
    data = load_breast_cancer()
    patient = pa.array(range(569), pa.int64())
    return {
        "clinic": pa.table({"patient": patient, "malignant": data.target == 0}),
        "imaging": pa.table({"patient": patient, "mean_radius": data.data[:, 0], "unread": data.data[:, 1]}),
    }


def test_a_directory_becomes_a_bundle_that_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "function.yaml").write_text(SPEC)
    (tmp_path / "query.sql").write_text(QUERY)
    bundle = pack_directory(tmp_path)
    assert read_bundle(bundle.raw, bundle.id).header == bundle.header
    shown = inspect_function(bundle)
    assert shown.source == QUERY
    assert shown.tables["clinic"] == {"patient": "int64", "malignant": "bool"}
    assert (shown.kind, shown.outputs, shown.id) == ("sql", ("result",), "0x" + bundle.id.hex())
    assert shown.params == ({"type": "integer", "name": "smallest_group", "min": 5, "max": 100},)


def test_each_packing_has_its_own_salt() -> None:
    assert pack_function(spec(), QUERY).id != pack_function(spec(), QUERY).id


def test_types_come_from_a_manifest_where_only_names_are_written(tmp_path: Path) -> None:
    sealed = seal(samples()["clinic"], tmp_path / "clinic", dangerous_plaintext_keys=True)
    listed = {"clinic": ["malignant"], "imaging": {"patient": "int64"}}
    bundle = pack_function(spec(tables=listed), QUERY, {"clinic": sealed.manifest})
    assert inspect_function(bundle).tables["clinic"] == {"malignant": "bool"}


@pytest.mark.parametrize(
    ("tables", "code"),
    [
        ({"clinic": ["malignant"]}, "function.type"),
        ({"clinic": {"malignant": "list<item: int64>"}}, "function.type"),
        ({"clinic": {"malignant": "decimal128(39, 2)"}}, "function.type"),
        ({"clinic": {}}, "function.table"),
        ({"Clinic": {"malignant": "bool"}}, "document.invalid"),
        ({"clinic; DROP": {"malignant": "bool"}}, "document.invalid"),
    ],
)
def test_tables_that_no_dataset_could_be_are_refused(tables: object, code: str) -> None:
    with pytest.raises(Refused) as refused:
        pack_function(spec(tables=tables), QUERY)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("tables", "code"),
    [
        ({"clinic": ["age"]}, "function.column"),
        ({"clinic": {"malignant": "int8"}}, "function.type"),
        ({"other": {"malignant": "bool"}}, "function.table"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, tables: object, code: str) -> None:
    sealed = seal(samples()["clinic"], tmp_path / "clinic", dangerous_plaintext_keys=True)
    with pytest.raises(Refused) as refused:
        pack_function(spec(tables=tables), QUERY, {"clinic": sealed.manifest})
    assert refused.value.code == code


@pytest.mark.parametrize(
    "params",
    [
        [{"name": "n", "type": "float", "min": 1, "max": 2}],
        [{"name": "N", "type": "boolean"}],
        [{"name": "n", "type": "integer", "min": 1}],
        [{"name": "n", "type": "boolean", "extra": 1}],
    ],
)
def test_parameters_without_a_domain_are_refused(params: object) -> None:
    with pytest.raises(Refused) as refused:
        pack_function(spec(params=params), QUERY)
    assert refused.value.code == "document.invalid"


def test_a_parameter_named_twice_is_refused() -> None:
    twice = [{"name": "n", "type": "boolean"}] * 2
    with pytest.raises(Refused) as refused:
        pack_function(spec(params=twice), QUERY)
    assert refused.value.code == "document.invalid"


@pytest.mark.parametrize("missing", ["name", "kind", "entry", "tables", "outputs"])
def test_what_the_yaml_leaves_out_is_named(missing: str) -> None:
    value = parse_yaml(SPEC.encode())
    del value[missing]
    with pytest.raises(Refused, match=missing) as refused:
        validate_yaml(FunctionSpec, value)
    assert refused.value.code == "yaml.invalid"


@pytest.mark.parametrize("source", ["", "  \n", "x" * ((1 << 20) + 1)])
def test_an_empty_or_endless_source_is_refused(source: str) -> None:
    with pytest.raises(Refused) as refused:
        pack_function(spec(), source)
    assert refused.value.code == "function.source"


async def test_publishing_puts_the_bundle_and_its_parameter_domain(tmp_path: Path) -> None:
    bundle = pack_function(spec(), QUERY)
    async with open_storage(tmp_path.as_uri()) as storage:
        function, domain = await publish_function(bundle, storage)
        assert (function, domain) == (bundle.id, bundle.header.params.id)
        assert read_bundle(await storage.get(function), bundle.id).files == bundle.files
        assert await storage.get(domain) == bundle.header.params.canonical()


async def run(query: str = QUERY, **changes: Any) -> pa.Table:
    given: dict[str, Any] = {"params": {"smallest_group": 5}, "limits": LIMITS, "as_of": 1_790_000_000, **changes}
    tables = given.pop("samples", None) or samples()
    return (await try_function(pack_function(spec(), query), tables, **given))["result"]


async def test_a_trial_gives_what_the_query_says() -> None:
    data = load_breast_cancer()
    found = await run()
    expected = [
        {"malignant": label, "cases": int((data.target == code).sum()), "radius": round(mean, 6)}
        for label, code in ((False, 1), (True, 0))
        for mean in [float(data.data[data.target == code, 0].mean())]
    ]
    assert found.to_pylist() == expected
    assert (await run(params={"smallest_group": 100})).num_rows == 2


async def try_one(query: str) -> PublicRow:
    bundle = pack_function(spec(), query)
    tried = await try_public(bundle, samples(), params={"smallest_group": 5}, limits=LIMITS, as_of=1_790_000_000)
    return tried["result"]


async def test_a_public_trial_gives_the_bytes_that_a_contract_reads() -> None:
    row = await try_one("SELECT count(*) AS cases, CAST(0.5 AS DECIMAL(4, 2)) AS share, 'ok' AS word FROM clinic")
    assert row.columns == {"cases": "int64", "share": "decimal128(4, 2)", "word": "string"}
    assert row.solidity == ("int256", "int256", "string")
    assert row.values == (569, Decimal("0.50"), "ok")
    assert row.data == encode(row.solidity, (569, 50, "ok"))


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("SELECT patient FROM clinic LIMIT 2", "output.rows", "exactly one"),
        ("SELECT avg(patient) AS a FROM clinic", "output.type", "CAST it to a DECIMAL"),
        ("SELECT max(patient) AS a, NULL::BIGINT AS b FROM clinic", "output.null", "column 2"),
    ],
)
async def test_a_public_trial_says_what_no_contract_can_read(query: str, code: str, words: str) -> None:
    with pytest.raises(Permanent) as failed:
        await try_one(query)
    assert failed.value.code == code
    assert words in failed.value.message


async def test_a_trial_sees_the_requests_time_and_no_other() -> None:
    found = await run("SELECT $as_of AS at, $smallest_group AS n FROM clinic LIMIT 1", as_of=1_000_000_000)
    assert found.to_pylist() == [{"at": datetime.datetime(2001, 9, 9, 1, 46, 40), "n": 5}]


async def test_a_trial_takes_a_csv_and_brings_it_to_the_declared_types(tmp_path: Path) -> None:
    (tmp_path / "imaging.csv").write_text("patient,mean_radius\n" + "".join(f"{i},{i % 7}\n" for i in range(569)))
    found = await run(samples={**samples(), "imaging": tmp_path / "imaging.csv"})
    assert found.num_rows == 2


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT random() AS x FROM clinic", "sql.refused"),
        ("DELETE FROM clinic", "sql.refused"),
        ("SELECT * FROM read_csv('/etc/passwd')", "sql.refused"),
        ("SELECT unread FROM imaging", "sql.failed"),
        ("SELECT cast('x' AS INTEGER) AS x FROM clinic", "sql.failed"),
        ("SELECT a.patient FROM clinic a, clinic b", "output.limit"),
    ],
)
async def test_what_would_fail_in_the_enclave_fails_in_a_trial(query: str, code: str) -> None:
    with pytest.raises(Permanent) as failed:
        await run(query)
    assert failed.value.code == code


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT unread FROM imaging", 'column "unread" not found'),
        ("SELEC patient FROM clinic", "syntax error"),
        ("SELECT patient + malignant AS x FROM clinic", "No function matches"),
    ],
)
async def test_an_author_is_told_what_is_wrong_with_the_statement(query: str, words: str) -> None:
    with pytest.raises(Permanent) as failed:
        await run(query)
    assert words in failed.value.message


async def test_an_error_that_rows_bring_out_quotes_none_of_them() -> None:
    marked = pa.table({"patient": [569], "malignant": [True]})
    with pytest.raises(Permanent) as failed:
        await run("SELECT cast('v' || patient AS INTEGER) AS x FROM clinic", samples={**samples(), "clinic": marked})
    assert failed.value.code == "sql.failed"
    assert "569" not in failed.value.message


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"params": {"smallest_group": 4}}, "params.value"),
        ({"params": {}}, "params.names"),
        ({"samples": {"clinic": pa.table({"patient": [1], "malignant": [True]})}}, "trial.tables"),
        ({"samples": {**samples(), "imaging": pa.table({"patient": [1]})}}, "trial.columns"),
        ({"samples": {**samples(), "imaging": pa.table({"patient": ["x"], "mean_radius": [1.0]})}}, "trial.types"),
    ],
)
async def test_samples_and_values_that_do_not_fit_are_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        await run(**changes)
    assert refused.value.code == code


async def test_a_query_that_never_ends_is_stopped() -> None:
    endless = "SELECT count(*) AS n FROM clinic a, clinic b, clinic c, clinic d, clinic e"
    with pytest.raises(OracleError) as stopped:
        await run(endless, limits=LIMITS.model_copy(update={"time_seconds": 1}))
    assert stopped.value.code in ("run.time", "run.crashed")
