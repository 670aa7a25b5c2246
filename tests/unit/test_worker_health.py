"""The health pages over real sockets: what they say, and that nobody can hold them up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from oracle.worker import health
from oracle.worker.health import MAX_CONNECTIONS, MAX_HEAD, Check, HealthServer, Pulse, split_listen
from oracle.worker.metrics import PREFIX, Metrics


@dataclass
class Desk:
    server: HealthServer
    metrics: Metrics
    checks: dict[str, Check]
    clock: list[float]
    pulse: Pulse
    place: Path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.place)

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await self.connect()
        try:
            writer.write(request)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        head, _, body = (await self.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")
        return int(head.split()[1]), body


@dataclass
class _Ready:
    checks: dict[str, Check] = field(default_factory=dict)

    def __call__(self) -> Mapping[str, Check]:
        return self.checks


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk_at(tmp_path) as made:
        yield made


@asynccontextmanager
async def desk_at(directory: Path) -> AsyncIterator[Desk]:
    ready, clock, metrics = _Ready(), [0.0], Metrics()
    pulse = Pulse(lambda: clock[0])
    place = directory / "health.sock"
    server = HealthServer(place, metrics, pulse, ready)
    await server.start()
    try:
        yield Desk(server, metrics, ready.checks, clock, pulse, place)
    finally:
        await server.close()


async def test_it_is_alive_while_its_loops_turn_and_names_those_that_do_not(desk: Desk) -> None:
    desk.pulse.beat("follower", 10)
    desk.pulse.beat("scheduler", 20)
    assert (await desk.get("/healthz"))[0] == 200
    desk.clock[0] = 15
    status, body = await desk.get("/healthz")
    assert (status, json.loads(body)) == (503, {"alive": False, "silentLoops": ["follower"]})
    desk.pulse.beat("follower", 10)
    assert (await desk.get("/healthz"))[0] == 200


async def test_it_is_ready_only_when_every_check_holds_and_gives_each_reason(desk: Desk) -> None:
    desk.checks["registered"] = Check(True, "valid for 6 days")
    assert (await desk.get("/readyz"))[0] == 200
    desk.checks["caughtUp"] = Check(False, "found 40 blocks behind, expected at most 20")
    status, body = await desk.get("/readyz")
    said = json.loads(body)
    assert (status, said["ready"]) == (503, False)
    assert said["checks"]["caughtUp"] == {"ok": False, "reason": "found 40 blocks behind, expected at most 20"}
    assert said["checks"]["registered"]["ok"] is True


async def test_metrics_are_prometheus_text(desk: Desk) -> None:
    desk.metrics.set("registered", 1)
    status, body = await desk.get("/metrics?x=y")
    assert status == 200
    assert f"{PREFIX}registered 1.0".encode() in body


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)])
async def test_other_pages_and_methods_are_refused(desk: Desk, path: str, method: str, status: int) -> None:
    assert (await desk.get(path, method))[0] == status


async def test_a_head_request_has_no_body(desk: Desk) -> None:
    assert await desk.get("/metrics", "HEAD") == (200, b"")


async def test_garbage_is_no_request(desk: Desk) -> None:
    assert (await desk.raw(b"\x16\x03\x01\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_head_without_end_is_cut_off(desk: Desk) -> None:
    assert await desk.raw(b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * MAX_HEAD) == b""
    assert (await desk.get("/healthz"))[0] == 200


async def test_many_silent_connections_do_not_stay_and_then_others_get_through(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.2)
    held = [await desk.connect() for _ in range(MAX_CONNECTIONS + 3)]
    for reader, _ in held:
        assert await reader.read() == b""
    assert (await desk.get("/healthz"))[0] == 200
    for _, writer in held:
        writer.close()


async def test_a_bug_in_a_check_is_told_and_counted_and_nothing_else_stops(tmp_path: Path) -> None:
    def broken() -> Mapping[str, Check]:
        raise KeyError("secret")

    metrics, place = Metrics(), tmp_path / "s"
    server = HealthServer(place, metrics, Pulse(), broken)
    await server.start()
    try:
        desk = Desk(server, metrics, {}, [0.0], Pulse(), place)
        status, body = await desk.get("/readyz")
        assert (status, b"secret" in body) == (500, False)
        assert metrics.get("bugs_total", where="health") == 1
        assert (await desk.get("/metrics"))[0] == 200
    finally:
        await server.close()


async def test_the_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    async with desk_at(tmp_path) as desk:
        assert desk.place.stat().st_mode & 0o077 == 0
    assert not desk.place.exists()


def test_where_to_listen_is_read_with_both_kinds_of_address() -> None:
    assert split_listen("127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert split_listen("[::1]:1") == ("::1", 1)
    for wrong in ("127.0.0.1", ":1", "a:70000", "a:b"):
        with pytest.raises(ValueError, match="host:port"):
            split_listen(wrong)
