"""A broker's keys as one file, and a broker made from it again: never without its log, which counts what it released (R13).

The keys in a backup are as they lie in the broker's directory, under its password. Beside them is how far the log was, signed: a
log that is older than that is refused.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.digests import sha256, tag
from enclave_app.protocol.fields import ZERO32, Bytes, Bytes32, Uint64
from oracle.card import CARD, BrokerCard
from oracle.errors import Refused
from oracle.files import read_file, within
from oracle.keybroker.copies import copy_file, sync_directory
from oracle.keybroker.keys import HPKE_FILE, LOG_FILE, SIGNER_FILE, BrokerKeys, load
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.log import LOG_VERSION, LogReport, Restored, verify_log
from oracle.keybroker.segments import closed_files, closed_name
from oracle.passwords import write_secret

MAX_BACKUP, MAX_KEY_FILE = 1 << 20, 1 << 17
LOST_MARGIN = 60
"""Seconds by which a chain's clock may be ahead of ours; tasks of that time are refused with those before a loss."""
TRIES = 3
"""A broker that runs may close a file of its log while it is read."""


class Content(Document):
    """`length` and `head` (the digest of the last entry, zeros for none) are how far the log was at `time`, unix seconds."""

    format: Literal["enclave-oracle/broker-backup"] = "enclave-oracle/broker-backup"
    v: Literal[1] = 1
    card: BrokerCard
    hpke: Bytes = Field(max_length=MAX_KEY_FILE)
    signer: Bytes = Field(max_length=MAX_KEY_FILE)
    length: int = Field(ge=0)
    head: Bytes32
    time: Uint64

    @property
    def digest(self) -> bytes:
        return sha256(tag("broker-backup") + self.canonical())


class Backup(Document):
    """What a backup file holds. The broker's signing key signs the digest of its content."""

    content: Content
    signature: Bytes


@dataclass(frozen=True)
class RestoredBroker:
    """`refused_until` in unix seconds, 0 where the log is whole: tasks asked as of then or before get nothing any more."""

    card: BrokerCard
    entries: int
    refused_until: int


def back_up(directory: Path, out: Path, password: str, *, clock: Callable[[], float] = time.time) -> Content:
    """Write the keys of a broker, which may be running, to a new file `out`.

    Raises Refused for a wrong password, a log that is not whole, or a file that is there already.
    """
    keys = load(directory, password)
    report = _whole(directory / LOG_FILE, keys.card)
    content = Content(
        card=keys.card,
        hpke=read_file(directory / HPKE_FILE, MAX_KEY_FILE),
        signer=read_file(directory / SIGNER_FILE, MAX_KEY_FILE),
        length=0 if report is None else report.length,
        head=ZERO32 if report is None else report.head,
        time=int(clock()),
    )
    backup = Backup(content=content, signature=keys.signing.sign(content.digest))
    write_secret(out, backup.canonical() + b"\n")
    return content


def read_backup(path: Path) -> Content:
    """What a backup holds, checked to be whole and its broker's own. Raises Refused `backup.*`."""
    data = read_file(path, MAX_BACKUP)
    backup = parse(Backup, data.removesuffix(b"\n"), limit=MAX_BACKUP)
    content = backup.content
    content.card.public_key()
    try:
        signing.check(content.digest, backup.signature, content.card.signer, "a backup")
    except Refused as refusal:
        raise Refused("backup.signature", f"the backup is not what its broker wrote: {refusal.message}") from None
    return content


