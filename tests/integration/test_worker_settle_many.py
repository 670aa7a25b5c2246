"""Many tasks settled in one transaction, and a batch by one signature, against the real contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.storage import record_name
from enclave_app.protocol.structs import ANYONE, Access, Agreement, Confirmation, Output, OutputKind, TaskState
from oracle.chain.abi import load
from oracle.chain.events import TaskSettled, logs_of_receipt
from oracle.chain.rpc import as_int
from oracle.chain.sender import Receipt
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.errors import OracleError, Refused, Reverted
from oracle.storage import FileStorage
from oracle.worker.settle import GAS_FIRST, Sent, Settler
from tests.settle_kit import CONTENT, batch_of, record, register, settler
from tests.worker_kit import World, world

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUOTA = Access(requesters=ANYONE, quota=10_000, quota_per_requester=10_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("world")) as found:
        await register(found)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sealed(place: World) -> Agreement:
    agreement = await place.agreement(access=QUOTA)
    await place.activate(agreement)
    return agreement


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def public(place: World) -> Agreement:
    """An agreement whose output is public."""
    base = await place.agreement(access=QUOTA)
    (output,) = base.outputs
    opened = Output(name=output.name, kind=OutputKind.ABI_VALUES, recipients=(), owners=output.owners, size_class=1)
    keys = base.keys.model_copy(update={"confirmation": Confirmation.FINALIZED, "confirm_blocks": 0})
    agreement = base.model_copy(update={"outputs": (opened,), "keys": keys})
    await place.activate(agreement)
    return agreement


async def ran(place: World, agreement: Agreement, count: int, **changes: Any) -> list[TaskRecord]:
    """Tasks that stand, with the results of an enclave that ran them."""
    asked = [await place.request(agreement) for _ in range(count)]
    return [record(place, agreement, task_id, request, **changes) for task_id, request, _ in asked]


def ids(records: Sequence[TaskRecord]) -> tuple[bytes, ...]:
    return tuple(each.result.task_id for each in records)


async def mined(settling: Settler, sent: Sent) -> Receipt:
    receipt = await settling.wait(sent.hash, 10)
    assert receipt is not None
    assert receipt.ok
    return receipt


async def settled(place: World, records: Sequence[TaskRecord]) -> bool:
    """Whether the chain has each with this very result."""
    for each in records:
        found = await place.on_chain(each.result.task_id)
        digest = each.result.typed_digest(each.chain.oracle_domain(each.agreement))
        state = TaskState.FULFILLED if each.result.outputs else TaskState.FAILED
        if found.state is not state or not found.settled_with(digest):
            return False
    return True


async def sent_by(place: World) -> int:
    return as_int(await place.rpc.call("eth_getTransactionCount", place.wallet.address, "latest"))


def events(receipt: Receipt, name: str) -> list[dict[str, Any]]:
    """The fields of each event of that name, in order."""
    found = [load("ComputeOracle").event(log) for log in logs_of_receipt(receipt.raw)]
    return [each[1] for each in found if each is not None and each[0] == name]


async def test_many_are_settled_in_one_transaction(place: World, sealed: Agreement) -> None:
    records, settling = await ran(place, sealed, 5), settler(place)
    (sent,) = await settling.send_many(records)
    await mined(settling, sent)
    assert sent.tasks == ids(records)
    assert await settled(place, records)


async def test_one_that_somebody_settled_before_is_left_out(place: World, sealed: Agreement) -> None:
    records, settling = await ran(place, sealed, 3), settler(place)
    theirs = record(place, sealed, records[1].result.task_id, records[1].request, payee="0x" + "0f" * 20)
    await settling.wait(await settling.send(theirs), 10)
    (sent,) = await settling.send_many(records)
    await mined(settling, sent)
    assert await settled(place, [records[0], theirs, records[2]])


async def test_nothing_is_sent_where_nothing_is_left_to_settle(place: World, sealed: Agreement) -> None:
    records, settling = await ran(place, sealed, 2), settler(place)
    (sent,) = await settling.send_many(records)
    await mined(settling, sent)
    before = await sent_by(place)
    assert await settling.send_many(records) == ()
    assert await settling.send_batch(records, *signed(place, records)) is None
    assert await settling.send_many([]) == ()
    assert await sent_by(place) == before


async def test_a_failure_and_a_success_are_settled_together(place: World, sealed: Agreement) -> None:
    records, settling = await ran(place, sealed, 2), settler(place)
    records += await ran(place, sealed, 2, outcome=2, outputs=())
    (sent,) = await settling.send_many(records)
    await mined(settling, sent)
    assert await settled(place, records)


async def test_public_outputs_are_published_by_the_settlement(place: World, public: Agreement) -> None:
    records, settling = await ran(place, public, 3), settler(place)
    receipt = await settling.wait(await settling.send(records[0]), 10)
    assert receipt is not None
    assert [each["outputs"] for each in events(receipt, "PublicOutputs")] == [(CONTENT,)]
    (sent,) = await settling.send_many(records[1:])
    found = events(await mined(settling, sent), "PublicOutputs")
    assert [(each["taskId"], each["outputs"]) for each in found] == [(task, (CONTENT,)) for task in ids(records[1:])]
    assert await settled(place, records)


@pytest.mark.parametrize("changed", [(CONTENT[:-1] + b"\2",), (), (CONTENT, CONTENT)])
async def test_other_public_outputs_than_were_signed_cost_nothing(
    place: World, public: Agreement, changed: tuple[bytes, ...]
) -> None:
    good, bad = await ran(place, public, 2)
    before, settling = await sent_by(place), settler(place)
    with pytest.raises(Reverted) as refused:
        await settling.send_many([good, bad.model_copy(update={"public_outputs": changed})])
    assert refused.value.name in ("ComputeOracle_WrongPublicOutput", "ComputeOracle_WrongPublicOutputCount")
    assert await sent_by(place) == before


async def test_results_of_two_agreements_are_not_settled_together(
    place: World, sealed: Agreement, public: Agreement
) -> None:
    records = [*await ran(place, sealed, 1), *await ran(place, public, 1)]
    with pytest.raises(Refused) as refused:
        await settler(place).send_many(records)
    assert refused.value.code == "settle.mixed"


@pytest.mark.parametrize(("most", "transactions"), [(GAS_FIRST + 250_000, 3), (350_000, 6)])
async def test_no_transaction_has_more_gas_than_it_may(
    place: World, sealed: Agreement, most: int, transactions: int
) -> None:
    records, settling = await ran(place, sealed, 6), settler(place, transaction_gas=most)
    sent = await settling.send_many(records)
    assert len(sent) == transactions
    assert tuple(task for each in sent for task in each.tasks) == ids(records)
    for each in sent:
        await mined(settling, each)
        transaction = await place.rpc.call("eth_getTransactionByHash", "0x" + each.hash.hex())
        assert as_int(transaction["gas"]) <= most
    assert await settled(place, records)


# Batches


def signed(place: World, records: Sequence[TaskRecord], signer: SigningKey | None = None) -> tuple[Any, bytes]:
    answer = batch_of(place, records, signer)
    return answer.batch, answer.signature


async def test_a_batch_settles_each_with_its_own_result(place: World, sealed: Agreement) -> None:
    records, settling = await ran(place, sealed, 4), settler(place)
    sent = await settling.send_batch(records, *signed(place, records))
    assert sent is not None
    receipt = await mined(settling, sent)
    assert sent.tasks == ids(records)
    assert await settled(place, records)
    told = events(receipt, "TaskFulfilledInBatch")
    assert [each["taskId"] for each in told] == list(ids(records))
    (whole,) = events(receipt, "BatchFulfilled")
    assert (whole["count"], whole["payee"]) == (4, records[0].result.payee)


async def read_back(place: World, storage: Path, task_id: bytes, left: TaskRecord | None) -> TaskSettled:
    """What a client says of the settlement, with that record of the task in storage."""
    if left is not None:
        await FileStorage(storage).put_named(record_name(task_id), left.canonical())
    config = ClientConfig(rpc=place.rpc.url, deployment=place.deployment, storage=(storage.as_uri(),), brokers={})
    async with Client(config) as client:
        return await (await client.task(task_id)).settlement()


async def test_a_batch_s_result_is_read_where_its_worker_left_it(
    place: World, sealed: Agreement, tmp_path: Path
) -> None:
    records = await ran(place, sealed, 2)
    sent = await settler(place).send_batch(records, *signed(place, records))
    assert sent is not None
    await mined(settler(place), sent)
    for each in records:
        found = await read_back(place, tmp_path, each.result.task_id, each)
        assert (found.result, found.signature, found.signer) == (each.result, each.signature, each.signer)
        assert found.result_digest == each.result.typed_digest(each.chain.oracle_domain(each.agreement))
        assert (found.task_id, found.agreement_id) == (each.result.task_id, each.result.agreement_id)


async def test_a_batch_s_result_is_taken_by_what_the_chain_keeps_of_it(
    place: World, sealed: Agreement, tmp_path: Path
) -> None:
    """Storage is untrusted: a record of its own signature and result each, and the chain has the digest alone."""
    first, second = records = await ran(place, sealed, 2)
    sent = await settler(place).send_batch(records, *signed(place, records))
    assert sent is not None
    await mined(settler(place), sent)
    task_id, theirs = first.result.task_id, "0x" + "0f" * 20
    left: dict[str, TaskRecord | None] = {
        "blob.missing": None,
        "task.result_digest": record(place, sealed, task_id, first.request, payee=theirs),
        "signature.signer": first.model_copy(update={"signature": second.signature}),
    }
    for code, changed in left.items():
        with pytest.raises(OracleError) as refused:
            await read_back(place, tmp_path, task_id, changed)
        assert refused.value.code == code
    assert (await read_back(place, tmp_path, task_id, first)).result == first.result


async def test_a_batch_leaves_out_what_was_settled_before(place: World, sealed: Agreement) -> None:
    records, settling = await ran(place, sealed, 3), settler(place)
    theirs = record(place, sealed, records[0].result.task_id, records[0].request, payee="0x" + "0f" * 20)
    await settling.wait(await settling.send(theirs), 10)
    sent = await settling.send_batch(records, *signed(place, records))
    assert sent is not None
    (whole,) = events(await mined(settling, sent), "BatchFulfilled")
    assert whole["count"] == 2
    assert await settled(place, [theirs, *records[1:]])


async def test_a_batch_of_other_results_is_not_sent(place: World, sealed: Agreement) -> None:
    """Receipts are of the results that the worker holds: a batch of others would leave them worthless."""
    records = await ran(place, sealed, 2)
    batch, signature = signed(place, records)
    for other in (records[::-1], records[:1], [*records, records[0]]):
        with pytest.raises(Refused) as refused:
            await settler(place).send_batch(other, batch, signature)
        assert refused.value.code == "settle.batch"


async def test_a_batch_too_large_for_a_transaction_is_not_sent(place: World, sealed: Agreement) -> None:
    records = await ran(place, sealed, 3)
    before = await sent_by(place)
    with pytest.raises(Refused) as refused:
        await settler(place, transaction_gas=100_000).send_batch(records, *signed(place, records))
    assert refused.value.code == "settle.gas"
    assert await sent_by(place) == before


async def test_a_batch_that_no_registered_enclave_signed_is_refused_before_sending(
    place: World, sealed: Agreement
) -> None:
    records = await ran(place, sealed, 2)
    before = await sent_by(place)
    with pytest.raises(Reverted) as refused:
        await settler(place).send_batch(records, *signed(place, records, SigningKey.generate()))
    assert refused.value.name == "ComputeOracle_UnknownEnclave"
    assert await sent_by(place) == before
