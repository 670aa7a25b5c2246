"""Lies about results that never come: a host and a requester who run and never settle, or take back what was released (R9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.onchain import pricing
from enclave_app.protocol.structs import TaskState
from oracle.chain.abi import load
from oracle.keybroker import KeyBroker
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import OPEN, Scene
from tests.output_kit import Finished, finished, released_by, releases_logged, standing

broker, scene, world = fixtures.broker, fixtures.scene, fixtures.world


async def send(task: Finished, function: str, sender: Any = None) -> None:
    """Move the task as anyone could who has its request."""
    parts = {"cancel": OPEN, "expire": pricing(task.agreement)}
    call = load("ComputeOracle").call(function, task.request, parts[function])
    await task.scene.transact(sender or task.scene.world.requester, task.agreement.oracle, call)


async def past_deadline(task: Finished) -> None:
    await task.scene.rpc.call("evm_setNextBlockTimestamp", task.request.deadline + 1)
    await task.scene.mine()


async def ask_again(task: Finished) -> None:
    await task.scene.request(task.agreement, result_key=task.request.result_key)


# Host and requester together: the keys were released, the enclave ran, and nothing is settled.


@pytest.fixture
async def colluding(scene: Scene, broker: KeyBroker, tmp_path: Path) -> Finished:
    """A task under a quota of one: released, run, past its deadline, and its fee taken back."""
    agreed = scene.agreement()
    access = agreed.access.model_copy(update={"quota": 1, "quota_per_requester": 1})
    tee = agreed.tee.model_copy(update={"max_evidence_age": 1 << 30})
    task = await finished(scene, access=access, tee=tee)
    await broker.releases.release(await task.release_body())
    assert len(releases_logged(tmp_path / "broker0")) == 1, "nothing to collude about"
    await past_deadline(task)
    await send(task, "expire")
    assert ((await task.on_chain()).state, await task.quota_used()) == (TaskState.EXPIRED, 1)
    return task


@lie("results", "an output that it computed and never settled, once the fee is back", "R9 R17", "output.no_result")
async def test_a_result_that_was_never_settled_stays_closed(
    colluding: Finished, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    refused.watch(standing(colluding))
    async with refused():
        await broker.outputs.output(colluding.body())


@lie("results", "another request for the run that it never settled", "R9", "AgreementRegistry_QuotaSpent")
async def test_quota_stays_spent_by_a_run_that_was_never_settled(colluding: Finished, refused: Refused) -> None:
    refused.watch(standing(colluding))
    async with refused():
        await ask_again(colluding)


@lie("results", "a result of a task that has expired", "R9", "ComputeOracle_NotRequested")
async def test_an_expired_task_is_not_settled_any_more(colluding: Finished, refused: Refused) -> None:
    refused.watch(standing(colluding))
    async with refused():
        await colluding.settle()


@lie("results", "a request for the keys of a task that has expired", "R9", "task.closed")
async def test_an_expired_task_is_not_released_any_more(
    colluding: Finished, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(await colluding.release_body())


@lie("results", "a request for keys when it is too late to settle", "R9", "task.deadline")
async def test_nothing_is_released_past_the_deadline(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    task = await finished(scene)
    await past_deadline(task)
    await scene.register(await scene.evidence())
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(await task.release_body())


@lie("results", "one more request than one requester may make", "R9", "AgreementRegistry_RequesterQuotaSpent")
async def test_a_requesters_own_quota_stays_spent_too(scene: Scene, refused: Refused) -> None:
    access = scene.agreement().access.model_copy(update={"quota": 2, "quota_per_requester": 1})
    task = await finished(scene, access=access)
    await past_deadline(task)
    await send(task, "expire")
    refused.watch(standing(task))
    async with refused():
        await ask_again(task)


# Taken back: a request cannot be had for nothing once a broker may have released.


def delayed(scene: Scene, blocks: int) -> Any:
    return scene.agreement().keys.model_copy(update={"release_delay": blocks})


@lie("results", "a cancel once the release delay has passed", "R9", "ComputeOracle_CancelClosed")
async def test_a_cancel_after_the_delay_is_refused(scene: Scene, refused: Refused) -> None:
    task = await finished(scene, keys=delayed(scene, 3))
    await scene.mine(3)
    refused.watch(standing(task))
    async with refused():
        await send(task, "cancel")


@lie("results", "a cancel where none was agreed", "R9", "ComputeOracle_CancelClosed")
async def test_no_delay_is_no_cancel(scene: Scene, refused: Refused) -> None:
    task = await finished(scene)
    refused.watch(standing(task))
    async with refused():
        await send(task, "cancel")


@lie("results", "a cancel of somebody else's request", "R9", "ComputeOracle_NotRequester")
async def test_nobody_else_takes_a_request_back(scene: Scene, refused: Refused) -> None:
    task = await finished(scene, keys=delayed(scene, 10))
    refused.watch(standing(task))
    async with refused():
        await send(task, "cancel", scene.world.operator)


@lie("results", "a cancel of a task that is settled", "R9", "ComputeOracle_NotRequested")
async def test_a_settled_task_is_not_taken_back(scene: Scene, refused: Refused) -> None:
    task = await finished(scene, keys=delayed(scene, 10))
    await task.settle()
    refused.watch(standing(task))
    async with refused():
        await send(task, "cancel")


@lie("results", "a request for keys while the task can be cancelled", "R9", "task.delay")
async def test_no_broker_releases_within_the_delay(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    task = await finished(scene, keys=delayed(scene, 3))
    await scene.mine(3)
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(await task.release_body())


@pytest.fixture
async def cancelled(scene: Scene) -> Finished:
    """In time, so the quota is back; and past the delay now."""
    task = await finished(scene, keys=delayed(scene, 3))
    assert await task.quota_used() == 1
    await send(task, "cancel")
    assert ((await task.on_chain()).state, await task.quota_used()) == (TaskState.CANCELLED, 0)
    await scene.mine(5)
    return task


@lie("results", "a request for keys of a task that was cancelled in time", "R9", "task.closed")
async def test_a_task_that_was_cancelled_in_time_is_never_released(
    cancelled: Finished, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(await cancelled.release_body())


@lie("results", "a result of a task that was cancelled in time", "R9", "ComputeOracle_NotRequested")
async def test_a_task_that_was_cancelled_in_time_is_never_settled(cancelled: Finished, refused: Refused) -> None:
    refused.watch(standing(cancelled))
    async with refused():
        await cancelled.settle()


@lie("results", "the end of a task whose deadline has not passed", "R19", "ComputeOracle_DeadlineNotPassed")
async def test_nobody_ends_a_task_before_its_deadline(scene: Scene, refused: Refused) -> None:
    task = await finished(scene)
    refused.watch(standing(task))
    async with refused():
        await send(task, "expire", scene.world.operator)
