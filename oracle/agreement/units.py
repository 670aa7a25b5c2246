"""Amounts as people write them: ether, bytes, durations, moments, percentages. Exact: nothing becomes a float."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator

from enclave_app.protocol.fields import ZERO_ADDRESS

_AMOUNT = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(wei|gwei|ether|eth)")
_TOKENS = re.compile(r"(\d{1,30}(?:\.\d{1,36})?)\s*([A-Za-z][A-Za-z0-9.]{0,15})")
_SIZE = re.compile(r"(\d{1,12})\s*(B|KiB|MiB|GiB)")
_DURATION = re.compile(r"(\d{1,9})\s*(s|seconds?|min|minutes?|h|hours?|d|days?|weeks?)")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,2})?)\s*%")
_WEI = {"wei": 1, "gwei": 10**9, "ether": 10**18, "eth": 10**18}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def wei(value: Any) -> int:
    """`0.01 ether`, `30 gwei`, `0` → wei."""
    if value == 0 and not isinstance(value, bool):
        return 0
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    amount = Fraction(match[1]) * _WEI[match[2]] if match else None
    if amount is None or amount.denominator != 1:
        raise ValueError("write an amount with its unit, such as 0.01 ether")
    return int(amount)


def amount(value: Any) -> int | str:
    """What a price says, whose unit depends on the token beside it: an integer, or text for `token_units` or `wei`."""
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise ValueError("write an amount with its unit, such as 0.01 ether, or a token's smallest units as an integer")
    return value


def token_units(value: int | str, symbol: str, decimals: int) -> int:
    """`10 USDC` → 10000000, with the token's own decimals."""
    if isinstance(value, int):
        return value
    match = _TOKENS.fullmatch(value)
    if match is None or match[2] != symbol:
        raise ValueError(f"write an amount such as 10 {symbol or 'USDC'}, or an integer in the token's smallest unit")
    units = Fraction(match[1]) * 10**decimals
    if units.denominator != 1:
        raise ValueError(f"{symbol} has {decimals} decimals")
    return int(units)


def size(value: Any) -> int:
    """`64 KiB` → bytes."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a size with its unit, such as 512 MiB or 64 KiB")
    return int(match[1]) * _BYTES[match[2]]


def duration(value: Any) -> int:
    """`90 days` → seconds."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration with its unit, such as 30 s, 24 h or 90 days")
    return int(match[1]) * _SECONDS[match[2][0]]


def basis_points(value: Any) -> int:
    """`12.5%` → 1250."""
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or Fraction(match[1]) > 100:
        raise ValueError("write a share as a percentage, such as 12.5%")
    return int(Fraction(match[1]) * 100)


@dataclass(frozen=True)
class Moment:
    """A point in time in unix seconds, or so many seconds after another one."""

    at: int | None
    after: int

    def resolve(self, start: int) -> int:
        return start + self.after if self.at is None else self.at


def moment(value: Any) -> Moment:
    """`now`, `90 days`, `2026-12-31` (its midnight in UTC) or `2026-12-31T18:00:00Z`."""
    if value == "now":
        return Moment(None, 0)
    if isinstance(value, str):
        if _DURATION.fullmatch(value):
            return Moment(None, duration(value))
        try:
            read = datetime.datetime.fromisoformat(value)
        except ValueError:
            read = None
        if read is not None and (read.tzinfo is not None or re.fullmatch(r"\d{4}-\d\d-\d\d", value)):
            at = int((read if read.tzinfo else read.replace(tzinfo=datetime.UTC)).timestamp())
            if at > 0:
                return Moment(at, 0)
    raise ValueError("write a date (2026-12-31), a time with its zone (2026-12-31T18:00:00Z), a duration, or now")


Wei = Annotated[int, BeforeValidator(wei)]
Amount = Annotated[int | str, BeforeValidator(amount)]
Size = Annotated[int, BeforeValidator(size)]
Duration = Annotated[int, BeforeValidator(duration)]
BasisPoints = Annotated[int, BeforeValidator(basis_points)]
When = Annotated[Moment, BeforeValidator(moment)]


def show_wei(amount: int) -> str:
    whole, part = divmod(amount, 10**18)
    digits = f"{whole}.{part:018d}".rstrip("0").removesuffix(".")
    return f"{digits} ether" if amount else "nothing"


def show_amount(amount: int, token: str) -> str:
    """Of a token, its smallest units: what they are worth only the token says."""
    return show_wei(amount) if token == ZERO_ADDRESS or not amount else f"{amount} of the token's smallest unit"


def show_size(count: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if count % _BYTES[unit] == 0 and count:
            return f"{count // _BYTES[unit]} {unit}"
    return f"{count} bytes"


def show_duration(seconds: int) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds % unit == 0 and seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} seconds"


def show_moment(at: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"unix time {at} (beyond any calendar)"
