"""The journal: what the worker knows, in a database, so that a restart resumes at the right step.

One worker at a time has it. Two grades of durability, both safe against a crash of this process: what the chain can say
again (events and cursor) may be taken back by a power cut, by some transactions, cursor and events together; what only we
know (a signed result, a sent transaction) may not, because to make it again costs a release, and brokers cap those (R13).

Methods are synchronous and quick; `JournalThread` runs them off the event loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

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
from oracle.errors import Retryable
from oracle.worker.database import Database, Row, Server, open_database
from oracle.worker.figures import Figures, read_figures
from oracle.worker.retention import BATCH, RETAIN_DAYS, prune
from oracle.worker.rows import StoredAgreement, Task, read_agreement, read_task, resumes_at
from oracle.worker.schema import migrate
from oracle.worker.states import OPEN, Mover, State, check_move

P = ParamSpec("P")
T = TypeVar("T")
KEPT_BLOCKS = 4096
"""As deep as a reorganisation is followed block by block; what lies deeper can be forgotten."""
_PRUNE_SECONDS = 60.0
_OWED = f"FROM tasks WHERE state = '{State.SETTLED}' AND id IN (SELECT task FROM receipts)"  # noqa: S608 (ours)
"""Tasks whose receipt is still to be written. The chain's log may end a task before this worker has seen its own receipt."""

_TRIED = "attempts = attempts + ?, next_try = ?, code = ?, reason = ?"


class Overtaken(Exception):
    """The follower moved the task meanwhile: it ended, or a reorganisation took its request. No error; work on it stops."""


