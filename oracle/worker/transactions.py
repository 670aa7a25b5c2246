"""The wallet's transactions in the journal's database: what was signed under which nonce, and what became of it.

A nonce is used by one transaction on chain at most, so the rows of a nonce stand in for each other: the first one, its
replacements, and one that only uses the nonce up. A row is

    pending ── a receipt in the canonical chain ──▶ mined ── its block is final ──▶ final
       ▲                                              │
       └───────────── a reorganisation ◀──────────────┘
    pending ── somebody else's transaction has the nonce, for good ──▶ dead

Methods are synchronous and run on the journal's thread; each is one transaction of the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from oracle.chain.fees import Fees

GAP: Final = "gap"
"""The purpose of a transaction of nothing to ourselves, which only uses its nonce up."""
KEPT_SECONDS: Final = 24 * 3600.0
"""How long what is over is remembered."""


class Rows(Protocol):
    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Db(Protocol):
    """What is needed of the journal's database."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows: ...
    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]: ...


class Fate(StrEnum):
    PENDING = "pending"
    MINED = "mined"
    FINAL = "final"
    DEAD = "dead"


@dataclass(frozen=True)
class Transaction:
    """A row. `made_at` in unix seconds; `ok` is the status of its receipt, while there is one in the canonical chain."""

    hash: bytes
    nonce: int
    purpose: str
    raw: bytes
    fees: Fees
    fate: Fate
    made_at: float
    block_number: int | None = None
    block_hash: bytes | None = None
    ok: bool | None = None


@dataclass(frozen=True)
class Mined:
    """Where a receipt places a transaction. `spent` in wei."""

    hash: bytes
    block_number: int
    block_hash: bytes
    spent: int
    ok: bool


