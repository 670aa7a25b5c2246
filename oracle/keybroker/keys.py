"""A broker's two keys at rest, and its public card.

The HPKE seed lies in `hpke.json` (scrypt, RFC 7914; AES-256-GCM), the signing key in `signer.json` (the Web3 Secret Storage
format of eth-account), both under one password; `broker.json` is what the broker shows to everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.fields import Address, Bytes, Bytes32
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.signing import SigningKey
from oracle.errors import Refused
from oracle.files import read_file
from oracle.keys import create_hpke_key, create_wallet, load_hpke_key, load_wallet

CARD, HPKE_FILE, SIGNER_FILE, LOG_FILE = "broker.json", "hpke.json", "signer.json", "log.jsonl"
MAX_CARD = 1 << 16
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
    for name in (HPKE_FILE, SIGNER_FILE, CARD):
        if (directory / name).exists():
            raise Refused("broker.exists", f"{directory / name} is there already", hint="Give a new directory")
    public = create_hpke_key(directory / HPKE_FILE, lambda: password, n=cost)
    signer = create_wallet(directory / SIGNER_FILE, lambda: password, n=cost)
    card = BrokerCard(hpke_key=public.wire, digest=public.digest, signer=signer, url=url)
    (directory / CARD).write_bytes(card.canonical() + b"\n")
    return card


def read_card(path: Path) -> BrokerCard:
    """A card from a file or a broker's directory."""
    file = path / CARD if path.is_dir() else path
    try:
        data = read_file(file, MAX_CARD)
    except Refused as error:
        raise Refused(
            "broker.card", f"no broker's card: {error.message}", hint="Make one with: oracle keybroker init"
        ) from None
    card = parse(BrokerCard, data, canonical=False)
    card.public_key()
    return card


def load(directory: Path, password: str) -> BrokerKeys:
    """Both keys, opened and checked against the card. Raises Refused for a wrong password or a changed file."""
    card = read_card(directory)
    try:
        sealing = load_hpke_key(directory / HPKE_FILE, lambda: password)
        signing = load_wallet(directory / SIGNER_FILE, lambda: password)
    except Refused as refusal:
        code = "broker.keys" if refusal.code == "file.read" else "broker.password"
        raise Refused(code, f"the keys in {directory} do not open: {refusal.message}") from None
    keys = BrokerKeys(sealing, signing, card)
    if keys.sealing.public.digest != card.digest or keys.signing.address != card.signer:
        raise Refused("broker.card", f"the card in {directory} belongs to other keys")
    return keys
