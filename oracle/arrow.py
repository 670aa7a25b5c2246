"""Arrow IPC streams from strangers: a task's outputs, and what a function's sandboxed process gave.

pyarrow reads a stream without looking at what its offsets and lengths mean: touching a value of a hostile one then reads
other memory, or ends the process. So every stream is validated in full before anyone touches a value, and one that would
take more memory than it has bytes is refused before it is read. Our own streams are never compressed (R16).
"""

from __future__ import annotations

import pyarrow as pa

from enclave_app.protocol.errors import Refused

_BATCHES = {"record batch", "dictionary"}


def read_table(data: bytes | bytearray | memoryview, *, most_rows: int) -> pa.Table:
    """The table of an Arrow IPC stream, safe to touch. Raises Refused `arrow.format`, `arrow.compressed`, `arrow.size`."""
    buffer = pa.py_buffer(data)
    try:
        _check_messages(buffer)
        with pa.ipc.open_stream(buffer) as reader:
            table = reader.read_all()
        if table.num_rows > most_rows:
            raise _too_large(most_rows)
        table.validate(full=True)
        # Several columns may lie in the same bytes. Not before: the size of a column is read from its offsets.
        if table.nbytes > len(data):
            raise _too_large(most_rows)
    # pyarrow quotes the stream in its errors, which fails by itself where that is no UTF-8; and values are not for a log.
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise Refused("arrow.format", "not an Arrow stream", found=type(error).__name__) from None
    return table


def _too_large(rows: int) -> Refused:
    return Refused("arrow.size", "an Arrow stream holds more than it may", expected=f"at most {rows} rows")


def _check_messages(buffer: pa.Buffer) -> None:
    """Refuse compressed batches: a few bytes of them unpack to any size."""
    for message in pa.ipc.MessageReader.open_stream(buffer):
        if message.type in _BATCHES and _is_compressed(bytes(message.metadata), message.type):
            raise Refused("arrow.compressed", "an Arrow stream is compressed")


def _is_compressed(metadata: bytes, kind: str) -> bool:
    """Whether a RecordBatch names a compression (Message.fbs: Message.header, DictionaryBatch.data, RecordBatch.compression).

    pyarrow has verified the flatbuffer, so every offset in it leads to a table.
    """
    batch = _table(metadata, _number(metadata, 0, 4), 2)
    if kind == "dictionary":
        batch = _table(metadata, batch, 1)
    return _field(metadata, batch, 3) != 0


def _table(data: bytes, table: int, index: int) -> int:
    place = table + _field(data, table, index)
    return place + _number(data, place, 4)


def _field(data: bytes, table: int, index: int) -> int:
    """A field's offset in its table; 0 where it is not there."""
    vtable = table - int.from_bytes(data[table : table + 4], "little", signed=True)
    entry = 4 + 2 * index
    return _number(data, vtable + entry, 2) if entry < _number(data, vtable, 2) else 0


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
