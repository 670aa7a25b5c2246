"""Public parameters: the agreement names a domain by digest, a request gives values, and both ends check them alike.

Values are canonical JSON: integers of at most 53 bits, decimals as strings, ISO dates as strings, text, booleans.
"""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from .canonical import Document, load, parse
from .digests import sha256
from .errors import Refused
from .fields import Date, Label, parse_date

MAX_PARAMS = 4096
_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,18})?")


def _decimal(text: str) -> str:
    if not _DECIMAL.fullmatch(text):
        raise ValueError("a decimal is digits, with at most 18 after the point")
    return text


DecimalText = Annotated[str, AfterValidator(_decimal)]


def _ordered(in_order: bool) -> None:
    if not in_order:
        raise ValueError("the least value is above the greatest")


class IntegerParam(Document):
    type: Literal["integer"]
    name: str = Field(pattern=_NAME)
    min: StrictInt
    max: StrictInt

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        _ordered(self.min <= self.max)
        return self

    def read(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.min <= value <= self.max:
            raise _outside(self.name, f"an integer from {self.min} to {self.max}")
        return value


class DecimalParam(Document):
    type: Literal["decimal"]
    name: str = Field(pattern=_NAME)
    min: DecimalText
    max: DecimalText

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        _ordered(Decimal(self.min) <= Decimal(self.max))
        return self

    def read(self, value: Any) -> Decimal:
        if (
            isinstance(value, str)
            and _DECIMAL.fullmatch(value)
            and Decimal(self.min) <= Decimal(value) <= Decimal(self.max)
        ):
            return Decimal(value)
        raise _outside(self.name, f"a decimal, written as a string, from {self.min} to {self.max}")


class DateParam(Document):
    type: Literal["date"]
    name: str = Field(pattern=_NAME)
    min: Date
    max: Date

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        _ordered(self.min <= self.max)
        return self

    def read(self, value: Any) -> datetime.date:
        try:
            date = parse_date(value)
        except ValueError:
            raise _outside(self.name, "a date, written YYYY-MM-DD") from None
        if self.min <= date <= self.max:
            return date
        raise _outside(self.name, f"a date from {self.min} to {self.max}")


class ChoiceParam(Document):
    type: Literal["choice"]
    name: str = Field(pattern=_NAME)
    values: tuple[Label, ...] = Field(min_length=1, max_length=1000)

    def read(self, value: Any) -> str:
        if isinstance(value, str) and value in self.values:
            return value
        raise _outside(self.name, "one of the agreed values")


class BooleanParam(Document):
    type: Literal["boolean"]
    name: str = Field(pattern=_NAME)

    def read(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise _outside(self.name, "true or false")


Param = Annotated[IntegerParam | DecimalParam | DateParam | ChoiceParam | BooleanParam, Field(discriminator="type")]


class ParamDomain(Document):
    """Which parameters a request gives, and which values each may have. The agreement names its digest."""

    format: Literal["enclave-oracle/params"] = "enclave-oracle/params"
    v: Literal[1] = 1
    params: tuple[Param, ...] = Field(default=(), max_length=64)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({param.name for param in self.params}) != len(self.params):
            raise ValueError("two parameters have one name")
        return self

    @property
    def id(self) -> bytes:
        return sha256(self.canonical())

    def read(self, data: bytes) -> dict[str, Any]:
        """The values of a request's `params` bytes; anything outside the domain is refused."""
        values = load(data, limit=MAX_PARAMS)
        if not isinstance(values, dict) or set(values) != {param.name for param in self.params}:
            raise Refused(
                "params.names",
                "a request does not give exactly the agreed parameters",
                expected=", ".join(param.name for param in self.params) or "none",
            )
        return {param.name: param.read(values[param.name]) for param in self.params}


def read_domain(data: bytes, expected: bytes) -> ParamDomain:
    if sha256(data) != expected:
        raise Refused(
            "params.domain", "not the agreed parameter domain", found=sha256(data).hex(), expected=expected.hex()
        )
    return parse(ParamDomain, data, limit=1 << 20)


def _outside(name: str, expected: str) -> Refused:
    return Refused("params.value", f"parameter {name} is outside its agreed domain", expected=expected)
