"""Outputs in one byte form (R16): equal values give equal bytes, and nothing else leaves with them.

What DuckDB leaves under a null or in a bitmap's last byte comes from other rows: it differs between runs, and it would
carry values that the query withheld.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from enclave_app.protocol.abi_output import encode_row
from enclave_app.protocol.errors import Refused
from enclave_app.runtimes.base import FunctionFailed

BATCH_ROWS: Final = 65_536


def canonical_table(table: pa.Table) -> pa.Table:
    """The same values in one layout: one chunk a column, no metadata, zeros under nulls."""
    columns = [_canonical(column) for column in table.columns]
    fields = [pa.field(field.name, field.type) for field in table.schema]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def encode_table(table: pa.Table) -> bytes:
    """An Arrow IPC stream: schema, then batches of at most BATCH_ROWS rows, uncompressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=BATCH_ROWS)
    return bytes(sink.getvalue())


def encode_public(table: pa.Table) -> bytes:
    """R17: the bytes of a public output, which is one row. Raises FunctionFailed for anything that is not (R19)."""
    if table.num_rows != 1:
        raise FunctionFailed(
            "output.rows", "the function gives no row, or several, where a public output is exactly one"
        )
    try:
        row = [column[0].as_py() for column in table.columns]
    except (ValueError, OverflowError, pa.ArrowException):
        raise FunctionFailed(
            "output.value", "the function gives a date or time that is none of year 1 to 9999"
        ) from None
    try:
        return encode_row([str(field.type) for field in table.schema], row)
    except Refused as error:
        raise FunctionFailed(f"output.{error.code.removeprefix('abi.')}", error.message) from None


def _canonical(column: pa.ChunkedArray) -> pa.Array:
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = array.type
    if pa.types.is_null(kind):
        return array
    if pa.types.is_boolean(kind):
        filled = pc.fill_null(array, False)
        return pa.Array.from_buffers(kind, len(array), [_validity(array), _bits(filled)])
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        zero = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bytes(kind.bit_width // 8))])[0]
        filled = pc.fill_null(array, zero) if array.null_count else array
        return pa.Array.from_buffers(kind, len(array), [_validity(array), filled.buffers()[1]], offset=filled.offset)
    try:
        # Text, binary and nested types are rebuilt value by value: their buffers have no one layout.
        return pa.array(array.to_pylist(), kind)
    except (ImportError, ValueError, TypeError, NotImplementedError, pa.ArrowException) as error:
        raise FunctionFailed(
            "output.type", f"the function gives a column of a type that cannot leave ({type(error).__name__})"
        ) from None


def _validity(array: pa.Array) -> pa.Buffer | None:
    return _bits(pc.is_valid(array)) if array.null_count else None


def _bits(array: pa.Array) -> pa.Buffer:
    """A boolean array's bits from bit 0 on, the last byte's unused ones zero."""
    raw = bytearray(memoryview(pa.concat_arrays([array, pa.array([], pa.bool_())]).buffers()[1]))[: -(-len(array) // 8)]
    if len(array) % 8:
        raw[-1] &= (1 << len(array) % 8) - 1
    return pa.py_buffer(bytes(raw))
