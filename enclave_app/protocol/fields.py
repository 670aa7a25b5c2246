"""Field types: each says its Solidity type, how it is read from JSON or Python, and how it is written to JSON."""

from __future__ import annotations

import datetime
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from eth_utils.address import to_checksum_address
from pydantic import BeforeValidator, PlainSerializer

ZERO32 = bytes(32)
ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"


@dataclass(frozen=True)
class Sol:
    """The EIP-712 type of a field."""

    name: str


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str) and value.startswith("0x"):
        # White space, which `fromhex` passes over, leaves too few bytes.
        with suppress(ValueError):
            raw = bytes.fromhex(value[2:])
            if 2 * len(raw) == len(value) - 2:
                return raw
    raise ValueError("bytes are written as 0x and an even number of hex digits")


def _fixed(length: int) -> BeforeValidator:
    def check(value: Any) -> bytes:
        raw = _to_bytes(value)
        if len(raw) != length:
            raise ValueError(f"must be {length} bytes, not {len(raw)}")
        return raw

    return BeforeValidator(check)


@lru_cache(maxsize=4096)
def checksum(address: str) -> str:
    """EIP-55's form of an address in hex. The same few come again and again."""
    return str(to_checksum_address(address))


def _to_address(value: Any) -> str:
    if isinstance(value, bytes) and len(value) == 20:
        return checksum("0x" + value.hex())
    if not isinstance(value, str) or not re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        raise ValueError("an address is 0x and 40 hex digits")
    digits = value[2:]
    checksummed = checksum(value)
    if digits not in (digits.lower(), digits.upper()) and value != checksummed:
        raise ValueError("an address has a wrong EIP-55 checksum: a digit was mistyped")
    return checksummed


def _uint(bits: int) -> BeforeValidator:
    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,77}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an integer (uint{bits})")
        if not 0 <= value < 1 << bits:
            raise ValueError(f"does not fit uint{bits}")
        return int(value)

    return BeforeValidator(check)


def _strict_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _unicode(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds half of a surrogate pair, which is not Unicode text")
    return value


def is_label(value: str) -> bool:
    """Whether two people who see `value` see the same: normalised (NFC), without control or invisible characters."""
    return value.isprintable() and unicodedata.is_normalized("NFC", value)


def _label(value: Any) -> str:
    text = _unicode(value)
    if not is_label(text):
        raise ValueError("must be printable text in Unicode's normal form C")
    return text


def parse_date(value: Any) -> datetime.date:
    """A date from YYYY-MM-DD, and from nothing else; raises `ValueError`."""
    if type(value) is datetime.date:
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("a date is written YYYY-MM-DD")
    return datetime.date.fromisoformat(value)


_as_hex = PlainSerializer(lambda value: "0x" + value.hex(), return_type=str, when_used="json")
_as_lower = PlainSerializer(lambda value: value.lower(), return_type=str, when_used="json")
_as_text = PlainSerializer(str, return_type=str, when_used="json")

Bytes = Annotated[bytes, BeforeValidator(_to_bytes), _as_hex, Sol("bytes")]
Bytes32 = Annotated[bytes, _fixed(32), _as_hex, Sol("bytes32")]
Address = Annotated[str, BeforeValidator(_to_address), _as_lower, Sol("address")]
"""EIP-55 checksummed in Python, lower case in JSON."""
Text = Annotated[str, BeforeValidator(_unicode), Sol("string")]
Label = Annotated[str, BeforeValidator(_label)]
"""Text that people compare by eye before they sign."""
Date = Annotated[datetime.date, BeforeValidator(parse_date)]
Flag = Annotated[bool, BeforeValidator(_strict_bool), Sol("bool")]
Uint8 = Annotated[int, _uint(8), Sol("uint8")]
Uint16 = Annotated[int, _uint(16), Sol("uint16")]
Uint32 = Annotated[int, _uint(32), Sol("uint32")]
Uint64 = Annotated[int, _uint(64), _as_text, Sol("uint64")]
Uint256 = Annotated[int, _uint(256), _as_text, Sol("uint256")]
