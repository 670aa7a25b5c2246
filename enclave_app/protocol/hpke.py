"""HPKE (RFC 9180) with KEM MLKEM768-X25519 (X-Wing, 0x647a), HKDF-SHA256 (1) and AES-256-GCM (2), base mode.

On the wire a public key is 0x01 ‖ ML-KEM-768 encapsulation key (1,184) ‖ X25519 key (32), and a message is
0x01 ‖ enc (1,120) ‖ ciphertext and tag. The version byte is there because the HPKE mapping of X-Wing is still a draft. A
private key is its 32-byte seed: SHAKE256(seed, 96) gives the ML-KEM seed (64) ‖ the X25519 key (32)
(draft-connolly-cfrg-xwing-kem). Context is bound through `info`; there is no additional data.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from .digests import sha256
from .errors import Refused

VERSION = 1
SUITE_IDS = (0x647A, 0x0001, 0x0002)
"""KEM, KDF and AEAD ids, as they enter every `info`."""
PUBLIC_KEY_BYTES = 1 + 1184 + 32
OVERHEAD = 1 + 1120 + 16
MAX_MESSAGE = 4 << 20

_PROBE = x25519.X25519PrivateKey.from_private_bytes(bytes(range(32)))
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class PublicKey:
    """A recipient's key; `wire` is its serialized form and `digest` the SHA-256 of that, by which agreements name it (R15)."""

    def __init__(self, wire: bytes) -> None:
        if len(wire) != PUBLIC_KEY_BYTES or wire[0] != VERSION:
            raise Refused(
                "hpke.public_key",
                "not an HPKE public key of this version",
                found=f"{len(wire)} bytes",
                expected=f"version byte {VERSION} and {PUBLIC_KEY_BYTES - 1} bytes",
            )
        try:
            curve = x25519.X25519PublicKey.from_public_bytes(wire[1185:])
            # A point of low order passes as a key and fails at its first use, in a sender who did nothing wrong.
            _PROBE.exchange(curve)
            self._key = hpke.MLKEM768X25519PublicKey(mlkem.MLKEM768PublicKey.from_public_bytes(wire[1:1185]), curve)
        except ValueError:
            raise Refused("hpke.public_key", "not a valid ML-KEM-768 and X25519 public key") from None
        self.wire = bytes(wire)
        self.digest = sha256(self.wire)

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        return bytes([VERSION]) + _SUITE.encrypt(plaintext, self._key, info)


class SealingKey:
    """An HPKE private key, from a 32-byte seed; its repr never shows it."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise Refused("hpke.seed", "an HPKE seed has the wrong length", found=len(seed), expected=32)
        expanded = hashlib.shake_256(seed).digest(96)
        kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
        self._key = hpke.MLKEM768X25519PrivateKey(kem, curve)
        self.public = PublicKey(
            bytes([VERSION]) + kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls) -> SealingKey:
        return cls(secrets.token_bytes(32))

    def open(self, message: bytes, info: bytes) -> bytes:
        if not OVERHEAD <= len(message) <= MAX_MESSAGE or message[0] != VERSION:
            raise Refused("hpke.message", "not an HPKE message of this version", found=f"{len(message)} bytes")
        try:
            return _SUITE.decrypt(message[1:], self._key, info)
        except (InvalidTag, ValueError):
            raise Refused(
                "hpke.open", "a sealed message does not open", hint="It was made for another key or another purpose"
            ) from None

    def __repr__(self) -> str:
        return f"SealingKey({self.public.digest.hex()[:16]}…)"
