"""The journal on both of its databases: one worker at a time, nothing half done, old files brought up, bounded growth."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.worker import desk
from oracle.worker.database import Place, Server
from oracle.worker.journal import KEPT_BLOCKS, Journal, Overtaken
from oracle.worker.postgres import PostgresDatabase
from oracle.worker.retention import BATCH, add_total, prune, totals
from oracle.worker.schema import MIGRATIONS
from oracle.worker.states import State
from tests.journal_kit import AGREED, AGREEMENT, activated, approved, block, ended, requested, state, task, word
from tests.postgres_kit import PASSWORD, PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Server | Path:
    if request.param == "sqlite":
        return tmp_path / "j"
    found: PostgresServer = request.getfixturevalue("server")
    return found.place()


@pytest.fixture
def journal(place: Server | Path) -> Iterator[Journal]:
    opened = Journal(place, retain_days=0)
    yield opened
    opened.close()


def test_what_is_written_is_read_again_after_a_restart(place: Server | Path) -> None:
    journal = Journal(place)
    event = requested(1, 5)
    journal.take_in([event], block(5))
    journal.close()
    again = Journal(place)
    assert again.cursor() == (5, word(5))
    assert task(again, 1).request == event.request
    again.close()


def test_a_second_worker_is_kept_out_and_an_operator_is_not(place: Server | Path) -> None:
    journal = Journal(place)
    journal.take_in([requested(1, 5)], block(5))
    with pytest.raises(Permanent) as raised:
        Journal(place)
    assert raised.value.code == "journal.locked"
    beside = Journal(place, owner=False)
    assert desk.overview(beside) == {"seen": 1}
    beside.close()
    journal.close()
    Journal(place).close()


def test_looking_at_a_journal_that_is_not_there_makes_none(place: Server | Path) -> None:
    with pytest.raises(Permanent) as raised:
        Journal(place, owner=False)
    assert raised.value.code == "journal.missing"


def test_a_transaction_that_fails_leaves_nothing(journal: Journal) -> None:
    journal.take_in([], block(4))
    with pytest.raises(Stop):
        half_done(journal)
    assert journal.cursor() == (4, word(4))
    journal.take_in([], block(5))
    assert journal.cursor() == (5, word(5))


def test_a_journal_of_a_later_release_is_refused(place: Server | Path) -> None:
    journal = Journal(place)
    with journal.db.transaction():
        journal.db.set_version(len(MIGRATIONS) + 1)
    journal.close()
    for owner in (True, False):
        with pytest.raises(Permanent) as raised:
            Journal(place, owner=owner)
        assert raised.value.code == "journal.newer"


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_file_of_each_earlier_release_is_brought_up_with_what_it_holds(tmp_path: Path, version: int) -> None:
    path, event = tmp_path / "j", requested(1, 5)
    with sqlite3.connect(path) as db:
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("INSERT INTO cursor VALUES (1, 7, ?)", (word(7),))
        row = (AGREEMENT, AGREED.canonical().decode(), json.dumps([""]), 4, word(4))
        db.execute(
            "INSERT INTO agreements (id, agreement, signatures, block_number, block_hash) VALUES (?, ?, ?, ?, ?)", row
        )
        for number, where in ((1, "seen"), (2, "settled")):
            db.execute(
                "INSERT INTO tasks (id, agreement_id, request, uri, state, block_number, block_hash, transaction_hash,"
                " log_index) VALUES (?, ?, ?, '', ?, 5, ?, ?, ?)",
                (word(number), AGREEMENT, event.request.canonical().decode(), where, word(5), word(50), number),
            )
    db.close()
    with pytest.raises(Permanent) as raised:
        Journal(path, owner=False)
    assert raised.value.code == "journal.older"
    journal = Journal(path, retain_days=0)
    assert journal.db.version() == len(MIGRATIONS)
    assert journal.cursor() == (7, word(7))
    assert (state(journal, 1), state(journal, 2)) == (State.SEEN, State.SETTLED)
    assert journal.agreement(AGREEMENT) is not None
    # What it did not write down is counted from now on.
    assert prune(journal.db, now=100.0, before=100.0, below=9) == 0
    assert prune(journal.db, now=200.0, before=101.0, below=9) == 1
    assert (state(journal, 1), state(journal, 2)) == (State.SEEN, None)
    # A file that was made without can be made smaller now.
    assert journal.db.execute("PRAGMA auto_vacuum").fetchall() == [{"auto_vacuum": 2}]
    journal.close()


def test_what_is_over_is_forgotten_in_batches_and_stays_counted(journal: Journal) -> None:
    many = BATCH + 20
    journal.take_in([requested(n, 5) for n in range(1, many + 2)], block(5))
    journal.take_in([ended(n, 6) for n in range(1, many + 1)], block(6))
    later = time.time() + 1
    assert prune(journal.db, now=later, before=later, below=6) == BATCH
    assert prune(journal.db, now=later, before=later, below=6) == many - BATCH
    assert prune(journal.db, now=later, before=later, below=6) == 0
    assert desk.overview(journal) == {"seen": 1}
    assert totals(journal.db) == {"ended": {"cancelled": many}}


def test_what_could_still_change_is_kept(journal: Journal) -> None:
    journal.take_in([requested(1, 5), requested(2, 5), requested(3, 5)], block(5))
    journal.take_in([ended(1, 6)], block(6))
    journal.give_up(task(journal, 3), State.PARKED, "bug", "why")
    later = time.time() + 1
    # Its end can be reorganised away; it is recent; it is open; its deadline has not passed.
    assert prune(journal.db, now=later, before=later, below=5) == 0
    assert prune(journal.db, now=later, before=later - 3600, below=6) == 0
    assert prune(journal.db, now=later, before=later, below=6) == 1
    assert (state(journal, 1), state(journal, 2), state(journal, 3)) == (None, State.SEEN, State.PARKED)
    assert prune(journal.db, now=later, before=float(1 << 41), below=6) == 1
    assert state(journal, 3) is None


def test_a_receipt_that_storage_does_not_have_keeps_its_task(journal: Journal) -> None:
    journal.take_in([requested(1, 5)], block(5))
    journal.db.execute("INSERT INTO receipts VALUES (?, ?)", (word(1), b"receipt"))
    journal.take_in([ended(1, 6)], block(6))
    later = time.time() + 1
    assert prune(journal.db, now=later, before=later, below=6) == 0
    journal.receipt_done(word(1))
    assert prune(journal.db, now=later, before=later, below=6) == 1


def test_an_agreement_goes_with_its_last_task_once_it_has_ended(journal: Journal) -> None:
    over = AGREED.not_after + 1.0
    journal.take_in([approved(3), activated(4), requested(1, 5)], block(5))
    assert prune(journal.db, now=over, before=over, below=6) == 0
    journal.take_in([ended(1, 6)], block(6))
    assert prune(journal.db, now=over, before=min(over, time.time() + 1), below=6) == 1 + int(over <= time.time())
    journal.db.execute("UPDATE agreements SET ends_at = NULL")
    prune(journal.db, now=over, before=over, below=6)
    assert journal.agreement(AGREEMENT) is None
    assert journal.db.execute("SELECT * FROM approvals").fetchall() == []


def test_a_draft_that_never_came_to_be_is_forgotten(journal: Journal) -> None:
    journal.take_in([approved(3)], block(3))
    later = time.time() + 1
    assert prune(journal.db, now=later, before=later - 3600, below=6) == 0
    assert prune(journal.db, now=later, before=later, below=6) == 1


def test_a_following_worker_forgets_by_itself_and_its_file_stays_as_large(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", retain_days=0)
    sizes = []
    for lap in range(1, 5):
        first = lap * (KEPT_BLOCKS + 10)
        ids = range(1000 * lap, 1000 * lap + 150)
        journal.take_in([requested(n, first) for n in ids], block(first))
        journal.take_in([ended(n, first + 1) for n in ids], block(first + 1))
        journal._next_prune = 0.0
        journal.take_in([], block(first + KEPT_BLOCKS + 2))
        assert desk.overview(journal) == {}
        assert journal.db.execute("SELECT * FROM events").fetchall() == []
        assert len(journal.db.execute("SELECT * FROM blocks").fetchall()) <= 2
        sizes.append(journal.db.execute("PRAGMA page_count").fetchall()[0]["page_count"])
    assert max(sizes) <= sizes[0] * 1.1
    assert totals(journal.db)["ended"] == {"cancelled": 600}
    journal.close()


def test_sums_hold_more_than_64_bits(journal: Journal) -> None:
    for _ in range(2):
        with journal.db.transaction():
            add_total(journal.db, "gas", "settle", 1 << 70)
    assert totals(journal.db, ("gas",)) == {"gas": {"settle": 1 << 71}}


def test_a_full_disk_can_be_waited_for_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.take_in([], block(4))
    pages = journal.db.execute("PRAGMA page_count").fetchall()[0]["page_count"]
    journal.db.execute(f"PRAGMA max_page_count = {pages}")
    events = [requested(n, 5) for n in range(1, 400)]
    with pytest.raises(Retryable) as raised:
        journal.take_in(events, block(5))
    assert raised.value.code == "journal.disk"
    assert (journal.cursor(), journal.tasks()) == ((4, word(4)), [])
    journal.db.execute("PRAGMA max_page_count = 1000000")
    assert journal.take_in(events, block(5)) == len(events)
    journal.close()


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"no database" * 1000)
    with pytest.raises(Permanent) as raised:
        Journal(tmp_path / "j")
    assert raised.value.code == "journal.broken"


# The operator's desk.


def test_a_task_is_found_by_the_first_digits_that_tell_it(journal: Journal) -> None:
    journal.take_in([requested(0x12, 5), requested(0x13, 5)], block(5))
    assert desk.find(journal, "0x" + word(0x12).hex()) == word(0x12)
    assert desk.find(journal, word(0x13).hex()) == word(0x13)
    for prefix, code in (("00", "task.ambiguous"), ("ff", "task.unknown"), ("", "task.prefix"), ("xy", "task.prefix")):
        with pytest.raises(Refused) as raised:
            desk.find(journal, prefix)
        assert raised.value.code == code


def test_an_operator_abandons_and_takes_up_again_while_the_worker_has_the_journal(
    journal: Journal, place: Server | Path
) -> None:
    journal.take_in([requested(1, 5)], block(5))
    held = task(journal, 1)
    beside = Journal(place, owner=False)
    assert desk.abandon(beside, word(1), "too dear") is State.SEEN
    assert (state(journal, 1), task(journal, 1).reason) == (State.ABANDONED, "too dear")
    assert journal.due(1e12, 10) == []
    with pytest.raises(Overtaken):
        journal.give_up(held, State.FAILED, "code", "the worker comes too late")
    # A reorganisation does not bring it back, and the chain has the last word.
    journal.rewind(4, word(4))
    journal.take_in([requested(1, 6, 1)], block(6, 1))
    assert state(journal, 1) is State.ABANDONED
    assert desk.retry(beside, word(1)) is State.SEEN
    assert journal.due(0.0, 10) == [word(1)]
    journal.take_in([ended(1, 7, fork=1)], block(7, 1))
    with pytest.raises(Refused) as raised:
        desk.retry(beside, word(1))
    assert raised.value.code == "task.over"
    with pytest.raises(Refused) as raised:
        desk.abandon(beside, word(1), "")
    assert raised.value.code == "task.over"
    beside.close()


def test_a_task_that_waits_is_let_go_at_once(journal: Journal) -> None:
    journal.take_in([requested(1, 5), requested(2, 5)], block(5))
    journal.retry(word(1), 1e11, "broker.down", "why")
    journal.give_up(task(journal, 2), State.PARKED, "bug", "why")
    assert desk.retry(journal, word(1)) is State.SEEN
    assert desk.retry_parked(journal) == 1
    assert sorted(journal.due(0.0, 10)) == [word(1), word(2)]


def test_a_copy_has_every_row_of_every_table(journal: Journal) -> None:
    journal.take_in([approved(3), activated(4), *(requested(n, 5) for n in range(1, 450))], block(5))
    with journal.db.transaction():
        add_total(journal.db, "gas", "settle", 1)
    journal.begin(word(1))
    rows: list[dict[str, Any]] = list(desk.export(journal))
    assert rows[0]["version"] == len(MIGRATIONS)
    counted = {table: sum(row["table"] == table for row in rows) for table, _ in desk.TABLES}
    for table, _ in desk.TABLES:
        found = journal.db.execute(f"SELECT count(*) AS n FROM {table}").fetchall()[0]["n"]  # noqa: S608 (ours)
        assert counted[table] == found
    assert len({row["id"] for row in rows if row["table"] == "tasks"}) == 449
    assert journal.take_in([], block(6)) == 0


def test_a_copy_forgets_no_table() -> None:
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory) / "j")
        names = {row["name"] for row in journal.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        journal.close()
    assert names == {table for table, _ in desk.TABLES}


# What only a server can do.


def test_two_workers_share_a_server_and_see_nothing_of_each_other(server: PostgresServer) -> None:
    one, other = Journal(server.place()), Journal(server.place())
    one.take_in([requested(1, 5)], block(5))
    assert (other.cursor(), other.tasks()) == (None, [])
    one.close()
    other.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_restarts_is_used_again(server: PostgresServer, how: signal.Signals) -> None:
    journal = Journal(server.place())
    with journal.db.transaction(durable=True):
        journal.db.execute("INSERT INTO totals VALUES ('a', 'b', '1')")
    server.stop(how)
    with pytest.raises(Retryable) as raised:
        journal.take_in([requested(1, 5)], block(5))
    assert raised.value.code == "journal.unreachable"
    assert PASSWORD not in str(raised.value)
    server.start()
    assert journal.take_in([requested(1, 5)], block(5)) == 1
    assert totals(journal.db) == {"a": {"b": 1}}
    journal.close()


def test_a_quick_restart_waits_until_the_server_has_ended_the_old_session(server: PostgresServer) -> None:
    place = server.place()
    old = Journal(place)
    old.take_in([requested(1, 5)], block(5))
    ending = threading.Timer(0.5, old.close)
    ending.start()
    new = Journal(place)
    ending.join()
    assert new.cursor() == (5, word(5))
    new.close()


def test_a_transaction_whose_connection_is_cut_does_not_go_on_in_another(server: PostgresServer) -> None:
    place = server.place()
    journal = Journal(place)
    journal.take_in([], block(4))
    with pytest.raises(Retryable):
        cut_in_two(journal)
    assert journal.cursor() == (4, word(4))
    journal.close()


@pytest.mark.parametrize("reached", [True, False])
def test_a_commit_without_an_answer_is_decided_by_what_the_server_has(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    journal = Journal(server.place())
    journal.take_in([], block(4))
    plain = postgres(journal)._run

    def lossy(query: bytes, values: Any = None) -> Any:
        if b"COMMIT" not in query:
            return plain(query, values)
        monkeypatch.undo()
        if reached:
            plain(query, values)
        cut(journal)
        return plain(b"SELECT 1")

    monkeypatch.setattr(journal.db, "_run", lossy)
    if reached:
        assert journal.take_in([requested(1, 5)], block(5)) == 1
    else:
        with pytest.raises(Retryable):
            journal.take_in([requested(1, 5)], block(5))
    assert journal.cursor() == ((5, word(5)) if reached else (4, word(4)))
    assert state(journal, 1) is (State.SEEN if reached else None)
    journal.close()


def test_no_message_shows_a_password(server: PostgresServer, tmp_path: Path) -> None:
    good = server.place().url.get_secret_value()
    secret = tmp_path / "password"
    secret.write_text("wrong-secret\n")
    bare = good.replace(f":{PASSWORD}@", "@")
    for place in (
        Server(url=SecretStr(good.replace(PASSWORD, "wrong-secret"))),
        Server(url=SecretStr(bare), password_file=secret),
        Server(url=SecretStr("postgresql://u:wrong-secret@[::1/x")),
        Server(url=SecretStr("postgresql://127.0.0.1:1/x?password=wrong-secret&nonsense=1")),
    ):
        with pytest.raises(OracleError) as raised:
            Journal(place)
        assert "wrong-secret" not in str(raised.value) + repr(raised.value) + str(place) + repr(place)
    secret.write_text(PASSWORD + "\n")
    Journal(Server(url=SecretStr(bare), name="by_file", password_file=secret)).close()


def test_a_place_is_a_path_a_url_or_a_server_with_a_name() -> None:
    read = TypeAdapter(Place).validate_python
    assert read("worker.sqlite") == Path("worker.sqlite")
    url = read("postgresql://u:p@h/d")
    assert isinstance(url, Server)
    assert (url.name, str(url)) == ("worker", "postgresql://h/d (worker)")
    named = read({"url": "postgres://h/d", "name": "one", "passwordFile": "p"})
    assert isinstance(named, Server)
    assert (named.name, named.password_file) == ("one", Path("p"))
    for wrong in ({"url": "mysql://h/d"}, {"url": "postgresql://h", "name": 'a"; DROP'}, {"name": "one"}):
        with pytest.raises(ValidationError):
            read(wrong)


class Stop(Exception):
    pass


def half_done(journal: Journal) -> None:
    with journal.db.transaction(durable=True):
        journal.db.execute("UPDATE cursor SET number = 9")
        raise Stop


def cut_in_two(journal: Journal) -> None:
    with journal.db.transaction():
        journal.db.execute("UPDATE cursor SET number = 9")
        cut(journal)
        journal.db.execute("UPDATE cursor SET hash = ?", (word(9),))


def postgres(journal: Journal) -> PostgresDatabase:
    assert isinstance(journal.db, PostgresDatabase)
    return journal.db


def cut(journal: Journal) -> None:
    """Break the connection under it, as a network does."""
    connection = postgres(journal)._db
    assert connection is not None
    with socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)
