"""Public outputs and batches of a running enclave: what it signs, and what no host gets it to sign."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol import signing
from enclave_app.protocol.abi_output import decode_row
from enclave_app.protocol.canonical import dump
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.structs import Agreement, Confirmation, Outcome, Output, OutputKind
from enclave_app.protocol.wire import BatchAnswer, BatchBody, TaskBody, TaskDone
from tests.enclave_kit import (
    CHAIN,
    MARKER,
    OWNER,
    Refusal,
    RunningEnclave,
    World,
    enclave,
    enclave_config,
    make_world,
    measured,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE_ROW = """
SELECT count(*) AS n, CAST(sum(a.x) AS DECIMAL(12, 3)) AS total, bool_and(a.x >= 0) AS sound, max(a.grp) AS last
FROM a JOIN b USING (id) WHERE a.x >= $least
"""
COLUMNS = ("int64", "decimal128(12, 3)", "bool", "string")
ANSWER = (99, Decimal("4950.000"), True, "red")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


def public(world: World, **changes: Any) -> Agreement:
    """The world's agreement with its one output public, or as `changes` make it."""
    fields: dict[str, Any] = {
        "name": "result",
        "kind": OutputKind.ABI_VALUES,
        "recipients": (),
        "owners": (OWNER,),
        "size_class": 1,
        **changes,
    }
    keys = world.agreement.keys.model_copy(update={"confirmation": Confirmation.FINALIZED})
    return world.changed(outputs=(Output(**fields),), keys=keys)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured())


@pytest.fixture
def open_world(tmp_path: Path) -> World:
    """One whose function gives one row."""
    return make_world(tmp_path / "open", measured(), sql=ONE_ROW)


async def test_a_public_output_is_one_row_of_abi_values(running: RunningEnclave, open_world: World) -> None:
    agreement = public(open_world)
    # R15: nothing is for the request's key, so that a contract, which has none, may ask.
    done = await running.whole(open_world, open_world.body(agreement, result_key=ZERO32))
    assert done.result.outcome == Outcome.SUCCEEDED
    digest = done.result.typed_digest(CHAIN.oracle_domain(agreement))
    signing.check(digest, done.signature, (await running.identity()).signer, "a result")
    (out,), (content,) = done.result.outputs, done.public_outputs
    assert decode_row(COLUMNS, content) == ANSWER
    assert (out.name, out.kind, out.length, out.digest) == ("result", 2, len(content), sha256(content))
    assert out.recipients_digest == recipients_digest((), ZERO32)
    assert done.outputs == ()


async def test_a_public_output_is_the_same_in_every_run(running: RunningEnclave, open_world: World) -> None:
    body, found = open_world.body(public(open_world)), []
    for _ in range(2):
        done = await running.whole(open_world, body)
        found.append((done.result, done.signature, done.public_outputs))
        await running.call("DELETE", f"/v1/tasks/{done.result.task_id.hex()}")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM a WHERE id < 0",
        "SELECT id FROM a WHERE id < 2",
        "SELECT max(id) AS m, NULL::INTEGER AS n FROM a",
        "SELECT max(x) AS m FROM a",
        "SELECT sum(x) AS s FROM a JOIN b USING (id)",
        "SELECT DATE 'infinity' AS d",
        "SELECT TIMESTAMP '-infinity' AS t",
        "SELECT 1::UHUGEINT AS u",
        "SELECT repeat('x', 70000) AS s",
    ],
    ids=["no row", "two rows", "null", "float", "sum", "infinite day", "infinite time", "uhugeint", "long"],
)
async def test_what_is_no_row_of_abi_values_is_the_functions_failure(
    running: RunningEnclave, tmp_path: Path, sql: str
) -> None:
    """R19: it would be on any machine, so it ends the task, and says nothing of why."""
    world = make_world(tmp_path / "other", measured(), sql=sql)
    done = await running.whole(world, world.body(public(world)))
    assert (done.result.outcome, done.result.outputs, done.public_outputs) == (Outcome.FAILED, (), ())


