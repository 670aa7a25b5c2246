"""The broker over HTTP: the same rules, errors with a code and no detail, limits, and nothing secret in what it writes."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import stat
import threading
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.release import ErrorBody, ReleaseAnswer, ReleaseBody, open_answer
from oracle.keybroker import KeyBrokerConfig, open_broker
from oracle.keybroker.broker import Info
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.release import Asked, Releaser
from oracle.keybroker.server import SMALL, start
from tests import broker_fixtures as fixtures
from tests.broker_kit import Scene

scene, world = fixtures.scene, fixtures.world


@asynccontextmanager
async def serving(config: KeyBrokerConfig) -> AsyncIterator[str]:
    broker = await open_broker(config)
    runner, address = await start(broker, config)
    try:
        yield address
    finally:
        await runner.cleanup()
        await broker.close()


async def post(url: str, body: bytes) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
        return response.status, await response.read()


def error(data: bytes) -> ErrorBody:
    return parse(ErrorBody, data, canonical=False)


async def test_a_release_over_http(scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "oracle.keybroker")
    body = await scene.body()
    async with serving(scene.config(scene.broker_directory(tmp_path))) as url:
        status, data = await post(f"{url}/v1/release", body.model_dump_json(by_alias=True).encode())
        assert status == 200
        answer = parse(ReleaseAnswer, data, canonical=False)
        refused = body.model_copy(update={"signatures": (b"", *body.signatures[1:])})
        status, data = await post(f"{url}/v1/release", refused.canonical())
        assert (status, error(data).code, error(data).retry) == (403, "consent.missing", False)
    _, shares = open_answer(
        answer,
        chain=body.chain,
        agreement=body.agreement,
        request=body.release.request,
        datasets=body.request.versions,
        signer=body.evidence.signer,
        broker_signer=scene.world.brokers[0].signer,
        key=scene.world.enclave.sealing,
    )
    lines = [json.loads(record.message) for record in caplog.records if record.name == "oracle.keybroker"]
    released = [line for line in lines if line["event"] == "release"]
    assert [line["status"] for line in released] == [200, 403]
    assert released[0]["task"] == body.release.request.task_id.hex()
    assert released[0]["chain_ms"] > 0
    written = caplog.text + (tmp_path / "broker0" / LOG_FILE).read_text()
    assert all(share.hex() not in written for share in shares.values())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "json.syntax"),
        (b"{}", "document.invalid"),
        (b'{"v":1,"v":1}', "json.duplicate"),
        (b"[" * 100_000, "json.depth"),
        (b"\xff", "json.syntax"),
    ],
)
async def test_a_body_that_is_none_is_refused(scene: Scene, tmp_path: Path, body: bytes, code: str) -> None:
    async with serving(scene.config(scene.broker_directory(tmp_path))) as url:
        for path in ("release", "output"):
            status, data = await post(f"{url}/v1/{path}", body)
            assert (status, error(data).code) == (403, code)


async def test_a_body_that_is_too_large_is_refused(scene: Scene, tmp_path: Path) -> None:
    async with serving(scene.config(scene.broker_directory(tmp_path), max_body=2048)) as url:
        status, data = await post(f"{url}/v1/release", b"x" * 4096)
        assert (status, error(data).code) == (403, "http.body")


async def test_a_large_body_is_checked_where_nobody_waits_for_it(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []
    check = Releaser._check_own_words

    def seen(self: Releaser, body: ReleaseBody) -> Asked:
        checked.append(threading.get_ident())
        return check(self, body)

    monkeypatch.setattr(Releaser, "_check_own_words", seen)
    body = (await scene.body()).canonical()
    async with serving(scene.config(scene.broker_directory(tmp_path))) as url:
        # Whatever makes it large: here it is white space.
        for each in (body, body + b" " * SMALL):
            assert (await post(f"{url}/v1/release", each))[0] == 200
    assert [thread == threading.get_ident() for thread in checked] == [True, False]


async def test_too_many_requests_wait(scene: Scene, tmp_path: Path) -> None:
    limits = {"per_client": 0.001, "per_client_burst": 2}
    async with serving(scene.config(scene.broker_directory(tmp_path), limits=limits)) as url:
        codes = [error((await post(f"{url}/v1/output", b"{}"))[1]).code for _ in range(3)]
    assert codes == ["document.invalid", "document.invalid", "broker.rate"]


async def test_a_bug_shows_no_detail(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = await scene.body()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("oracle.keybroker.release.pack_answer", fail)
    async with serving(scene.config(scene.broker_directory(tmp_path))) as url:
        status, data = await post(f"{url}/v1/release", body.canonical())
    assert (status, error(data).code) == (500, "bug")
    assert b"secret detail" not in data


async def test_info_is_the_card_and_what_is_served(scene: Scene, tmp_path: Path) -> None:
    async with (
        serving(scene.config(scene.broker_directory(tmp_path))) as url,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{url}/v1/info") as response:
            info = parse(Info, await response.read(), canonical=False)
        async with session.get(f"{url}/healthz") as response:
            assert response.status == 200
    assert info.card == scene.world.brokers[0]
    assert info.development is True
    assert info.chains[0].agreement_registries == (scene.world.deployment.agreement_registry,)


async def test_a_unix_socket_is_the_owners_alone(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    async with serving(scene.config(scene.broker_directory(tmp_path), listen={"unix": path})) as address:
        assert address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://broker/healthz") as response,
        ):
            assert response.status == 200


async def raw(url: str, head: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a request has begun."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /v1/output HTTP/1.1\r\nHost: b\r\n{head}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


async def test_slow_senders_hold_no_slot(scene: Scene, tmp_path: Path) -> None:
    limits = {"concurrent": 1}
    async with serving(scene.config(scene.broker_directory(tmp_path), limits=limits)) as url:
        slow = [await raw(url, "Content-Length: 1000", b"{") for _ in range(3)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            status, data = await post(f"{url}/v1/output", b"{}")
        for _, writer in slow:
            writer.close()
    assert (status, error(data).code) == (403, "document.invalid")


async def test_bodies_together_are_bounded_in_bytes(scene: Scene, tmp_path: Path) -> None:
    limits, most = {"body_bytes": 4096}, 2048
    async with serving(scene.config(scene.broker_directory(tmp_path), limits=limits, max_body=most)) as url:
        _, writer = await raw(url, "Content-Length: 2000", b"x" * 1900)
        async with asyncio.timeout(20):
            while True:
                status, data = await post(f"{url}/v1/output", b"y" * 1000)
                if error(data).code == "broker.busy":
                    break
        assert (status, error(data).retry) == (503, True)
        writer.close()
        async with asyncio.timeout(20):
            while error((await post(f"{url}/v1/output", b"y" * 1000))[1]).code != "json.syntax":  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_unpacks_to_more_is_too_large(scene: Scene, tmp_path: Path, encoding: str) -> None:
    bomb = zlib.compress(bytes(64 << 20)) if encoding == "deflate" else gzip.compress(bytes(64 << 20))
    async with (
        serving(scene.config(scene.broker_directory(tmp_path), max_body=1 << 20)) as url,
        aiohttp.ClientSession() as session,
    ):
        headers = {"Content-Encoding": encoding}
        async with session.post(f"{url}/v1/release", data=bomb, headers=headers) as response:
            assert error(await response.read()).code == "http.body"
        async with session.post(f"{url}/v1/release", data=b"no such thing", headers=headers) as response:
            assert error(await response.read()).code == "http.broken"
