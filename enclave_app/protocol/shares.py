"""Share lists: each data key split t of n, sealed to the brokers (R10, R11), and the same for sealed outputs (R17)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, StrictInt, model_validator

from . import shamir
from .canonical import Document, parse
from .digests import commitment, hash_abi, sha256, tag
from .errors import Refused
from .fields import Address, Bytes, Bytes32, Uint256
from .hpke import SUITE_IDS, PublicKey, SealingKey

MAX_SHARE_LIST = 8 << 20
ENVELOPE_VERSION = 1


class BrokerShares(Document):
    """One broker's part: share `x` of every key, sealed to it; `digests` are the digests of those shares, key by key."""

    broker: Bytes32
    envelope: Bytes
    digests: tuple[Bytes32, ...] = Field(min_length=1)


class ShareList(Document):
    """The shares of one dataset's keys (R10). Broker i (from 0) holds x = i + 1."""

    format: Literal["enclave-oracle/shares"] = "enclave-oracle/shares"
    v: Literal[1] = 1
    dataset: Bytes32
    threshold: StrictInt = Field(ge=1, le=16)
    brokers: tuple[BrokerShares, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.threshold > len(self.brokers):
            raise ValueError("the threshold is above the number of brokers")
        if len({b.broker for b in self.brokers}) != len(self.brokers):
            raise ValueError("a broker is listed twice")
        if len({len(b.digests) for b in self.brokers}) != 1:
            raise ValueError("the brokers' shares differ in number")
        return self

    @property
    def id(self) -> bytes:
        return sha256(self.canonical())

    @property
    def key_count(self) -> int:
        return len(self.brokers[0].digests)

    def position(self, broker: bytes) -> int:
        """The broker's x coordinate, from 1."""
        for index, entry in enumerate(self.brokers):
            if entry.broker == broker:
                return index + 1
        raise Refused("shares.broker", "a share list has no shares for this broker", found=broker.hex())


class DatasetBinding(Document):
    """What an owner's share list is bound to: HPKE info = H("share", suite, chain, registry, owner, dataset, t, n, broker).

    The broker rebuilds it with the owner that the agreement names, so copied shares do not open for another owner (R10).
    """

    chain_id: Uint256
    registry: Address
    owner: Address
    dataset: Bytes32

    def info(self, threshold: int, count: int, broker: bytes) -> bytes:
        return hash_abi(
            "share",
            ["uint16", "uint16", "uint16", "uint256", "address", "address", "bytes32", "uint8", "uint8", "bytes32"],
            [*SUITE_IDS, self.chain_id, self.registry, self.owner, self.dataset, threshold, count, broker],
        )


class OutputBinding(Document):
    """What an output's share list is bound to: H("output-share", suite, chain, oracle, agreement, task, output, t, n, broker)."""

    chain_id: Uint256
    oracle: Address
    agreement_id: Bytes32
    task_id: Bytes32
    output: Bytes32

    def info(self, threshold: int, count: int, broker: bytes) -> bytes:
        return hash_abi(
            "output-share",
            [
                "uint16",
                "uint16",
                "uint16",
                "uint256",
                "address",
                "bytes32",
                "bytes32",
                "bytes32",
                "uint8",
                "uint8",
                "bytes32",
            ],
            [
                *SUITE_IDS,
                self.chain_id,
                self.oracle,
                self.agreement_id,
                self.task_id,
                self.output,
                threshold,
                count,
                broker,
            ],
        )


Binding = DatasetBinding | OutputBinding
Coefficients = Callable[[int], Sequence[bytes]]
"""Key index to the threshold - 1 polynomial coefficients of its split."""


def random_coefficients(threshold: int) -> Coefficients:
    return lambda _index: [secrets.token_bytes(shamir.KEY_BYTES) for _ in range(threshold - 1)]


def share_digest(dataset: bytes, x: int, key_index: int, share: bytes) -> bytes:
    """SHA-256(tag("share-digest") ‖ dataset ‖ x (1) ‖ key index (2, big-endian) ‖ share)."""
    return sha256(tag("share-digest") + dataset + bytes([x]) + key_index.to_bytes(2, "big") + share)


def make_share_list(
    dataset: bytes,
    keys: Sequence[bytes],
    threshold: int,
    brokers: Sequence[PublicKey],
    binding: Binding,
    coefficients: Coefficients,
) -> ShareList:
    """Split every key and seal each broker's shares to it. The envelope's plaintext is 1 ‖ x ‖ the shares in key order."""
    columns = [shamir.split(key, threshold, len(brokers), coefficients(index)) for index, key in enumerate(keys)]
    entries = []
    for x, broker in enumerate(brokers, start=1):
        shares = [column[x - 1] for column in columns]
        plaintext = bytes([ENVELOPE_VERSION, x]) + b"".join(shares)
        entries.append(
            BrokerShares(
                broker=broker.digest,
                envelope=broker.seal(plaintext, binding.info(threshold, len(brokers), broker.digest)),
                digests=tuple(share_digest(dataset, x, index, share) for index, share in enumerate(shares)),
            )
        )
    return ShareList(dataset=dataset, threshold=threshold, brokers=tuple(entries))


def read_share_list(data: bytes, dataset: bytes, expected: bytes | None) -> ShareList:
    """A share list from untrusted bytes; `expected` is the digest the agreement names (R10; None for outputs, which
    are signed)."""
    if expected is not None and sha256(data) != expected:
        raise Refused("shares.digest", "not the agreed share list", found=sha256(data).hex(), expected=expected.hex())
    shares = parse(ShareList, data, limit=MAX_SHARE_LIST)
    if shares.dataset != dataset:
        raise Refused(
            "shares.dataset", "a share list is for another dataset", found=shares.dataset.hex(), expected=dataset.hex()
        )
    return shares


def open_shares(shares: ShareList, key: SealingKey, binding: Binding) -> tuple[int, tuple[bytes, ...]]:
    """A broker's own shares: its x and one share a key; each is checked against its digest (R11)."""
    x = shares.position(key.public.digest)
    entry = shares.brokers[x - 1]
    plaintext = key.open(entry.envelope, binding.info(shares.threshold, len(shares.brokers), entry.broker))
    if (
        len(plaintext) != 2 + shamir.KEY_BYTES * shares.key_count
        or plaintext[0] != ENVELOPE_VERSION
        or plaintext[1] != x
    ):
        raise Refused("shares.envelope", "a share envelope does not hold what its list says")
    found = tuple(plaintext[start : start + shamir.KEY_BYTES] for start in range(2, len(plaintext), shamir.KEY_BYTES))
    for index, share in enumerate(found):
        check_share(shares, x, index, share)
    return x, found


def check_share(shares: ShareList, x: int, key_index: int, share: bytes) -> None:
    """Refuse a share that is not the one its list committed to; the error names the broker (R11)."""
    if not 1 <= x <= len(shares.brokers) or not 0 <= key_index < shares.key_count:
        raise Refused("shares.index", "a share has an index that its list does not know", found=f"{x}/{key_index}")
    entry = shares.brokers[x - 1]
    if share_digest(shares.dataset, x, key_index, share) != entry.digests[key_index]:
        raise Refused("shares.wrong", "a broker's share is wrong", found=f"broker {entry.broker.hex()}")


def recover_key(shares: Mapping[int, bytes], threshold: int, committed: bytes) -> bytes:
    """A key from at least `threshold` checked shares; refuses one that the manifest did not commit to (R11)."""
    if len(shares) < threshold:
        raise Refused(
            "shares.too_few", "not enough shares for a key", found=len(shares), expected=f"at least {threshold}"
        )
    key = shamir.combine(dict(sorted(shares.items())[:threshold]))
    if commitment(key) != committed:
        raise Refused("key.commitment", "a recovered key is not the one the manifest committed to")
    return key


def key_ids_digest(keys: Iterable[tuple[int, int]]) -> bytes:
    """The digest of an ordered list of (dataset index, key index), as a release statement names it."""
    pairs = list(keys)
    return hash_abi("key-ids", ["uint16[]", "uint16[]"], [[d for d, _ in pairs], [k for _, k in pairs]])
