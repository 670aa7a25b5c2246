"""The worker as a process: the follower, a bounded number of task pipelines, and what becomes of each kind of error.

Retryable   the task waits with back-off and jitter, kept in the journal, until its deadline
Permanent   the task is skipped, expired or failed, with its code
others      a bug: reported and parked for a person; never a crash loop
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from contextlib import AsyncExitStack, suppress

from oracle.chain.deploy import Deployment
from oracle.chain.source import SingleSource
from oracle.errors import Permanent, Retryable
from oracle.logs import Log, describe
from oracle.storage import open_storage
from oracle.worker.blobs import BlobCache
from oracle.worker.brokers import BrokerClient
from oracle.worker.collateral import open_appraisal
from oracle.worker.config import WorkerConfig
from oracle.worker.enclave import UNREACHABLE, Enclave, EnclaveProcess
from oracle.worker.enrolment import Enrolment
from oracle.worker.follower import Follower
from oracle.worker.gauges import Gauges
from oracle.worker.journal import JournalThread, Overtaken
from oracle.worker.keys import account, signing_key
from oracle.worker.outbox import Outbox
from oracle.worker.outlook import Outlook
from oracle.worker.pipeline import Parts, Pipeline
from oracle.worker.plan import DeadlinePassed, NotOurs
from oracle.worker.registrars import make_registrar
from oracle.worker.rpc import FailoverRpc
from oracle.worker.settlement import Settlements
from oracle.worker.states import OPEN, State
from oracle.worker.vouching import open_vouching

WATCH_SECONDS = 2.0
LONGEST_SLEEP = 5.0
RUN_FAULTS = "run."
"""What codes of a run begin with that ran out of time or memory, or whose sandbox died: the host's matter, never signed (R19)."""
WAITS = frozenset({"task.delay"})
"""Codes of waiting for the chain, which is no failed attempt: tried again at the pace of blocks."""