class TransactionBook:
    """One wallet's rows. A nonce is given out and its transaction stored in the same database transaction."""

    def __init__(self, db: Db, wallet: str) -> None:
        self._db, self._wallet = db, wallet

    def next_nonce(self, floor: int) -> int:
        """The first nonce from `floor` on (what the chain and its pools have) that is not given out here."""
        row = self._db.execute(
            "SELECT max(nonce) AS top FROM transactions WHERE wallet = ? AND state <> ?", (self._wallet, Fate.DEAD)
        ).fetchone()
        top = None if row is None else row["top"]
        return floor if top is None else max(floor, int(top) + 1)

    def alive(self, purpose: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The hash of the transaction that does each of `keys`, of those that one does or did: pending, or mined well."""
        found: dict[bytes, bytes] = {}
        for key in keys:
            row = self._db.execute(
                "SELECT t.hash FROM transaction_keys k JOIN transactions t ON t.wallet = k.wallet AND t.nonce = k.nonce"
                " WHERE k.wallet = ? AND k.purpose = ? AND k.key = ? AND t.purpose = ?"
                " AND (t.state = ? OR (t.state IN (?, ?) AND t.ok = 1))"
                " AND NOT EXISTS (SELECT 1 FROM transactions m WHERE m.wallet = t.wallet AND m.nonce = t.nonce"
                " AND m.hash <> t.hash AND m.state IN (?, ?)) ORDER BY t.made_at DESC LIMIT 1",
                (self._wallet, purpose, key, purpose, Fate.PENDING, *_MINED, *_MINED),
            ).fetchone()
            if row is not None:
                found[key] = bytes(row["hash"])
        return found

    def add(self, row: Transaction, keys: Sequence[bytes], along: Callable[[bytes], object] | None = None) -> None:
        """A new nonce's transaction. `along` writes, in the same transaction, what is to be true if and only if it is sent;
        whatever it raises undoes both."""
        with self._db.transaction(durable=True):
            self._insert(row)
            for key in keys:
                self._db.execute(
                    "INSERT INTO transaction_keys VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (wallet, purpose, key) DO UPDATE SET nonce = excluded.nonce",
                    (self._wallet, row.purpose, key, row.nonce),
                )
            if along is not None:
                along(row.hash)

    def stand_in(self, row: Transaction) -> None:
        """Another transaction for a nonce that has one."""
        with self._db.transaction(durable=True):
            self._insert(row)

    def _insert(self, row: Transaction) -> None:
        self._db.execute(
            "INSERT INTO transactions (hash, wallet, nonce, purpose, raw, max_fee, tip, state, made_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.hash,
                self._wallet,
                row.nonce,
                row.purpose,
                row.raw,
                str(row.fees.most),
                str(row.fees.tip),
                row.fate,
                row.made_at,
            ),
        )

    def open(self) -> list[Transaction]:
        """What is to be mined, by nonce and age: the pending rows of nonces that the chain has nothing of ours for."""
        rows = self._db.execute(
            "SELECT * FROM transactions t WHERE wallet = ? AND state = ? AND NOT EXISTS (SELECT 1 FROM transactions m"
            " WHERE m.wallet = t.wallet AND m.nonce = t.nonce AND m.state IN (?, ?)) ORDER BY nonce, made_at",
            (self._wallet, Fate.PENDING, *_MINED),
        ).fetchall()
        return [_read(row) for row in rows]

    def watched(self) -> list[Transaction]:
        """What a reorganisation can still change: mined and not final, or dead lately."""
        rows = self._db.execute(
            "SELECT * FROM transactions WHERE wallet = ? AND state IN (?, ?) ORDER BY nonce, made_at",
            (self._wallet, Fate.MINED, Fate.DEAD),
        ).fetchall()
        return [_read(row) for row in rows]

    def final_from(self, nonce: int) -> list[Transaction]:
        """Final ones from a nonce on that the chain has not used: there are none, unless what was final was undone."""
        rows = self._db.execute(
            "SELECT * FROM transactions WHERE wallet = ? AND state = ? AND nonce >= ? ORDER BY nonce",
            (self._wallet, Fate.FINAL, nonce),
        ).fetchall()
        return [_read(row) for row in rows]

    def lost(self, hashes: Sequence[bytes]) -> None:
        """Forget what was final and is gone: whoever wanted it has to ask anew."""
        with self._db.transaction():
            for each in hashes:
                self._db.execute("DELETE FROM transactions WHERE hash = ? AND state = ?", (each, Fate.FINAL))

    def slot_of(self, transaction_hash: bytes) -> list[Transaction]:
        """The rows of the nonce of a transaction, itself among them; empty for one that is not ours, or long over."""
        rows = self._db.execute(
            "SELECT * FROM transactions WHERE wallet = ? AND nonce ="
            " (SELECT nonce FROM transactions WHERE hash = ? AND wallet = ?) ORDER BY made_at",
            (self._wallet, transaction_hash, self._wallet),
        ).fetchall()
        return [_read(row) for row in rows]

    def has_nonce(self, nonce: int) -> bool:
        """Whether a transaction of ours stands for it, final ones among them."""
        found = self._db.execute(
            "SELECT 1 AS one FROM transactions WHERE wallet = ? AND nonce = ? AND state <> ?",
            (self._wallet, nonce, Fate.DEAD),
        ).fetchone()
        return found is not None

    def mined(self, found: Sequence[Mined]) -> None:
        """Receipts in the canonical chain. What else has the nonce waits for a reorganisation."""
        with self._db.transaction():
            for each in found:
                self._db.execute(
                    "UPDATE transactions SET state = ?, block_number = ?, block_hash = ?, spent = ?, ok = ? WHERE hash = ?",
                    (Fate.MINED, each.block_number, each.block_hash, str(each.spent), int(each.ok), each.hash),
                )

    def unmined(self, hashes: Sequence[bytes]) -> None:
        """A reorganisation took their receipts."""
        with self._db.transaction():
            for each in hashes:
                self._db.execute(
                    "UPDATE transactions SET state = ?, block_number = NULL, block_hash = NULL, spent = NULL, ok = NULL"
                    " WHERE hash = ? AND state = ?",
                    (Fate.PENDING, each, Fate.MINED),
                )

    def dead(self, nonce: int) -> None:
        """Another program's transaction has the nonce: ours can never be mined."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE transactions SET state = ? WHERE wallet = ? AND nonce = ? AND state = ?",
                (Fate.DEAD, self._wallet, nonce, Fate.PENDING),
            )

    def final(self, hashes: Sequence[bytes]) -> None:
        """Their blocks are final: what they cost is booked, and the rest of their nonces' rows are of no use any more."""
        with self._db.transaction():
            for each in hashes:
                row = self._db.execute(
                    "SELECT nonce, purpose, spent FROM transactions WHERE hash = ? AND state = ?", (each, Fate.MINED)
                ).fetchone()
                if row is None:
                    continue
                self._book(row["purpose"], int(row["spent"]))
                self._db.execute("UPDATE transactions SET state = ?, raw = ? WHERE hash = ?", (Fate.FINAL, b"", each))
                self._db.execute(
                    "DELETE FROM transactions WHERE wallet = ? AND nonce = ? AND hash <> ?",
                    (self._wallet, row["nonce"], each),
                )

    def prune(self, now: float) -> None:
        """Forget what has been over for a day; the newest nonce stays, which the next one follows."""
        with self._db.transaction():
            self._db.execute(
                "DELETE FROM transactions WHERE wallet = ? AND state IN (?, ?) AND made_at < ? AND nonce <"
                " (SELECT max(nonce) FROM transactions WHERE wallet = ?)",
                (self._wallet, Fate.FINAL, Fate.DEAD, now - KEPT_SECONDS, self._wallet),
            )
            self._db.execute(
                "DELETE FROM transaction_keys WHERE wallet = ? AND NOT EXISTS (SELECT 1 FROM transactions t"
                " WHERE t.wallet = transaction_keys.wallet AND t.nonce = transaction_keys.nonce)",
                (self._wallet,),
            )

    def spent(self) -> dict[str, int]:
        """Wei that gas has cost so far, by purpose."""
        total: dict[str, int] = {}
        for query in (
            "SELECT purpose, wei AS spent FROM gas_spent WHERE wallet = ?",
            f"SELECT purpose, spent FROM transactions WHERE wallet = ? AND state = '{Fate.MINED}'",  # noqa: S608 (ours)
        ):
            for row in self._db.execute(query, (self._wallet,)).fetchall():
                total[row["purpose"]] = total.get(row["purpose"], 0) + int(row["spent"])
        return total

    def _book(self, purpose: str, wei: int) -> None:
        row = self._db.execute(
            "SELECT wei FROM gas_spent WHERE wallet = ? AND purpose = ?", (self._wallet, purpose)
        ).fetchone()
        before = 0 if row is None else int(row["wei"])
        self._db.execute(
            "INSERT INTO gas_spent VALUES (?, ?, ?) ON CONFLICT (wallet, purpose) DO UPDATE SET wei = excluded.wei",
            (self._wallet, purpose, str(before + wei)),
        )


_MINED = (Fate.MINED, Fate.FINAL)


def is_over(slot: Sequence[Transaction]) -> Transaction | None:
    """The row that the chain has of a nonce, or None."""
    return next((each for each in slot if each.fate in _MINED), None)


def new_row(signed_hash: bytes, raw: bytes, nonce: int, purpose: str, fees: Fees) -> Transaction:
    return Transaction(signed_hash, nonce, purpose, raw, fees, Fate.PENDING, time.time())


def _read(row: Mapping[str, Any]) -> Transaction:
    block_hash = row["block_hash"]
    return Transaction(
        hash=bytes(row["hash"]),
        nonce=row["nonce"],
        purpose=row["purpose"],
        raw=bytes(row["raw"]),
        fees=Fees(int(row["max_fee"]), int(row["tip"])),
        fate=Fate(row["state"]),
        made_at=row["made_at"],
        block_number=row["block_number"],
        block_hash=None if block_hash is None else bytes(block_hash),
        ok=None if row["ok"] is None else bool(row["ok"]),
    )
