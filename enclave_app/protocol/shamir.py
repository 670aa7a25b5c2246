"""Shamir's secret sharing of 32-byte keys over GF(2^8), byte by byte.

The field is AES's, x⁸+x⁴+x³+x+1. A key's polynomial has the key as its constant term; share `x` (1 to 255) is the
polynomial at x. Our own code because R16 needs the coefficients of an output's key to be derived, not drawn, which no kept
library allows; tests check it against an independent implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .errors import Refused

KEY_BYTES = 32


def _tables() -> tuple[list[int], list[int]]:
    exp, log = [0] * 510, [0] * 256
    x = 1
    for i in range(255):
        exp[i] = exp[i + 255] = x
        log[x] = i
        x ^= (x << 1) ^ (0x11B if x & 0x80 else 0)
        x &= 0xFF
    return exp, log


_EXP, _LOG = _tables()


def _multiply_row(factor: int, row: bytes) -> bytes:
    if factor == 0:
        return bytes(len(row))
    shift = _LOG[factor]
    return bytes(_EXP[shift + _LOG[b]] if b else 0 for b in row)


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


def split(secret: bytes, threshold: int, count: int, coefficients: Sequence[bytes]) -> list[bytes]:
    """Shares 1..count of `secret`; `coefficients` are threshold - 1 uniform 32-byte strings, lowest power first."""
    if len(secret) != KEY_BYTES or any(len(c) != KEY_BYTES for c in coefficients):
        raise Refused("shamir.length", "only 32-byte secrets and coefficients are split")
    if not 1 <= threshold <= count <= 255 or len(coefficients) != threshold - 1:
        raise Refused("shamir.threshold", "not a threshold scheme", found=f"{threshold} of {count}")
    shares = []
    for x in range(1, count + 1):
        share = bytes(KEY_BYTES)
        for coefficient in reversed([secret, *coefficients]):
            share = _xor(_multiply_row(x, share), coefficient)
        shares.append(share)
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from exactly the threshold's number of shares, by x; the caller knows the threshold and checks the result."""
    if not shares or any(not 1 <= x <= 255 or len(s) != KEY_BYTES for x, s in shares.items()):
        raise Refused("shamir.shares", "not a set of shares")
    secret = bytes(KEY_BYTES)
    for x, share in shares.items():
        log_weight = sum(_LOG[other] - _LOG[other ^ x] for other in shares if other != x) % 255
        secret = _xor(secret, _multiply_row(_EXP[log_weight], share))
    return secret