class Worker:
    """`await Worker(config).run()` serves until `stop()`. `ready` is set once the enclave is registered and the chain's
    past is in the journal. Raises what is wrong with configuration, journal or chain before that."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.ready = asyncio.Event()
        self.gauges = Gauges()
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._replan = True
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._run_faults: dict[bytes, int] = {}
        self._log = Log("worker")

    def stop(self) -> None:
        """Take no new work, finish what runs within `drain` seconds, and end `run`. What is unfinished resumes later."""
        self._stopping.set()
        self._wake.set()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT drain."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            await self._open(stack)
            loops = [
                asyncio.create_task(self._follower.run(), name="follower"),
                asyncio.create_task(self._enrolment.watch(WATCH_SECONDS), name="enrolment"),
                asyncio.create_task(self._sender.run(), name="outbox"),
                asyncio.create_task(self._schedule(), name="scheduler"),
                asyncio.create_task(self._outlook.watch(), name="outlook"),
            ]
            if self._appraisal is not None:
                loops.append(asyncio.create_task(self._appraisal.collateral.run(), name="collateral"))
            stack.push_async_callback(_cancel, loops)
            # The scheduler ends when it is told to; the others end by a bug only, and then the worker must not idle on.
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            await self._drain()
            for loop in loops:
                if loop.done():
                    loop.result()

    async def _open(self, stack: AsyncExitStack) -> None:
        config = self.config
        deployment = Deployment.read(config.deployment)
        self._db = JournalThread(config.journal)
        stack.callback(self._db.close)
        rpc = FailoverRpc(config.rpc)
        stack.push_async_callback(rpc.close)
        source = SingleSource(rpc)
        await _check_chain(source, deployment)
        self._sender = sender = Outbox(rpc, account(config.wallet), self._db, config.fees)
        enclave = Enclave(config.enclave.socket)
        stack.push_async_callback(enclave.close)
        process = await self._launch(stack)
        self._appraisal = open_appraisal(config.attestation, deployment.chain_id)
        vouching = await stack.enter_async_context(open_vouching(config.attestation, deployment.chain_id))
        brokers = BrokerClient(config.brokers, timeout=config.release_timeout)
        stack.push_async_callback(brokers.close)
        readable = [await stack.enter_async_context(open_storage(uri)) for uri in config.storage.read]
        writable = await stack.enter_async_context(open_storage(config.storage.write))
        self._follower = Follower(
            rpc,
            self._db,
            (deployment.oracle, deployment.agreement_registry),
            deployment.first_block,
            poll=config.poll,
            on_news=self._on_news,
        )
        self._enrolment = Enrolment(
            enclave,
            process,
            sender,
            source,
            deployment,
            make_registrar(self._appraisal, deployment, sender, source, vouching),
            None if config.operator is None else signing_key(config.operator),
            self._on_enclave_change,
            self._now,
        )
        self._outlook = Outlook(self._enrolment, self._appraisal, self.gauges, self._now, config.gauges)
        parts = Parts(
            config=config,
            deployment=deployment,
            source=source,
            db=self._db,
            enclave=enclave,
            enrolment=self._enrolment,
            brokers=brokers,
            blobs=BlobCache(readable),
            storage=writable,
            settler=Settlements(sender, self._db, deployment.oracle, window=config.settle_window),
            now=self._now,
            appraisal=self._appraisal,
        )
        self._pipeline = Pipeline(parts)

    async def _launch(self, stack: AsyncExitStack) -> EnclaveProcess | None:
        command = self.config.enclave.launch()
        if command is None:
            return None
        process = EnclaveProcess(command, self.config.enclave.socket, self.config.enclave.start_seconds)
        stack.push_async_callback(process.stop)
        await process.start()
        return process

    # Which tasks run.

    async def _schedule(self) -> None:
        if not await self._is_ready():
            return
        while not self._stopping.is_set():
            self._wake.clear()
            if self._replan:
                self._replan = False
                await self._db(self._db.journal.try_again, (State.SKIPPED,))
            free = self.config.concurrency - len(self._running)
            if free > 0:
                due = await self._db(self._db.journal.due, time.time(), self.config.concurrency + len(self._running))
                for task_id in [each for each in due if each not in self._running][:free]:
                    self._start(task_id)
            await self._sleep_until_next()

    async def _is_ready(self) -> bool:
        """Wait for the past, or requests would run whose settlement is still to be read; and for a registered enclave."""
        attempts = 0
        while not self._stopping.is_set():
            self._wake.clear()
            pause = self.config.poll
            if self._follower.caught_up.is_set():
                try:
                    enrolled = await self._enrolment.current()
                except Retryable as error:
                    pause, attempts = self._backoff(attempts), attempts + 1
                    self._log.warning(
                        "the enclave is not registered yet",
                        code=error.code,
                        message=error.message,
                        seconds=round(pause, 2),
                    )
                else:
                    self._log.info("worker ready", signer=enrolled.signer, simulated=enrolled.identity.simulated)
                    self.ready.set()
                    return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
        return False

    def _start(self, task_id: bytes) -> None:
        work = asyncio.create_task(self._work(task_id), name=f"task {task_id.hex()[:8]}")
        self._running[task_id] = work

        def over(_: asyncio.Task[None]) -> None:
            self._running.pop(task_id, None)
            self._wake.set()

        work.add_done_callback(over)

    async def _sleep_until_next(self) -> None:
        now = time.time()
        following = await self._db(self._db.journal.next_try, now)
        pause = LONGEST_SLEEP if following is None else min(LONGEST_SLEEP, max(0.0, following - now))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

    async def _on_news(self, reorganised: bool) -> None:
        if reorganised:
            self._sender.reorganised()
        self._sender.wake()
        self._wake.set()

    def _on_enclave_change(self) -> None:
        self._pipeline.forget_rounds()
        self._replan = True
        self._wake.set()

    def _now(self) -> int:
        head = self._follower.head
        return max(int(time.time()), 0 if head is None else head.timestamp)

    # What becomes of errors.

    async def _work(self, task_id: bytes) -> None:
        log = self._log.bind(task=task_id.hex())
        try:
            await self._pipeline.work(task_id)
            self._pipeline.forget(task_id)
            self._run_faults.pop(task_id, None)
        except Overtaken:
            self._pipeline.forget(task_id)
            log.info("the chain overtook the task")
        except Retryable as error:
            await self._retry(task_id, error, log)
        except DeadlinePassed as error:
            await self._end(task_id, State.EXPIRED, error, log)
        except NotOurs as error:
            await self._end(task_id, State.SKIPPED, error, log)
        except Permanent as error:
            log.error("the task failed here for good", error)
            await self._end(task_id, State.FAILED, error, log)
        except Exception as error:
            log.error("a bug: please report it; the task is parked", error)
            await self._end(task_id, State.PARKED, error, log)

    async def _retry(self, task_id: bytes, error: Retryable, log: Log) -> None:
        if error.code == UNREACHABLE:
            self._enrolment.doubt()
        if error.code.startswith(RUN_FAULTS):
            # Each try costs up to the agreed time: a function that never fits must not try for ever.
            self._run_faults[task_id] = self._run_faults.get(task_id, 0) + 1
            if self._run_faults[task_id] >= self.config.max_runs:
                given_up = Permanent(error.code, f"given up after {self.config.max_runs} runs: {error.message}")
                await self._end(task_id, State.PARKED, given_up, log)
                return
        task = await self._db(self._db.journal.task, task_id)
        if task is None:
            return
        waits = error.code in WAITS
        pause = self.config.poll if waits else self._backoff(task.attempts)
        await self._db(
            self._db.journal.retry, task_id, time.time() + pause, error.code, error.message, counts=not waits
        )
        if waits:
            log.debug("the task waits", code=error.code, message=error.message)
        else:
            log.warning("the task waits", code=error.code, message=error.message, seconds=round(pause, 2))

    def _backoff(self, attempts: int) -> float:
        longest = min(self.config.retry_most, self.config.retry_first * 2.0 ** min(attempts, 30))
        return longest * (0.5 + secrets.randbelow(1000) / 2000)

    async def _end(self, task_id: bytes, state: State, error: Exception, log: Log) -> None:
        self._pipeline.forget(task_id)
        self._run_faults.pop(task_id, None)
        task = await self._db(self._db.journal.task, task_id)
        if task is None:
            return
        if task.state not in OPEN:
            # Only a receipt can be owed for it, which nothing ends but its writing.
            await self._db(self._db.journal.retry, task_id, time.time() + self.config.retry_most, "receipt", str(error))
            return
        code = error.code if isinstance(error, Permanent) else type(error).__name__
        reason = error.message if isinstance(error, Permanent) else str(describe(error)["at"])
        try:
            if state is State.EXPIRED:
                await self._db(self._db.journal.ended, task, state)
            else:
                await self._db(self._db.journal.give_up, task, state, code, reason)
            log.info("the task is over here", state=state.value, code=code, reason=reason)
        except Overtaken:
            log.info("the chain overtook the task")

    async def _drain(self) -> None:
        if not self._running:
            return
        self._log.info("draining", tasks=len(self._running), seconds=self.config.drain)
        _, unfinished = await asyncio.wait(list(self._running.values()), timeout=self.config.drain)
        await _cancel(list(unfinished))
        self._log.info("drained", unfinished=len(unfinished))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _check_chain(source: SingleSource, deployment: Deployment) -> None:
    found = await source.chain_id()
    if found != deployment.chain_id:
        raise Permanent(
            "chain.wrong", "the RPC endpoint serves another chain", found=found, expected=deployment.chain_id
        )
    contracts = {
        "oracle": deployment.oracle,
        "agreementRegistry": deployment.agreement_registry,
        "enclaveRegistry": deployment.enclave_registry,
    }
    for name, address in contracts.items():
        if await source.rpc.call("eth_getCode", address, "latest") in ("0x", None):
            raise Permanent(
                "config.deployment",
                f"the deployment file names a contract where there is none ({name})",
                found=address,
                hint="Is it the file of this chain?",
            )
