"""The broker's log as anyone can read and check it: hash-chained, signed, one JSON line per entry (R13).

A line is the canonical JSON of {entry, signature}, and of a release the sealed answer, which the entry's statement names by its
digest: so the same answer can be given again after a crash. An entry's digest is SHA-256(tag("broker-log") ‖ its canonical
bytes), it holds the digest of the one before (zeros at first), and the broker's signing key signs it. Nothing in it is secret.

A long log is several files (`segments.py`), which follow each other as the entries do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import Document, check_depth, load, validate
from enclave_app.protocol.digests import parse_digest, sha256, tag
from enclave_app.protocol.fields import ZERO32, Address, Bytes, Bytes32, Uint8, Uint64, Uint256
from enclave_app.protocol.structs import ReleaseStatement
from oracle.errors import Refused
from oracle.keybroker.segments import files_of

MAX_LINE = 1 << 20
_ENTRY = b'{"entry":'
LOG_VERSION = 2
"""Version 1 had no sealed answers; its entries are read as they are."""


class Grown(Document):
    """A part that later versions gave more fields: what an older one left out is left out of its canonical form."""

    @model_serializer(mode="wrap")
    def _present(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class Started(Grown):
    """The broker started serving. The first entry of every log is one. `log` is the version of what follows."""

    kind: Literal["started"] = "started"
    broker: Bytes32
    version: str
    log: int | None = None


class Recovered(Document):
    """A crash left half a line, whose call was never answered; it was cut off."""

    kind: Literal["recovered"] = "recovered"
    cut_bytes: int
    cut_digest: Bytes32


class Segment(Document):
    """A file of the log that is closed: its first entry's number, and the digests of the file and of its index."""

    first: int = Field(ge=0)
    entries: int = Field(ge=1)
    size: int = Field(ge=1)
    file: Bytes32
    index: Bytes32


class Continued(Grown):
    """The first entry of every file but the first. `closed` are all files before it, in their order, and `refused_until` is
    what their `Restored` entries said."""

    kind: Literal["continued"] = "continued"
    log: int
    closed: tuple[Segment, ...] = Field(min_length=1)
    refused_until: Uint64 | None = None


class Restored(Grown):
    """The broker came back from a backup that knew `length` entries, the last of which was `head`.

    `refused_until`, in unix seconds, where the log was lost: tasks asked as of then or before get nothing any more.
    """

    kind: Literal["restored"] = "restored"
    broker: Bytes32
    length: int = Field(ge=0)
    head: Bytes32
    log: int
    refused_until: Uint64 | None = None


class Vanished(Document):
    """The chain dropped the block on which shares were released: what was released stays released."""

    kind: Literal["vanished"] = "vanished"
    task_id: Bytes32
    block_number: Uint64
    block_hash: Bytes32


class Released(Grown):
    """Shares went to an enclave. `keys` are the released key indexes, dataset by dataset; `question` is the digest of all
    that was asked with, so that the answer is given again to the same question and to no other."""

    kind: Literal["released"] = "released"
    statement: ReleaseStatement
    signature: Bytes
    tee: Uint8
    measurement: Bytes32
    platform: Bytes32
    operator: Address
    root: Bytes32
    anchor: Bytes32
    evidence_block: Bytes32
    datasets: tuple[Bytes32, ...]
    keys: tuple[tuple[int, ...], ...]
    question: Bytes32 | None = None
    chain_id: Uint256 | None = None


class OutputReleased(Document):
    """A share of a settled output went to an agreed recipient (R17)."""

    kind: Literal["output"] = "output"
    agreement_id: Bytes32
    task_id: Bytes32
    output: int
    output_id: Bytes32
    recipient: Bytes32
    signer: Address
    answer: Bytes32
    block_number: Uint64
    block_hash: Bytes32


Event = Annotated[
    Started | Recovered | Continued | Restored | Released | OutputReleased | Vanished, Field(discriminator="kind")
]


class Entry(Document):
    """`time` is the broker's clock in unix seconds."""

    seq: int = Field(ge=0)
    prev: Bytes32
    time: Uint64
    event: Event

    @property
    def digest(self) -> bytes:
        return sha256(tag("broker-log") + self.canonical())


class Line(Grown):
    """`sealed` is the answer of a release; the entry's statement holds its digest."""

    entry: Entry
    signature: Bytes
    sealed: Bytes | None = None


@dataclass(frozen=True)
class BadEntry:
    """The first line (from 1, in its file) at which a log stops being what its broker wrote."""

    line: int
    code: str
    message: str
    file: Path


