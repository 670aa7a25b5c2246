"""Deadlines go by the chain's time, whatever the host's clock says."""

from __future__ import annotations

from oracle.chain.source import Block
from oracle.worker.clock import ChainClock, Jumps


class Hands:
    """A wall clock and a stopwatch that a test moves."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000_000.0, 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def block(number: int, timestamp: int) -> Block:
    return Block(number, bytes([number]) * 32, bytes(32), timestamp)


def test_the_chains_time_is_its_heads_and_what_passed_since() -> None:
    hands, heads = Hands(), [block(1, 5000)]
    clock = ChainClock(lambda: heads[-1], lambda: hands.monotonic)
    assert clock.now() == 5000
    hands.passes(7)
    assert clock.now() == 5007
    heads.append(block(2, 5005))
    assert clock.now() == 5005


def test_a_wall_clock_that_jumps_moves_no_deadline() -> None:
    hands = Hands()
    clock = ChainClock(lambda: block(1, 5000), lambda: hands.monotonic)
    clock.now()
    hands.wall += 10**8
    assert clock.now() == 5000


def test_before_the_first_block_nothing_has_passed() -> None:
    assert ChainClock(lambda: None).now() == 0


def test_a_jump_is_noticed_once_and_time_that_passes_is_none() -> None:
    hands = Hands()
    jumps = Jumps(wall=lambda: hands.wall, monotonic=lambda: hands.monotonic)
    hands.passes(3600)
    assert jumps.look() == 0.0
    hands.wall -= 7200
    assert jumps.look() == -7200
    assert jumps.look() == 0.0
    hands.wall += 0.5
    assert jumps.look() == 0.0
