"""The journal: what the worker knows, in SQLite, so that a restart resumes at the right step.

One writer: a lock file keeps a second worker out. Write-ahead log. Two grades of durability, both safe against a crash of
this process: what the chain can say again (events and cursor) is written with `synchronous=NORMAL`, which a power cut may
take back by some transactions, cursor and events together; what only we know (a signed result, a sent transaction) with
`FULL`, because to make it again costs a release, and brokers cap those (R13).

Methods are synchronous and quick; `JournalThread` runs them off the event loop.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from enclave_app.protocol.release import TaskRecord
from oracle.chain.events import (
    AgreementActivated,
    AgreementApproved,
    Event,
    TaskBatched,
    TaskEnded,
    TaskRequested,
    TaskSettled,
)
from oracle.chain.source import Block
from oracle.errors import Permanent
from oracle.worker.rows import StoredAgreement, Task, read_agreement, read_task, resumes_at
from oracle.worker.schema import migrate
from oracle.worker.states import OPEN, Mover, State, check_move

P = ParamSpec("P")
T = TypeVar("T")
KEPT_BLOCKS = 4096
_OWED = f"FROM tasks WHERE state = '{State.SETTLED}' AND id IN (SELECT task FROM receipts)"  # noqa: S608 (ours)
"""Tasks whose receipt is still to be written. The chain's log may end a task before this worker has seen its own receipt."""

_TRIED = "attempts = attempts + ?, next_try = ?, code = ?, reason = ?"


class Overtaken(Exception):
    """The follower moved the task meanwhile: it ended, or a reorganisation took its request. No error; work on it stops."""