@dataclass(frozen=True)
class LogReport:
    """What checking a log found. `length` and `head` (its last digest) cover the good part; `torn` counts bytes behind it.

    `first` is the number of the first entry that was there to check: above 0 where the files before it are archived.
    `good_bytes` are those of the last file.
    """

    length: int
    head: bytes
    releases: int
    outputs: int
    good_bytes: int
    torn: int
    first_bad: BadEntry | None
    first: int = 0

    @property
    def ok(self) -> bool:
        return self.first_bad is None


def verify_log(path: Path, signer: str, *, head: bytes | None = None, length: int | None = None) -> LogReport:
    """Check chain, sequence and every signature, file by file; the report names the first bad entry.

    Whole entries cut from the end leave no trace inside a log: `head` (the digest of an entry seen before, which must still
    be there) or `length` (how many there were at least) make that visible.
    """
    check = _Check(signer, head)
    for file in files_of(path):
        if not check.file(file):
            break
    return check.end(length)


@dataclass(frozen=True)
class Glimpse:
    """A line as its own broker reads it at its start: `value` is its JSON, `digest` the entry's, `start` and `length` where it
    lies in the file. The chain of digests covers every byte of the entries, so nothing of them is validated again."""

    value: Mapping[str, Any]
    digest: bytes
    start: int
    length: int

    @property
    def event(self) -> Mapping[str, Any]:
        event: Mapping[str, Any] = self.value["entry"]["event"]
        return event

    @property
    def has_answer(self) -> bool:
        return "sealed" in self.value and "question" in self.event


def check_file(path: Path, signer: str, note: Callable[[Glimpse], None]) -> LogReport:
    """The last file alone, as its broker does at its start, who is told each line: the last signature counts, because it covers
    all digests before it. Some twenty times as fast as `verify_log`."""
    previous, seq, first, good, torn = ZERO32, 0, 0, 0, 0
    bad: BadEntry | None = None
    signature, number = b"", 0
    for number, raw in enumerate(_lines(path), start=1):
        if not raw.endswith(b"\n"):
            torn, bad = len(raw), _torn(number, path)
            break
        try:
            seen = glimpse(raw, good)
            entry = seen.value["entry"]
            if not isinstance(entry["seq"], int):
                raise TypeError
            if number == 1 and seen.event["kind"] == "continued":
                first = seq = entry["seq"]
                previous = parse_digest(entry["prev"])
            _check_place(entry["seq"], parse_digest(entry["prev"]), seen.event["kind"], seq, previous)
            if "sealed" in seen.value:
                _check_answer(seen.event, seen.value["sealed"])
            signature = bytes.fromhex(seen.value["signature"][2:])
            note(seen)
        except Refused as error:
            bad = BadEntry(number, error.code, error.message, path)
            break
        except (KeyError, TypeError, ValueError):
            bad = BadEntry(number, "document.invalid", "not a line of a broker's log", path)
            break
        previous, seq, good = seen.digest, seq + 1, good + len(raw)
    if good and (bad is None or torn):
        try:
            signing.check(previous, signature, signer, f"log entry {seq - 1}")
        except Refused as error:
            bad = BadEntry(number, error.code, error.message, path)
    return LogReport(seq, previous, 0, 0, good, torn, bad, first)


def glimpse(raw: bytes, start: int) -> Glimpse:
    """A line with its end. Raises Refused `json.*`, `log.version`."""
    check_depth(raw)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused("json.syntax", "a log line is no JSON") from None
    _check_version(value)
    # In canonical form `entry` comes first, and what follows it holds no brace.
    end = raw.rindex(b"}", 0, len(raw) - 2) + 1 if raw.count(b"}") > 1 else 0
    return Glimpse(value, sha256(tag("broker-log") + raw[len(_ENTRY) : end]), start, len(raw))


def read_log(path: Path, *, task_id: bytes | None = None) -> Iterator[Entry]:
    """The entries, unverified, optionally of one task; a torn last line is left out."""
    for file in files_of(path):
        for raw in _lines(file):
            if raw.endswith(b"\n"):
                entry = read_line(raw).entry
                if task_id is None or task_of(entry) == task_id:
                    yield entry


def read_line(raw: bytes) -> Line:
    """One line with its end. Raises Refused `log.version` where a newer broker wrote it, and what `parse` raises."""
    value = load(raw[:-1], limit=MAX_LINE)
    _check_version(value)
    line = validate(Line, value)
    if line.canonical() != raw[:-1]:
        raise Refused("document.canonical", "a log line is not written in its one form")
    return line


