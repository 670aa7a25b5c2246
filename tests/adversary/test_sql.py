"""Lies in SQL: what an agreed function tries beyond its tables, in a running enclave, and what its runtime says to that.

Parties agree to a function's text, which few read to the end; so a query that reaches further fails as a signed failure
without outputs (R19), and nobody learns more from it than that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import pytest_asyncio

from enclave_app.protocol.errors import Refused as Unlisted
from enclave_app.protocol.structs import Agreement, Outcome
from enclave_app.protocol.wire import TaskDone
from enclave_app.runtimes.base import FunctionFailed, FunctionSource, RunLimits
from enclave_app.runtimes.sql import SqlRuntime
from tests.adversary.lies import Refused, lie
from tests.enclave_kit import MARKER, RunningEnclave, World, enclave, make_bundle, make_world, measured, tables

pytestmark = pytest.mark.asyncio(loop_scope="module")

Columns = dict[str, tuple[str, ...]]
RELEASED: Columns = {"a": ("id", "x", "grp"), "b": ("id", "y")}
LIMITS = RunLimits(memory_mib=256, time_seconds=10, output_bytes=1 << 20, output_rows=10_000)
STOLEN = Path("/tmp/enclave-sql-stolen")  # noqa: S108
VALUES = ("'red'", '"red"', "green", MARKER)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(running: RunningEnclave, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two owners' tables, of which a function that keeps to them gives its output."""
    made = make_world(tmp_path_factory.mktemp("world") / "storage", measured())
    done = await running.whole(made, made.body(agreed(made, "SELECT grp, count(*) AS n FROM a GROUP BY grp")))
    assert done.result.outcome == Outcome.SUCCEEDED
    return made


def agreed(world: World, sql: str, inputs: Columns | None = None, limits: dict[str, int] | None = None) -> Agreement:
    """The world's agreement about another function, which declares `inputs`."""
    given = tables()
    declared = [(n, pa.schema([given[n].schema.field(c) for c in cs])) for n, cs in (inputs or RELEASED).items()]
    bundle = make_bundle(sql, declared, world.domain.params)
    world.put(bundle.raw)
    fn = world.agreement.fn
    terms = {"id": bundle.id, "limits": fn.limits.model_copy(update=limits or {})}
    return world.changed(fn=fn.model_copy(update=terms))


def says(sql: str, inputs: Columns | None = None) -> None:
    """Raises what the runtime refuses in the words of its own walk, which the enclave keeps to itself."""
    given = {name: tables()[name].select(columns) for name, columns in (inputs or RELEASED).items()}
    try:
        SqlRuntime().run(FunctionSource(sql, tuple(given), ("least",), ("result",)), given, {"least": 1}, 0, LIMITS)
    except FunctionFailed as error:
        if any(value in str(error) for value in VALUES):
            raise AssertionError("the runtime's own words quote a value") from None
        raise (error.__context__ if isinstance(error.__context__, Unlisted) else error) from None


async def fails(running: RunningEnclave, world: World, agreement: Agreement) -> TaskDone:
    done = await running.whole(world, world.body(agreement))
    assert (done.result.outcome, done.result.outputs, done.outputs) == (Outcome.FAILED, (), ())
    assert not any(value in repr(done) for value in VALUES)
    return done


def stolen() -> bool:
    return STOLEN.exists()


def watched(refused: Refused, running: RunningEnclave) -> None:
    async def leaks() -> object:
        log = running.log.read_text()
        return [value for value in VALUES if value in log], stolen()

    refused.watch(leaks)


def told(what: str, reason: str, sql: str, rules: str = "R16", **inputs: tuple[str, ...]) -> Any:
    return pytest.param(sql, inputs or None, marks=lie("SQL", what, rules, reason), id=what)


