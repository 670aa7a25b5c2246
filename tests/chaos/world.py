"""A world that is made to fail: a devnet of real processes behind wrappers, a crowd that asks, and what must hold in the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa

from enclave_app.protocol.structs import TaskState
from oracle.asking import Asking
from oracle.chain.events import get_logs, topic
from oracle.chain.reader import OracleReader
from oracle.chain.rpc import Rpc, as_hex, as_int
from oracle.chain.sender import account_of
from oracle.chain.source import SingleSource
from oracle.devnet import Devnet, Options
from oracle.devnet.processes import Process
from oracle.devnet.scenario import OwnedTable, activate, prepare
from oracle.errors import OracleError, RpcFault
from oracle.keybroker.log import verify_log
from tests.chaos.points import Switch
from tests.chaos.proxy import Proxy

FEE = 10**15
GAS = 600_000
PADDING = 40
"""Blocks between the agreement and the first task: no reorganisation reaches what nobody is to lose."""
EPOCH = 16
"""Slots: what is 32 blocks deep is final, and no reorganisation here is deeper."""
MOST_OPEN = 24
QUERY = "SELECT a.grp, count(*) AS n FROM a GROUP BY a.grp ORDER BY a.grp"


class ChaosNet(Devnet):
    """A devnet whose worker, enclave and brokers run behind wrappers, and whose worker sees the chain through a proxy."""

    def __init__(self, directory: Path, options: Options, proxy: Proxy | None) -> None:
        super().__init__(directory, options)
        self.proxy = proxy
        self.control = directory.absolute() / "control"
        self.control.mkdir(parents=True)

    async def _start_anvil(self) -> None:
        await super()._start_anvil()
        if self.proxy is not None:
            self.proxy.upstream = self.rpc_url
            self.options.worker["rpc"] = [self.proxy.url]

    def _python(self, module: str, *arguments: str) -> list[str]:
        control = str(self.control)
        if module == "enclave_app":
            return super()._python("tests.chaos.enclave_main", control, *arguments)
        if module == "oracle" and arguments[0] == "worker":
            return super()._python("tests.chaos.worker_main", control, "worker", *arguments)
        if module == "oracle" and arguments[0] == "keybroker":
            number = Path(arguments[-1]).stem
            return super()._python("tests.chaos.broker_main", control, f"broker-{number}", *arguments)
        return super()._python(module, *arguments)


class Crowd:
    """Asks for tasks as a wallet does: signs once, and sends again whatever the chain has dropped."""

    def __init__(self, rpc: Rpc, asking: Asking, wallet: Any, chain_id: int, nonce: int, domain: Any) -> None:
        self._rpc, self._asking, self._wallet, self._chain_id, self._domain = rpc, asking, wallet, chain_id, domain
        self._first = nonce
        self._raw: list[bytes] = []
        self.tasks: list[bytes] = []
        self._lock = asyncio.Lock()

    async def ask(self, count: int = 1) -> list[bytes]:
        asked = []
        async with self._lock:
            base = as_int((await self._rpc.call("eth_getBlockByNumber", "latest", False))["baseFeePerGas"])
            for _ in range(count):
                request = self._asking.request.model_copy(update={"nonce": secrets.token_bytes(32)})
                task_id = request.typed_digest(self._domain)
                signed = self._wallet.sign_transaction(
                    {
                        "type": 2,
                        "chainId": self._chain_id,
                        "nonce": self._first + len(self._raw),
                        "to": self._asking.agreement.oracle,
                        "data": replace(self._asking, request=request, task_id=task_id).call(),
                        "value": self._asking.value,
                        "gas": GAS,
                        "maxFeePerGas": 4 * base + 10**9,
                        "maxPriorityFeePerGas": 10**9,
                    }
                )
                self._raw.append(bytes(signed.raw_transaction))
                asked.append(task_id)
            self.tasks += asked
            await self._send(self._raw[-count:])
        return asked

    async def keep_asking(self) -> None:
        """Send again what a reorganisation took away, for as long as this runs."""
        while True:
            await asyncio.sleep(0.1)
            async with self._lock:
                await self.mend()

    async def mend(self) -> None:
        with contextlib.suppress(OracleError):
            mined = as_int(await self._rpc.call("eth_getTransactionCount", self._wallet.address, "latest"))
            await self._send(self._raw[max(0, mined - self._first) :])

    async def _send(self, raws: list[bytes]) -> None:
        for start in range(0, len(raws), 50):
            await self._rpc.batch([("eth_sendRawTransaction", [as_hex(raw)]) for raw in raws[start : start + 50]])


@dataclass
class Ending:
    """What was found at the end of a world."""

    tasks: int
    settled: int
    runs: int
    transactions: int
    refused: int

    @property
    def lost(self) -> int:
        return self.tasks - self.settled

    @property
    def again(self) -> int:
        """Computations beyond one for each task."""
        return max(0, self.runs - self.tasks)


@dataclass
class World:
    net: ChaosNet
    proxy: Proxy
    rpc: Rpc
    crowd: Crowd
    agreement_id: bytes
    restarts: Counter[str] = field(default_factory=Counter)
    switches: dict[str, Switch] = field(default_factory=dict)
    stopping: bool = False
    done: set[bytes] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, worker: dict[str, Any] | None = None) -> AsyncIterator[World]:
        proxy = Proxy()
        await proxy.start()
        options = Options(
            block_time=None,
            epoch=EPOCH,
            worker={"poll": 0.05, "concurrency": 4, "retryFirst": 0.1, "retryMost": 1.0, **(worker or {})},
        )
        net = ChaosNet(directory, options, proxy)
        rpc = None
        background: list[asyncio.Task[None]] = []
        try:
            await net._start()
            rpc = Rpc(net.rpc_url)
            crowd, agreement_id = await make_crowd(net, rpc)
            world = cls(net, proxy, rpc, crowd, agreement_id)
            roles = ("worker", "enclave", *(f"broker-{n}" for n in range(1, len(net.brokers) + 1)))
            world.switches = {role: Switch(net.control, role) for role in roles}
            background = [
                asyncio.create_task(each) for each in (world._supervise(), crowd.keep_asking(), world._watch())
            ]
            yield world
        finally:
            for each in background:
                each.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await net.stop()
            if rpc is not None:
                await rpc.close()
            await proxy.stop()

    # --- what keeps it alive: what an init system does ------------------------------------------------------------------

    async def _supervise(self) -> None:
        watched: dict[str, Process] = {"worker": self.net.worker}
        watched |= {f"broker-{n}": broker.process for n, broker in enumerate(self.net.brokers, start=1)}
        while True:
            await asyncio.sleep(0.05)
            for role, process in watched.items():
                if not process.running and not self.stopping:
                    self.restarts[role] += 1
                    await process.start()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(OracleError):
                self.done = await self.settled()
            await asyncio.sleep(0.3)

    # --- what happens to it ---------------------------------------------------------------------------------------------

    async def ask(self, count: int) -> None:
        """More work, unless much of it waits already."""
        if len(self.crowd.tasks) - len(self.done) < MOST_OPEN:
            await self.crowd.ask(count)

    async def broker_serves(self, number: int, patience: float = 120) -> None:
        """Until a broker that was killed is back."""
        async with asyncio.timeout(patience), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.net.brokers[number - 1].url}/healthz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def reorg(self, depth: int) -> None:
        head = as_int(await self.rpc.call("eth_blockNumber"))
        await self.rpc.call("anvil_reorg", depth if depth < head else head - 1, [])
        await self.crowd.mend()

    async def settled(self) -> set[bytes]:
        head = as_int(await self.rpc.call("eth_blockNumber"))
        oracle = self.net.deployment.oracle
        return {
            log.topics[1]
            for log in await get_logs(
                self.rpc, [oracle], 0, head, [[topic("TaskFulfilled"), topic("TaskFulfilledInBatch")]]
            )
        }

    async def all_settled(self, patience: float) -> None:
        """Every task that was asked for, and for long enough that nobody is about to undo it."""
        deadline = time.monotonic() + patience
        while missing := set(self.crowd.tasks) - await self.settled():
            assert time.monotonic() < deadline, self._stuck(missing)
            await asyncio.sleep(0.1)

    def _stuck(self, missing: set[bytes]) -> str:
        rows = [row for row in journal_rows(self.net) if row["id"] in missing]
        known = [{k: str(row[k])[:160] for k in ("state", "attempts", "code", "reason")} for row in rows[:5]]
        return f"{len(missing)} of {len(self.crowd.tasks)} tasks are not settled, {len(rows)} known to the journal: {known}"

    # --- what must hold ---------------------------------------------------------------------------------------------------

    async def end(self) -> Ending:
        """Stop it all, and check what a world must be like after whatever happened to it."""
        self.proxy.calm()
        for switch in self.switches.values():
            switch.clear()
        await self.all_settled(180)
        head = await self._followed()
        await self.net.worker.stop(20)
        self.stopping = True
        assert self.net.worker._child is not None
        assert self.net.worker._child.returncode == 0, self.net.worker.tail()
        ending = await self._chain_and_money(head)
        self._journal_is_the_chain(await self._fulfilled(head), head)
        await self._nothing_is_left()
        return ending

    async def _followed(self) -> int:
        """The head, once the worker has followed it and owes nothing any more."""
        deadline = time.monotonic() + 60
        while True:
            head = as_int(await self.rpc.call("eth_blockNumber"))
            rows, cursor = journal_rows(self.net), journal_cursor(self.net)
            if cursor == head and all(row["state"] == "settled" for row in rows) and not receipts_owed(self.net):
                return head
            states = Counter(row["state"] for row in rows)
            assert time.monotonic() < deadline, f"the journal stands at {cursor} of {head}: {states}"
            await asyncio.sleep(0.1)

    async def _fulfilled(self, head: int) -> dict[bytes, int]:
        logs = await get_logs(
            self.rpc, [self.net.deployment.oracle], 0, head, [[topic("TaskFulfilled"), topic("TaskFulfilledInBatch")]]
        )
        counts = Counter(log.topics[1] for log in logs)
        assert not [task for task, count in counts.items() if count != 1], "a task was settled twice"
        return {log.topics[1]: log.block_number for log in logs}

    async def _chain_and_money(self, head: int) -> Ending:
        source = SingleSource(self.rpc)
        block = await source.block(head)
        assert block is not None
        reader, oracle = OracleReader(source, self.net.deployment.oracle), self.net.deployment.oracle
        states = [(await reader.task(self.agreement_id, task, block)).state for task in self.crowd.tasks]
        assert set(states) == {TaskState.FULFILLED}, Counter(states)
        # Not a wei more or less than what was paid for is owed, and the contract holds it.
        held = as_int(await self.rpc.call("eth_getBalance", oracle, "latest"))
        assert held == FEE * len(self.crowd.tasks), f"the contract holds {held} wei for {len(self.crowd.tasks)} tasks"
        operator = self.net.accounts["operator"].wallet.address
        owed = await reader.balance(operator, block)
        assert owed == held, f"the payee is owed {owed} of {held} wei"
        # The worker's nonces have no gap: nothing of its waits for ever.
        latest, pending = [
            as_int(await self.rpc.call("eth_getTransactionCount", operator, tag)) for tag in ("latest", "pending")
        ]
        assert latest == pending, "a transaction of the worker's is stuck behind a gap"
        sent, refused = await self._transactions(operator, head)
        entries = log_entries(self.net)
        runs = sum(1 for entry in entries if entry.get("event") == "task ran")
        return Ending(len(self.crowd.tasks), len(await self._fulfilled(head)), runs, sent, refused)

    async def _transactions(self, operator: str, head: int) -> tuple[int, int]:
        """How many transactions of the worker's are on the chain, and how many of them came to nothing."""
        sent = refused = 0
        for start in range(0, head + 1, 200):
            calls = [("eth_getBlockReceipts", [hex(n)]) for n in range(start, min(head + 1, start + 200))]
            for receipts in await self.rpc.batch(calls):
                if isinstance(receipts, RpcFault):
                    continue
                mine = [each for each in receipts or () if each["from"].lower() == operator.lower()]
                sent += len(mine)
                refused += sum(1 for each in mine if each["status"] != "0x1")
        return sent, refused

    def _journal_is_the_chain(self, fulfilled: dict[bytes, int], head: int) -> None:
        rows = {bytes(row["id"]): row for row in journal_rows(self.net)}
        assert set(rows) == set(self.crowd.tasks), "the journal has other tasks than the chain"
        for task, row in rows.items():
            assert (row["state"], row["ended_block"]) == ("settled", fulfilled[task]), dict(row)
        assert journal_cursor(self.net) == head

    async def _nothing_is_left(self) -> None:
        """No process, no socket, no half-written file; and brokers' logs that are whole."""
        await self.net.stop()
        deadline = time.monotonic() + 5
        while left := processes_of(self.net.directory):
            assert time.monotonic() < deadline, f"processes outlive their world: {left}"
            await asyncio.sleep(0.05)
        files = [p for p in self.net.directory.rglob("*") if p.is_socket()]
        files += [p for p in (self.net.directory / "storage").iterdir() if p.name.startswith(".")]
        files += [p for p in (self.net.directory / "worker").iterdir() if ".tmp" in p.name or p.suffix == ".new"]
        assert not files, f"files are left behind: {files[:5]}"
        for number, broker in enumerate(self.net.brokers, start=1):
            report = verify_log(self.net.directory / "brokers" / str(number) / "log.jsonl", broker.card.signer)
            assert report.ok, report.first_bad


