"""The worker as a process: what it is made of, how it starts, and how it stops. The story of a task is in pipeline.py, which
tasks run in scheduler.py, what becomes of errors in attempts.py."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from oracle.chain.deploy import Deployment
from oracle.chain.endpoints import Endpoints
from oracle.chain.source import SingleSource
from oracle.errors import OracleError, Permanent, Retryable
from oracle.logs import Log
from oracle.storage import open_storage
from oracle.worker.admission import Admission
from oracle.worker.attempts import Attempts
from oracle.worker.blobs import BlobCache
from oracle.worker.brokers import BrokerClient
from oracle.worker.clock import ChainClock
from oracle.worker.collateral import open_appraisal
from oracle.worker.config import MAX_LAG, EnclaveConfig, WorkerConfig
from oracle.worker.enclave import Enclave
from oracle.worker.endpoints import open_endpoints
from oracle.worker.enrolment import Enrolment
from oracle.worker.follower import Follower
from oracle.worker.health import Check, HealthServer, Pulse
from oracle.worker.hosts import Host, Hosts
from oracle.worker.journal import JournalThread
from oracle.worker.keys import account, signing_key
from oracle.worker.loops import Loops
from oracle.worker.metrics import Metrics
from oracle.worker.observer import Observer
from oracle.worker.outbox import Outbox
from oracle.worker.outlook import Outlook
from oracle.worker.pipeline import Parts, Pipeline
from oracle.worker.process import EnclaveProcess
from oracle.worker.registrars import make_registrar
from oracle.worker.reload import Reloader
from oracle.worker.rendezvous import Rendezvous
from oracle.worker.scheduler import Scheduler
from oracle.worker.settlement import Settlements
from oracle.worker.spool import Spool
from oracle.worker.states import State
from oracle.worker.steps import Steps
from oracle.worker.store import OutputStore
from oracle.worker.tracing import open_tracer
from oracle.worker.vouching import open_vouching

T = TypeVar("T")
WATCH_SECONDS = 2.0
RETIRE_SECONDS = 30.0


class Stopped(Exception):
    """`stop()` came before the worker had begun to work."""


class Worker:
    """`await Worker(config).run()` serves until `stop()`. `ready` is set once an enclave is registered and the chain's past is
    in the journal. Raises what is wrong with configuration, journal or chain before that; what is only down is waited for."""

    def __init__(self, config: WorkerConfig, path: Path | None = None) -> None:
        self.config = config
        self.ready = asyncio.Event()
        self.metrics, self.pulse = Metrics(), Pulse()
        self.reloader = None if path is None else Reloader(path, config, self._reconfigure, self.metrics)
        self.loops = Loops()
        self.attempts = Attempts(
            first=config.retry_first, most=config.retry_most, poll=config.poll, max_runs=config.max_runs
        )
        self._stopping, self._at_once = asyncio.Event(), asyncio.Event()
        self._rpc: Endpoints | None = None
        self._checks: Callable[[], Mapping[str, Check]] = _starting
        self._scheduler: Scheduler | None = None
        self._log = Log("worker")

    @property
    def _running(self) -> dict[bytes, asyncio.Task[None]]:
        """The tasks that are worked on."""
        return {} if self._scheduler is None else self._scheduler.running

    def stop(self) -> None:
        """Take no new work, finish what runs within `drain` seconds, and end `run`. What is unfinished resumes later."""
        self._stopping.set()
        if self._scheduler is not None:
            self._scheduler.stop()

    def stop_at_once(self) -> None:
        """As `stop`, and leave what runs to the next start."""
        self._at_once.set()
        self.stop()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT drain; the second one ends at once. SIGHUP reads the configuration's file again."""

        def told() -> None:
            if self._stopping.is_set():
                self.stop_at_once()
            else:
                self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told)
        if self.reloader is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reloader.reload)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            with suppress(Stopped):
                await self._open(stack)
                stack.push_async_callback(self.loops.stop)
                # The chain is followed while enclaves take their time to start.
                self.loops.start("follower", self._follower.run)
                self.loops.start("outbox", self._sender.run)
                await self._first(self.hosts.start(self._log))
                self._start_loops()
                await self._is_ready()
                await self.loops.start("scheduler", self.scheduler.run)
            await self._drain()
            await self._retire()

    @property
    def scheduler(self) -> Scheduler:
        if self._scheduler is None:
            raise Stopped
        return self._scheduler

    def _start_loops(self) -> None:
        """None of them ends by itself, and a bug of one stops no other."""
        self.loops.start("observer", self._observer.watch)
        for number, host in enumerate(self.hosts.all):
            name = f"enrolment-{number}" if number else "enrolment"
            self.loops.start(name, _with_interval(host.enrolment.watch))
        for number, outlook in enumerate(self._outlooks):
            self.loops.start(f"outlook-{number}" if number else "outlook", outlook.watch)
        if self._appraisal is not None:
            self.loops.start("collateral", self._appraisal.collateral.run)

    async def _open(self, stack: AsyncExitStack) -> None:
        config = self.config
        deployment = Deployment.read(config.deployment)
        self._tell_start()
        tracer = open_tracer(config.tracing)
        stack.push_async_callback(tracer.close)
        steps = Steps(self.metrics, tracer)
        await self._serve_health(stack)
        self._db = JournalThread(config.journal, retain_days=config.retain_days)
        stack.callback(self._db.close)
        self._rpc = rpc = open_endpoints(config, deployment, self._on_rpc_error)
        stack.push_async_callback(rpc.close)
        source = SingleSource(rpc)
        await self._patiently(lambda: _check_chain(source, deployment), "the chain cannot be asked yet")
        self._sender = sender = Outbox(rpc, account(config.wallet), self._db, config.fees)
        self._appraisal = open_appraisal(config.attestation, deployment.chain_id)
        vouching = await stack.enter_async_context(open_vouching(config.attestation, deployment.chain_id))
        self._brokers = brokers = BrokerClient(
            config.brokers, timeout=config.release_timeout, hedge=config.release_hedge
        )
        stack.push_async_callback(brokers.close)
        readable = [await stack.enter_async_context(open_storage(uri)) for uri in config.storage.read]
        writable = await stack.enter_async_context(open_storage(config.storage.write))
        spool = Spool(config.spool_directory())
        spool.open()
        unstored = await self._db(self._db.journal.tasks, (State.RAN, State.ORPHANED))
        await spool.sweep([task.id for task in unstored])
        await writable.sweep()
        self._follower = Follower(
            rpc,
            self._db,
            (deployment.oracle, deployment.agreement_registry),
            deployment.first_block,
            poll=config.poll,
            on_news=self._on_news,
            subscribe=config.rpc_policy.subscribe,
        )
        self.clock = ChainClock(lambda: self._follower.head)

        def host(enclave_config: EnclaveConfig) -> Host:
            enclave, process = Enclave(enclave_config.socket), _process(enclave_config)
            stack.push_async_callback(enclave.close)
            enrolment = Enrolment(
                enclave,
                process,
                sender,
                source,
                deployment,
                make_registrar(self._appraisal, deployment, sender, source, vouching),
                None if config.operator is None else signing_key(config.operator),
                self._on_enclave_change,
                self.clock.now,
                enclave_config.probe_seconds,
            )
            return Host(enclave, process, enrolment)

        self.hosts = Hosts([host(each) for each in config.every_enclave()])
        stack.push_async_callback(self.hosts.stop)
        # The gauges have no label for the enclave yet: they show the first.
        self._outlooks = [
            Outlook(
                each.enrolment,
                self._appraisal,
                Metrics() if number else self.metrics,
                self.clock.now,
                None if number else config.gauges,
            )
            for number, each in enumerate(self.hosts.all)
        ]
        self.admission = Admission(config.memory_mib, config.concurrency)
        self.pipeline = Pipeline(
            Parts(
                config=config,
                deployment=deployment,
                source=source,
                db=self._db,
                hosts=self.hosts,
                admission=self.admission,
                rendezvous=Rendezvous(source, deployment, operators=config.operators, seconds=config.turn_seconds),
                brokers=brokers,
                blobs=BlobCache(readable),
                outputs=OutputStore(writable, spool),
                settler=Settlements(sender, self._db, deployment.oracle, window=config.settle_window),
                clock=self.clock,
                appraisal=self._appraisal,
                steps=steps,
            )
        )
        stack.push_async_callback(self.pipeline.close)
        self._scheduler = Scheduler(
            self._db,
            self.pipeline,
            self.attempts,
            self.clock,
            in_flight=config.in_flight,
            max_crashes=config.max_crashes,
            steps=steps,
        )
        self._observer = Observer(
            self.metrics,
            self.pulse,
            db=self._db,
            rpc=rpc,
            outbox=sender,
            follower=self._follower,
            hosts=self.hosts,
            brokers=brokers,
            scheduler=self._scheduler,
            loops=self.loops,
            max_lag=MAX_LAG if config.health is None else config.health.max_lag_blocks,
        )
        self._checks = self._observer.ready
        if self.config is not config:
            self._reconfigure(self.config)

    def _reconfigure(self, config: WorkerConfig) -> None:
        """All at once, between two steps of the event loop."""
        self.config = config
        self.attempts.set_pace(
            first=config.retry_first, most=config.retry_most, poll=config.poll, max_runs=config.max_runs
        )
        if self._rpc is not None:
            self._rpc.replace(config.endpoints())
        if self._scheduler is None:
            return  # `_open` comes back here at its end
        self._brokers.replace(config.brokers, timeout=config.release_timeout, hedge=config.release_hedge)
        self._follower.set_poll(config.poll)
        self.admission.set_runs(config.concurrency)
        self.pipeline.reconfigure(config)
        self._scheduler.set_limits(in_flight=config.in_flight, max_crashes=config.max_crashes)
        self._scheduler.replan()

    def _tell_start(self) -> None:
        self.metrics.set("info", 1, version=version("enclave-oracle"))
        self.metrics.set("started_at", time.time())

    async def _serve_health(self, stack: AsyncExitStack) -> None:
        """From the start on, so that a worker that waits for its chain can be asked why."""
        if self.config.health is None:
            return
        server = HealthServer(self.config.health.listen, self.metrics, self.pulse, lambda: self._checks())
        await server.start()
        stack.push_async_callback(server.close)
        self._log.info("health pages are served", address=server.address)

    async def _is_ready(self) -> None:
        """Wait for the past, or requests would run whose settlement is still to be read; and for a registered enclave."""
        await self._first(self._follower.caught_up.wait())
        enrolled = await self._patiently(self.hosts.ready, "the enclave is not registered yet")
        self._log.info("worker ready", signer=enrolled.signer, simulated=enrolled.identity.simulated)
        self.ready.set()

    async def _patiently(self, question: Callable[[], Awaitable[T]], event: str) -> T:
        """Ask until there is an answer: a worker that starts while something is down is no reason for a person to come."""
        attempts = 0
        while True:
            try:
                return await self._first(question())
            except Retryable as error:
                pause = self.attempts.backoff(attempts)
                attempts += 1
                self._log.warning(event, code=error.code, message=error.message, seconds=round(pause, 2))
                await self._first(asyncio.sleep(pause))

    async def _first(self, answer: Awaitable[T]) -> T:
        """The answer. Raises Stopped where `stop()` comes before it."""
        asking, stop = asyncio.ensure_future(answer), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([asking, stop], return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            raise Stopped
        finally:
            for each in (asking, stop):
                each.cancel()
            await asyncio.gather(asking, stop, return_exceptions=True)

    async def _drain(self) -> None:
        if self._scheduler is None:
            return
        self._observer.draining = True
        self._scheduler.stop()
        draining = asyncio.create_task(self._scheduler.drain(self.config.drain))
        at_once = asyncio.create_task(self._at_once.wait())
        await asyncio.wait([draining, at_once], return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if not draining.done():
            self._log.warning("told to stop at once: what runs is left to the next start")
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
            await self._scheduler.drain(0.0)

    async def _retire(self) -> None:
        """Only identities that end here, with nothing of theirs left to settle."""
        if not self.config.retire_on_stop or self._scheduler is None:
            return
        owed = {
            task.record.signer
            for task in await self._db(self._db.journal.tasks, (State.RAN, State.STORED, State.SETTLING))
            if task.record is not None
        }
        for host in self.hosts.all:
            if host.process is None or host.signer is None or host.signer in owed:
                continue
            signer = host.signer
            try:
                async with asyncio.timeout(RETIRE_SECONDS):
                    if await host.enrolment.retire():
                        self._log.info("the identity is retired", signer=signer)
            except (OracleError, TimeoutError) as error:
                # It ends by itself when its registration does.
                self._log.warning("the identity could not be retired", signer=signer, type=type(error).__name__)

    def _on_rpc_error(self, endpoint: str, code: str) -> None:
        self.metrics.count("rpc_errors_total", endpoint=endpoint, code=code)

    async def _on_news(self, reorganised: bool) -> None:
        if reorganised:
            self._sender.reorganised()
            await self._observer.reorganised()
            # The registration may have been in the blocks that are gone.
            self.hosts.mistrust()
        else:
            await self.scheduler.stop_ended()
        self._sender.wake()
        self.pipeline.heard()
        self.scheduler.wake()

    def _on_enclave_change(self) -> None:
        if self._scheduler is not None:
            self._observer.enclave_changed()
            self.pipeline.forget_rounds()
            self._scheduler.replan()


def _starting() -> Mapping[str, Check]:
    return {"started": Check(False, "the worker has not opened its journal and its chain yet")}


def _process(config: EnclaveConfig) -> EnclaveProcess | None:
    """None where others launch the enclave."""
    command = config.launch()
    if command is None:
        return None
    return EnclaveProcess(
        command,
        config.socket,
        config.start_seconds,
        config=config.measured_config(),
        measurement=config.measurement,
        probe_seconds=config.probe_seconds,
    )


def _with_interval(watch: Callable[[float], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    return lambda: watch(WATCH_SECONDS)


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
