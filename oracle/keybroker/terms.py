"""What a call is about, recomputed from its own words: nothing here is believed because somebody said so (R13)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from enclave_app.protocol.shares import ShareList
from enclave_app.protocol.structs import Agreement, Chain, TaskRequest
from oracle.agreement.consent import signed_by
from oracle.agreement.terms import Identify, Terms, check_request_terms, identify_agreement
from oracle.card import BrokerCard
from oracle.errors import Refused

KNOWN_AGREEMENTS = 512
MAX_REMEMBERED = 1 << 17
"""Characters of an agreement's column names, with what each costs beside them."""
_OBJECT, _ECDSA = 64, 65

Signed = Callable[[bytes, tuple[str, ...], tuple[bytes, ...]], frozenset[str]]


def read_terms(chain: Chain, agreement: Agreement, request: TaskRequest, card: BrokerCard, identify: Identify) -> Terms:
    """The ids that the words make, once the words fit the protocol, this broker and each other."""
    agreement_id = identify(chain, agreement)
    check_named(agreement, card)
    return check_request_terms(chain, agreement, agreement_id, request)


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
    remembered, known = lru_cache(KNOWN_AGREEMENTS)(identify_agreement), lru_cache(KNOWN_AGREEMENTS)(signed_by)

    def identify(chain: Chain, agreement: Agreement) -> bytes:
        # Everything else in an agreement that passes the rules is of bounded size.
        names = sum(_OBJECT + len(column) for data in agreement.data for column in data.columns)
        return (remembered if names <= MAX_REMEMBERED else identify_agreement)(chain, agreement)

    def signed(agreement_id: bytes, parties: tuple[str, ...], signatures: tuple[bytes, ...]) -> frozenset[str]:
        return known(agreement_id, parties, tuple(s if len(s) == _ECDSA else b"" for s in signatures))

    return identify, signed
