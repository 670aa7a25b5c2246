"""`scripts/bench worker`: what a worker does in a second, what it costs, and how near it comes to a loop that only sends.

One chain with instant blocks, three brokers (two needed, at `latest`, no release delay), one enclave, one worker, a trivial
SQL function, everything warm and on the same cores. In each round the worker settles its tasks; then a bare web3.py loop sends
the same requests and fulfilments, kept pipelined to the same depth, to a second chain that holds the state from before the
round. Rounds alternate, and the ratio is that of the sums, so a busy machine slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from eth_account.signers.local import LocalAccount
from web3 import AsyncHTTPProvider, AsyncWeb3

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.onchain import Fulfilment, settlement
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.storage import record_name
from oracle.asking import Asking
from oracle.chain.abi import load
from oracle.chain.events import get_logs, topic
from oracle.chain.rpc import Rpc, as_hex, as_int
from oracle.chain.sender import Sender, account_of
from oracle.devnet import Devnet, Options
from oracle.devnet.fleet import more_workers
from oracle.devnet.processes import Process, free_port, until
from oracle.devnet.scenario import OwnedTable, activate, prepare
from oracle.errors import OracleError
from oracle.storage import open_storage
from oracle.worker.follower import FOLLOWED, Follower
from oracle.worker.journal import JournalThread
from oracle.worker.settle import Settler

QUERY = "SELECT count(*) AS n FROM a"
DEPTH = 32
WARM_UP = 24
ROUNDS = 3
SEQUENTIAL = 40
MANY = 100
"""Tasks that are settled together, where batching is measured."""
REQUEST_GAS, FULFIL_GAS = 400_000, 400_000
FEE_CAP, TIP = 10**12, 10**9
TICKS = os.sysconf("SC_CLK_TCK")
OTHERS = ("operator-2", "operator-3")


class BenchNet(Devnet):
    """A devnet whose worker runs under the profile."""

    def _python(self, module: str, *arguments: str) -> list[str]:
        if module == "oracle" and arguments[0] == "worker":
            profile = Path(__file__).with_name("worker_profile.py")
            return [sys.executable, str(profile), str(self.directory / "profile.json"), *arguments]
        return super()._python(module, *arguments)


@dataclass
class Asker:
    """Requests by one wallet, signed here with nonces of its own."""

    asking: Asking
    wallet: LocalAccount
    domain: Any
    chain_id: int
    nonce: int
    sent: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Task ids and their requests' calldata."""

    def sign(self) -> tuple[bytes, bytes]:
        """A new task's id, and the raw transaction that asks for it."""
        request = self.asking.request.model_copy(update={"nonce": secrets.token_bytes(32)})
        task_id = request.typed_digest(self.domain)
        data = replace(self.asking, request=request, task_id=task_id).call()
        self.sent.append((task_id, data))
        raw = signed(self.wallet, self.chain_id, self.nonce, self.asking.agreement.oracle, data, REQUEST_GAS)
        self.nonce += 1
        return task_id, raw


def signed(wallet: LocalAccount, chain_id: int, nonce: int, to: str, data: bytes, gas: int) -> bytes:
    transaction: dict[str, Any] = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "to": to,
        "data": data,
        "value": 0,
        "gas": gas,
        "maxFeePerGas": FEE_CAP,
        "maxPriorityFeePerGas": TIP,
    }
    return bytes(wallet.sign_transaction(transaction).raw_transaction)


class Watch:
    """Sees settlements in the chain's log, for all tasks at once."""

    def __init__(self, rpc: Rpc, oracle: str, block: int) -> None:
        self._rpc, self._oracle, self._block = rpc, oracle, block
        self.pause = 0.01
        self.times: defaultdict[bytes, asyncio.Future[float]] = defaultdict(asyncio.Future)

    async def run(self) -> None:
        while True:
            head = as_int(await self._rpc.call("eth_blockNumber"))
            if head >= self._block:
                names = [[topic("TaskFulfilled"), topic("TaskFulfilledInBatch")]]
                logs = await get_logs(self._rpc, [self._oracle], self._block, head, names)
                now, self._block = time.monotonic(), head + 1
                for log in logs:
                    self.times[log.topics[1]].set_result(now)
            await asyncio.sleep(self.pause)

    async def settled(self, task_id: bytes, patience: float = 120) -> float:
        return await asyncio.wait_for(self.times[task_id], patience)


