"""Whether a task is ours: pure, given what the journal, the registry and the configuration say.

The brokers and the contract check all of this again; here it saves releases and gas that would come to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.rules import MAX_CALLBACK_GAS, check_agreement, check_request
from enclave_app.protocol.structs import Agreement, Chain, Enclaves, FunctionKind, Price, TaskRequest
from oracle.agreement.enclave import takes_status
from oracle.chain.deploy import Deployment
from oracle.chain.reader import IdentityRecord
from oracle.errors import Permanent, Refused, Retryable
from oracle.worker.register import Enrolled
from oracle.worker.rows import StoredAgreement, Task

MIN_MAX_AGE = 120
"""Agreements that want younger evidence than this, in seconds, are not served: each renewal costs a transaction."""
LATE_SECONDS = 5.0
"""How long a task that comes too late waits, at most, between two looks at whether a block says so."""
BPS = 10_000
NO_TOKENS: Mapping[str, int] = MappingProxyType({})
KINDS = frozenset({FunctionKind.SQL})
"""Function kinds whose runtimes exist in this version."""


class NotOurs(Permanent):
    """This worker does not do the task; another may."""


class DeadlinePassed(Permanent):
    """Nobody can do the task any more."""


class NotYet(Retryable):
    """Its time has not come, which is no failed attempt. `seconds` until it may have; None: with the next block."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        seconds: float | None = None,
        found: object = None,
        expected: object = None,
    ) -> None:
        super().__init__(code, message, found=found, expected=expected)
        self.seconds = seconds


@dataclass(frozen=True)
class Plan:
    """A task that is ours: what to tell the enclave and the brokers."""

    chain: Chain
    task: Task
    agreement: Agreement
    signatures: tuple[bytes, ...]
    enrolled: Enrolled

    @property
    def request(self) -> TaskRequest:
        return self.task.request


def make_plan(
    task: Task,
    stored: StoredAgreement | None,
    enrolled: Enrolled,
    deployment: Deployment,
    endpoints: Collection[bytes],
    now: int,
    *,
    min_fee: int = 0,
    min_token_fees: Mapping[str, int] = NO_TOKENS,
    max_callback_gas: int = MAX_CALLBACK_GAS,
    memory_mib: int | None = None,
) -> Plan:
    """Raises NotOurs, whose code and message say why. `min_fee` in wei is the least that the task must pay its payee,
    `min_token_fees` the same for fees in tokens, in their smallest units. `memory_mib` is what all runs may have together."""
    if stored is None:
        raise NotOurs("plan.agreement", "the agreement's activation was not seen, or cannot be read")
    agreement = stored.agreement
    _check_contracts(agreement, deployment)
    try:
        check_agreement(agreement)
        check_request(agreement, task.request)
    except Refused as error:
        raise NotOurs(error.code, error.message) from None
    if agreement.fn.kind not in KINDS:
        raise NotOurs("plan.kind", "no runtime for this kind of function", found=agreement.fn.kind)
    check_enclave(agreement.tee, enrolled, now)
    if agreement.tee.max_evidence_age < MIN_MAX_AGE:
        raise NotOurs(
            "plan.evidence_age",
            "the agreement wants younger evidence than we renew for",
            found=agreement.tee.max_evidence_age,
            expected=f"at least {MIN_MAX_AGE} s",
        )
    _check_brokers(agreement, endpoints)
    _check_fee(agreement.price, min_fee, min_token_fees)
    _check_callback(task.request, max_callback_gas)
    _check_memory(agreement.fn.limits.memory_mib, memory_mib)
    chain = Chain(chain_id=deployment.chain_id, agreement_registry=deployment.agreement_registry)
    return Plan(chain, task, agreement, stored.signatures, enrolled)


def check_deadline(request: TaskRequest, now: int) -> None:
    """Raise DeadlinePassed; `now` is the timestamp of a block of the chain, in unix seconds."""
    if request.deadline < now:
        raise DeadlinePassed("task.deadline", "the deadline has passed", found=now, expected=request.deadline)


def check_time_left(request: TaskRequest, now: int, needed: float) -> None:
    """Raise NotYet `task.late` where a task that takes `needed` seconds cannot end before its deadline: it is not begun, and
    over once a block says that the deadline has passed. `now` is the chain's time by our reckoning."""
    if now + needed > request.deadline:
        raise NotYet(
            "task.late",
            "the task cannot end before its deadline; it is not begun",
            seconds=min(LATE_SECONDS, max(1.0, request.deadline - now + 1.0)),
            found=round(now + needed),
            expected=f"at most {request.deadline}",
        )


