"""Canonical JSON, for documents that are named by their digest, and strict parsing for everything else.

The canonical form is the subset of RFC 8785 (JCS) that holds objects, arrays, strings, booleans, null and integers of at
most 53 bits, ASCII-escaped: keys sorted, no white space. Larger integers and bytes travel as strings. A document whose
bytes are not exactly its own canonical form is refused, so a digest names one reading and one only.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from .errors import Refused

MAX_DOCUMENT = 8 << 20
MAX_SAFE_INTEGER = (1 << 53) - 1
MAX_DEPTH = 32
# Possessive, and with an optional end, so that one pass is linear in whatever comes from outside.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Document(BaseModel):
    """A frozen model whose JSON keys are camelCase and whose unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )

    def canonical(self) -> bytes:
        return dump(self.model_dump(mode="json", by_alias=True))


M = TypeVar("M", bound=BaseModel)


def dump(value: Any) -> bytes:
    """The canonical bytes of a JSON value."""
    _check(value, 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def load(data: bytes, *, limit: int = MAX_DOCUMENT, canonical: bool = True) -> Any:
    """Parse JSON from outside: bounded in size and depth, no duplicate keys, no floats; by default only canonical form."""
    if len(data) > limit:
        raise Refused("json.size", "a document is too large", found=len(data), expected=f"at most {limit} bytes")
    _check_nesting(data)
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float
        )
    except Refused:
        raise
    except (ValueError, RecursionError) as error:
        raise Refused("json.syntax", f"not a JSON document ({type(error).__name__})") from None
    _check(value, 0)
    if canonical and dump(value) != data:
        raise Refused(
            "json.canonical", "a document is not in canonical form", hint="Sort its keys and drop white space"
        )
    return value


def parse(model: type[M], data: bytes, *, limit: int = MAX_DOCUMENT, canonical: bool = True) -> M:
    """Parse and validate a document from outside; every failure is a `Refused`."""
    return validate(model, load(data, limit=limit, canonical=canonical))


def validate(model: type[M], value: Any) -> M:
    """Validate an already parsed JSON value; the error names fields and never quotes values."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        )
        raise Refused("document.invalid", f"not a valid {model.__name__}: {where}") from None
    except RecursionError:
        raise Refused("document.invalid", f"not a valid {model.__name__}: nested too deeply") from None


def _check_nesting(data: bytes) -> None:
    """Refuse deep nesting before parsing: py_ecc, which eth-account imports, raises the interpreter's recursion limit so
    far that a document of brackets would crash the process instead of raising RecursionError."""
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH + 1:
            raise Refused("json.depth", "a document is nested too deeply", expected=f"at most {MAX_DEPTH} levels")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Refused("json.duplicate", "a JSON object names a key twice")
    return result


def _no_float(text: str) -> Any:
    raise Refused("json.float", "a document holds a number that is not an integer", hint="Write it as a string")


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Refused("json.depth", "a document is nested too deeply", expected=f"at most {MAX_DEPTH} levels")
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise Refused("json.integer", "an integer does not fit 53 bits", hint="Write it as a string")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Refused("json.key", "a JSON object has a key that is not a string")
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    else:
        raise Refused("json.type", f"{type(value).__name__} has no canonical JSON form")
