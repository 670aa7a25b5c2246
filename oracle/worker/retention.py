"""What the journal forgets: tasks that ended long ago, and agreements that ended and that no task needs. Sums stay.

One small transaction at a time, so that no work waits for it. `below` is a block that no reorganisation reaches.
"""

from __future__ import annotations

from collections.abc import Sequence

from oracle.worker.database import Database
from oracle.worker.rows import read_agreement
from oracle.worker.states import OPEN, State

CLOSED = tuple(state for state in State if state not in OPEN)
ENDED_TOTAL = "ended"
"""Name in the table of totals of how many tasks were forgotten, by the state that they ended in."""
RETAIN_DAYS = 90.0
BATCH = 200


def prune(db: Database, *, now: float, before: float, below: int) -> int:
    """Forget up to `BATCH` tasks and as many agreements that were over at `before` (unix seconds), and their records; returns
    how many rows went. A receipt that storage does not have yet keeps its task."""
    with db.transaction():
        closed = ", ".join("?" * len(CLOSED))
        # A journal of an earlier release did not write down when.
        db.execute(
            f"UPDATE tasks SET ended_at = ? WHERE ended_at IS NULL AND state IN ({closed})",  # noqa: S608 (marks)
            (now, *CLOSED),
        )
        rows = db.execute(
            f"SELECT id, state FROM tasks WHERE ended_at < ? AND state IN ({closed}) AND block_number <= ?"  # noqa: S608 (marks)
            " AND (ended_block IS NULL OR ended_block <= ?) AND id NOT IN (SELECT task FROM receipts)"
            " ORDER BY ended_at LIMIT ?",
            (before, *CLOSED, below, below, BATCH),
        ).fetchall()
        for row in rows:
            db.execute("DELETE FROM begun WHERE task = ?", (row["id"],))
            db.execute("DELETE FROM tasks WHERE id = ?", (row["id"],))
        for state in {row["state"] for row in rows}:
            add_total(db, ENDED_TOTAL, state, sum(row["state"] == state for row in rows))
        gone = len(rows) + _prune_agreements(db, before, below)
    if gone:
        db.shrink()
    return gone


def _prune_agreements(db: Database, before: float, below: int) -> int:
    for row in db.execute("SELECT * FROM agreements WHERE ends_at IS NULL LIMIT ?", (BATCH,)):
        ends = float(read_agreement(row).agreement.not_after)
        db.execute("UPDATE agreements SET ends_at = ? WHERE id = ?", (ends, row["id"]))
    rows = db.execute(
        "SELECT id FROM agreements WHERE ends_at < ? AND block_number <= ?"
        " AND NOT EXISTS (SELECT 1 FROM tasks WHERE agreement_id = agreements.id) LIMIT ?",
        (before, below, BATCH),
    ).fetchall()
    for row in rows:
        db.execute("DELETE FROM approvals WHERE agreement_id = ?", (row["id"],))
        db.execute("DELETE FROM agreements WHERE id = ?", (row["id"],))
    # Signatures of drafts that never came to be: anyone may post such.
    drafts = db.execute(
        "DELETE FROM approvals WHERE seen_at < ? AND block_number <= ?"
        " AND NOT EXISTS (SELECT 1 FROM agreements WHERE id = approvals.agreement_id)",
        (before, below),
    ).rowcount
    return len(rows) + drafts


def add_total(db: Database, name: str, label: str, amount: int) -> None:
    """Within a transaction: what is to outlive the rows it was counted from grows by `amount`."""
    row = db.execute("SELECT value FROM totals WHERE name = ? AND label = ?", (name, label)).fetchone()
    value = str(amount + (0 if row is None else int(row["value"])))
    db.execute(
        "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (name, label) DO UPDATE SET value = excluded.value",
        (name, label, value),
    )


def totals(db: Database, names: Sequence[str] = ()) -> dict[str, dict[str, int]]:
    """By name and label; all of them where no names are given."""
    found: dict[str, dict[str, int]] = {}
    for row in db.execute("SELECT name, label, value FROM totals"):
        if not names or row["name"] in names:
            found.setdefault(row["name"], {})[row["label"]] = int(row["value"])
    return found
