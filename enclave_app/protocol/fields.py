"""Field types: each says its Solidity type, how it is read from JSON or Python, and how it is written to JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from eth_utils.address import to_checksum_address
from pydantic import BeforeValidator, PlainSerializer

_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
ZERO32 = bytes(32)
ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"


@dataclass(frozen=True)
class Sol:
    """The EIP-712 type of a field."""

    name: str


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str) and _HEX.fullmatch(value):
        return bytes.fromhex(value[2:])
    raise ValueError("bytes are written as 0x and an even number of hex digits")


def _fixed(length: int) -> BeforeValidator:
    def check(value: Any) -> bytes:
        raw = _to_bytes(value)
        if len(raw) != length:
            raise ValueError(f"must be {length} bytes, not {len(raw)}")
        return raw

    return BeforeValidator(check)


def _to_address(value: Any) -> str:
    if isinstance(value, bytes) and len(value) == 20:
        return str(to_checksum_address(value))
    if not isinstance(value, str) or not re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        raise ValueError("an address is 0x and 40 hex digits")
    digits = value[2:]
    checksummed = str(to_checksum_address(value))
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
        return value

    return BeforeValidator(check)


def _strict_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


_as_hex = PlainSerializer(lambda value: "0x" + value.hex(), return_type=str, when_used="json")
_as_lower = PlainSerializer(lambda value: value.lower(), return_type=str, when_used="json")
_as_text = PlainSerializer(str, return_type=str, when_used="json")

Bytes = Annotated[bytes, BeforeValidator(_to_bytes), _as_hex, Sol("bytes")]
Bytes32 = Annotated[bytes, _fixed(32), _as_hex, Sol("bytes32")]
Address = Annotated[str, BeforeValidator(_to_address), _as_lower, Sol("address")]
"""EIP-55 checksummed in Python, lower case in JSON."""
Text = Annotated[str, Sol("string")]
Flag = Annotated[bool, BeforeValidator(_strict_bool), Sol("bool")]
Uint8 = Annotated[int, _uint(8), Sol("uint8")]
Uint16 = Annotated[int, _uint(16), Sol("uint16")]
Uint32 = Annotated[int, _uint(32), Sol("uint32")]
Uint64 = Annotated[int, _uint(64), _as_text, Sol("uint64")]
Uint256 = Annotated[int, _uint(256), _as_text, Sol("uint256")]
