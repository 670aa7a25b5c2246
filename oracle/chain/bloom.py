"""A block's logs bloom (Ethereum's yellow paper, 4.3.1): what it does not hold, no log of the block has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from enclave_app.protocol.digests import keccak

BYTES: Final = 256


def bits_of(value: bytes) -> int:
    """The three bits of an address or a topic, as a number of 2,048 bits."""
    digest, bits = keccak(value), 0
    for place in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[place : place + 2], "big") & 2047)
    return bits


class Wanted:
    """Logs of one of `addresses` with one of `topics` first."""

    def __init__(self, addresses: Iterable[str], topics: Iterable[bytes]) -> None:
        self._addresses = [bits_of(bytes.fromhex(address[2:])) for address in addresses]
        self._topics = [bits_of(topic) for topic in topics]

    def may_be_in(self, bloom: bytes) -> bool:
        """False is certain; True is wrong in about one of a hundred full blocks."""
        held = int.from_bytes(bloom, "big")
        return any(bits & held == bits for bits in self._addresses) and any(
            bits & held == bits for bits in self._topics
        )
