"""Children that serve several tasks: which task gets which, and when one is let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol.errors import Refused
from enclave_app.sandbox.host import JobCrashed, JobFailed, Sandbox
from enclave_app.sandbox.lockdown import MIB, Allowance
from enclave_app.sandbox.zygote import Jobs
from enclave_app.warm import MOST_JOBS, WarmChildren
from tests import sandbox_kit

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALLOWANCE = Allowance(memory=256 * MIB, cpu_seconds=10, file_bytes=0)


class Adder:
    """A function over a number that it is opened with."""

    def __init__(self) -> None:
        self.number: int | None = None

    def open(
        self, job: dict[str, Any], descriptors: Sequence[int]
    ) -> tuple[dict[str, Any], Sequence[bytes | memoryview]]:
        self.number = job["number"]
        return self.again(job, ())

    def again(
        self, job: dict[str, Any], descriptors: Sequence[int]
    ) -> tuple[dict[str, Any], Sequence[bytes | memoryview]]:
        assert self.number is not None
        if job["n"] < 0:
            raise Refused("test.negative", "refused")
        return {"sum": self.number + job["n"]}, ()


def die(job: dict[str, Any], descriptors: Sequence[int]) -> tuple[dict[str, Any], Sequence[bytes | memoryview]]:
    raise MemoryError


def _jobs() -> Jobs:
    adder = Adder()
    return Jobs({"open": adder.open, "again": adder.again, "die": die}, lambda: None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_kit.ready(_jobs) as found:
        yield found


@contextmanager
def children(
    sandbox: Sandbox, memory: int = 64 * ALLOWANCE.memory, tables: int = 1 << 20, most: int = 16
) -> Iterator[WarmChildren]:
    warm = WarmChildren(sandbox, memory, tables, most)
    yield warm
    warm.close()


def waits(warm: WarmChildren, name: bytes) -> bool:
    return any(each.child.is_alive for each in warm._idle.get(name, ()))


async def ask(warm: WarmChildren, name: bytes, n: int, *, tables: int = 0) -> tuple[bool, int]:
    """Whether the child was warm, and the sum; each name's number is its length."""
    known = warm.idle(name)
    kept = known or await warm.new(ALLOWANCE, tables)
    with warm.lent(name, kept):
        job = {"kind": "again", "n": n} if known else {"kind": "open", "number": len(name), "n": n}
        answer, _ = await kept.child.run(job, (), seconds=10, limit=0)
        kept.again = True
    return known is not None, answer["sum"]


async def test_the_second_task_of_a_name_finds_the_first_ones_child_and_its_own_answer(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        assert await ask(warm, b"one", 1) == (False, 4)
        assert await ask(warm, b"one", 10) == (True, 13)
        assert await ask(warm, b"another", 10) == (False, 17)
        assert await ask(warm, b"one", 0) == (True, 3)


async def test_tasks_at_the_same_time_have_a_child_each(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        for known in (False, True):
            found = await asyncio.gather(*(ask(warm, b"one", n) for n in range(5)))
            assert [answer for _, answer in found] == [3 + n for n in range(5)]
            assert all(was_known for was_known, _ in found) == known


async def test_a_child_is_handed_out_once(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        await ask(warm, b"one", 1)
        taken = warm.idle(b"one")
        assert taken is not None
        assert warm.idle(b"one") is None
        taken.child.close()


async def test_a_child_that_nobody_vouches_for_is_not_kept(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        with warm.lent(b"one", await warm.new(ALLOWANCE, 0)) as kept:
            await kept.child.run({"kind": "open", "number": 1, "n": 1}, (), seconds=10, limit=0)
        assert not waits(warm, b"one")


async def test_a_child_whose_job_failed_serves_nobody_else(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        await ask(warm, b"one", 1)
        with pytest.raises(JobFailed):
            await ask(warm, b"one", -1)
        assert not waits(warm, b"one")
        assert await ask(warm, b"one", 2) == (False, 5)


async def test_a_child_whose_task_failed_after_its_answer_serves_nobody_else(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        kept = await warm.new(ALLOWANCE, 0)

        def fail() -> None:
            with warm.lent(b"one", kept):
                kept.again = True
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert not waits(warm, b"one")


async def test_an_idle_child_that_died_is_not_handed_out(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        await ask(warm, b"one", 1)
        warm._idle[b"one"][0].child._kill()
        for _ in range(500):
            if not waits(warm, b"one"):
                break
            await asyncio.sleep(0.01)
        assert await ask(warm, b"one", 1) == (False, 4)


async def test_a_child_that_dies_at_work_says_so(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        await ask(warm, b"one", 1)

        async def killed() -> None:
            idle = warm.idle(b"one")
            assert idle is not None
            with warm.lent(b"one", idle) as kept:
                kept.again = True
                await kept.child.run({"kind": "die"}, (), seconds=10, limit=0)

        with pytest.raises(JobCrashed):
            await killed()
        assert not waits(warm, b"one")


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, "01234"),
        ({"most": 2}, "34"),
        ({"memory": ALLOWANCE.memory}, "4"),
        ({"tables": 4 * 100}, "1234"),
        ({"tables": 4 * 100 - 1}, ""),
    ],
    ids=["room", "children", "memory", "tables", "a table too large"],
)
async def test_the_oldest_go_first(sandbox: Sandbox, changes: dict[str, int], kept: str) -> None:
    with children(sandbox, **changes) as warm:
        for name in "01234":
            await ask(warm, name.encode(), 0, tables=100)
        assert "".join(name for name in "01234" if waits(warm, name.encode())) == kept


async def test_whatever_is_used_again_is_not_the_oldest(sandbox: Sandbox) -> None:
    with children(sandbox, most=2) as warm:
        busy = await warm.new(ALLOWANCE, 0)
        with warm.lent(b"0", busy):
            for name in (b"0", b"1"):
                await ask(warm, name, 0)
            busy.again = True
        await ask(warm, b"2", 0)
        assert [name for name in (b"0", b"1", b"2") if waits(warm, name)] == [b"0", b"2"]


async def test_a_child_serves_a_bounded_number_of_tasks(sandbox: Sandbox) -> None:
    with children(sandbox) as warm:
        for _ in range(MOST_JOBS - 1):
            await ask(warm, b"one", 1)
        assert waits(warm, b"one")
        await ask(warm, b"one", 1)
        assert not waits(warm, b"one")
