"""Where tables come from: Parquet, CSV and Arrow files, or a pyarrow table; read in batches, never whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from enclave_app.protocol import pme
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import MAX_COLUMNS, Column
from oracle.dataset.types import EXPECTED, parse_type

BATCH_ROWS = 1 << 16
_EXPECTED = {".csv": "A CSV file starts with a line of column names, and every line has as many values as that one"}


@dataclass(frozen=True)
class Table:
    """A table to seal: its schema in the form it will be stored, and its rows, to be read once."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def open_source(source: pa.Table | Path | Sequence[Path]) -> Table:
    """A table from files of one schema, in the given order, or from a table in memory.

    Raises Refused `dataset.source` for what cannot be read, `dataset.schema` where files differ, `dataset.type` for a
    column type that does not reach a query unchanged, `dataset.column` for a name that cannot stand.
    """
    if isinstance(source, pa.Table):
        stored = storable(source.schema)
        return Table(stored, _conform(iter(source.to_batches(BATCH_ROWS)), stored))
    paths = [source] if isinstance(source, Path) else list(source)
    if not paths:
        raise Refused("dataset.source", "no file to seal was named")
    first = _schema_of(paths[0])
    with _reading(paths[0]):
        stored = storable(first)
    return Table(stored, _conform(_read_all(paths, first), stored))


def storable(schema: pa.Schema) -> pa.Schema:
    """The schema as it is stored: without metadata, dictionaries as their values, seconds as milliseconds."""
    if not 1 <= len(schema) <= MAX_COLUMNS:
        raise Refused(
            "dataset.column",
            "a table has the wrong number of columns",
            found=len(schema),
            expected=f"1 to {MAX_COLUMNS}",
        )
    fields = [pa.field(field.name, _storable_type(field)) for field in schema]
    seen: set[str] = set()
    for field in fields:
        # DuckDB's names ignore case, so two that differ in case alone would be one column there.
        if field.name.lower() in seen:
            raise Refused(
                "dataset.column", "two columns have one name (case does not tell them apart)", found=field.name
            )
        seen.add(field.name.lower())
        if not 1 <= len(field.name) <= 128 or not field.name.isprintable() or "." in field.name:
            # A dot is a path into a nested column in Parquet's key list, and would leave this column without a key.
            raise Refused(
                "dataset.column",
                "a column's name cannot be used",
                found=repr(field.name[:80]),
                expected="1 to 128 printable characters without a dot",
            )
    pme.check_columns([Column(name=f.name, type=str(f.type), key=i) for i, f in enumerate(fields, start=1)])
    return pa.schema(fields)


def _storable_type(field: pa.Field) -> pa.DataType:
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ms", kind.tz) if kind.unit == "s" else kind
    if parse_type(str(kind)) is not None:
        return kind
    raise Refused(
        "dataset.type",
        f"column {field.name[:80]!r} has a type that does not reach a query unchanged",
        found=str(kind)[:200],
        expected=EXPECTED,
        hint="Cast it, or flatten a nested column into several",
    )


def _conform(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        try:
            arrays = [array.cast(field.type) for array, field in zip(batch.columns, schema, strict=True)]
        except pa.ArrowException:
            raise Refused("dataset.type", "a column does not convert", found=str(batch.schema)[:200]) from None
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _schema_of(path: Path) -> pa.Schema:
    with _reading(path):
        return _open(path)[0]


def _read_all(paths: Sequence[Path], first: pa.Schema) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with _reading(path):
            schema, batches = _open(path)
            if not schema.equals(first):
                raise Refused(
                    "dataset.schema",
                    "the files of one table differ in columns or types",
                    found=f"{path} against {paths[0]}",
                )
            for batch in batches:
                # pyarrow does not look at an Arrow file's offsets before it follows them.
                batch.validate(full=True)
                yield batch


def _open(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    match path.suffix.lower():
        case ".parquet" | ".pq":
            file = pq.ParquetFile(path)
            return file.schema_arrow, file.iter_batches(BATCH_ROWS)
        case ".csv":
            reader = pyarrow.csv.open_csv(path)
            return reader.schema, iter(reader)
        case ".arrow" | ".feather" | ".arrows" | ".ipc":
            return _open_arrow(path)
    raise Refused(
        "dataset.source", "a file's kind is not known by its name", found=str(path), expected=".parquet, .csv or .arrow"
    )


def _open_arrow(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    source = pa.memory_map(str(path))
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        stream = pa.ipc.open_stream(pa.memory_map(str(path)))
        return stream.schema, iter(stream)
    return file.schema, (file.get_batch(index) for index in range(file.num_record_batches))


def _why(path: Path, error: OSError) -> str:
    """pyarrow's own errors have no `strerror`, and name the file a second time."""
    return error.strerror if error.strerror and str(path) not in error.strerror else os.strerror(error.errno or 2)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises about one file into a refusal that names the file and quotes none of its values."""
    try:
        yield
    except OSError as error:
        raise Refused("dataset.source", f"cannot read {path}", found=_why(path, error)) from None
    # A name or a message that is no UTF-8 fails when Python makes text of it.
    except (pa.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise Refused(
            "dataset.source",
            f"cannot read {path} as a table",
            found=type(error).__name__,
            hint=_EXPECTED.get(path.suffix.lower(), "Is the file whole, and of the kind that its name says?"),
        ) from None
