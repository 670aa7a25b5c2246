"""Three workers on one chain, without a coordinator: each task is settled once, and hardly one is computed twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from oracle.chain.events import get_logs, topic
from oracle.chain.rpc import Rpc, as_int
from oracle.devnet import Devnet, Options
from oracle.devnet.fleet import more_workers
from oracle.devnet.processes import Process
from tests.chaos.world import Crowd, log_entries, make_crowd, processes_of

OTHERS = ("operator-2", "operator-3")
CONCURRENCY = 4
IN_FLIGHT = 24


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [60, 500])
async def test_three_workers_settle_every_task_once_though_one_is_killed(
    tmp_path: Path, tasks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    people = ("hospital-a", "institute", "requester", *OTHERS)
    options = Options(people=people, worker={"poll": 0.05, "concurrency": CONCURRENCY})
    async with Devnet.open(tmp_path / "net", options) as net:
        rpc = Rpc(net.rpc_url)
        crowd, _ = await make_crowd(net, rpc, hosts=("operator", *OTHERS))
        settlements = Settlements(net, rpc)
        async with more_workers(net, OTHERS) as others:
            await settle(crowd, settlements, tasks // 2)
            # Its work is taken over; nobody starts it again while there is any.
            killing = asyncio.create_task(_kill_soon(others[0]))
            await settle(crowd, settlements, tasks)
            await killing
            runs = Counter(
                entry["task"]
                for name in ("worker", *OTHERS)
                for entry in log_entries(net, name)
                if entry.get("event") == "task ran"
            )
        fulfilled = await settlements.read()
        await rpc.close()
    again = sum(runs.values()) - tasks
    with capsys.disabled():
        print(
            f"\nfleet: 3 workers, one killed, {tasks} tasks in {time.monotonic() - started:.0f} s, lost "
            f"{tasks - len(fulfilled)}, doubled {sum(fulfilled.values()) - len(fulfilled)}, computed again {again} "
            f"({again / tasks:.1%})"
        )
    assert fulfilled == Counter(crowd.tasks)
    # What the killed one had computed and not settled is computed again, and is none of a fleet's duplicates.
    assert again <= 0.02 * tasks + CONCURRENCY
    assert not processes_of(net.directory)


async def _kill_soon(process: Process) -> None:
    await asyncio.sleep(0.5)
    await process.kill()


class Settlements:
    """The chain's log of settlements, read on from where it was read to: no reorganisation happens here."""

    def __init__(self, net: Devnet, rpc: Rpc) -> None:
        self._oracle, self._rpc, self._next = net.deployment.oracle, rpc, 0
        self.counts: Counter[bytes] = Counter()

    async def read(self) -> Counter[bytes]:
        head = as_int(await self._rpc.call("eth_blockNumber"))
        if head >= self._next:
            names = [[topic("TaskFulfilled"), topic("TaskFulfilledInBatch")]]
            logs = await get_logs(self._rpc, [self._oracle], self._next, head, names)
            self.counts.update(log.topics[1] for log in logs)
            self._next = head + 1
        return self.counts


async def settle(crowd: Crowd, settlements: Settlements, upto: int, patience: float = 300) -> None:
    """Ask until `upto` tasks were asked for in all, not too many at once, and wait for their settlements."""
    deadline = time.monotonic() + patience
    while (done := len(await settlements.read())) < upto:
        room = min(IN_FLIGHT - (len(crowd.tasks) - done), upto - len(crowd.tasks))
        if room > 0:
            await crowd.ask(room)
        assert time.monotonic() < deadline, f"{done} of {upto} tasks are settled"
        await asyncio.sleep(0.1)
