"""Nothing but a value or a typed refusal, whatever comes; and a refusal that can be shown to anyone."""

from __future__ import annotations

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from enclave_app.attesters.base import AttesterError
from enclave_app.protocol.errors import MAX_MESSAGE, OracleError
from tests.property.hostile import hostile
from tests.property.parsers import PARSERS, Parser
from tests.receipt_kit import platform

PLATFORM_CA = x509.load_pem_x509_certificates(platform().chain_pem)[1].public_bytes(Encoding.DER)
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


_COLLATERAL = json.loads(next(p.valid for p in PARSERS if p.name == "collateral"))
_TCB = json.loads(_COLLATERAL["tcb_info"])
_LONG = "x" * 300
FOUND = {
    "a date that has no counterpart in UTC": (
        "collateral",
        json.dumps(
            {**_COLLATERAL, "tcb_info": json.dumps({**_TCB, "nextUpdate": "9999-12-31T23:59:59-10:00"})}
        ).encode(),
    ),
    "a name that no file can have": (
        "a client's configuration",
        json.dumps(
            {"rpc": "http://a", "deployment": "deployment.json", "storage": ["file:///x"], "brokers": [_LONG]}
        ).encode(),
    ),
    "a NUL in a file's name": ("a client's configuration", b'{"deployment": "a\\0b"}'),
    "an escape beyond Unicode": ("YAML", b'"\\UFFFFFFFF"'),
    "a state that no task has": ("a task's state", (9).to_bytes(32, "big") + bytes(160)),
    "a consent that nobody gives": ("a recorded consent", (4).to_bytes(32, "big")),
    "a receipt that is a list": ("a transaction's receipt", b"[]"),
    "a contract's address that is none": ("a transaction's receipt", b'{"contractAddress": "0xzz"}'),
    "brackets as a platform": ("a platform", b"[" * 100_000),
    "brackets as a key": ("a public key's file", b"[" * 1_000_000),
    "a root that another issued": ("a root", PLATFORM_CA),
    "sizes that are text": ("a sandboxed child's answer", b"\0\0\0\x12" + b'{"parts": ["12"]}'.ljust(18)),
    "a head of megabytes": ("a sandboxed child's answer", b"\x01\xff\xff\xff"),
}
"""What was a traceback, or the end of the process, until it was tried: parser and document."""


def check(parser: Parser, data: bytes) -> None:
    try:
        parser.read(data)
    except parser.errors as error:
        text = str(error)
        assert not any(secret in text for secret in parser.secrets)
        if isinstance(error, OracleError | AttesterError):
            assert len(text) <= MAX_MESSAGE
            assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
def test_the_valid_document_is_taken(parser: Parser) -> None:
    parser.read(parser.valid)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
def test_what_is_nasty_everywhere_is_refused_or_read(parser: Parser) -> None:
    for data in NASTY:
        check(parser, data)


@pytest.mark.parametrize("found", FOUND.values(), ids=list(FOUND))
def test_what_was_found_once_is_a_typed_refusal(found: tuple[str, bytes]) -> None:
    name, data = found
    parser = next(parser for parser in PARSERS if parser.name == name)
    check(parser, data)
    with pytest.raises(OracleError if OracleError in parser.errors else parser.errors):
        parser.read(data)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
@given(data=st.data())
def test_a_changed_document_is_refused_or_read(parser: Parser, data: st.DataObject) -> None:
    check(parser, data.draw(hostile(parser.kind, parser.valid)))
