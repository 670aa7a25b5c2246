"""Where an output's ciphertext comes from, on its way to storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.storage import record_name
from oracle.storage import FileStorage
from oracle.worker import store
from oracle.worker.enclave import Enclave
from oracle.worker.spool import Spool
from oracle.worker.store import OutputStore

TASK = b"\x01" * 32
DATA = b"ciphertext"


class Asked:
    def __init__(self) -> None:
        self.files: list[bytes] = []

    async def file(self, task_id: bytes, digest: bytes, size: int) -> bytes:
        self.files.append(digest)
        return DATA


class Record:
    outputs = ()
    public_outputs = ()

    def model_copy(self, update: dict[str, Any]) -> Record:
        return self

    def canonical(self) -> bytes:
        return b"{}"


@pytest.mark.parametrize(("came", "asked"), [((DATA,), 0), ((b"other", DATA), 0), ((b"other",), 1), ((), 1)])
async def test_what_came_with_the_result_is_not_asked_for_and_counts_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, came: tuple[bytes, ...], asked: int
) -> None:
    monkeypatch.setattr(store, "_files", lambda _: [(sha256(DATA), len(DATA))])
    storage = FileStorage(tmp_path / "storage")
    outputs, enclave = OutputStore(storage, Spool(tmp_path / "spool")), Asked()
    outputs.hold(TASK, came)
    assert outputs.holds(TASK) == bool(came)
    await outputs.store(cast(Enclave, enclave), TASK, cast(TaskRecord, Record()))
    assert len(enclave.files) == asked
    assert await storage.get(sha256(DATA)) == DATA
    assert await storage.get_named(record_name(TASK)) == b"{}"
    await outputs.drop(TASK)
    assert not outputs.holds(TASK)
