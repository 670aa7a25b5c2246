"""Deep nesting is refused before the parser sees it, also where a library has raised the recursion limit."""

from __future__ import annotations

import sys

import eth_account  # noqa: F401  # raises the recursion limit through py_ecc
import pytest

from enclave_app.protocol.canonical import MAX_DEPTH, load
from enclave_app.protocol.errors import Refused


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"a":'])
def test_a_document_of_brackets_is_refused_and_does_not_crash(unit: bytes) -> None:
    assert sys.getrecursionlimit() > 10_000
    with pytest.raises(Refused) as refused:
        load(unit * 200_000, limit=1 << 24, canonical=False)
    assert refused.value.code == "json.depth"


@pytest.mark.parametrize("text", [b'["[[[[[["]', b'["\\"[[[[[["]', b'["\\\\"]'])
def test_brackets_in_strings_are_text(text: bytes) -> None:
    assert load(text.replace(b"[[[[[[", b"[" * 1000))


def test_the_allowed_depth_is_allowed() -> None:
    assert load(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


@pytest.mark.parametrize("text", [b'"' + b'\\"' * 1_000_000, b'"' * 1_000_000, b'"' + b"\\" * 1_000_001])
def test_unending_strings_are_refused_in_linear_time(text: bytes) -> None:
    with pytest.raises(Refused) as refused:
        load(text, canonical=False)
    assert refused.value.code == "json.syntax"
