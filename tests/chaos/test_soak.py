"""One worker, ten thousand tasks: what it holds in memory, in open files and on the disk does not grow with what it has done."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from oracle.chain.rpc import Rpc
from oracle.devnet import Devnet, Options
from tests.chaos.test_fleet import Settlements, settle
from tests.chaos.world import Crowd, make_crowd

TASKS = int(os.environ.get("SOAK_TASKS", "10000"))
SAMPLES = 40
SLOPE = 2.0
"""MiB that the worker may grow by in each further thousand tasks; an allocator's noise is about half of it."""
FILES = 24
"""Open files that come and go: connections to brokers, enclave and chain."""
BYTES = 64 << 10
"""Journal's bytes for a task, with its record and its request."""


@pytest.mark.slow
async def test_ten_thousand_tasks_leave_memory_and_open_files_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    options = Options(worker={"poll": 0.05, "concurrency": 8})
    async with Devnet.open(tmp_path / "net", options) as net:
        rpc = Rpc(net.rpc_url)
        crowd, _ = await make_crowd(net, rpc)
        found = await sampled(net, crowd, Settlements(net, rpc))
        await rpc.close()
        await net.worker.stop(30)
        journal = sum(path.stat().st_size for path in (net.directory / "worker").glob("journal.sqlite*"))
    # What a first thousand tasks fill, caches above all, is no growth.
    late = [sample for sample in found if sample[0] >= TASKS // 4]
    slope = 1000 * statistics.linear_regression([s[0] for s in late], [s[1] for s in late]).slope
    files = [sample[2] for sample in late]
    with capsys.disabled():
        print(
            f"\nsoak: {TASKS} tasks in {time.monotonic() - started:.0f} s, memory {late[0][1]:.1f} to {late[-1][1]:.1f} MiB, "
            f"{slope:+.3f} MiB per 1,000 tasks (bound {SLOPE}), open files {min(files)} to {max(files)} (bound +{FILES}), "
            f"journal {journal / TASKS:.0f} bytes per task (bound {BYTES})"
        )
    assert slope <= SLOPE
    assert max(files) - min(files) <= FILES
    assert journal / TASKS <= BYTES


async def sampled(net: Devnet, crowd: Crowd, settlements: Settlements) -> list[tuple[int, float, int]]:
    """Tasks so far, MiB resident, open files; taken between two lots of tasks."""
    found = []
    for number in range(1, SAMPLES + 1):
        upto = TASKS * number // SAMPLES
        await settle(crowd, settlements, upto, patience=600)
        place = Path(f"/proc/{net.worker.pid}")
        resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        found.append((upto, resident, len(list((place / "fd").iterdir()))))
    return found