def task_of(entry: Entry) -> bytes | None:
    if isinstance(entry.event, Released):
        return entry.event.statement.task_id
    return entry.event.task_id if isinstance(entry.event, OutputReleased | Vanished) else None


def _check_version(value: Any) -> None:
    """A newer broker says so in the entry with which it starts, before all that this one may not know."""
    event = value.get("entry", {}) if isinstance(value, dict) else {}
    event = event.get("event", {}) if isinstance(event, dict) else {}
    version = event.get("log") if isinstance(event, dict) else None
    if isinstance(version, int) and version > LOG_VERSION:
        raise Refused(
            "log.version",
            "a newer broker wrote this log",
            found=f"version {version}",
            expected=f"at most version {LOG_VERSION}",
            hint="Start the newer program; an older one would forget what it does not know",
        )


class _Check:
    def __init__(self, signer: str, head: bytes | None) -> None:
        self._signer, self._head = signer, head
        self._previous, self._seq, self._first = ZERO32, 0, 0
        self._releases = self._outputs = self._good = self._torn = self._number = 0
        self._path = Path()
        self._bad: BadEntry | None = None
        self._seen_head = head is None

    def file(self, path: Path) -> bool:
        """Whether the log is good to the end of this file."""
        self._path, self._good, self._number = path, 0, 0
        for number, raw in enumerate(_lines(path), start=1):
            if not raw.endswith(b"\n"):
                self._torn, self._bad = len(raw), _torn(number, path)
                return False
            try:
                self._take(read_line(raw), first_line=number == 1)
            except Refused as error:
                self._bad = BadEntry(number, error.code, error.message, path)
                return False
            self._good, self._number = self._good + len(raw), number
        return True

    def _take(self, line: Line, *, first_line: bool) -> None:
        entry, event = line.entry, line.entry.event
        if self._seq == 0 and isinstance(event, Continued):
            # The files before are archived; their digests are in this entry.
            self._first = self._seq = entry.seq
            self._previous = entry.prev
            self._seen_head = self._seen_head or entry.prev == self._head
        _check_place(entry.seq, entry.prev, event.kind, self._seq, self._previous)
        if isinstance(event, Continued) and not first_line:
            raise Refused("log.segment", "a file of the log begins in the middle of another")
        if line.sealed is not None:
            answer = event.statement.answer if isinstance(event, Released) else None
            if sha256(line.sealed) != answer:
                raise _other_answer()
        signing.check(entry.digest, line.signature, self._signer, f"log entry {self._seq}")
        self._previous, self._seq = entry.digest, self._seq + 1
        self._seen_head = self._seen_head or self._previous == self._head
        self._releases += isinstance(event, Released)
        self._outputs += isinstance(event, OutputReleased)

    def end(self, length: int | None) -> LogReport:
        cut = not self._seen_head or (length is not None and self._seq < length)
        if cut and (self._bad is None or self._torn):
            message = "entries that were there before are gone from the log's end"
            self._bad = BadEntry(self._number + 1, "log.shortened", message, self._path)
        return LogReport(
            self._seq, self._previous, self._releases, self._outputs, self._good, self._torn, self._bad, self._first
        )


def _torn(number: int, path: Path) -> BadEntry:
    return BadEntry(number, "log.torn", "the last line is cut short; the broker cuts it off when it starts", path)


def _check_place(seq: int, prev: bytes, kind: str, expected: int, previous: bytes) -> None:
    """R13: the log is one chain, from its start."""
    if seq != expected:
        raise Refused("log.sequence", "a log entry has the wrong number", found=seq, expected=expected)
    if prev != previous:
        raise Refused("log.chain", "a log entry does not follow the one before it", found=prev.hex()[:16])
    if seq == 0 and kind != "started":
        raise Refused("log.start", "a log does not begin with its broker's start")


def _check_answer(event: Mapping[str, Any], sealed: str) -> None:
    """An answer lies outside its entry, which names it by its digest: one that was changed is never given (R13)."""
    # What is no release has no statement: a KeyError, and no line of a log.
    if sha256(bytes.fromhex(sealed[2:])) != parse_digest(event["statement"]["answer"]):
        raise _other_answer()


def _other_answer() -> Refused:
    return Refused("log.answer", "a log line holds another answer than its entry says")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LINE + 1):
                yield raw
    except FileNotFoundError:
        raise Refused("log.missing", f"there is no log at {path}") from None
