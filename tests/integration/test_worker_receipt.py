"""A settled task leaves a receipt in storage, whatever happens between the settlement and its writing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from enclave_app.protocol.storage import receipt_name
from enclave_app.protocol.structs import Outcome, TaskState
from oracle.chain.sender import Sender
from oracle.receipt import Expected, Report, Verdict, verify_receipt
from oracle.worker.daemon import Worker
from oracle.worker.journal import Journal
from oracle.worker.rows import Task
from oracle.worker.settle import Settler
from oracle.worker.states import State
from tests.worker_kit import World, funded, until, world


@asynccontextmanager
async def running(place: World, **changes: object) -> AsyncIterator[Worker]:
    worker = Worker(place.config(**changes))
    serving = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.ready.wait(), 20)
    try:
        yield worker
    finally:
        worker.stop()
        await serving


def receipt_path(place: World, task_id: bytes) -> Path:
    return place.blobs / receipt_name(task_id)


async def written(place: World, task_id: bytes) -> bytes:
    path = receipt_path(place, task_id)

    async def is_there() -> bool:
        return path.is_file()

    await until(is_there)
    return path.read_bytes()


def check(place: World, data: bytes, agreement_id: bytes) -> Report:
    return verify_receipt(data, Expected(agreement_id=agreement_id), int(time.time()), allow_simulated=True)


def row(place: World, task_id: bytes) -> tuple[Task, bytes | None]:
    """The task as the journal has it, and a receipt that is still to be written."""
    journal = Journal(place.directory / "worker.sqlite")
    try:
        task = journal.task(task_id)
        assert task is not None
        return task, journal.receipt(task_id)
    finally:
        journal.close()


async def in_state(worker: Worker, task_id: bytes, state: State, code: str | None = None) -> None:
    async def is_so() -> bool:
        task = await worker._db(worker._db.journal.task, task_id)
        return task is not None and task.state is state and (code is None or task.code == code)

    await until(is_so)


async def test_a_settled_task_leaves_an_authentic_receipt(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        agreement_id = await place.activate(agreement)
        async with running(place):
            task_id, _, _ = await place.request(agreement)
            data = await written(place, task_id)
        found = check(place, data, agreement_id)
        assert (found.verdict, found.failed, found.reason) == (Verdict.AUTHENTIC, None, None)
        assert found.simulated
        task, owed = row(place, task_id)
        assert (task.state, task.code, owed) == (State.SETTLED, None, None)


async def test_a_failed_task_leaves_a_receipt_of_its_failure(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        place.enclave.outcome = Outcome.FAILED
        agreement = await place.agreement()
        agreement_id = await place.activate(agreement)
        async with running(place):
            task_id, _, _ = await place.request(agreement)
            data = await written(place, task_id)
        found = check(place, data, agreement_id)
        assert (found.verdict, found.outcome) == (Verdict.AUTHENTIC, "failed")
        assert (await place.on_chain(task_id)).state is TaskState.FAILED


async def test_a_storage_that_is_down_delays_the_receipt_and_loses_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        async with running(place) as worker:
            agreement_id, task_id = await settled_while_the_receipt_cannot_be_written(place, worker)
            receipt_path(place, task_id).rmdir()
            data = await written(place, task_id)
        assert check(place, data, agreement_id).verdict is Verdict.AUTHENTIC
        task, owed = row(place, task_id)
        assert (task.state, task.code, owed) == (State.SETTLED, None, None)


async def test_a_receipt_is_still_written_when_the_tasks_deadline_has_passed(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        async with running(place) as worker:
            agreement_id, task_id = await settled_while_the_receipt_cannot_be_written(place, worker)
        task, _ = row(place, task_id)
        await place.rpc.call("evm_setNextBlockTimestamp", task.request.deadline + 1)
        await place.rpc.call("evm_mine")
        receipt_path(place, task_id).rmdir()
        async with running(place):
            data = await written(place, task_id)
        assert check(place, data, agreement_id).verdict is Verdict.AUTHENTIC


async def settled_while_the_receipt_cannot_be_written(place: World, worker: Worker) -> tuple[bytes, bytes]:
    """The agreement's and the task's id. A worker without money computes and stores, and settles once it has some."""
    agreement = await place.agreement()
    agreement_id = await place.activate(agreement)
    await place.rpc.call("anvil_setBalance", place.wallet.address, hex(0))
    task_id, _, _ = await place.request(agreement)
    await in_state(worker, task_id, State.STORED)
    receipt_path(place, task_id).mkdir()  # a file of that name cannot be written now
    await place.rpc.call("anvil_setBalance", place.wallet.address, hex(10**24))
    await in_state(worker, task_id, State.SETTLED, "storage.write")
    return agreement_id, task_id


async def test_a_worker_that_ended_before_the_receipt_was_written_writes_it_at_its_next_start(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        async with running(place) as worker:
            agreement_id, task_id = await settled_while_the_receipt_cannot_be_written(place, worker)
        _, owed = row(place, task_id)
        assert owed is not None
        receipt_path(place, task_id).rmdir()
        # What the receipt needs must not be asked for again: collateral moves on.
        (tmp_path / "collateral.json").rename(tmp_path / "gone.json")
        async with running_without_collateral(place):
            assert await written(place, task_id) == owed
        assert check(place, owed, agreement_id).verdict is Verdict.AUTHENTIC
        assert place.enclave.runs == 1


@asynccontextmanager
async def running_without_collateral(place: World) -> AsyncIterator[Worker]:
    """The enclave is registered by now, so that this worker needs nothing but the journal."""
    async with running(place, attestation=None) as worker:
        yield worker


async def test_a_crash_between_sending_and_the_journal_still_leaves_a_receipt(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        agreement_id = await place.activate(agreement)
        async with running(place) as worker:
            # Without money the worker can compute and store, and not settle.
            await place.rpc.call("anvil_setBalance", place.wallet.address, hex(0))
            task_id, _, _ = await place.request(agreement)
            await in_state(worker, task_id, State.STORED)
        task, owed = row(place, task_id)
        assert task.record is not None
        assert not receipt_path(place, task_id).exists()
        # What was sent and never written down, as a crash leaves it: the next start meets a task that is settled already.
        sender = Sender(place.rpc, await funded(place.rpc))
        await sender.wait(await Settler(sender, place.deployment.oracle).send(task.record))
        assert (await place.on_chain(task_id)).state is TaskState.FULFILLED
        async with running(place):
            data = await written(place, task_id)
        assert data == owed
        assert check(place, data, agreement_id).verdict is Verdict.AUTHENTIC


async def test_a_task_that_another_worker_settled_with_another_result_leaves_no_receipt_of_ours(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place) as worker:
            await place.rpc.call("anvil_setBalance", place.wallet.address, hex(0))
            task_id, _, _ = await place.request(agreement)
            await in_state(worker, task_id, State.STORED)
            place.wallet = await funded(place.rpc)
            ours, place.payee = place.payee, place.wallet.address  # another payee makes another result (R20)
            async with running(place, journal="second.sqlite"):
                theirs = await written(place, task_id)
            place.payee = ours

            async def nothing_owed() -> bool:
                return await worker._db(worker._db.journal.receipt, task_id) is None

            await until(nothing_owed)
        assert receipt_path(place, task_id).read_bytes() == theirs
        assert json.loads(theirs)["result"]["payee"] == place.wallet.address.lower()


async def test_a_worker_without_collateral_settles_and_writes_no_receipt(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        async with running(place):
            pass  # registers the enclave
        async with running(place, attestation=None) as worker:
            task_id, _, _ = await place.request(agreement)
            await in_state(worker, task_id, State.SETTLED)
        _, owed = row(place, task_id)
        assert owed is None
        assert not receipt_path(place, task_id).exists()
