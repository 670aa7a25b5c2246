"""A broker's card: what it shows to everyone. Owners share keys for it, drafts name it, clients ask where it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import Address, Bytes, Bytes32
from enclave_app.protocol.hpke import PublicKey
from oracle.files import read_file, within

CARD = "broker.json"
MAX_CARD = 1 << 16


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


def read_card(path: Path) -> BrokerCard:
    """A card from a file or a broker's directory."""
    file = within(path, CARD)
    try:
        data = read_file(file, MAX_CARD)
    except Refused as error:
        raise Refused(
            "broker.card", f"no broker's card: {error.message}", hint="Make one with: oracle keybroker init"
        ) from None
    card = parse(BrokerCard, data, canonical=False)
    card.public_key()
    return card


def endpoints(value: Any, base: Path) -> Any:
    """A configuration's `brokers`: where it lists cards by their paths, taken from `base`, digest → URL; else as it is.

    Raises Refused `broker.card`, and `config.card` for a card without a URL.
    """
    return dict(_endpoint(base / str(card)) for card in value) if isinstance(value, list) else value


def _endpoint(card: Path) -> tuple[str, str]:
    found = read_card(card)
    if found.url is None:
        raise Refused(
            "config.card",
            f"{card} does not say where its broker answers",
            hint="Write brokers: {digest: url, …} instead",
        )
    return "0x" + found.digest.hex(), found.url
