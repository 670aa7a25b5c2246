"""Signing: a party's consent to an agreement, given only to one that could come into force."""

from __future__ import annotations

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.rules import check_agreement
from enclave_app.protocol.signing import SigningKey
from oracle.agreement.anchors import check_anchors
from oracle.agreement.document import AgreementDocument


def check_signable(document: AgreementDocument) -> None:
    """Refuse an agreement that the registry would not take, or one with a development root on a public chain (R4)."""
    check_agreement(document.agreement)
    check_anchors(document.agreement.tee.anchors, document.chain.chain_id, document.paths)


def sign(document: AgreementDocument, key: SigningKey) -> AgreementDocument:
    """The document with this party's signature; Refused `agreement.*` by the rules, `sign.party` for a stranger."""
    check_signable(document)
    if key.address not in document.agreement.parties():
        raise Refused(
            "sign.party",
            "this key is no party of the agreement",
            found=key.address,
            expected=" or ".join(document.agreement.parties()),
        )
    return document.with_signature(key.address, key.sign(document.id))
