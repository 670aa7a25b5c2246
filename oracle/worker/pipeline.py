"""The main story of the worker: event → plan → release → run in the enclave → store → settle on chain → receipt.

Every step ends with one move in the journal (states.py), so a task goes on from where it stands, whatever happened since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import ReleaseBody, SignedRelease, TaskRecord
from enclave_app.protocol.structs import Confirmation, TaskState
from enclave_app.protocol.wire import RunBody, TaskBody, TaskDone
from oracle.chain.deploy import Deployment
from oracle.chain.reader import OracleReader
from oracle.chain.source import SingleSource
from oracle.errors import Bug, OracleError, Permanent, Retryable, Reverted
from oracle.logs import Log
from oracle.receipt import Papers
from oracle.storage import Storage
from oracle.worker.blobs import BlobCache
from oracle.worker.brokers import BrokerClient, Round, make_round, shared_body
from oracle.worker.collateral import Appraisal
from oracle.worker.config import AttestationConfig, WorkerConfig
from oracle.worker.enclave import UNREACHABLE, Enclave
from oracle.worker.enrolment import Enrolment
from oracle.worker.journal import JournalThread, Overtaken
from oracle.worker.plan import Plan, check_deadline, check_release_time, make_plan
from oracle.worker.receipts import PaperFile, receipt_of
from oracle.worker.rows import Task
from oracle.worker.settle import Verdict, judge
from oracle.worker.settlement import Settlements
from oracle.worker.states import State
from oracle.worker.store import store_outputs, store_receipt

LOADING_SECONDS = 120
"""What a run may take beyond the agreed time limit: fetching ciphertext and sealing outputs."""


@dataclass(frozen=True)
class Parts:
    """What the pipeline works with. `now` is the chain's time in unix seconds."""

    config: WorkerConfig
    deployment: Deployment
    source: SingleSource
    db: JournalThread
    enclave: Enclave
    enrolment: Enrolment
    brokers: BrokerClient
    blobs: BlobCache
    storage: Storage
    settler: Settlements
    now: Callable[[], int]
    appraisal: Appraisal | None


