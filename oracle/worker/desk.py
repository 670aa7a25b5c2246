"""What an operator does at a journal, also while its worker runs: look, try again, abandon, take a copy.

Every change is conditional on the state that was read, so it never races the worker: one of the two comes first, and the other
is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from oracle.errors import Refused, Retryable
from oracle.worker.database import Row
from oracle.worker.journal import Journal
from oracle.worker.states import ENDED, OPEN, Mover, State, check_move

TABLES: Final = (
    ("cursor", "id"),
    ("blocks", "number"),
    ("events", "block_number, block_hash, log_index"),
    ("agreements", "id"),
    ("approvals", "agreement_id, account"),
    ("tasks", "id"),
    ("receipts", "task"),
    ("begun", "task"),
    ("totals", "name, label"),
    ("transactions", "nonce, made_at, hash"),
    ("transaction_keys", "wallet, purpose, key"),
    ("gas_spent", "wallet, purpose"),
)
"""Every table of the journal, with the order its rows are copied in."""
_PAGE: Final = 200


def find(journal: Journal, prefix: str) -> bytes:
    """The one task whose id begins so. Refused `task.prefix`, `task.unknown` or `task.ambiguous`."""
    digits = prefix.removeprefix("0x").lower()
    if not 1 <= len(digits) <= 64 or digits.strip("0123456789abcdef"):
        raise Refused("task.prefix", "no task's id begins so", found=repr(prefix[:80]), expected="1 to 64 hex digits")
    least, most = (bytes.fromhex(digits.ljust(64, end)) for end in "0f")
    rows = journal.db.execute("SELECT id FROM tasks WHERE id BETWEEN ? AND ? LIMIT 2", (least, most)).fetchall()
    if not rows:
        raise Refused("task.unknown", f"the journal has no task {prefix}")
    if len(rows) > 1:
        raise Refused("task.ambiguous", f"several tasks begin with {prefix}", hint="Give more of its digits")
    return bytes(rows[0]["id"])


def overview(journal: Journal) -> dict[str, int]:
    """How many tasks are in each state that has any."""
    rows = journal.db.execute("SELECT state, count(*) AS n FROM tasks GROUP BY state ORDER BY state")
    return {row["state"]: int(row["n"]) for row in rows}


def recent(journal: Journal, states: Sequence[State], limit: int) -> list[dict[str, Any]]:
    """What a list shows of tasks, newest requests first."""
    marks = ", ".join("?" * len(states))
    rows = journal.db.execute(
        "SELECT id, state, agreement_id, attempts, next_try, code, reason, block_number, settlement"  # noqa: S608 (marks)
        f" FROM tasks WHERE state IN ({marks}) ORDER BY block_number DESC, log_index DESC LIMIT ?",
        (*states, limit),
    )
    return [dict(row) for row in rows]


def retry(journal: Journal, task_id: bytes) -> State:
    """Take up what was given up, or let a task that waits wait no longer; returns where it now stands. Refused `task.over`."""
    with journal.db.transaction():
        row = _row(journal, task_id)
        state = State(row["state"])
        if state in OPEN:
            journal.db.execute("UPDATE tasks SET next_try = 0 WHERE id = ?", (task_id,))
            return state
        if state in ENDED or state is State.ORPHANED:
            raise Refused("task.over", f"the task is {state}: the chain says so, and there is nothing to try again")
        return journal.reopen(row)


def retry_parked(journal: Journal) -> int:
    """Take every parked task up again; returns how many."""
    return journal.try_again((State.PARKED,))


def abandon(journal: Journal, task_id: bytes, reason: str) -> State:
    """This worker does no more for it, until `retry`; what it has sent already may still settle it. Returns where it stood.
    Refused `task.over`."""
    with journal.db.transaction():
        row = _row(journal, task_id)
        state = State(row["state"])
        if state is State.ABANDONED:
            return state
        if state in ENDED or state is State.ORPHANED:
            raise Refused("task.over", f"the task is {state}: there is nothing to abandon")
        check_move(state, State.ABANDONED, Mover.OPERATOR)
        changed = journal.db.execute(
            "UPDATE tasks SET state = ?, ended_at = ?, code = ?, reason = ? WHERE id = ? AND state = ?",
            (State.ABANDONED, time.time(), "operator.abandoned", reason[:2000], task_id, state),
        ).rowcount
        if not changed:
            raise Retryable("task.moved", "the worker moved the task at the same time")
    return state


def export(journal: Journal) -> Iterator[dict[str, Any]]:
    """Every row as it is at one moment: first what the copy is, then one object for each row, its table under `table`."""
    with journal.db.snapshot():
        yield {"table": "journal", "version": journal.db.version(), "exported_at": int(time.time())}
        for table, order in TABLES:
            offset = 0
            while True:
                page = journal.db.execute(
                    f"SELECT * FROM {table} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608 (names are ours)
                    (_PAGE, offset),
                ).fetchall()
                for row in page:
                    yield {"table": table, **row}
                if len(page) < _PAGE:
                    break
                offset += _PAGE


def _row(journal: Journal, task_id: bytes) -> Row:
    row = journal.db.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
    if row is None:
        raise Refused("task.unknown", f"the journal has no task 0x{task_id.hex()}")
    return row
