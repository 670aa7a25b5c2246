"""The worker's loops: one that dies by a bug is reported and started again, and the others go on. One that cannot reach what it
works with, a journal's server say, waits and goes on.

Only a loop that dies again and again makes the worker unready; a process that ends itself would be started by systemd into
the same bug, with everything that ran lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from oracle.errors import Retryable
from oracle.logs import Log

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
LONGEST_WAIT = 5.0
"""Seconds between two tries of a loop that waits for something outside."""
CALM = 600.0
"""Seconds that a loop has to last for its earlier deaths to be forgotten."""
TOO_OFTEN = 5


class Loops:
    """`faults` counts each loop's deaths since the start. Cancel what `start` made by `stop`."""

    def __init__(self, *, first_pause: float = FIRST_PAUSE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.faults: Counter[str] = Counter()
        self._in_a_row: Counter[str] = Counter()
        self._began: dict[str, float] = {}
        self._first, self._monotonic = first_pause, monotonic
        self._tasks: list[asyncio.Task[None]] = []
        self._log = Log("worker.loops")

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `loop` until it returns, again after each bug. Its task ends when it returns."""
        task = asyncio.create_task(self._keep(name, loop), name=name)
        self._tasks.append(task)
        return task

    def failing(self) -> tuple[str, ...]:
        """The loops that died `TOO_OFTEN` times in a row, and have not lasted since."""
        now = self._monotonic()
        often = (name for name, deaths in self._in_a_row.items() if deaths >= TOO_OFTEN)
        return tuple(sorted(name for name in often if now - self._began[name] < CALM))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        waits = 0
        while True:
            self._began[name] = self._monotonic()
            try:
                await loop()
            except Retryable as error:
                waits = 1 if self._monotonic() - self._began[name] >= 2 * LONGEST_WAIT else waits + 1
                pause = min(LONGEST_WAIT, self._first * 2.0 ** min(waits - 1, 30))
                self._log.warning("a loop waits", loop=name, code=error.code, message=error.message, seconds=pause)
                await asyncio.sleep(pause)
            except Exception as error:
                if self._monotonic() - self._began[name] >= CALM:
                    self._in_a_row[name] = 0
                self.faults[name] += 1
                self._in_a_row[name] += 1
                pause = min(LONGEST_PAUSE, self._first * 2.0 ** min(self._in_a_row[name] - 1, 30))
                self._log.error(
                    "a bug: please report it; the loop is started again",
                    error,
                    loop=name,
                    times=self._in_a_row[name],
                    seconds=pause,
                )
                await asyncio.sleep(pause)
            else:
                return
