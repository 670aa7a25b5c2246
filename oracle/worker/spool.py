"""Sealed outputs that storage does not have yet: ciphertext, kept beside the journal until it does.

An enclave holds its outputs in memory only (R1), so they would be lost with it and had to be computed again. What is kept here
survives a restart of enclave, worker and machine. A disk that takes nothing is no reason to lose them: then they stay in this
process' memory, under the same bounds. Nothing here is trusted: who reads checks every file by its digest.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from enclave_app.protocol.digests import sha256
from oracle.durable import sweep_temporaries, write_whole
from oracle.logs import Log

_NAME = re.compile(r"[0-9a-f]{64}")
MAX_RESULTS = 128
MAX_BYTES = 256 << 20


class Spool:
    """A folder for each task, in it a file for each ciphertext. `open` it before its first use.

    `max_results` and `max_bytes` bound all of it, on disk and in memory together."""

    def __init__(self, directory: Path, *, max_results: int = MAX_RESULTS, max_bytes: int = MAX_BYTES) -> None:
        self.directory = directory
        self._max_results, self._max_bytes = max_results, max_bytes
        self._sizes: dict[bytes, dict[bytes, int]] = {}
        self._memory: dict[tuple[bytes, bytes], bytes] = {}
        self._log = Log("worker.spool")

    @property
    def results(self) -> int:
        """Tasks of which something is kept."""
        return len(self._sizes)

    @property
    def size(self) -> int:
        """Bytes kept, on disk and in memory."""
        return sum(sum(files.values()) for files in self._sizes.values())

    def has_room(self) -> bool:
        """Whether another result may be computed: beyond the bounds its outputs would be in the enclave only."""
        return self.results < self._max_results and self.size < self._max_bytes

    def open(self) -> None:
        """Read what an earlier process left. A folder that cannot be read is empty."""
        self._sizes.clear()
        try:
            for folder in self.directory.iterdir():
                sweep_temporaries(folder)
                task_id = _read_name(folder.name)
                files = {_read_name(each.name): each.stat().st_size for each in folder.iterdir()}
                if task_id is not None and files:
                    self._sizes[task_id] = {digest: size for digest, size in files.items() if digest is not None}
        except FileNotFoundError:
            return
        except OSError as error:
            self._log.warning("the spool cannot be read", found=error.strerror)

    def tasks(self) -> tuple[bytes, ...]:
        """Ids of tasks of which something is kept."""
        return tuple(self._sizes)

    def has(self, task_id: bytes, digests: Collection[bytes]) -> bool:
        """Whether all of these files of a task are kept. Their content is looked at by `get` only."""
        return set(digests) <= self._sizes.get(task_id, {}).keys()

    async def keep(self, task_id: bytes, digest: bytes, data: bytes) -> bool:
        """Keep a file, durably where the disk takes it; returns whether there was room."""
        if self.has(task_id, (digest,)):
            return True
        fresh = task_id not in self._sizes
        if (fresh and self.results >= self._max_results) or self.size + len(data) > self._max_bytes:
            return False
        # Counted before it is written: others look for room meanwhile.
        self._sizes.setdefault(task_id, {})[digest] = len(data)
        try:
            await asyncio.to_thread(write_whole, self._path(task_id, digest), data)
        except OSError as error:
            self._memory[task_id, digest] = data
            self._log.warning("an output is kept in memory only", task=task_id.hex(), found=error.strerror)
        return True

    async def get(self, task_id: bytes, digest: bytes) -> bytes | None:
        """A kept file, checked; None where it is not kept, or is not what it was."""
        if not self.has(task_id, (digest,)):
            return None
        data = self._memory.get((task_id, digest))
        if data is None:
            try:
                data = await asyncio.to_thread(self._path(task_id, digest).read_bytes)
            except OSError:
                data = b""
        if sha256(data) == digest:
            return data
        self._log.warning("a kept output was lost or changed", task=task_id.hex(), file=digest.hex())
        self._sizes[task_id].pop(digest, None)
        return None

    async def drop(self, task_id: bytes) -> None:
        """The task needs its files no longer."""
        files = self._sizes.pop(task_id, None)
        if files is None:
            return
        for digest in files:
            self._memory.pop((task_id, digest), None)
        await asyncio.to_thread(shutil.rmtree, self.directory / task_id.hex(), ignore_errors=True)

    async def sweep(self, live: Collection[bytes]) -> int:
        """Drop what belongs to no task of `live`; returns how many tasks that were."""
        orphans = [task_id for task_id in self._sizes if task_id not in set(live)]
        for task_id in orphans:
            await self.drop(task_id)
        return len(orphans)

    def _path(self, task_id: bytes, digest: bytes) -> Path:
        return self.directory / task_id.hex() / digest.hex()


def _read_name(name: str) -> bytes | None:
    """What a folder or file is named by; None for one that is not of the spool."""
    return bytes.fromhex(name) if _NAME.fullmatch(name) else None
