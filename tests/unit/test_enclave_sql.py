"""The SQL runtime: what it lets through, what it refuses, and that it gives the same bytes each time."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from enclave_app.protocol.abi_output import decode_row, encode_row
from enclave_app.protocol.errors import Refused
from enclave_app.runtimes.arrow_output import canonical_table, encode_public, encode_table
from enclave_app.runtimes.base import FunctionFailed, FunctionSource, HostFault, ParamValue, RunLimits
from enclave_app.runtimes.sql import MAX_TEXT, SqlRuntime, _single
from enclave_app.runtimes.sql_functions import FUNCTIONS
from enclave_app.runtimes.sql_policy import check_select

LIMITS = RunLimits(memory_mib=256, time_seconds=10, output_bytes=1 << 24, output_rows=100_000)
TABLE = pa.table(
    {
        "id": list(range(300)),
        "v": [None if i % 7 == 0 else 0.1 * i for i in range(300)],
        "g": [("red", "green", "blue")[i % 3] for i in range(300)],
        "d": [datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(300)],
    }
)


def run(
    sql: str,
    params: Mapping[str, ParamValue] | None = None,
    inputs: Mapping[str, pa.Table] | None = None,
    limits: RunLimits = LIMITS,
) -> pa.Table:
    inputs = {"a": TABLE, "b": TABLE} if inputs is None else inputs
    source = FunctionSource(sql, tuple(inputs), tuple(params or ()), ("out",))
    return SqlRuntime().run(source, inputs, params or {}, 1_700_000_000, limits)["out"]


REFUSED = {
    # files
    "SELECT * FROM read_csv('/etc/passwd')": "TABLE_FUNCTION",
    "SELECT * FROM read_text('/etc/passwd')": "TABLE_FUNCTION",
    "SELECT * FROM '/etc/passwd'": "/etc/passwd",
    "SELECT * FROM 'data.parquet'": "data.parquet",
    "COPY a TO '/tmp/stolen'": "SELECT",
    "COPY (SELECT 1) TO '/tmp/stolen'": "SELECT",
    "EXPORT DATABASE '/tmp/stolen'": "SELECT",
    "SELECT * FROM glob('/*')": "TABLE_FUNCTION",
    # other tables and the catalogue
    "SELECT * FROM secrets": "secrets",
    "SELECT * FROM duckdb_settings()": "TABLE_FUNCTION",
    "SELECT * FROM duckdb_settings": "duckdb_settings",
    "SELECT * FROM information_schema.tables": "information_schema",
    "SELECT * FROM pg_catalog.pg_class": "pg_catalog",
    "SELECT * FROM sqlite_master": "sqlite_master",
    "SELECT * FROM main.a": "main",
    "SELECT (SELECT count(*) FROM secrets) FROM a": "secrets",
    "SELECT * FROM a WHERE EXISTS (FROM secrets)": "secrets",
    "SELECT * FROM a JOIN secrets USING (id)": "secrets",
    "SELECT * FROM a UNION ALL SELECT * FROM secrets": "secrets",
    # a common table expression that covers for a system view
    "WITH duckdb_settings AS (SELECT * FROM duckdb_settings) SELECT * FROM duckdb_settings": "duckdb_settings",
    "SELECT * FROM (WITH pg_class AS (SELECT 1) SELECT * FROM pg_class), pg_class": "pg_class",
    # table functions
    "SELECT * FROM range(10)": "TABLE_FUNCTION",
    "SELECT * FROM query('SELECT 1')": "TABLE_FUNCTION",
    "SELECT * FROM query_table('a')": "TABLE_FUNCTION",
    "SELECT * FROM json_execute_serialized_sql('x')": "TABLE_FUNCTION",
    "SELECT * FROM arrow_scan(1, 2, 3)": "TABLE_FUNCTION",
    "SELECT a.id, u FROM a, unnest([1, 2]) AS t(u)": "TABLE_FUNCTION",
    # settings, extensions, statements
    "SET threads = 2": "SELECT",
    "PRAGMA database_list": "SELECT",
    "CALL pragma_version()": "SELECT",
    "INSTALL httpfs": "SELECT",
    "LOAD httpfs": "SELECT",
    "ATTACH 'other.db'": "SELECT",
    "CREATE TABLE t (x INTEGER)": "SELECT",
    "CREATE MACRO f() AS 1": "SELECT",
    "INSERT INTO a VALUES (1)": "SELECT",
    "EXPLAIN SELECT 1": "SELECT",
    "SELECT 1; SELECT 2": "SELECT",
    "SELECT 1; SET threads = 2": "SELECT",
    "": "SELECT",
    "-- nothing": "SELECT",
    "PREPARE p AS SELECT 1": "SELECT",
    "EXECUTE p": "SELECT",
    "DESCRIBE a": "SHOW_REF",
    "SUMMARIZE a": "SHOW_REF",
    "SELECT * FROM (SHOW TABLES)": "SHOW_REF",
    "PIVOT a ON g USING sum(v)": "SELECT",
    "SELECT current_setting('threads')": "current_setting",
    "SELECT getenv('HOME')": "getenv",
    "SELECT getvariable('x')": "getvariable",
    # clock, randomness, sequences, sampling
    "SELECT random()": "random",
    "SELECT RANDOM()": "random",
    "SELECT main.random()": "random",
    "SELECT uuid()": "uuid",
    "SELECT gen_random_uuid()": "gen_random_uuid",
    "SELECT now()": "now",
    "SELECT today()": "today",
    "SELECT current_date": "current_date",
    "SELECT current_timestamp": "current_timestamp",
    "SELECT localtime": "localtime",
    "SELECT age(d) FROM a": "age",
    "SELECT nextval('s')": "nextval",
    "SELECT setseed(0.5)": "setseed",
    "SELECT * FROM a USING SAMPLE 10%": "samples",
    "SELECT * FROM a TABLESAMPLE 10%": "samples",
    "SELECT approx_count_distinct(id) FROM a": "approx_count_distinct",
    "SELECT reservoir_quantile(id, 0.5) FROM a": "reservoir_quantile",
    "SELECT id FROM a ORDER BY random()": "random",
    "SELECT list_transform([1], lambda x: random()) FROM a": "random",
    "SELECT sum(random()) OVER () FROM a": "random",
    "SELECT id FROM a LIMIT (SELECT floor(random() * 9)::INTEGER)": "random",
    "SELECT hash(id) FROM a": "hash",
    "SELECT list_aggregate([1, 2], 'reservoir_quantile')": "list_aggregate",
    "SELECT rowid FROM a": "rowid",
    "SELECT a.rowid FROM a": "rowid",
    "SELECT * FROM a POSITIONAL JOIN b": "POSITIONAL",
    "SELECT TRY(g::INTEGER) FROM a": "OPERATOR_TRY",
    # parameters and types
    "SELECT $other": "other",
    "SELECT ?": "parameter",
    "SELECT $1": "parameter",
    "SELECT 'x'::regclass": "regclass",
    "SELECT '{}'::JSON": "json",
}


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_not_listed_is_refused(sql: str) -> None:
    with pytest.raises(FunctionFailed) as caught:
        run(sql)
    # DuckDB itself does not know some of them, and says so before our walk begins.
    assert caught.value.code in ("sql.refused", "sql.failed")
    if caught.value.code == "sql.refused":
        assert REFUSED[sql].lower() in caught.value.message.lower()


def test_no_volatile_function_of_this_duckdb_is_listed() -> None:
    """Whatever DuckDB itself calls volatile, or steady within one query only, is not on our list."""
    rows = duckdb.connect().execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    )
    volatile = {name for (name,) in rows.fetchall()}
    assert {"random", "now", "current_setting"} <= volatile
    assert not volatile & FUNCTIONS


def test_a_column_that_is_not_given_does_not_exist() -> None:
    with pytest.raises(FunctionFailed) as caught:
        run("SELECT v FROM a", inputs={"a": TABLE.select(["id"])})
    assert caught.value.code == "sql.failed"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT g, sum(v) AS s, count(*) AS n FROM a GROUP BY g",
        "SELECT a.g, avg(a.v * b.v) AS m FROM a JOIN b USING (id) WHERE a.v > 3 GROUP BY ALL ORDER BY m",
        "WITH c AS (SELECT g, v FROM a), e AS (SELECT * FROM c) SELECT g, max(v) FROM e GROUP BY 1",
        "SELECT g, row_number() OVER (PARTITION BY g ORDER BY v) AS r FROM a QUALIFY r < 3",
        "SELECT id, CASE WHEN v > 3 THEN 'high' ELSE 'low' END AS c FROM a WHERE g LIKE 'r%' AND v BETWEEN 1 AND 9",
        "SELECT DISTINCT g FROM a ORDER BY g LIMIT 2",
        "SELECT g FROM a UNION SELECT 'x'",
        "SELECT date_trunc('month', d) AS m, median(v) FROM a GROUP BY m",
        "SELECT * EXCLUDE (id) FROM a WHERE id IN (SELECT id FROM b WHERE id < 5)",
        "SELECT g, list(id ORDER BY id) AS ids, {'x': 1} AS s FROM a GROUP BY g",
        "SELECT coalesce(v, 0)::DECIMAL(10, 2) AS x, extract(year FROM d) AS y FROM a",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
        "FROM a",
    ],
)
def test_ordinary_queries_run_and_repeat_to_the_byte(sql: str) -> None:
    first = run(sql)
    assert first.num_rows > 0
    assert encode_table(first) == encode_table(run(sql))


def test_rows_that_a_query_leaves_unordered_or_tied_come_in_one_order() -> None:
    shuffled = pa.table({"k": [2, 1, 2, 1], "x": ["d", "b", "c", "a"]})
    unordered = run("SELECT k, x FROM t", inputs={"t": shuffled})
    assert unordered.to_pylist() == sorted(shuffled.to_pylist(), key=lambda row: (row["k"], row["x"]))
    tied = run("SELECT x, k FROM t ORDER BY k DESC", inputs={"t": shuffled})
    assert tied["x"].to_pylist() == ["c", "d", "a", "b"]
    limited = run("SELECT x FROM t ORDER BY k LIMIT 1", inputs={"t": shuffled})
    assert limited["x"].to_pylist() == ["a"]


@pytest.mark.parametrize("order", ["COLUMNS('k')", "COLUMNS(* EXCLUDE (x))", "COLUMNS('k'), COLUMNS('k')"])
def test_an_order_by_some_columns_is_completed_too(order: str) -> None:
    shuffled = pa.table({"k": [2, 1, 2, 1], "x": ["d", "b", "c", "a"]})
    assert run(f"SELECT k, x FROM t ORDER BY {order}", inputs={"t": shuffled})["x"].to_pylist() == ["a", "b", "c", "d"]  # noqa: S608
    limited = run(f"SELECT x, k FROM t ORDER BY {order} LIMIT 1", inputs={"t": shuffled})  # noqa: S608
    assert limited["x"].to_pylist() == ["a"]


def test_a_sum_of_doubles_repeats_to_the_bit() -> None:
    values = pa.table(
        {"x": [(-1.0) ** i * 10.0 ** (i % 30 - 15) for i in range(200_000)], "g": [i % 97 for i in range(200_000)]}
    )
    found = {encode_table(run("SELECT g, sum(x) AS s FROM t GROUP BY g", inputs={"t": values})) for _ in range(3)}
    assert len(found) == 1


def test_parameters_are_bound_by_name_and_as_of_is_the_clock() -> None:
    params: dict[str, ParamValue] = {
        "n": 3,
        "x": Decimal("1.50"),
        "t": "it's; DROP TABLE a --",
        "d": datetime.date(2020, 2, 1),
        "unused": True,
    }
    row = run("SELECT $n AS n, $x AS x, $t AS t, $d AS d, date_trunc('day', $as_of) AS day", params).to_pylist()[0]
    assert row["n"] == 3
    assert row["x"] == Decimal("1.50")
    assert row["t"] == params["t"]
    assert row["d"] == params["d"]
    assert row["day"] == datetime.datetime(2023, 11, 14)


@pytest.mark.parametrize("limits", [{"output_rows": 299}, {"output_bytes": 1000}])
def test_an_output_above_its_limit_is_the_functions_failure(limits: dict[str, int]) -> None:
    with pytest.raises(FunctionFailed) as caught:
        run("SELECT * FROM a", limits=RunLimits(**{**LIMITS.__dict__, **limits}))
    assert caught.value.code == "output.limit"


def test_an_output_of_exactly_its_limit_passes() -> None:
    limits = RunLimits(**{**LIMITS.__dict__, "output_rows": 300})
    assert run("SELECT * FROM a", limits=limits).num_rows == 300


def test_running_out_of_memory_is_the_hosts_fault() -> None:
    with pytest.raises(HostFault) as caught:
        run(
            "SELECT a.g || b.g || c.g AS x FROM a, b, a AS c ORDER BY x",
            limits=RunLimits(**{**LIMITS.__dict__, "memory_mib": 32, "output_rows": 1 << 40}),
        )
    assert caught.value.code == "run.memory"


@pytest.mark.parametrize("sql", ["SELECT g::INTEGER AS x FROM a", "SELECT (g || '!')::DATE AS x FROM a"])
def test_an_error_never_quotes_a_value(sql: str) -> None:
    with pytest.raises(FunctionFailed) as caught:
        run(sql)
    assert caught.value.code == "sql.failed"
    assert not any(value in caught.value.message for value in ("red", "green", "blue"))


def test_an_error_late_in_a_large_table_is_the_functions_failure_too() -> None:
    late = pa.table({"s": [str(i) for i in range(200_000)] + ["oops"]})
    with pytest.raises(FunctionFailed):
        run("SELECT s::INTEGER AS x FROM t", inputs={"t": late}, limits=RunLimits(256, 10, 1 << 30, 1 << 30))


def test_nothing_is_left_under_a_null() -> None:
    """DuckDB leaves the value of another row there, which would leave with the output."""
    kept = pa.array([11, 22, 33], pa.int64())
    raw = pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\xfd"), kept.buffers()[1]])
    table = canonical_table(pa.table({"x": raw}))
    column = table["x"].chunk(0)
    assert column.to_pylist() == [11, None, 33]
    assert memoryview(column.buffers()[1]).cast("q")[:3].tolist() == [11, 0, 33]
    assert bytes(column.buffers()[0])[:1] == b"\x05"
    flags = pa.Array.from_buffers(pa.bool_(), 3, [pa.py_buffer(b"\x05"), pa.py_buffer(b"\xff")])
    cleaned = canonical_table(pa.table({"x": flags}))["x"].chunk(0)
    assert (cleaned.to_pylist(), bytes(cleaned.buffers()[1])[:1]) == ([True, None, True], b"\x05")


def test_two_tables_of_equal_values_encode_to_equal_bytes() -> None:
    one = pa.table({"x": pa.chunked_array([[1, 2], [None, 4]]), "s": ["a", None, "c", "d"]})
    two = pa.table({"x": pa.chunked_array([[1], [2, None, 4]]), "s": ["a", None, "c", "d"]})
    two = two.replace_schema_metadata({"made": "today"})
    assert encode_table(canonical_table(one)) == encode_table(canonical_table(two))


A_TABLE = {"type": "BASE_TABLE", "table_name": "a", "qualified_name": {"path": ["a"]}}
SUM = {"class": "FUNCTION", "type": "FUNCTION", "function_name": "sum", "qualified_name": {"path": ["sum"]}}
CAST = {"class": "TYPE", "type": "VALUE_CONSTANT", "type_name": "bigint", "qualified_name": {"path": ["bigint"]}}


def walked(**node: object) -> None:
    check_select({"error": False, "statements": [{"node": {"type": "SELECT_NODE", **node}}]}, ["a"], [])


@pytest.mark.parametrize(
    ("item", "change", "code"),
    [
        (A_TABLE, {"schema_name": "pg_catalog"}, "sql.table"),
        (A_TABLE, {"catalog_name": "system"}, "sql.table"),
        (A_TABLE, {"qualified_name": {"path": ["system", "a"]}}, "sql.table"),
        (A_TABLE, {"at_clause": {"unit": "VERSION"}}, "sql.table"),
        (SUM, {"schema": "main"}, "sql.function"),
        (SUM, {"catalog": "system"}, "sql.function"),
        (SUM, {"qualified_name": {"path": ["system", "sum"]}}, "sql.function"),
        (CAST, {"schema": "main"}, "sql.type"),
        (CAST, {"catalog": "system"}, "sql.type"),
        (CAST, {"qualified_name": {"path": ["system", "bigint"]}}, "sql.type"),
    ],
)
def test_a_name_of_another_schema_is_refused_wherever_the_parser_writes_it(
    item: dict[str, Any], change: dict[str, Any], code: str
) -> None:
    """Text gives only some of these trees today."""
    walked(item=item)
    with pytest.raises(Refused) as caught:
        walked(item={**item, **change})
    assert caught.value.code == code


@pytest.mark.parametrize(
    "tree",
    [
        {"statements": [{"node": {"type": "SELECT_NODE"}}]},
        {"error": True, "statements": [{"node": {"type": "SELECT_NODE"}}]},
        {"error": False, "statements": {"node": {"type": "SELECT_NODE"}}},
        {"error": False, "statements": []},
        {"error": False, "statements": [{"node": {"type": "SELECT_NODE"}}] * 2},
        {"error": False, "statements": [{"node": None}]},
    ],
)
def test_a_tree_that_is_not_one_statement_is_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        check_select(tree, ["a"], [])
    assert caught.value.code == "sql.statement"


@pytest.mark.parametrize(
    "sql", ["", "SELECT 1; SELECT 2", "SET threads = 2", "EXPLAIN SELECT 1", "PREPARE p AS SELECT 1"]
)
def test_only_one_select_is_asked_for_its_parameters(sql: str) -> None:
    """The walk over the tree refuses these too, where the parser still makes one of them."""
    with duckdb.connect(":memory:") as connection:
        assert _single(connection, "SELECT 1").type == duckdb.StatementType.SELECT
        with pytest.raises(Refused) as caught:
            _single(connection, sql)
    assert caught.value.code == "sql.statement"


def test_what_runs_is_checked_and_not_only_what_was_written() -> None:
    """A printer that makes other text of a tree is the database's defect; what it printed is refused all the same."""

    class Misprinting(SqlRuntime):
        def _text(self, tree: dict[str, Any]) -> str:
            return super()._text(tree).replace("pi()", "random()")

    source = FunctionSource("SELECT pi() AS n FROM a", ("a",), (), ("out",))
    with pytest.raises(FunctionFailed, match="random") as caught:
        Misprinting().run(source, {"a": TABLE}, {}, 0, LIMITS)
    assert caught.value.code == "sql.refused"


