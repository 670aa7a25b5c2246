"""Key files: wallets (Ethereum keystore, version 3) and HPKE keys. A private key is never an argument, never shown."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eth_utils.address import to_checksum_address

from enclave_app.protocol.canonical import Document, load, validate
from enclave_app.protocol.digests import tag
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import Bytes
from enclave_app.protocol.hpke import PUBLIC_KEY_BYTES, PublicKey, SealingKey
from enclave_app.protocol.signing import SigningKey
from oracle.card import BrokerCard
from oracle.naming import naming
from oracle.passwords import (
    MAX_SCRYPT_N,
    MAX_SCRYPT_WORK,
    SCRYPT_N,
    Locked,
    Password,
    lock,
    read_secret,
    unlock,
    write_secret,
)

_PURPOSE = tag("hpke-key-file")
MAX_PBKDF2_ROUNDS = 10_000_000
_HEX_KEY = re.compile(rb"\s*(?:0x)?([0-9a-fA-F]{64})\s*")


class HpkeKeyFile(Document):
    """An HPKE key on disk: the public key as it travels, and the 32-byte seed under a password."""

    format: Literal["enclave-oracle/hpke-key"] = "enclave-oracle/hpke-key"
    v: Literal[1] = 1
    public: Bytes
    seed: Locked


class HpkePublicFile(Document):
    """A public HPKE key as a file to hand out."""

    format: Literal["enclave-oracle/hpke-public-key"] = "enclave-oracle/hpke-public-key"
    v: Literal[1] = 1
    public: Bytes


@dataclass(frozen=True)
class Wallet:
    """A keystore on disk, not yet opened. `address` is what the file says; opening it checks that."""

    path: Path
    address: str

    def unlock(self, password: Password) -> SigningKey:
        return load_wallet(self.path, password)


def create_wallet(path: Path, password: Password, *, n: int = SCRYPT_N) -> str:
    """Make a new wallet and write its keystore (0600); returns its checksummed address. `n` is the scrypt cost."""
    return _write_keystore(path, secrets.token_bytes(32), password, n)


def import_wallet(path: Path, secret_file: Path, password: Password, *, n: int = SCRYPT_N) -> str:
    """Write a keystore for the private key that `secret_file` holds in hex; returns the address."""
    return _write_keystore(path, _raw_key(secret_file), password, n)


def read_wallet(path: Path) -> Wallet:
    """A keystore's address, without its password."""
    return Wallet(path, _keystore(path)[1])


def load_wallet(path: Path, password: Password) -> SigningKey:
    """The signing key of a version 3 keystore, from any Ethereum tool.

    Raises Refused `keystore.format`, `keystore.password`, and `keystore.address` where the file names another address
    than its key has.
    """
    from eth_account import Account  # its import takes longer than most commands

    store, named = _keystore(path)
    try:
        key = SigningKey(bytes(Account.decrypt(store, password())))
    except ValueError as error:
        if "MAC" in str(error):
            raise Refused("keystore.password", f"the password does not open {path}") from None
        raise _bad_keystore(path) from None
    except (KeyError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError, NotImplementedError):
        raise _bad_keystore(path) from None
    if key.address != named:
        raise Refused("keystore.address", f"{path} names another address than its key has", found=named)
    return key


def load_raw_key(path: Path) -> SigningKey:
    """A signing key from a file that holds it in hex (the `*_FILE` settings of services)."""
    return SigningKey(_raw_key(path))


def create_hpke_key(path: Path, password: Password, *, n: int = SCRYPT_N) -> PublicKey:
    """Make a new HPKE key and write its file (0600). `n` is the scrypt cost."""
    seed = secrets.token_bytes(32)
    public = SealingKey(seed).public
    locked = lock(seed, password, _PURPOSE + public.digest, n=n)
    write_secret(path, HpkeKeyFile(public=public.wire, seed=locked).canonical())
    return public


