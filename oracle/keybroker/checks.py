"""The rules of a release, one function each: pure, given what the chain said and what the evidence proved.

A Refused stands for ever; a Retryable may pass once the chain has moved on.
"""

from __future__ import annotations

from enclave_app.protocol import signing
from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.release import SignedRelease
from enclave_app.protocol.structs import Enclaves, KeyRelease, TaskState
from oracle.agreement.consent import check_activated
from oracle.agreement.terms import Terms
from oracle.attestation import Verified
from oracle.chain.reader import AgreementRecord, AgreementStatus, IdentityRecord, TaskOnChain
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


def check_identity(
    identity: IdentityRecord | None, anchor: bytes, sealing_key: bytes, tee: Enclaves, block: Block
) -> IdentityRecord:
    """R2 to R4: (anchor, signer) is registered with this sealing key, valid now, and good enough for the agreement."""
    if anchor not in tee.anchors:
        raise Refused("enclave.anchor", "the agreement does not take this trust anchor (R4)", found=anchor.hex())
    if identity is None:
        raise Retryable("enclave.unknown", "the enclave is not registered at the confirmed block")
    if identity.retired:
        raise Refused("enclave.retired", "the enclave's identity was retired")
    if block.timestamp > identity.valid_until:
        raise Retryable(
            "enclave.expired",
            "the enclave's registration has expired",
            found=block.timestamp,
            expected=identity.valid_until,
        )
    if identity.sealing_key != sealing_key:
        raise Refused("enclave.sealing_key", "the enclave is registered with another sealing key")
    if identity.measurement not in tee.measurements:
        raise Refused(
            "enclave.measurement",
            "the agreement does not take the registered measurement (R3)",
            found=identity.measurement.hex(),
        )
    if not tee.status_mask >> identity.tcb_status & 1:
        raise Refused(
            "enclave.status", "the agreement does not take the registered TCB status", found=identity.tcb_status
        )
    if identity.evaluation < tee.eval_floor:
        raise Refused(
            "enclave.evaluation",
            "the registered TCB evaluation is too old",
            found=identity.evaluation,
            expected=f"at least {tee.eval_floor}",
        )
    _check_age("enclave.evidence_age", "the registration", identity.evidence_at, tee, block)
    return identity


def check_same_enclave(identity: IdentityRecord, evidence: Evidence, verified: Verified) -> None:
    """R13: the evidence in hand is about the enclave that the registry holds."""
    if identity.measurement != verified.measurement:
        raise Refused(
            "enclave.differs",
            "the evidence has another measurement than the registration",
            found=verified.measurement.hex(),
            expected=identity.measurement.hex(),
        )
    if identity.platform != verified.platform or identity.tee != evidence.tee:
        raise Refused("enclave.platform", "the evidence is of another platform than the registration")
    if identity.operator != evidence.operator:
        raise Refused(
            "enclave.operator",
            "the registration names another operator",
            found=evidence.operator,
            expected=identity.operator,
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
