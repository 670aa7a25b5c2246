"""The broker's log: every change of it is found, and a crash loses nothing that was answered."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.canonical import dump
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import ReleaseStatement
from oracle.errors import OracleError, Refused, Retryable
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.log import LOG_VERSION, Entry, Line, Recovered, Released, Started, read_log, verify_log

KEY = SigningKey(bytes([7]) * 32)
SEALED = b"an answer"
TASK, PLATFORM = bytes([1]) * 32, bytes([2]) * 32


def released(task: bytes = TASK, platform: bytes = PLATFORM, question: bytes | None = None) -> Released:
    zero = bytes(32)
    statement = ReleaseStatement(
        agreement_id=zero,
        task_id=task,
        signer=ZERO_ADDRESS,
        nonce=os.urandom(32),
        broker=zero,
        keys=zero,
        answer=sha256(SEALED),
        collateral=zero,
        time=1,
        block_number=1,
        block_hash=zero,
    )
    return Released(
        statement=statement,
        signature=bytes(65),
        tee=1,
        measurement=zero,
        platform=platform,
        operator=ZERO_ADDRESS,
        root=zero,
        anchor=zero,
        evidence_block=zero,
        datasets=(zero,),
        keys=((0, 1),),
        question=question,
    )


async def opened(path: Path, **options: Any) -> Ledger:
    return await Ledger.open(path, KEY, bytes(32), "test", lambda: 1000.0, **options)


async def written(path: Path, releases: int = 3) -> list[bytes]:
    ledger = await opened(path)
    for _ in range(releases):
        await ledger.append_release(released(), 100)
    await ledger.close()
    return lines_of(path)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


async def test_a_log_that_nobody_touched_verifies(tmp_path: Path) -> None:
    path = tmp_path / "log"
    await written(path)
    report = verify_log(path, KEY.address)
    assert (report.ok, report.length, report.releases) == (True, 4, 3)
    assert [type(e.event) for e in read_log(path)] == [Started, Released, Released, Released]
    assert len(list(read_log(path, task_id=TASK))) == 3
    assert list(read_log(path, task_id=bytes(32))) == []


async def test_entries_written_at_once_stay_in_one_chain(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "log")
    await asyncio.gather(*(ledger.append_release(released(), 100) for _ in range(50)))
    await ledger.close()
    report = verify_log(tmp_path / "log", KEY.address)
    assert (report.ok, report.releases) == (True, 50)


def resigned(line: bytes, key: SigningKey, **changes: Any) -> bytes:
    """The same entry with a change, signed anew."""
    entry = Entry.model_validate({**json.loads(line)["entry"], **changes})
    return Line(entry=entry, signature=key.sign(entry.digest)).canonical() + b"\n"


@pytest.mark.parametrize(
    ("tamper", "line", "code"),
    [
        (lambda ls: [ls[0], ls[1].replace(b'"time":"1000"', b'"time":"1001"'), *ls[2:]], 2, "signature.signer"),
        (lambda ls: [ls[0], *ls[2:]], 2, "log.sequence"),
        (lambda ls: [ls[0], ls[2], ls[1], ls[3]], 2, "log.sequence"),
        (lambda ls: [ls[0], ls[1], ls[1], *ls[2:]], 3, "log.sequence"),
        (lambda ls: ls[1:], 1, "log.sequence"),
        (lambda ls: [ls[0], resigned(ls[1], SigningKey(bytes([8]) * 32)), *ls[2:]], 2, "signature.signer"),
        (lambda ls: [ls[0], resigned(ls[1], KEY, time="5"), *ls[2:]], 3, "log.chain"),
        (lambda ls: [ls[0], b"not json\n", *ls[2:]], 2, "json.syntax"),
        (lambda ls: [ls[0], ls[1].replace(b'{"entry"', b'{ "entry"'), *ls[2:]], 2, "json.canonical"),
        (lambda ls: [*ls[:3], ls[3][:-10]], 4, "log.torn"),
        (lambda ls: [resigned(ls[1], KEY, seq=0, prev="0x" + "00" * 32), *ls[1:]], 1, "log.start"),
    ],
    ids=[
        "changed", "removed", "swapped", "repeated", "first removed", "signed by another", "rewritten by the broker",
        "garbage", "not canonical", "cut", "another beginning",
    ],
)  # fmt: skip
async def test_a_change_is_found_at_its_line(tmp_path: Path, tamper: Any, line: int, code: str) -> None:
    path = tmp_path / "log"
    lines = await written(path)
    path.write_bytes(b"".join(tamper(lines)))
    bad = verify_log(path, KEY.address).first_bad
    assert bad is not None
    assert (bad.line, bad.code) == (line, code)


async def test_another_brokers_log_is_found(tmp_path: Path) -> None:
    await written(tmp_path / "log")
    bad = verify_log(tmp_path / "log", SigningKey(bytes([8]) * 32).address).first_bad
    assert bad is not None
    assert (bad.line, bad.code) == (1, "signature.signer")


async def test_entries_cut_from_the_end_show_against_what_was_seen_before(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = await written(path)
    before = verify_log(path, KEY.address)
    assert verify_log(path, KEY.address, head=before.head, length=before.length).ok
    path.write_bytes(b"".join(lines[:-1]))
    assert verify_log(path, KEY.address).ok
    cases: list[dict[str, Any]] = [{"head": before.head}, {"length": before.length}]
    for seen in cases:
        bad = verify_log(path, KEY.address, **seen).first_bad
        assert bad is not None
        assert bad.code == "log.shortened"


async def test_a_torn_end_is_cut_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = await written(path)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:-20])
    ledger = await opened(path)
    assert ledger.released(TASK, PLATFORM) == 2
    await ledger.append_release(released(), 3)
    await ledger.close()
    assert verify_log(path, KEY.address).ok
    events = [entry.event for entry in read_log(path)]
    assert [type(e) for e in events[3:]] == [Started, Recovered, Released]
    assert isinstance(events[4], Recovered)
    assert events[4].cut_bytes == len(lines[3]) - 20


async def test_a_log_torn_in_its_first_line_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = await written(path, 0)
    path.write_bytes(lines[0][:50])
    await (await opened(path)).close()
    assert verify_log(path, KEY.address).ok


@pytest.mark.parametrize("line", [0, 1, 3])
async def test_a_broker_does_not_start_over_a_changed_log(tmp_path: Path, line: int) -> None:
    path = tmp_path / "log"
    lines = await written(path)
    lines[line] = lines[line].replace(b'"time":"1000"', b'"time":"1001"')
    path.write_bytes(b"".join(lines))
    with pytest.raises(Refused) as caught:
        await opened(path)
    assert caught.value.code == "log.changed"
    assert path.read_bytes() == b"".join(lines)  # evidence is left as it is


async def test_one_process_writes_a_log(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "log")
    with pytest.raises(Retryable) as caught:
        await opened(tmp_path / "log")
    assert caught.value.code == "log.in_use"
    await ledger.close()


async def test_the_cap_counts_per_task_and_platform(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "log")
    await ledger.append_release(released(), 1)
    await ledger.append_release(released(task=bytes([3]) * 32), 1)
    await ledger.append_release(released(platform=bytes([3]) * 32), 1)
    with pytest.raises(Refused) as caught:
        await ledger.append_release(released(), 1)
    assert caught.value.code == "release.cap"
    await ledger.close()


async def test_a_disk_that_fails_stops_all_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await opened(tmp_path / "log")

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OracleError) as caught:
        await ledger.append_release(released(), 100)
    assert caught.value.code == "log.disk"
    monkeypatch.undo()
    with pytest.raises(OracleError) as caught:
        await ledger.append_release(released(), 100)
    assert caught.value.code == "log.disk"
    await ledger.close()


# Versions


async def test_a_log_of_a_newer_broker_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = await written(path, 1)
    event = {**json.loads(lines[0])["entry"]["event"], "log": LOG_VERSION + 1, "anything": "new"}
    entry = {**json.loads(lines[0])["entry"], "event": event}
    path.write_bytes(dump({"entry": entry, "signature": "0x00"}) + b"\n" + lines[1])
    with pytest.raises(Refused) as caught:
        await opened(path)
    assert caught.value.code == "log.version"
    assert f"version {LOG_VERSION + 1}" in caught.value.message


async def test_a_log_of_the_first_version_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "log"
    start = Entry(seq=0, prev=bytes(32), time=1, event=Started(broker=bytes(32), version="0"))
    old = Entry(seq=1, prev=start.digest, time=1, event=released())
    assert b"null" not in start.canonical() + old.canonical()
    lines = [Line(entry=each, signature=KEY.sign(each.digest)).canonical() + b"\n" for each in (start, old)]
    path.write_bytes(b"".join(lines))
    ledger = await opened(path)
    assert ledger.released(TASK, PLATFORM) == 1
    await ledger.close()
    assert verify_log(path, KEY.address).ok


# Answers


async def test_an_answer_that_is_not_the_entrys_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    ledger = await opened(path)
    await ledger.append_release(released(question=bytes(32)), 1, SEALED)
    await ledger.close()
    path.write_bytes(path.read_bytes().replace(SEALED.hex().encode(), b"00" * len(SEALED)))
    bad = verify_log(path, KEY.address).first_bad
    assert bad is not None
    assert bad.code == "log.answer"
    with pytest.raises(Refused) as caught:
        await opened(path)
    assert caught.value.code == "log.changed"


async def test_the_oldest_answers_are_forgotten_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracle.keybroker.ledger.KEPT_ANSWERS", 2)
    ledger = await opened(tmp_path / "log")
    questions = [bytes([n]) * 32 for n in range(3)]
    for question in questions:
        await ledger.append_release(released(question=question), 9, SEALED)
    assert [await ledger.answered(question) is not None for question in questions] == [False, True, True]
    await ledger.close()
