"""What a real worker on a real chain says of itself over HTTP: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, UnixConnector
from prometheus_client.parser import text_string_to_metric_families

from enclave_app.protocol.structs import TaskState
from oracle.worker.daemon import Worker
from oracle.worker.metrics import PREFIX, STEPS
from oracle.worker.reload import Reloader
from tests.worker_kit import World, free_port, until, world


@asynccontextmanager
async def running(place: World, **changes: Any) -> AsyncIterator[Worker]:
    worker = Worker(place.config(health={"listen": "health.sock"}, **changes))
    serving = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await serving


async def page(place: World, path: str) -> tuple[int, str]:
    async with (
        ClientSession(connector=UnixConnector(str(place.directory / "health.sock"))) as session,
        session.get(f"http://worker{path}") as answer,
    ):
        return answer.status, await answer.text()


async def samples(place: World) -> dict[tuple[str, str], float]:
    """By name and the labels' values, joined."""
    _, text = await page(place, "/metrics")
    return {
        (sample.name.removeprefix(PREFIX), ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def checks(place: World) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await page(place, "/readyz"))[1])
    return answer


async def test_a_worker_shows_what_it_did_and_that_it_is_of_use(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place) as worker:
            await asyncio.wait_for(worker.ready.wait(), 20)
            task_id, _, _ = await place.request(agreement)

            async def is_settled() -> bool:
                return (await place.on_chain(task_id)).state is TaskState.FULFILLED

            await until(is_settled)

            async def is_shown() -> bool:
                found = await samples(place)
                steps = all(found["step_seconds_count", step] >= 1 for step in STEPS)
                return steps and found["tasks_ended_total", "settled"] == 1 and (await checks(place))["ready"]

            await until(is_shown)
            found = await samples(place)
            assert found["lag_blocks", ""] == 0
            assert (found["following", ""], found["registered", ""], found["enclave_up", ""]) == (1, 1, 1)
            assert found["wallet_balance_wei", ""] > 0
            assert found["journal_bytes", ""] > 0
            given = sum(value for (name, at), value in found.items() if name == "releases_total" and "given" in at)
            assert given >= 2
            assert (await page(place, "/healthz"))[0] == 200
            assert found["agreements_below_threshold", ""] == 0


async def test_brokers_that_are_down_make_it_unready_and_say_which_agreements_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        for broker in place.brokers[:2]:
            await broker.stop()
        async with running(place) as worker:
            await asyncio.wait_for(worker.ready.wait(), 20)
            await place.request(agreement)

            async def is_short() -> bool:
                return (await samples(place)).get(("agreements_below_threshold", "")) == 1

            await until(is_short)
            told = await checks(place)
            assert not told["ready"]
            assert not told["checks"]["brokers"]["ok"]
            assert told["checks"]["registered"]["ok"]
            assert sum(v for (name, _), v in (await samples(place)).items() if name == "retries_total") >= 1


async def test_a_worker_that_waits_for_its_chain_is_alive_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    async with world(tmp_path) as place, running(place, rpc=[f"http://127.0.0.1:{free_port()}"]):

        async def is_served() -> bool:
            return (place.directory / "health.sock").exists()

        await until(is_served)
        assert (await page(place, "/healthz"))[0] == 200
        assert (await page(place, "/readyz"))[0] == 503
        assert ("info", "0.1.0") in await samples(place)


async def test_failing_rpc_endpoints_are_counted_by_host_and_port_and_never_by_their_secret_path(
    tmp_path: Path,
) -> None:
    dead = f"127.0.0.1:{free_port()}"
    secret = f"http://user:hush@{dead}/v3/hush?key=hush"
    async with world(tmp_path) as place, running(place, rpc=[secret]):

        async def is_counted() -> bool:
            if not (place.directory / "health.sock").exists():
                return False
            told = await samples(place)
            return any(
                name == "rpc_errors_total" and dead in labels and value for (name, labels), value in told.items()
            )

        await until(is_counted)
        assert not any("hush" in labels for _, labels in await samples(place))


async def test_a_reload_reaches_every_part_of_a_running_worker(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        for broker in place.brokers[:2]:
            await broker.stop()
        path = tmp_path / "worker.yaml"
        async with running(place, rpc=[f"http://127.0.0.1:{free_port()}"]) as worker:
            # The chain's address is wrong at first: a worker that waits for it takes the right one.
            worker.reloader = Reloader(path, worker.config, worker._reconfigure, worker.metrics)
            place.config(health={"listen": "health.sock"})
            assert worker.reloader.reload()
            await asyncio.wait_for(worker.ready.wait(), 20)
            task_id, _, _ = await place.request(agreement)

            async def waits() -> bool:
                return worker.metrics.get("agreements_below_threshold") == 1

            await until(waits)
            for broker in place.brokers[:2]:
                await broker.start()
            place.config(health={"listen": "health.sock"}, concurrency=1, inFlight=3, poll="0.03")
            assert worker.reloader.reload()
            assert (worker.admission.runs, worker.config.in_flight) == (1, 3)

            async def is_settled() -> bool:
                return (await place.on_chain(task_id)).state is TaskState.FULFILLED

            await until(is_settled)


async def test_top_shows_a_running_worker_once_as_json_and_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    async with world(tmp_path) as place, running(place) as worker:
        await asyncio.wait_for(worker.ready.wait(), 20)

        async def is_followed() -> bool:
            return worker.metrics.get("following") == 1 and worker.metrics.get("registered") == 1

        await until(is_followed)
        command = (sys.executable, "-m", "oracle", "worker", "top", f"unix:{tmp_path / 'health.sock'}")
        once = await asyncio.create_subprocess_exec(*command, "--once", "--json", stdout=asyncio.subprocess.PIPE)
        said, _ = await asyncio.wait_for(once.communicate(), 30)
        answer = json.loads(said)
        assert (once.returncode, answer["following"], answer["registered"], answer["alerts"]) == (0, True, True, [])
        # A test run in the background is told to ignore it, and so would be whom it starts.
        ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
        terminal, side = pty.openpty()
        live = await asyncio.create_subprocess_exec(
            *command, stdin=side, stdout=side, stderr=side, env={**os.environ, "COLUMNS": "40", "TERM": "xterm"}
        )
        signal.signal(signal.SIGINT, ignored)
        os.close(side)
        shown = b""
        while b"following" not in shown:
            shown += await asyncio.wait_for(asyncio.to_thread(os.read, terminal, 1000), 30)
        live.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            while rest := await asyncio.to_thread(_read, terminal):
                shown += rest
        os.close(terminal)
        assert await asyncio.wait_for(live.wait(), 30) == 0
        assert b"Traceback" not in shown
        assert b"\x1b[?1049l" in shown, "the terminal's own screen comes back"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # what Linux says when the other side is closed
        return b""
