"""Faults of every kind at once, on real processes, and then: every task settled once, the journal equal to the chain, no wei,
process or file astray. `CHAOS_SEED` repeats a run; `CHAOS_VERBOSE=1` shows each fault as it happens (pytest -s)."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.faults import DEEPEST, Fault, Faults, Tally, play
from tests.chaos.world import World

WORKER = {"receiptPatience": 3}
BROKERS = ("broker-1", "broker-2", "broker-3")
LONGEST = 300.0
"""Seconds for the faults of a world, which take about 80 on an idle machine; what has not begun by then is left out."""


def chosen(rng: random.Random, faults: Sequence[Fault], count: int | None) -> list[Fault]:
    """`count` of them in a random order; all where it says nothing."""
    return rng.sample(list(faults), len(faults) if count is None else min(count, len(faults)))


async def play_world(home: Path, rng: random.Random, tally: Tally, count: int | None, longest: float) -> None:
    """One world: two faults at a time."""
    async with World.open(home / "net", WORKER) as world:
        await world.crowd.ask(3)
        await world.all_settled(60)
        faults = Faults(world, rng)
        depths = [1, DEEPEST, *(rng.randint(1, DEEPEST) for _ in range(count or 20))]
        third = count and count // 3
        # What stops the one worker and its enclave goes one after the other; brokers and the RPC fail meanwhile.
        work = [
            *chosen(rng, faults.kills("worker"), count and count + 2),
            *chosen(rng, faults.kills("enclave"), count),
            *faults.reorgs("worker", depths[: count and count // 2]),
            *faults.reorgs("enclave", depths[:third]),
            *faults.reorgs("broker-1", depths[:third]),
            *faults.others(),
        ]
        rest = [*(each for role in BROKERS for each in chosen(rng, faults.kills(role), third)), *faults.lies()]
        until = time.monotonic() + longest
        lanes = [work, rest]
        for lane in lanes:
            rng.shuffle(lane)
        await asyncio.gather(*(play(lane, tally, until) for lane in lanes))
        ending = await world.end()
        tally.worlds += 1
        tally.tasks += ending.tasks
        tally.settled += ending.settled
        tally.again += ending.again
        tally.transactions += ending.transactions
        tally.refused += ending.refused


def seeded() -> int:
    return int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1 << 32))


@pytest.mark.slow
async def test_sixty_faults_lose_nothing_and_double_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed, started, tally = seeded(), time.monotonic(), Tally()
    try:
        await play_world(tmp_path, random.Random(seed), tally, 12, LONGEST)
    finally:
        with capsys.disabled():
            print("\n" + tally.line(seed, time.monotonic() - started))
    assert tally.total >= 60


@pytest.mark.slow
async def test_a_thousand_faults_lose_nothing_and_double_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In worlds that are made anew: anvil forgets old states after many reorganisations."""
    seed, started, tally = seeded(), time.monotonic(), Tally()
    rng = random.Random(seed)
    try:
        while tally.total < 1000:
            await play_world(tmp_path / str(tally.worlds), rng, tally, None, 600.0)
    finally:
        with capsys.disabled():
            print("\n" + tally.line(seed, time.monotonic() - started))
