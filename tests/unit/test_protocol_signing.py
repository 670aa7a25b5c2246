"""Signatures: ours are taken, and everything malformed or malleable is refused by its own code."""

from __future__ import annotations

import hashlib

import pytest
from eth_account import Account
from eth_utils.crypto import keccak

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.signing import SigningKey, check, recover

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECRET = keccak(text="enclave-oracle/test-signer")
KEY = SigningKey(SECRET)
DIGEST = hashlib.sha256(b"message").digest()
SIGNATURE = KEY.sign(DIGEST)
R, S, V = SIGNATURE[:32], SIGNATURE[32:64], SIGNATURE[64:]


def test_eth_account_signs_alike() -> None:
    assert Account.unsafe_sign_hash(DIGEST, SECRET).signature == SIGNATURE
    assert Account.from_key(SECRET).address == KEY.address == recover(DIGEST, SIGNATURE)


def mirrored() -> bytes:
    """The other signature that the curve allows for the same message: (r, n - s)."""
    other = ORDER - int.from_bytes(S, "big")
    return R + other.to_bytes(32, "big") + bytes([55 - V[0]])


@pytest.mark.parametrize(
    ("signature", "code"),
    [
        (b"", "signature.length"),
        (SIGNATURE[:-1], "signature.length"),
        (SIGNATURE + b"\0", "signature.length"),
        (R + S + bytes([V[0] - 27]), "signature.v"),
        (R + S + b"\x1d", "signature.v"),
        (mirrored(), "signature.high_s"),
        (bytes(32) + S + V, "signature.invalid"),
        (R + bytes(32) + V, "signature.invalid"),
        (ORDER.to_bytes(32, "big") + S + V, "signature.invalid"),
        (b"\xff" * 32 + S + V, "signature.invalid"),
    ],
)
def test_malformed_signatures_are_refused(signature: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        recover(DIGEST, signature)
    assert caught.value.code == code


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_digest_has_32_bytes(length: int) -> None:
    with pytest.raises(Refused) as caught:
        recover(bytes(length), SIGNATURE)
    assert caught.value.code == "signature.invalid"


def test_someone_elses_signature_is_refused() -> None:
    check(DIGEST, SIGNATURE, KEY.address, "a test")
    for digest, signer in ((DIGEST, SigningKey.generate().address), (bytes(31) + b"\x01", KEY.address)):
        with pytest.raises(Refused) as caught:
            check(digest, SIGNATURE, signer, "a test")
        assert caught.value.code == "signature.signer"


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(32), ORDER.to_bytes(32, "big"), bytes(33)])
def test_what_is_no_private_key_is_refused(secret: bytes) -> None:
    with pytest.raises(Refused) as caught:
        SigningKey(secret)
    assert caught.value.code == "signature.key"


def test_a_key_never_shows_itself() -> None:
    assert SECRET.hex() not in repr(KEY) + str(KEY)
