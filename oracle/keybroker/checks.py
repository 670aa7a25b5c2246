"""The rules of a release, one function each: pure, given what the chain said and what the evidence proved.

A Refused stands for ever; a Retryable may pass once the chain has moved on.
"""

from __future__ import annotations

from enclave_app.protocol import signing
from enclave_app.protocol.evidence import Evidence, registered_under
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.release import SignedRelease
from enclave_app.protocol.structs import Enclaves, KeyRelease, RegisteredIdentity, TaskState
from oracle.agreement.consent import check_activated
from oracle.agreement.enclave import in_grace, takes_status
from oracle.agreement.terms import Terms
from oracle.attestation import Verified
from oracle.attestation.types import intel_name
from oracle.chain.reader import AgreementRecord, AgreementStatus, EnclaveRecord, Standing, TaskOnChain
from oracle.chain.source import Block
from oracle.errors import Refused, Retryable


def check_asked(terms: Terms, release: SignedRelease, evidence: Evidence, broker: bytes) -> PublicKey:
    """R13: the enclave's own key asked this broker, for this task; gives the sealing key that the answer goes to."""
    request = release.request
    if request.broker != broker:
        raise Refused("release.broker", "a release request is for another broker", found=request.broker.hex())
    if request.agreement_id != terms.agreement_id:
        raise Refused(
            "release.agreement", "a release request is for another agreement", found=request.agreement_id.hex()
        )
    if request.task_id != terms.task_id:
        raise Refused("release.task", "a release request is for another task", found=request.task_id.hex())
    sealing = PublicKey(evidence.sealing_key)
    if request.sealing_key != sealing.digest:
        raise Refused("release.sealing_key", "a release request names another sealing key than its evidence")
    digest = request.typed_digest(terms.chain.oracle_domain(terms.agreement))
    if signing.recover(digest, release.signature) != evidence.signer:
        raise Refused(
            "release.signature", "a release request is not signed by the enclave's key", expected=evidence.signer
        )
    return sealing


def check_standing(terms: Terms, record: AgreementRecord, dropped: bool) -> None:
    """R7, R8: active at the confirmed block, on the contracts that it names, and nobody narrowed it past this enclave.

    Its time window is the request's matter, and the contract's (DESIGN 5): a task taken inside it may finish behind it.
    """
    check_activated(terms, record)
    if record.status == AgreementStatus.SUSPENDED:
        raise Retryable("agreement.suspended", "a party has suspended the agreement (R8)")
    if record.status == AgreementStatus.SUPERSEDED:
        raise Refused("agreement.superseded", "its parties activated another agreement in the place of this one (R8)")
    if record.status != AgreementStatus.ACTIVE:
        raise Refused("agreement.revoked", "a party has revoked the agreement (R8)")
    if dropped:
        raise Refused("agreement.dropped", "a party has dropped this measurement, platform or operator (R8)")


def check_task(task: TaskOnChain, keys: KeyRelease, block: Block) -> None:
    """R9: the task stands, uncancelled, at a confirmed block past the release delay; or it is settled, to rebuild (R17)."""
    if task.state == TaskState.FULFILLED:
        return
    if task.state == TaskState.NONE:
        raise Retryable(
            "task.unknown", "the task is not on chain at the confirmed block", found=f"block {block.number}"
        )
    if task.state != TaskState.REQUESTED:
        raise Refused("task.closed", "the task is over", found=task.state.name)
    if block.timestamp > task.deadline:
        raise Refused(
            "task.deadline",
            "the task's deadline has passed",
            found=block.timestamp,
            expected=f"at most {task.deadline}",
        )
    if block.number < task.request_block or (
        keys.release_delay and block.number <= task.request_block + keys.release_delay
    ):
        raise Retryable(
            "task.delay",
            "the task can still be cancelled at the confirmed block (R9)",
            found=f"block {block.number}",
            expected=f"above {task.request_block + keys.release_delay}",
        )


