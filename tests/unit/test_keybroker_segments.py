"""A long log: closed files and their indexes, copies elsewhere, and what a crash or an intruder may do to either."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.errors import Refused, Retryable
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.log import Continued, Released, read_line, read_log, verify_log
from oracle.keybroker.segments import Index, closed_files, files_of, index_name, make_index, place_of
from tests.unit.test_keybroker_log import KEY, PLATFORM, SEALED, opened, released

SMALL = 6000
TASKS = [bytes([n]) * 32 for n in range(1, 13)]


async def long_log(path: Path, *copies: Path) -> Ledger:
    """Twelve tasks over several files, still open."""
    ledger = await opened(path, segment_bytes=SMALL, copies=copies)
    for task in TASKS:
        await ledger.append_release(released(task, question=task), 9, SEALED)
    return ledger


async def test_a_long_log_is_several_files_and_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    ledger = await long_log(path)
    assert [ledger.released(task, PLATFORM) for task in TASKS] == [1] * 12
    assert ledger.size == sum(file.stat().st_size for file in files_of(path))
    await ledger.close()
    report = verify_log(path, KEY.address)
    assert (report.ok, report.releases, report.first) == (True, 12, 0)
    assert len(closed_files(path)) >= 3
    assert [entry.seq for entry in read_log(path)] == list(range(report.length))


async def test_caps_and_last_answers_outlive_a_restart_over_several_files(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    await (await long_log(path)).close()
    ledger = await opened(path, segment_bytes=SMALL)
    for task in TASKS:
        with pytest.raises(Refused) as caught:
            await ledger.append_release(released(task), 1)
        assert caught.value.code == "release.cap"
    lines = closed_files(path)[-1][1].read_bytes().splitlines(keepends=True) + path.read_bytes().splitlines(
        keepends=True
    )
    events = [read_line(each).entry.event for each in lines]
    tasks = [event.statement.task_id for event in events if isinstance(event, Released)]
    assert len(tasks) >= 2
    for task in tasks:
        line = await ledger.answered(task)
        assert line is not None
        assert line.sealed == SEALED
    await ledger.close()


async def test_entries_written_at_once_over_several_files_stay_in_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    ledger = await opened(path, segment_bytes=SMALL)
    events = [released(task, question=task) for task in TASKS]
    await asyncio.gather(*(ledger.append_release(event, 9, SEALED) for event in events))
    lines = await asyncio.gather(*(ledger.answered(task) for task in TASKS))
    assert [line.entry.event for line in lines if line is not None] == events
    await ledger.close()
    assert verify_log(path, KEY.address).ok


async def test_archived_entries_are_counted_by_their_index(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    await (await long_log(path)).close()
    for _, file in closed_files(path):
        file.unlink()
    ledger = await opened(path, segment_bytes=SMALL)
    assert [ledger.released(task, PLATFORM) for task in TASKS] == [1] * 12
    await ledger.close()
    report = verify_log(path, KEY.address)
    assert report.ok
    assert report.first > 0


def half_way(path: Path) -> None:
    """A file is closed, and the next has no entry yet."""
    path.unlink()


def torn_beginning(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize("crash", [half_way, torn_beginning])
async def test_a_crash_while_a_file_is_closed_loses_nothing(tmp_path: Path, crash: Callable[[Path], None]) -> None:
    path = tmp_path / "log.jsonl"
    ledger = await opened(path, segment_bytes=SMALL)
    for task in TASKS:
        await ledger.append_release(released(task), 9)
        if sum(1 for _ in read_log(path)) and isinstance(_last_event(path), Continued):
            break
    done = [task for task in TASKS if ledger.released(task, PLATFORM)]
    await ledger.close()
    crash(path)
    ledger = await opened(path, segment_bytes=SMALL)
    assert [ledger.released(task, PLATFORM) for task in done] == [1] * len(done)
    await ledger.append_release(released(TASKS[0]), 9)
    await ledger.close()
    assert verify_log(path, KEY.address).ok


def _last_event(path: Path) -> object:
    return list(read_log(path))[-1].event


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(min_value=0))
def test_a_log_cut_at_any_byte_counts_what_is_whole(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """What a crash may leave of the last file: half a line, half a file, or nothing of it."""
    path = tmp_path_factory.mktemp("cut") / "log.jsonl"

    async def story() -> None:
        await (await long_log(path)).close()
        data = path.read_bytes()
        path.write_bytes(data[: cut % (len(data) + 1)])
        whole = [e.event.statement.task_id for e in read_log(path) if isinstance(e.event, Released)]
        ledger = await opened(path, segment_bytes=SMALL)
        assert [ledger.released(task, PLATFORM) for task in TASKS] == [whole.count(task) for task in TASKS]
        await ledger.append_release(released(TASKS[0]), 9)
        await ledger.close()

    asyncio.run(story())
    assert verify_log(path, KEY.address).ok


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"time":"1000"', b'"time":"1001"', 1))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda path: changed(closed_files(path)[0][1]),
        lambda path: changed(closed_files(path)[-1][1]),
        lambda path: index_name(path, 0).unlink(),
        lambda path: index_name(path, 0).write_bytes(make_index({})),
        lambda path: shutil.copy(closed_files(path)[0][1], path.with_name("log-000000009999.jsonl")),
    ],
    ids=["an old file", "the last closed file", "no index", "an empty index", "a file too many"],
)
async def test_a_broker_does_not_start_over_changed_files(tmp_path: Path, tamper: Callable[[Path], None]) -> None:
    path = tmp_path / "log.jsonl"
    await (await long_log(path)).close()
    tamper(path)
    with pytest.raises(Refused) as caught:
        await opened(path, segment_bytes=SMALL)
    assert caught.value.code == "log.changed"


def test_an_index_counts_each_place() -> None:
    counts = {place_of(task, PLATFORM): n for n, task in enumerate(TASKS, start=1)}
    index = Index(make_index(counts))
    assert [index.count(place_of(task, PLATFORM)) for task in TASKS] == list(range(1, 13))
    assert index.count(place_of(bytes(32), PLATFORM)) == 0
    assert Index(b"").count(place_of(TASKS[0], PLATFORM)) == 0


# Copies


def same(path: Path, copy: Path) -> bool:
    return [f.name for f in files_of(path)] == [f.name for f in files_of(copy)] and all(
        a.read_bytes() == b.read_bytes() for a, b in zip(files_of(path), files_of(copy), strict=True)
    )


async def test_a_copy_has_every_entry_that_was_written(tmp_path: Path) -> None:
    path, copy = tmp_path / "log.jsonl", tmp_path / "copy" / "log.jsonl"
    await (await long_log(path, copy.parent)).close()
    assert same(path, copy)
    assert verify_log(copy, KEY.address).ok


@pytest.mark.parametrize("begun", [0, 1, 5, 12])
async def test_a_copy_that_is_behind_is_brought_up(tmp_path: Path, begun: int) -> None:
    path, copy = tmp_path / "log.jsonl", tmp_path / "copy" / "log.jsonl"
    ledger = await opened(path, segment_bytes=SMALL)
    for number, task in enumerate(TASKS):
        if number == begun:
            shutil.copytree(tmp_path, copy.parent, ignore=shutil.ignore_patterns("copy", "*.lock"))
        await ledger.append_release(released(task), 9)
    await ledger.close()
    await (await opened(path, segment_bytes=SMALL, copies=[copy.parent])).close()
    assert same(path, copy)


async def test_a_log_that_lost_its_end_is_refused_beside_its_copy(tmp_path: Path) -> None:
    path, copy = tmp_path / "log.jsonl", tmp_path / "copy" / "log.jsonl"
    await (await long_log(path, copy.parent)).close()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(Refused) as caught:
        await opened(path, segment_bytes=SMALL, copies=[copy.parent])
    assert caught.value.code == "log.shortened"


async def test_a_copy_of_another_log_is_left_alone(tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "log.jsonl"
    await (await long_log(tmp_path / "one" / "log.jsonl", copy.parent)).close()
    before = copy.read_bytes()
    with pytest.raises(Refused) as caught:
        await (await long_log(tmp_path / "two" / "log.jsonl", copy.parent)).close()
    assert caught.value.code in ("log.copy", "log.shortened")
    assert copy.read_bytes() == before


def more(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (lambda copy: changed(closed_files(copy)[0][1]), "log.copy"),
        (lambda copy: more(closed_files(copy)[0][1]), "log.copy"),
        (lambda copy: changed(copy), "log.copy"),
        (lambda copy: more(copy), "log.shortened"),
        (lambda copy: shutil.copy(copy, copy.with_name("log-000000009999.jsonl")), "log.shortened"),
    ],
    ids=["a closed file changed", "a closed file longer", "the last changed", "the last longer", "a file more"],
)
async def test_a_copy_that_differs_stops_the_start(tmp_path: Path, tamper: Callable[[Path], None], code: str) -> None:
    path, copy = tmp_path / "log.jsonl", tmp_path / "copy" / "log.jsonl"
    await (await long_log(path, copy.parent)).close()
    tamper(copy)
    with pytest.raises(Refused) as caught:
        await opened(path, segment_bytes=SMALL, copies=[copy.parent])
    assert caught.value.code == code


async def test_a_copy_of_another_log_that_grows_yet_is_found_where_this_one_has_closed_files(tmp_path: Path) -> None:
    path, copy = tmp_path / "one" / "log.jsonl", tmp_path / "copy" / "log.jsonl"
    await (await long_log(path)).close()
    await (await opened(copy)).close()
    changed(copy)
    with pytest.raises(Refused) as caught:
        await opened(path, segment_bytes=SMALL, copies=[copy.parent])
    assert caught.value.code == "log.copy"


async def test_a_copy_that_cannot_be_written_stops_releases(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    ledger = await long_log(tmp_path / "log.jsonl")
    ledger._descriptors.append(_read_only(tmp_path / "full" / "log"))
    with pytest.raises(Retryable, match="cannot write its log"):
        await ledger.append_release(released(), 9)
    await ledger.close()


def _read_only(path: Path) -> int:
    path.touch()
    return os.open(path, os.O_RDONLY)
