"""Who consented to an agreement (R7): by a signature that anyone can check, or as the registry recorded it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from enclave_app.protocol import signing
from enclave_app.protocol.onchain import admission_hash, settlement_hash
from oracle.agreement.terms import Terms
from oracle.chain.reader import AgreementRecord, AgreementStatus, Consent
from oracle.errors import Refused, Retryable


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


def check_consent(parties: Sequence[str], signed: frozenset[str], recorded: Mapping[str, Consent]) -> None:
    """R7, R13: each party's own signature, or what the registry recorded for one that signs otherwise.

    A consent recorded as ECDSA counts for nothing here: such a signature is checked by whoever reads it.
    """
    for party in parties:
        if party not in signed and recorded.get(party) not in (Consent.ERC1271, Consent.TRANSACTION):
            raise Refused("consent.missing", "a party of the agreement did not consent to it (R7)", found=party)


def check_activated(terms: Terms, record: AgreementRecord) -> None:
    """R7: the agreement was activated, on the contracts that it names."""
    if record.status == AgreementStatus.NONE:
        raise Retryable("agreement.inactive", "the agreement is not active at the confirmed block")
    if record.oracle != terms.agreement.oracle or record.settlement_hash != settlement_hash(terms.agreement):
        raise Refused("agreement.contracts", "the registry has the agreement on other contracts or terms than it names")
    if record.admission_hash != admission_hash(terms.agreement):
        raise Refused("agreement.admission", "the registry admits other requesters or data than the agreement names")


def _recovers(digest: bytes, signature: bytes, party: str) -> bool:
    # What is no ECDSA signature may be an ERC-1271 one, of any length: the chain's record decides.
    return len(signature) == signing.LENGTH and _signer(digest, signature) == party


@lru_cache(maxsize=1024)
def _signer(digest: bytes, signature: bytes) -> str | None:
    """One agreement is that of many tasks."""
    try:
        return signing.recover(digest, signature)
    except Refused:
        return None