@dataclass
class Bench:
    net: BenchNet
    rpc: Rpc
    asker: Asker
    watch: Watch
    agreement_id: bytes
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def pipelined(self, tasks: int, depth: int) -> tuple[float, list[tuple[bytes, float]]]:
        """Seconds until all are settled, and each task's latency from its request's receipt.

        A wallet's transactions are sent in the order of their nonces, here and by the bare loop: of those that arrive in
        another one, anvil now and then keeps some in its pool for ever."""
        slots, latencies = asyncio.Semaphore(depth), []
        # Looking has its price, too: as often as a task's latency needs.
        self.watch.pause = 0.01 if depth == 1 else 0.06

        async def one() -> None:
            async with slots:
                async with self.turn:
                    task_id, raw = self.asker.sign()
                    await self.rpc.call("eth_sendRawTransaction", as_hex(raw))
                asked = time.monotonic()
                latencies.append((task_id, await self.watch.settled(task_id) - asked))

        started = time.monotonic()
        await asyncio.gather(*(one() for _ in range(tasks)))
        return time.monotonic() - started, latencies


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Bench]:
    options = Options(
        block_time=None,
        people=("hospital-a", "institute", "requester", *OTHERS),
        worker={"concurrency": DEPTH, "poll": 0.02},
    )
    net = BenchNet(home / "devnet", options)
    rpc: Rpc | None = None
    watching: list[asyncio.Task[None]] = []
    try:
        await net._start()
        rpc = Rpc(net.rpc_url)
        table = OwnedTable("hospital-a", pa.table({"id": list(range(100))}))
        enclaves = {
            "measurements": ["0x" + net.measurement.hex()],
            "anchors": ["0x" + net.anchor.hex()],
            "statuses": ["UP_TO_DATE"],
            "evaluationFloor": 1,
            "maxEvidenceAge": "24 h",
            "hosts": ["operator", *OTHERS],
        }
        prepared = await prepare(net, home / "owners", {"a": table}, QUERY, changes={"enclaves": enclaves})
        agreement_id = await activate(net, prepared)
        async with net.client("requester") as client:
            asking = await client.prepare(agreement_id)
            head = (await client.head()).number
        wallet = account_of(net.accounts["requester"].wallet)
        nonce = as_int(await rpc.call("eth_getTransactionCount", wallet.address, "latest"))
        domain = net.chain.oracle_domain(asking.agreement)
        asker = Asker(asking, wallet, domain, net.deployment.chain_id, nonce)
        watch = Watch(rpc, net.deployment.oracle, head + 1)
        watching = [asyncio.create_task(watch.run())]
        yield Bench(net, rpc, asker, watch, agreement_id)
    finally:
        for each in watching:
            each.cancel()
        if rpc is not None:
            await rpc.close()
        await net.stop()


# --- the bare loop ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def chain_with(state: str, directory: Path) -> AsyncIterator[str]:
    """A second anvil that begins where the first one stood."""
    port = free_port()
    program = Path(sys.executable).with_name("anvil")
    command = [str(program), "--host", "127.0.0.1", "--port", str(port), "--accounts", "0", "--silent"]
    process = Process("anvil-2", command, directory / "anvil-2.log")
    await process.start()
    url = f"http://127.0.0.1:{port}"
    rpc = Rpc(url, timeout=60)

    async def answers() -> bool:
        try:
            return bool(await rpc.call("eth_chainId"))
        except OracleError:
            return False

    try:
        await until("anvil", answers, [process])
        assert await rpc.call("anvil_loadState", state)
        yield url
    finally:
        await rpc.close()
        await process.stop()


async def records_of(bench: Bench, tasks: Sequence[bytes]) -> list[TaskRecord]:
    async with open_storage(bench.net.storage) as storage:
        raw = [await storage.get_named(record_name(task)) for task in tasks]
    return [parse(TaskRecord, each, limit=64 << 20) for each in raw]


