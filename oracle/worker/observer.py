"""Looks at the worker's parts every few seconds and tells the metrics; answers what `/readyz` asks from what it saw last.

So neither page waits for a disk, an endpoint or a lock: what cannot be looked at now is shown as it was, with its age.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from oracle.chain.rpc import Rpc, as_int
from oracle.errors import OracleError, Refused, Retryable
from oracle.logs import Log
from oracle.worker.brokers import BrokerClient
from oracle.worker.follower import Follower
from oracle.worker.health import Check, Pulse
from oracle.worker.hosts import Hosts
from oracle.worker.journal import JournalThread
from oracle.worker.loops import Loops
from oracle.worker.metrics import Metrics
from oracle.worker.outbox import Outbox
from oracle.worker.scheduler import Scheduler

T = TypeVar("T")
INTERVAL: Final = 2.0
PATIENCE: Final = 10.0
"""Seconds that one look at the journal or the wallet may take."""
WALLET_SECONDS: Final = 15.0
"""Between two questions for the balance, which also tell whether the chain answers."""
FRESH_SECONDS: Final = 120.0
"""How old what is known of head and journal may be for the worker to follow the chain."""
PULSE_SECONDS: Final = 60.0
FAILURES: Final = 3
"""Failures in a row after which a broker counts as down."""
MAX_AGREEMENTS: Final = 1024
"""Agreements whose brokers are looked at, the newest."""
_UNANSWERED: Final = frozenset({"broker.unreachable", "broker.timeout"})


class Observer:
    """`max_lag` is the blocks that the worker may be behind and call itself ready."""

    def __init__(
        self,
        metrics: Metrics,
        pulse: Pulse,
        *,
        db: JournalThread,
        rpc: Rpc,
        outbox: Outbox,
        follower: Follower,
        hosts: Hosts,
        brokers: BrokerClient,
        scheduler: Scheduler,
        loops: Loops,
        max_lag: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._pulse, self._db, self._rpc, self._outbox = metrics, pulse, db, rpc, outbox
        self._follower, self._hosts, self._brokers = follower, hosts, brokers
        self._scheduler, self._loops, self._max_lag, self._monotonic = scheduler, loops, max_lag, monotonic
        self._asked_wallet: float | None = None
        self._answered_at: float | None = None
        self._read_at: float | None = None
        self._journal_fault: str | None = "not looked at yet"
        self._seen: tuple[int, int | None] | None = None
        self._moved_at: float | None = None
        self._cursor: int | None = None
        self._short: dict[bytes, int] = {}
        self._terms: dict[bytes, tuple[frozenset[bytes], int]] = {}
        self._changes = 0
        self.draining = False
        self._log = Log("worker.observer")

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        self._pulse.beat("observer", PULSE_SECONDS)
        await self._look_at_journal()
        await self._look_at_wallet()
        self._tell_chain()
        self._tell_brokers()
        self._tell_work()

    # What is seen.

    async def _look_at_journal(self) -> None:
        try:
            figures = await self._bounded(self._db(self._db.journal.figures))
            await self._learn_terms()
        except (OracleError, TimeoutError, OSError) as error:
            self._journal_fault = error.code if isinstance(error, OracleError) else type(error).__name__
            self._metrics.set("journal_writable", 0)
            self._log.warning("the journal cannot be looked at", code=self._journal_fault)
            return
        self._journal_fault, self._read_at, self._cursor = None, self._monotonic(), figures.cursor
        figures.tell(self._metrics)
        self._metrics.set("journal_read_at", time.time())
        self._metrics.set("journal_writable", 1)

    async def _learn_terms(self) -> None:
        """Which brokers each agreement names, and how many it takes; each is read once."""
        known = await self._bounded(self._db(self._db.journal.newest_agreements, MAX_AGREEMENTS))
        for agreement_id in known:
            if agreement_id not in self._terms:
                stored = await self._bounded(self._db(self._db.journal.agreement, agreement_id))
                if stored is not None:
                    keys = stored.agreement.keys
                    self._terms[agreement_id] = (frozenset(each.hpke_key for each in keys.brokers), keys.threshold)
        self._terms = {agreement_id: self._terms[agreement_id] for agreement_id in known if agreement_id in self._terms}

    async def _look_at_wallet(self) -> None:
        now = self._monotonic()
        if self._asked_wallet is not None and now - self._asked_wallet < WALLET_SECONDS:
            return
        self._asked_wallet = now
        try:
            balance = as_int(await self._bounded(self._rpc.call("eth_getBalance", self._outbox.address, "latest")))
            self._metrics.set("wallet_balance_wei", balance)
            self._answered_at = now
        except (Retryable, Refused, TimeoutError):
            self._log.debug("the wallet cannot be looked at")

    def enclave_changed(self) -> None:
        """An enclave is another one than before."""
        self._changes += 1

    async def reorganised(self) -> None:
        """The journal was rewound: as far as what was seen of it last says."""
        before, cursor = self._cursor, await self._db(self._db.journal.cursor)
        self._cursor = None if cursor is None else cursor[0]
        depth = 1 if before is None or self._cursor is None else max(1, before - self._cursor)
        self._metrics.observe("reorg_depth_blocks", depth)

    async def _bounded(self, question: Awaitable[T]) -> T:
        async with asyncio.timeout(PATIENCE):
            return await question

    # What is told.

    def _tell_chain(self) -> None:
        head, metrics = self._follower.head, self._metrics
        if head is not None:
            if self._seen is None or head.number > self._seen[0]:
                metrics.set("clock_ahead_seconds", time.time() - head.timestamp)
            if (head.number, self._cursor) != self._seen:
                self._seen, self._moved_at = (head.number, self._cursor), self._monotonic()
                metrics.set("progress_at", time.time())
            metrics.set("head_block", head.number)
            metrics.set("lag_blocks", self.lag)
        metrics.set("cursor_block", self._cursor)
        metrics.set("following", int(self._following().ok))

    @property
    def lag(self) -> int | None:
        head = self._follower.head
        return None if head is None or self._cursor is None else max(0, head.number - self._cursor)

    def _tell_brokers(self) -> None:
        metrics = self._metrics
        metrics.set("brokers_configured", len(self._brokers.endpoints))
        metrics.set_only("broker_up", {_name(b): float(self._is_up(b)) for b in self._brokers.endpoints}, "broker")
        by_code: dict[str, int] = {}
        for broker in self._brokers.endpoints:
            health = self._brokers.health.get(broker)
            if health is None:
                continue
            refusals = sum(count for code, count in health.faults.items() if code not in _UNANSWERED)
            asked = health.answers + sum(health.faults.values())
            for outcome, count in (("asked", asked), ("given", health.answers), ("refused", refusals)):
                metrics.total("releases_total", count, broker=_name(broker), outcome=outcome)
            for code, count in health.faults.items():
                if code not in _UNANSWERED:
                    by_code[code] = by_code.get(code, 0) + count
        metrics.totals("refusals_total", by_code, "code")
        self._short = self._below_threshold()
        metrics.set("agreements_below_threshold", len(self._short))

    def _is_up(self, broker: bytes) -> bool:
        health = self._brokers.health.get(broker)
        return health is None or health.failures < FAILURES

    def _below_threshold(self) -> dict[bytes, int]:
        """Agreements that the configured brokers could serve, and that too few of them answer for. One whose brokers are not
        configured is not ours: anyone can activate such."""
        up = {broker for broker in self._brokers.endpoints if self._is_up(broker)}
        able = set(self._brokers.endpoints)
        return {
            agreement_id: len(brokers & up)
            for agreement_id, (brokers, threshold) in self._terms.items()
            if len(brokers & up) < threshold <= len(brokers & able)
        }

    def _tell_work(self) -> None:
        metrics, sent = self._metrics, self._outbox.facts
        metrics.set("outbox_pending", sent.pending)
        metrics.set("outbox_stuck", sent.stuck)
        metrics.total("outbox_replaced_total", sent.replaced)
        metrics.totals("gas_spent_wei_total", sent.gas_spent, "purpose")
        metrics.set("tasks_running", len(self._scheduler.running))
        metrics.set("loops_failing", len(self._loops.failing()))
        metrics.total("bugs_total", sum(self._scheduler.bugs.values()), where="task")
        metrics.total("bugs_total", sum(self._loops.faults.values()), where="loop")
        metrics.set("enclave_up", sum(1 for host in self._hosts.all if host.enrolment.known is not None))
        launched = sum(max(0, host.process.starts - 1) for host in self._hosts.all if host.process is not None)
        metrics.total("enclave_restarts_total", max(launched, self._changes))
        metrics.totals("retries_total", self._scheduler.retries, "code")
        metrics.total("clock_jumps_total", self._scheduler.clock_jumps)

    # What `/readyz` asks.

    def ready(self) -> Mapping[str, Check]:
        registered = self._metrics.get("registered") == 1
        failing = self._loops.failing()
        short = f"{len(self._short)} agreements have fewer answering brokers than they need"
        lag, journal = self.lag, self._journal_fault
        return {
            "registered": Check(registered, "the enclave is registered" if registered else "no enclave is registered"),
            "following": self._following(),
            "caughtUp": Check(
                lag is not None and lag <= self._max_lag,
                f"found {'an unknown number of' if lag is None else lag} blocks behind, expected at most {self._max_lag}",
            ),
            "journal": Check(journal is None, "it takes reads and writes" if journal is None else f"fails: {journal}"),
            "brokers": Check(not self._short, short if self._short else "each agreement's threshold is met"),
            "loops": Check(not failing, f"dying again and again: {', '.join(failing)}" if failing else "all run"),
            "draining": Check(not self.draining, "the worker stops" if self.draining else "no"),
        }

    def _following(self) -> Check:
        now = self._monotonic()
        if self._answered_at is None or now - self._answered_at > FRESH_SECONDS:
            return Check(False, f"no answer from the chain for {FRESH_SECONDS:.0f} seconds")
        if self._read_at is None or now - self._read_at > FRESH_SECONDS:
            return Check(False, f"no answer from the journal for {FRESH_SECONDS:.0f} seconds")
        return Check(True, "chain and journal answer")


def _name(broker: bytes) -> str:
    """Enough of a key's digest to tell brokers apart."""
    return broker.hex()[:16]
