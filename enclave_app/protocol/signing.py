"""secp256k1 signatures over 32-byte digests: 65 bytes r ‖ s ‖ v, v in {27, 28}, low s only (EIP-2), as OpenZeppelin does."""

from __future__ import annotations

import secrets

from eth_keys.datatypes import PrivateKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from .errors import Refused

LENGTH = 65
"""Bytes of a signature: r, s, v."""
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class SigningKey:
    """A secp256k1 private key; its repr never shows it."""

    def __init__(self, secret: bytes) -> None:
        try:
            self._key = PrivateKey(secret)
            self._key.public_key  # noqa: B018 - zero and numbers above the group's order fail only here
        except (ValidationError, ValueError):
            raise Refused("signature.key", "not a secp256k1 private key", expected="32 bytes below the order") from None
        self.address: str = self._key.public_key.to_checksum_address()

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(secrets.token_bytes(32))

    def sign(self, digest: bytes) -> bytes:
        signature = self._key.sign_msg_hash(digest)
        return bytes(signature.r.to_bytes(32, "big") + signature.s.to_bytes(32, "big") + bytes([27 + signature.v]))

    def secret(self) -> bytes:
        """The 32 private bytes, for a library that signs by itself."""
        return bytes(self._key.to_bytes())

    def __repr__(self) -> str:
        return f"SigningKey({self.address})"


def recover(digest: bytes, signature: bytes) -> str:
    """The checksummed address that made `signature`; raises `Refused` for anything malformed or malleable."""
    if len(signature) != LENGTH:
        raise Refused("signature.length", "a signature has the wrong length", found=len(signature), expected=LENGTH)
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28):
        raise Refused("signature.v", "a signature has a wrong recovery byte", found=v, expected="27 or 28")
    if s > _HALF_ORDER:
        raise Refused("signature.high_s", "a signature is malleable (high s)")
    try:
        public = Signature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError, ValueError):
        raise Refused("signature.invalid", "a signature is not valid") from None
    return str(public.to_checksum_address())


def check(digest: bytes, signature: bytes, expected: str, what: str) -> None:
    """Refuse unless `expected` signed `digest`; `what` names the thing that was signed."""
    found = recover(digest, signature)
    if found != expected:
        raise Refused("signature.signer", f"{what} is signed by someone else", found=found, expected=expected)
