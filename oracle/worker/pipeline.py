"""The main story of the worker: event → plan → release → run in the enclave → store → settle on chain → receipt.

Every step ends with one move in the journal (states.py), so a task goes on from where it stands, whatever happened since.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import ReleaseBody, SignedRelease, TaskRecord
from enclave_app.protocol.structs import Confirmation, TaskState
from enclave_app.protocol.wire import RunBody, TaskBody, TaskDone
from oracle.chain.deploy import Deployment
from oracle.chain.reader import OracleReader
from oracle.chain.source import SingleSource
from oracle.errors import Bug, OracleError, Retryable
from oracle.logs import Log
from oracle.receipt import Papers
from oracle.worker.admission import Admission
from oracle.worker.blobs import BlobCache
from oracle.worker.brokers import BrokerClient, Round, make_round, shared_body
from oracle.worker.clock import ChainClock
from oracle.worker.collateral import Appraisal
from oracle.worker.config import AttestationConfig, WorkerConfig
from oracle.worker.enclave import TIMEOUT, UNREACHABLE
from oracle.worker.ending import Ending, recorded
from oracle.worker.hosts import Host, Hosts
from oracle.worker.journal import JournalThread, Overtaken
from oracle.worker.letting_go import LettingGo
from oracle.worker.plan import NotYet, Plan, check_deadline, check_release_time, check_time_left, make_plan
from oracle.worker.receipts import PaperFile, receipt_of
from oracle.worker.rendezvous import Rendezvous
from oracle.worker.rows import Task
from oracle.worker.settlement import Settlements
from oracle.worker.states import State
from oracle.worker.steps import Steps
from oracle.worker.store import OutputsGone, OutputStore

LOADING_SECONDS = 120
"""What a run may take beyond the agreed time limit: fetching ciphertext and sealing outputs."""
KEPT_ROUNDS = 1024
"""Rounds of tasks that wait."""
ROOM_SECONDS = 2.0
"""How often a task looks whether the results before it are stored."""
REMEMBERED = 1024
"""Agreements whose quickest run is remembered."""


@dataclass(frozen=True)
class Parts:
    """What the pipeline works with."""

    config: WorkerConfig
    deployment: Deployment
    source: SingleSource
    db: JournalThread
    hosts: Hosts
    admission: Admission
    rendezvous: Rendezvous
    brokers: BrokerClient
    blobs: BlobCache
    outputs: OutputStore
    settler: Settlements
    clock: ChainClock
    appraisal: Appraisal | None
    steps: Steps = field(default_factory=Steps)


class Pipeline:
    def __init__(self, parts: Parts) -> None:
        self._p, self._db, self._journal = parts, parts.db, parts.db.journal
        self._papers = PaperFile(parts.blobs, parts.appraisal, _is_vouched(parts.config.attestation))
        self._rounds: dict[bytes, Round] = {}
        self._turns: dict[bytes, int] = {}
        self._quickest: dict[bytes, float] = {}
        self._letting_go = LettingGo()
        p = parts
        self._ending = Ending(p.db, p.source, p.deployment.oracle, p.hosts, p.settler, p.outputs)
        self.computing: dict[bytes, Host] = {}
        """Tasks that are between their release and their result, and the enclaves that have them."""

    def reconfigure(self, config: WorkerConfig) -> None:
        """For the steps that begin from now on."""
        self._p = replace(self._p, config=config)

    async def work(self, task_id: bytes) -> None:
        """One task, from where it stands to its end. Raises what stopped it, of the three kinds of errors, or Overtaken."""
        task = await self._db(self._journal.task, task_id)
        if task is None:
            return
        log = Log("worker.task", task=task_id.hex())
        head = self._p.clock.head
        if task.state not in (State.SETTLING, State.SETTLED) and head is not None:
            check_deadline(task.request, head.timestamp)
        if task.state is State.SEEN:
            task = await self.compute(task, log)
        step = self._p.steps.step
        if task.state is State.RAN:
            with step("store"):
                task = await self.store(task, log)
        if task.state in (State.STORED, State.SETTLING):
            with step("settle"):
                task = await self._ending.settle(task, self._p.config.receipt_patience, log)
        if task.state is State.SETTLED:
            with step("receipt"):
                await self._ending.write_receipt(task, log)

    async def compute(self, task: Task, log: Log) -> Task:
        """From a request to a signed result, where there is time and room for it, and it is our turn."""
        await self._check_room()
        step = self._p.steps.step
        with step("plan"):
            host, plan = await self.plan(task)
        papers = await self._papers.gather(plan)
        async with self._p.admission.room(plan.agreement.fn.limits.memory_mib):
            # There may have been a long wait for room.
            await self._check_standing(task)
            self._check_time(plan)
            self.computing[task.id] = host
            try:
                began = time.monotonic()
                with step("release"):
                    round_ = await self.release(host, plan, log)
                with step("run"):
                    task = await self.run(host, plan, round_, papers, log)
                self._note_time(plan, time.monotonic() - began)
            except asyncio.CancelledError:
                # It ended on chain, or this worker stops: the enclave need not go on.
                self._forget_round(task.id)
                self._letting_go.at_once(host.enclave, task.id)
                raise
            finally:
                self.computing.pop(task.id, None)
        return task

    async def plan(self, task: Task) -> tuple[Host, Plan]:
        """Whether the task is ours and in which enclave, and whether the time for its release and our turn have come."""
        p = self._p
        stored = await self._db(self._journal.agreement, task.agreement_id)
        host, plan = await p.hosts.choose(
            lambda enrolled: make_plan(
                task,
                stored,
                enrolled,
                p.deployment,
                p.brokers.endpoints,
                p.clock.now(),
                min_fee=p.config.min_fee,
                min_token_fees=p.config.min_token_fees,
                max_callback_gas=p.config.max_callback_gas,
                memory_mib=p.admission.memory,
            )
        )
        self._check_time(plan)
        keys = plan.agreement.keys
        if keys.release_delay or keys.confirm_blocks or keys.confirmation != Confirmation.LATEST:
            confirmed = await p.source.confirmed(Confirmation(keys.confirmation), keys.confirm_blocks)
            # Up to where the journal has followed, or a cancel that is on chain already would not be known here.
            followed = await self._db(self._journal.cursor)
            check_release_time(plan.agreement, task.block_number, min(confirmed.number, followed[0] if followed else 0))
        await self._check_turn(plan)
        # Renewed for those only whose task is ours: strangers must not spend our gas.
        plan = replace(plan, enrolled=await host.enrolment.current(plan.agreement.tee.max_evidence_age))
        await self._check_standing(task)
        return host, plan

    def turn_of(self, task_id: bytes) -> int:
        """How many workers come before this one, as far as that was looked at; 0 otherwise."""
        return self._turns.get(task_id, 0)

    async def _check_turn(self, plan: Plan) -> None:
        """Raises NotYet `task.turn` while another worker is to do the task, and Overtaken where one has."""
        p, task = self._p, plan.task
        turn = await p.rendezvous.turn(
            task.id,
            task.block_hash,
            plan.agreement,
            plan.enrolled.record.identity,
            p.clock.now(),
            plan.request.deadline,
        )
        if not turn.place:
            return
        self._turns[task.id] = turn.place
        if turn.seconds > 0:
            raise NotYet("task.turn", "another worker is to do the task", seconds=turn.seconds, found=turn.place)
        head = await p.source.confirmed(Confirmation.LATEST)
        on_chain = await OracleReader(p.source, p.deployment.oracle).task(task.agreement_id, task.id, head)
        if on_chain.state not in (TaskState.NONE, TaskState.REQUESTED):
            raise NotYet("task.ended", "the task has ended on chain", found=on_chain.state)

    def _check_time(self, plan: Plan) -> None:
        """What the agreement's tasks took at least, as long as this worker has run; nothing is known of the first."""
        check_time_left(plan.request, self._p.clock.now(), self._quickest.get(plan.task.agreement_id, 0.0))

    def _note_time(self, plan: Plan, seconds: float) -> None:
        agreement_id = plan.task.agreement_id
        if agreement_id not in self._quickest and len(self._quickest) >= REMEMBERED:
            del self._quickest[next(iter(self._quickest))]
        self._quickest[agreement_id] = min(seconds, self._quickest.get(agreement_id, seconds))

    async def _check_room(self) -> None:
        """Raises NotYet `store.full` while as many results wait for storage as may: no more are computed meanwhile."""
        spool = self._p.outputs.spool
        if spool.has_room():
            return
        waiting = await self._db(self._journal.tasks, (State.RAN,))
        # The chain may have ended some of them.
        await spool.sweep([each.id for each in waiting])
        if not spool.has_room():
            raise NotYet("store.full", "results wait for storage", seconds=ROOM_SECONDS, found=spool.results)

    async def _check_standing(self, task: Task) -> None:
        """Raise Overtaken where the chain moved the task while something was waited for."""
        states = await self._db(self._journal.states, [task.id])
        if states.get(task.id) is not task.state:
            raise Overtaken

    async def release(self, host: Host, plan: Plan, log: Log) -> Round:
        """The enclave asks, we carry its questions to the brokers and enough of their answers back."""
        p, round_ = self._p, self._rounds.get(plan.task.id)
        if round_ is None or round_.signer != plan.enrolled.signer:
            self._forget_round(plan.task.id)
            started = await host.enclave.start(
                TaskBody(
                    chain=plan.chain,
                    agreement=plan.agreement,
                    request=plan.request,
                    payee=p.config.payee,
                    anchor=plan.enrolled.anchor,
                    storage=p.config.storage.read,
                    over=self._letting_go.with_next(host.enclave),
                )
            )
            if started.task_id != plan.task.id:
                raise Bug("enclave.task_id", "enclave and chain name a task differently", found=started.task_id.hex())
            sealing_key = sha256(plan.enrolled.identity.sealing_key)
            if any(release.request.sealing_key != sealing_key for release in started.releases):
                host.enrolment.doubt()
                raise Retryable("enclave.restarted", "the enclave restarted; the new identity has to be registered")
            round_ = make_round(await self._body(plan, started.releases[0]), started.releases, plan.enrolled.signer)
            self._rounds[plan.task.id] = round_
            self._forget_orphans()
        else:
            round_.body = shared_body(await self._body(plan, next(iter(round_.releases.values()))))
        try:
            await round_.gather(p.brokers, log, grace=p.config.release_grace)
        except Retryable:
            if any(fault.code.startswith(OF_THE_ENCLAVE) for fault in round_.faults.values()):
                # Brokers see another registration or evidence than this worker does, or say so: looking costs little.
                host.enrolment.mistrust()
            raise
        return round_

    async def run(self, host: Host, plan: Plan, round_: Round, papers: Papers | None, log: Log) -> Task:
        """The computation, in the enclave. What comes back is signed, and kept at once."""
        done = await self._run_with_enough(host, plan, round_, log)
        for blame in done.blamed:
            log.warning("the enclave blames a broker", broker=blame.broker.hex(), code=blame.code)
            self._p.brokers.suspects.add(blame.broker)
        self._p.outputs.hold(plan.task.id, done.files)
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
        p, record = self._p, recorded(task)
        try:
            # What is spooled needs no enclave: its signer counts until its registration ends, which settling finds out.
            host = None if p.outputs.is_spooled(task.id, record) else await p.hosts.holder(record)
            await p.outputs.store(None if host is None else host.enclave, task.id, record)
        except OutputsGone:
            # Outputs are deterministic (R16): what no enclave can hand out, a run makes again.
            await self._db(self._journal.start_over, task)
            await p.outputs.drop(task.id)
            raise
        task = await self._db(self._journal.stored, task)
        await p.outputs.drop(task.id)
        host = p.hosts.of(record.signer)
        if host is not None:
            self._letting_go.later(host.enclave, task.id)
        return task

    def heard(self) -> None:
        """The chain was followed further, or rewound."""
        self._ending.heard()

    async def _run_with_enough(self, host: Host, plan: Plan, round_: Round, log: Log) -> TaskDone:
        """Run with the answers at hand; where the enclave finds too few of them good, once more with all that come."""
        answers = tuple(round_.answers.values())
        while True:
            # No longer than until the deadline: a result that comes later is worth nothing.
            left = max(1.0, plan.request.deadline - self._p.clock.now() + 1.0)
            seconds = min(left, plan.agreement.fn.limits.time_seconds + LOADING_SECONDS)
            try:
                return await host.enclave.run(plan.task.id, RunBody(answers=answers), seconds)
            except OracleError as error:
                if not _is_about_answers(error):
                    if not error.code.startswith(KEPT):
                        # The enclave may have forgotten the task with its nonce; another try begins anew.
                        self._forget_round(plan.task.id)
                    if error.code in (UNREACHABLE, TIMEOUT):
                        host.enrolment.doubt()
                        self._letting_go.at_once(host.enclave, plan.task.id)
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

    async def close(self) -> None:
        """Wait for what enclaves were asked to forget."""
        await self._letting_go.close()

    def forget(self, task_id: bytes) -> None:
        """Drop what is kept for a task that is over."""
        self._forget_round(task_id)
        if self._p.outputs.holds(task_id):
            self._letting_go.begin(self._p.outputs.drop(task_id))
        self._turns.pop(task_id, None)
        self._p.rendezvous.forget(task_id)

    def forget_rounds(self) -> None:
        """An enclave is another one: nonces of the old one are worth nothing."""
        for task_id, round_ in list(self._rounds.items()):
            if self._p.hosts.of(round_.signer) is None:
                self._forget_round(task_id)

    def _forget_orphans(self) -> None:
        """Rounds of requests that a reorganisation took are kept for their return, but not without end."""
        idle = [task_id for task_id in self._rounds if task_id not in self.computing]
        for task_id in idle[: max(0, len(idle) - KEPT_ROUNDS)]:
            self._forget_round(task_id)

    def _forget_round(self, task_id: bytes) -> None:
        round_ = self._rounds.pop(task_id, None)
        if round_ is not None:
            round_.close()


OF_THE_ENCLAVE = ("enclave.", "evidence.")
"""What brokers' codes begin with where they refuse for the enclave's registration or evidence."""
KEPT = ("blob.", "run.")
"""What codes begin with after which the enclave still holds the started task: the next try runs on the answers at hand.
Others would be releases, and brokers cap those (R13): a storage that is away for seconds must not use them up (R19)."""
FORGOTTEN = frozenset({"task.unknown", "task.forgotten"})
"""What an enclave says that dropped a started task for want of room, or restarted: no fault of the task (R19)."""


def _is_vouched(attestation: AttestationConfig | None) -> bool:
    return attestation is not None and attestation.vouched_by is not None


def _is_about_answers(error: OracleError) -> bool:
    return error.code.startswith(("release.", "shares.", "key."))
