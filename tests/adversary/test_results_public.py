"""Lies about what everyone may read, and about many results at once: told to the contract and to a broker (R17, R20)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from enclave_app.protocol.abi_output import encode_row
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.onchain import Fulfilment, settlement
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.structs import Batch, Confirmation, OutputKind, Result, TaskState
from oracle.chain.abi import load
from oracle.chain.sender import Receipt
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.keybroker import KeyBroker
from oracle.task import Task
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie, seen
from tests.broker_kit import Scene
from tests.output_kit import Finished, finished, released_by, standing
from tests.rpc_kit import proxy

CONTENT = encode_row(["int64", "bool"], [712, True])
THIEF = str(Account.create().address)
NOBODY = "ComputeOracle_UnknownEnclave"
"""What changed content of a signature is refused as: another key's address comes out of it, and no enclave has it."""

broker, scene, world = fixtures.broker, fixtures.scene, fixtures.world


def result_of(task: Finished, content: bytes = CONTENT) -> Result:
    """The result whose one output is `content`, for everyone."""
    return task.make_result(
        kind=OutputKind.ABI_VALUES,
        recipients_digest=recipients_digest((), ZERO32),
        length=len(content),
        digest=sha256(content),
    )


async def publish(task: Finished, result: Result, signature: bytes, contents: Sequence[bytes]) -> Receipt:
    done = Fulfilment(result=result, signature=signature, public_outputs=tuple(contents), request=())
    call = load("ComputeOracle").call("fulfil", settlement(task.agreement), task.scene.world.identity, done)
    return await task.scene.transact(task.scene.world.requester, task.agreement.oracle, call)


async def asked(scene: Scene) -> Finished:
    """A task whose agreement makes its output public."""
    base = scene.agreement()
    output = base.outputs[0].model_copy(update={"kind": OutputKind.ABI_VALUES, "recipients": (), "size_class": 1})
    keys = base.keys.model_copy(update={"confirmation": Confirmation.FINALIZED})
    return await finished(scene, outputs=(output,), keys=keys)


@pytest.fixture
async def task(scene: Scene) -> Finished:
    """Whose true result the contract takes, with what is published: tried, and taken back."""
    task = await asked(scene)
    before = await scene.rpc.call("evm_snapshot")
    result = result_of(task)
    await publish(task, result, task.sign(result), (CONTENT,))
    assert (await task.on_chain()).state is TaskState.FULFILLED
    await scene.rpc.call("evm_revert", before)
    return task


def told(what: str, rules: str, reason: str, *values: Any) -> Any:
    return pytest.param(*values, marks=lie("results", what, rules, reason), id=what)


@pytest.mark.parametrize(
    "contents",
    [
        told("a public output with one bit changed", "R17", "ComputeOracle_WrongPublicOutput",
             (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]),)),
        told("a public output with a byte more", "R17", "ComputeOracle_WrongPublicOutput", (CONTENT + b"\0",)),
        told("an empty public output", "R17", "ComputeOracle_WrongPublicOutput", (b"",)),
        told("no public output, to hide it", "R17", "ComputeOracle_WrongPublicOutputCount", ()),
        told("a public output twice", "R17", "ComputeOracle_WrongPublicOutputCount", (CONTENT, CONTENT)),
    ],
)  # fmt: skip
async def test_what_is_published_is_what_was_signed(
    task: Finished, refused: Refused, contents: tuple[bytes, ...]
) -> None:
    refused.watch(standing(task))
    result = result_of(task)
    async with refused():
        await publish(task, result, task.sign(result), contents)


@lie("results", "another public output and its digest under the enclave's signature", "R17", NOBODY)
async def test_another_public_output_is_another_result(task: Finished, refused: Refused) -> None:
    refused.watch(standing(task, [THIEF]))
    other = encode_row(["int64", "bool"], [850, True])
    async with refused():
        await publish(task, result_of(task, other), task.sign(result_of(task)), (other,))


@lie("results", "a public output beside a result that is sealed", "R17", "ComputeOracle_WrongPublicOutputCount")
async def test_nothing_is_published_beside_a_sealed_result(scene: Scene, refused: Refused) -> None:
    task = await finished(scene)
    refused.watch(standing(task))
    async with refused():
        await publish(task, task.result, task.sign(task.result), (CONTENT,))


# Brokers have nothing to do with public outputs.


@pytest.mark.parametrize(
    "change",
    [
        told("a public output, for its own key", "R17", "output.public",
             lambda _: {"recipient": SealingKey.generate().public.wire}),
        told("a public output, for the requester's key", "R17", "output.public", lambda _: {}),
        told("a public output, its content as the manifest", "R17", "output.public", lambda _: {"manifest": CONTENT}),
    ],
)  # fmt: skip
async def test_a_broker_has_no_share_of_a_public_output(
    task: Finished, broker: KeyBroker, refused: Refused, tmp_path: Any, change: Callable[[Finished], dict[str, Any]]
) -> None:
    result = result_of(task)
    await publish(task, result, task.sign(result), (CONTENT,))
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.outputs.output(task.body(**{"result": result, **change(task)}))


