"""Backup and restore of a broker: its keys under its password, and never an older log than the backup knows (R13)."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.card import read_card
from oracle.errors import OracleError, Refused
from oracle.keybroker import init, read_log, verify_log
from oracle.keybroker.backup import LOST_MARGIN, Backup, archive, back_up, read_backup, restore
from oracle.keybroker.keys import HPKE_FILE, LOG_FILE, SIGNER_FILE, load
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.log import Restored
from oracle.keybroker.segments import closed_files
from tests.cli_kit import CHEAP, answer, oracle, refusal
from tests.unit.test_keybroker_log import PLATFORM, SEALED, TASK, released

PASSWORD = "correct horse"
NOW = 1_800_000_000
SMALL = 6000


def release(directory: Path, *tasks: bytes, copies: tuple[Path, ...] = (), segment_bytes: int = 1 << 20) -> None:
    """What a broker writes that serves for a while."""

    async def serve() -> None:
        keys = load(directory, PASSWORD)
        ledger = await Ledger.open(
            directory / LOG_FILE,
            keys.signing,
            keys.card.digest,
            "1",
            time.time,
            copies=copies,
            segment_bytes=segment_bytes,
        )
        for task in tasks:
            await ledger.append_release(released(task), 9, SEALED)
        await ledger.close()

    asyncio.run(serve())


def counted(directory: Path, task: bytes = TASK) -> tuple[int, int]:
    """What a broker knows when it starts: releases of a task, and until when tasks are refused."""

    async def start() -> tuple[int, int]:
        keys = load(directory, PASSWORD)
        ledger = await Ledger.open(directory / LOG_FILE, keys.signing, keys.card.digest, "1", time.time)
        await ledger.close()
        return ledger.released(task, PLATFORM), ledger.refused_until

    return asyncio.run(start())


@pytest.fixture
def broker(tmp_path: Path) -> Path:
    directory = tmp_path / "broker"
    init(directory, PASSWORD, cost=CHEAP)
    release(directory, TASK, TASK)
    return directory


@pytest.fixture
def file(broker: Path, tmp_path: Path) -> Path:
    back_up(broker, tmp_path / "backup", PASSWORD)
    return tmp_path / "backup"


def again(file: Path, into: Path, **options: Any) -> int:
    return restore(file, into, PASSWORD, **{"log": None, "clock": lambda: float(NOW), **options}).refused_until


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(OracleError) as caught:
        act()
    return caught.value.code


def test_a_restored_broker_has_its_keys_its_counts_and_says_so(broker: Path, file: Path, tmp_path: Path) -> None:
    release(broker, TASK)
    assert again(file, tmp_path / "new", log=broker) == 0
    assert load(tmp_path / "new", PASSWORD).card == read_card(broker)
    assert counted(tmp_path / "new") == (3, 0)
    events = [entry.event for entry in read_log(tmp_path / "new" / LOG_FILE)]
    assert sum(isinstance(event, Restored) for event in events) == 1
    assert verify_log(tmp_path / "new" / LOG_FILE, read_card(broker).signer).ok


def test_a_copy_that_the_broker_kept_restores_it(broker: Path, tmp_path: Path) -> None:
    """The newest entry is in the copy: it was there before its answer left."""
    back_up(broker, tmp_path / "backup", PASSWORD)
    tasks = [bytes([n]) * 32 for n in range(10, 20)]
    release(broker, *tasks, copies=(tmp_path / "copy",), segment_bytes=SMALL)
    shutil.rmtree(broker)
    again(tmp_path / "backup", tmp_path / "new", log=tmp_path / "copy")
    assert [counted(tmp_path / "new", task)[0] for task in (TASK, *tasks)] == [2] + [1] * 10


def test_a_backup_holds_the_keys_under_the_password_only(broker: Path, file: Path, tmp_path: Path) -> None:
    content = read_backup(file)
    locked = (broker / HPKE_FILE).read_bytes(), (broker / SIGNER_FILE).read_bytes()
    assert (content.hpke, content.signer) == locked
    assert file.stat().st_mode & 0o77 == 0
    assert code_of(lambda: restore(file, tmp_path / "new", "wrong", log=broker)) == "broker.password"
    assert not (tmp_path / "new").exists()
    assert code_of(lambda: back_up(broker, tmp_path / "other", "wrong")) == "broker.password"


def shortened(log: Path) -> None:
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))


def changed(log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b'"tee":1', b'"tee":2', 1))


def emptied(log: Path) -> None:
    log.write_bytes(b"")


@pytest.mark.parametrize(
    ("tamper", "code"), [(shortened, "log.shortened"), (changed, "signature.signer"), (emptied, "log.shortened")]
)
def test_a_log_that_is_older_or_changed_does_not_restore(
    broker: Path, file: Path, tmp_path: Path, tamper: Callable[[Path], None], code: str
) -> None:
    tamper(broker / LOG_FILE)
    assert code_of(lambda: again(file, tmp_path / "new", log=broker)) == code
    assert not (tmp_path / "new").exists()


def test_another_brokers_log_does_not_restore(file: Path, tmp_path: Path) -> None:
    init(tmp_path / "other", PASSWORD, cost=CHEAP)
    release(tmp_path / "other", TASK, TASK, TASK)
    for accept in (False, True):
        refused = code_of(lambda: again(file, tmp_path / "new", log=tmp_path / "other", accept_lost_log=accept))  # noqa: B023 (called at once)
        assert refused == "signature.signer"


def test_without_a_log_nothing_is_restored_unless_it_is_said(broker: Path, file: Path, tmp_path: Path) -> None:
    assert code_of(lambda: again(file, tmp_path / "new")) == "log.needed"
    assert again(file, tmp_path / "new", accept_lost_log=True) == NOW + LOST_MARGIN
    assert counted(tmp_path / "new") == (0, NOW + LOST_MARGIN)


def test_an_older_log_is_taken_where_it_is_said_and_all_tasks_of_before_are_refused(
    broker: Path, file: Path, tmp_path: Path
) -> None:
    shortened(broker / LOG_FILE)
    again(file, tmp_path / "new", log=broker, accept_lost_log=True)
    assert counted(tmp_path / "new") == (1, NOW + LOST_MARGIN)


def test_a_loss_is_remembered_over_closed_files(file: Path, tmp_path: Path) -> None:
    again(file, tmp_path / "new", accept_lost_log=True)
    for _ in range(3):
        release(tmp_path / "new", *[bytes([n]) * 32 for n in range(6)], segment_bytes=SMALL)
    assert len(closed_files(tmp_path / "new" / LOG_FILE)) >= 2
    assert counted(tmp_path / "new")[1] == NOW + LOST_MARGIN


def test_a_backup_is_not_restored_over_a_broker(broker: Path, file: Path) -> None:
    assert code_of(lambda: again(file, broker, log=broker)) == "broker.exists"


def other_length(backup: Backup) -> Backup:
    return backup.model_copy(update={"content": backup.content.model_copy(update={"length": 1})})


def other_keys(backup: Backup) -> Backup:
    return backup.model_copy(update={"content": backup.content.model_copy(update={"hpke": b"{}"})})


@pytest.mark.parametrize("change", [other_length, other_keys])
def test_a_changed_backup_is_refused(broker: Path, file: Path, tmp_path: Path, change: Any) -> None:
    backup = Backup.model_validate_json(file.read_bytes())
    file.write_bytes(change(backup).canonical() + b"\n")
    assert code_of(lambda: again(file, tmp_path / "new", log=broker)) == "backup.signature"


def test_a_backup_of_a_log_that_is_not_whole_is_refused(broker: Path, tmp_path: Path) -> None:
    changed(broker / LOG_FILE)
    assert code_of(lambda: back_up(broker, tmp_path / "backup", PASSWORD)) == "signature.signer"


def test_a_backup_before_the_first_start_restores_with_any_log_of_the_broker(tmp_path: Path) -> None:
    init(tmp_path / "broker", PASSWORD, cost=CHEAP)
    assert back_up(tmp_path / "broker", tmp_path / "backup", PASSWORD).length == 0
    release(tmp_path / "broker", TASK)
    again(tmp_path / "backup", tmp_path / "new", log=tmp_path / "broker")
    assert counted(tmp_path / "new")[0] == 1


# Archives


def test_archived_files_are_gone_and_counted(broker: Path, tmp_path: Path) -> None:
    tasks = [bytes([n]) * 32 for n in range(10, 30)]
    release(broker, *tasks, segment_bytes=SMALL)
    before = verify_log(broker / LOG_FILE, read_card(broker).signer)
    closed = len(closed_files(broker / LOG_FILE))
    moved = archive(broker / LOG_FILE, read_card(broker).signer, tmp_path / "archive")
    assert len(moved) == closed - 1 > 0
    assert [counted(broker, task)[0] for task in (TASK, *tasks)] == [2] + [1] * 20
    after = verify_log(broker / LOG_FILE, read_card(broker).signer, head=before.head, length=before.length)
    assert after.ok
    assert after.first > 0
    back_up(broker, tmp_path / "backup", PASSWORD)
    again(tmp_path / "backup", tmp_path / "new", log=broker)
    assert counted(tmp_path / "new") == (2, 0)


def test_a_changed_log_is_not_archived(broker: Path, tmp_path: Path) -> None:
    release(broker, *[bytes([n]) * 32 for n in range(10, 30)], segment_bytes=SMALL)
    changed(closed_files(broker / LOG_FILE)[0][1])
    assert code_of(lambda: archive(broker / LOG_FILE, read_card(broker).signer, tmp_path / "a")) == "signature.signer"


# Commands


def test_the_commands_back_up_restore_and_shout(broker: Path, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(PASSWORD + "\n")
    words = ("--password-file", tmp_path / "pw")
    made = answer("keybroker", "backup", broker, "--out", tmp_path / "b", *words)
    assert (made["entries"], made["digest"]) == (3, "0x" + read_card(broker).digest.hex())
    assert refusal("keybroker", "restore", tmp_path / "b", "--into", tmp_path / "new", *words)["code"] == "log.needed"
    found = answer("keybroker", "restore", tmp_path / "b", "--into", tmp_path / "new", "--log", broker, *words)
    assert found["entries"] == 5
    assert "refused_until" not in found
    lost = oracle("keybroker", "restore", tmp_path / "b", "--into", tmp_path / "lost", "--accept-lost-log", *words)
    assert lost.code == 0
    assert "THE LOG IS LOST" in lost.stderr


def test_a_backup_can_be_read_without_a_password(broker: Path, file: Path) -> None:
    assert read_backup(file).card == read_card(broker)
    with pytest.raises(Refused):
        read_backup(broker / LOG_FILE)
