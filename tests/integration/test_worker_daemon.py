"""The whole worker on a real chain with the real contracts; enclave and brokers are those of the kit."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.onchain import NO_AUDITORS, admission
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.storage import record_name
from enclave_app.protocol.structs import TaskState
from oracle import logs
from oracle.chain.abi import load
from oracle.chain.deploy import Deployment
from oracle.errors import Permanent
from oracle.worker.daemon import Worker
from oracle.worker.journal import Journal
from oracle.worker.states import State
from tests.worker_kit import ANSWER, World, free_port, funded, until, world


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """What the worker logs, as parsed lines, filled while the test runs."""
    lines: list[dict[str, Any]] = []

    class Lines(io.StringIO):
        def write(self, text: str) -> int:
            lines.extend(json.loads(line) for line in text.splitlines() if line)
            return len(text)

    handler = logs.configure("worker", "DEBUG", Lines())
    yield lines
    logging.getLogger(logs.ROOT).removeHandler(handler)


class Shelf:
    """HTTP storage that takes PUTs once it is started."""

    def __init__(self) -> None:
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self.blobs: dict[str, bytes] = {}
        app = web.Application()
        app.router.add_put("/{name}", self._put)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _put(self, request: web.Request) -> web.Response:
        self.blobs[request.match_info["name"]] = await request.read()
        return web.Response(status=201)


@asynccontextmanager
async def running(place: World, **changes: Any) -> AsyncIterator[Worker]:
    worker = Worker(place.config(**changes))
    serving = asyncio.create_task(worker.run())
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED, timeout=20)
    if serving.done():
        ready.cancel()
        serving.result()
    try:
        yield worker
    finally:
        worker.stop()
        await serving


async def settled(place: World, task_id: bytes) -> None:
    async def is_settled() -> bool:
        return (await place.on_chain(task_id)).state is TaskState.FULFILLED

    await until(is_settled)


def states(place: World) -> dict[bytes, tuple[State, str | None]]:
    journal = Journal(place.directory / "worker.sqlite")
    try:
        return {task.id: (task.state, task.code) for task in journal.tasks()}
    finally:
        journal.close()


async def test_a_request_is_settled_and_its_record_and_blobs_are_stored(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place):
            task_id, request, _ = await place.request(agreement)
            await settled(place, task_id)
        record = parse(TaskRecord, (place.blobs / record_name(task_id)).read_bytes(), limit=1 << 26)
        assert record.request == request
        assert (
            record.result.typed_digest(place.chain.oracle_domain(agreement))[:31]
            == (await place.on_chain(task_id)).result_digest
        )
        assert len(record.releases) == 2
        for output in record.outputs:
            assert (place.blobs / output.shares.output_id.hex()).read_bytes() == output.manifest
            assert (place.blobs / output.shares.shares.hex()).read_bytes() == output.share_list
        assert states(place) == {task_id: (State.SETTLED, None)}
        assert place.enclave.held == {}


async def test_brokers_get_a_posted_signature_that_the_activation_left_away(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        agreement_id = place.chain.agreement_id(agreement)
        signature, registry = place.owner.sign(agreement_id), load("AgreementRegistry")
        # R13: whoever activates first with nothing in their place must not take the signatures away from the brokers.
        for call in (
            registry.call("sign", agreement_id, place.owner.address, signature),
            registry.call("activate", agreement, [b""], NO_AUDITORS),
        ):
            assert (await place.requester.transact(place.deployment.agreement_registry, call)).ok
        async with running(place):
            task_id, _, _ = await place.request(agreement)
            await settled(place, task_id)
        record = parse(TaskRecord, (place.blobs / record_name(task_id)).read_bytes(), limit=1 << 26)
        assert record.consents == (signature,)


@pytest.mark.parametrize("name", ["oracle", "agreement_registry", "enclave_registry"])
async def test_a_deployment_file_of_another_chain_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    async with world(tmp_path) as place:
        config = place.config()
        deployment = Deployment.read(config.deployment)
        elsewhere = deployment.model_copy(update={name: "0x" + "12" * 20})
        (tmp_path / "elsewhere.json").write_bytes(elsewhere.canonical())
        worker = Worker(config.model_copy(update={"deployment": tmp_path / "elsewhere.json"}))
        with pytest.raises(Permanent) as caught:
            await asyncio.wait_for(worker.run(), 20)
        assert caught.value.code == "config.deployment"


@pytest.mark.parametrize("fault", ["down", "lie", "wrong_share", "garbage", "refuse", "slow"])
async def test_one_bad_broker_costs_a_log_line_only(
    tmp_path: Path, fault: str, log_lines: list[dict[str, Any]]
) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        bad = place.brokers[0]
        async with running(place, releaseTimeout="3", releaseHedge="0"):
            if fault == "down":
                await bad.stop()
            elif fault == "slow":
                bad.delay = 60.0
            else:
                bad.mode = fault
            if fault == "wrong_share":
                place.brokers[2].delay = 0.3  # so that the wrong share is among the first two answers
            task_id, _, _ = await place.request(agreement)
            await asyncio.wait_for(settled(place, task_id), 2.0)
        assert states(place) == {task_id: (State.SETTLED, None)}
        named = [line for line in log_lines if line.get("broker") == bad.digest.hex()]
        assert bool(named) == (fault != "slow")
        if fault == "wrong_share":
            assert {line["code"] for line in named} == {"shares.wrong"}


async def test_a_wallet_without_money_is_named_and_the_worker_waits_for_it(
    tmp_path: Path, log_lines: list[dict[str, Any]]
) -> None:
    async with world(tmp_path) as place:
        await place.rpc.call("anvil_setBalance", place.wallet.address, "0x0")
        worker = Worker(place.config())
        serving = asyncio.create_task(worker.run())

        def waits() -> list[dict[str, Any]]:
            return [line for line in log_lines if line["event"] == "the enclave is not registered yet"]

        async def tried_thrice() -> bool:
            return len(waits()) >= 3

        try:
            await until(tried_thrice)
            first = waits()[0]
            assert first["code"] == "wallet.funds"
            assert place.wallet.address in first["message"]
            # Each try asks the RPC endpoint and has evidence made: a person who is asleep must not cost thousands of them.
            assert [line["seconds"] > 0.1 * 2**i / 2 - 0.01 for i, line in enumerate(waits()[:2])] == [True, True]
            await place.rpc.call("anvil_setBalance", place.wallet.address, hex(10**24))
            await asyncio.wait_for(worker.ready.wait(), 15)
        finally:
            worker.stop()
            await serving


async def test_with_two_brokers_down_the_task_waits_and_finishes_when_one_is_back(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        good, back, gone = place.brokers
        async with running(place) as worker:
            await back.stop()
            await gone.stop()
            task_id, _, _ = await place.request(agreement)

            async def tried_thrice() -> bool:
                task = await worker._db(worker._db.journal.task, task_id)
                return task is not None and task.attempts >= 3

            await until(tried_thrice)
            task = await worker._db(worker._db.journal.task, task_id)
            assert task is not None
            assert (task.state, task.code) == (State.SEEN, "release.too_few")
            await back.start()
            await settled(place, task_id)
        # Brokers cap what they release for a task, so the one that answered must not be asked at every try (R13).
        assert good.asked == 1


async def test_a_restarted_enclave_is_registered_anew_and_serves(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place):
            first, _, _ = await place.request(agreement)
            await settled(place, first)
            before = place.enclave.signing.address
            await place.enclave.restart()
            assert place.enclave.signing.address != before
            second, _, _ = await place.request(agreement)
            await settled(place, second)


async def test_a_stored_result_is_settled_after_restarts_without_another_run(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place) as worker:
            # Without money the worker can compute and store, and not settle.
            await place.rpc.call("anvil_setBalance", place.wallet.address, hex(0))
            task_id, _, _ = await place.request(agreement)

            async def is_stored() -> bool:
                task = await worker._db(worker._db.journal.task, task_id)
                return task is not None and task.state is State.STORED and task.attempts > 0

            await until(is_stored)
        await place.rpc.call("anvil_setBalance", place.wallet.address, hex(10**24))
        await place.enclave.restart()
        async with running(place):
            await settled(place, task_id)
        assert place.enclave.runs == 1
        assert states(place)[task_id] == (State.SETTLED, None)


async def test_outputs_lost_with_the_enclave_are_computed_again(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        shelf = Shelf()
        storage = {"read": [place.blobs.as_uri()], "write": shelf.uri}
        async with running(place, storage=storage) as worker:
            task_id, _, _ = await place.request(agreement)

            async def has_run() -> bool:
                task = await worker._db(worker._db.journal.task, task_id)
                return task is not None and task.state is State.RAN and task.code == "storage.http"

            await until(has_run)
            # Its disk loses them, too.
            for each in (place.directory / "worker.sqlite.spool").rglob("*"):
                if each.is_file():
                    each.unlink()
            await place.enclave.restart()
            await shelf.start()
            await settled(place, task_id)
        await shelf.stop()
        assert place.enclave.runs == 2
        assert record_name(task_id) in shelf.blobs


async def test_a_task_that_the_enclave_dropped_before_its_run_is_started_again(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        place.enclave.forgets = 1
        async with running(place, releaseHedge="0"):
            task_id, _, _ = await place.request(agreement)
            await settled(place, task_id)
        assert [broker.asked for broker in place.brokers] == [2, 2, 2]


async def test_a_function_that_never_fits_is_parked_after_some_runs_and_never_settled(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        place.enclave.out_of_memory = True
        async with running(place, maxRuns=3) as worker:
            task_id, _, _ = await place.request(agreement)

            async def parked() -> bool:
                task = await worker._db(worker._db.journal.task, task_id)
                return task is not None and task.state is State.PARKED

            await until(parked)
        assert place.enclave.runs == 3
        assert max(broker.asked for broker in place.brokers) == 1
        assert (await place.on_chain(task_id)).state is TaskState.REQUESTED


async def test_ciphertext_that_is_away_for_a_while_costs_no_further_release(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        place.enclave.blobs_missing = agreement.keys.max_releases + 1
        async with running(place):
            task_id, _, _ = await place.request(agreement)
            await settled(place, task_id)
        assert place.enclave.blobs_missing == 0
        # Brokers cap releases (R13): a task must not be lost to a storage that was down for some tries (R19).
        assert max(broker.asked for broker in place.brokers) == 1


async def test_a_stop_lets_what_runs_finish(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        place.enclave.run_delay = 0.5
        async with running(place) as worker:
            task_id, _, _ = await place.request(agreement)

            async def runs() -> bool:
                return task_id in worker._running

            await until(runs)
            worker.stop()
        assert (await place.on_chain(task_id)).state is TaskState.FULFILLED


async def test_a_stop_that_cannot_wait_leaves_the_task_to_the_next_start(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        place.enclave.run_delay = 3.0
        async with running(place, drain="0") as worker:
            task_id, _, _ = await place.request(agreement)

            async def runs() -> bool:
                return task_id in worker._running

            await until(runs)
            await asyncio.sleep(0.2)
        assert states(place)[task_id][0] is State.SEEN
        place.enclave.run_delay = 0.0
        async with running(place):
            await settled(place, task_id)


async def test_a_task_cancelled_within_the_release_delay_is_never_released(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        agreement = agreement.model_copy(update={"keys": agreement.keys.model_copy(update={"release_delay": 3})})
        await place.activate(agreement)
        async with running(place, releaseHedge="0"):
            task_id, request, _ = await place.request(agreement)
            await asyncio.sleep(0.2)
            await place.requester.transact(
                place.deployment.oracle, load("ComputeOracle").call("cancel", request, admission(agreement))
            )
            await place.rpc.call("anvil_mine", hex(5))
            await asyncio.sleep(0.3)
            standing, _, _ = await place.request(agreement)
            await place.rpc.call("anvil_mine", hex(4))
            await settled(place, standing)
        assert states(place)[task_id][0] is State.CANCELLED
        assert [broker.asked for broker in place.brokers] == [1, 1, 1]


async def test_a_task_for_other_enclaves_is_skipped_with_its_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        foreign = agreement.model_copy(update={"tee": agreement.tee.model_copy(update={"measurements": (b"\1" * 32,)})})
        await place.activate(foreign)
        async with running(place) as worker:
            task_id, _, _ = await place.request(foreign)

            async def is_skipped() -> bool:
                task = await worker._db(worker._db.journal.task, task_id)
                return task is not None and task.state is State.SKIPPED

            await until(is_skipped)
        assert states(place)[task_id] == (State.SKIPPED, "plan.measurement")
        assert [broker.asked for broker in place.brokers] == [0, 0, 0]


async def test_two_workers_on_one_chain_both_end_with_a_settled_task(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place):
            place.wallet = await funded(place.rpc)
            async with running(place, journal="second.sqlite"):
                ids = [(await place.request(agreement))[0] for _ in range(5)]
                for task_id in ids:
                    await settled(place, task_id)
                await asyncio.sleep(0.5)
        for name in ("worker.sqlite", "second.sqlite"):
            journal = Journal(tmp_path / name)
            assert {task.state for task in journal.tasks()} == {State.SETTLED}
            journal.close()


async def test_a_settlement_that_a_reorganisation_removes_is_made_again_without_another_run(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place):
            await place.rpc.call("anvil_mine", hex(3))
            task_id, _, _ = await place.request(agreement)
            await settled(place, task_id)
            await asyncio.sleep(0.2)
            await place.rpc.call("anvil_reorg", 1, [])
            assert (await place.on_chain(task_id)).state is TaskState.REQUESTED
            await settled(place, task_id)
            assert (await place.on_chain(task_id)).state is TaskState.FULFILLED
        assert place.enclave.runs == 1
        assert states(place)[task_id][0] is State.SETTLED


async def test_no_byte_of_an_answer_lies_in_a_file_or_a_log(tmp_path: Path, log_lines: list[dict[str, Any]]) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place):
            task_id, _, _ = await place.request(agreement)
            await settled(place, task_id)
    marker = ANSWER.strip()
    files = await asyncio.to_thread(lambda: [path for path in tmp_path.rglob("*") if path.is_file()])
    assert any(path.name == record_name(task_id) for path in files)
    for path in files:
        content = path.read_bytes()
        assert marker not in content
        assert marker.hex().encode() not in content
    assert log_lines
    assert marker.decode() not in json.dumps(log_lines)
