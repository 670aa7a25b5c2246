"""The column types that reach a query unchanged, by the text that pyarrow prints for them (`Column.type`)."""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa

_FIXED: Final = (
    *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.date32()),
    *(pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
)
SIMPLE_TYPES: Final = {str(kind): kind for kind in _FIXED}
_TIMESTAMP = re.compile(r"timestamp\[(ms|us|ns)(?:, tz=([A-Za-z0-9_+:/-]{1,64}))?\]")
_DECIMAL = re.compile(r"decimal128\((\d{1,2}), (\d{1,2})\)")
EXPECTED: Final = "a boolean, number, decimal of at most 38 digits, string, binary, date, time or timestamp"


def parse_type(text: str) -> pa.DataType | None:
    """The type that pyarrow prints as `text`; None for any other text and for types that are not sealed."""
    if text in SIMPLE_TYPES:
        return SIMPLE_TYPES[text]
    if match := _TIMESTAMP.fullmatch(text):
        return pa.timestamp(match[1], match[2])
    if match := _DECIMAL.fullmatch(text):
        precision, scale = int(match[1]), int(match[2])
        return pa.decimal128(precision, scale) if 0 <= scale <= precision and 1 <= precision <= 38 else None
    return None
