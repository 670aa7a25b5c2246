"""Which runs may be in the enclaves at one time: no more than the machine has memory and cores for.

A large task waits for memory while smaller ones that came later pass it, but only so many: then all wait behind it, so that
small ones cannot starve it. What bounds the waiting is a count, not a clock.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from oracle.errors import Bug

MIB = 1 << 20
SHARE = 0.75
"""Of the machine's memory; the rest is for the worker, ciphertext that waits and the page cache."""
PASSES = 16
"""How many later tasks may pass one that waits."""
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def cores() -> int:
    """Processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def memory_mib(cgroups: tuple[Path, ...] = _CGROUPS) -> int:
    """`SHARE` of the machine's memory, or of the cgroup's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in cgroups:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):
            continue  # no such cgroup, or "max"
    return max(1, int(total * SHARE) // MIB)


@dataclass(eq=False)
class _Waiting:
    memory: int
    passed: int = 0
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """At most `runs` at once, whose memory (MiB, by agreement) is at most `memory` together."""

    def __init__(self, memory: int, runs: int) -> None:
        self.memory, self.runs = memory, runs
        self.used = 0
        self.running = 0
        self._queue: deque[_Waiting] = deque()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def fits(self, memory: int) -> bool:
        """Whether such a task can ever run here."""
        return memory <= self.memory

    @asynccontextmanager
    async def room(self, memory: int) -> AsyncIterator[None]:
        """Wait for room, and hold it. Ask `fits` before: one that never fits would wait for ever, and is a Bug."""
        if not self.fits(memory):
            raise Bug("admission.memory", "a task that never fits waits for room", found=memory, expected=self.memory)
        waiting = _Waiting(memory)
        self._queue.append(waiting)
        self._admit()
        try:
            await waiting.admitted
            yield
        finally:
            if waiting.admitted.done() and not waiting.admitted.cancelled():
                self.used -= memory
                self.running -= 1
            else:
                self._queue.remove(waiting)
            self._admit()

    def _admit(self) -> None:
        """Oldest first; one that does not fit is passed by those that do, until it was passed often enough."""
        held_up: list[_Waiting] = []
        for waiting in list(self._queue):
            if self.running >= self.runs:
                return
            if self.used + waiting.memory <= self.memory:
                self._queue.remove(waiting)
                self.used += waiting.memory
                self.running += 1
                waiting.admitted.set_result(None)
                for other in held_up:
                    other.passed += 1
            else:
                held_up.append(waiting)
            if any(each.passed >= PASSES for each in held_up):
                return