async def bare_loop(bench: Bench, url: str, calls: Sequence[tuple[bytes, bytes]], depth: int) -> float:
    """Seconds for the same requests and fulfilments by web3.py: sign, send, wait for the receipt, nothing else."""
    w3 = AsyncWeb3(AsyncHTTPProvider(url))
    oracle, chain_id = bench.net.deployment.oracle, bench.net.deployment.chain_id
    wallets = bench.asker.wallet, account_of(bench.net.accounts["operator"].wallet)
    nonces = [int(await w3.eth.get_transaction_count(wallet.address)) for wallet in wallets]
    slots, turns = asyncio.Semaphore(depth), (asyncio.Lock(), asyncio.Lock())

    async def send(who: int, data: bytes, gas: int) -> None:
        async with turns[who]:
            raw = signed(wallets[who], chain_id, nonces[who], oracle, data, gas)
            nonces[who] += 1
            sent = await w3.eth.send_raw_transaction(raw)
        receipt = await w3.eth.wait_for_transaction_receipt(sent, timeout=60, poll_latency=0.01)
        assert receipt["status"] == 1, "a transaction of the bare loop was refused"

    async def one(request: bytes, fulfil: bytes) -> None:
        async with slots:
            await send(0, request, REQUEST_GAS)
            await send(1, fulfil, FULFIL_GAS)

    started = time.monotonic()
    await asyncio.gather(*(one(*call) for call in calls))
    seconds = time.monotonic() - started
    await w3.provider.disconnect()
    return seconds


def fulfilments(records: Sequence[TaskRecord]) -> list[bytes]:
    contract = load("ComputeOracle")
    return [
        contract.call(
            "fulfil",
            settlement(record.agreement),
            record.enclave,
            Fulfilment(result=record.result, signature=record.signature, public_outputs=(), request=()),
        )
        for record in records
    ]


async def settle_many(bench: Bench, url: str, requests: Sequence[bytes], records: Sequence[TaskRecord]) -> float:
    """Tasks per second that the worker's settler settles when it may put many into a transaction."""
    rpc = Rpc(url)
    try:
        wallet = bench.asker.wallet
        nonce = as_int(await rpc.call("eth_getTransactionCount", wallet.address, "latest"))
        oracle, chain_id = bench.net.deployment.oracle, bench.net.deployment.chain_id
        raws = [signed(wallet, chain_id, nonce + i, oracle, data, REQUEST_GAS) for i, data in enumerate(requests)]
        for start in range(0, len(raws), MANY):
            await rpc.batch([("eth_sendRawTransaction", [as_hex(raw)]) for raw in raws[start : start + MANY]])
        sender = Sender(rpc, account_of(bench.net.accounts["operator"].wallet), poll=0.005)
        settler, started = Settler(sender, oracle), time.monotonic()
        for start in range(0, len(records), MANY):
            sent = await settler.send_many(records[start : start + MANY])
            receipts = [await sender.wait(each.hash) for each in sent]
            assert all(receipt.ok for receipt in receipts)
        return len(records) / (time.monotonic() - started)
    finally:
        await rpc.close()


# --- what it costs --------------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Of a process, the children that it has waited for, and those that live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(int(each) for each in fields[11:15]) / TICKS + sum(cpu_seconds(int(child)) for child in children)


