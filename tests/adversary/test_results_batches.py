"""Lies about what ran, told to an enclave that is asked to sign for many results at once (R17, R19, R20).

The host sends any list of ids, in any order, as often as it likes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.structs import Confirmation, Outcome, OutputKind
from enclave_app.protocol.wire import BatchAnswer, BatchBody, TaskDone
from tests.adversary.lies import Refused, lie
from tests.enclave_kit import OWNER, RunningEnclave, World, enclave, make_world, measured

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE_ROW = "SELECT count(*) AS n FROM a WHERE x >= $least"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured(), sql=ONE_ROW)


async def ask(running: RunningEnclave, *tasks: bytes) -> BatchAnswer:
    return await running.ask("POST", "/v1/batches", BatchAnswer, BatchBody(tasks=tasks))


async def run(running: RunningEnclave, world: World, **request: Any) -> TaskDone:
    return await running.whole(world, world.body(**request))


Slip = Callable[[RunningEnclave, World], Awaitable[bytes]]
"""Gives the id of a task that does not belong into the batch."""


async def failed(running: RunningEnclave, world: World) -> bytes:
    done = await run(running, world, params=b"{}")
    assert done.result.outcome == Outcome.FAILED
    return done.result.task_id


async def public(running: RunningEnclave, world: World) -> bytes:
    output = world.agreement.outputs[0].model_copy(
        update={"kind": OutputKind.ABI_VALUES, "recipients": (), "size_class": 1}
    )
    keys = world.agreement.keys.model_copy(update={"confirmation": Confirmation.FINALIZED})
    done = await running.whole(world, world.body(world.changed(outputs=(output,), keys=keys)))
    assert done.public_outputs
    return done.result.task_id


async def calling(running: RunningEnclave, world: World) -> bytes:
    return (await run(running, world, callback=OWNER, callback_gas=100_000)).result.task_id


async def not_run(running: RunningEnclave, world: World) -> bytes:
    return (await running.start(world.body())).task_id


async def forgotten(running: RunningEnclave, world: World) -> bytes:
    task_id = (await run(running, world)).result.task_id
    await running.call("DELETE", f"/v1/tasks/0x{task_id.hex()}")
    return task_id


async def made_up(running: RunningEnclave, world: World) -> bytes:
    return sha256(b"a task that nobody asked for")


async def of_another_agreement(running: RunningEnclave, world: World) -> bytes:
    other = world.changed(salt=sha256(b"another"))
    return (await running.whole(world, world.body(other))).result.task_id


async def for_another_payee(running: RunningEnclave, world: World) -> bytes:
    body = world.body().model_copy(update={"payee": OWNER})
    return (await running.whole(world, body)).result.task_id


def told(what: str, rules: str, reason: str, slip: Slip) -> Any:
    return pytest.param(slip, marks=lie("results", what, rules, reason), id=what)


SLIPS = [
    told("a failed task into a batch", "R19", "batch.failed", failed),
    told("a task that calls back into a batch", "R20", "batch.callback", calling),
    told("a task that has not run into a batch", "R17", "batch.unfinished", not_run),
    told("a task that it made forget into a batch", "R17", "task.unknown", forgotten),
    told("a task that it made up into a batch", "R17", "task.unknown", made_up),
    told("a task of another agreement into a batch", "R7", "batch.agreement_id", of_another_agreement),
    told("a task for another payee into a batch", "R20", "batch.payee", for_another_payee),
]


@pytest.mark.parametrize("slip", SLIPS)
async def test_a_batch_holds_what_may_be_settled_together(
    running: RunningEnclave, world: World, refused: Refused, slip: Slip
) -> None:
    good = (await run(running, world)).result.task_id
    wrong = await slip(running, world)
    assert (await ask(running, good)).batch.tasks == (good,)

    async def signed() -> object:
        return [line for line in running.logged() if line["event"] == "batch.signed"]

    refused.watch(signed)
    async with refused():
        await ask(running, good, wrong)


@lie("results", "a task with a public output as a batch", "R17", "batch.public")
async def test_a_public_output_is_never_settled_unseen(running: RunningEnclave, world: World, refused: Refused) -> None:
    """The contract would settle it, and publish nothing."""
    task = await public(running, world)
    refused.watch(running.footprint)
    async with refused():
        await ask(running, task)


@lie("results", "a task twice into a batch", "R20", "batch.duplicate")
async def test_a_batch_has_a_task_once(running: RunningEnclave, world: World, refused: Refused) -> None:
    good = (await run(running, world)).result.task_id
    refused.watch(running.footprint)
    async with refused():
        await ask(running, good, good)


@lie("results", "the same batch again, for another signature", "R16", "the same bytes")
async def test_a_batch_asked_for_again_is_the_same(running: RunningEnclave, world: World, refused: Refused) -> None:
    tasks = [(await run(running, world)).result.task_id for _ in range(2)]
    first = await ask(running, *tasks)
    refused.as_reason("the same bytes" if await ask(running, *tasks) == first else "another batch")
