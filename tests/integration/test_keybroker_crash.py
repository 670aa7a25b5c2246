"""A broker that is killed, as a process of its own: what it logged it answers again, equally, and counts once (R13)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.release import ErrorBody, ReleaseAnswer, ReleaseBody
from oracle.keybroker import KeyBrokerConfig, read_log, verify_log
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.log import Released
from tests import broker_fixtures as fixtures
from tests.broker_kit import Scene

scene, world = fixtures.scene, fixtures.world

MAIN = """
import asyncio, os, pathlib, signal, sys
from oracle.keybroker import read_config, serve
from oracle.keybroker import ledger, server

point = sys.argv[2]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

write, json = ledger.Ledger._write, server._json

def before(self, data):
    if b'"kind":"released"' in data:
        die()
    write(self, data)

def half(self, data):
    if b'"kind":"released"' in data:
        os.write(self._descriptors[0], data[: len(data) // 2])
        die()
    write(self, data)

def written(self, data):
    write(self, data)
    if b'"kind":"released"' in data:
        die()

def answer(document, *rest):
    if type(document).__name__ == "ReleaseAnswer":
        die()
    return json(document, *rest)

if point == "before the log":
    ledger.Ledger._write = before
elif point == "half a line":
    ledger.Ledger._write = half
elif point == "behind the fsync":
    ledger.Ledger._write = written
elif point == "before the answer":
    server._json = answer
asyncio.run(serve(read_config(pathlib.Path(sys.argv[1])), ready=lambda a: print(a, flush=True)))
"""


@contextmanager
def running(config: Path, point: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A broker that kills itself at `point`, with its address."""
    command = [sys.executable, "-c", MAIN, str(config), point]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def post(url: str, body: bytes) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/release", data=body) as response:
        return response.status, await response.read()


def written(config: KeyBrokerConfig, directory: Path) -> Path:
    file = directory / "broker.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file


async def capped(scene: Scene) -> ReleaseBody:
    agreement = scene.agreement()
    keys = agreement.keys.model_copy(update={"max_releases": 1})
    return await scene.body(agreement.model_copy(update={"keys": keys}))


@pytest.mark.parametrize(
    ("point", "logged"),
    [("before the log", 0), ("half a line", 0), ("behind the fsync", 1), ("before the answer", 1)],
)
async def test_a_broker_that_is_killed_in_a_release_answers_it_when_it_is_back(
    scene: Scene, tmp_path: Path, point: str, logged: int
) -> None:
    body, directory = await capped(scene), scene.broker_directory(tmp_path)
    log, config = directory / LOG_FILE, written(scene.config(directory), tmp_path)
    with running(config, point) as (process, url):
        with pytest.raises(aiohttp.ClientError):
            await post(url, body.canonical())
        assert await asyncio.to_thread(process.wait, 15) == -signal.SIGKILL
    entries = [e.event for e in read_log(log) if isinstance(e.event, Released)]
    assert len(entries) == logged

    with running(config) as (process, url):
        answers = [await post(url, body.canonical()) for _ in range(2)]
        assert [status for status, _ in answers] == [200, 200]
        first, second = (parse(ReleaseAnswer, data, canonical=False) for _, data in answers)
        assert first == second
        assert not entries or first.statement == entries[0].statement
        other = body.model_copy(update={"release": scene.ask(body.agreement, body.request)})
        status, data = await post(url, other.canonical())
        assert (status, parse(ErrorBody, data, canonical=False).code) == (403, "release.cap")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 15) == 0
    report = verify_log(log, scene.world.brokers[0].signer)
    assert (report.ok, report.releases) == (True, 1)
