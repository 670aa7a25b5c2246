"""A worker whose journal is on a PostgreSQL server that crashes under it: everything real, and nobody restarts the worker."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp

from enclave_app.protocol.structs import TaskState
from oracle.devnet import Devnet, Options
from oracle.devnet.processes import free_port
from oracle.devnet.scenario import activate, prepare
from oracle.worker.journal import Journal
from oracle.worker.states import State
from tests.e2e.conftest import PARAMS, QUERY, expected, tables
from tests.postgres_kit import postgres_server

TASKS, AWAY_SECONDS = 8, 4.0


async def test_every_task_is_settled_once_across_a_crash_of_the_journals_server(tmp_path: Path) -> None:
    with postgres_server() as server:
        place, health = server.place(), f"127.0.0.1:{free_port()}"
        worker = {
            "journal": {"url": place.url.get_secret_value(), "name": place.name},
            "spool": str(tmp_path / "spool"),
            "health": {"listen": health},
            "retryFirst": 0.2,
            "retryMost": 1.0,
            "poll": 0.05,
        }
        async with (
            Devnet.open(tmp_path / "net", Options(worker=worker, patience=120)) as devnet,
            devnet.client("requester") as client,
            aiohttp.ClientSession(f"http://{health}") as http,
        ):
            agreement_id = await activate(
                devnet, await prepare(devnet, tmp_path / "owners", tables(), QUERY, params=PARAMS)
            )
            assert await page(http, "readyz", ready=True) == (200, {})
            pid = devnet.worker.pid
            first = await client.request(agreement_id, {"least": 10})
            assert await first.wait(patience=60) is TaskState.FULFILLED
            tasks = [await client.request(agreement_id, {"least": 11 + number}) for number in range(TASKS)]
            assert await tasks[0].wait(patience=60) is TaskState.FULFILLED
            # Some have ended, some are under way, and the last are asked for while nothing can be written down.
            server.stop(signal.SIGQUIT)
            tasks += [await client.request(agreement_id, {"least": 11 + TASKS + number}) for number in range(2)]
            status, faults = await page(http, "readyz", ready=False)
            assert (status, "journal" in faults) == (503, True)
            await asyncio.sleep(AWAY_SECONDS)
            assert (await http.get("/healthz")).status == 200
            assert (await http.get("/readyz")).status == 503
            server.start()
            for number, task in enumerate(tasks):
                assert await task.wait(patience=60) is TaskState.FULFILLED
                assert (await task.result(patience=60)).to_pylist() == expected(11 + number)
                assert len(await client.logs_about(task.agreement.oracle, "TaskFulfilled", task.id)) == 1
            assert await page(http, "readyz", ready=True) == (200, {})
            figures = await (await http.get("/metrics")).text()
            # Nobody is called for a bug where only a server was away.
            assert [line for line in figures.splitlines() if "_bugs_total{" in line and not line.endswith(" 0.0")] == []
            assert devnet.worker.running
            assert devnet.worker.pid == pid
            assert devnet.worker.log.read_text().count('"event":"worker ready"') == 1
        journal = Journal(place, owner=False)
        assert {task.id: task.state for task in journal.tasks()} == {task.id: State.SETTLED for task in (first, *tasks)}
        journal.close()


async def page(http: aiohttp.ClientSession, name: str, *, ready: bool) -> tuple[int, dict[str, Any]]:
    """The page once it says `ready`: its status, and the checks that do not hold."""
    async with asyncio.timeout(30):
        while True:
            answer = await http.get(f"/{name}")
            said = await answer.json()
            if said["ready"] is ready:
                return answer.status, {name: check for name, check in said["checks"].items() if not check["ok"]}
            await asyncio.sleep(0.1)
