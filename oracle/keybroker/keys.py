"""A broker's two keys at rest, and its public card.

The HPKE seed lies in `hpke.json` (scrypt, RFC 7914; AES-256-GCM), the signing key in `signer.json` (the Web3 Secret Storage
format of eth-account), both under one password; `broker.json` is what the broker shows to everyone.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from eth_account import Account
from pydantic import Field

from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.digests import sha256, tag
from enclave_app.protocol.fields import Address, Bytes, Bytes32
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.signing import SigningKey
from oracle.errors import Refused

CARD, HPKE_FILE, SIGNER_FILE, LOG_FILE = "broker.json", "hpke.json", "signer.json", "log.jsonl"
SCRYPT_COST = 1 << 17
"""scrypt's N, with r = 8: 128 MiB, which each guess at the password costs, too."""


class BrokerCard(Document):
    """Who a broker is. Agreements name it by `digest` (SHA-256 of `hpke_key` on the wire) and `signer`; `url` is a hint."""

    format: Literal["enclave-oracle/broker"] = "enclave-oracle/broker"
    v: Literal[1] = 1
    hpke_key: Bytes
    digest: Bytes32
    signer: Address
    url: str | None = Field(default=None, max_length=2000)

    def public_key(self) -> PublicKey:
        """The HPKE key, checked against the digest beside it."""
        key = PublicKey(self.hpke_key)
        if key.digest != self.digest:
            raise Refused(
                "broker.card",
                "a broker's card names another key than it holds",
                found=key.digest.hex(),
                expected=self.digest.hex(),
            )
        return key


class _SealedSeed(Document):
    v: Literal[1] = 1
    kdf: Literal["scrypt"] = "scrypt"
    n: int = Field(ge=1 << 10, le=1 << 20)
    salt: Bytes
    cipher: Literal["aes-256-gcm"] = "aes-256-gcm"
    nonce: Bytes
    ciphertext: Bytes
    public: Bytes32


@dataclass(frozen=True)
class BrokerKeys:
    sealing: SealingKey
    signing: SigningKey
    card: BrokerCard


def init(directory: Path, password: str, *, url: str | None = None, cost: int = SCRYPT_COST) -> BrokerCard:
    """Make a broker's keys and card in `directory`; raises Refused where one is there already.

    `cost` is scrypt's N, a power of two.
    """
    if not password:
        raise Refused("broker.password", "a broker's keys need a password")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    seed, salt, nonce = secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(12)
    public = SealingKey(seed).public
    sealed = _SealedSeed(
        n=cost,
        salt=salt,
        nonce=nonce,
        public=public.digest,
        ciphertext=AESGCM(_stretch(password, salt, cost)).encrypt(nonce, seed, _associated(public.digest)),
    )
    signer = Account.create()
    keystore = Account.encrypt(signer.key, password, kdf="scrypt", iterations=cost)
    card = BrokerCard(hpke_key=public.wire, digest=public.digest, signer=signer.address, url=url)
    _write_new(directory / HPKE_FILE, sealed.canonical(), 0o600)
    _write_new(directory / SIGNER_FILE, json.dumps(keystore).encode(), 0o600)
    _write_new(directory / CARD, card.canonical() + b"\n", 0o644)
    return card


def read_card(path: Path) -> BrokerCard:
    """A card from a file or a broker's directory."""
    file = path / CARD if path.is_dir() else path
    try:
        card = parse(BrokerCard, file.read_bytes(), canonical=False)
    except OSError as error:
        raise Refused(
            "broker.card",
            f"no broker's card at {file} ({type(error).__name__})",
            hint="Make one with: oracle keybroker init",
        ) from None
    card.public_key()
    return card


def load(directory: Path, password: str) -> BrokerKeys:
    """Both keys, opened and checked against the card. Raises Refused for a wrong password or a changed file."""
    card = read_card(directory)
    sealed = parse(_SealedSeed, _read(directory / HPKE_FILE))
    try:
        seed = AESGCM(_stretch(password, sealed.salt, sealed.n)).decrypt(
            sealed.nonce, sealed.ciphertext, _associated(sealed.public)
        )
        secret = bytes(Account.decrypt(json.loads(_read(directory / SIGNER_FILE)), password))
    except (InvalidTag, ValueError, TypeError, KeyError):
        raise Refused("broker.password", f"the keys in {directory} do not open with this password") from None
    keys = BrokerKeys(SealingKey(seed), SigningKey(secret), card)
    if keys.sealing.public.digest != card.digest or keys.signing.address != card.signer:
        raise Refused("broker.card", f"the card in {directory} belongs to other keys")
    return keys


def _stretch(password: str, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(password.encode("utf-8"))


def _associated(public: bytes) -> bytes:
    return sha256(tag("broker-seed") + public)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused("broker.keys", f"a broker's key file {path} cannot be read ({type(error).__name__})") from None


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise Refused("broker.exists", f"{path} is there already", hint="Give a new directory") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
