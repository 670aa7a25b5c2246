"""The whole worker on a real chain with the real contracts; enclave and brokers are those of the kit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.storage import record_name
from enclave_app.protocol.structs import TaskState
from oracle.worker.daemon import Worker
from oracle.worker.journal import Journal
from oracle.worker.states import State
from tests.worker_kit import World, until, world


@asynccontextmanager
async def running(place: World, **changes: Any) -> AsyncIterator[Worker]:
    worker = Worker(place.config(**changes))
    serving = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED, timeout=20)
    if serving.done():
        ready.cancel()
        serving.result()
    try:
        yield worker
    finally:
        worker.stop()
        await serving


async def settled(place: World, task_id: bytes) -> None:
    async def is_settled() -> bool:
        return (await place.on_chain(task_id)).state is TaskState.FULFILLED

    await until(is_settled)


def states(place: World) -> dict[bytes, tuple[State, str | None]]:
    journal = Journal(place.directory / "worker.sqlite")
    try:
        return {task.id: (task.state, task.code) for task in journal.tasks()}
    finally:
        journal.close()


async def test_a_request_is_settled_and_its_record_and_blobs_are_stored(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place):
            task_id, request, _ = await place.request(agreement)
            await settled(place, task_id)
        record = parse(TaskRecord, (place.blobs / record_name(task_id)).read_bytes(), limit=1 << 26)
        assert record.request == request
        assert record.result.typed_digest(place.chain.oracle_domain(agreement))[:31] == (
            await place.on_chain(task_id)
        ).result_digest
        assert len(record.releases) == 2
        for output in record.outputs:
            assert (place.blobs / output.shares.output_id.hex()).read_bytes() == output.manifest
            assert (place.blobs / output.shares.shares.hex()).read_bytes() == output.share_list
        assert states(place) == {task_id: (State.SETTLED, None)}
        assert place.enclave.held == {}