class Pipeline:
    def __init__(self, parts: Parts) -> None:
        self._p, self._db, self._journal = parts, parts.db, parts.db.journal
        self._papers = PaperFile(parts.blobs, parts.appraisal, _is_vouched(parts.config.attestation))
        self._rounds: dict[bytes, Round] = {}

    async def work(self, task_id: bytes) -> None:
        """One task, from where it stands to its end. Raises what stopped it, of the three kinds of errors, or Overtaken."""
        task = await self._db(self._journal.task, task_id)
        if task is None:
            return
        log = Log("worker.task", task=task_id.hex())
        if task.state not in (State.SETTLING, State.SETTLED):
            check_deadline(task.request, self._p.now())
        if task.state is State.SEEN:
            plan = await self.plan(task)
            papers = await self._papers.gather(plan)
            round_ = await self.release(plan, log)
            task = await self.run(plan, round_, papers, log)
        if task.state is State.RAN:
            task = await self.store(task, log)
        if task.state in (State.STORED, State.SETTLING):
            task = await self.settle(task, log)
        if task.state is State.SETTLED:
            await self.write_receipt(task, log)

    async def plan(self, task: Task) -> Plan:
        """Whether the task is ours, and whether its time for a release has come."""
        p = self._p
        stored = await self._db(self._journal.agreement, task.agreement_id)
        plan = make_plan(
            task,
            stored,
            await p.enrolment.current(),
            p.deployment,
            p.brokers.endpoints,
            p.now(),
            min_fee=p.config.min_fee,
            min_token_fees=p.config.min_token_fees,
            max_callback_gas=p.config.max_callback_gas,
        )
        # Renewed for those only whose task is ours: strangers must not spend our gas.
        plan = replace(plan, enrolled=await p.enrolment.current(plan.agreement.tee.max_evidence_age))
        keys = plan.agreement.keys
        if keys.release_delay or keys.confirm_blocks or keys.confirmation != Confirmation.LATEST:
            confirmed = await p.source.confirmed(Confirmation(keys.confirmation), keys.confirm_blocks)
            # Up to where the journal has followed, or a cancel that is on chain already would not be known here.
            followed = await self._db(self._journal.cursor)
            check_release_time(plan.agreement, task.block_number, min(confirmed.number, followed[0] if followed else 0))
            standing = await self._db(self._journal.task, task.id)
            if standing is None or standing.state is not task.state:
                raise Overtaken
        return plan

    async def release(self, plan: Plan, log: Log) -> Round:
        """The enclave asks, we carry its questions to the brokers and enough of their answers back."""
        p, round_ = self._p, self._rounds.get(plan.task.id)
        if round_ is None or round_.signer != plan.enrolled.signer:
            self._forget_round(plan.task.id)
            started = await p.enclave.start(
                TaskBody(
                    chain=plan.chain,
                    agreement=plan.agreement,
                    request=plan.request,
                    payee=p.config.payee,
                    anchor=plan.enrolled.anchor,
                    storage=p.config.storage.read,
                )
            )
            if started.task_id != plan.task.id:
                raise Bug("enclave.task_id", "enclave and chain name a task differently", found=started.task_id.hex())
            sealing_key = sha256(plan.enrolled.identity.sealing_key)
            if any(release.request.sealing_key != sealing_key for release in started.releases):
                p.enrolment.doubt()
                raise Retryable("enclave.restarted", "the enclave restarted; the new identity has to be registered")
            round_ = make_round(await self._body(plan, started.releases[0]), started.releases, plan.enrolled.signer)
            self._rounds[plan.task.id] = round_
        else:
            round_.body = shared_body(await self._body(plan, next(iter(round_.releases.values()))))
        await round_.gather(p.brokers, log, grace=p.config.release_grace)
        return round_

    async def run(self, plan: Plan, round_: Round, papers: Papers | None, log: Log) -> Task:
        """The computation, in the enclave. What comes back is signed, and kept at once."""
        done = await self._run_with_enough(plan, round_, log)
        for blame in done.blamed:
            log.warning("the enclave blames a broker", broker=blame.broker.hex(), code=blame.code)
            self._p.brokers.suspects.add(blame.broker)
        record = TaskRecord(
            chain=plan.chain,
            agreement=plan.agreement,
            request=plan.request,
            result=done.result,
            signature=done.signature,
            signer=plan.enrolled.signer,
            outputs=done.outputs,
            releases=tuple(round_.answers[broker] for broker in done.used if broker in round_.answers),
            evidence=plan.enrolled.evidence,
            consents=plan.signatures,
            enclave=plan.enrolled.record.identity,
            public_outputs=done.public_outputs,
        )
        task = await self._db(self._journal.ran, plan.task, record, receipt_of(record, papers, log))
        self._forget_round(plan.task.id)
        log.info("task ran", outcome=done.result.outcome, enclave_ms=done.enclave_ms, brokers=len(record.releases))
        return task

    async def store(self, task: Task, log: Log) -> Task:
        """Outputs and record into storage, before anyone can learn of the settlement."""
        p, record = self._p, _record(task)
        if (await p.enrolment.current(record.agreement.tee.max_evidence_age)).signer != record.signer:
            await self._db(self._journal.start_over, task)
            raise Retryable("store.enclave_gone", "the enclave restarted before its outputs were stored")
        try:
            await store_outputs(p.enclave, p.storage, task.id, record)
        except Permanent as error:
            # Outputs are deterministic (R16): what this enclave cannot hand out, a run makes again.
            await self._db(self._journal.start_over, task)
            raise Retryable("store.outputs", f"outputs could not be stored: {error.message}") from error
        task = await self._db(self._journal.stored, task)
        await self._let_go(task)
        return task

    async def settle(self, task: Task, log: Log) -> Task:
        """The signed result to the contract, which pays the payee in it (R20)."""
        p, record = self._p, _record(task)
        try:
            if task.state is State.STORED:
                task = await p.settler.send(task)
            receipt = await p.settler.outcome(task, p.config.receipt_patience)
            if receipt is not None:
                task = await self._db(self._journal.ended, task, State.SETTLED, receipt.block_number)
                log.info(
                    "task settled",
                    outcome=record.result.outcome,
                    transaction=receipt.transaction_hash.hex(),
                    block=receipt.block_number,
                    gas=receipt.gas_used,
                )
                return task
            task = await self._db(self._journal.stored, task)
            await p.settler.simulate(record)  # says why it was refused, if it still would be
            raise Retryable("settle.lost", "the settlement was dropped, or refused for a reason that has passed")
        except Reverted as refusal:
            return await self._refused(task, record, refusal, log)

    async def write_receipt(self, task: Task, log: Log) -> None:
        """What a stranger can check, into storage, once the chain holds this worker's result and no other's."""
        p, receipt = self._p, await self._db(self._journal.receipt, task.id)
        if receipt is None:
            return
        record = _record(task)
        head = await p.source.confirmed(Confirmation.LATEST)
        on_chain = await OracleReader(p.source, p.deployment.oracle).task(record.result.agreement_id, task.id, head)
        if on_chain.state not in (TaskState.FULFILLED, TaskState.FAILED):
            raise Retryable("receipt.early", "the chain does not have the settlement at its head", found=on_chain.state)
        ours = on_chain.settled_with(record.result.typed_digest(record.chain.oracle_domain(record.agreement)))
        if ours:
            await store_receipt(p.storage, task.id, receipt)
        await self._db(self._journal.receipt_done, task.id)
        log.info("receipt written" if ours else "no receipt: the chain took another's result")

    async def _refused(self, task: Task, record: TaskRecord, refusal: Reverted, log: Log) -> Task:
        verdict = judge(refusal)
        ends = {
            Verdict.SETTLED: State.SETTLED,
            Verdict.CANCELLED: State.CANCELLED,
            Verdict.EXPIRED: State.EXPIRED,
        }
        if verdict in ends:
            task = await self._db(self._journal.ended, task, ends[verdict])
            log.info("the task has ended on chain", state=ends[verdict].value, reason=refusal.name)
            return task
        if verdict is Verdict.SIGNER_GONE:
            enrolled = await self._p.enrolment.current(record.agreement.tee.max_evidence_age)
            if enrolled.signer != record.signer or refusal.name not in RENEWABLE:
                await self._db(self._journal.start_over, task)
        if verdict is Verdict.NEVER:
            raise refusal
        raise Retryable(refusal.code, f"the settlement has to wait: {refusal.message}")

    async def _run_with_enough(self, plan: Plan, round_: Round, log: Log) -> TaskDone:
        """Run with the answers at hand; where the enclave finds too few of them good, once more with all that come."""
        seconds = plan.agreement.fn.limits.time_seconds + LOADING_SECONDS
        answers = tuple(round_.answers.values())
        while True:
            try:
                return await self._p.enclave.run(plan.task.id, RunBody(answers=answers), seconds)
            except OracleError as error:
                if not _is_about_answers(error):
                    if not error.code.startswith(KEPT):
                        # The enclave may have forgotten the task with its nonce; another try begins anew.
                        self._forget_round(plan.task.id)
                    if error.code == UNREACHABLE:
                        self._p.enrolment.doubt()
                    if error.code in FORGOTTEN:
                        raise Retryable("enclave.forgot", f"the enclave forgot the task: {error.message}") from error
                    raise
                log.warning("the enclave finds too few good answers", code=error.code, answers=len(answers))
                round_.insufficient = len(answers)
                more = await round_.rest()
                if len(more) == len(answers):
                    if round_.exhausted:
                        self._forget_round(plan.task.id)
                    raise Retryable("release.too_few_good", error.message) from error
                answers = more

    async def _body(self, plan: Plan, release: SignedRelease) -> ReleaseBody:
        manifests = [await self._p.blobs.get(version) for version in plan.request.versions]
        share_lists = [await self._p.blobs.get(data.shares_digest) for data in plan.agreement.data]
        return ReleaseBody(
            chain=plan.chain,
            agreement=plan.agreement,
            signatures=plan.signatures,
            request=plan.request,
            manifests=tuple(manifests),
            share_lists=tuple(share_lists),
            release=release,
            evidence=plan.enrolled.evidence,
        )

    async def _let_go(self, task: Task) -> None:
        try:
            await self._p.enclave.forget(task.id)
        except OracleError as error:
            Log("worker.task").debug("the enclave did not forget a task", task=task.id.hex(), code=error.code)

    def forget(self, task_id: bytes) -> None:
        """Drop what is kept in memory for a task that is over."""
        self._forget_round(task_id)

    def forget_rounds(self) -> None:
        """The enclave is another one: nonces of the old one are worth nothing."""
        for task_id in list(self._rounds):
            self._forget_round(task_id)

    def _forget_round(self, task_id: bytes) -> None:
        round_ = self._rounds.pop(task_id, None)
        if round_ is not None:
            round_.close()


RENEWABLE = ("ComputeOracle_EnclaveExpired", "ComputeOracle_EvidenceTooOld", "ComputeOracle_UnknownEnclave")
"""Refusals that a renewal of the same signer's registration mends."""
KEPT = ("blob.", "run.")
"""What codes begin with after which the enclave still holds the started task: the next try runs on the answers at hand.
Others would be releases, and brokers cap those (R13): a storage that is away for seconds must not use them up (R19)."""
FORGOTTEN = frozenset({"task.unknown", "task.forgotten"})
"""What an enclave says that dropped a started task for want of room, or restarted: no fault of the task (R19)."""


def _is_vouched(attestation: AttestationConfig | None) -> bool:
    return attestation is not None and attestation.vouched_by is not None


def _is_about_answers(error: OracleError) -> bool:
    return error.code.startswith(("release.", "shares.", "key."))


def _record(task: Task) -> TaskRecord:
    if task.record is None:
        raise Bug("journal.record", f"a task in state {task.state} has no record")
    return task.record
