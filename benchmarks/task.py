"""`scripts/bench task`: small tasks through the whole path, on one machine.

One worker, three brokers (two needed, at `latest`, no release delay), one enclave, one chain, all on the same cores. A task
joins two small tables. Latency is wall clock at the client, from the request's receipt to the settlement's; `enclave_ms` is
what the enclave reports for the run, `overhead_ms` all the rest. Both are medians. With one-second blocks a latency holds up
to a second of waiting for the settlement's block.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from enclave_app.protocol.structs import TaskState
from oracle.chain.events import get_logs, topic
from oracle.chain.rpc import Rpc, as_hex, as_int
from oracle.client import Client
from oracle.devnet import Devnet, Options
from oracle.devnet.scenario import OwnedTable, activate, prepare
from oracle.task import Task

QUERY = "SELECT a.grp, count(*) AS n, sum(b.amount) AS total FROM a JOIN b ON a.id = b.id GROUP BY a.grp ORDER BY a.grp"
WARM_UP = 5


def tables(rows: int = 500) -> dict[str, OwnedTable]:
    ids = list(range(rows))
    return {
        "a": OwnedTable("hospital-a", pa.table({"id": ids, "grp": [i % 7 for i in ids]})),
        "b": OwnedTable("hospital-b", pa.table({"id": ids, "amount": [i * 3 for i in ids]})),
    }


async def measure(home: Path, tasks: int, in_flight: int, block_time: float | None) -> dict[str, Any]:
    options = Options(block_time=block_time, worker={"concurrency": 8, "poll": 0.02})
    async with Devnet.open(home / "devnet", options) as devnet:
        prepared = await prepare(devnet, home / "owners", tables(), QUERY)
        agreement_id = await activate(devnet, prepared)
        async with devnet.client("requester") as client:
            for _ in range(WARM_UP):
                await (await client.request(agreement_id)).wait(patience=120)
            watch = Watch(client)
            watching = asyncio.create_task(watch.run())
            slots = asyncio.Semaphore(in_flight)
            start = time.monotonic()
            done = await asyncio.gather(*(one(client, agreement_id, watch, slots) for _ in range(tasks)))
            seconds = time.monotonic() - start
            watching.cancel()
            states = [(await task.state()).state for task, _ in done]
            result = await done[-1][0].result()
            gas = await gas_medians(devnet, client, prepared.document.id)
        enclave = enclave_times(devnet)
    if any(state is not TaskState.FULFILLED for state in states) or result.num_rows != 7:
        raise SystemExit("a task did not end as it should")
    latencies = sorted(latency * 1000 for _, latency in done)
    return {
        "tasks": tasks,
        "in_flight": in_flight,
        "tasks_per_s": round(tasks / seconds, 2),
        "latency_ms": {
            "p50": round(statistics.median(latencies), 1),
            "p95": round(latencies[int(len(latencies) * 0.95) - 1], 1),
        },
        "enclave_ms": round(statistics.median(enclave), 1),
        "overhead_ms": round(statistics.median(latencies) - statistics.median(enclave), 1),
        "gas": gas,
    }


async def one(client: Client, agreement_id: bytes, watch: Watch, slots: asyncio.Semaphore) -> tuple[Task, float]:
    async with slots:
        task = await client.request(agreement_id)
        start = time.monotonic()
        return task, await watch.settled(task.id) - start


class Watch:
    """Sees settlements as their receipts come, for all tasks at once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._times: dict[bytes, float] = {}
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        oracle, block = self._client.config.deployment.oracle, (await self._client.head()).number
        while True:
            head = as_int(await self._client.rpc.call("eth_blockNumber"))
            if head >= block:
                logs = await get_logs(self._client.rpc, [oracle], block, head, [[topic("TaskFulfilled")]])
                now, block = time.monotonic(), head + 1
                async with self._changed:
                    self._times.update({log.topics[1]: now for log in logs})
                    self._changed.notify_all()
            await asyncio.sleep(0.01)

    async def settled(self, task_id: bytes) -> float:
        async with self._changed:
            await self._changed.wait_for(lambda: task_id in self._times)
            return self._times[task_id]


async def gas_medians(devnet: Devnet, client: Client, agreement_id: bytes) -> dict[str, int]:
    """From receipts: base and calldata included."""
    deployment, rpc = devnet.deployment, client.rpc
    kinds = {
        "activate": (deployment.agreement_registry, "AgreementActivated"),
        "register": (deployment.enclave_registry, "EnclaveRegistered"),
        "request": (deployment.oracle, "TaskRequested"),
        "fulfill": (deployment.oracle, "TaskFulfilled"),
    }
    head = (await client.head()).number
    found = {}
    for key, (address, event) in kinds.items():
        logs = await get_logs(rpc, [address], 0, head, [[topic(event)]])
        found[key] = int(
            statistics.median(await asyncio.gather(*(gas_used(rpc, log.transaction_hash) for log in logs)))
        )
    return found


async def gas_used(rpc: Rpc, transaction: bytes) -> int:
    receipt = await rpc.call("eth_getTransactionReceipt", as_hex(transaction))
    return as_int(receipt["gasUsed"])


def enclave_times(devnet: Devnet) -> list[float]:
    lines = (devnet.directory / "logs" / "worker.log").read_text().splitlines()
    entries = (json.loads(line) for line in lines if line.startswith("{"))
    return [float(entry["enclave_ms"]) for entry in entries if entry.get("event") == "task ran"][WARM_UP:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench task", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tasks", type=int, default=100)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name, block_time, in_flight in (("instant", None, 4), ("sequential", None, 1), ("one_second", 1.0, 8)):
        with tempfile.TemporaryDirectory(prefix="enclave-oracle-bench-") as home:
            tasks = arguments.tasks if name != "sequential" else max(20, arguments.tasks // 4)
            results[name] = asyncio.run(measure(Path(home), tasks, in_flight, block_time))
        if not arguments.json:
            print(f"{name}: {json.dumps(results[name])}")
    instant = results["instant"]
    print(
        json.dumps(
            {**instant, "blocks": "instant", "sequential": results["sequential"], "one_second": results["one_second"]}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
