"""Lies about data on the way to the enclave: storage that answers with something else, too much, or never.

Storage is the host's. What it does never ends a task (R19): with the blob put back, the same task runs.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from enclave_app.protocol.structs import Outcome
from enclave_app.protocol.wire import TaskBody
from tests.adversary.lies import Refused, lie
from tests.enclave_kit import (
    MARKER,
    Refusal,
    RunningEnclave,
    World,
    enclave,
    enclave_config,
    make_world,
    measured,
    seal,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FETCH_SECONDS = 4
Find = Callable[[World], bytes]
"""Which blob, by its digest."""
Put = Callable[[World, Path, bytes], object]
"""Put something else than the bytes that belong there at a path where nothing is."""
Serve = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""Answer with something else than the bytes that were asked for."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    """With little patience, so that a test of it takes little time."""
    async with enclave(tmp_path_factory.mktemp("enclave"), config=CONFIG) as found:
        yield found


CONFIG = enclave_config(fetch_seconds=FETCH_SECONDS)


@pytest.fixture
def agreed(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured(CONFIG))


def told(what: str, rules: str, reason: str, *values: Any) -> Any:
    return pytest.param(*values, marks=lie("data", what, rules, reason), id=what)


def file(number: int, dataset: int = 0) -> Find:
    return lambda world: world.datasets[dataset].manifest.files[number].sha256


def manifest(dataset: int) -> Find:
    return lambda world: world.datasets[dataset].manifest.id


def shares(dataset: int) -> Find:
    return lambda world: world.datasets[dataset].shares.id


def function(world: World) -> bytes:
    return world.bundle.id


def older_manifest(world: World) -> bytes:
    """Of the dataset as it was sealed before; all of it lies in storage, too."""
    return seal("a", world.datasets[0].table.slice(1), world.brokers, world.put).manifest.id


def damaged(change: Callable[[bytes], bytes]) -> Put:
    return lambda _, path, data: path.write_bytes(change(data))


def another(find: Find) -> Put:
    return lambda world, path, _: path.write_bytes(world.path(find(world)).read_bytes())


def of_a_gigabyte(_: World, path: Path, __: bytes) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def put_back(path: Path, data: bytes) -> None:
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(data)


async def withheld(running: RunningEnclave, world: World, body: TaskBody) -> None:
    """What the enclave says has to be that the task may still end (R19)."""
    with pytest.raises(Refusal) as caught:
        await running.whole(world, body)
    assert caught.value.body.retry, "the host's storage has ended a task"
    raise caught.value


BLOBS: dict[str, tuple[str, Find]] = {
    "ciphertext": ("R18 R19", file(1)),
    "a manifest": ("R11 R19", manifest(0)),
    "a share list": ("R10 R19", shares(0)),
    "the function": ("R17b R19", function),
    "the parameter domain": ("R19", lambda world: world.domain.id),
    "a broker's key": ("R15 R19", lambda world: world.brokers[0].sealing.public.digest),
}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "with one bit flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "cut short": lambda data: data[:-1],
    "with a byte more": lambda data: data + b"\n",
}


@pytest.mark.parametrize(
    ("find", "put"),
    [
        *(
            told(f"{name} {how}", rules, "blob.digest", find, damaged(change))
            for name, (rules, find) in BLOBS.items()
            for how, change in DAMAGE.items()
        ),
        told("a dataset's second file as its first", "R18", "blob.digest", file(0), another(file(1))),
        told("the file of another dataset of the owner", "R18", "blob.digest", file(0), another(file(0, 1))),
        told("the manifest of another dataset of the owner", "R11", "blob.digest", manifest(0), another(manifest(1))),
        told("the share list of another dataset of the owner", "R10", "blob.digest", shares(0), another(shares(1))),
        told("an older version under the agreed one's name", "R7b", "blob.digest", manifest(0), another(older_manifest)),
        told("nothing", "R19", "blob.missing", function, lambda *_: None),
        told("a pipe that nobody writes to", "R19", "blob.missing", function, lambda _, path, __: os.mkfifo(path)),
        told("a device without end", "R19", "blob.missing", function, lambda _, path, __: path.symlink_to("/dev/zero")),
        told("a directory", "R19", "blob.missing", function, lambda _, path, __: path.mkdir()),
        told("a gigabyte as a manifest", "R19", "blob.digest", manifest(0), of_a_gigabyte),
        told("a gigabyte as ciphertext", "R19", "blob.digest", file(0), of_a_gigabyte),
    ],
)  # fmt: skip
async def test_what_is_not_the_blob_is_not_taken(
    running: RunningEnclave, agreed: World, refused: Refused, find: Find, put: Put
) -> None:
    refused.watch(running.footprint)
    refused.keep(MARKER)
    path, body = agreed.path(find(agreed)), agreed.body()
    original = path.read_bytes()
    path.unlink()
    put(agreed, path, original)
    async with refused():
        await withheld(running, agreed, body)
    put_back(path, original)
    assert (await running.whole(agreed, body)).result.outcome == Outcome.SUCCEEDED


# Storage behind HTTP


TAKEN: web.AppKey[list[int]] = web.AppKey("taken", list)
ENOUGH = 512 << 20
"""What the server gives away before it stops: without end, for whoever asked for less than a megabyte."""


async def without_end(request: web.Request, data: bytes) -> web.StreamResponse:
    response, piece = web.StreamResponse(), bytes(1 << 18)
    await response.prepare(request)
    for _position in range(0, ENOUGH, len(piece)):
        await response.write(piece)
        request.app[TAKEN].append(len(piece))
    return response


async def slowly(request: web.Request, data: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(data[:1])
        await asyncio.sleep(0.1)


def packed_zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packer.flush()


async def inflating(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(body=await asyncio.to_thread(packed_zeros, 128), headers={"Content-Encoding": "gzip"})


async def elsewhere(request: web.Request, data: bytes) -> web.StreamResponse:
    raise web.HTTPFound(f"/honest/{request.match_info['name']}")


@pytest.mark.parametrize(
    ("find", "serve"),
    [
        told("a manifest without end", "R19", "blob.digest", manifest(0), without_end),
        told("ciphertext without end", "R19", "blob.digest", file(0), without_end),
        told("ciphertext that never comes to its end", "R19", "blob.missing", file(0), slowly),
        told("a manifest that inflates a thousandfold", "R19", "blob.digest", manifest(0), inflating),
        told("another address to read from", "R19", "blob.missing", manifest(0), elsewhere),
    ],
)
async def test_a_storage_server_can_only_withhold(
    running: RunningEnclave, agreed: World, refused: Refused, find: Find, serve: Serve
) -> None:
    refused.watch(running.footprint)
    lied_about = agreed.path(find(agreed)).name

    async def honest(request: web.Request) -> web.StreamResponse:
        return web.Response(body=(agreed.storage / request.match_info["name"]).read_bytes())

    async def lying(request: web.Request) -> web.StreamResponse:
        if request.match_info["name"] == lied_about:
            return await serve(request, (agreed.storage / lied_about).read_bytes())
        return await honest(request)

    app, taken = web.Application(), list[int]()
    app[TAKEN] = taken
    app.router.add_get("/lying/{name}", lying)
    app.router.add_get("/honest/{name}", honest)
    async with TestServer(app) as server:
        body = agreed.body()
        before = peak_memory(running)
        async with refused():
            await withheld(running, agreed, body.model_copy(update={"storage": (str(server.make_url("/lying")),)}))
        assert sum(taken) < 64 << 20, "more bytes than a blob may have, with those on their way"
        assert peak_memory(running) - before < 64 << 10, "more KiB than a blob may take"
        done = await running.whole(agreed, body.model_copy(update={"storage": (str(server.make_url("/honest")),)}))
        assert done.result.outcome == Outcome.SUCCEEDED


def peak_memory(running: RunningEnclave) -> int:
    """In KiB."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
