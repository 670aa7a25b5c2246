"""Canonical JSON, for documents that are named by their digest, and strict parsing for everything else.

The canonical form is RFC 8785 (JCS) without floats, with every character outside printable ASCII escaped: objects, arrays,
strings, booleans, null and integers of at most 53 bits; keys sorted, no white space. Larger integers and bytes travel as
strings. A document whose bytes are not exactly its own canonical form is refused, so a digest names one reading and one
only: also a field that could be written in two ways (a number as a string, a default left out) has one.
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
MAX_VALUES = 1 << 20
"""How many values a document may hold: a small JSON text can make objects of many times its size."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)', re.DOTALL)
"""A string, or what begins one and never ends: it always matches at a quote, so a search never looks back."""
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_MAX_DIGITS = len(str(MAX_SAFE_INTEGER)) + 1


class Document(BaseModel):
    """A frozen model whose JSON keys are camelCase and whose unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )

    def canonical(self) -> bytes:
        return dump(self.model_dump(mode="json", by_alias=True))


M = TypeVar("M", bound=Document)


def dump(value: Any) -> bytes:
    """The canonical bytes of a JSON value."""
    _check(value, 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def load(data: bytes, *, limit: int = MAX_DOCUMENT, canonical: bool = True) -> Any:
    """Parse JSON from outside: bounded in size and depth, no duplicate keys, no floats; by default only canonical form."""
    if len(data) > limit:
        raise Refused("json.size", "a document is too large", found=len(data), expected=f"at most {limit} bytes")
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise Refused("json.size", "a document holds too many values", expected=f"at most {MAX_VALUES}")
    check_depth(data)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_int=_bounded_int,
            parse_float=_no_float,
            parse_constant=_no_float,
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
    document = validate(model, load(data, limit=limit, canonical=canonical))
    if canonical and document.canonical() != data:
        raise Refused(
            "document.canonical",
            f"a {model.__name__} is not written in its one form",
            hint="Write out every field, hex and addresses in lower case, and 64-bit integers and larger as strings",
        )
    return document


def validate(model: type[M], value: Any) -> M:
    """Validate an already parsed JSON value; the error names fields and never quotes values."""
    try:
        return model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(_shown(part) for part in item['loc']) or 'document'}: {_reason(item['type'], item['msg'])}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        )
        raise Refused("document.invalid", f"not a valid {model.__name__}: {where}") from None
    except RecursionError:
        raise Refused("document.invalid", f"not a valid {model.__name__}: nested too deeply") from None


def check_depth(data: bytes) -> None:
    """Refuse JSON that nests too deeply, before any `json.loads` of a stranger's bytes.

    Python's parser recurses, and eth_account raises the recursion limit so far that it overruns the stack: the process dies.
    """
    if _depth(data) > MAX_DEPTH + 1:
        raise Refused("json.depth", "a document is nested too deeply", expected=f"at most {MAX_DEPTH + 1} levels")


def _depth(data: bytes) -> int:
    """How deep the brackets outside strings nest, whether they match or not."""
    depth = deepest = 0
    for mark in _STRING.sub(b"", data).translate(None, _NO_BRACKET):
        depth += 1 if mark in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Refused("json.duplicate", "a JSON object names a key twice")
    return result


def _bounded_int(text: str) -> int:
    # Before int(), whose time grows with the square of the digits.
    if len(text) > _MAX_DIGITS:
        raise _too_large()
    return int(text)


def _no_float(text: str) -> Any:
    raise Refused("json.float", "a document holds a number that is not an integer", hint="Write it as a string")


def _too_large() -> Refused:
    return Refused("json.integer", "an integer does not fit 53 bits", hint="Write it as a string")


def _shown(part: str | int) -> str:
    """A part of a path, which may be a key that a stranger chose."""
    text = str(part)
    return text if len(text) <= 40 and text.isprintable() else repr(text[:40])


def _reason(kind: str, message: str) -> str:
    # The only message of pydantic's that quotes what it was given.
    return "is of no known kind" if kind == "union_tag_invalid" else message


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Refused("json.depth", "a document is nested too deeply", expected=f"at most {MAX_DEPTH + 1} levels")
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, str):
        _check_text(value)
        return
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise _too_large()
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Refused("json.key", "a JSON object has a key that is not a string")
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    else:
        raise Refused("json.type", f"{type(value).__name__} has no canonical JSON form")


def _check_text(value: str) -> None:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise Refused("json.text", "a string holds half of a surrogate pair, which is not Unicode text")
