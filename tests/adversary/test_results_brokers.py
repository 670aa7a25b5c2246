"""Lies about results, told to a broker that is asked to open an output (R15, R17).

Callers need no authentication, so this is anyone: the host, the gateway, a stranger who saw the settlement.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.release import OutputBody, recipients_digest
from enclave_app.protocol.signing import SigningKey
from oracle.keybroker import KeyBroker, open_broker
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Enclave, Scene
from tests.output_kit import Finished, finished, outputs_logged, released_by
from tests.rpc_kit import about, proxy, word

Change = Callable[[Finished], dict[str, Any]]
THIEF = SealingKey.generate()


broker, scene, world = fixtures.broker, fixtures.scene, fixtures.world


@pytest.fixture(autouse=True)
def nothing_leaves(tmp_path: Path, broker: KeyBroker, refused: Refused) -> Iterator[None]:
    """A broker logs before it answers: no entry, no answer."""
    refused.watch(released_by(tmp_path / "broker0"))
    yield
    assert outputs_logged(tmp_path / "broker0") == []


@pytest.fixture
async def task(scene: Scene, tmp_path: Path) -> Finished:
    """A settled task, whose output another process of the same broker opens for its reader."""
    task = await finished(scene)
    await task.settle()
    control = await open_broker(scene.config(scene.broker_directory(tmp_path / "control")))
    await control.outputs.output(task.body())
    await control.close()
    return task


def part(name: str, **changes: Any) -> Change:
    """One field of one structure of a good body."""

    def change(task: Finished) -> dict[str, Any]:
        return {name: getattr(task.body(), name).model_copy(update=changes)}

    return change


def said_of(**changes: Any) -> Change:
    """An enclave's statement about something else than this output's shares."""
    return lambda task: task.statement(**changes)


def told(what: str, rules: str, reason: str, change: Change) -> Any:
    return pytest.param(change, marks=lie("results", what, rules, reason), id=what)


ASKED = [
    told("its own key as a recipient", "R15", "output.recipient", lambda _: {"recipient": THIEF.public.wire}),
    told("bytes that are no key as a recipient", "R15", "hpke.public_key", lambda _: {"recipient": b"\x01"}),
    told("an output that the result does not have", "R17", "result.outputs", lambda _: {"output": 1}),
    told(
        "a result with one output more than was agreed",
        "R17",
        "result.outputs",
        lambda task: {"result": task.result.model_copy(update={"outputs": task.result.outputs * 2})},
    ),
    told("another manifest than was settled", "R17", "manifest.digest", lambda _: {"manifest": b"{}"}),
    told("another share list than an enclave signed", "R17", "shares.digest", lambda _: {"share_list": b"{}"}),
    told("a share list without a signature", "R17", "signature.length", lambda _: {"shares_signature": b""}),
    told(
        "a share list that its own key signed",
        "R17",
        "output.signer",
        lambda task: task.statement(SigningKey.generate()),
    ),
    told(
        "an enclave's word on shares under another agreement",
        "R17",
        "output.shares_task",
        said_of(agreement_id=bytes([1]) * 32),
    ),
    told("an enclave's word on shares of another task", "R17", "output.shares_task", said_of(task_id=bytes([1]) * 32)),
    told(
        "an enclave's word on shares of another output", "R17", "output.shares_output", said_of(output_id=bytes([1]) * 32)
    ),
    told("an enclave's word on another share list", "R17", "shares.digest", said_of(shares=bytes([1]) * 32)),
    told("a settlement on another chain", "R13", "chain.not_served", part("chain", chain_id=1)),
    told("a request under another agreement", "R13", "request.agreement", part("request", agreement_id=bytes(32))),
    told(
        "a request that names another reader",
        "R15",
        "result.task",
        part("request", result_key=THIEF.public.digest),
    ),
    told("a result of another agreement", "R17", "result.agreement", part("result", agreement_id=bytes(32))),
    told("a result of another task", "R17", "result.task", part("result", task_id=bytes(32))),
    told("a failure that has outputs", "R19", "result.outcome", part("result", outcome=2)),
    told(
        "another payee than was settled", "R20", "output.result", part("result", payee="0x" + "00" * 19 + "AA")
    ),
]  # fmt: skip


@pytest.mark.parametrize("change", ASKED)
async def test_one_thing_changed_opens_nothing(
    task: Finished, broker: KeyBroker, refused: Refused, change: Change
) -> None:
    changed = change(task)
    body: OutputBody = task.body(**changed)
    assert body != task.body()
    async with refused():
        await broker.outputs.output(body)


@lie("results", "an output of a task that is not settled", "R17", "output.not_settled")
async def test_nobody_reads_a_result_that_was_not_settled(scene: Scene, broker: KeyBroker, refused: Refused) -> None:
    task = await finished(scene)
    async with refused():
        await broker.outputs.output(task.body())


@lie("results", "an output of a task that was settled with another result", "R17", "output.result")
async def test_a_result_other_than_the_settled_one_opens_nothing(
    scene: Scene, broker: KeyBroker, refused: Refused
) -> None:
    task = await finished(scene)
    await task.settle(task.make_result(digest=secrets.token_bytes(32)))
    async with refused():
        await broker.outputs.output(task.body())


@lie("results", "an output of a task that ended in failure", "R17", "output.no_result")
async def test_a_task_that_failed_has_no_output(scene: Scene, broker: KeyBroker, refused: Refused) -> None:
    task = await finished(scene)
    await task.settle(task.make_result(outcome=2))
    async with refused():
        await broker.outputs.output(task.body())


@lie("results", "the shares of another task's output as this one's", "R10", "hpke.open")
async def test_another_outputs_shares_do_not_open(
    scene: Scene, task: Finished, broker: KeyBroker, refused: Refused
) -> None:
    other = await finished(scene)
    moved = other.shares.model_copy(update={"dataset": task.output.manifest.id})
    body = task.body(share_list=moved.canonical(), **task.statement(shares=moved.id))
    async with refused():
        await broker.outputs.output(body)


@lie("results", "shares that a registered enclave of another program signed", "R17", "output.signer")
async def test_a_share_list_of_another_program_opens_nothing(
    scene: Scene, task: Finished, broker: KeyBroker, refused: Refused
) -> None:
    other = Enclave(SoftwareAttester(scene.world.platform, SoftwareEnclave(secrets.token_bytes(32), b"{}")))
    await scene.register(evidence := await scene.evidence(other), other)
    signed = {**task.statement(other.signer), "enclave": scene.identity(evidence)}
    async with refused():
        await broker.outputs.output(task.body(**signed))


@lie("results", "shares that another program signed, shown as the agreed program's", "R3 R17", "output.signer")
async def test_a_share_list_of_another_program_shown_as_the_agreed_one_opens_nothing(
    scene: Scene, task: Finished, broker: KeyBroker, refused: Refused
) -> None:
    """The reader brings what is behind the registry's digest; it is not believed without it."""
    other = Enclave(SoftwareAttester(scene.world.platform, SoftwareEnclave(secrets.token_bytes(32), b"{}")))
    await scene.register(evidence := await scene.evidence(other), other)
    shown = scene.identity(evidence).model_copy(update={"measurement": scene.world.program.measurement})
    async with refused():
        await broker.outputs.output(task.body(**task.statement(other.signer), enclave=shown))


