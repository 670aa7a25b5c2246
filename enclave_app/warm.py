"""Children that have a function open over its tables, and wait for the next task that asks the same: forking one, and touching
the pages that a query needs, costs a small task most of its time.

A child serves one function of one agreement over the very same tables, opened with the very same keys, for which every task
needs its own releases (R12); its parameters are public, and SQL keeps no state between two queries (sql_policy.py). What failed
or gave much is not kept. Bounded by their number, by the memory that was agreed for each and by their tables, never by
a clock (R14).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from enclave_app.sandbox.host import Child, Sandbox
from enclave_app.sandbox.lockdown import MIB, Allowance

MOST_CHILDREN: Final = 16
MOST_JOBS: Final = 256
"""Tasks that one child serves at most; it may use the CPU seconds of all of them."""
MOST_OUTPUT_BYTES: Final = MIB


@dataclass
class Lease:
    """A child in one task's hands. `is_open` says that it has the function open already."""

    child: Child
    is_open: bool
    keep: bool = False
    """Whether it may serve another task; who has it says so."""


@dataclass
class _Idle:
    child: Child
    jobs: int
    memory: int
    tables: int


@dataclass
class WarmChildren:
    """`most_memory` bounds what the idle ones may use by their agreements, `most_tables` their tables, of which none may have
    more than a quarter; both in bytes."""

    sandbox: Sandbox
    most_memory: int
    most_tables: int
    most_children: int = MOST_CHILDREN
    _idle: OrderedDict[bytes, list[_Idle]] = field(default_factory=OrderedDict)

    def close(self) -> None:
        for kept in self._idle.values():
            for each in kept:
                each.child.close()
        self._idle.clear()

    def has(self, name: bytes) -> bool:
        return any(each.child.is_alive for each in self._idle.get(name, ()))

    @asynccontextmanager
    async def lease(self, name: bytes, allowance: Allowance, tables: int | None = None) -> AsyncIterator[Lease]:
        """An idle child of that `name`, or a new one, always where the bytes of its `tables` are given; `allowance` is for one
        task.
        """
        found = self._take(name) if tables is None else None
        if found is None:
            every = replace(allowance, cpu_seconds=MOST_JOBS * allowance.cpu_seconds)
            found = _Idle(await self.sandbox.start(every), 0, allowance.memory, tables or 0)
        lease = Lease(found.child, found.jobs > 0)
        try:
            yield lease
        except BaseException:
            lease.keep = False
            raise
        finally:
            found.jobs += 1
            fits = found.jobs < MOST_JOBS and found.tables <= self.most_tables // 4
            if lease.keep and fits and found.child.is_alive:
                self._idle.setdefault(name, []).append(found)
                self._idle.move_to_end(name)
                self._bound()
            else:
                found.child.close()

    def _take(self, name: bytes) -> _Idle | None:
        kept = self._idle.get(name, [])
        while kept:
            newest = kept.pop()
            if not kept:
                del self._idle[name]
            if newest.child.is_alive:
                return newest
            newest.child.close()
        return None

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