def takes(tee: Enclaves, anchor: bytes, record: IdentityRecord, now: int) -> bool:
    """Whether an agreement takes a registered enclave at `now` (unix seconds)."""
    try:
        _check_enclave(tee, anchor, record, now)
    except NotOurs:
        return False
    return True


def check_enclave(tee: Enclaves, enrolled: Enrolled, now: int) -> None:
    """The contract's EnclavePolicy at `now` (unix seconds), without ages, which a renewal mends (R3, R4, R5)."""
    _check_enclave(tee, enrolled.anchor, enrolled.record, now)


def _check_enclave(tee: Enclaves, anchor: bytes, record: IdentityRecord, now: int) -> None:
    identity, standing = record.identity, record.standing
    if anchor not in tee.anchors:
        raise NotOurs("plan.anchor", "the agreement does not take our trust anchor (R4)", found=anchor.hex())
    if identity.measurement not in tee.measurements:
        found = identity.measurement.hex()
        raise NotOurs("plan.measurement", "the agreement does not take our enclave's measurement (R3)", found=found)
    if not takes_status(tee, standing, now):
        raise NotOurs("plan.status", "the agreement does not take our TCB status", found=standing.tcb_status)
    if standing.evaluation < tee.eval_floor:
        raise NotOurs(
            "plan.evaluation", "our TCB evaluation is too old", found=standing.evaluation, expected=tee.eval_floor
        )
    if not tee.any_host and identity.operator not in tee.operators and identity.platform not in tee.platforms:
        found = f"operator {identity.operator}, platform {identity.platform.hex()}"
        raise NotOurs("plan.host", "the agreement does not take this host (R5)", found=found)


def _check_contracts(agreement: Agreement, deployment: Deployment) -> None:
    if (agreement.oracle, agreement.enclave_registry) != (deployment.oracle, deployment.enclave_registry):
        raise NotOurs("plan.contracts", "the agreement is on other contracts than this worker serves")


def _check_brokers(agreement: Agreement, endpoints: Collection[bytes]) -> None:
    known = sum(1 for broker in agreement.keys.brokers if broker.hpke_key in endpoints)
    if known < agreement.keys.threshold:
        raise NotOurs(
            "plan.brokers",
            "too few of the agreement's key brokers are in the configuration",
            found=known,
            expected=f"at least {agreement.keys.threshold}",
        )


def _check_fee(price: Price, min_fee: int, min_token_fees: Mapping[str, int]) -> None:
    """Anyone can activate an agreement that takes this worker's enclave, in a token of nothing, too, and then spend its gas for
    less than it costs."""
    least = min_fee if price.token == ZERO_ADDRESS else min_token_fees.get(price.token)
    if least is None:
        if min_fee:
            raise NotOurs("plan.token", "the task pays in a token for which no least fee is set", found=price.token)
        return
    paid = min(price.fee - price.fee * sum(price.bps) // BPS, price.failed_fee)
    if paid < least:
        raise NotOurs("plan.fee", "the task may pay less than is asked for", found=paid, expected=f"at least {least}")


def _check_callback(request: TaskRequest, max_callback_gas: int) -> None:
    if request.callback_gas > max_callback_gas:
        raise NotOurs(
            "plan.callback_gas",
            "the task's callback may use more gas than is given",
            found=request.callback_gas,
            expected=f"at most {max_callback_gas}",
        )


def _check_memory(agreed: int, most: int | None) -> None:
    if most is not None and agreed > most:
        raise NotOurs(
            "plan.memory", "the task may take more memory (MiB) than this worker has", found=agreed, expected=most
        )


def check_release_time(agreement: Agreement, request_block: int, confirmed_block: int) -> None:
    """Raise NotYet `task.delay` while brokers would not release yet (R9): asking early is noise."""
    delay = agreement.keys.release_delay
    needed = request_block + delay + 1 if delay else request_block
    if confirmed_block < needed:
        raise NotYet(
            "task.delay",
            "the request is not confirmed past its release delay yet",
            found=confirmed_block,
            expected=needed,
        )
