"""A new measurement beside the old one, a hanging enclave, and a rolling restart of two workers under load: everything real."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from enclave_app.measure import measure
from enclave_app.protocol.canonical import dump
from enclave_app.protocol.structs import TaskState
from oracle.devnet import Devnet, Options
from oracle.devnet.network import ENCLAVE_CONFIG
from oracle.devnet.processes import Process
from oracle.devnet.scenario import activate, prepare
from oracle.worker.journal import Journal
from oracle.worker.procfs import family, listener
from oracle.worker.states import State
from tests.e2e.conftest import PARAMS, QUERY, expected, tables

pytestmark = pytest.mark.slow
PACE = {"retryFirst": 0.2, "retryMost": 1.0, "poll": 0.05}


def enclave(devnet: Devnet, name: str, **changes: Any) -> tuple[dict[str, Any], bytes]:
    """A worker's configuration of an enclave of its own, and what that measures: `changes` are in what is measured (R3)."""
    home = devnet.directory / "worker"
    config, socket = home / f"{name}.json", home / f"{name}.sock"
    raw = dump({**ENCLAVE_CONFIG, **changes})
    config.write_bytes(raw)
    options = ["--config", str(config), "--socket", str(socket), "--platform", str(devnet.directory / "platform")]
    command = [sys.executable, "-m", "enclave_app", *options]
    return {"socket": str(socket), "command": command, "probeSeconds": 3}, measure(raw)


def write(path: Path, **changes: Any) -> dict[str, Any]:
    """A worker's file with `changes`; None takes a field away."""
    values = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))
    return values


async def settled(devnet: Devnet, agreement_id: bytes, least: int) -> None:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": least})
        assert (await task.result(patience=60)).to_pylist() == expected(least)


async def test_old_agreements_end_on_the_old_measurement_while_new_ones_use_the_new(tmp_path: Path) -> None:
    async with Devnet.open(tmp_path / "net", Options(patience=120, worker=PACE)) as devnet:
        old = await activate(devnet, await prepare(devnet, tmp_path / "old", tables(), QUERY, params=PARAMS))
        await settled(devnet, old, 10)
        newer, measurement = enclave(devnet, "newer", maxTasks=255)
        assert measurement != devnet.measurement
        file = devnet.directory / "worker" / "worker.yaml"
        before = yaml.safe_load(file.read_text())["enclave"]
        assert await stopped(devnet.worker) == 0
        write(file, enclave=None, enclaves=[newer, before])
        await devnet.worker.start()
        devnet.measurement = measurement
        new = await activate(devnet, await prepare(devnet, tmp_path / "new", tables(), QUERY, params=PARAMS))
        for least in (20, 30):
            await asyncio.gather(settled(devnet, old, least), settled(devnet, new, least))
        # One that hangs is ended with its children, and its tasks go on in the one that takes its place.
        hanging = listener(Path(newer["socket"]))
        assert hanging is not None
        children = family(hanging)
        os.kill(hanging.number, signal.SIGSTOP)
        await asyncio.gather(settled(devnet, old, 40), settled(devnet, new, 40))
        assert not any(pid.is_alive() for pid in children)
        assert await stopped(devnet.worker) == 0
        assert listener(Path(newer["socket"])) is None
        assert listener(Path(before["socket"])) is None


async def test_a_rolling_restart_of_two_workers_under_load_loses_no_task(tmp_path: Path) -> None:
    async with Devnet.open(tmp_path / "net", Options(patience=120, worker=PACE)) as devnet:
        prepared = await prepare(
            devnet,
            tmp_path / "owners",
            tables(),
            QUERY,
            params=PARAMS,
            changes={
                "enclaves": {
                    "measurements": ["0x" + devnet.measurement.hex()],
                    "anchors": ["0x" + devnet.anchor.hex()],
                    "statuses": ["UP_TO_DATE"],
                    "evaluationFloor": 1,
                    "maxEvidenceAge": "24 h",
                    "hosts": ["operator", "institute"],
                }
            },
        )
        agreement_id = await activate(devnet, prepared)
        home, person = devnet.directory / "worker", devnet.accounts["institute"]
        key = {"keystore": str(person.keystore), "passwordFile": str(person.password_file)}
        own, _ = enclave(devnet, "second")
        (home / "second.yaml").write_text((home / "worker.yaml").read_text())
        write(home / "second.yaml", journal=str(home / "second.sqlite"), enclave=own, wallet=key, operator=dict(key),
              payee=person.wallet.address)  # fmt: skip
        write(home / "worker.yaml", turnSeconds=3)
        write(home / "second.yaml", turnSeconds=3, retireOnStop=True)
        command = [sys.executable, "-m", "oracle", "worker", "run", "--config", str(home / "second.yaml")]
        second = Process("second", command, devnet.directory / "logs" / "second.log")
        await second.start()
        try:
            await ready(second, 1)
            await settled(devnet, agreement_id, 5)
            async with devnet.client("requester") as client:

                async def asked() -> list[Any]:
                    return [await client.request(agreement_id, {"least": 10 + number}) for number in range(24)]

                asking = asyncio.create_task(asked())
                for worker in (devnet.worker, second):
                    assert await stopped(worker) == 0
                    await asyncio.sleep(1)
                    await worker.start()
                    await ready(worker, 2)
                for task in await asking:
                    assert await task.wait(patience=60) is TaskState.FULFILLED
                    logs = await client.logs_about(task.agreement.oracle, "TaskFulfilled", task.id)
                    assert len(logs) == 1
            # A journal that follows is the same as the chain within some polls.
            await asyncio.sleep(2)
        finally:
            await second.stop(40)
        assert await stopped(devnet.worker) == 0
        said = second.log.read_text()
        assert said.count('"event":"the identity is retired"') == said.count('"event":"enclave registered"') == 2
        for name in ("journal.sqlite", "second.sqlite"):
            journal = Journal(home / name)
            assert {task.state for task in journal.tasks()} == {State.SETTLED}
            journal.close()
        assert [listener(Path(socket)) for socket in (own["socket"], home / "enclave.sock")] == [None, None]


async def ready(worker: Process, times: int) -> None:
    """Until it has said so that often since its log began."""
    async with asyncio.timeout(60):
        while worker.log.read_text().count('"event":"worker ready"') < times:  # noqa: ASYNC110 (a file tells no one)
            await asyncio.sleep(0.1)


async def stopped(worker: Process) -> int:
    await worker.stop(patience=60)
    return await worker.wait()
