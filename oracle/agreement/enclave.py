"""Whether an enclave is one that an agreement takes: where its evidence is for, what it proves and is registered as, who hosts
it (R2 to R5)."""

from __future__ import annotations

from typing import Protocol

from enclave_app.protocol import signing
from enclave_app.protocol.evidence import Evidence, Voucher
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.structs import Enclaves, Host, RegisteredIdentity, TcbStatus
from oracle.agreement.terms import Terms
from oracle.attestation import AppraisalPolicy, AttestationError, SnpPolicy, Verified, appraise, evidence_refusal
from oracle.chain.reader import Standing
from oracle.errors import Refused

DAY = 86_400
OF_THE_VERIFIER = SnpPolicy(
    vmpl="skip",
    min_tcb="skip",
    keys="skip",
    migration_agent="refuse",
    smt="skip",
    single_socket="skip",
    alias_check="skip",
)
"""Skipped is what the measurement covers (VMPL, guest policy), and what the agreed verifier enclave judges: its policy is
measured. A migration agent is refused (R3): the measurement does not say whose it is."""


class Hosted(Protocol):
    """What names an enclave and its host: evidence, as it travels or as a receipt keeps it."""

    @property
    def signer(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def operator_signature(self) -> bytes: ...
    @property
    def voucher(self) -> Voucher | None: ...


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


def identity_of(evidence: Hosted, sealing_key: bytes, verified: Verified) -> RegisteredIdentity:
    """What a registry must hold of the enclave whose evidence this is, once it was verified (R2). `sealing_key` is a digest."""
    return RegisteredIdentity(
        measurement=verified.measurement,
        platform=verified.platform,
        sealing_key=sealing_key,
        svn_digest=verified.svn_digest,
        verifier=ZERO32 if evidence.voucher is None else evidence.voucher.measurement,
        operator=evidence.operator,
        tee=verified.tee,
    )


def takes_status(tee: Enclaves, standing: Standing, now: int) -> bool:
    """R4: the agreement takes the status, or took it under an earlier evaluation that is still in the grace (EnclavePolicy)."""
    return bool(tee.status_mask >> standing.tcb_status & 1) or in_grace(tee, standing, now)


def in_grace(tee: Enclaves, standing: Standing, now: int) -> bool:
    """Whether the platform was fine under an evaluation that the agreement takes, and the better level is not older than its
    grace, at `now` in unix seconds. What is revoked has none: the registry keeps no earlier status for it."""
    return (
        standing.earlier_status != 0
        and bool(tee.status_mask >> standing.earlier_status & 1)
        and standing.earlier_evaluation >= tee.eval_floor
        and now <= standing.changed_at + tee.grace_days * DAY
    )


def check_policy(verified: Verified, tee: Enclaves, report_data: bytes, *, graced: bool = False) -> None:
    """Hold verified claims against the agreement's own terms (R3, R4) and the keys they must bind (R2).

    With `graced` every TCB status but REVOKED passes: the caller judges it by what is registered. Skipped by
    name: single registers, which the measurement covers; advisories, which agreements do not list; platforms, since hosts have a
    rule of their own (R5).
    """
    taken = [status for status in TcbStatus if tee.status_mask >> status & 1]
    policy = AppraisalPolicy(
        measurements=tee.measurements,
        registers="skip",
        anchors=tee.anchors,
        statuses=tuple(s for s in TcbStatus if s is not TcbStatus.REVOKED) if graced else tuple(taken),
        evaluation_floor=tee.eval_floor,
        report_data=report_data,
        advisories="skip",
        platforms="skip",
        snp=OF_THE_VERIFIER,
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
