"""Untrusted storage: a directory, and a real HTTP server that also lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def raw_server(answer: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads the head of each upload, and then `answer`s: it cuts, stalls, or takes it."""
    heads: list[bytes] = []
    busy: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if answer == "stalls":
            await asyncio.Event().wait()
        elif answer == "takes":
            length = int(heads[-1].lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        work = asyncio.create_task(handle(reader, writer))
        busy.add(work)
        await asyncio.wait([work])
        if answer == "takes":
            writer.close()
        else:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        for work in busy:
            work.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        await asyncio.sleep(0.05)  # for the transports to close
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("answer", ["cuts", "stalls"])
async def test_an_upload_that_is_cut_or_held_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("oracle.storage.MIN_RATE", 1 << 30)
    (tmp_path / "file").write_bytes(bytes(8 << 20))
    async with raw_server(answer) as (uri, heads), HttpStorage(uri, timeout=0.3) as storage:
        for upload in (storage.put(bytes(8 << 20)), storage.put_file(tmp_path / "file")):
            with pytest.raises(Retryable) as error:
                await upload
            assert error.value.code == "storage.http"
    assert len(heads) == 2


async def test_a_file_is_sent_with_its_length(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    async with raw_server("takes") as (uri, heads), HttpStorage(uri) as storage:
        await storage.put_file(tmp_path / "file")
    assert f"content-length: {3 << 20}\r\n".encode() in heads[0].lower()
    assert b"chunked" not in heads[0].lower()


async def test_a_folder_that_takes_nothing_can_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"a file where the directory should be")
    async with open_storage((tmp_path / "full").as_uri()) as storage:
        with pytest.raises(Retryable) as error:
            await storage.put(b"data")
    assert error.value.code == "storage.write"