def test_a_text_that_is_too_long_is_refused() -> None:
    sql = "SELECT id FROM a "
    assert run(sql.ljust(MAX_TEXT)).num_rows == TABLE.num_rows
    with pytest.raises(FunctionFailed, match="too long") as caught:
        run(sql.ljust(MAX_TEXT + 1))
    assert caught.value.code == "sql.refused"


def test_a_walk_meets_constructs_that_duckdb_may_grow() -> None:
    node = {"type": "SELECT_NODE", "from_table": {"type": "TELEPORT"}}
    with pytest.raises(Refused) as caught:
        check_select({"error": False, "statements": [{"node": node}]}, ["a"], [])
    assert caught.value.code == "sql.construct"
    with pytest.raises(Refused) as caught:
        check_select(
            {"error": False, "statements": [{"node": {"type": "SELECT_NODE", "x": {"class": "MAGIC"}}}]}, [], []
        )
    assert caught.value.code == "sql.expression"


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: {**tree, "error": True},
        lambda tree: {**tree, "statements": tree["statements"] * 2},
        lambda tree: {**tree, "statements": [{"node": [tree["statements"][0]["node"]]}]},
    ],
    ids=["an error", "two statements", "no node"],
)
def test_a_walk_takes_one_query_only(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Its text was one SELECT statement; what the parser made of it is looked at once more."""
    tree = SqlRuntime()._serialized("SELECT 1 AS x")
    check_select(tree, [], [])
    with pytest.raises(Refused) as caught:
        check_select(change(tree), [], [])
    assert caught.value.code == "sql.statement"


@pytest.mark.parametrize("kind", ["UHUGEINT", "UHUGEINT[]", "STRUCT(u UHUGEINT)"])
def test_a_number_that_would_change_its_sign_on_the_way_out_is_refused(kind: str) -> None:
    """DuckDB gives UHUGEINT to Arrow as a signed decimal: 2^128 - 1 comes out as -1."""
    value = {"UHUGEINT": "1", "UHUGEINT[]": "[1]", "STRUCT(u UHUGEINT)": "{'u': 1}"}[kind]
    with pytest.raises(FunctionFailed) as failed:
        run(f"SELECT CAST({value} AS {kind}) AS u")
    assert failed.value.code == "sql.refused"


PUBLIC = {
    "CAST(-5 AS TINYINT)": ("int8", -5),
    "CAST(9223372036854775807 AS BIGINT)": ("int64", (1 << 63) - 1),
    "CAST(18446744073709551615 AS UBIGINT)": ("uint64", (1 << 64) - 1),
    "CAST(-170141183460469231731687303715884105728 AS HUGEINT)": ("decimal128(38, 0)", Decimal(-(1 << 127))),
    "CAST('-12.5' AS DECIMAL(10, 2))": ("decimal128(10, 2)", Decimal("-12.50")),
    "true": ("bool", True),
    "'caf\u00e9'": ("string", "caf\u00e9"),
    "'\\x00\\xFF'::BLOB": ("binary", b"\0\xff"),
    "DATE '1969-12-31'": ("date32[day]", datetime.date(1969, 12, 31)),
    "TIMESTAMP '2020-01-02 03:04:05.000006'": ("timestamp[us]", datetime.datetime(2020, 1, 2, 3, 4, 5, 6)),
}


@pytest.mark.parametrize(("sql", "found"), PUBLIC.items())
def test_what_the_database_gives_is_what_a_contract_reads(sql: str, found: tuple[str, Any]) -> None:
    column, value = found
    table = run(f"SELECT {sql} AS v, count(*) AS n FROM a")  # noqa: S608
    assert str(table.schema.field(0).type) == column
    assert encode_public(table) == encode_row([column, "int64"], [value, 300])
    assert decode_row([column, "int64"], encode_public(table)) == (value, 300)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT id FROM a WHERE id < 0", "output.rows"),
        ("SELECT id FROM a WHERE id < 2", "output.rows"),
        ("SELECT NULL::BIGINT AS v FROM a LIMIT 1", "output.null"),
        ("SELECT 0.5::DOUBLE AS v FROM a LIMIT 1", "output.type"),
        ("SELECT NULL AS v FROM a LIMIT 1", "output.type"),
        ("SELECT [1] AS v FROM a LIMIT 1", "output.type"),
        ("SELECT TIME '01:02:03' AS v FROM a LIMIT 1", "output.type"),
        ("SELECT 'infinity'::DATE AS v FROM a LIMIT 1", "output.value"),
        ("SELECT '290000-01-01'::TIMESTAMP AS v FROM a LIMIT 1", "output.value"),
        ("SELECT repeat('x', 70000) AS v FROM a LIMIT 1", "output.size"),
    ],
)
def test_what_no_contract_can_read_is_the_functions_failure(sql: str, code: str) -> None:
    with pytest.raises(FunctionFailed) as failed:
        encode_public(run(sql))
    assert failed.value.code == code


def test_an_opened_function_answers_each_question_as_if_it_were_the_first() -> None:
    sql = "SELECT g, sum(v) AS s, count(*) AS n FROM a WHERE id >= $low GROUP BY g"
    source = FunctionSource(sql, ("a",), ("low",), ("out",))
    runtime = SqlRuntime()
    runtime.open(source, {"a": TABLE}, LIMITS)
    for low in (0, 150, 0, 299, 1000, 0):
        found = runtime.answer({"low": low}, 1_700_000_000)["out"]
        assert encode_table(found) == encode_table(run(sql, {"low": low}, {"a": TABLE}))


def test_an_opened_function_goes_on_after_a_question_that_fails_and_looks_at_types_each_time() -> None:
    runtime = SqlRuntime()
    source = FunctionSource("SELECT $n AS s, 10 // (id - $n) AS d FROM a WHERE id < 1", ("a",), ("n",), ("out",))
    runtime.open(source, {"a": TABLE}, LIMITS)
    first = encode_table(runtime.answer({"n": 5}, 0)["out"])
    with pytest.raises(FunctionFailed, match="UHUGEINT"):
        runtime.answer({"n": (1 << 128) - 1}, 0)
    assert encode_table(runtime.answer({"n": 5}, 0)["out"]) == first


def test_the_clock_of_an_opened_function_is_each_requests_own() -> None:
    runtime = SqlRuntime()
    runtime.open(FunctionSource("SELECT $as_of AS t FROM a LIMIT 1", ("a",), (), ("out",)), {"a": TABLE}, LIMITS)
    times = [runtime.answer({}, as_of)["out"]["t"][0].as_py().year for as_of in (0, 1_700_000_000)]
    assert times == [1970, 2023]


def test_what_was_checked_for_one_question_is_not_taken_for_another() -> None:
    runtime = SqlRuntime()
    runtime.warm(pa.table({"id": [1, 2], "x": [0.5, 1.5]}))
    source = FunctionSource("SELECT id, v FROM a WHERE id = $n LIMIT 1", ("a",), ("n",), ("out",))
    runtime.open(source, {"a": TABLE}, LIMITS)
    for _ in range(2):
        assert runtime.answer({"n": 7}, 0)["out"]["id"].to_pylist() == [7]
        with pytest.raises(FunctionFailed) as failed:
            runtime.answer({"m": 7}, 0)
        assert failed.value.code == "sql.refused"


def test_nothing_is_answered_before_a_function_is_opened() -> None:
    with pytest.raises(HostFault):
        SqlRuntime().answer({}, 0)