@pytest.mark.parametrize(
    ("sql", "inputs"),
    [
        # files
        told("a CSV file as a table", "sql.construct", "SELECT * FROM read_csv('/etc/passwd')", "R6"),
        told("a Parquet file as a table", "sql.construct", "SELECT * FROM read_parquet('/data/*.parquet')", "R6"),
        told("a file as a blob", "sql.construct", "SELECT * FROM read_blob('/proc/self/environ')", "R6"),
        told("a path in the place of a table", "sql.table", "SELECT * FROM '/etc/passwd'", "R6"),
        told("a list of files", "sql.construct", "SELECT * FROM glob('/*')", "R6"),
        told("a copy into a file", "sql.statement", f"COPY a TO '{STOLEN}'", "R6"),
        told("a copy from a file", "sql.statement", "COPY a FROM '/etc/passwd'", "R6"),
        told("another database file", "sql.statement", f"ATTACH '{STOLEN}'", "R6"),
        # other tables
        told("the information schema", "sql.table", "SELECT * FROM information_schema.tables", "R7"),
        told("the database's own catalogue", "sql.construct", "SELECT * FROM duckdb_tables()", "R7"),
        told("SQLite's catalogue", "sql.table", "SELECT * FROM sqlite_master", "R7"),
        told("Postgres' catalogue", "sql.table", "SELECT * FROM pg_catalog.pg_class", "R7"),
        told(
            "a system view behind a name of its own",
            "sql.table",
            "WITH duckdb_settings AS (SELECT * FROM duckdb_settings) SELECT * FROM duckdb_settings",
            "R7",
        ),
        told("an agreed table by another path", "sql.table", "SELECT id FROM main.a", "R7"),
        told("an agreed table that it did not declare", "sql.table", "SELECT b.id FROM a, b", "R7", a=("id",)),
        told("an agreed column that it did not declare", "sql.failed", "SELECT x FROM a", "R7", a=("id",)),
        told("a column that was not released", "sql.failed", "SELECT secret FROM a", "R7"),
        # settings, extensions, statements
        told("another setting", "sql.statement", "SET threads = 8"),
        told("a pragma", "sql.statement", "PRAGMA enable_profiling"),
        told("a setting's value as a result", "sql.function", "SELECT current_setting('threads') AS x"),
        told("an extension from the network", "sql.statement", "INSTALL httpfs", "R6"),
        told("an extension from the disk", "sql.statement", "LOAD '/tmp/evil.duckdb_extension'", "R6"),
        told("no statement at all", "sql.statement", "-- nothing"),
        told("two statements", "sql.statement", "SELECT 1 AS x; SELECT 2 AS x"),
        told("a statement behind the agreed one", "sql.statement", f"SELECT 1 AS x; COPY a TO '{STOLEN}'"),
        told("a table function", "sql.construct", "SELECT * FROM range(10)"),
        told("SQL in a string", "sql.construct", "SELECT * FROM query('SELECT random() AS x')"),
        told("a prepared statement", "sql.statement", "PREPARE p AS SELECT secret FROM a"),
        told("the run of a prepared statement", "sql.statement", "EXECUTE p"),
        told("a table of its own", "sql.statement", "CREATE TABLE t AS SELECT * FROM a"),
        told("a change of the data", "sql.statement", "INSERT INTO a SELECT * FROM a"),
        told("a parameter that was not agreed", "sql.parameter", "SELECT id FROM a WHERE x > $other", "R7"),
        # other answers on another run
        told("a random number", "sql.function", "SELECT random() AS x FROM a"),
        told("a random identifier", "sql.function", "SELECT uuid() AS x FROM a"),
        told("the machine's clock", "sql.function", "SELECT now() AS x FROM a", "R14 R16"),
        told("the machine's clock as a column", "sql.function", "SELECT current_timestamp AS x FROM a", "R14 R16"),
        told("a sample of the rows", "sql.sample", "SELECT * FROM a USING SAMPLE 10%"),
        told("the place of a row in memory", "sql.function", "SELECT rowid AS x FROM a"),
        told("rows matched by where they lie", "sql.join", "SELECT a.id FROM a POSITIONAL JOIN b"),
        told("an order of the machine's language", "sql.expression", "SELECT grp COLLATE NOCASE AS x FROM a"),
        told("an error that it hides", "sql.expression", "SELECT TRY(grp::INTEGER) AS x FROM a"),
        told("a listed function of another schema", "sql.function", "SELECT main.abs(x) AS x FROM a"),
        told("a type that looks into the catalogue", "sql.type", "SELECT grp::regclass AS x FROM a", "R7"),
        told("a listed type of another schema", "sql.type", "SELECT id::main.integer AS x FROM a"),
        told("a text longer than anyone reads", "sql.size", "SELECT 1 AS x --" + "x" * (1 << 20)),
        told("the environment", "sql.function", "SELECT getenv('HOME') AS x", "R6"),
        # values in an error
        told("an error that quotes a value", "sql.failed", "SELECT cast(grp AS DATE) AS x FROM a", "R19"),
        told("an error of its own making", "sql.function", "SELECT error(grp) AS x FROM a", "R19"),
    ],
)
async def test_a_function_that_reaches_further_fails_and_says_nothing(
    running: RunningEnclave, world: World, refused: Refused, sql: str, inputs: Columns | None
) -> None:
    watched(refused, running)
    async with refused():
        await fails(running, world, agreed(world, sql, inputs))
        says(sql, inputs)


# What a function declares is held against the agreement before anything is asked for.


@lie("SQL", "a function that declares a column that was not released", "R7", "task.column")
async def test_a_function_declares_released_columns(running: RunningEnclave, world: World, refused: Refused) -> None:
    watched(refused, running)
    async with refused():
        await running.start(world.body(agreed(world, "SELECT id FROM a", {"a": ("id", "secret")})))


