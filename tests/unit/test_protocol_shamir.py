"""Secret sharing against two independent implementations: a Lagrange sum by long multiplication, and SLIP-39's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from shamir_mnemonic import shamir as slip39

from enclave_app.protocol import shamir
from enclave_app.protocol.errors import Refused

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "shamir.json").read_text("utf-8"))["cases"]


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def times(a: int, b: int) -> int:
    """Multiplication in GF(2^8) modulo x^8+x^4+x^3+x+1, bit by bit (FIPS 197, section 4.2)."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a: int) -> int:
    return next(b for b in range(1, 256) if times(a, b) == 1)


def interpolate(shares: Mapping[int, bytes], at: int) -> bytes:
    """The polynomials through `shares`, evaluated at `at` by Lagrange's formula."""
    result = bytearray(32)
    for i, share in shares.items():
        weight = 1
        for j in shares:
            if j != i:
                weight = times(weight, times(at ^ j, inverse(i ^ j)))
        for position, byte in enumerate(share):
            result[position] ^= times(weight, byte)
    return bytes(result)


def shares_of(case: dict[str, Any]) -> dict[int, bytes]:
    return {entry["x"]: raw(entry["share"]) for entry in case["shares"]}


def named(case: dict[str, Any]) -> str:
    return f"{case['threshold']}-of-{case['count']}"


@pytest.mark.parametrize("case", VECTORS, ids=named)
def test_vector(case: dict[str, Any]) -> None:
    made = shamir.split(raw(case["secret"]), case["threshold"], case["count"], [raw(c) for c in case["coefficients"]])
    assert len(made) == case["count"]
    assert {x: made[x - 1] for x in shares_of(case)} == shares_of(case)


@pytest.mark.parametrize("case", VECTORS, ids=named)
def test_the_last_shares_recover_the_secret(case: dict[str, Any]) -> None:
    chosen = dict(list(shares_of(case).items())[-case["threshold"] :])
    assert shamir.combine(chosen) == interpolate(chosen, 0) == raw(case["secret"])


@pytest.mark.parametrize("case", [c for c in VECTORS if c["count"] > c["threshold"]], ids=named)
def test_every_share_lies_on_the_polynomial(case: dict[str, Any]) -> None:
    shares = shares_of(case)
    base = dict(list(shares.items())[: case["threshold"]])
    assert all(interpolate(base, x) == share for x, share in shares.items())


@pytest.mark.parametrize("case", VECTORS, ids=named)
def test_slip39_recovers_the_secret(case: dict[str, Any]) -> None:
    # It counts x from 0 and lets the caller choose where to evaluate; its secret lies at 255, ours at 0.
    chosen = list(shares_of(case).items())[: case["threshold"]]
    assert slip39._interpolate([slip39.RawShare(x, share) for x, share in chosen], 0) == raw(case["secret"])


@pytest.mark.parametrize(
    ("secret", "threshold", "count", "coefficients", "code"),
    [
        (31, 1, 1, [], "shamir.length"),
        (32, 2, 2, [31], "shamir.length"),
        (32, 0, 1, [], "shamir.threshold"),
        (32, 2, 1, [32], "shamir.threshold"),
        (32, 1, 256, [], "shamir.threshold"),
        (32, 2, 3, [], "shamir.threshold"),
        (32, 2, 3, [32, 32], "shamir.threshold"),
    ],
)
def test_what_is_no_scheme_is_refused(
    secret: int, threshold: int, count: int, coefficients: list[int], code: str
) -> None:
    with pytest.raises(Refused) as caught:
        shamir.split(bytes(secret), threshold, count, [bytes(length) for length in coefficients])
    assert caught.value.code == code


@pytest.mark.parametrize("shares", [{}, {0: bytes(32)}, {256: bytes(32)}, {1: bytes(31)}])
def test_what_are_no_shares_is_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(Refused) as caught:
        shamir.combine(shares)
    assert caught.value.code == "shamir.shares"
