"""What a liar makes of a signed agreement: another signature for a party, or another term under the signatures it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Chain
from tests.adversary.chain_kit import case, tee

OTHER = bytes([0xDE]) * 32
YEAR = 365 * 86_400
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
Forgery = Callable[[Chain, Agreement, SigningKey], bytes]
"""Something in place of a party's signature, given the party's own key."""
Edit = Callable[[Agreement], Agreement]


# Signatures


def by_a_stranger(chain: Chain, agreement: Agreement, key: SigningKey) -> bytes:
    return SigningKey.generate().sign(chain.agreement_id(agreement))


def for_another_chain(chain: Chain, agreement: Agreement, key: SigningKey) -> bytes:
    return key.sign(chain.model_copy(update={"chain_id": 1}).agreement_id(agreement))


def for_another_registry(chain: Chain, agreement: Agreement, key: SigningKey) -> bytes:
    return key.sign(chain.model_copy(update={"agreement_registry": agreement.oracle}).agreement_id(agreement))


def for_another_agreement(chain: Chain, agreement: Agreement, key: SigningKey) -> bytes:
    return key.sign(chain.agreement_id(agreement.model_copy(update={"salt": OTHER})))


def malleated(chain: Chain, agreement: Agreement, key: SigningKey) -> bytes:
    """The other form of the party's own, (r, n − s)."""
    good = key.sign(chain.agreement_id(agreement))
    s = SECP256K1_ORDER - int.from_bytes(good[32:64], "big")
    return good[:32] + s.to_bytes(32, "big") + bytes([27 + 28 - good[64]])


def junk(chain: Chain, agreement: Agreement, key: SigningKey) -> bytes:
    return b"as the wallet said"


FORGERIES: dict[str, tuple[str, Forgery]] = {
    "stranger": ("a stranger's signature", by_a_stranger),
    "chain": ("a signature for another chain", for_another_chain),
    "registry": ("a signature for another contract", for_another_registry),
    "agreement": ("a signature for another agreement", for_another_agreement),
    "malleated": ("a malleated signature", malleated),
    "junk": ("a wallet's signature for an account", junk),
}


def for_a_party(where: str, reason: str, **other: str) -> list[Any]:
    """A case for each forgery, told `where`; `other` are the reasons that differ, by the forgery's name."""
    return [
        case("consent", name, forge, f"{what}, {where}", "R7 R13", other.get(name, reason))
        for name, (what, forge) in FORGERIES.items()
    ]


# Terms


def part(name: str, /, **changes: object) -> Edit:
    """Another value in one of the agreement's structures."""

    def edit(agreement: Agreement) -> Agreement:
        inner = getattr(agreement, name).model_copy(update=changes)
        return agreement.model_copy(update={name: inner})

    return edit


def first(name: str, /, **changes: object) -> Edit:
    """The same in the first of a list."""

    def edit(agreement: Agreement) -> Agreement:
        head, *rest = getattr(agreement, name)
        return agreement.model_copy(update={name: (head.model_copy(update=changes), *rest)})

    return edit


def one_more_column(agreement: Agreement) -> Agreement:
    return first("data", columns=(*agreement.data[0].columns, "texture"))(agreement)


def one_more_program(agreement: Agreement) -> Agreement:
    return tee(agreement, measurements=(*agreement.tee.measurements, OTHER))


def one_more_root(agreement: Agreement) -> Agreement:
    return tee(agreement, anchors=(*agreement.tee.anchors, OTHER))


def more_time(agreement: Agreement) -> Agreement:
    limits = agreement.fn.limits.model_copy(update={"time_seconds": agreement.fn.limits.time_seconds + 1})
    return part("fn", limits=limits)(agreement)


def a_year_more(agreement: Agreement) -> Agreement:
    return agreement.model_copy(update={"not_after": agreement.not_after + YEAR})


EDITS: dict[str, tuple[str, Edit]] = {
    "code": ("another function", part("fn", id=OTHER)),
    "limits": ("wider limits", more_time),
    "columns": ("one more column", one_more_column),
    "shares": ("another share list", first("data", shares_digest=OTHER)),
    "programs": ("one more enclave program", one_more_program),
    "roots": ("one more trust anchor", one_more_root),
    "statuses": ("a laxer TCB policy", part("tee", status_mask=1 << 1 | 1 << 5)),
    "floor": ("a lower evaluation floor", part("tee", eval_floor=1)),
    "hosts": ("any host", part("tee", any_host=True, operators=())),
    "threshold": ("a threshold of one broker", part("keys", threshold=1)),
    "releases": ("more releases a task", part("keys", max_releases=200)),
    "recipients": ("another recipient", first("outputs", recipients=(OTHER,))),
    "requesters": ("other requesters", part("access", requesters=OTHER)),
    "quota": ("a larger quota", part("access", quota=10_000)),
    "price": ("no fee", part("price", fee=0, failed_fee=0)),
    "validity": ("a year more", a_year_more),
    "params": ("other parameters", lambda agreement: agreement.model_copy(update={"param_domain": OTHER})),
}


def the_same_broker_twice(agreement: Agreement) -> Agreement:
    brokers = agreement.keys.brokers
    return part("keys", brokers=(brokers[0], brokers[0], *brokers[2:]))(agreement)


def more_shares_than_fee(agreement: Agreement) -> Agreement:
    owner = agreement.fn.owner
    return part("price", to=(owner, owner), bps=(6000, 6000))(agreement)


HOLLOW: dict[str, tuple[str, str, Edit]] = {
    "broker": ("one broker as two", "R13 R21", the_same_broker_twice),
    "shares": ("more shares than there is fee", "R20 R21", more_shares_than_fee),
    "name": ("an output without a name", "R21", first("outputs", name="")),
    "feature": ("a term that this version does not know", "R21", first("data", budget=1)),
    "threshold": ("a threshold of no broker", "R13 R21", part("keys", threshold=0)),
    "quota": ("no quota", "R9 R21", part("access", quota=0, quota_per_requester=0)),
}


HOLLOW_TERMS = {
    "broker": "agreement.duplicate",
    "shares": "agreement.price",
    "name": "agreement.name",
    "feature": "agreement.not_yet",
    "threshold": "agreement.threshold",
    "quota": "agreement.quota",
}
"""What the rules call each of them, wherever they are read."""


def hollow(where: str, reasons: dict[str, str]) -> list[Any]:
    """A case for each agreement that should not stand although all sign it, told `where`."""
    return [
        case("consent", name, edit, f"{what}, {where}", rules, reasons[name])
        for name, (what, rules, edit) in HOLLOW.items()
    ]


def after_signing(where: str, reason: str) -> list[Any]:
    """A case for each edit, told `where`."""
    return [
        case("consent", name, edit, f"{what}, put in after the signing, {where}", "R7", reason)
        for name, (what, edit) in EDITS.items()
    ]
