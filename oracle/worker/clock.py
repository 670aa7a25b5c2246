"""The chain's time: what deadlines and ages go by. The host's clock may jump either way; it decides nothing here."""

from __future__ import annotations

import time
from collections.abc import Callable

from oracle.chain.source import Block


class ChainClock:
    """`head` gives the newest block known, or None before the first. `monotonic` counts seconds and is never set."""

    def __init__(self, head: Callable[[], Block | None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._head, self._monotonic = head, monotonic
        self._seen: Block | None = None
        self._seen_at = 0.0

    @property
    def head(self) -> Block | None:
        """The block that `now` counts from."""
        return self._head()

    def now(self) -> int:
        """Unix seconds: the head's timestamp, and what passed here since it was first asked about. 0 before any head.

        On an idle chain a head is old, so this may be early, never late: what it says has passed, has passed."""
        head = self._head()
        if head is None:
            return 0
        if self._seen is None or head.hash != self._seen.hash:
            self._seen, self._seen_at = head, self._monotonic()
        return head.timestamp + int(self._monotonic() - self._seen_at)


class Jumps:
    """Notices that the wall clock was set: times that were written down before mean something else now."""

    def __init__(
        self,
        tolerance: float = 1.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tolerance, self._wall, self._monotonic = tolerance, wall, monotonic
        self._offset = wall() - monotonic()

    def look(self) -> float:
        """Seconds by which the wall clock jumped since the last look; 0.0 where it did not."""
        offset = self._wall() - self._monotonic()
        jump = offset - self._offset
        if abs(jump) <= self._tolerance:
            return 0.0
        self._offset = offset
        return jump
