"""From encrypted Parquet to Arrow, in a process of its own.

pyarrow parses what a data owner made, and aborts its process where a key is missing: so this runs in a sandboxed child
that holds the released column keys of one task and nothing else, apart from the function's child (R6).
"""

from __future__ import annotations

from collections.abc import Sequence
from io import RawIOBase
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enclave_app.protocol.canonical import validate
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import Column, File, Manifest
from enclave_app.protocol.pme import ColumnKeys, check_columns, key_id, open_file


def decode_dataset(
    manifest: Manifest,
    wanted: Sequence[str],
    keys: dict[int, bytes],
    ciphertext: memoryview,
    sink: RawIOBase,
) -> int:
    """Write the `wanted` columns of every file, in order, to `sink` as one Arrow IPC stream; returns the rows.

    `ciphertext` is the files, one behind the other. Raises `Refused` (table.…) for what is not as the manifest says.
    """
    if manifest.encryption != "parquet-aes-gcm-v1":
        raise Refused("table.encryption", "a dataset is not a table", found=manifest.encryption)
    check_columns(manifest.columns)
    by_name = {column.name: column for column in manifest.columns}
    columns = [by_name[name] for name in wanted]
    needed = {0, *(column.key for column in columns)}
    # Only what the agreement releases has a key here (R10).
    if not needed <= set(keys):
        raise Refused("table.key_released", "a table needs a key that was not released")
    offset = rows = 0
    schema: pa.Schema | None = None
    writer: pa.RecordBatchStreamWriter | None = None
    for file in manifest.files:
        part = ciphertext[offset : offset + file.size]
        offset += file.size
        table = _read_file(part, file, manifest.columns, columns, {i: keys[i] for i in needed})
        if writer is None:
            schema = table.schema
            writer = pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema)
        writer.write_table(table.cast(schema) if table.schema != schema else table)
        rows += table.num_rows
    if writer is not None:
        writer.close()
    return rows


def read_stream(data: memoryview) -> pa.Table:
    """The table of an Arrow IPC stream in mapped memory, without a copy."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()


def _read_file(
    data: memoryview, file: File, columns: Sequence[Column], wanted: Sequence[Column], keys: dict[int, bytes]
) -> pa.Table:
    client = ColumnKeys(keys)
    try:
        parquet = open_file(pa.py_buffer(data), client)
        _check_schema(parquet, file, columns)
        table = parquet.read(columns=[column.name for column in wanted], use_threads=False).replace_schema_metadata(
            None
        )
    except (pa.ArrowException, OSError) as error:
        # pyarrow's text may quote what it decoded.
        raise Refused("table.decrypt", f"a file of a table does not open ({type(error).__name__})") from None
    # A plaintext column, or one under the footer's key, needs no key of its own to be read (R18).
    expected = {key_id(0), *(key_id(column.key) for column in wanted)}
    if client.unwrapped != expected and table.num_rows:
        raise Refused("table.plaintext", "a column of a table is not encrypted with its own key")
    if [(f.name, str(f.type)) for f in table.schema] != [(c.name, c.type) for c in wanted]:
        raise Refused("table.schema", "a file's columns are not those of its manifest")
    return table


def _check_schema(parquet: pq.ParquetFile, file: File, columns: Sequence[Column]) -> None:
    # Names, types and the number of rows only: the metadata of a column whose key is missing aborts the process.
    found = [(field.name, str(field.type)) for field in parquet.schema_arrow]
    if found != [(column.name, column.type) for column in columns]:
        raise Refused("table.schema", "a file's columns are not those of its manifest")
    if parquet.metadata.num_rows != file.rows:
        raise Refused(
            "table.rows", "a file has another number of rows", found=parquet.metadata.num_rows, expected=file.rows
        )


def manifest_of(value: Any) -> Manifest:
    return validate(Manifest, value)
