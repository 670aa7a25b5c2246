"""The journal's tables, as migrations: entry n brings a database from version n to n + 1. Entries are never edited."""

from __future__ import annotations

import sqlite3

from oracle.errors import Permanent

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
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest version; raises Permanent `journal.newer` for one that a later release wrote."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise Permanent(
            "journal.newer",
            "the journal was written by a later release",
            found=version,
            expected=f"at most {len(MIGRATIONS)}",
            hint="Run that release, or begin a new journal",
        )
    for number in range(version, len(MIGRATIONS)):
        # One transaction for the tables and the version: executescript would commit on its own, hence BEGIN inside it.
        connection.executescript(f"BEGIN IMMEDIATE;{MIGRATIONS[number]}PRAGMA user_version = {number + 1};COMMIT;")