async def make_crowd(net: Devnet, rpc: Rpc, hosts: Sequence[str] = ("operator",)) -> tuple[Crowd, bytes]:
    """An active agreement over one small table, old enough for reorganisations, and who asks under it."""
    table = pa.table({"id": list(range(60)), "grp": [i % 7 for i in range(60)]})
    enclaves = {
        "measurements": ["0x" + net.measurement.hex()],
        "anchors": ["0x" + net.anchor.hex()],
        "statuses": ["UP_TO_DATE"],
        "evaluationFloor": 1,
        "maxEvidenceAge": "24 h",
        "hosts": list(hosts),
    }
    changes = {"price": {"fee": f"{FEE} wei"}, "enclaves": enclaves}
    prepared = await prepare(
        net, net.directory / "owners", {"a": OwnedTable("hospital-a", table)}, QUERY, changes=changes
    )
    agreement_id = await activate(net, prepared)
    await rpc.call("anvil_mine", hex(PADDING))
    async with net.client("requester") as client:
        asking = await client.prepare(agreement_id)
    person = net.accounts["requester"]
    nonce = as_int(await rpc.call("eth_getTransactionCount", person.wallet.address, "latest"))
    domain = net.chain.oracle_domain(asking.agreement)
    crowd = Crowd(rpc, asking, account_of(person.wallet), net.deployment.chain_id, nonce, domain)
    return crowd, agreement_id


# --- what lies on the disk --------------------------------------------------------------------------------------------


def _read(net: Devnet, query: str) -> list[sqlite3.Row]:
    path = net.directory / "worker" / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        db.row_factory = sqlite3.Row
        return db.execute(query).fetchall()


def journal_rows(net: Devnet) -> list[sqlite3.Row]:
    return _read(net, "SELECT * FROM tasks")


def journal_cursor(net: Devnet) -> int | None:
    rows = _read(net, "SELECT number FROM cursor")
    return int(rows[0]["number"]) if rows else None


def receipts_owed(net: Devnet) -> int:
    return len(_read(net, "SELECT task FROM receipts"))


def log_entries(net: Devnet, name: str = "worker") -> list[dict[str, Any]]:
    found = []
    for line in (net.directory / "logs" / f"{name}.log").read_text("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found


def processes_of(directory: Path) -> list[str]:
    """Every process that names the directory in its command: all that a devnet starts do."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (place / "cmdline").read_bytes()
                if str(directory).encode() in command and "Z" not in (place / "stat").read_text().rsplit(")", 1)[1][:3]:
                    found.append(f"{place.name}: {command.decode('utf-8', 'replace')[:200]}")
    return found