async def test_a_public_output_is_within_the_agreed_bytes(running: RunningEnclave, tmp_path: Path) -> None:
    """Four booleans are a byte of Arrow each at most, and 128 of ABI values."""
    for most, outcome in ((128, Outcome.SUCCEEDED), (127, Outcome.FAILED)):
        world = make_world(
            tmp_path / str(most),
            measured(),
            sql="SELECT true AS a, true AS b, false AS c, true AS d",
            limits={"output_bytes": most},
        )
        done = await running.whole(world, world.body(public(world)))
        assert (done.result.outcome, [len(c) for c in done.public_outputs]) == (
            outcome,
            [128] if outcome == Outcome.SUCCEEDED else [],
        )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kind": OutputKind.ARROW_TABLE}, "agreement.output_kind"),
        ({"recipients": (ZERO32,)}, "agreement.output_kind"),
        ({"size_class": 4096}, "agreement.size_class"),
    ],
)
async def test_an_agreement_about_half_a_public_output_is_refused(
    running: RunningEnclave, open_world: World, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        await running.start(open_world.body(public(open_world, **changes)))
    assert caught.value.code == code


async def test_a_public_output_without_finality_is_refused(running: RunningEnclave, open_world: World) -> None:
    agreement = public(open_world).model_copy(update={"keys": open_world.agreement.keys})
    with pytest.raises(Refusal) as caught:
        await running.start(open_world.body(agreement))
    assert caught.value.code == "agreement.confirmation"


# Batches


async def ask(running: RunningEnclave, *tasks: TaskDone | bytes) -> BatchAnswer:
    ids = tuple(task if isinstance(task, bytes) else task.result.task_id for task in tasks)
    return await running.ask("POST", "/v1/batches", BatchAnswer, BatchBody(tasks=ids))


async def refusal(running: RunningEnclave, *tasks: TaskDone | bytes) -> str:
    with pytest.raises(Refusal) as caught:
        await ask(running, *tasks)
    assert MARKER not in str(caught.value)
    return caught.value.code


async def run(running: RunningEnclave, world: World, agreement: Agreement | None = None, **request: Any) -> TaskDone:
    return await running.whole(world, world.body(agreement, **request))


async def test_one_signature_covers_the_results_in_the_order_asked_for(running: RunningEnclave, world: World) -> None:
    done = [await run(running, world) for _ in range(3)]
    domain = CHAIN.oracle_domain(world.agreement)
    for order in (done, done[::-1], done[:1]):
        answer = await ask(running, *order)
        batch = answer.batch
        assert batch.agreement_id == CHAIN.agreement_id(world.agreement)
        assert batch.tasks == tuple(each.result.task_id for each in order)
        assert batch.results == tuple(each.result.typed_digest(domain) for each in order)
        assert {(batch.payee, batch.anchor)} == {(each.result.payee, each.result.anchor) for each in order}
        signing.check(batch.typed_digest(domain), answer.signature, (await running.identity()).signer, "a batch")


async def test_asking_again_gives_the_same_signature(running: RunningEnclave, world: World) -> None:
    """A host that replays gets what it has."""
    done = [await run(running, world) for _ in range(2)]
    assert await ask(running, *done) == await ask(running, *done)


async def test_a_batch_of_nothing_or_of_a_task_twice_is_refused(running: RunningEnclave, world: World) -> None:
    done = await run(running, world)
    assert await refusal(running, done, done) == "batch.duplicate"
    with pytest.raises(Refusal) as caught:
        await running.call("POST", "/v1/batches", dump({"tasks": []}))
    assert caught.value.code == "document.invalid"
    too_many = [f"0x{n:064x}" for n in range(1025)]
    with pytest.raises(Refusal) as caught:
        await running.call("POST", "/v1/batches", dump({"tasks": too_many}))
    assert caught.value.code == "document.invalid"


async def test_only_what_ran_here_and_is_not_forgotten_is_in_a_batch(running: RunningEnclave, world: World) -> None:
    done = await run(running, world)
    assert await refusal(running, done, sha256(b"a task of nobody")) == "task.unknown"
    started = await running.start(world.body())
    assert await refusal(running, done, started.task_id) == "batch.unfinished"
    await running.call("DELETE", f"/v1/tasks/{done.result.task_id.hex()}")
    assert await refusal(running, done) == "task.unknown"


async def test_what_was_evicted_is_unknown_to_a_batch(tmp_path: Path) -> None:
    config = enclave_config(max_tasks=1)
    world = make_world(tmp_path / "storage", measured(config))
    async with enclave(tmp_path / "enclave", config=config) as running:
        done = [await run(running, world) for _ in range(2)]
        assert await refusal(running, done[0]) == "task.unknown"
        assert len((await ask(running, done[1])).batch.tasks) == 1


async def test_a_failure_is_in_no_batch(running: RunningEnclave, world: World) -> None:
    done, failed = await run(running, world), await run(running, world, params=b"{}")
    assert failed.result.outcome == Outcome.FAILED
    assert await refusal(running, done, failed) == "batch.failed"


async def test_a_public_output_is_in_no_batch(running: RunningEnclave, open_world: World) -> None:
    assert await refusal(running, await run(running, open_world, public(open_world))) == "batch.public"


async def test_a_task_that_calls_back_is_in_no_batch(running: RunningEnclave, world: World) -> None:
    done = await run(running, world)
    calling: dict[str, Any] = {"callback": OWNER, "callback_gas": 100_000}
    assert await refusal(running, done, await run(running, world, **calling)) == "batch.callback"


async def test_a_batch_is_of_one_agreement_one_payee_and_one_anchor(running: RunningEnclave, world: World) -> None:
    done = await run(running, world)
    other = await run(running, world, world.changed(salt=sha256(b"another")))
    assert await refusal(running, done, other) == "batch.agreement_id"

    async def with_body(agreement: Agreement, **changes: Any) -> TaskDone:
        body: TaskBody = world.body(agreement).model_copy(update=changes)
        return await running.whole(world, body)

    assert await refusal(running, done, await with_body(world.agreement, payee=OWNER)) == "batch.payee"
    two = sha256(b"another anchor")
    tee = world.agreement.tee.model_copy(update={"anchors": (*world.agreement.tee.anchors, two)})
    agreement = world.changed(tee=tee)
    first, second = await with_body(agreement), await with_body(agreement, anchor=two)
    assert await refusal(running, first, second) == "batch.anchor"
