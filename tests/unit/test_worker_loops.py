"""A loop that dies by a bug is started again, and only one that dies again and again counts as failing."""

from __future__ import annotations

import asyncio

from oracle.worker.loops import CALM, TOO_OFTEN, Loops


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
