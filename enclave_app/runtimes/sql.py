"""The `sql` runtime: one SELECT in DuckDB, locked down, in memory, on one thread, with its rows ordered (R16).

Measured: DuckDB's own spill files held plaintext, so there is no temporary directory; `random()` runs even in a locked
database, so the statement is walked first (`sql_policy.py`); `sum(DOUBLE)` differs between runs unless there is one
thread.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from enclave_app.protocol.errors import Refused
from enclave_app.runtimes.arrow_output import canonical_table, encode_table
from enclave_app.runtimes.base import FunctionFailed, FunctionSource, HostFault, ParamValue, RunLimits
from enclave_app.runtimes.sql_policy import check_select

AS_OF: Final = "as_of"
"""The parameter that every query may use: the request's `asOf` as a TIMESTAMP in UTC."""
MAX_TEXT: Final = 1 << 20
_MAX_LIMIT: Final = 1 << 62

_SETTINGS: Final = {
    "threads": 1,
    "async_threads": 0,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "preserve_insertion_order": True,
}
# What another machine would find as well. All else may be the host's doing and fails as such (R19).
_DETERMINISTIC: Final = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.InvalidTypeException,
    duckdb.NotImplementedException,
    duckdb.OutOfRangeException,
    duckdb.ParserException,
    duckdb.SyntaxException,
    duckdb.TypeMismatchException,
)


class _Stream:
    """An Arrow table as DuckDB scans it, again for each scan, without pyarrow's own (threaded) dataset scanner."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


@dataclass(frozen=True)
class _Prepared:
    """A statement that was checked: what was asked, and its text before and after the order and the bound were added."""

    question: tuple[FunctionSource, frozenset[str], int]
    plain: str
    columns: int
    text: str


@contextmanager
def _failures() -> Iterator[None]:
    """What DuckDB raises, as who is to blame for it (R19)."""
    try:
        yield
    except _DETERMINISTIC as error:
        # Only the kind: DuckDB quotes the value that would not convert.
        raise FunctionFailed("sql.failed", f"the function's SQL failed ({type(error).__name__})") from None
    except (Refused, RecursionError) as error:
        raise FunctionFailed("sql.refused", str(error) or "the function's SQL is nested too deeply") from None
    except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError):
        raise HostFault("run.memory", "the function ran out of memory", hint="Give it more or run it again") from None
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise HostFault("run.failed", f"the database failed ({type(error).__name__})") from None


class SqlRuntime:
    """One database, made before the data is known, so that a forked child finds it warm. It has one function opened, and
    answers it as often as it is asked: what it runs keeps no state (sql_policy.py)."""

    def __init__(self) -> None:
        self._opened: tuple[FunctionSource, RunLimits] | None = None
        self._prepared: _Prepared | None = None
        self._connection = duckdb.connect(":memory:", config=dict(_SETTINGS))
        for setting in ("temp_directory = ''", "TimeZone = 'UTC'", "enable_external_access = false"):
            self._connection.execute(f"SET {setting}")

    def run(
        self,
        source: FunctionSource,
        inputs: Mapping[str, pa.Table],
        params: Mapping[str, ParamValue],
        as_of: int,
        limits: RunLimits,
    ) -> dict[str, pa.Table]:
        """One Arrow table. See `Runtime.run`; the function's SQL gives exactly one output."""
        self.open(source, inputs, limits)
        return self.answer(params, as_of)

    def open(self, source: FunctionSource, inputs: Mapping[str, pa.Table], limits: RunLimits) -> None:
        """Once: the function, its tables and its limits. Raises as `run`."""
        if len(source.outputs) != 1:
            raise FunctionFailed("sql.outputs", "an SQL function has exactly one output", found=len(source.outputs))
        with _failures():
            self._connection.execute(f"SET memory_limit = '{int(limits.memory_mib)}MiB'")
            self._connection.execute("SET lock_configuration = true")
            for name in source.tables:
                self._connection.register(name, _Stream(inputs[name]))
        self._opened = source, limits

    def answer(self, params: Mapping[str, ParamValue], as_of: int) -> dict[str, pa.Table]:
        """What the opened function gives. Raises as `run`."""
        if self._opened is None:
            raise HostFault("run.failed", "no function is opened")
        source, limits = self._opened
        values: dict[str, Any] = {**params, AS_OF: _timestamp(as_of)}
        with _failures():
            text = self._ordered(source, values, limits.output_rows)
            table = self._connection.sql(text, params=self._used(text, values)).to_arrow_table()
        # The agreed limits (R7) hold whatever the host would allow.
        if table.num_rows > limits.output_rows or table.nbytes > limits.output_bytes:
            raise FunctionFailed("output.limit", "the function's output is larger than agreed")
        return {source.outputs[0]: canonical_table(table)}

    def warm(self, table: pa.Table) -> None:
        """Run a query over made-up rows, before the database is locked and before there is data."""
        entry = "SELECT a.id, sum(b.x) AS s FROM warm AS a JOIN warm AS b USING (id) WHERE a.id > $n GROUP BY a.id"
        values = {"n": 0, AS_OF: _timestamp(0)}
        self._connection.register("warm", _Stream(table))
        text = self._ordered(FunctionSource(entry, ("warm",), ("n",), ("out",)), values, 10)
        encode_table(canonical_table(self._connection.sql(text, params=self._used(text, values)).to_arrow_table()))
        self._connection.unregister("warm")

    def _used(self, text: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in _single(self._connection, text).named_parameters}

    def _ordered(self, source: FunctionSource, values: Mapping[str, Any], rows: int) -> str:
        """The text that runs: the function's statement, checked, bounded, all output columns its last tie-breakers (R16).

        What was checked for the same statement and parameters of the same names is not checked again; types are, which
        follow the parameters' values."""
        prepared, question = self._prepared, (source, frozenset(values), rows)
        known = prepared is not None and prepared.question == question
        if prepared is not None and known and self._columns(prepared.plain, values) == prepared.columns:
            return prepared.text
        if len(source.entry) > MAX_TEXT:
            raise Refused("sql.size", "a function's SQL is too long", found=len(source.entry), expected=MAX_TEXT)
        _single(self._connection, source.entry)
        tree = self._serialized(source.entry)
        node = check_select(tree, source.tables, values)
        plain = self._text(tree)
        columns = self._columns(plain, values)
        _append_order(node, columns)
        _append_limit(node, rows + 1)
        text = self._text(tree)
        # What runs is what was checked, not what printing and parsing made of it.
        check_select(self._serialized(text), source.tables, values)
        self._prepared = _Prepared(question, plain, columns, text)
        return text

    def _columns(self, plain: str, values: Mapping[str, Any]) -> int:
        """How many the statement gives."""
        columns = self._connection.execute(f"DESCRIBE {plain}", self._used(plain, values)).fetchall()
        # DuckDB hands the 128 bits on as a signed number, so that the greatest come out as negative ones.
        if any("UHUGEINT" in kind for _, kind, *_ in columns):
            raise Refused("sql.type", "a function's SQL gives a UHUGEINT; CAST it to HUGEINT, DECIMAL or VARCHAR")
        return len(columns)

    def _serialized(self, text: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._scalar("SELECT json_serialize_sql($value)", text))
        return value

    def _text(self, tree: dict[str, Any]) -> str:
        return self._scalar("SELECT json_deserialize_sql($value)", json.dumps(tree))

    def _scalar(self, query: str, value: str) -> str:
        # All rows are fetched, because a result left open blocks the streaming one that follows.
        ((found,),) = self._connection.execute(query, {"value": value}).fetchall()
        return str(found)


