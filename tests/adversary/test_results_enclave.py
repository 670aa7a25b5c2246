"""Lies about results, told to a running enclave: a host that runs again for another result, or makes a run fail (R16, R19).

The host owns the storage, the clock, the processes and the network; it has the answers of all brokers in its hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from enclave_app.protocol.structs import Outcome, Result
from enclave_app.protocol.wire import TaskBody, TaskDone
from tests.adversary.lies import Refused, lie
from tests.enclave_kit import MARKER, RunningEnclave, World, enclave, make_world, measured

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAME = "the same bytes"
SLOW = "SELECT count(*) AS n FROM a, a AS b, a AS c, a AS d, a AS e WHERE a.x + b.x + c.x + d.x + e.x < 0"
HUNGRY = "SELECT a.grp || b.grp || c.grp AS x FROM a, a AS b, a AS c ORDER BY x"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured())


Made = tuple[Result, bytes, bytes]
"""What can be settled and read: the result, its output's manifest, and its ciphertext."""


async def made(running: RunningEnclave, done: TaskDone) -> Made:
    return done.result, done.outputs[0].manifest, await running.file(done)


async def again_at_once(running: RunningEnclave, world: World, body: TaskBody, first: TaskDone) -> Made:
    """Run once more, with other brokers' answers than it ran with."""
    started = await running.start(body)
    answers = world.answers(body, started, await running.identity(), (2, 1))
    done = await running.run(started.task_id, answers)
    assert done.used != first.used
    return await made(running, done)


async def in_another_order(running: RunningEnclave, world: World, body: TaskBody, first: TaskDone) -> Made:
    started = await running.start(body)
    answers = world.answers(body, started, await running.identity(), (2, 0, 1))
    return await made(running, await running.run(started.task_id, answers))


async def once_forgotten(running: RunningEnclave, world: World, body: TaskBody, first: TaskDone) -> Made:
    await running.call("DELETE", f"/v1/tasks/{first.result.task_id.hex()}")
    return await made(running, await running.whole(world, body))


async def for_another_payee(running: RunningEnclave, world: World, body: TaskBody, first: TaskDone) -> Made:
    """What the host may choose about a result does not reach the output."""
    theirs = body.model_copy(update={"payee": "0x" + "0f" * 20})
    result, manifest, ciphertext = await made(running, await running.whole(world, theirs))
    assert result.payee != first.result.payee
    return result.model_copy(update={"payee": first.result.payee}), manifest, ciphertext


async def after_a_restart(running: RunningEnclave, world: World, body: TaskBody, first: TaskDone) -> Made:
    """Another boot, another identity (R1), another machine under the same program."""
    async with enclave(world.storage.parent / "another") as other:
        assert (await other.identity()).signer != (await running.identity()).signer
        return await made(other, await other.whole(world, body))


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(
            again_at_once, marks=lie("results", "the same task again, with other brokers' shares", "R16", SAME)
        ),
        pytest.param(
            in_another_order, marks=lie("results", "the same task again, its answers in another order", "R16", SAME)
        ),
        pytest.param(
            once_forgotten, marks=lie("results", "the same task again, once the enclave forgot it", "R16", SAME)
        ),
        pytest.param(for_another_payee, marks=lie("results", "the same task again, for another payee", "R16", SAME)),
        pytest.param(
            after_a_restart, marks=lie("results", "the same task again, to another boot of the enclave", "R16", SAME)
        ),
    ],
)
async def test_running_again_gives_no_other_result(
    running: RunningEnclave,
    world: World,
    refused: Refused,
    again: Callable[[RunningEnclave, World, TaskBody, TaskDone], Awaitable[Made]],
) -> None:
    body = world.body()
    first = await running.whole(world, body)
    before = await made(running, first)
    assert before[0].outcome == Outcome.SUCCEEDED
    refused.as_reason(SAME if await again(running, world, body, first) == before else "another result")


# A failure that the host makes is never signed, and leaves the task to whoever does it.


Failing = Callable[[RunningEnclave, World, TaskBody], Awaitable[None]]


async def withheld_file(running: RunningEnclave, world: World, body: TaskBody) -> None:
    path = world.path(world.datasets[0].manifest.files[0].sha256)
    hidden = path.rename(path.with_suffix(".hidden"))
    try:
        await running.whole(world, body)
    finally:
        hidden.rename(path)


async def withheld_answers(running: RunningEnclave, world: World, body: TaskBody) -> None:
    started = await running.start(body)
    await running.run(started.task_id, world.answers(body, started, await running.identity(), (2,)))


async def forgotten_before_it_ran(running: RunningEnclave, world: World, body: TaskBody) -> None:
    started = await running.start(body)
    answers = world.answers(body, started, await running.identity())
    await running.call("DELETE", f"/v1/tasks/{started.task_id.hex()}")
    await running.run(started.task_id, answers)


async def killed_children(running: RunningEnclave, world: World, body: TaskBody) -> None:
    """Every process below the enclave's zygote, until the run has failed."""

    async def kill() -> None:
        while True:
            for zygote in children(running.process.pid):
                for child in children(zygote):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
            await asyncio.sleep(0.001)

    killing = asyncio.create_task(kill())
    try:
        await running.whole(world, body)
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                if int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(path.name))
    return found


async def signed(running: RunningEnclave) -> object:
    """How many results the enclave has signed, successes and failures."""
    return sum(1 for line in running.logged() if line["event"] == "task.done")


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(withheld_file, marks=lie("results", "no storage, to make a task fail", "R19", "blob.missing")),
        pytest.param(
            withheld_answers, marks=lie("results", "too few answers, to make a task fail", "R19", "release.too_few")
        ),
        pytest.param(
            forgotten_before_it_ran,
            marks=lie("results", "a task that it has dropped, to make it fail", "R19", "task.unknown"),
        ),
        pytest.param(killed_children, marks=lie("results", "a kill of the function's process", "R19", "run.crashed")),
    ],
)
async def test_a_failure_that_the_host_makes_ends_nothing(
    running: RunningEnclave, world: World, refused: Refused, fail: Failing
) -> None:
    body = world.body()

    async def signs() -> object:
        return await signed(running)

    refused.watch(signs)
    async with refused():
        await fail(running, world, body)
    # The task stands, and whoever does it right gets it done.
    assert (await running.whole(world, body)).result.outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("sql", "limits"),
    [
        pytest.param(
            SLOW,
            {"time_seconds": 1},
            marks=lie("results", "a machine too slow for the time limit", "R19", "run.time"),
            id="time",
        ),
        pytest.param(
            HUNGRY,
            {"memory_mib": 32, "output_rows": 1 << 40},
            marks=lie("results", "a machine too small for the function", "R19", "run.memory"),
            id="memory",
        ),
    ],
)
async def test_a_limit_that_the_machine_decides_is_no_outcome(
    running: RunningEnclave, tmp_path: Path, refused: Refused, sql: str, limits: dict[str, int]
) -> None:
    world = make_world(tmp_path / "other", measured(), sql=sql, limits=limits)

    async def left() -> object:
        return await signed(running), MARKER in running.log.read_text()

    refused.watch(left)
    async with refused():
        await running.whole(world, world.body())
