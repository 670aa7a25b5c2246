"""Untrusted storage: a directory, and a real HTTP server that also lies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.errors import OracleError, Permanent, Refused, Retryable
from oracle.storage import FileStorage, HttpStorage, get_from_any, open_storage, open_storages


class BlobServer:
    """GET and PUT under /blobs; `answer` replaces the next answers by a status."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.answer: int | None = None
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/blobs/{name}", self._get)
        app.router.add_put("/blobs/{name}", self._put)
        self.server = TestServer(app)

    async def _get(self, request: web.Request) -> web.Response:
        if self.answer:
            return web.Response(status=self.answer)
        name = request.match_info["name"]
        return web.Response(body=self.blobs[name]) if name in self.blobs else web.Response(status=404)

    async def _put(self, request: web.Request) -> web.Response:
        if self.answer:
            return web.Response(status=self.answer)
        self.blobs[request.match_info["name"]] = await request.read()
        return web.Response(status=201)

    @property
    def uri(self) -> str:
        return str(self.server.make_url("/blobs"))


@pytest.fixture
async def server() -> AsyncIterator[BlobServer]:
    running = BlobServer()
    await running.server.start_server()
    yield running
    await running.server.close()


@pytest.fixture(params=["file", "http"])
async def uri(request: pytest.FixtureRequest, tmp_path: Path, server: BlobServer) -> str:
    return (tmp_path / "a b").as_uri() if request.param == "file" else server.uri


async def test_a_blob_comes_back_by_its_digest(uri: str) -> None:
    async with open_storage(uri) as storage:
        digest = await storage.put(b"ciphertext")
        assert digest == sha256(b"ciphertext")
        assert await storage.get(digest) == b"ciphertext"


async def test_a_file_is_stored_under_its_digest(uri: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "big").write_bytes(content)
    async with open_storage(uri) as storage:
        digest = await storage.put_file(tmp_path / "big")
        assert await storage.get(digest, len(content)) == content


async def test_a_record_is_replaced_under_its_name(uri: str) -> None:
    async with open_storage(uri) as storage:
        await storage.put_named("task-ab", b"one")
        await storage.put_named("task-ab", b"two")
        assert await storage.get_named("task-ab") == b"two"


async def test_a_missing_blob_can_be_asked_for_again(uri: str) -> None:
    async with open_storage(uri) as storage:
        with pytest.raises(Retryable) as missing:
            await storage.get(bytes(32))
    assert missing.value.code == "blob.missing"


async def test_a_blob_above_the_limit_is_refused(uri: str) -> None:
    async with open_storage(uri) as storage:
        digest = await storage.put(b"x" * 100)
        assert await storage.get(digest, 100)
        with pytest.raises(Refused) as refused:
            await storage.get(digest, 99)
    assert refused.value.code == "blob.size"


@pytest.mark.parametrize("name", ["../secret", "a/b", "", ".hidden", "A", "a" * 129, "a\n"])
async def test_names_that_could_leave_the_directory_are_refused(uri: str, name: str) -> None:
    async with open_storage(uri) as storage:
        for attempt in (storage.put_named(name, b""), storage.get_named(name)):
            with pytest.raises(Refused) as refused:
                await attempt
            assert refused.value.code == "storage.name"


async def test_changed_bytes_are_refused(tmp_path: Path, server: BlobServer) -> None:
    name = sha256(b"right").hex()
    (tmp_path / name).write_bytes(b"wrong")
    server.blobs[name] = b"wrong"
    for uri in (tmp_path.as_uri(), server.uri):
        async with open_storage(uri) as storage:
            with pytest.raises(Refused) as refused:
                await storage.get(sha256(b"right"))
        assert refused.value.code == "blob.digest"


async def test_no_half_written_file_stays_behind(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "blobs")
    digest = await storage.put(b"data")
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == [digest.hex()]


@pytest.mark.parametrize(("status", "kind"), [(500, Retryable), (503, Retryable), (429, Retryable), (403, Permanent)])
async def test_http_errors_say_whether_to_try_again(server: BlobServer, status: int, kind: type[OracleError]) -> None:
    server.answer = status
    async with open_storage(server.uri) as storage:
        for attempt in (storage.put(b"x"), storage.get(bytes(32))):
            with pytest.raises(kind) as failed:
                await attempt
            assert failed.value.code == "storage.http"


async def test_a_server_that_is_down_can_be_tried_again(server: BlobServer) -> None:
    uri = server.uri
    await server.server.close()
    async with open_storage(uri) as storage:
        with pytest.raises(Retryable):
            await storage.get(bytes(32))


async def test_the_first_honest_storage_is_enough(tmp_path: Path, server: BlobServer) -> None:
    digest = sha256(b"right")
    server.blobs[digest.hex()] = b"wrong"
    empty, good = tmp_path / "empty", tmp_path / "good"
    async with open_storages([empty.as_uri(), server.uri, good.as_uri()]) as storages:
        with pytest.raises(Retryable):
            await get_from_any(storages, digest)
        await storages[2].put(b"right")
        assert await get_from_any(storages, digest) == b"right"


async def test_a_storage_that_was_not_opened_says_so() -> None:
    with pytest.raises(Permanent) as closed:
        await HttpStorage("http://127.0.0.1:1/blobs").get(bytes(32))
    assert closed.value.code == "storage.closed"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "blobs",
        "/blobs",
        "ftp://host/x",
        "file://host/x",
        "file:blobs",
        "http://",
        "http://user:pw@host/x",
        "http://host/x?token=1",
        "http://host/x#y",
        "file:///x%00y",
        "http://[::1",
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(Refused) as refused:
        open_storage(uri)
    assert refused.value.code == "storage.uri"


def test_what_a_killed_writer_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    host = sha256(socket.gethostname().encode()).hex()[:8]
    left = tmp_path / f".task-1.{host}.{ended.pid}.{'0' * 16}"
    alive = tmp_path / f".task-1.{host}.{os.getpid()}.{'0' * 16}"
    elsewhere = tmp_path / f".task-1.{'f' * 8}.{ended.pid}.{'0' * 16}"
    for each in (left, alive, elsewhere):
        each.write_bytes(b"half a ")

    async def use() -> None:
        async with open_storage(tmp_path.as_uri()):
            pass

    asyncio.run(use())
    assert {path.name for path in tmp_path.iterdir()} == {alive.name, elsewhere.name}


async def test_a_directory_that_is_a_file_is_a_fault_that_passes(tmp_path: Path) -> None:
    (tmp_path / "blobs").touch()
    with pytest.raises(Retryable) as raised:
        await FileStorage(tmp_path / "blobs").put(b"x")
    assert raised.value.code == "storage.write"
