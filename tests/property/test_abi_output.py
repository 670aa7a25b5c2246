"""A public output's bytes: what is written is read again, by us and by eth_abi; other bytes are refused or are another row."""

from __future__ import annotations

import datetime
from contextlib import suppress
from decimal import Decimal

import pytest
from eth_abi.abi import decode
from hypothesis import given
from hypothesis import strategies as st

from enclave_app.protocol.abi_output import decode_row, encode_row, solidity_types
from enclave_app.protocol.errors import Refused


def unscaled(number: int, scale: int) -> Decimal:
    return Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -scale))


def integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    return st.builds(unscaled, st.integers(-(10**precision) + 1, 10**precision - 1), st.just(scale))


hugeints = st.builds(unscaled, st.integers(-(1 << 127), (1 << 127) - 1), st.just(0))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
cells = st.one_of(
    *(
        st.tuples(st.just(f"{'' if signed else 'u'}int{bits}"), integers(bits, signed))
        for bits in (8, 16, 32, 64)
        for signed in (True, False)
    ),
    *(st.tuples(st.just(f"decimal128({p}, {s})"), decimals(p, s)) for p, s in ((1, 0), (10, 2), (18, 18), (38, 38))),
    st.tuples(st.just("decimal128(38, 0)"), hugeints),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("string"), texts),
    st.tuples(st.just("binary"), st.binary(max_size=70)),
    st.tuples(st.just("date32[day]"), st.dates()),
    st.tuples(st.just("timestamp[us]"), st.datetimes()),
)
rows = st.lists(cells, min_size=1, max_size=6)


def word(value: object, kind: str) -> object:
    """The Solidity value, by another way than the encoder's."""
    if isinstance(value, Decimal):
        return int(f"{value:f}".replace(".", ""))
    if isinstance(value, datetime.datetime):
        since = value - datetime.datetime(1970, 1, 1)
        return (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    if isinstance(value, datetime.date):
        return value.toordinal() - datetime.date(1970, 1, 1).toordinal()
    return value


@given(rows)
def test_a_row_is_what_eth_abi_reads_and_comes_back(row: list[tuple[str, object]]) -> None:
    columns, values = [c for c, _ in row], [v for _, v in row]
    data = encode_row(columns, values)
    found = decode(solidity_types(columns), data, strict=True)
    assert list(found) == [word(value, kind) for kind, value in row]
    assert list(decode_row(columns, data)) == values
    assert [type(value) for value in decode_row(columns, data)] == [type(value) for value in values]


@given(rows, st.data())
def test_changed_bytes_are_refused_or_another_row(row: list[tuple[str, object]], data: st.DataObject) -> None:
    columns, values = [c for c, _ in row], [v for _, v in row]
    encoded = bytearray(encode_row(columns, values))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(Refused):
        # One row has one encoding, so that a digest names one answer.
        assert encode_row(columns, decode_row(columns, bytes(encoded))) == bytes(encoded)


@given(rows, st.binary(min_size=1, max_size=40))
def test_bytes_behind_the_row_are_refused(row: list[tuple[str, object]], more: bytes) -> None:
    columns = [c for c, _ in row]
    with pytest.raises(Refused) as caught:
        decode_row(columns, encode_row(columns, [v for _, v in row]) + more)
    assert caught.value.code == "abi.decode"