@lie("results", "the request's key for an output whose readers the agreement names", "R15", "output.recipient")
async def test_the_requests_key_does_not_read_for_named_recipients(
    scene: Scene, broker: KeyBroker, refused: Refused
) -> None:
    named = scene.agreement().outputs[0].model_copy(update={"recipients": (bytes([5]) * 32,)})
    task = await finished(scene, outputs=(named,))
    await task.settle()
    async with refused():
        await broker.outputs.output(task.body())


# An enclave that lies, as one whose hardware was broken would: it settles, and still reads nothing through honest brokers.


@lie("results", "a settled result that names its own key as the reader", "R15", "output.recipient")
async def test_recipients_come_from_the_agreement(scene: Scene, broker: KeyBroker, refused: Refused) -> None:
    task = await finished(scene)
    result = task.make_result(recipients_digest=recipients_digest([THIEF.public.digest], ZERO32))
    await task.settle(result)
    async with refused():
        await broker.outputs.output(task.body(result=result, recipient=THIEF.public.wire))


@lie("results", "a settled result with other recipients than agreed", "R15", "output.recipients")
async def test_a_result_for_other_recipients_is_opened_for_nobody(
    scene: Scene, broker: KeyBroker, refused: Refused
) -> None:
    task = await finished(scene)
    result = task.make_result(recipients_digest=recipients_digest([THIEF.public.digest], ZERO32))
    await task.settle(result)
    async with refused():
        await broker.outputs.output(task.body(result=result))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"name": "other"},
            marks=lie("results", "a settled output of another name than agreed", "R17", "output.name"),
            id="name",
        ),
        pytest.param(
            {"kind": 2},
            marks=lie("results", "a settled output of another kind than agreed", "R17", "output.name"),
            id="kind",
        ),
    ],
)
async def test_an_output_that_was_not_agreed_is_not_opened(
    scene: Scene, broker: KeyBroker, refused: Refused, changes: dict[str, Any]
) -> None:
    task = await finished(scene)
    result = task.make_result(**changes)
    await task.settle(result)
    async with refused():
        await broker.outputs.output(task.body(result=result))


@lie("results", "an owner's dataset as a settled output", "R17", "output.encryption")
async def test_a_dataset_does_not_open_as_an_output(scene: Scene, broker: KeyBroker, refused: Refused) -> None:
    task = await finished(scene)
    table = scene.world.sealed[0].manifest
    result = task.make_result(digest=table.id)
    await task.settle(result)
    body = task.body(result=result, manifest=table.canonical(), **task.statement(output_id=table.id))
    async with refused():
        await broker.outputs.output(body)


@lie("keys", "an output's shares of another threshold, under an enclave's word", "R10 R17", "shares.threshold")
async def test_an_output_is_shared_as_was_agreed(task: Finished, broker: KeyBroker, refused: Refused) -> None:
    listed = task.share_list(task.output, 3)
    body = task.body(share_list=listed.canonical(), **task.statement(shares=listed.id))
    async with refused():
        await broker.outputs.output(body)


@lie("consent", "a settled task of an agreement that the registry does not know", "R7 R17", "agreement.inactive")
async def test_an_output_needs_an_agreement_that_was_activated(
    scene: Scene, task: Finished, tmp_path: Path, refused: Refused
) -> None:
    """As on contracts of its own, where whoever wrote them settles what it likes."""
    directory = scene.broker_directory(tmp_path / "unknowing")
    refused.watch(released_by(directory))
    async with proxy(scene.world.url, about("AgreementRegistry", "status", word(0, 0))) as url:
        broker = await open_broker(scene.config(directory, [url]))
        async with refused():
            await broker.outputs.output(task.body())
        await broker.close()
