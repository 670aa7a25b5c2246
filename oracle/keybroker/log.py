"""The broker's log as anyone can read and check it: hash-chained, signed, one JSON line per entry (R13).

A line is the canonical JSON of {entry, signature}. An entry's digest is SHA-256(tag("broker-log") ‖ its canonical bytes), it
holds the digest of the one before (zeros at first), and the broker's signing key signs it. Nothing in it is secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.digests import sha256, tag
from enclave_app.protocol.fields import ZERO32, Address, Bytes, Bytes32, Uint8, Uint64
from enclave_app.protocol.structs import ReleaseStatement
from oracle.errors import Refused

MAX_LINE = 1 << 20


class Started(Document):
    """The broker started serving. The first entry of every log is one."""

    kind: Literal["started"] = "started"
    broker: Bytes32
    version: str


class Recovered(Document):
    """A crash left half a line, whose call was never answered; it was cut off."""

    kind: Literal["recovered"] = "recovered"
    cut_bytes: int
    cut_digest: Bytes32


class Released(Document):
    """Shares went to an enclave. `keys` are the released key indexes, dataset by dataset."""

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


Event = Annotated[Started | Recovered | Released | OutputReleased, Field(discriminator="kind")]


class Entry(Document):
    """`time` is the broker's clock in unix seconds."""

    seq: int = Field(ge=0)
    prev: Bytes32
    time: Uint64
    event: Event

    @property
    def digest(self) -> bytes:
        return sha256(tag("broker-log") + self.canonical())


class Line(Document):
    entry: Entry
    signature: Bytes


@dataclass(frozen=True)
class BadEntry:
    """The first line (from 1) at which a log stops being what its broker wrote."""

    line: int
    code: str
    message: str


@dataclass(frozen=True)
class LogReport:
    """What checking a log found. `length` and `head` (its last digest) cover the good part; `torn` counts bytes behind it."""

    length: int
    head: bytes
    releases: int
    outputs: int
    good_bytes: int
    torn: int
    first_bad: BadEntry | None

    @property
    def ok(self) -> bool:
        return self.first_bad is None


def verify_log(path: Path, signer: str, *, head: bytes | None = None, length: int | None = None) -> LogReport:
    """Check chain, sequence and every signature; the report names the first bad entry.

    Whole entries cut from the end leave no trace inside a log: `head` (the digest of an entry seen before, which must still
    be there) or `length` (how many there were at least) make that visible.
    """
    return _check(path, signer, head, length, every_signature=True)


def check_at_start(path: Path, signer: str) -> LogReport:
    """The same for the broker itself: the last signature alone, because it covers all digests before it."""
    return _check(path, signer, None, None, every_signature=False)


def read_log(path: Path, *, task_id: bytes | None = None) -> Iterator[Entry]:
    """The entries, unverified, optionally of one task; a torn last line is left out."""
    for raw in _lines(path):
        if raw.endswith(b"\n"):
            entry = parse(Line, raw[:-1], limit=MAX_LINE).entry
            if task_id is None or _task(entry) == task_id:
                yield entry


def _task(entry: Entry) -> bytes | None:
    if isinstance(entry.event, Released):
        return entry.event.statement.task_id
    return entry.event.task_id if isinstance(entry.event, OutputReleased) else None


def _check(path: Path, signer: str, head: bytes | None, length: int | None, *, every_signature: bool) -> LogReport:
    previous, seq, releases, outputs, good, torn = ZERO32, 0, 0, 0, 0, 0
    bad: BadEntry | None = None
    seen_head = head is None
    last: Line | None = None
    for raw in _lines(path):
        if not raw.endswith(b"\n"):
            torn = len(raw)
            bad = BadEntry(seq + 1, "log.torn", "the last line is cut short; the broker cuts it off when it starts")
            break
        try:
            line = parse(Line, raw[:-1], limit=MAX_LINE)
            _check_entry(line.entry, seq, previous)
            if every_signature:
                signing.check(line.entry.digest, line.signature, signer, f"log entry {seq}")
        except Refused as error:
            bad = BadEntry(seq + 1, error.code, error.message)
            break
        last = line
        previous, seq, good = line.entry.digest, seq + 1, good + len(raw)
        seen_head = seen_head or previous == head
        releases += isinstance(line.entry.event, Released)
        outputs += isinstance(line.entry.event, OutputReleased)
    if bad is None or bad.code == "log.torn":
        bad = _check_end(last, seq, signer, seen_head, length) or bad
    return LogReport(seq, previous, releases, outputs, good, torn, bad)


def _check_entry(entry: Entry, seq: int, previous: bytes) -> None:
    """R13: the log is one chain, from its start."""
    if entry.seq != seq:
        raise Refused("log.sequence", "a log entry has the wrong number", found=entry.seq, expected=seq)
    if entry.prev != previous:
        raise Refused("log.chain", "a log entry does not follow the one before it", found=entry.prev.hex()[:16])
    if seq == 0 and not isinstance(entry.event, Started):
        raise Refused("log.start", "a log does not begin with its broker's start")


def _check_end(last: Line | None, seq: int, signer: str, seen_head: bool, length: int | None) -> BadEntry | None:
    try:
        if last is not None:
            signing.check(last.entry.digest, last.signature, signer, f"log entry {seq - 1}")
    except Refused as error:
        return BadEntry(seq, error.code, error.message)
    if not seen_head or (length is not None and seq < length):
        return BadEntry(seq + 1, "log.shortened", "entries that were there before are gone from the log's end")
    return None


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LINE + 1):
                yield raw
    except FileNotFoundError:
        raise Refused("log.missing", f"there is no log at {path}") from None
