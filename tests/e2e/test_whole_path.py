"""From a signed agreement to a result that the chain accepted, with everything real; and what faults do to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.storage import blob_name
from enclave_app.protocol.structs import Outcome, TaskState
from oracle.devnet import Devnet
from oracle.errors import Permanent, Refused, Reverted
from oracle.keybroker.log import read_log
from oracle.task import Task
from tests.e2e.conftest import MARKER, expected
from tests.e2e.lying_broker import lying_broker

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def files_before() -> set[Path]:
    return set(_files(Path(tempfile.gettempdir())))


async def test_the_result_equals_the_plaintext_query(
    files_before: set[Path], devnet: Devnet, agreement_id: bytes
) -> None:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": 100})
        assert (await task.result(patience=40)).to_pylist() == expected(100)
        settled = await task.settlement()
        assert settled.result.outcome == Outcome.SUCCEEDED
        assert (await task.state()).state is TaskState.FULFILLED


async def test_the_same_question_twice_is_two_tasks_with_one_answer(devnet: Devnet, agreement_id: bytes) -> None:
    (first, rows), (second, again) = await asyncio.gather(
        _ask(devnet, agreement_id, 20), _ask(devnet, agreement_id, 20)
    )
    assert first.id != second.id
    assert rows == again == expected(20)


async def test_a_deterministic_error_of_the_function_settles_as_a_signed_failure(
    devnet: Devnet, agreement_id: bytes
) -> None:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": 1000})
        assert await task.wait(patience=30) is TaskState.FAILED
        with pytest.raises(Permanent, match="the function failed"):
            await task.result()


async def test_nobody_but_the_recipient_opens_the_result(devnet: Devnet, agreement_id: bytes) -> None:
    task, _ = await _ask(devnet, agreement_id, 0)
    async with devnet.client("hospital-a") as stranger:
        theirs = await stranger.task(task.id)
        with pytest.raises(Refused, match="recipient"):
            await theirs.result()


async def test_a_killed_broker_changes_nothing_but_a_log_line(devnet: Devnet, agreement_id: bytes) -> None:
    await devnet.brokers[0].process.kill()
    try:
        _, rows = await _ask(devnet, agreement_id, 50)
        assert rows == expected(50)
        assert any(e["event"] == "a broker did not release" for e in _worker_log(devnet))
    finally:
        await devnet.brokers[0].process.start()
        await _serving(devnet, 0)


async def test_a_wrong_share_is_blamed_on_its_broker_and_changes_nothing_else(
    devnet: Devnet, agreement_id: bytes
) -> None:
    broker = devnet.brokers[2]
    await broker.process.stop()
    directory = devnet.directory / "brokers" / "3"
    password = directory.with_suffix(".password").read_text().strip()
    # One honest broker is stopped too long to matter: the liar's answer is needed before its lie is found.
    try:
        async with lying_broker(directory, password, broker.url) as lied:
            for least in (1, 2, 3):
                task, rows = await _ask(devnet, agreement_id, least)
                assert rows == expected(least)
                assert task.id in lied
        blames = [e for e in _worker_log(devnet) if e["event"] == "the enclave blames a broker"]
        assert {e["broker"] for e in blames} <= {broker.card.digest.hex()}
        assert all(e["code"] == "shares.wrong" for e in blames)
        assert blames, "no run had the liar's answer among its first"
    finally:
        await broker.process.start()
        await _serving(devnet, 2)


async def test_two_brokers_down_stop_a_task_cleanly_and_it_ends_when_one_is_back(
    devnet: Devnet, agreement_id: bytes
) -> None:
    await asyncio.gather(devnet.brokers[0].process.kill(), devnet.brokers[1].process.kill())
    try:
        async with devnet.client("requester") as client:
            task = await client.request(agreement_id, {"least": 60})
            await _logged(devnet, "release.too_few", task)
            assert (await task.state()).state is TaskState.REQUESTED
            await devnet.brokers[1].process.start()
            assert await task.wait(patience=30) is TaskState.FULFILLED
            assert (await task.result()).to_pylist() == expected(60)
    finally:
        await devnet.brokers[0].process.start()
        await _serving(devnet, 0)


async def test_ciphertext_that_is_away_for_some_tries_costs_time_and_no_release(
    devnet: Devnet, agreement_id: bytes
) -> None:
    storage = devnet.directory / "storage"
    async with devnet.client("requester") as client:
        agreement = (await client.agreement(agreement_id)).agreement
        manifest = read_manifest(await client.blob(agreement.data[0].id_or_stream), agreement.data[0].id_or_stream)
        blob = storage / blob_name(manifest.files[0].sha256)
        blob.rename(storage.with_name("away"))
        # Another one starts: this one keeps small tables decoded, and would not look for the ciphertext again.
        pid = devnet.enclave_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        try:
            task = await client.request(agreement_id, {"least": 65})
            await _logged(devnet, "blob.missing", task, times=4)
        finally:
            storage.with_name("away").rename(blob)
        assert await task.wait(patience=30) is TaskState.FULFILLED
    for broker in range(1, 4):
        log = read_log(devnet.directory / "brokers" / str(broker) / "log.jsonl", task_id=task.id)
        assert [entry.event.kind for entry in log].count("released") <= 1


async def test_a_killed_worker_resumes_and_settles_once(devnet: Devnet, agreement_id: bytes) -> None:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": 70})
        await devnet.worker.kill()
        await devnet.worker.start()
        assert await task.wait(patience=40) is TaskState.FULFILLED
        assert (await task.result()).to_pylist() == expected(70)
        settlements = await client.logs_about(task.agreement.oracle, "TaskFulfilled", task.id)
        assert len(settlements) == 1


async def test_a_killed_enclave_comes_back_as_another_identity(devnet: Devnet, agreement_id: bytes) -> None:
    async with devnet.client("requester") as client:
        before = await client.request(agreement_id, {"least": 80})
        await before.wait(patience=40)
        pid = devnet.enclave_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        after = await client.request(agreement_id, {"least": 80})
        assert (await after.result(patience=40)).to_pylist() == expected(80)
        assert (await before.settlement()).signer != (await after.settlement()).signer


async def test_a_stopped_worker_drains_and_the_next_one_goes_on(devnet: Devnet, agreement_id: bytes) -> None:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": 90})
        await devnet.worker.stop(patience=40)
        assert await devnet.worker.wait() == 0
        await devnet.worker.start()
        assert await task.wait(patience=40) is TaskState.FULFILLED


async def test_suspension_stops_requests_and_only_its_party_resumes(devnet: Devnet, agreement_id: bytes) -> None:
    async with devnet.client("hospital-b") as owner, devnet.client("requester") as client:
        await owner.suspend(agreement_id)
        with pytest.raises(Reverted, match="NotActive"):
            await client.request(agreement_id, {"least": 1})
        async with devnet.client("hospital-a") as other:
            with pytest.raises(Reverted, match="NotSuspended"):
                await other.resume(agreement_id)
        await owner.resume(agreement_id)
    _, rows = await _ask(devnet, agreement_id, 1)
    assert rows == expected(1)


async def test_no_plaintext_is_at_rest_or_in_any_log(
    files_before: set[Path], devnet: Devnet, agreement_id: bytes, home: Path
) -> None:
    await _ask(devnet, agreement_id, 0)
    needle = MARKER.encode()
    new = [p for p in _files(Path(tempfile.gettempdir())) if p not in files_before and home not in p.parents]
    searched = [*_files(home), *new]
    assert len(searched) > 30, "the search looks at nothing"
    assert [p for p in searched if _holds(p, needle)] == []
    # The search does find what is there.
    (home / "probe").write_bytes(b"x" * 100 + needle)
    assert [p for p in _files(home) if _holds(p, needle)] == [home / "probe"]


async def _ask(devnet: Devnet, agreement_id: bytes, least: int) -> tuple[Task, list[dict[str, Any]]]:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": least})
        table = await task.result(patience=40)
        return task, table.to_pylist()


async def _serving(devnet: Devnet, index: int) -> None:
    from oracle.devnet.processes import until

    broker = devnet.brokers[index]
    host, port = "127.0.0.1", int(broker.url.rsplit(":", 1)[1])

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    await until(broker.process.name, answers, [broker.process])


async def _logged(devnet: Devnet, text: str, task: Task, *, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while sum(text in str(e) and task.id.hex() in str(e) for e in _worker_log(devnet)) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _worker_log(devnet: Devnet) -> list[dict[str, Any]]:
    lines = devnet.worker.log.read_text("utf-8", "replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def _files(directory: Path) -> Iterator[Path]:
    for root, _, names in os.walk(directory):
        yield from (Path(root) / name for name in names)


def _holds(path: Path, needle: bytes) -> bool:
    try:
        return path.is_file() and needle in path.read_bytes()
    except OSError:
        return False