def restore(
    file: Path,
    directory: Path,
    password: str,
    *,
    log: Path | None,
    accept_lost_log: bool = False,
    clock: Callable[[], float] = time.time,
) -> RestoredBroker:
    """Make a broker in a new `directory` from a backup and its log, a broker's directory, a copy's, or the file itself.

    Raises Refused `log.needed` without a log, `log.shortened` for one that is older than the backup, `signature.signer` for
    another broker's. With `accept_lost_log` what there is of it is taken, and no task of before is released any more.
    """
    content = read_backup(file)
    if log is None and not accept_lost_log:
        raise Refused(
            "log.needed",
            "a broker without its log could release beyond its caps",
            expected=f"a log of at least {content.length} entries",
            hint="Give it, or a copy, with --log; --accept-lost-log goes on without, and refuses all tasks of before",
        )
    if directory.exists() and any(directory.iterdir()):
        raise Refused("broker.exists", f"{directory} is not empty", hint="Give a new directory")
    source = None if log is None else within(log, LOG_FILE)
    if source is not None:
        _check_log(source, content, accept_lost_log)
    beside = directory.with_name(directory.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True, mode=0o700)
    try:
        keys = _put_keys(beside, content, password)
        if source is not None:
            _copy_log(source, beside / LOG_FILE)
        refused_until = int(clock()) + LOST_MARGIN if accept_lost_log else 0
        said = Restored(
            broker=keys.card.digest,
            length=content.length,
            head=content.head,
            log=LOG_VERSION,
            refused_until=refused_until or None,
        )
        entries = asyncio.run(_note(beside / LOG_FILE, keys, said, clock))
        if directory.exists():
            directory.rmdir()
        beside.rename(directory)
        sync_directory(directory.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return RestoredBroker(keys.card, entries, refused_until)


def archive(path: Path, signer: str, to: Path) -> list[Path]:
    """Move the closed files of a log that verifies to the folder `to`, but for the last of them, whose answers may be asked
    for again. Their indexes stay, so caps count on. Gives the files' new places."""
    report = verify_log(path, signer)
    if report.first_bad is not None and report.first_bad.code != "log.torn":
        raise Refused(report.first_bad.code, f"{report.first_bad.file}: {report.first_bad.message}")
    to.mkdir(parents=True, exist_ok=True)
    moved = []
    for first, file in closed_files(path)[:-1]:
        target = closed_name(to / path.name, first)
        copy_file(file, target)
        sync_directory(to)
        file.unlink()
        moved.append(target)
    return moved


async def _note(log: Path, keys: BrokerKeys, said: Restored, clock: Callable[[], float]) -> int:
    ledger = await Ledger.open(log, keys.signing, keys.card.digest, "restore", clock)
    try:
        await ledger.append(said)
        return ledger.entries
    finally:
        await ledger.close()


def _whole(log: Path, card: BrokerCard) -> LogReport | None:
    if not log.exists() and not closed_files(log):
        return None
    for attempt in range(1, TRIES + 1):
        report = verify_log(log, card.signer)
        bad = report.first_bad
        if bad is None or bad.code == "log.torn":
            return report
        if attempt == TRIES:
            raise Refused(bad.code, f"line {bad.line} of {bad.file}: {bad.message}")
    return None


def _check_log(source: Path, content: Content, accept_lost_log: bool) -> None:
    """R13: this broker's log, whole, and not older than the backup knows."""
    report = verify_log(source, content.card.signer)
    if not accept_lost_log and report.first < content.length:
        report = verify_log(source, content.card.signer, head=content.head, length=content.length)
    bad = report.first_bad
    if bad is not None and bad.code == "log.shortened":
        raise Refused(
            "log.shortened",
            "this log is older than the backup, so it has forgotten releases",
            found=f"{report.length} entries, without the one that the backup names",
            expected=f"at least {content.length} entries",
            hint="Find a newer copy; --accept-lost-log takes this one, and refuses all tasks of before",
        )
    if bad is not None and bad.code != "log.torn":
        raise Refused(bad.code, f"line {bad.line} of {bad.file}: {bad.message}")


def _put_keys(directory: Path, content: Content, password: str) -> BrokerKeys:
    write_secret(directory / HPKE_FILE, content.hpke)
    write_secret(directory / SIGNER_FILE, content.signer)
    (directory / CARD).write_bytes(content.card.canonical() + b"\n")
    return load(directory, password)


def _copy_log(source: Path, target: Path) -> None:
    for first, file in closed_files(source):
        copy_file(file, closed_name(target, first))
    for index in source.parent.glob(f"{source.stem}-*.index"):
        copy_file(index, target.with_name(target.stem + index.name.removeprefix(source.stem)))
    copy_file(source, target)
