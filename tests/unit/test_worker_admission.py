"""Runs are admitted by memory and number, large ones among small ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.errors import Bug
from oracle.worker.admission import PASSES, Admission, cores, memory_mib


class Runs:
    """Runs that hold their room until they are told to end."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.order: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, name: str, memory: int) -> None:
        self._ends[name] = asyncio.Event()

        async def run() -> None:
            async with self.admission.room(memory):
                self.order.append(name)
                await self._ends[name].wait()

        self._tasks.append(asyncio.create_task(run(), name=name))
        await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        for _ in range(4):
            await asyncio.sleep(0)

    async def cancel(self, name: str) -> None:
        task = next(task for task in self._tasks if task.get_name() == name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_more_runs_than_there_are_places() -> None:
    runs = Runs(Admission(1000, 2))
    for name in "abc":
        await runs.ask(name, 1)
    assert runs.order == ["a", "b"]
    await runs.end("a")
    assert runs.order == ["a", "b", "c"]


async def test_a_run_waits_until_its_memory_is_free() -> None:
    runs = Runs(Admission(100, 9))
    await runs.ask("a", 60)
    await runs.ask("b", 60)
    assert runs.order == ["a"]
    await runs.end("a")
    assert runs.order == ["a", "b"]


async def test_a_small_run_passes_a_large_one_that_waits_but_only_so_often() -> None:
    runs = Runs(Admission(100, 99))
    await runs.ask("first", 20)
    await runs.ask("large", 100)
    for number in range(PASSES + 5):
        await runs.ask(f"small {number}", 1)
    assert len(runs.order) == 1 + PASSES
    for number in range(PASSES):
        await runs.end(f"small {number}")
    await runs.end("first")
    assert runs.order[1 + PASSES] == "large"
    await runs.end("large")
    assert len(runs.order) == 2 + PASSES + 5


async def test_who_is_cancelled_while_it_waits_or_runs_leaves_no_room_taken() -> None:
    admission = Admission(100, 9)
    runs = Runs(admission)
    await runs.ask("runs", 100)
    await runs.ask("waits", 100)
    await runs.cancel("waits")
    await runs.cancel("runs")
    assert (admission.used, admission.running, admission.waiting) == (0, 0, 0)


async def test_what_never_fits_does_not_wait() -> None:
    admission = Admission(100, 9)
    assert not admission.fits(101)
    with pytest.raises(Bug):
        async with admission.room(101):
            pass


@given(st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=40))
def test_what_is_admitted_always_fits_and_everyone_is_admitted_in_the_end(asked: list[tuple[int, bool]]) -> None:
    async def walk() -> None:
        admission = Admission(100, 3)
        runs = Runs(admission)
        for number, (memory, ends) in enumerate(asked):
            await runs.ask(str(number), memory)
            assert admission.used <= admission.memory
            assert admission.running <= admission.runs
            if ends and runs.order:
                await runs.end(runs.order[-1])
        for _ in asked:
            for name in list(runs.order):
                await runs.end(name)
        assert sorted(runs.order) == sorted(str(number) for number in range(len(asked)))
        assert (admission.used, admission.running) == (0, 0)

    asyncio.run(walk())


def test_the_default_is_a_share_of_what_the_cgroup_allows(tmp_path: Path) -> None:
    limit, unlimited = tmp_path / "limit", tmp_path / "unlimited"
    limit.write_text(f"{1 << 30}\n")
    unlimited.write_text("max\n")
    assert memory_mib((limit,)) == 768
    assert memory_mib((unlimited, tmp_path / "none")) == memory_mib(())
    assert cores() >= 1
