"""Writing the log, and what it says about caps: nothing leaves a broker before its entry is on the disk (R13)."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.signing import SigningKey
from oracle.errors import Refused, Retryable
from oracle.keybroker.log import Entry, Event, Line, Recovered, Released, Started, check_at_start, read_log


class Ledger:
    """An open log. One process holds it; entries are chained in the order of their calls and share an fsync when they can."""

    def __init__(self, descriptor: int, key: SigningKey, clock: Callable[[], float], seq: int, head: bytes) -> None:
        self._descriptor, self._key, self._clock = descriptor, key, clock
        self._seq, self._head = seq, head
        self._releases: Counter[tuple[bytes, bytes]] = Counter()
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._broken = False

    @classmethod
    async def open(cls, path: Path, key: SigningKey, broker: bytes, version: str, clock: Callable[[], float]) -> Ledger:
        """Take the log for this process, check it, cut a torn end off, and note the start.

        Raises Refused where the log was changed, Retryable where another process holds it.
        """
        ledger, torn = await asyncio.to_thread(cls._take, path, key, clock)
        try:
            await ledger.append(Started(broker=broker, version=version))
            if torn:
                await ledger.append(Recovered(cut_bytes=len(torn), cut_digest=sha256(torn)))
        except BaseException:
            os.close(ledger._descriptor)
            raise
        return ledger

    @classmethod
    def _take(cls, path: Path, key: SigningKey, clock: Callable[[], float]) -> tuple[Ledger, bytes]:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Retryable("log.in_use", f"another process writes {path}") from None
            report = check_at_start(path, key.address)
            if report.first_bad is not None and report.first_bad.code != "log.torn":
                raise Refused(
                    "log.changed",
                    f"the log {path} is not what this broker wrote: {report.first_bad.message}",
                    found=f"{report.first_bad.code} at line {report.first_bad.line}",
                    hint="Check it with `oracle keybroker log verify`; the broker does not release over a broken log",
                )
            torn = os.pread(descriptor, report.torn, report.good_bytes)
            ledger = cls(descriptor, key, clock, report.length, report.head if report.length else ZERO32)
            for entry in read_log(path):
                if isinstance(entry.event, Released):
                    ledger._releases[entry.event.statement.task_id, entry.event.platform] += 1
            if torn:
                os.ftruncate(descriptor, report.good_bytes)
                os.fsync(descriptor)
            _sync_directory(path.parent)
            return ledger, torn
        except BaseException:
            os.close(descriptor)
            raise

    def released(self, task_id: bytes, platform: bytes) -> int:
        """How many releases this log holds for a task and a platform, those before a restart included."""
        return self._releases[task_id, platform]

    async def append_release(self, event: Released, cap: int) -> None:
        """Append a release if it is within the agreement's cap for (task, platform); raises Refused otherwise (R13)."""
        place = event.statement.task_id, event.platform
        if self._releases[place] >= cap:
            raise Refused(
                "release.cap", "this broker has released this task to this platform as often as agreed", expected=cap
            )
        # Counted before the write, so that two calls at once cannot both be the last one.
        self._releases[place] += 1
        await self.append(event)

    async def append(self, event: Event) -> None:
        """Append an entry; returns once it is on the disk. Raises Retryable if the disk fails, and then for ever."""
        if self._broken:
            raise _broken()
        entry = Entry(seq=self._seq, prev=self._head, time=int(self._clock()), event=event)
        digest = entry.digest
        line = Line(entry=entry, signature=self._key.sign(digest)).canonical() + b"\n"
        self._seq, self._head = self._seq + 1, digest
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((line, written))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        await asyncio.shield(written)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                failed = self._broken or not await asyncio.to_thread(self._write, b"".join(line for line, _ in batch))
                self._broken = failed
                for _, written in batch:
                    if failed:
                        written.set_exception(_broken())
                        written.exception()  # whoever called may be gone; that is no unheard error
                    else:
                        written.set_result(None)
        finally:
            self._flusher = None

    def _write(self, data: bytes) -> bool:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            # After a failed write or fsync nobody knows what the disk holds; a restart looks.
            return False
        return True

    async def close(self) -> None:
        if self._flusher is not None:
            await self._flusher
        self._broken = True
        os.close(self._descriptor)


def _broken() -> Retryable:
    return Retryable(
        "log.disk", "the broker cannot write its log, so it releases nothing", hint="Mend the disk; restart"
    )


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