def cpu_by_part(net: Devnet) -> dict[str, float]:
    """CPU seconds so far. The enclave is the worker's child, and counted apart."""
    enclave = net.enclave_pid()
    in_enclave = cpu_seconds(enclave) if enclave is not None else 0.0
    return {
        "anvil": cpu_seconds(net.anvil.pid),
        "brokers": sum(cpu_seconds(broker.process.pid) for broker in net.brokers),
        "enclave": in_enclave,
        "worker": cpu_seconds(net.worker.pid) - in_enclave,
    }


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def log_entries(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text("utf-8", "replace").splitlines()
    entries = (json.loads(line) for line in lines if line.startswith('{"time"'))
    return [entry for entry in entries if isinstance(entry, dict)]


def runs_in(path: Path) -> dict[bytes, float]:
    """Milliseconds in the enclave of each task that ran."""
    return {
        bytes.fromhex(entry["task"]): float(entry["enclave_ms"])
        for entry in log_entries(path)
        if entry.get("event") == "task ran"
    }


def split_worker(cpu: dict[str, float], profile: Path) -> dict[str, float]:
    """The worker's CPU, by what its threads were seen at; anvil is the chain's."""
    counts: dict[str, float] = json.loads(profile.read_text())
    counts.pop("seconds")
    total = sum(counts.values()) or 1.0
    parts = {part: cpu["worker"] * count / total for part, count in counts.items()}
    found = defaultdict[str, float](float)
    found |= {f"worker_{part}": value for part, value in parts.items() if part in ("storage", "logs", "other")}
    for part in ("chain", "crypto", "journal"):
        found[part] += parts.get(part, 0.0)
    found["brokers"] += cpu["brokers"] + parts.get("brokers", 0.0)
    found["enclave"] += cpu["enclave"] + parts.get("enclave", 0.0)
    found["anvil"] += cpu["anvil"]
    return {part: round(value, 2) for part, value in sorted(found.items())}


async def backfill(bench: Bench, home: Path) -> tuple[int, float]:
    """How many logs a new journal takes in, and how fast."""
    deployment = bench.net.deployment
    addresses = (deployment.oracle, deployment.agreement_registry)
    head = as_int(await bench.rpc.call("eth_blockNumber"))
    logs = await get_logs(bench.rpc, list(addresses), 0, head, [[topic(name) for name in FOLLOWED]])
    db, rpc = JournalThread(home / "backfill.sqlite"), Rpc(bench.net.rpc_url)

    async def heard(_: bool) -> None:
        return None

    follower = Follower(rpc, db, addresses, deployment.first_block, poll=0.02, on_news=heard)
    started = time.monotonic()
    following = asyncio.create_task(follower.run())
    try:
        await asyncio.wait_for(follower.caught_up.wait(), 120)
        return len(logs), len(logs) / (time.monotonic() - started)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await rpc.close()
        db.close()


# --- three workers --------------------------------------------------------------------------------------------------------


async def duplicates(bench: Bench, tasks: int) -> float:
    """Computations beyond one for each task, by three workers, per task."""
    logs = [bench.net.directory / "logs" / f"{name}.log" for name in ("worker", *OTHERS)]
    async with more_workers(bench.net, OTHERS):
        _, latencies = await bench.pipelined(tasks, DEPTH)
        asked = {task for task, _ in latencies}
        ran = sum(len(asked & runs_in(log).keys()) for log in logs)
    return (ran - tasks) / tasks


# --- all of it ------------------------------------------------------------------------------------------------------------


async def measure(home: Path, tasks: int) -> dict[str, Any]:
    each = max(1, tasks // ROUNDS)
    async with opened(home) as bench:
        await bench.pipelined(WARM_UP, DEPTH)
        at_work = bare = 0.0
        cpu = dict.fromkeys(("anvil", "brokers", "enclave", "worker"), 0.0)
        batched = []
        for _ in range(ROUNDS):
            state = await bench.rpc.call("anvil_dumpState")
            before, first = cpu_by_part(bench.net), len(bench.asker.sent)
            seconds, _ = await bench.pipelined(each, DEPTH)
            after = cpu_by_part(bench.net)
            cpu = {part: spent + after[part] - before[part] for part, spent in cpu.items()}
            at_work += seconds
            asked = bench.asker.sent[first:]
            records = await records_of(bench, [task for task, _ in asked])
            calls = [(data, fulfil) for (_, data), fulfil in zip(asked, fulfilments(records), strict=True)]
            async with chain_with(state, home) as url:
                bare += await bare_loop(bench, url, calls, DEPTH)
            async with chain_with(state, home) as url:
                batched.append(await settle_many(bench, url, [data for _, data in asked], records))
        _, alone = await bench.pipelined(SEQUENTIAL, 1)
        enclave = runs_in(bench.net.directory / "logs" / "worker.log")
        overhead = sorted(1000 * latency - enclave[task] for task, latency in alone)
        rss = resident_mib(bench.net.worker.pid)
        logs, backfilled = await backfill(bench, home)
        duplicate_rate = await duplicates(bench, each)
        await bench.net.worker.stop(20)
        per_task = {part: 1000 * seconds / (ROUNDS * each) for part, seconds in cpu.items()}
        parts = split_worker(per_task, bench.net.directory / "profile.json")
    done = ROUNDS * each
    return {
        "tasks": done,
        "depth": DEPTH,
        "tasks_per_s": round(done / at_work, 2),
        "settle_tasks_per_s": round(statistics.median(batched), 1),
        "backfill_logs": logs,
        "backfill_logs_per_s": round(backfilled),
        "overhead_ms_p50": round(statistics.median(overhead), 1),
        "overhead_ms_p95": round(overhead[int(len(overhead) * 0.95) - 1], 1),
        "rss_mib": round(rss, 1),
        "duplicate_rate": round(duplicate_rate, 4),
        "cpu_ms_per_task": {**parts, "all": round(sum(per_task.values()), 2)},
        "bare_loop_tasks_per_s": round(done / bare, 2),
        "ratio_to_bare_loop": round(bare / at_work, 3),
        "required_ratio": 0.2,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench worker", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tasks", type=int, default=600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="enclave-oracle-bench-") as home:
        found = asyncio.run(measure(Path(home), arguments.tasks))
    if not arguments.json:
        for name, value in found.items():
            print(f"{name}: {value}")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
