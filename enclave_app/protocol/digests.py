"""Domain-separated digests.

Every digest of this protocol that is not an EIP-712 digest or the plain SHA-256 of a file is

    H(name, values…) = SHA-256( abi.encode( bytes32 tag(name), values… ) ),   tag(name) = SHA-256("enclave-oracle/" ‖ name ‖ "/1")

so that no digest made for one purpose can serve another, and Solidity computes the same with `sha256(abi.encode(…))`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from Crypto.Hash import keccak as _keccak
from eth_abi.abi import encode

from .errors import Refused

__all__ = ["commitment", "hash_abi", "keccak", "parse_digest", "sha256", "tag"]


def keccak(data: bytes = b"", *, text: str = "") -> bytes:
    """Keccak-256 as Ethereum has it, of bytes or of a text in UTF-8."""
    return _keccak.new(digest_bits=256, data=data or text.encode("utf-8")).digest()


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


@lru_cache
def tag(name: str) -> bytes:
    """The 32-byte domain tag of `name`; the trailing 1 is the protocol version."""
    return hashlib.sha256(f"enclave-oracle/{name}/1".encode("ascii")).digest()


def hash_abi(name: str, types: Sequence[str], values: Iterable[object]) -> bytes:
    """H(name, values…) as defined above; `types` are Solidity type names."""
    return sha256(encode(["bytes32", *types], [tag(name), *values]))


def commitment(key: bytes) -> bytes:
    """The public commitment to a random 256-bit key (R11). The key is uniform, so its digest hides it."""
    if len(key) != 32:
        raise Refused("key.length", "a data key has the wrong length", found=len(key), expected="32 bytes")
    return sha256(tag("key-commitment") + key)


def parse_digest(text: str) -> bytes:
    """32 bytes from hex, with or without 0x."""
    if not re.fullmatch(r"(0x)?([0-9a-fA-F]{2})*", text):
        raise Refused("digest.hex", "a digest is not hexadecimal", found=repr(text[:80]))
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 32:
        raise Refused("digest.length", "a digest has the wrong length", found=len(raw), expected="32 bytes")
    return raw
