"""Which worker and which enclave does a task, when, and what becomes of it when something ends meanwhile: the whole worker on a
real chain with the real contracts; enclaves and brokers are those of the kit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Confirmation, TaskState
from oracle.chain.enclaves import registered_enclaves
from oracle.chain.rpc import as_int
from oracle.chain.sender import Receipt
from oracle.chain.source import SingleSource
from oracle.worker.daemon import Worker
from oracle.worker.journal import Journal
from oracle.worker.rows import Task
from oracle.worker.settlement import Settlements
from oracle.worker.states import State
from tests.worker_kit import TinyEnclave, World, free_port, funded, until, world

FOREVER = 60.0
"""Seconds; longer than any of these tests waits for anything."""


@asynccontextmanager
async def running(place: World, name: str = "worker", **changes: Any) -> AsyncIterator[Worker]:
    worker = Worker(place.config(journal=f"{name}.sqlite", **changes))
    serving = asyncio.create_task(worker.run(), name=name)
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


@asynccontextmanager
async def second_enclave(place: World, **options: Any) -> AsyncIterator[TinyEnclave]:
    enclave = TinyEnclave(place.directory / "second.sock", place.authority, **options)
    await enclave.start()
    try:
        yield enclave
    finally:
        await enclave.stop()


async def operator(place: World, name: str) -> dict[str, Any]:
    """What a worker of an operator of its own is configured with: two keys in files of its own."""
    wallet, host = await funded(place.rpc), SigningKey.generate()
    for what, key in (("wallet", bytes(wallet.key)), ("operator", host.secret())):
        (place.directory / f"{name}.{what}").write_text(key.hex())
    return {"wallet": {"keyFile": f"{name}.wallet"}, "operator": {"keyFile": f"{name}.operator"}}


async def row(worker: Worker, task_id: bytes) -> Task:
    task = await worker._db(worker._db.journal.task, task_id)
    assert task is not None
    return task


async def reaches(worker: Worker, task_id: bytes, state: State, seconds: float = 15.0) -> Task:
    async def there() -> bool:
        task = await worker._db(worker._db.journal.task, task_id)
        return task is not None and task.state is state

    await until(there, seconds)
    return await row(worker, task_id)


async def computes(worker: Worker, task_id: bytes) -> None:
    async def there() -> bool:
        return task_id in worker.pipeline.computing

    await until(there)


async def activated(place: World, **changes: Any) -> Agreement:
    agreement = await place.agreement(**changes)
    await place.activate(agreement)
    return agreement


async def chain_time(place: World) -> int:
    return as_int((await place.rpc.call("eth_getBlockByNumber", "latest", False))["timestamp"])


async def test_each_task_is_computed_by_one_of_two_workers_and_each_has_some(tmp_path: Path) -> None:
    async with world(tmp_path) as place, second_enclave(place) as second:
        agreement = await activated(place)
        async with (
            running(place, "first", **await operator(place, "first")) as first,
            running(
                place, "second", enclave={"socket": str(second.socket)}, **await operator(place, "second")
            ) as other,
        ):
            await asyncio.sleep(2.5)  # until each has read the registry since the other is in it
            tasks = [(await place.request(agreement))[0] for _ in range(16)]
            for task_id in tasks:
                # A window is the agreed 10 seconds and 15: none of these may have waited for one.
                await reaches(first, task_id, State.SETTLED, 10)
                await reaches(other, task_id, State.SETTLED, 10)
        assert place.enclave.runs + second.runs == len(tasks)
        # Both missing one of 16 has a chance of 1 in 32,768.
        assert place.enclave.runs > 0
        assert second.runs > 0


async def test_tasks_of_a_worker_that_is_gone_are_taken_by_the_next_after_a_window(tmp_path: Path) -> None:
    async with world(tmp_path) as place, second_enclave(place) as second:
        agreement = await activated(place)
        async with running(place, "gone", **await operator(place, "gone")):
            pass
        changes = {"enclave": {"socket": str(second.socket)}, "turnSeconds": 1}
        async with running(place, "left", **changes, **await operator(place, "left")) as worker:
            tasks = [(await place.request(agreement))[0] for _ in range(8)]
            for task_id in tasks:
                await reaches(worker, task_id, State.SETTLED)
        assert (place.enclave.runs, second.runs) == (0, len(tasks))


async def test_a_task_that_another_settles_is_stopped_where_it_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as place, second_enclave(place) as quick:
        agreement = await activated(place)
        place.enclave.run_delay = FOREVER
        at_once = {"turnSeconds": 0}
        async with running(place, "slow", **at_once, **await operator(place, "slow")) as slow:
            task_id, _, _ = await place.request(agreement)
            await computes(slow, task_id)
            changes = {"enclave": {"socket": str(quick.socket)}}
            async with running(place, "quick", **at_once, **changes, **await operator(place, "quick")):
                await reaches(slow, task_id, State.SETTLED)

                async def stopped() -> bool:
                    return task_id not in slow._running and task_id not in place.enclave.held

                await until(stopped)
                assert (slow.admission.used, slow.admission.running) == (0, 0)


async def test_a_run_that_passes_its_deadline_is_stopped_and_the_task_is_over_when_a_block_says_so(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        place.enclave.run_delay = FOREVER
        async with running(place) as worker:
            task_id, _, _ = await place.request(agreement, deadline=int(time.time()) + 3)
            await computes(worker, task_id)

            async def stopped() -> bool:
                return task_id not in place.enclave.held

            await until(stopped)
            assert (await row(worker, task_id)).state is State.SEEN  # no block has said so yet
            await place.rpc.call("anvil_mine", hex(1))
            task = await reaches(worker, task_id, State.EXPIRED)
            assert task.state is State.EXPIRED


async def test_a_task_that_cannot_end_before_its_deadline_is_not_begun(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        place.enclave.run_delay = 2.0
        async with running(place) as worker:
            first, _, _ = await place.request(agreement)
            await reaches(worker, first, State.SETTLED)
            asked = [broker.asked for broker in place.brokers]
            late, _, _ = await place.request(agreement, deadline=await chain_time(place) + 2)

            async def waits() -> bool:
                task = await worker._db(worker._db.journal.task, late)
                return task is not None and task.code == "task.late"

            await until(waits)
            await place.rpc.call("evm_increaseTime", 10)
            await place.rpc.call("anvil_mine", hex(1))
            await reaches(worker, late, State.EXPIRED)
        assert place.enclave.runs == 1
        assert [broker.asked for broker in place.brokers] == asked  # no release was spent on it


async def test_an_expiry_whose_block_is_reorganised_away_leaves_the_task_open(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        for broker in place.brokers:
            broker.mode = "refuse"
        async with running(place) as worker:
            task_id, _, _ = await place.request(agreement, deadline=await chain_time(place) + 60)
            before = await place.rpc.call("evm_snapshot")
            await place.rpc.call("evm_increaseTime", 100)
            await place.rpc.call("anvil_mine", hex(1))
            await reaches(worker, task_id, State.EXPIRED)
            await place.rpc.call("evm_revert", before)
            await place.rpc.call("anvil_mine", hex(1))
            for broker in place.brokers:
                broker.mode = "good"
            await reaches(worker, task_id, State.SETTLED)


async def test_a_wait_that_was_written_by_a_clock_that_is_set_back_by_now_is_cut_short(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        for broker in place.brokers:
            broker.mode = "refuse"
        async with running(place) as worker:
            task_id, _, _ = await place.request(agreement)

            async def tried() -> bool:
                task = await worker._db(worker._db.journal.task, task_id)
                return task is not None and task.attempts > 0

            await until(tried)
        journal = Journal(tmp_path / "worker.sqlite")
        journal.retry(task_id, time.time() + 10**8, "release.too_few", "by a clock that was three years ahead")
        journal.close()
        for broker in place.brokers:
            broker.mode = "good"
        async with running(place) as worker:
            await reaches(worker, task_id, State.SETTLED)


async def test_a_task_that_kills_the_worker_again_and_again_is_parked_and_its_neighbours_are_not(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        for broker in place.brokers:
            broker.mode = "refuse"
        async with running(place):
            tasks = [(await place.request(agreement))[0] for _ in range(3)]
            await asyncio.sleep(0.5)
        # What a process that died over them leaves.
        journal = Journal(tmp_path / "worker.sqlite")
        for times, task_id in zip((4, 2, 2), tasks, strict=True):
            for _ in range(times):
                journal.begin(task_id)
        journal.close()
        for broker in place.brokers:
            broker.mode = "good"
        async with running(place, maxCrashes=3) as worker:
            for task_id in tasks[1:]:
                await reaches(worker, task_id, State.SETTLED)
            parked = await reaches(worker, tasks[0], State.PARKED)
            assert (parked.code, worker.scheduler.bugs["task.crashes"]) == ("task.crashes", 1)
        async with running(place, maxCrashes=3) as worker:
            assert (await row(worker, tasks[0])).state is State.PARKED
            await worker._db(worker._db.journal.try_again, (State.PARKED,))
            await reaches(worker, tasks[0], State.SETTLED)


async def test_a_registration_that_a_reorganisation_removes_is_made_again(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        async with running(place) as worker:
            source = SingleSource(place.rpc)

            async def registered_in() -> list[int]:
                head = await source.confirmed(Confirmation.LATEST)
                found = await registered_enclaves(source, place.deployment, head, worker.hosts.all[0].signer)
                return [each.record.standing.block_number for each in found]

            (before,) = await registered_in()
            await place.rpc.call("anvil_reorg", 1, [])  # the registration is the newest transaction
            task_id, _, _ = await place.request(agreement)
            await reaches(worker, task_id, State.SETTLED)
            assert (await place.on_chain(task_id)).state is TaskState.FULFILLED
            assert (await registered_in())[0] > before


async def test_evidence_over_a_block_that_a_reorganisation_took_is_made_again(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        async with running(place):
            pass
        await place.rpc.call("anvil_mine", "0x3")
        async with running(place) as worker:  # the registration is good still, so evidence is all that is made
            enrolment = worker.hosts.all[0].enrolment

            async def enrolled() -> bool:
                return enrolment.known is not None

            await until(enrolled)
            assert enrolment.known is not None
            before = enrolment.known.evidence
            await place.rpc.call("anvil_reorg", 2, [])
            task_id, _, _ = await place.request(agreement)
            await reaches(worker, task_id, State.SETTLED)
        shown = [broker.evidence_block for broker in place.brokers if broker.evidence_block is not None]
        source = SingleSource(place.rpc)
        assert await source.block_by_hash(before.block_hash) is None
        assert shown
        assert [await source.block_by_hash(each) is not None for each in shown] == [True] * len(shown)


async def test_a_request_that_a_reorganisation_takes_and_brings_back_is_computed_once(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        place.enclave.run_delay = 1.5
        async with running(place) as worker:
            task_id, _, receipt = await place.request(agreement)
            raw = await place.rpc.call("eth_getRawTransactionByHash", "0x" + receipt.transaction_hash.hex())
            await computes(worker, task_id)
            await place.rpc.call("anvil_reorg", 1, [])
            await reaches(worker, task_id, State.ORPHANED)
            assert task_id in worker.pipeline.computing

            async def computed() -> bool:
                return place.enclave.runs == 1 and not worker._running

            await until(computed)
            # Nothing is posted for a request that is not there; what the enclave made is still there when it comes back.
            assert (await row(worker, task_id)).state is State.ORPHANED
            await place.rpc.call("eth_sendRawTransaction", raw)
            place.enclave.run_delay = 0.0
            await reaches(worker, task_id, State.SETTLED)
        assert max(broker.asked for broker in place.brokers) == 1


async def test_a_settlement_that_is_lost_before_its_log_was_read_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        async with running(place) as worker:
            following, lost = asyncio.Lock(), asyncio.Event()
            step, send, outcome = worker._follower.step, Settlements.send, Settlements.outcome

            async def follow() -> bool:
                async with following:
                    return await step()

            async def send_unfollowed(self: Settlements, task: Task) -> Task:
                if not lost.is_set():
                    await following.acquire()
                return await send(self, task)

            async def read_and_lose(self: Settlements, task: Task, patience: float) -> Receipt | None:
                receipt = await outcome(self, task, patience)
                if receipt is not None and not lost.is_set():
                    await place.rpc.call("evm_setAutomine", False)
                    await place.rpc.call("anvil_reorg", 1, [])
                    lost.set()
                return receipt

            monkeypatch.setattr(Settlements, "send", send_unfollowed)
            monkeypatch.setattr(Settlements, "outcome", read_and_lose)
            monkeypatch.setattr(worker._follower, "step", follow)
            task_id, _, _ = await place.request(agreement)
            await asyncio.wait_for(lost.wait(), 20)
            following.release()
            for _ in range(20):
                await asyncio.sleep(0.05)
                assert (await row(worker, task_id)).state is not State.SETTLED
            assert (await place.on_chain(task_id)).state is TaskState.REQUESTED
            await place.rpc.call("evm_setAutomine", True)
            await place.rpc.call("anvil_mine", "0x1")
            await reaches(worker, task_id, State.SETTLED)
            assert (await place.on_chain(task_id)).state is TaskState.FULFILLED


async def test_a_rolling_restart_of_two_workers_under_load_loses_no_task(tmp_path: Path) -> None:
    async with world(tmp_path) as place, second_enclave(place) as second:
        agreement = await activated(place)
        changes = {
            "a": {"turnSeconds": 1, **await operator(place, "a")},
            "b": {"turnSeconds": 1, "enclave": {"socket": str(second.socket)}, **await operator(place, "b")},
        }
        tasks: list[bytes] = []

        async def load() -> None:
            while True:
                tasks.append((await place.request(agreement))[0])
                await asyncio.sleep(0.05)

        async with running(place, "a", **changes["a"]) as survivor:
            asking = asyncio.create_task(load())
            for _ in range(2):
                async with running(place, "b", **changes["b"]):
                    await asyncio.sleep(1.0)
            async with running(place, "b", **changes["b"]) as other:
                survivor.stop()
                await asyncio.sleep(1.0)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                for task_id in tasks:
                    await reaches(other, task_id, State.SETTLED)
        assert len(tasks) > 10
        for task_id in tasks:
            assert (await place.on_chain(task_id)).state is TaskState.FULFILLED


async def test_a_task_for_more_memory_than_there_is_is_left_to_others(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        async with running(place, memoryMib=511) as worker:
            task_id, _, _ = await place.request(agreement)
            task = await reaches(worker, task_id, State.SKIPPED)
            assert task.code == "plan.memory"


async def test_no_more_tasks_are_in_the_enclave_than_there_is_memory_for(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        place.enclave.run_delay = 0.2
        most = 0
        async with running(place, memoryMib=1100, concurrency=8) as worker:
            tasks = [(await place.request(agreement))[0] for _ in range(6)]

            async def all_settled() -> bool:
                nonlocal most
                most = max(most, worker.admission.running)
                assert worker.admission.used <= 1100
                states = await worker._db(worker._db.journal.states, tasks)
                return list(states.values()) == [State.SETTLED] * len(tasks)

            await until(all_settled)
        assert most == 2  # of 512 MiB each


async def test_tasks_go_to_the_enclave_whose_measurement_their_agreement_names(tmp_path: Path) -> None:
    async with world(tmp_path) as place, second_enclave(place, launch_config=b"the next version") as newer:
        old = await activated(place)
        new = await place.agreement()
        new = new.model_copy(update={"tee": new.tee.model_copy(update={"measurements": (newer.measurement,)})})
        await place.activate(new)
        sockets = [{"socket": str(newer.socket)}, {"socket": str(place.enclave.socket)}]
        config = place.config()
        worker = Worker(
            config.model_copy(
                update={"enclaves": tuple(config.enclave.model_copy(update=each) for each in _paths(sockets))}
            )
        )
        serving = asyncio.create_task(worker.run())
        try:
            await asyncio.wait_for(worker.ready.wait(), 20)
            for agreement in (old, new, old, new, new):
                task_id, _, _ = await place.request(agreement)
                await reaches(worker, task_id, State.SETTLED)
            assert (place.enclave.runs, newer.runs) == (2, 3)
            # One of them going away stops no task of the other.
            await newer.stop()
            task_id, _, _ = await place.request(old)
            await reaches(worker, task_id, State.SETTLED)
        finally:
            worker.stop()
            await serving


def _paths(values: list[dict[str, str]]) -> list[dict[str, Path]]:
    return [{key: Path(value) for key, value in each.items()} for each in values]


async def test_a_loop_that_dies_by_a_bug_is_started_again_and_tasks_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        async with running(place) as worker:
            step, follower = worker._follower.step, worker._follower

            async def broken() -> bool:
                monkeypatch.setattr(follower, "step", step)
                raise ZeroDivisionError

            monkeypatch.setattr(follower, "step", broken)
            task_id, _, _ = await place.request(agreement)
            await reaches(worker, task_id, State.SETTLED)
            assert worker.loops.faults["follower"] == 1
            assert worker.loops.failing() == ()


async def test_a_worker_that_starts_while_the_chain_is_away_waits_for_it(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        port = free_port()
        worker = Worker(place.config(rpc=[f"http://127.0.0.1:{port}"]))
        serving = asyncio.create_task(worker.run())
        await asyncio.sleep(1.0)
        assert not serving.done()
        async with forwarded(port, place.rpc.url):
            await asyncio.wait_for(worker.ready.wait(), 20)
            task_id, _, _ = await place.request(agreement)
            await reaches(worker, task_id, State.SETTLED)
            worker.stop()
            await asyncio.wait_for(serving, 20)


async def test_a_worker_is_stopped_while_it_waits_for_the_chain(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        worker = Worker(place.config(rpc=[f"http://127.0.0.1:{free_port()}"]))
        serving = asyncio.create_task(worker.run())
        await asyncio.sleep(0.5)
        worker.stop()
        await asyncio.wait_for(serving, 5)


async def test_a_second_request_to_stop_does_not_wait_for_what_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        agreement = await activated(place)
        place.enclave.run_delay = FOREVER
        worker = Worker(place.config(drain=FOREVER))
        serving = asyncio.create_task(worker.run())
        await asyncio.wait_for(worker.ready.wait(), 20)
        task_id, _, _ = await place.request(agreement)
        await computes(worker, task_id)
        worker.stop()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(serving), 1)
        worker.stop_at_once()
        await asyncio.wait_for(serving, 10)
        journal = Journal(tmp_path / "worker.sqlite")
        assert [(task.id, task.state) for task in journal.tasks()] == [(task_id, State.SEEN)]
        assert journal.begun() == {}  # it was stopped, and killed nobody
        journal.close()


@asynccontextmanager
async def forwarded(port: int, url: str) -> AsyncIterator[None]:
    """A port that leads to `url`, while it is open."""
    target = urlsplit(url)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(copy(reader, downstream), copy(upstream, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
