"""A loop that dies by a bug is started again, and only one that dies again and again counts as failing."""

from __future__ import annotations

import asyncio

import pytest

from oracle.errors import Retryable
from oracle.worker.loops import CALM, LONGEST_WAIT, TOO_OFTEN, Loops


async def test_a_loop_that_dies_is_started_again_and_the_others_go_on() -> None:
    loops, died, steps = Loops(first_pause=0.0), 0, 0
    again = asyncio.Event()

    async def dies_once() -> None:
        nonlocal died
        if not died:
            died += 1
            raise ValueError("a bug")
        again.set()
        await asyncio.Event().wait()

    async def lives() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    loops.start("dies", dies_once)
    other = loops.start("lives", lives)
    await asyncio.wait_for(again.wait(), 5)
    before = steps
    await asyncio.sleep(0.01)
    assert steps > before
    assert not other.done()
    assert (loops.faults["dies"], loops.faults["lives"], loops.failing()) == (1, 0, ())
    await loops.stop()
    assert other.cancelled()


async def test_a_loop_that_dies_again_and_again_is_named_until_it_lasts() -> None:
    now = 0.0
    loops = Loops(first_pause=0.0, monotonic=lambda: now)
    deaths, lasts = 0, asyncio.Event()

    async def dies() -> None:
        nonlocal deaths
        if deaths == TOO_OFTEN:
            lasts.set()
            await asyncio.Event().wait()
        deaths += 1
        raise ValueError("a bug")

    loops.start("follower", dies)
    await asyncio.wait_for(lasts.wait(), 5)
    assert loops.failing() == ("follower",)
    now += CALM
    assert loops.failing() == ()
    await loops.stop()


async def test_a_loop_that_returns_is_over() -> None:
    loops, times = Loops(), 0

    async def returns() -> None:
        nonlocal times
        times += 1

    await loops.start("scheduler", returns)
    assert times == 1


async def test_a_loop_whose_journal_is_away_waits_and_is_no_bug() -> None:
    loops, tries, back = Loops(first_pause=0.0), 0, asyncio.Event()

    async def reads() -> None:
        nonlocal tries
        tries += 1
        if tries <= TOO_OFTEN:
            raise Retryable("journal.unreachable", "the server is away")
        back.set()
        await asyncio.Event().wait()

    loops.start("scheduler", reads)
    await asyncio.wait_for(back.wait(), 5)
    assert (loops.faults["scheduler"], loops.failing()) == (0, ())
    await loops.stop()


async def test_a_loop_that_waits_for_long_looks_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses, real = 0.0, list[float](), asyncio.sleep

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    loops = Loops(monotonic=lambda: now)
    lasted = iter([0.0, 0.0, 0.0, 0.0, 2 * LONGEST_WAIT, 0.0])

    async def reads() -> None:
        nonlocal now
        for seconds in lasted:
            now += seconds
            raise Retryable("journal.unreachable", "the server is away")

    await loops.start("scheduler", reads)
    assert pauses == [1.0, 2.0, 4.0, LONGEST_WAIT, 1.0, 2.0]
