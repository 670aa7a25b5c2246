"""A broker's two keys at rest, and its public card.

The HPKE seed lies in `hpke.json` (scrypt, RFC 7914; AES-256-GCM), the signing key in `signer.json` (the Web3 Secret Storage
format of eth-account), both under one password; `broker.json` is what the broker shows to everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.signing import SigningKey
from oracle.card import CARD, BrokerCard, read_card
from oracle.errors import Refused
from oracle.keys import create_hpke_key, create_wallet, load_hpke_key, load_wallet

HPKE_FILE, SIGNER_FILE, LOG_FILE = "hpke.json", "signer.json", "log.jsonl"
SCRYPT_COST = 1 << 17
"""scrypt's N, with r = 8: 128 MiB, which each guess at the password costs, too."""


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
