"""The journal's tables, as migrations: entry n brings a database from version n to n + 1. Entries are never edited.

Written for SQLite; database.py says the types in PostgreSQL's words."""

from __future__ import annotations

from oracle.errors import Permanent
from oracle.worker.database import Database

MIGRATIONS = (
    """
    CREATE TABLE cursor (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        number INTEGER NOT NULL,      -- the last block whose events are all here
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE blocks (             -- blocks that were seen, to find where a reorganisation forked off
        number INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        parent BLOB NOT NULL
    ) STRICT;
    CREATE TABLE events (             -- one row for each log that was taken in
        transaction_hash BLOB NOT NULL,
        block_hash BLOB NOT NULL,
        log_index INTEGER NOT NULL,
        block_number INTEGER NOT NULL,
        PRIMARY KEY (transaction_hash, block_hash, log_index)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX events_by_block ON events (block_number);
    CREATE TABLE agreements (
        id BLOB PRIMARY KEY,
        agreement TEXT NOT NULL,      -- canonical JSON
        signatures TEXT NOT NULL,     -- JSON array of hex, aligned with the parties
        block_number INTEGER NOT NULL,
        block_hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE tasks (
        id BLOB PRIMARY KEY,
        agreement_id BLOB NOT NULL,
        request TEXT NOT NULL,        -- canonical JSON
        uri TEXT NOT NULL,
        state TEXT NOT NULL,          -- states.State
        attempts INTEGER NOT NULL DEFAULT 0,
        next_try REAL NOT NULL DEFAULT 0,   -- unix seconds
        code TEXT,                    -- of the last error, or why it was skipped
        reason TEXT,
        record TEXT,                  -- TaskRecord as canonical JSON, from `ran` on
        stored INTEGER NOT NULL DEFAULT 0,
        settlement BLOB,              -- hash of the transaction that was sent
        block_number INTEGER NOT NULL,      -- of the request
        block_hash BLOB NOT NULL,
        transaction_hash BLOB NOT NULL,
        log_index INTEGER NOT NULL,
        ended_block INTEGER           -- of the log or receipt that ended it
    ) STRICT;
    CREATE INDEX tasks_due ON tasks (state, next_try, block_number, log_index);
    CREATE INDEX tasks_ended ON tasks (ended_block);
    """,
    """
    CREATE TABLE receipts (           -- made with the result, kept until storage has them
        task BLOB PRIMARY KEY REFERENCES tasks (id),
        receipt BLOB NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE approvals (          -- signatures that came ahead of an activation, which may leave them away
        agreement_id BLOB NOT NULL,
        account TEXT NOT NULL,
        signature BLOB NOT NULL,
        block_number INTEGER NOT NULL,
        PRIMARY KEY (agreement_id, account)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE begun (              -- tasks that are worked on: what a start finds here, a crash left
        task BLOB PRIMARY KEY,
        times INTEGER NOT NULL        -- how often it was begun without an end
    ) STRICT;
    """,
    """
    ALTER TABLE tasks ADD COLUMN ended_at REAL;      -- unix seconds, while there is nothing left to do for it here
    ALTER TABLE approvals ADD COLUMN seen_at REAL;   -- unix seconds
    ALTER TABLE agreements ADD COLUMN ends_at REAL;  -- unix seconds, from its validity
    CREATE INDEX tasks_over ON tasks (ended_at);
    CREATE INDEX tasks_by_agreement ON tasks (agreement_id);
    CREATE TABLE totals (             -- what has to outlive the rows that it was counted from
        name TEXT NOT NULL,
        label TEXT NOT NULL,
        value TEXT NOT NULL,          -- decimal: wei do not fit 64 bits
        PRIMARY KEY (name, label)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE transactions (       -- what the wallet signed; the rows of one nonce stand in for each other
        hash BLOB PRIMARY KEY,
        wallet TEXT NOT NULL,
        nonce INTEGER NOT NULL,
        purpose TEXT NOT NULL,        -- settle, register, collateral, …; `gap` only uses its nonce up
        raw BLOB NOT NULL,            -- empty once final
        max_fee TEXT NOT NULL,        -- wei per gas, decimal: it does not fit 64 bits
        tip TEXT NOT NULL,
        state TEXT NOT NULL,          -- transactions.Fate
        made_at REAL NOT NULL,        -- unix seconds
        block_number INTEGER,         -- of its receipt, with hash, cost in wei and status
        block_hash BLOB,
        spent TEXT,
        ok INTEGER
    ) STRICT;
    CREATE INDEX transactions_by_nonce ON transactions (wallet, nonce);
    CREATE INDEX transactions_by_state ON transactions (state, made_at);
    CREATE TABLE transaction_keys (   -- what each nonce is used for: a task, evidence, a piece of collateral
        wallet TEXT NOT NULL,
        purpose TEXT NOT NULL,
        key BLOB NOT NULL,
        nonce INTEGER NOT NULL,
        PRIMARY KEY (wallet, purpose, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE gas_spent (          -- by transactions that are final
        wallet TEXT NOT NULL,
        purpose TEXT NOT NULL,
        wei TEXT NOT NULL,
        PRIMARY KEY (wallet, purpose)
    ) STRICT, WITHOUT ROWID;
    """,
)


def migrate(db: Database, *, owner: bool = True) -> None:
    """Bring the database to the newest version. Raises Permanent `journal.newer` for one that a later release wrote, and
    `journal.older` where another than its owner would have to change it."""
    version = db.version()
    if version > len(MIGRATIONS):
        raise Permanent(
            "journal.newer",
            "the journal was written by a later release",
            found=version,
            expected=f"at most {len(MIGRATIONS)}",
            hint="Run that release, or begin a new journal",
        )
    if version < len(MIGRATIONS) and not owner:
        raise Permanent(
            "journal.older",
            "the journal is of an earlier release",
            found=version,
            expected=len(MIGRATIONS),
            hint="`oracle worker run` brings it up to date",
        )
    for number in range(version, len(MIGRATIONS)):
        with db.transaction(durable=True):
            db.script(MIGRATIONS[number])
            db.set_version(number + 1)