class Journal:
    """Raises Permanent `journal.locked` when another process has it open."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_name(path.name + ".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise Permanent("journal.locked", f"another worker has {path} open") from None
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            migrate(self._db)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._db.close()
        self._lock.close()

    # The chain's side.

    def cursor(self) -> tuple[int, bytes] | None:
        row = self._db.execute("SELECT number, hash FROM cursor").fetchone()
        return None if row is None else (row["number"], row["hash"])

    def block_at_most(self, number: int) -> tuple[int, bytes] | None:
        """The highest block kept, of those up to `number`."""
        row = self._db.execute(
            "SELECT number, hash FROM blocks WHERE number <= ? ORDER BY number DESC LIMIT 1", (number,)
        ).fetchone()
        return None if row is None else (row["number"], row["hash"])

    def take_in(self, events: Sequence[Event], upto: Block) -> int:
        """Events of the blocks after the cursor and the cursor itself, in one transaction; returns how many were new."""
        new = 0
        with self._transaction():
            for event in events:
                new += self._apply(event)
            self._db.execute(
                "INSERT INTO blocks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET hash = excluded.hash, parent = excluded.parent",
                (upto.number, upto.hash, upto.parent),
            )
            self._db.execute("DELETE FROM blocks WHERE number <= ?", (upto.number - KEPT_BLOCKS,))
            self._set_cursor(upto.number, upto.hash)
        return new

    def rewind(self, number: int, block_hash: bytes) -> None:
        """Forget everything above block `number`, in one transaction. What was computed is kept: the same request makes
        the same task in the new chain (R14)."""
        with self._transaction():
            self._db.execute("DELETE FROM events WHERE block_number > ?", (number,))
            self._db.execute("DELETE FROM blocks WHERE number > ?", (number,))
            self._db.execute("DELETE FROM agreements WHERE block_number > ?", (number,))
            self._db.execute("DELETE FROM approvals WHERE block_number > ?", (number,))
            for row in self._db.execute("SELECT * FROM tasks WHERE block_number > ?", (number,)).fetchall():
                self._chain_move(row, State.ORPHANED, None)
            ended = self._db.execute(
                "SELECT * FROM tasks WHERE ended_block > ? AND block_number <= ?", (number, number)
            ).fetchall()
            for row in ended:
                self._chain_move(row, resumes_at(row), None)
            self._set_cursor(number, block_hash)

    def _apply(self, event: Event) -> int:
        log = event.log
        fresh = self._db.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)",
            (log.transaction_hash, log.block_hash, log.index, log.block_number),
        ).rowcount
        if not fresh:
            return 0
        if isinstance(event, AgreementApproved):
            if event.signed():
                self._db.execute(
                    "INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?)",
                    (event.agreement_id, event.account, event.signature, log.block_number),
                )
        elif isinstance(event, AgreementActivated):
            self._db.execute(
                "INSERT OR REPLACE INTO agreements VALUES (?, ?, ?, ?, ?)",
                (
                    event.agreement_id,
                    event.agreement.canonical().decode(),
                    json.dumps([s.hex() for s in event.signatures]),
                    log.block_number,
                    log.block_hash,
                ),
            )
        elif isinstance(event, TaskRequested):
            self._requested(event)
        elif isinstance(event, TaskSettled | TaskBatched | TaskEnded):
            row = self._row(event.task_id)
            if row is not None:
                self._chain_move(row, _end(event), log.block_number)
        return 1

    def _requested(self, event: TaskRequested) -> None:
        log = event.log
        place = (log.block_number, log.block_hash, log.transaction_hash, log.index)
        row = self._row(event.task_id)
        if row is None:
            self._db.execute(
                "INSERT INTO tasks (id, agreement_id, request, uri, state, block_number, block_hash, transaction_hash,"
                " log_index) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    event.task_id,
                    event.agreement_id,
                    event.request.canonical().decode(),
                    event.uri,
                    State.SEEN,
                    *place,
                ),
            )
            return
        self._db.execute(
            "UPDATE tasks SET block_number = ?, block_hash = ?, transaction_hash = ?, log_index = ? WHERE id = ?",
            (*place, event.task_id),
        )
        if row["state"] == State.ORPHANED:
            self._chain_move(row, resumes_at(row), None)

    def _chain_move(self, row: sqlite3.Row, target: State, ended_block: int | None) -> None:
        source = State(row["state"])
        if source is not target:
            check_move(source, target, Mover.CHAIN)
        self._db.execute(
            "UPDATE tasks SET state = ?, ended_block = ?, settlement = CASE WHEN ? THEN NULL ELSE settlement END,"
            " attempts = 0, next_try = 0, code = NULL, reason = NULL WHERE id = ?",
            (target, ended_block, ended_block is None, row["id"]),
        )

    def _set_cursor(self, number: int, block_hash: bytes) -> None:
        self._db.execute(
            "INSERT INTO cursor VALUES (1, ?, ?) ON CONFLICT DO UPDATE SET number = excluded.number, hash = excluded.hash",
            (number, block_hash),
        )

    # The worker's side.

    def agreement(self, agreement_id: bytes) -> StoredAgreement | None:
        row = self._db.execute("SELECT * FROM agreements WHERE id = ?", (agreement_id,)).fetchone()
        if row is None:
            return None
        stored = read_agreement(row)
        parties = stored.agreement.parties()
        if all(stored.signatures) or len(stored.signatures) != len(parties):
            return stored
        # R13: brokers check ECDSA signatures themselves, also those that the activation left away.
        query = "SELECT account, signature FROM approvals WHERE agreement_id = ?"
        posted = {each["account"]: bytes(each["signature"]) for each in self._db.execute(query, (agreement_id,))}
        signatures = tuple(s or posted.get(p, b"") for p, s in zip(parties, stored.signatures, strict=True))
        return replace(stored, signatures=signatures)

    def agreements(self) -> list[StoredAgreement]:
        return [read_agreement(row) for row in self._db.execute("SELECT * FROM agreements").fetchall()]

    def task(self, task_id: bytes) -> Task | None:
        row = self._row(task_id)
        return None if row is None else read_task(row)

    def tasks(self, states: Sequence[State] = tuple(State)) -> list[Task]:
        marks = ", ".join("?" * len(states))
        query = f"SELECT * FROM tasks WHERE state IN ({marks}) ORDER BY block_number, log_index"  # noqa: S608 (marks)
        return [read_task(row) for row in self._db.execute(query, tuple(states)).fetchall()]

    def due(self, now: float, limit: int) -> list[bytes]:
        """Ids of tasks that something is to be done about and whose time has come: open ones, oldest request first, then
        settled ones whose receipt storage does not have yet."""
        rows = self._db.execute(
            "SELECT id FROM tasks WHERE state IN (?, ?, ?, ?) AND next_try <= ? ORDER BY block_number, log_index LIMIT ?",
            (*OPEN, now, limit),
        ).fetchall()
        owed = self._db.execute(f"SELECT id {_OWED} AND next_try <= ? LIMIT ?", (now, limit)).fetchall()
        return [row["id"] for row in (*rows, *owed)][:limit]

    def next_try(self, after: float) -> float | None:
        """When the next task comes due after `after`, in unix seconds."""
        (value,) = self._db.execute(
            "SELECT min(next_try) FROM tasks WHERE state IN (?, ?, ?, ?) AND next_try > ?", (*OPEN, after)
        ).fetchone()
        (owed,) = self._db.execute(f"SELECT min(next_try) {_OWED} AND next_try > ?", (after,)).fetchone()
        return min((float(each) for each in (value, owed) if each is not None), default=None)

    def ran(self, task: Task, record: TaskRecord, receipt: bytes | None = None) -> Task:
        """SEEN → RAN, with everything that storing, settling and the receipt need."""
        check_move(task.state, State.RAN, Mover.WORKER)
        with self._transaction(durable=True):
            self._update(task, State.RAN, record=record.canonical().decode(), stored=0, attempts=0)
            self._db.execute("DELETE FROM receipts WHERE task = ?", (task.id,))
            if receipt is not None:
                self._db.execute("INSERT INTO receipts VALUES (?, ?)", (task.id, receipt))
        return replace(task, state=State.RAN, record=record)

    def receipt(self, task_id: bytes) -> bytes | None:
        """A receipt that storage does not have yet."""
        row = self._db.execute("SELECT receipt FROM receipts WHERE task = ?", (task_id,)).fetchone()
        return None if row is None else bytes(row["receipt"])

    def receipt_done(self, task_id: bytes) -> None:
        """Storage has the receipt, or it is of no use: the chain took another result."""
        with self._transaction():
            self._db.execute("DELETE FROM receipts WHERE task = ?", (task_id,))
            self._db.execute(
                "UPDATE tasks SET code = NULL, reason = NULL WHERE id = ? AND state = ?", (task_id, State.SETTLED)
            )

    def stored(self, task: Task) -> Task:
        """RAN → STORED, or SETTLING → STORED when what was sent came to nothing."""
        return self._move(task, State.STORED, stored=1, settlement=None, attempts=0)

    def settling(self, task: Task, transaction_hash: bytes) -> Task:
        moved = self._move(task, State.SETTLING, durable=True, settlement=transaction_hash)
        return replace(moved, settlement=transaction_hash)

    def start_over(self, task: Task) -> Task:
        """Back to SEEN; the result is of no use any more."""
        return replace(self._move(task, State.SEEN, record=None, stored=0, settlement=None), record=None)

    def ended(self, task: Task, state: State, block_number: int | None = None) -> Task:
        return self._move(task, state, ended_block=block_number, code=None, reason=None)

    def give_up(self, task: Task, state: State, code: str, reason: str) -> Task:
        """SKIPPED, FAILED or PARKED, with why."""
        return self._move(task, state, code=code, reason=reason[:2000])

    def retry(self, task_id: bytes, next_try: float, code: str, reason: str, *, counts: bool = True) -> None:
        """The task stays where it is until `next_try`; `counts` says whether this was a failed attempt."""
        with self._transaction():
            self._db.execute(
                f"UPDATE tasks SET {_TRIED} WHERE id = ? AND (state IN (?, ?, ?, ?) OR id IN (SELECT id {_OWED}))",  # noqa: S608
                (int(counts), next_try, code, reason[:2000], task_id, *OPEN),
            )

    def begin(self, task_id: bytes) -> int:
        """Work on a task begins; returns how often it began without `pause` since: more than once, and the process died over
        it, or beside it."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO begun VALUES (?, 1) ON CONFLICT (task) DO UPDATE SET times = begun.times + 1", (task_id,)
            )
        return self.begun().get(task_id, 1)

    def pause(self, task_id: bytes) -> None:
        """Work on a task ended, one way or another, and the process is alive."""
        with self._transaction():
            self._db.execute("DELETE FROM begun WHERE task = ?", (task_id,))

    def begun(self) -> dict[bytes, int]:
        """Tasks that began without an end, and how often."""
        return {row["task"]: row["times"] for row in self._db.execute("SELECT task, times FROM begun").fetchall()}

    def hasten(self, latest: float) -> None:
        """No open task waits beyond `latest` (unix seconds): the clock that its `next_try` was written by was set back."""
        with self._transaction():
            self._db.execute("UPDATE tasks SET next_try = ? WHERE next_try > ?", (latest, latest))

    def states(self, task_ids: Sequence[bytes]) -> dict[bytes, State]:
        """Where each of these tasks stands; those that the journal does not have are left out."""
        found = {}
        for task_id in task_ids:
            row = self._db.execute("SELECT state FROM tasks WHERE id = ?", (task_id,)).fetchone()
            if row is not None:
                found[task_id] = State(row["state"])
        return found

    def try_again(self, states: Sequence[State]) -> int:
        """Take tasks that were given up in one of `states` up again, from what is left of them; returns how many."""
        tasks = self.tasks(states)
        with self._transaction():
            for task in tasks:
                row = self._row(task.id)
                if row is not None:
                    target = resumes_at(row)
                    check_move(State(row["state"]), target, Mover.OPERATOR)
                    self._db.execute(
                        "UPDATE tasks SET state = ?, attempts = 0, next_try = 0, code = NULL, reason = NULL WHERE id = ?",
                        (target, task.id),
                    )
        return len(tasks)

    def _move(self, task: Task, target: State, *, durable: bool = False, **changes: object) -> Task:
        """Raises `Overtaken` when the row is no longer in `task.state`."""
        check_move(task.state, target, Mover.WORKER)
        with self._transaction(durable=durable):
            self._update(task, target, **changes)
        return replace(task, state=target)

    def _update(self, task: Task, target: State, **changes: object) -> None:
        columns = {"state": target, **changes}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        changed = self._db.execute(
            f"UPDATE tasks SET {assignments} WHERE id = ? AND state = ?",  # noqa: S608 (names are ours)
            (*columns.values(), task.id, task.state),
        ).rowcount
        if not changed:
            raise Overtaken

    def _row(self, task_id: bytes) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
        return row

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[None]:
        if durable:
            self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        finally:
            if durable:
                self._db.execute("PRAGMA synchronous = NORMAL")


class JournalThread:
    """Runs a journal's methods one after the other on a thread of their own: a sync to disk takes milliseconds."""

    def __init__(self, path: Path) -> None:
        self._executor = ThreadPoolExecutor(1, "journal")
        self.journal = Journal(path)

    async def __call__(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = asyncio.get_running_loop().run_in_executor(self._executor, lambda: method(*args, **kwargs))
        # A cancelled caller must not leave a write behind it that it does not know of.
        return await asyncio.shield(call)

    def close(self) -> None:
        self._executor.shutdown(wait=True)
        self.journal.close()


def _end(event: TaskSettled | TaskBatched | TaskEnded) -> State:
    if isinstance(event, TaskSettled | TaskBatched):
        return State.SETTLED
    return State.CANCELLED if event.how == "TaskCancelled" else State.EXPIRED
