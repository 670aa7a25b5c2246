"""The journal's rows as typed values."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.structs import Agreement, TaskRequest
from oracle.worker.states import State

_RECORD_LIMIT = 256 << 20


@dataclass(frozen=True)
class StoredAgreement:
    """`signatures` align with the parties; empty where the chain recorded a consent without one."""

    id: bytes
    agreement: Agreement
    signatures: tuple[bytes, ...]


@dataclass(frozen=True)
class Task:
    """A row. `next_try` in unix seconds; `settlement` is the hash of the transaction that was sent; the block is the one
    that the request is in."""

    id: bytes
    agreement_id: bytes
    request: TaskRequest
    uri: str
    state: State
    attempts: int
    next_try: float
    code: str | None
    reason: str | None
    record: TaskRecord | None
    settlement: bytes | None
    block_number: int
    block_hash: bytes


def resumes_at(row: sqlite3.Row) -> State:
    """The state of a task that is taken up again, by what is left of it."""
    if row["record"] is None:
        return State.SEEN
    return State.STORED if row["stored"] else State.RAN


def read_agreement(row: sqlite3.Row) -> StoredAgreement:
    signatures = tuple(bytes.fromhex(s) for s in json.loads(row["signatures"]))
    return StoredAgreement(row["id"], parse(Agreement, row["agreement"].encode(), canonical=False), signatures)


def read_task(row: sqlite3.Row) -> Task:
    record = row["record"]
    return Task(
        id=row["id"],
        agreement_id=row["agreement_id"],
        request=parse(TaskRequest, row["request"].encode(), canonical=False),
        uri=row["uri"],
        state=State(row["state"]),
        attempts=row["attempts"],
        next_try=row["next_try"],
        code=row["code"],
        reason=row["reason"],
        record=None if record is None else parse(TaskRecord, record.encode(), limit=_RECORD_LIMIT, canonical=False),
        settlement=row["settlement"],
        block_number=row["block_number"],
        block_hash=row["block_hash"],
    )
