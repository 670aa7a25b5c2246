"""Writing the log, and what it says about caps and answers: nothing leaves a broker before its entry is on the disk (R13)."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256 as hasher
from pathlib import Path

from enclave_app.protocol.digests import parse_digest, sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.signing import SigningKey
from oracle.errors import Refused, Retryable
from oracle.keybroker.copies import catch_up, sync_directory, undo_half_rotation, write_file
from oracle.keybroker.log import (
    LOG_VERSION,
    Continued,
    Entry,
    Event,
    Glimpse,
    Line,
    Recovered,
    Released,
    Restored,
    Segment,
    Started,
    check_file,
    read_line,
)
from oracle.keybroker.segments import SEGMENT_BYTES, Counts, Index, closed_files, closed_name, index_name, place_of
from oracle.logs import Log

KEPT_ANSWERS = 1 << 16
"""How many answers are found again. A question is repeated within minutes; an older one counts as a release of its own."""
KEPT_BLOCKS = 1024


@dataclass(frozen=True)
class Rotation:
    """The file that grows is closed, and the next begins with `line`."""

    segment: Segment
    index: bytes
    line: bytes


class Ledger:
    """An open log. One process holds it; entries are chained in the order of their calls and share an fsync when they can.

    `copies` are directories, best on other disks, which have each entry before it counts as written.
    """

    def __init__(
        self, path: Path, key: SigningKey, clock: Callable[[], float], copies: Sequence[Path], segment_bytes: int
    ) -> None:
        self.path, self._key, self._clock = path, key, clock
        self._copies, self._segment_bytes = tuple(copies), segment_bytes
        self._descriptors: list[int] = []
        self._lock = -1
        self._seq, self._head, self._size = 0, ZERO32, 0
        self._closed: tuple[Segment, ...] = ()
        self._hash = hasher()
        self._counts = Counts([])
        self._answers: OrderedDict[bytes, tuple[int, int, int]] = OrderedDict()
        self._waiting: list[tuple[bytes | Rotation, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._broken = False
        self._renaming = threading.Lock()
        self.released_on: OrderedDict[tuple[int, int, bytes], list[bytes]] = OrderedDict()
        """Tasks by the block on which they were released, (chain id, number, hash), of the last file when this one started."""
        self.refused_until = 0
        """Unix seconds: tasks asked as of then or before are of a time whose log was lost."""

    @classmethod
    async def open(
        cls,
        path: Path,
        key: SigningKey,
        broker: bytes,
        version: str,
        clock: Callable[[], float],
        *,
        copies: Sequence[Path] = (),
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Ledger:
        """Take the log for this process, check it, cut a torn end off, bring the copies up to it, and note the start.

        Raises Refused where the log was changed or a copy has more of it, Retryable where another process holds it.
        """
        ledger = cls(path, key, clock, copies, segment_bytes)
        try:
            torn = await asyncio.to_thread(ledger._take)
            await ledger.append(Started(broker=broker, version=version, log=LOG_VERSION))
            if torn:
                await ledger.append(Recovered(cut_bytes=len(torn), cut_digest=sha256(torn)))
        except BaseException:
            ledger._let_go()
            raise
        return ledger

    @property
    def entries(self) -> int:
        return self._seq

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._size + sum(each.size for each in self._closed)

    @property
    def is_writable(self) -> bool:
        return not self._broken

    def released(self, task_id: bytes, platform: bytes) -> int:
        """How many releases this log holds for a task and a platform, those before a restart included."""
        return self._counts[place_of(task_id, platform)]

    async def answered(self, question: bytes) -> Line | None:
        """The entry of the release that answered this very question, once it is on the disk; None where there was none."""
        place = self._answers.get(question)
        if place is None:
            return None
        while self._flusher is not None:
            await asyncio.shield(self._flusher)
        if self._broken:
            raise _broken()
        line = await asyncio.to_thread(self._read, *place)
        event = line.entry.event
        # The files are ours, and were checked; a disk may still give other bytes than it took.
        if not isinstance(event, Released) or event.question != question or line.sealed is None:
            raise Retryable("log.answer", "the log does not hold the answer that it should", hint="Check its disk")
        return line

    async def append_release(self, event: Released, cap: int, sealed: bytes | None = None) -> None:
        """Append if fewer than `cap` releases stand for its (task, platform); raises Refused otherwise (R13)."""
        place = place_of(event.statement.task_id, event.platform)
        if self._counts[place] >= cap:
            raise Refused(
                "release.cap", "this broker has released this task to this platform as often as agreed", expected=cap
            )
        # Counted before the write, so that two calls at once cannot both be the last one.
        self._counts.growing[place] += 1
        await self.append(event, sealed)

    async def append(self, event: Event, sealed: bytes | None = None) -> None:
        """Append an entry; returns once it is on the disk. Raises Retryable if the disk fails, and then for ever."""
        if self._broken:
            raise _broken()
        line = self._line(event, sealed)
        if isinstance(event, Released) and event.question is not None and sealed is not None:
            self._remember(event.question, self._first, self._size, len(line))
        elif isinstance(event, Restored):
            self.refused_until = max(self.refused_until, event.refused_until or 0)
        self._grow(line)
        written = self._write_soon(line)
        if self._size >= self._segment_bytes:
            self._rotate_soon()
        await asyncio.shield(written)

    @property
    def _first(self) -> int:
        return self._closed[-1].first + self._closed[-1].entries if self._closed else 0

    def _line(self, event: Event, sealed: bytes | None = None) -> bytes:
        entry = Entry(seq=self._seq, prev=self._head, time=int(self._clock()), event=event)
        digest = entry.digest
        self._seq, self._head = self._seq + 1, digest
        return Line(entry=entry, signature=self._key.sign(digest), sealed=sealed).canonical() + b"\n"

    def _grow(self, line: bytes) -> None:
        self._hash.update(line)
        self._size += len(line)

    def _remember(self, question: bytes, first: int, start: int, length: int) -> None:
        self._answers[question] = first, start, length
        if len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)

    def _write_soon(self, item: bytes | Rotation) -> asyncio.Future[None]:
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((item, written))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        return written

    def _rotate_soon(self) -> None:
        """Close the file that grows behind all that waits to be written into it, and begin the next one."""
        index = self._counts.close_file()
        first = self._first
        segment = Segment(
            first=first,
            entries=self._seq - first,
            size=self._size,
            file=self._hash.digest(),
            index=sha256(index),
        )
        self._closed = (*self._closed, segment)
        line = self._line(Continued(log=LOG_VERSION, closed=self._closed, refused_until=self.refused_until or None))
        self._hash, self._size = hasher(), 0
        self._grow(line)
        self._write_soon(Rotation(segment, index, line))

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                failed = self._broken or not await asyncio.to_thread(self._write_all, [item for item, _ in batch])
                self._broken = failed
                for _, written in batch:
                    if failed:
                        written.set_exception(_broken())
                        written.exception()  # whoever called may be gone; that is no unheard error
                    else:
                        written.set_result(None)
        finally:
            self._flusher = None

    def _write_all(self, items: Sequence[bytes | Rotation]) -> bool:
        try:
            lines: list[bytes] = []
            for item in items:
                if isinstance(item, bytes):
                    lines.append(item)
                else:
                    self._write(b"".join(lines))
                    lines.clear()
                    self._rotate(item)
            self._write(b"".join(lines))
        except Exception as error:  # whatever it is, nobody may wait for an entry that will not come
            # After a failed write or fsync nobody knows what the disk holds; a restart looks.
            Log("keybroker.ledger").error("the log cannot be written", error, code="log.disk")
            return False
        return True

    def _write(self, data: bytes) -> None:
        # One after the other: a copy never has what the log itself has not.
        for descriptor in self._descriptors:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)

    def _rotate(self, rotation: Rotation) -> None:
        first = rotation.segment.first
        for number, path in enumerate(self._paths()):
            write_file(index_name(path, first), rotation.index)
            with self._renaming:
                path.rename(closed_name(path, first))
                write_file(path, rotation.line)
            sync_directory(path.parent)
            os.close(self._descriptors[number])
            self._descriptors[number] = os.open(path, os.O_RDWR | os.O_APPEND)
        closed = next(n for n, each in enumerate(self._closed) if each.first == first)
        self._counts.on_disk(closed, index_name(self.path, first))

    def _paths(self) -> list[Path]:
        return [self.path, *(copy / self.path.name for copy in self._copies)]

    def _take(self) -> bytes:
        """Everything that is done before the first entry; gives what a crash left of one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Retryable("log.in_use", f"another process writes {self.path}") from None
        undo_half_rotation(self.path)
        torn = self._read_growing()
        self._read_closed()
        for path in self._paths()[1:]:
            catch_up(self.path, path)
        self._descriptors = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) for path in self._paths()]
        for path in self._paths():
            sync_directory(path.parent)
        return torn

    def _read_growing(self) -> bytes:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            report = check_file(self.path, self._key.address, self._note)
            if report.first_bad is not None and report.first_bad.code == "log.version":
                raise Refused("log.version", report.first_bad.message)
            if report.first_bad is not None and report.first_bad.code != "log.torn":
                raise _changed(self.path, f"{report.first_bad.code} at line {report.first_bad.line}")
            torn = os.pread(descriptor, report.torn, report.good_bytes)
            self._seq, self._head, self._size = report.length, report.head, report.good_bytes
            with self.path.open("rb") as file:
                while chunk := file.read(min(1 << 20, max(0, report.good_bytes - file.tell()))):
                    self._hash.update(chunk)
            if torn:
                os.ftruncate(descriptor, report.good_bytes)
                os.fsync(descriptor)
            return torn
        finally:
            os.close(descriptor)

    def _note(self, seen: Glimpse) -> None:
        event = seen.event
        if event["kind"] == "continued":
            self._closed = tuple(Segment.model_validate(each) for each in event["closed"])
            # Read before anything else is counted: what is remembered of the file before comes first.
            self._read_last_closed()
        if event["kind"] == "released":
            task_id = parse_digest(event["statement"]["taskId"])
            self._counts.growing[place_of(task_id, parse_digest(event["platform"]))] += 1
            if seen.has_answer:
                self._remember(parse_digest(event["question"]), self._first, seen.start, seen.length)
            if "chainId" in event:
                said = event["statement"]
                place = int(event["chainId"]), int(said["blockNumber"]), parse_digest(said["blockHash"])
                self.released_on.setdefault(place, []).append(task_id)
                if len(self.released_on) > KEPT_BLOCKS:
                    self.released_on.popitem(last=False)
        if event["kind"] == "vanished":
            number, block_hash = int(event["blockNumber"]), parse_digest(event["blockHash"])
            for place in [each for each in self.released_on if each[1:] == (number, block_hash)]:
                del self.released_on[place]
        self.refused_until = max(self.refused_until, int(event.get("refusedUntil", 0)))

    def _read_closed(self) -> None:
        """R13: the closed files are those that the log's own entry names. Entries may be archived, indexes not."""
        present = dict(closed_files(self.path))
        unknown = set(present) - {each.first for each in self._closed}
        if unknown:
            raise _changed(self.path, f"{present[min(unknown)].name}, of which its entries say nothing")
        indexes = []
        for each in self._closed:
            if each.first in present and _digest(present[each.first]) != each.file:
                raise _changed(present[each.first], "another digest than the log's entries say")
            path = index_name(self.path, each.first)
            try:
                index = Index.mapped(path)
            except OSError:
                raise _changed(path, "no index, which counts the releases") from None
            if index.digest != each.index:
                raise _changed(path, "another digest than the log's entries say")
            indexes.append(index)
        growing = self._counts.growing
        self._counts = Counts(indexes)
        self._counts.growing = growing

    def _read_last_closed(self) -> None:
        """The answers of the file before: a crash may come right behind its end."""
        last = self._closed[-1]
        path = closed_name(self.path, last.first)
        if not path.exists():
            return

        def note(seen: Glimpse) -> None:
            if seen.event["kind"] == "released" and seen.has_answer:
                self._remember(parse_digest(seen.event["question"]), last.first, seen.start, seen.length)

        report = check_file(path, self._key.address, note)
        if report.first_bad is not None:
            raise _changed(path, f"{report.first_bad.code} at line {report.first_bad.line}")

    def _read(self, first: int, start: int, length: int) -> Line:
        closed = closed_name(self.path, first)
        with self._renaming, (closed if closed.exists() else self.path).open("rb") as file:
            data = os.pread(file.fileno(), length, start)
        return read_line(data)

    async def close(self) -> None:
        while self._flusher is not None:
            await self._flusher
        self._broken = True
        self._let_go()

    def _let_go(self) -> None:
        for descriptor in [*self._descriptors, self._lock]:
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptors, self._lock = [], -1


def _digest(path: Path) -> bytes:
    digest = hasher()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def _changed(path: Path, found: str) -> Refused:
    return Refused(
        "log.changed",
        f"the log {path} is not what this broker wrote",
        found=found,
        hint="Check it with `oracle keybroker log verify`; the broker does not release over a broken log",
    )


def _broken() -> Retryable:
    return Retryable(
        "log.disk", "the broker cannot write its log, so it releases nothing", hint="Mend the disk; restart"
    )
