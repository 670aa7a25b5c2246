"""A public output's bytes (R17): exactly one row, as Solidity's `abi.encode(column, column, …)` writes it, for contracts to read.

| column, as pyarrow prints its type                  | Solidity  | value                        |
|-----------------------------------------------------|-----------|------------------------------|
| int8, int16, int32, int64                           | `int256`  | itself                       |
| uint8, uint16, uint32, uint64                       | `uint256` | itself                       |
| decimal128(p, s); DuckDB's HUGEINT has p 38 and s 0 | `int256`  | scaled by 10^s               |
| bool                                                | `bool`    | itself                       |
| string                                              | `string`  | its UTF-8                    |
| binary                                              | `bytes`   | itself                       |
| date32[day]                                         | `int256`  | days since 1970-01-01        |
| timestamp[us]                                       | `int256`  | microseconds since 1970-01-01|

Nothing else has one exact value on chain; a floating-point number least of all. Errors name types, never values.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from eth_abi.abi import encode

from .abi import decode_members
from .errors import Refused

MAX_PUBLIC_BYTES: Final = 64 << 10
"""Of all public outputs of a task together: one transaction carries them, and nodes pass none on above 128 KiB."""

Value = int | bool | str | bytes | Decimal | datetime.date | datetime.datetime
"""What a column's value is in Python."""

_DAY: Final = datetime.timedelta(days=1)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_EPOCH: Final = datetime.datetime(1970, 1, 1)
_DECIMAL = re.compile(r"decimal128\(([1-9][0-9]?), ([0-9]|[1-9][0-9])\)")
_HINTS: Final = {
    "double": "CAST it to a DECIMAL",
    "float": "CAST it to a DECIMAL",
    "halffloat": "CAST it to a DECIMAL",
    "null": "CAST it to what it is to be",
}


@dataclass(frozen=True)
class _Kind:
    """A Solidity type, and the way of a value into it (None where the value is none of the column's) and back."""

    solidity: str
    write: Callable[[Any], object | None]
    read: Callable[[Any], Value | None]


def solidity_types(columns: Sequence[str]) -> tuple[str, ...]:
    """The Solidity types of columns of these types. Raises Refused `abi.type` for one that has none."""
    return tuple(_kind(position, name).solidity for position, name in enumerate(columns))


def encode_row(columns: Sequence[str], row: Sequence[object]) -> bytes:
    """The bytes of one row, whose columns have these types.

    Raises Refused `abi.type`; `abi.null` for a value that is None; `abi.value` for one that is not of its column's type or
    lies outside of it; `abi.size` above `MAX_PUBLIC_BYTES`.
    """
    kinds = [_kind(position, name) for position, name in enumerate(columns)]
    words = []
    for position, (kind, value) in enumerate(zip(kinds, row, strict=True)):
        if value is None:
            raise Refused("abi.null", f"column {position + 1} is NULL, which no Solidity type has", hint="COALESCE it")
        word = kind.write(value)
        if word is None:
            raise _value(position, columns[position])
        words.append(word)
    data = encode([kind.solidity for kind in kinds], words)
    if len(data) > MAX_PUBLIC_BYTES:
        raise Refused("abi.size", "a public output is too large for a transaction", expected=MAX_PUBLIC_BYTES)
    return data


def decode_row(columns: Sequence[str], data: bytes) -> tuple[Value, ...]:
    """The row that `encode_row` made `data` of. Raises Refused `abi.type`, `abi.decode` and `abi.value` for any other bytes."""
    kinds = [_kind(position, name) for position, name in enumerate(columns)]
    values = []
    for position, (kind, word) in enumerate(
        zip(kinds, decode_members([kind.solidity for kind in kinds], data), strict=True)
    ):
        value = kind.read(word)
        if value is None:
            raise _value(position, columns[position])
        values.append(value)
    return tuple(values)


def _kind(position: int, name: str) -> _Kind:
    if (known := _KINDS.get(name)) is not None:
        return known
    if (decimal := _DECIMAL.fullmatch(name)) is not None and int(decimal[1]) <= 38 >= int(decimal[2]):
        return _decimal(int(decimal[2]))
    raise Refused(
        "abi.type",
        f"column {position + 1} has a type that no public output can have",
        found=name[:80],
        expected="integers, DECIMAL, BOOLEAN, VARCHAR, BLOB, DATE or TIMESTAMP",
        hint=_HINTS.get(name, "CAST it to one of them"),
    )


def _value(position: int, name: str) -> Refused:
    return Refused(
        "abi.value", f"column {position + 1} has a value that is not of its type, or too large", expected=name
    )


def _integer(solidity: str, least: int, most: int) -> _Kind:
    def checked(value: object) -> int | None:
        return value if type(value) is int and least <= value <= most else None

    return _Kind(solidity, checked, checked)


def _exact(solidity: str, kind: type) -> _Kind:
    def checked(value: Any) -> Any:
        return value if type(value) is kind else None

    return _Kind(solidity, checked, checked)


def _text(value: object) -> str | None:
    # Half of a surrogate pair has no UTF-8.
    return value if isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value) else None


def _decimal(scale: int) -> _Kind:
    """128 bits of value, whatever the precision says: DuckDB's HUGEINT uses them all."""

    def write(value: object) -> int | None:
        if not isinstance(value, Decimal) or not value.is_finite():
            return None
        sign, digits, exponent = value.as_tuple()
        # Never through arithmetic of Decimal, which rounds to its context's precision.
        shift = int(exponent) + scale
        number = int("".join(map(str, digits)))
        if shift < 0:
            number, rest = divmod(number, 10**-shift)
            if rest:
                return None
        elif shift > 2 * 38:
            return None if number else 0
        else:
            number *= 10**shift
        return _in_128(-number if sign else number)

    def read(value: int) -> Decimal | None:
        if _in_128(value) is None:
            return None
        return Decimal((int(value < 0), tuple(map(int, str(abs(value)))), -scale))

    return _Kind("int256", write, read)


def _in_128(number: int) -> int | None:
    return number if -(1 << 127) <= number < 1 << 127 else None


def _days(value: object) -> int | None:
    # A datetime is a date to Python.
    return (value - _EPOCH.date()) // _DAY if type(value) is datetime.date else None


def _from_days(days: int) -> datetime.date | None:
    try:
        return _EPOCH.date() + days * _DAY
    except OverflowError:
        return None


def _microseconds(value: object) -> int | None:
    return (value - _EPOCH) // _MICROSECOND if type(value) is datetime.datetime and value.tzinfo is None else None


def _from_microseconds(microseconds: int) -> datetime.datetime | None:
    try:
        return _EPOCH + microseconds * _MICROSECOND
    except OverflowError:
        return None


_KINDS: Final = {
    **{f"int{bits}": _integer("int256", -(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": _integer("uint256", 0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
    "bool": _exact("bool", bool),
    "string": _Kind("string", _text, _text),
    "binary": _exact("bytes", bytes),
    "date32[day]": _Kind("int256", _days, _from_days),
    "timestamp[us]": _Kind("int256", _microseconds, _from_microseconds),
}
