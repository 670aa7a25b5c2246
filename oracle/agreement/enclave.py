"""Whether an enclave is one that an agreement takes: where its evidence is for, what it proves, who hosts it (R2 to R5)."""

from __future__ import annotations

from typing import Protocol

from enclave_app.protocol import signing
from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.structs import Enclaves, Host, TcbStatus
from oracle.agreement.terms import Terms
from oracle.attestation import AppraisalPolicy, AttestationError, Verified, appraise, evidence_refusal
from oracle.errors import Refused


class Hosted(Protocol):
    """What names an enclave's host: evidence, as it travels or as a receipt keeps it."""

    @property
    def signer(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def operator_signature(self) -> bytes: ...


def check_evidence_place(terms: Terms, evidence: Evidence) -> None:
    """R2: evidence is for this chain and this agreement's registry."""
    if evidence.chain_id != terms.chain.chain_id:
        raise Refused(
            "evidence.chain", "evidence is for another chain", found=evidence.chain_id, expected=terms.chain.chain_id
        )
    if evidence.registry != terms.agreement.enclave_registry:
        raise Refused(
            "evidence.registry",
            "evidence is for another enclave registry",
            found=evidence.registry,
            expected=terms.agreement.enclave_registry,
        )


def check_policy(verified: Verified, tee: Enclaves, report_data: bytes) -> None:
    """Hold verified claims against the agreement's own terms (R3, R4) and the keys they must bind (R2).

    Skipped by name: single registers, which the measurement covers; advisories, which agreements do not list; platforms,
    since hosts have a rule of their own (R5).
    """
    policy = AppraisalPolicy(
        measurements=tee.measurements,
        registers="skip",
        anchors=tee.anchors,
        statuses=tuple(status for status in TcbStatus if tee.status_mask >> status & 1),
        evaluation_floor=tee.eval_floor,
        report_data=report_data,
        advisories="skip",
        platforms="skip",
    )
    try:
        appraise(verified, policy)
    except AttestationError as error:
        raise evidence_refusal(error) from None


def check_host(terms: Terms, evidence: Hosted, verified: Verified) -> None:
    """R5: an agreed platform, or an agreed operator who signed for this enclave, or any host where that is written out."""
    tee = terms.agreement.tee
    if tee.any_host or verified.platform in tee.platforms:
        return
    if evidence.operator not in tee.operators:
        raise Refused(
            "host.not_agreed",
            "neither the operator nor the platform is one that the agreement names (R5)",
            found=f"operator {evidence.operator}, platform {verified.platform.hex()}",
        )
    check_operator(terms, evidence)


def check_operator(terms: Terms, evidence: Hosted) -> None:
    """R5: the operator whom evidence names signed for this enclave."""
    signing_host = Host(signer=evidence.signer).typed_digest(terms.chain.enclave_domain(terms.agreement))
    try:
        signer = signing.recover(signing_host, evidence.operator_signature)
    except Refused:
        signer = ZERO_ADDRESS
    if signer != evidence.operator:
        raise Refused("host.signature", "the operator did not sign for this enclave (R5)", expected=evidence.operator)