@lie("results", "a client another public output, through its RPC endpoint", "R17", "task.public_outputs")
async def test_a_client_takes_a_public_output_by_its_digest(task: Finished, refused: Refused, tmp_path: Path) -> None:
    result = result_of(task)
    await publish(task, result, task.sign(result), (CONTENT,))
    read: list[bytes] = []

    async def ask(url: str) -> None:
        config = ClientConfig(rpc=url, deployment=task.scene.world.deployment, storage=(tmp_path.as_uri(),), brokers={})
        async with Client(config) as client:
            read.append(await Task(client, task.task_id, task.agreement, task.request).public_output(patience=0.01))

    def another(call: dict[str, Any], said: Any) -> Any:
        if call["method"] != "eth_getLogs":
            return said
        return [{**log, "data": log["data"].replace(f"{712:064x}", f"{850:064x}")} for log in said]

    await ask(task.scene.world.url)
    assert read.pop() == CONTENT
    refused.watch(seen(lambda: list(read)))
    async with proxy(task.scene.world.url, another) as url, refused():
        await ask(url)


# Batches: the enclave signed one of two results, and the host sends something else with its signature.


@pytest.fixture
async def pair(scene: Scene) -> tuple[Finished, Finished]:
    """Two tasks of one agreement, whose batch the contract takes: tried, and taken back."""
    first = await finished(scene)
    made = await scene.request(first.agreement, result_key=first.reader.public.digest)
    second = Finished(scene, first.agreement, made, first.reader)
    before = await scene.rpc.call("evm_snapshot")
    batch = batch_of(first, second)
    await settle(first, batch, sign(first, batch))
    assert [(await each.on_chain()).state for each in (first, second)] == [TaskState.FULFILLED] * 2
    await scene.rpc.call("evm_revert", before)
    return first, second


def batch_of(*tasks: Finished) -> Batch:
    return Batch(
        agreement_id=tasks[0].agreement_id,
        payee=tasks[0].result.payee,
        anchor=tasks[0].result.anchor,
        tasks=tuple(each.task_id for each in tasks),
        results=tuple(each.result.typed_digest(each.domain) for each in tasks),
    )


def sign(task: Finished, batch: Batch) -> bytes:
    return task.scene.world.enclave.signer.sign(batch.typed_digest(task.domain))


async def settle(task: Finished, batch: Batch, signature: bytes) -> Receipt:
    call = load("ComputeOracle").call(
        "fulfilBatch", settlement(task.agreement), task.scene.world.identity, batch, signature
    )
    return await task.scene.transact(task.scene.world.requester, task.agreement.oracle, call)


Pair = tuple[Finished, Finished]


@pytest.mark.parametrize(
    "forge",
    [
        told("a batch with its own payee", "R20", NOBODY, lambda batch: {"payee": THIEF}),
        told("a batch with its results in another order", "R17", NOBODY, lambda batch: {"results": batch.results[::-1]}),
        told("a batch with one task left out", "R17", NOBODY,
             lambda batch: {"tasks": batch.tasks[:1], "results": batch.results[:1]}),
        told("a batch with another result in place of one", "R17", NOBODY,
             lambda batch: {"results": (batch.results[0], sha256(b"another"))}),
        told("a batch with a task more", "R17", NOBODY,
             lambda batch: {"tasks": (*batch.tasks, sha256(b"a")), "results": (*batch.results, sha256(b"b"))}),
        told("a batch with a result less than tasks", "R17", "ComputeOracle_WrongBatch",
             lambda batch: {"results": batch.results[:1]}),
        told("a batch under another anchor", "R4", NOBODY, lambda batch: {"anchor": sha256(b"another root")}),
        told("a batch of another agreement's", "R7", "ComputeOracle_WrongSettlement",
             lambda batch: {"agreement_id": sha256(b"another agreement")}),
    ],
)  # fmt: skip
async def test_a_changed_batch_is_nobodys(
    pair: Pair, refused: Refused, forge: Callable[[Batch], dict[str, Any]]
) -> None:
    first, second = pair
    refused.watch(standing(first, [THIEF]))
    refused.watch(standing(second))
    batch = batch_of(*pair)
    async with refused():
        await settle(first, batch.model_copy(update=forge(batch)), sign(first, batch))


@lie("results", "a single result's signature as a batch's", "R17", NOBODY)
async def test_a_results_signature_is_no_batchs(pair: Pair, refused: Refused) -> None:
    first, _ = pair
    refused.watch(standing(first))
    async with refused():
        await settle(first, batch_of(first), first.sign(first.result))


@lie("results", "a batch once more, to be paid twice", "R20", "ComputeOracle_NothingToSettle")
async def test_a_replayed_batch_pays_nobody_twice(pair: Pair, refused: Refused) -> None:
    first, second = pair
    batch = batch_of(*pair)
    await settle(first, batch, sign(first, batch))
    refused.watch(standing(first))
    refused.watch(standing(second))
    async with refused():
        await settle(first, batch, sign(first, batch))


@lie("results", "a batch that has a task of another result by now", "R17", "ignored")
async def test_a_batch_changes_nothing_that_was_settled(pair: Pair, refused: Refused) -> None:
    """The other task is settled; this one keeps the result, and the payee, that it has."""
    first, second = pair
    await first.settle(first.result.model_copy(update={"payee": THIEF}))
    refused.watch(first.on_chain)
    batch = batch_of(*pair)
    async with refused.ignored():
        await settle(first, batch, sign(first, batch))
        assert (await second.on_chain()).state is TaskState.FULFILLED
