"""A receipt from what a worker holds once its enclave has answered. Pure; nothing in it waits for the settlement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.structs import Outcome
from oracle.agreement.anchors import maker_of
from oracle.agreement.consent import signed_by
from oracle.attestation import Collateral, ParsedQuote, carried, parse_evidence
from oracle.errors import Bug, Refused
from oracle.receipt.document import (
    MAX_FUNCTION,
    MAX_RECEIPT,
    Receipt,
    ReceiptCollateral,
    ReceiptEvidence,
    SignedStatement,
    assurance,
)


@dataclass(frozen=True)
class Papers:
    """What a receipt holds beside the task's record: documents by the digests that the agreement names, and with what the
    evidence verifies. `function` is None where it was too large to fetch; `root` is in DER. AMD's and AWS's evidence brings
    its own root: there `root` and `collateral` are None."""

    function: bytes | None
    param_domain: bytes
    manifests: tuple[bytes, ...]
    collateral: Collateral | None
    root: bytes | None


def make_receipt(record: TaskRecord, papers: Papers) -> bytes:
    """The receipt's bytes. Raises Refused `receipt.size`, and AttestationError for evidence or collateral that cannot be read.

    Nothing is verified here: a worker is not believed, so its own verdict would be worth nothing.
    """
    agreement, evidence = record.agreement, record.evidence
    parsed = parse_evidence(evidence.tee, evidence.quote)
    der = papers.root if isinstance(parsed, ParsedQuote) else carried(parsed, evidence.endorsements)[0]
    if der is None or (papers.collateral is None) == isinstance(parsed, ParsedQuote):
        raise Bug("receipt.papers", "papers of another kind of evidence", found=parsed.raw[:4].hex())
    root = sha256(der)
    parties = agreement.parties()
    consents = record.consents if len(record.consents) == len(parties) else (b"",) * len(parties)
    agreement_id = record.chain.agreement_id(agreement)
    signed = signed_by(agreement_id, parties, consents)
    order = {broker.hpke_key: place for place, broker in enumerate(agreement.keys.brokers)}
    statements = sorted(record.releases, key=lambda answer: order.get(answer.statement.broker, len(order)))
    receipt = Receipt(
        format="enclave-oracle/receipt",
        v=1,
        assurance=assurance(root, evidence.voucher),
        chain=record.chain,
        agreement_id=agreement_id,
        task_id=record.request.typed_digest(record.chain.oracle_domain(agreement)),
        agreement=agreement,
        # An ERC-1271 signature proves nothing without the chain, which recorded what it was worth.
        consents=tuple(s if p in signed else b"" for p, s in zip(parties, consents, strict=True)),
        function=papers.function if papers.function is None or len(papers.function) <= MAX_FUNCTION else None,
        param_domain=papers.param_domain,
        manifests=papers.manifests,
        request=record.request,
        evidence=ReceiptEvidence(
            tee=evidence.tee,
            quote=parsed.raw,
            signer=evidence.signer,
            sealing_key=sha256(evidence.sealing_key),
            block_hash=evidence.block_hash,
            operator=evidence.operator,
            operator_signature=evidence.operator_signature,
            endorsements=evidence.endorsements,
            voucher=evidence.voucher,
        ),
        collateral=None if papers.collateral is None else _collateral(papers.collateral),
        root=None if maker_of(root) is not None else der,
        releases=tuple(SignedStatement(statement=s.statement, signature=s.signature) for s in statements),
        result=record.result,
        signature=record.signature,
        outputs=_outputs(record),
    )
    data = receipt.canonical()
    if len(data) > MAX_RECEIPT:
        raise Refused("receipt.size", "a receipt would be too large", found=len(data), expected=MAX_RECEIPT)
    return data


@lru_cache(maxsize=16)
def _collateral(collateral: Collateral) -> ReceiptCollateral:
    """One collateral is that of many receipts."""
    return ReceiptCollateral.of(collateral)


def _outputs(record: TaskRecord) -> tuple[bytes, ...]:
    """By the agreement's order: the manifest of a sealed output, the content of a public one, which the chain has anyway."""
    if record.result.outcome != Outcome.SUCCEEDED:
        return ()
    sealed, public = {each.output: each.manifest for each in record.outputs}, iter(record.public_outputs)
    return tuple(
        next(public, b"") if term.is_public else sealed.get(place, b"")
        for place, term in enumerate(record.agreement.outputs)
    )