def load_hpke_key(path: Path, password: Password) -> SealingKey:
    """The HPKE key of a file; Refused `hpke.file` where its two halves do not belong together."""
    with naming(path):
        parsed = validate(HpkeKeyFile, load(read_secret(path), canonical=False))
        public = PublicKey(parsed.public)
        key = SealingKey(unlock(parsed.seed, password, _PURPOSE + public.digest))
    if key.public.digest != public.digest:
        raise Refused("hpke.file", f"{path} holds a public key that is not its private key's")
    return key


def write_public_key(path: Path, key: PublicKey) -> None:
    path.write_bytes(HpkePublicFile(public=key.wire).canonical())


def read_public_key(path: Path) -> PublicKey:
    """A public key from a file: our JSON (public, a broker's card, or the private key's file, of which only the public
    half is read), the bytes as they travel, or those in hex."""
    data = read_secret(path)
    if len(data) == PUBLIC_KEY_BYTES:
        return PublicKey(data)
    text = data.strip()
    if re.fullmatch(rb"(0x)?[0-9a-fA-F]{%d}" % (2 * PUBLIC_KEY_BYTES), text):
        return PublicKey(bytes.fromhex(text.decode("ascii").removeprefix("0x")))
    with naming(path):
        value = load(data, canonical=False)
        kind = value.get("format") if isinstance(value, dict) else None
        if kind == HpkeKeyFile.model_fields["format"].default:
            return PublicKey(validate(HpkeKeyFile, value).public)
        if kind == "enclave-oracle/broker":
            return _card_key(path, validate(BrokerCard, value))
        if kind != HpkePublicFile.model_fields["format"].default:
            raise Refused("hpke.file", "neither a broker's card nor an HPKE key")
        return PublicKey(validate(HpkePublicFile, value).public)


def _card_key(path: Path, card: BrokerCard) -> PublicKey:
    key = PublicKey(card.hpke_key)
    if key.digest != card.digest:
        raise Refused("hpke.file", f"the card {path} names another key than it holds", found=key.digest.hex())
    return key


def _write_keystore(path: Path, secret: bytes, password: Password, n: int) -> str:
    from eth_account import Account

    text = password()
    if not text:
        raise Refused("password.empty", "an empty password protects nothing")
    address = SigningKey(secret).address
    write_secret(path, json.dumps(Account.encrypt(secret, text, kdf="scrypt", iterations=n)).encode())
    return address


def _keystore(path: Path) -> tuple[dict[str, Any], str]:
    """The parsed keystore and the address it names, checksummed. Costs are bounded: the file may be a stranger's."""
    try:
        store = load(read_secret(path), canonical=False)
    except Refused as refused:
        if refused.code.startswith("file."):
            raise
        raise _bad_keystore(path) from None
    match store:
        case {
            "version": 3,
            "address": str(address),
            "crypto": {"kdf": "scrypt", "kdfparams": {"n": int(n), "r": int(r), "p": int(p), "dklen": 32}},
        }:
            bearable = min(n, r, p) >= 1 and n <= MAX_SCRYPT_N and n * r * p <= MAX_SCRYPT_WORK
        case {
            "version": 3,
            "address": str(address),
            "crypto": {"kdf": "pbkdf2", "kdfparams": {"c": int(c), "dklen": 32}},
        }:
            bearable = 1 <= c <= MAX_PBKDF2_ROUNDS
        case _:
            raise _bad_keystore(path)
    if not bearable or not re.fullmatch(r"(0x)?[0-9a-fA-F]{40}", address):
        raise _bad_keystore(path)
    return store, str(to_checksum_address("0x" + address.removeprefix("0x")))


def _raw_key(path: Path) -> bytes:
    match = _HEX_KEY.fullmatch(read_secret(path))
    if match is None:
        raise Refused("key.file", f"{path} does not hold a private key", expected="64 hex digits")
    return bytes.fromhex(match[1].decode("ascii"))


def _bad_keystore(path: Path) -> Refused:
    return Refused("keystore.format", f"{path} is not a version 3 keystore")
