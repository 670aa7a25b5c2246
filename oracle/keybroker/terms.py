"""What a call is about, recomputed from its own words: nothing here is believed because somebody said so (R13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from enclave_app.protocol import signing
from enclave_app.protocol.rules import check_agreement, check_request
from enclave_app.protocol.shares import ShareList
from enclave_app.protocol.structs import Agreement, Chain, TaskRequest
from oracle.errors import Refused
from oracle.keybroker.keys import BrokerCard

KNOWN_AGREEMENTS = 512
MAX_REMEMBERED = 1 << 17
"""Characters of an agreement's column names, with what each costs beside them."""
_OBJECT, _ECDSA = 64, 65

Identify = Callable[[Chain, Agreement], bytes]
Signed = Callable[[bytes, tuple[str, ...], tuple[bytes, ...]], frozenset[str]]


@dataclass(frozen=True)
class Terms:
    """An agreement and a request under it, with the ids that follow from them."""

    chain: Chain
    agreement: Agreement
    agreement_id: bytes
    request: TaskRequest
    task_id: bytes


def read_terms(chain: Chain, agreement: Agreement, request: TaskRequest, card: BrokerCard, identify: Identify) -> Terms:
    """The ids that the words make, once the words fit the protocol, this broker and each other."""
    agreement_id = identify(chain, agreement)
    check_named(agreement, card)
    if request.agreement_id != agreement_id:
        raise Refused(
            "request.agreement",
            "a request is for another agreement",
            found=request.agreement_id.hex(),
            expected=agreement_id.hex(),
        )
    check_request(agreement, request)
    return Terms(chain, agreement, agreement_id, request, request.typed_digest(chain.oracle_domain(agreement)))


def check_named(agreement: Agreement, card: BrokerCard) -> None:
    """R15: the agreement chose this broker, by both of its keys."""
    for broker in agreement.keys.brokers:
        if broker.hpke_key == card.digest:
            if broker.signer != card.signer:
                raise Refused(
                    "broker.signer",
                    "the agreement has another signing key for this broker",
                    found=broker.signer,
                    expected=card.signer,
                )
            return
    raise Refused("broker.not_named", "the agreement does not name this broker", found=card.digest.hex())


def check_share_list(shares: ShareList, agreement: Agreement, keys: int) -> None:
    """R10: the share list is for the agreement's threshold and brokers, in its order, and for all keys of the dataset."""
    keys_terms = agreement.keys
    if shares.threshold != keys_terms.threshold:
        raise Refused(
            "shares.threshold",
            "a share list has another threshold than the agreement",
            found=shares.threshold,
            expected=keys_terms.threshold,
        )
    if [b.broker for b in shares.brokers] != [b.hpke_key for b in keys_terms.brokers]:
        raise Refused("shares.brokers", "a share list is not for the agreement's brokers in their order")
    if shares.key_count != keys:
        raise Refused(
            "shares.keys",
            "a share list has another number of keys than its manifest",
            found=shares.key_count,
            expected=keys,
        )


def agreement_memory() -> tuple[Identify, Signed]:
    """The two costly pure steps about an agreement, each remembered for the last ones seen: tasks share agreements.

    Anybody can make agreements that name this broker, so what is remembered of each is bounded in bytes, too.
    """

    def compute(chain: Chain, agreement: Agreement) -> bytes:
        check_agreement(agreement)
        return chain.agreement_id(agreement)

    remembered, known = lru_cache(KNOWN_AGREEMENTS)(compute), lru_cache(KNOWN_AGREEMENTS)(signed_by)

    def identify(chain: Chain, agreement: Agreement) -> bytes:
        # Everything else in an agreement that passes the rules is of bounded size.
        names = sum(_OBJECT + len(column) for data in agreement.data for column in data.columns)
        return (remembered if names <= MAX_REMEMBERED else compute)(chain, agreement)

    def signed(agreement_id: bytes, parties: tuple[str, ...], signatures: tuple[bytes, ...]) -> frozenset[str]:
        return known(agreement_id, parties, tuple(s if len(s) == _ECDSA else b"" for s in signatures))

    return identify, signed


def signed_by(agreement_id: bytes, parties: Sequence[str], signatures: Sequence[bytes]) -> frozenset[str]:
    """The parties whose ECDSA signature over the agreement's id holds (R13: tried first, delegated accounts included)."""
    if len(signatures) != len(parties):
        raise Refused(
            "consent.count",
            "not one signature per party of the agreement",
            found=len(signatures),
            expected=len(parties),
        )
    return frozenset(p for p, s in zip(parties, signatures, strict=True) if _recovers(agreement_id, s, p))


def _recovers(digest: bytes, signature: bytes, party: str) -> bool:
    try:
        return signing.recover(digest, signature) == party
    except Refused:
        return False  # what is no ECDSA signature may be an ERC-1271 one: the chain's record decides
