"""Children that have a function open over its tables, and wait for the next task that asks the same: forking one, and touching
the pages that a query needs, costs a small task most of its time.

A child serves one function of one agreement over the very same tables, opened with the very same keys, for which every task
needs its own releases (R12); its parameters are public, and SQL keeps no state between two queries (sql_policy.py). What failed
or gave much is not kept. Bounded by their number, by the memory that was agreed for each and by their tables, never by
a clock (R14).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from enclave_app.sandbox.host import Child, Sandbox
from enclave_app.sandbox.lockdown import MIB, Allowance

MOST_CHILDREN: Final = 16
MOST_JOBS: Final = 256
"""Tasks that one child serves at most; it may use the CPU seconds of all of them."""
MOST_OUTPUT_BYTES: Final = MIB


@dataclass
class Kept:
    """A child that has a function open, or is to open it. `memory` is what was agreed for it, `tables` what it has open, both in
    bytes; `again` says whether it may serve another task: who has it says so each time."""

    child: Child
    memory: int
    tables: int
    jobs: int = 0
    again: bool = False


@dataclass
class WarmChildren:
    """`most_memory` bounds what the idle ones may use by their agreements, `most_tables` their tables, of which none may have
    more than a quarter; both in bytes."""

    sandbox: Sandbox
    most_memory: int
    most_tables: int
    most_children: int = MOST_CHILDREN
    _idle: OrderedDict[bytes, list[Kept]] = field(default_factory=OrderedDict)

    def close(self) -> None:
        for kept in self._idle.values():
            for each in kept:
                each.child.close()
        self._idle.clear()

    def idle(self, name: bytes) -> Kept | None:
        """A child that has the function of that `name` open, if one waits: it goes to `lent` at once."""
        kept = self._idle.get(name, [])
        while kept:
            newest = kept.pop()
            if not kept:
                del self._idle[name]
            if newest.child.is_alive:
                return newest
            newest.child.close()
        return None

    async def new(self, allowance: Allowance, tables: int) -> Kept:
        """A child that is to open a function over `tables` bytes, and goes to `lent` at once; `allowance` is for one task."""
        every = replace(allowance, cpu_seconds=MOST_JOBS * allowance.cpu_seconds)
        return Kept(await self.sandbox.start(every), allowance.memory, tables)

    @contextmanager
    def lent(self, name: bytes, kept: Kept) -> Iterator[Kept]:
        """While one task has it. Afterwards it waits for the next one, or is killed."""
        kept.again = False
        try:
            yield kept
        except BaseException:
            kept.again = False
            raise
        finally:
            kept.jobs += 1
            fits = kept.jobs < MOST_JOBS and kept.tables <= self.most_tables // 4
            if kept.again and fits and kept.child.is_alive:
                self._idle.setdefault(name, []).append(kept)
                self._idle.move_to_end(name)
                self._bound()
            else:
                kept.child.close()

    def _bound(self) -> None:
        """The least recently used go first."""
        every = [each for kept in self._idle.values() for each in kept]
        count, memory = len(every), sum(each.memory for each in every)
        tables = sum(each.tables for each in every)
        while count > self.most_children or memory > self.most_memory or tables > self.most_tables:
            name, kept = next(iter(self._idle.items()))
            oldest = kept.pop(0)
            oldest.child.close()
            count, memory, tables = count - 1, memory - oldest.memory, tables - oldest.tables
            if not kept:
                del self._idle[name]