def check_remembered(as_of: int, refused_until: int) -> None:
    """R13: what a broker released before its log was lost nobody can count, so tasks of that time get nothing more.

    The contract takes no request before the time that it is asked as of.
    """
    if as_of <= refused_until:
        raise Refused(
            "task.log_lost",
            "this broker lost its log, and releases no task that was asked before",
            found=as_of,
            expected=f"above {refused_until}",
        )


def check_anchor(evidence: Evidence, verified: Verified, anchor: bytes, tee: Enclaves) -> None:
    """R4: the enclave asks under the anchor that its evidence leads to, directly or through the verifier enclave that vouched
    for it, and the agreement takes it. The evidence's own root is held against the agreement as well, by its appraisal."""
    expected = registered_under(verified.root, evidence.voucher)
    if anchor != expected:
        raise Refused(
            "enclave.path",
            "the evidence does not lead to the anchor under which the enclave asks (R4)",
            found=anchor.hex(),
            expected=expected.hex(),
        )
    if anchor not in tee.anchors:
        raise Refused("enclave.anchor", "the agreement does not take this trust anchor (R4)", found=anchor.hex())


def check_registered(
    record: EnclaveRecord | None, identity: RegisteredIdentity, tee: Enclaves, block: Block
) -> Standing:
    """R2 to R4: (anchor, signer) is registered as exactly what the evidence in hand says (R13), valid now, and good enough for
    the agreement."""
    if record is None:
        raise Retryable("enclave.unknown", "the enclave is not registered at the confirmed block")
    if record.digest != identity.digest:
        raise Refused(
            "enclave.identity",
            "the enclave is registered as something else than its evidence says (R13)",
            found=record.digest.hex(),
            expected=identity.digest.hex(),
        )
    standing = record.standing
    if standing.retired:
        raise Refused("enclave.retired", "the enclave's identity was retired")
    if block.timestamp > standing.valid_until:
        raise Retryable(
            "enclave.expired",
            "the enclave's registration has expired",
            found=block.timestamp,
            expected=standing.valid_until,
        )
    if not takes_status(tee, standing, block.timestamp):
        raise Refused(
            "enclave.status", "the agreement does not take the registered TCB status", found=standing.tcb_status
        )
    if standing.evaluation < tee.eval_floor:
        raise Refused(
            "enclave.evaluation",
            "the registered TCB evaluation is too old",
            found=standing.evaluation,
            expected=f"at least {tee.eval_floor}",
        )
    _check_age("enclave.evidence_age", "the registration", standing.evidence_at, tee, block)
    return standing


def check_status(verified: Verified, standing: Standing, tee: Enclaves, block: Block) -> None:
    """R4, R13: the agreement takes the status that this broker finds, or the enclave is registered as in its grace.

    AMD and AWS publish none: then the registered one alone counts, which the verifier that the agreement names gave it.
    """
    if (
        verified.tcb_status is None
        or tee.status_mask >> verified.tcb_status & 1
        or in_grace(tee, standing, block.timestamp)
    ):
        return
    # A registration under the newer collateral may show what the platform was before.
    kind = Retryable if standing.evaluation < verified.evaluation else Refused
    raise kind(
        "evidence.status_not_allowed",
        "the agreement does not take the TCB status of this platform, nor is it in the agreement's grace",
        found=intel_name(verified.tcb_status),
    )


def check_freshness(evidence: Evidence, evidence_block: Block | None, tee: Enclaves, block: Block) -> None:
    """R2: the quote was made over a block of this chain that is not older than the agreement takes."""
    if evidence_block is None:
        raise Retryable("evidence.block_unknown", "the block that the evidence binds is not known yet")
    if evidence_block.hash != evidence.block_hash:
        raise Refused(
            "evidence.block", "the evidence binds a block that is not on this chain", found=evidence.block_number
        )
    _check_age("evidence.age", "the evidence", evidence_block.timestamp, tee, block)


def _check_age(code: str, what: str, made_at: int, tee: Enclaves, block: Block) -> None:
    age = block.timestamp - made_at
    if age > tee.max_evidence_age:
        raise Retryable(
            code, f"{what} is older than the agreement takes; renew it", found=f"{age} s", expected=tee.max_evidence_age
        )
