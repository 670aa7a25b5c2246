"""Small tables that were decoded for one task and serve the next that would decode the same: many requests of one agreement
read the same data, and decoding it costs most of what a small task does.

What is kept opens for a task only with every key that decoding would take (R12): they come from that task's own releases,
and are a part of the name that a table is found by. Bounded by bytes, never by a clock (R14).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from enclave_app.protocol.digests import sha256
from enclave_app.sandbox.memory import MemoryFile


class DecodedTables:
    """Sealed tables by the decoding that made them, the least recently used dropped first beyond `most` bytes; none is kept
    that needs more than a quarter of them."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[bytes, tuple[MemoryFile, ...]] = OrderedDict()

    def get(self, job: Mapping[str, Any], stack: ExitStack) -> list[MemoryFile] | None:
        """The tables that `job` would make, open until `stack` closes; None where they are not here."""
        name = _name(job)
        found = self._kept.get(name)
        if found is None:
            return None
        self._kept.move_to_end(name)
        # Descriptors of their own: these here may be dropped while a task reads.
        return [stack.enter_context(table.again()) for table in found]

    def keep(self, job: Mapping[str, Any], tables: Sequence[MemoryFile]) -> None:
        """`tables` are what `job` made, sealed."""
        size, name = sum(table.size for table in tables), _name(job)
        if size > self._most // 4 or name in self._kept:
            return
        self._kept[name] = tuple(table.again() for table in tables)
        self._size += size
        while self._size > self._most:
            _, dropped = self._kept.popitem(last=False)
            for table in dropped:
                self._size -= table.size
                table.close()


def _name(job: Mapping[str, Any]) -> bytes:
    # Manifests with their digests of all content, the columns, and the keys themselves.
    return sha256(json.dumps(job, sort_keys=True, separators=(",", ":")).encode())
