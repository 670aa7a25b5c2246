"""Nothing but a value or a typed refusal, whatever comes; and a refusal that can be shown to anyone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_app.protocol.errors import MAX_MESSAGE, OracleError
from tests.property.hostile import hostile
from tests.property.parsers import PARSERS, Parser

NASTY = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"null",
    b"NaN",
    b"-0",
    b"1" * 10_000,
    b'"\\ud800"',
    b'{"a":1,"a":2}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"- " * 50_000,
    b"{? " * 1000,
    b'"\\UFFFFFFFF"',
    b"&a [*a]",
    b"\xff" * 5000,
    b"0x" + b"0" * 5000,
]


def check(parser: Parser, data: bytes) -> None:
    try:
        parser.read(data)
    except parser.errors as error:
        text = str(error)
        assert not any(secret in text for secret in parser.secrets)
        if isinstance(error, OracleError):
            assert len(text) <= MAX_MESSAGE
            assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
def test_the_valid_document_is_taken(parser: Parser) -> None:
    parser.read(parser.valid)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
def test_what_is_nasty_everywhere_is_refused_or_read(parser: Parser) -> None:
    for data in NASTY:
        check(parser, data)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
@given(data=st.data())
def test_a_changed_document_is_refused_or_read(parser: Parser, data: st.DataObject) -> None:
    check(parser, data.draw(hostile(parser.kind, parser.valid)))
