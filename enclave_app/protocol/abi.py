"""Decoding the ABI's strict mode: only what Solidity's abi.encode writes, so a value has one encoding.

Source: https://docs.soliditylang.org/en/latest/abi-spec.html, "strict encoding mode". A general decoder follows offsets
wherever they point; nested arrays whose offsets all point to one place then make a message of some kilobytes into
gigabytes. Here every offset must be the next free place, so the work is linear in the message's length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .errors import Refused
from .fields import checksum

WORD = 32
AbiType = str | list["AbiType"] | tuple["AbiType", ...]
"""A Solidity elementary type, `[element]` for an array of any length, or a tuple of the members' types."""


def decode_strict(kind: AbiType, data: bytes) -> Any:
    """The value of abi.encode(value); arrays and structs come as tuples. Raises `Refused` for anything else."""
    return decode_members([kind], data)[0]


def decode_members(kinds: Sequence[AbiType], data: bytes) -> tuple[Any, ...]:
    """The values of abi.encode(value, value, …). Raises `Refused` for anything else."""
    values, end = _members(kinds, data, 0)
    if end != len(data):
        raise _refused("has bytes after its end")
    return values


def _is_dynamic(kind: AbiType) -> bool:
    if isinstance(kind, tuple):
        return any(_is_dynamic(member) for member in kind)
    return isinstance(kind, list) or kind in ("string", "bytes")


def _head_size(kind: AbiType) -> int:
    if isinstance(kind, tuple) and not _is_dynamic(kind):
        return sum(_head_size(member) for member in kind)
    return WORD


def _members(kinds: Sequence[AbiType], data: bytes, base: int) -> tuple[tuple[Any, ...], int]:
    """The values whose heads start at `base`, and where the last of them ends."""
    head, tail = base, base + sum(_head_size(kind) for kind in kinds)
    values = []
    for kind in kinds:
        if not _is_dynamic(kind):
            value, head = _static(kind, data, head)
        else:
            if _word(data, head) != tail - base:
                raise _refused("has an offset that is not its next free place")
            value, tail = _dynamic(kind, data, tail)
            head += WORD
        values.append(value)
    return tuple(values), tail


def _static(kind: AbiType, data: bytes, position: int) -> tuple[Any, int]:
    if isinstance(kind, tuple):
        values = []
        for member in kind:
            value, position = _static(member, data, position)
            values.append(value)
        return tuple(values), position
    return _ELEMENTS[str(kind)](_slice(data, position, WORD)), position + WORD


def _dynamic(kind: AbiType, data: bytes, position: int) -> tuple[Any, int]:
    if isinstance(kind, tuple):
        return _members(kind, data, position)
    length, start = _word(data, position), position + WORD
    if isinstance(kind, list):
        if length * _head_size(kind[0]) > len(data) - start:
            raise _refused("ends early")
        return _members(kind * length, data, start)
    raw = _slice(data, start, length)
    padding = -length % WORD
    if any(_slice(data, start + length, padding)):
        raise _refused("has padding that is not zero")
    try:
        return (raw.decode("utf-8") if kind == "string" else raw), start + length + padding
    except UnicodeDecodeError:
        raise _refused("has a string that is not UTF-8") from None


def _word(data: bytes, position: int) -> int:
    return int.from_bytes(_slice(data, position, WORD), "big")


def _slice(data: bytes, position: int, length: int) -> bytes:
    if length > len(data) - position:
        raise _refused("ends early")
    return data[position : position + length]


def _uint(bits: int) -> Callable[[bytes], int]:
    def read(word: bytes) -> int:
        value = int.from_bytes(word, "big")
        if value >> bits:
            raise _refused(f"has a number that does not fit uint{bits}")
        return value

    return read


def _int256(word: bytes) -> int:
    return int.from_bytes(word, "big", signed=True)


def _bool(word: bytes) -> bool:
    return bool(_uint(1)(word))


def _address(word: bytes) -> str:
    return checksum(f"0x{_uint(160)(word):040x}")


def _fixed(length: int) -> Callable[[bytes], bytes]:
    def read(word: bytes) -> bytes:
        if any(word[length:]):
            raise _refused("has padding that is not zero")
        return bytes(word[:length])

    return read


_ELEMENTS: dict[str, Callable[[bytes], Any]] = {
    "address": _address,
    "bool": _bool,
    "int256": _int256,
    **{f"bytes{length}": _fixed(length) for length in range(1, WORD + 1)},
    **{f"uint{bits}": _uint(bits) for bits in range(8, 257, 8)},
}


def _refused(what: str) -> Refused:
    return Refused("abi.decode", f"ABI-encoded data {what}")