class Journal:
    """Raises Permanent `journal.locked` when another process has it open, and what database.py raises. Not its `owner`, one may
    look beside the worker, and do what is an operator's (desk.py). What is over for `retain_days` is forgotten (retention.py)."""

    def __init__(self, place: Server | Path, *, owner: bool = True, retain_days: float = RETAIN_DAYS) -> None:
        self.db: Database = open_database(place, owner=owner)
        self._retain_seconds, self._next_prune = retain_days * 86400, 0.0
        try:
            migrate(self.db, owner=owner)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.db.close()

    # The chain's side.

    def cursor(self) -> tuple[int, bytes] | None:
        row = self.db.execute("SELECT number, hash FROM cursor").fetchone()
        return None if row is None else (row["number"], row["hash"])

    def block_at_most(self, number: int) -> tuple[int, bytes] | None:
        """The highest block kept, of those up to `number`."""
        row = self.db.execute(
            "SELECT number, hash FROM blocks WHERE number <= ? ORDER BY number DESC LIMIT 1", (number,)
        ).fetchone()
        return None if row is None else (row["number"], row["hash"])

    def take_in(self, events: Sequence[Event], upto: Block) -> int:
        """Events of the blocks after the cursor and the cursor itself, in one transaction; returns how many were new."""
        new = 0
        with self.db.transaction():
            for event in events:
                new += self._apply(event)
            self.db.execute(
                "INSERT INTO blocks VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET hash = excluded.hash,"
                " parent = excluded.parent",
                (upto.number, upto.hash, upto.parent),
            )
            self.db.execute("DELETE FROM blocks WHERE number <= ?", (upto.number - KEPT_BLOCKS,))
            # Below every block that is known, an event is not taken in again; and one that is changes nothing.
            self.db.execute("DELETE FROM events WHERE block_number <= ?", (upto.number - KEPT_BLOCKS,))
            self._set_cursor(upto.number, upto.hash)
        self._prune(upto.number - KEPT_BLOCKS)
        return new

    def _prune(self, below: int) -> None:
        now = time.time()
        # A clock that was set back must not stop it for long.
        if self._next_prune - _PRUNE_SECONDS <= now < self._next_prune:
            return
        self._next_prune = now + _PRUNE_SECONDS
        if prune(self.db, now=now, before=now - self._retain_seconds, below=below) >= BATCH:
            self._next_prune = now + 1

    def rewind(self, number: int, block_hash: bytes) -> None:
        """Forget everything above block `number`, in one transaction. What was computed is kept: the same request makes
        the same task in the new chain (R14)."""
        with self.db.transaction():
            self.db.execute("DELETE FROM events WHERE block_number > ?", (number,))
            self.db.execute("DELETE FROM blocks WHERE number > ?", (number,))
            self.db.execute("DELETE FROM agreements WHERE block_number > ?", (number,))
            self.db.execute("DELETE FROM approvals WHERE block_number > ?", (number,))
            for row in self.db.execute("SELECT * FROM tasks WHERE block_number > ?", (number,)).fetchall():
                # What an operator abandoned is not to come back with its request.
                if row["state"] != State.ABANDONED:
                    self._chain_move(row, State.ORPHANED, None)
            ended = self.db.execute(
                "SELECT * FROM tasks WHERE ended_block > ? AND block_number <= ?", (number, number)
            ).fetchall()
            for row in ended:
                self._chain_move(row, resumes_at(row), None)
            self._set_cursor(number, block_hash)

    def _apply(self, event: Event) -> int:
        log = event.log
        fresh = self.db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (log.transaction_hash, log.block_hash, log.index, log.block_number),
        ).rowcount
        if not fresh:
            return 0
        if isinstance(event, AgreementApproved):
            if event.signed():
                self.db.execute(
                    "INSERT INTO approvals (agreement_id, account, signature, block_number, seen_at) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT (agreement_id, account) DO UPDATE SET signature = excluded.signature,"
                    " block_number = excluded.block_number, seen_at = excluded.seen_at",
                    (event.agreement_id, event.account, event.signature, log.block_number, time.time()),
                )
        elif isinstance(event, AgreementActivated):
            self.db.execute(
                "INSERT INTO agreements (id, agreement, signatures, block_number, block_hash, ends_at)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET agreement = excluded.agreement,"
                " signatures = excluded.signatures, block_number = excluded.block_number, block_hash = excluded.block_hash",
                (
                    event.agreement_id,
                    event.agreement.canonical().decode(),
                    json.dumps([s.hex() for s in event.signatures]),
                    log.block_number,
                    log.block_hash,
                    float(event.agreement.not_after),
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
            self.db.execute(
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
        self.db.execute(
            "UPDATE tasks SET block_number = ?, block_hash = ?, transaction_hash = ?, log_index = ? WHERE id = ?",
            (*place, event.task_id),
        )
        if row["state"] == State.ORPHANED:
            self._chain_move(row, resumes_at(row), None)

    def _chain_move(self, row: Row, target: State, ended_block: int | None) -> None:
        source = State(row["state"])
        if source is not target:
            check_move(source, target, Mover.CHAIN)
        dropped = "" if ended_block is not None else " settlement = NULL,"
        ended_at = None if target in OPEN else time.time()
        self.db.execute(
            f"UPDATE tasks SET state = ?, ended_block = ?, ended_at = ?,{dropped}"  # noqa: S608 (ours)
            " attempts = 0, next_try = 0, code = NULL, reason = NULL WHERE id = ?",
            (target, ended_block, ended_at, row["id"]),
        )

    def _set_cursor(self, number: int, block_hash: bytes) -> None:
        self.db.execute(
            "INSERT INTO cursor VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET number = excluded.number, hash = excluded.hash",
            (number, block_hash),
        )

    # The worker's side.

    def agreement(self, agreement_id: bytes) -> StoredAgreement | None:
        row = self.db.execute("SELECT * FROM agreements WHERE id = ?", (agreement_id,)).fetchone()
        if row is None:
            return None
        stored = read_agreement(row)
        parties = stored.agreement.parties()
        if all(stored.signatures) or len(stored.signatures) != len(parties):
            return stored
        # R13: brokers check ECDSA signatures themselves, also those that the activation left away.
        query = "SELECT account, signature FROM approvals WHERE agreement_id = ?"
        posted = {each["account"]: bytes(each["signature"]) for each in self.db.execute(query, (agreement_id,))}
        signatures = tuple(s or posted.get(p, b"") for p, s in zip(parties, stored.signatures, strict=True))
        return replace(stored, signatures=signatures)

    def newest_agreements(self, limit: int) -> list[bytes]:
        rows = self.db.execute("SELECT id FROM agreements ORDER BY block_number DESC LIMIT ?", (limit,)).fetchall()
        return [bytes(row["id"]) for row in rows]

    def figures(self) -> Figures:
        """What metrics and the dashboard show of it."""
        return read_figures(self.db)

    def agreements(self) -> list[StoredAgreement]:
        return [read_agreement(row) for row in self.db.execute("SELECT * FROM agreements").fetchall()]

    def task(self, task_id: bytes) -> Task | None:
        row = self._row(task_id)
        return None if row is None else read_task(row)

    def tasks(self, states: Sequence[State] = tuple(State)) -> list[Task]:
        marks = ", ".join("?" * len(states))
        query = f"SELECT * FROM tasks WHERE state IN ({marks}) ORDER BY block_number, log_index"  # noqa: S608 (marks)
        return [read_task(row) for row in self.db.execute(query, tuple(states)).fetchall()]

    def due(self, now: float, limit: int) -> list[bytes]:
        """Ids of tasks that something is to be done about and whose time has come: open ones, oldest request first, then
        settled ones whose receipt storage does not have yet."""
        rows = self.db.execute(
            "SELECT id FROM tasks WHERE state IN (?, ?, ?, ?) AND next_try <= ? ORDER BY block_number, log_index LIMIT ?",
            (*OPEN, now, limit),
        ).fetchall()
        owed = self.db.execute(f"SELECT id {_OWED} AND next_try <= ? LIMIT ?", (now, limit)).fetchall()
        return [row["id"] for row in (*rows, *owed)][:limit]

    def next_try(self, after: float) -> float | None:
        """When the next task comes due after `after`, in unix seconds."""
        rows = (
            *self.db.execute(
                "SELECT min(next_try) AS at FROM tasks WHERE state IN (?, ?, ?, ?) AND next_try > ?", (*OPEN, after)
            ),
            *self.db.execute(f"SELECT min(next_try) AS at {_OWED} AND next_try > ?", (after,)),
        )
        return min((float(row["at"]) for row in rows if row["at"] is not None), default=None)

    def ran(self, task: Task, record: TaskRecord, receipt: bytes | None = None) -> Task:
        """SEEN → RAN, with everything that storing, settling and the receipt need."""
        check_move(task.state, State.RAN, Mover.WORKER)
        with self.db.transaction(durable=True):
            self._update(task, State.RAN, record=record.canonical().decode(), stored=0, attempts=0)
            self.db.execute("DELETE FROM receipts WHERE task = ?", (task.id,))
            if receipt is not None:
                self.db.execute("INSERT INTO receipts VALUES (?, ?)", (task.id, receipt))
        return replace(task, state=State.RAN, record=record)

    def receipt(self, task_id: bytes) -> bytes | None:
        """A receipt that storage does not have yet."""
        row = self.db.execute("SELECT receipt FROM receipts WHERE task = ?", (task_id,)).fetchone()
        return None if row is None else bytes(row["receipt"])

    def receipt_done(self, task_id: bytes) -> None:
        """Storage has the receipt, or it is of no use: the chain took another result."""
        with self.db.transaction():
            self.db.execute("DELETE FROM receipts WHERE task = ?", (task_id,))
            self.db.execute(
                "UPDATE tasks SET code = NULL, reason = NULL WHERE id = ? AND state = ?", (task_id, State.SETTLED)
            )

    def stored(self, task: Task) -> Task:
        """RAN → STORED, or SETTLING → STORED when what was sent came to nothing."""
        return self._move(task, State.STORED, stored=1, settlement=None, attempts=0)

    def settling(self, task: Task, transaction_hash: bytes) -> Task:
        moved = self._move(task, State.SETTLING, durable=True, settlement=transaction_hash)
        return replace(moved, settlement=transaction_hash)

    def settling_together(self, tasks: Sequence[Task], transaction_hash: bytes) -> list[bytes]:
        """STORED → SETTLING within the transaction that stores what settles them. Ids of those that the chain did not move
        meanwhile; raises `Overtaken` where that is none."""
        moved = []
        for task in tasks:
            check_move(task.state, State.SETTLING, Mover.WORKER)
            with suppress(Overtaken):
                self._update(task, State.SETTLING, settlement=transaction_hash)
                moved.append(task.id)
        if not moved:
            raise Overtaken
        return moved

    def start_over(self, task: Task) -> Task:
        """Back to SEEN; the result is of no use any more."""
        return replace(self._move(task, State.SEEN, record=None, stored=0, settlement=None), record=None)

    def ended(self, task: Task, state: State, block_number: int | None = None, block_hash: bytes | None = None) -> Task:
        """A rewind below the block takes it back. Raises Overtaken, too, where the journal does not stand at or above a block
        of that hash any more: what was read there is no longer so, and no rewind would be left to say it."""
        check_move(task.state, state, Mover.WORKER)
        with self.db.transaction():
            if block_hash is not None and block_number is not None:
                known = self.block_at_most(block_number)
                if known is None or (known[0], bytes(known[1])) != (block_number, block_hash):
                    raise Overtaken
            self._update(task, state, ended_block=block_number, ended_at=time.time(), code=None, reason=None)
        return replace(task, state=state)

    def standing(self, task_id: bytes) -> tuple[State | None, tuple[int, bytes] | None]:
        """A task's state, and the block up to which the chain was followed when it had it."""
        row = self.db.execute("SELECT state FROM tasks WHERE id = ?", (task_id,)).fetchone()
        return (None if row is None else State(row["state"])), self.cursor()

    def give_up(self, task: Task, state: State, code: str, reason: str) -> Task:
        """SKIPPED, FAILED or PARKED, with why."""
        # As long as it could still be done here, it is not forgotten.
        over = max(time.time(), float(task.request.deadline))
        return self._move(task, state, ended_at=over, code=code, reason=reason[:2000])

    def retry(self, task_id: bytes, next_try: float, code: str, reason: str, *, counts: bool = True) -> None:
        """The task stays where it is until `next_try`; `counts` says whether this was a failed attempt."""
        with self.db.transaction():
            self.db.execute(
                f"UPDATE tasks SET {_TRIED} WHERE id = ? AND (state IN (?, ?, ?, ?) OR id IN (SELECT id {_OWED}))",  # noqa: S608
                (int(counts), next_try, code, reason[:2000], task_id, *OPEN),
            )

    def begin(self, task_id: bytes) -> int:
        """Work on a task begins; returns how often it began without `pause` since: more than once, and the process died over
        it, or beside it."""
        with self.db.transaction():
            self.db.execute(
                "INSERT INTO begun VALUES (?, 1) ON CONFLICT (task) DO UPDATE SET times = begun.times + 1", (task_id,)
            )
        return self.begun().get(task_id, 1)

    def pause(self, task_id: bytes) -> None:
        """Work on a task ended, one way or another, and the process is alive."""
        with self.db.transaction():
            self.db.execute("DELETE FROM begun WHERE task = ?", (task_id,))

    def begun(self) -> dict[bytes, int]:
        """Tasks that began without an end, and how often."""
        return {row["task"]: row["times"] for row in self.db.execute("SELECT task, times FROM begun")}

    def hasten(self, latest: float) -> None:
        """No open task waits beyond `latest` (unix seconds): the clock that its `next_try` was written by was set back."""
        with self.db.transaction():
            self.db.execute("UPDATE tasks SET next_try = ? WHERE next_try > ?", (latest, latest))

    def states(self, task_ids: Sequence[bytes]) -> dict[bytes, State]:
        """Where each of these tasks stands; those that the journal does not have are left out."""
        found = {}
        for task_id in task_ids:
            row = self.db.execute("SELECT state FROM tasks WHERE id = ?", (task_id,)).fetchone()
            if row is not None:
                found[task_id] = State(row["state"])
        return found

    def try_again(self, states: Sequence[State]) -> int:
        """Take tasks that were given up in one of `states` up again, from what is left of them; returns how many."""
        marks = ", ".join("?" * len(states))
        with self.db.transaction():
            rows = self.db.execute(f"SELECT * FROM tasks WHERE state IN ({marks})", tuple(states)).fetchall()  # noqa: S608
            for row in rows:
                self.reopen(row)
        return len(rows)

    def reopen(self, row: Row) -> State:
        """Within a transaction: take up again what was given up. Raises Bug where that is no legal move."""
        target = resumes_at(row)
        check_move(State(row["state"]), target, Mover.OPERATOR)
        changed = self.db.execute(
            "UPDATE tasks SET state = ?, attempts = 0, next_try = 0, ended_at = NULL, code = NULL, reason = NULL"
            " WHERE id = ? AND state = ?",
            (target, row["id"], row["state"]),
        ).rowcount
        if not changed:
            raise Retryable("task.moved", "somebody else moved the task at the same time")
        return target

    def _move(self, task: Task, target: State, *, durable: bool = False, **changes: object) -> Task:
        """Raises `Overtaken` when the row is no longer in `task.state`."""
        check_move(task.state, target, Mover.WORKER)
        with self.db.transaction(durable=durable):
            self._update(task, target, **changes)
        return replace(task, state=target)

    def _update(self, task: Task, target: State, **changes: object) -> None:
        columns: dict[str, Any] = {"state": target, **changes}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        changed = self.db.execute(
            f"UPDATE tasks SET {assignments} WHERE id = ? AND state = ?",  # noqa: S608 (names are ours)
            (*columns.values(), task.id, task.state),
        ).rowcount
        if not changed:
            raise Overtaken

    def _row(self, task_id: bytes) -> Row | None:
        return self.db.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()


class JournalThread:
    """Runs a journal's methods one after the other on a thread of their own: a sync to disk takes milliseconds.

    Waking a thread costs more than most of these methods do. So what is asked while it works is done in the same turn, and
    what is done before the event loop looks is told it in one go.
    """

    def __init__(self, place: Server | Path, *, retain_days: float = RETAIN_DAYS) -> None:
        self._executor = ThreadPoolExecutor(1, "journal")
        self._lock = threading.Lock()
        self._asked: deque[_Call[Any]] = deque()
        self._done: list[_Call[Any]] = []
        self._working = False
        self.journal = Journal(place, retain_days=retain_days)

    async def __call__(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call: _Call[T] = _Call(lambda: method(*args, **kwargs), asyncio.get_running_loop().create_future())
        with self._lock:
            self._asked.append(call)
            wake, self._working = not self._working, True
        if wake:
            try:
                self._executor.submit(self._work)
            except RuntimeError:  # it is closed
                with self._lock:
                    self._asked.clear()
                    self._working = False
                raise
        return await call.answer

    def _work(self) -> None:
        """On the journal's thread, until nothing is asked any more."""
        while True:
            with self._lock:
                if not self._asked:
                    self._working = False
                    return
                call = self._asked.popleft()
            call.run()
            with self._lock:
                wake = not self._done
                self._done.append(call)
            if wake:
                try:
                    call.answer.get_loop().call_soon_threadsafe(self._tell)
                except RuntimeError:  # its loop is closed: nobody waits any more
                    with self._lock:
                        self._done.clear()

    def _tell(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for call in done:
            call.tell()

    def close(self) -> None:
        self._executor.shutdown(wait=True)
        self.journal.close()


@dataclass(eq=False)
class _Call(Generic[T]):
    """One method, and whoever waits for what it gives."""

    method: Callable[[], T]
    answer: asyncio.Future[T]
    given: list[T] = field(default_factory=list)
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.given.append(self.method())
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.given[0])


def _end(event: TaskSettled | TaskBatched | TaskEnded) -> State:
    if isinstance(event, TaskSettled | TaskBatched):
        return State.SETTLED
    return State.CANCELLED if event.how == "TaskCancelled" else State.EXPIRED
