"""Results wait for a storage that fails: the whole worker on a real chain, with a real HTTP server as its storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.storage import record_name
from enclave_app.protocol.structs import TaskState
from oracle.worker.daemon import Worker
from oracle.worker.spool import Spool
from oracle.worker.states import State
from tests.integration.test_worker_execution import activated, reaches, running
from tests.worker_kit import World, until, world

QUICKLY = {"retryFirst": 0.05, "retryMost": 0.2}


class Bucket:
    """Takes PUT under /; while `status` is set it answers that, and while `cuts` it ends connections in mid-upload."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.status: int | None = None
        self.cuts = False
        self.refused = 0
        app = web.Application(client_max_size=1 << 26)
        app.router.add_put("/{name}", self._put)
        self.server = TestServer(app)

    async def _put(self, request: web.Request) -> web.Response:
        if self.cuts:
            self.refused += 1
            await request.content.read(10)
            assert request.transport is not None
            request.transport.abort()
        if self.status is not None:
            self.refused += 1
            return web.Response(status=self.status)
        self.objects[request.match_info["name"]] = await request.read()
        return web.Response(status=201)

    @property
    def uri(self) -> str:
        return str(self.server.make_url("/")).rstrip("/")


@asynccontextmanager
async def bucket() -> AsyncIterator[Bucket]:
    running_bucket = Bucket()
    await running_bucket.server.start_server()
    try:
        yield running_bucket
    finally:
        await running_bucket.server.close()


def storage(place: World, uri: str) -> dict[str, Any]:
    return {"storage": {"read": [place.blobs.as_uri()], "write": uri}, **QUICKLY}


def spooled(place: World) -> list[str]:
    folder = place.directory / "worker.sqlite.spool"
    return [each.name for each in folder.iterdir()] if folder.exists() else []


async def refuses(there: Bucket, times: int) -> None:
    async def enough() -> bool:
        return there.refused >= times

    await until(enough)


async def all_is_right(place: World, there: Bucket, worker: Worker, task_id: bytes) -> None:
    await reaches(worker, task_id, State.SETTLED)
    assert (await place.on_chain(task_id)).state is TaskState.FULFILLED
    assert record_name(task_id) in there.objects
    assert place.enclave.runs == 1
    assert spooled(place) == []


@pytest.mark.parametrize("status", [403, 507])
async def test_a_result_waits_for_its_storage_whatever_that_says(tmp_path: Path, status: int) -> None:
    async with world(tmp_path) as place, bucket() as there:
        agreement = await activated(place)
        there.status = status
        async with running(place, **storage(place, there.uri)) as worker:
            task_id, _, _ = await place.request(agreement)
            await refuses(there, 2)
            assert spooled(place) == [task_id.hex()]
            there.status = None
            await all_is_right(place, there, worker, task_id)


async def test_a_result_whose_enclave_and_worker_ended_is_stored_and_not_computed_again(tmp_path: Path) -> None:
    async with world(tmp_path) as place, bucket() as there:
        agreement = await activated(place)
        there.cuts = True
        async with running(place, **storage(place, there.uri)):
            task_id, _, _ = await place.request(agreement)
            await refuses(there, 2)
        await place.enclave.restart()
        there.cuts = False
        async with running(place, **storage(place, there.uri)) as worker:
            await all_is_right(place, there, worker, task_id)


async def test_a_result_that_nobody_has_any_more_is_computed_again(tmp_path: Path) -> None:
    async with world(tmp_path) as place, bucket() as there:
        agreement = await activated(place)
        there.status = 500
        async with running(place, **storage(place, there.uri)):
            task_id, _, _ = await place.request(agreement)
            await refuses(there, 2)
        await place.enclave.restart()
        for file in (place.directory / "worker.sqlite.spool" / task_id.hex()).iterdir():
            file.write_bytes(b"changed")
        there.status = None
        async with running(place, **storage(place, there.uri)) as worker:
            await reaches(worker, task_id, State.SETTLED)
        assert place.enclave.runs == 2


async def test_no_more_is_computed_while_as_many_results_wait_as_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool.__init__, "__kwdefaults__", {"max_results": 1, "max_bytes": 1 << 20})
    async with world(tmp_path) as place, bucket() as there:
        agreement = await activated(place)
        there.status = 500
        async with running(place, **storage(place, there.uri)) as worker:
            first, _, _ = await place.request(agreement)
            await refuses(there, 1)
            second, _, _ = await place.request(agreement)
            await refuses(there, 4)
            assert place.enclave.runs == 1
            there.status = None
            for task_id in (first, second):
                await reaches(worker, task_id, State.SETTLED)
        assert place.enclave.runs == 2
        assert spooled(place) == []


async def test_a_local_folder_that_takes_nothing_loses_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        blocked = tmp_path / "outputs"
        blocked.write_bytes(b"a file where the folder should be")
        async with running(place, **storage(place, blocked.as_uri())) as worker:
            task_id, _, _ = await place.request(agreement)
            await until(lambda: _is_spooled(place))
            blocked.unlink()
            await reaches(worker, task_id, State.SETTLED)
        assert (blocked / record_name(task_id)).exists()
        assert place.enclave.runs == 1
        assert spooled(place) == []


async def test_spooled_outputs_of_no_task_are_swept_at_the_start(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        orphan = place.directory / "worker.sqlite.spool" / ("11" * 32)
        orphan.mkdir(parents=True)
        (orphan / ("22" * 32)).write_bytes(b"of a task that has ended")
        async with running(place):
            assert spooled(place) == []


async def _is_spooled(place: World) -> bool:
    return bool(spooled(place))


async def test_an_object_store_is_written_to_and_not_read_by_enclaves(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        read = [place.blobs.as_uri()]
        assert place.config(storage={"read": read, "write": "s3://bucket/x"}).storage.write == "s3://bucket/x"
        with pytest.raises(Refused, match="enclaves read by file: or http"):
            place.config(storage={"read": [*read, "s3://bucket/x"], "write": "s3://bucket/x"})