@lie("SQL", "a function that declares a table that was not agreed", "R7", "task.table")
async def test_a_function_declares_agreed_tables(running: RunningEnclave, world: World, refused: Refused) -> None:
    bundle = make_bundle("SELECT id FROM c", [("c", pa.schema([("id", pa.int64())]))], world.domain.params)
    world.put(bundle.raw)
    fn = world.agreement.fn.model_copy(update={"id": bundle.id})
    watched(refused, running)
    async with refused():
        await running.start(world.body(world.changed(fn=fn)))


# Queries that would take all there is.


@pytest.mark.parametrize(
    ("sql", "limits"),
    [
        pytest.param(
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) AS n FROM r",
            {"time_seconds": 1},
            marks=lie("SQL", "a query without end", "R19", "run.time"),
            id="endless",
        ),
        pytest.param(
            "SELECT len(list(a.grp || b.grp || c.grp || d.grp)) AS n FROM a, a AS b, a AS c, a AS d",
            {"memory_mib": 32},
            marks=lie("SQL", "a query that takes all memory", "R19", "run.memory"),
            id="memory",
        ),
    ],
)
async def test_a_query_without_measure_is_stopped_and_not_signed(
    running: RunningEnclave, world: World, refused: Refused, sql: str, limits: dict[str, int]
) -> None:
    watched(refused, running)
    async with refused():
        await running.whole(world, world.body(agreed(world, sql, limits=limits)))


@pytest.mark.parametrize(
    ("sql", "limits"),
    [
        pytest.param(
            "SELECT a.id FROM a, a AS b, a AS c",
            {"output_rows": 100},
            marks=lie("SQL", "more rows than were agreed", "R7", "output.limit"),
            id="rows",
        ),
        pytest.param(
            "SELECT repeat('x', 1000) AS x FROM a",
            {"output_bytes": 1000},
            marks=lie("SQL", "more bytes than were agreed", "R7", "output.limit"),
            id="bytes",
        ),
    ],
)
async def test_an_output_above_its_limit_is_no_output(
    running: RunningEnclave, world: World, refused: Refused, sql: str, limits: dict[str, int]
) -> None:
    watched(refused, running)
    async with refused():
        await fails(running, world, agreed(world, sql, limits=limits))
        given = {"a": tables()["a"]}
        bounds = RunLimits(**{**LIMITS.__dict__, **limits})
        SqlRuntime().run(FunctionSource(sql, ("a",), (), ("result",)), given, {}, 0, bounds)


# And where the walk had missed it: the database itself is closed by then.


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(
            "SELECT * FROM read_csv('/etc/passwd')",
            marks=lie("SQL", "a file, past the walk over its text", "R6", "PermissionException"),
            id="file",
        ),
        pytest.param(
            f"COPY (SELECT 1) TO '{STOLEN}'",
            marks=lie("SQL", "a copy into a file, past the walk", "R6", "PermissionException"),
            id="copy",
        ),
        pytest.param(
            f"ATTACH '{STOLEN}' AS other",
            marks=lie("SQL", "another database file, past the walk", "R6", "PermissionException"),
            id="attach",
        ),
        pytest.param(
            "LOAD '/tmp/evil.duckdb_extension'",
            marks=lie("SQL", "an extension, past the walk", "R6", "PermissionException"),
            id="extension",
        ),
        pytest.param(
            "SET memory_limit = '100GB'",
            marks=lie("SQL", "more memory, past the walk", "R16", "InvalidInputException"),
            id="memory",
        ),
        pytest.param(
            "SET threads = 8",
            marks=lie("SQL", "more threads, past the walk", "R16", "InvalidInputException"),
            id="threads",
        ),
    ],
)
async def test_the_database_is_closed_behind_the_walk(refused: Refused, statement: str) -> None:
    runtime = SqlRuntime()
    runtime.run(FunctionSource("SELECT 1 AS x", (), (), ("out",)), {}, {}, 0, LIMITS)

    async def settings() -> object:
        (row,) = runtime._connection.execute(
            "SELECT current_setting('threads'), current_setting('memory_limit')"
        ).fetchall()
        return row, stolen()

    refused.watch(settings)
    async with refused():
        runtime._connection.execute(statement)
    assert unlocked(statement) != refused.told.reason


def unlocked(statement: str) -> str | None:
    """What a database says to it that nobody closed."""
    with duckdb.connect(":memory:") as free:
        try:
            free.execute(statement)
        except duckdb.Error as error:
            return type(error).__name__
        finally:
            free.execute("DETACH DATABASE IF EXISTS other")
            STOLEN.unlink(missing_ok=True)
    return None