def _single(connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.Statement:
    """The one SELECT that a text is (R16)."""
    statements = connection.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise Refused("sql.statement", "a function's SQL is not exactly one SELECT statement", found=len(statements))
    return statements[0]


def _append_order(node: dict[str, Any], columns: int) -> None:
    """ORDER BY …, 1, 2, …: rows that the query leaves tied, or unordered, come out in one order (R16)."""
    modifiers: list[dict[str, Any]] = node["modifiers"]
    order = next((m for m in modifiers if m["type"] == "ORDER_MODIFIER"), None)
    if order is None:
        order = {"type": "ORDER_MODIFIER", "orders": []}
        before_limit = [m["type"] for m in modifiers].index("LIMIT_MODIFIER") if _limited(modifiers) else len(modifiers)
        modifiers.insert(before_limit, order)
    # Nothing follows ORDER BY ALL, and nothing needs to.
    if any(_is_all(entry["expression"]) for entry in order["orders"]):
        return
    order["orders"] += [
        {
            "type": "ORDER_DEFAULT",
            "null_order": "ORDER_DEFAULT",
            "expression": _integer(position),
        }
        for position in range(1, columns + 1)
    ]


def _is_all(expression: dict[str, Any]) -> bool:
    """ORDER BY ALL, and not COLUMNS('some') or COLUMNS(* EXCLUDE …), which parse to the same class."""
    narrowed = ("relation_name", "expr", "exclude_list", "qualified_exclude_list", "replace_list", "rename_list")
    return bool(
        expression["class"] == "STAR" and expression["columns"] and not any(expression[name] for name in narrowed)
    )


def _append_limit(node: dict[str, Any], rows: int) -> None:
    """One row more than agreed is enough to know that there are too many."""
    if not _limited(node["modifiers"]) and rows <= _MAX_LIMIT:
        node["modifiers"].append(
            {"type": "LIMIT_MODIFIER", "limit": _integer(rows), "offset": None, "limit_type": "ROW_COUNT"}
        )


def _integer(value: int) -> dict[str, Any]:
    literal = {"kind": "INTEGER", "text": str(value)}
    return {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "literal": literal}


def _limited(modifiers: list[dict[str, Any]]) -> bool:
    return any(m["type"] == "LIMIT_MODIFIER" for m in modifiers)


def _timestamp(as_of: int) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(as_of, datetime.UTC).replace(tzinfo=None)
    except (OverflowError, ValueError, OSError):
        raise FunctionFailed("request.as_of", "the request's asOf is not a time", found=as_of) from None
