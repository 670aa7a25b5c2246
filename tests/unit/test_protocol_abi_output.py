"""Public outputs as ABI values: what each column type becomes, and what none can be."""

from __future__ import annotations

import datetime
from decimal import Decimal, localcontext

import pytest
from eth_abi.abi import encode

from enclave_app.protocol.abi_output import MAX_PUBLIC_BYTES, decode_row, encode_row, solidity_types
from enclave_app.protocol.errors import Refused


@pytest.mark.parametrize(
    ("column", "value", "solidity", "word"),
    [
        ("int8", -128, "int256", -128),
        ("int64", (1 << 63) - 1, "int256", (1 << 63) - 1),
        ("uint8", 255, "uint256", 255),
        ("uint64", (1 << 64) - 1, "uint256", (1 << 64) - 1),
        ("decimal128(38, 0)", Decimal(-(1 << 127)), "int256", -(1 << 127)),
        ("decimal128(10, 2)", Decimal("-12.50"), "int256", -1250),
        ("decimal128(10, 2)", Decimal("7"), "int256", 700),
        ("decimal128(10, 2)", Decimal("1E+3"), "int256", 100_000),
        ("decimal128(10, 2)", Decimal("-0"), "int256", 0),
        ("decimal128(38, 38)", Decimal("0." + "9" * 38), "int256", 10**38 - 1),
        ("bool", True, "bool", True),
        ("string", "µ\0", "string", "µ\0"),
        ("binary", b"\0\xff", "bytes", b"\0\xff"),
        ("date32[day]", datetime.date(1969, 12, 31), "int256", -1),
        ("timestamp[us]", datetime.datetime(1970, 1, 2, 0, 0, 0, 1), "int256", 86_400_000_001),
    ],
)
def test_a_value_has_one_word(column: str, value: object, solidity: str, word: object) -> None:
    assert solidity_types([column]) == (solidity,)
    with localcontext(prec=3):
        data = encode_row([column], [value])
    assert data == encode([solidity], [word])
    assert decode_row([column], data) == (value,)


@pytest.mark.parametrize(
    "column",
    ["double", "float", "halffloat", "null", "list<item: int64>", "timestamp[s]", "timestamp[ns]", "time64[us]",
     "timestamp[us, tz=UTC]", "decimal128(39, 0)", "decimal128(38, 39)", "decimal256(50, 0)", "date64[ms]", "int128", "",
     "decimal128(10,2)", "month_day_nano_interval"],
)  # fmt: skip
def test_a_type_without_an_exact_value_is_refused_by_name(column: str) -> None:
    with pytest.raises(Refused) as caught:
        encode_row(["int64", column], [1, 1])
    assert caught.value.code == "abi.type"
    assert "column 2" in caught.value.message
    assert column in caught.value.message


def test_a_floating_point_number_is_to_be_cast() -> None:
    with pytest.raises(Refused, match="CAST it to a DECIMAL"):
        solidity_types(["double"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("int8", 128), ("int8", -129), ("int64", 1 << 63), ("uint8", -1), ("uint64", 1 << 64), ("int64", True),
        ("int64", 1.0), ("bool", 1), ("string", b"a"), ("string", "\ud800"), ("binary", "a"),
        ("decimal128(10, 2)", Decimal("0.001")), ("decimal128(10, 2)", Decimal("NaN")), ("decimal128(10, 2)", 1),
        ("decimal128(38, 0)", Decimal(1 << 127)), ("decimal128(38, 0)", Decimal(-(1 << 127) - 1)),
        ("decimal128(38, 0)", Decimal("1E+999999")),
        ("date32[day]", datetime.datetime(2020, 1, 1)),
        ("timestamp[us]", datetime.date(2020, 1, 1)),
        ("timestamp[us]", datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_its_type_is_refused_without_being_told(column: str, value: object) -> None:
    with pytest.raises(Refused) as caught:
        encode_row([column], [value])
    assert caught.value.code == "abi.value"
    assert str(caught.value) == f"column 1 has a value that is not of its type, or too large; expected {column}"


@pytest.mark.parametrize(
    ("column", "word"),
    [("int8", 128), ("int64", 1 << 63), ("decimal128(38, 0)", 1 << 127), ("date32[day]", 1 << 40),
     ("timestamp[us]", 1 << 70)],
)  # fmt: skip
def test_a_word_that_no_such_column_gives_is_refused(column: str, word: int) -> None:
    with pytest.raises(Refused) as caught:
        decode_row([column], encode(["int256"], [word]))
    assert caught.value.code == "abi.value"


def test_null_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        encode_row(["int64"], [None])
    assert caught.value.code == "abi.null"


def test_what_no_transaction_carries_is_refused() -> None:
    room = MAX_PUBLIC_BYTES - 64
    assert len(encode_row(["binary"], [bytes(room)])) == MAX_PUBLIC_BYTES
    with pytest.raises(Refused) as caught:
        encode_row(["binary"], [bytes(room + 1)])
    assert caught.value.code == "abi.size"
