"""Lies about the chain, told to a client or a worker by the one RPC endpoint that it has.

Neither is trusted with what it could lose: a client's readings are checked against digests, signatures and brokers who look
for themselves; a worker can only waste its own time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Result, TaskState
from oracle.chain.rpc import as_int
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.worker.daemon import Worker
from oracle.worker.journal import Journal
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Scene
from tests.output_kit import Finished, released_by
from tests.reader_kit import Reader, encoded, reading, record_of
from tests.rpc_kit import Forgery, about, proxy, retold, together, truth, words
from tests.worker_kit import until
from tests.worker_kit import world as worker_world

LIAR = SigningKey.generate()


scene, world = fixtures.scene, fixtures.world


@pytest.fixture
async def reader(scene: Scene, tmp_path: Path, refused: Refused) -> AsyncIterator[Reader]:
    """A settled task, whose reader has opened its output; through a proxy, too, while that tells the truth."""
    async with reading(scene, tmp_path) as found:
        async with proxy(scene.world.url, truth) as honest:
            await found.open(honest)
        found.opened.clear()
        refused.watch(found.footprint)
        yield found


# Settlements that were not.


def settlement(task: Finished, result: Result, signature: bytes, signer: str | None = None) -> Forgery:
    """The log and the state of the same task's settlement with another result."""
    digest = result.typed_digest(task.domain)
    topics = {} if signer is None else {3: bytes(12) + bytes.fromhex(signer[2:])}
    state = words(result.outcome + 1, 0, 0, 0, 0, digest[:31] + b"\x00", 0)
    log = retold(
        "ComputeOracle", "TaskFulfilled", topics, resultDigest=digest, result=result.to_abi(), signature=signature
    )
    return together(about("ComputeOracle", "task", state), log)


@lie("chain view", "a result in the log that is not the one the contract keeps", "R17", "task.result_digest")
async def test_the_logs_result_is_the_contracts(reader: Reader, refused: Refused) -> None:
    other = reader.task.make_result(length=8192)
    forged = retold("ComputeOracle", "TaskFulfilled", result=other.to_abi(), signature=reader.task.sign(other))
    async with proxy(reader.task.scene.world.url, forged) as liar, refused():
        await reader.open(liar)


@lie("chain view", "a settled result that its enclave did not sign", "R17", "signature.signer")
async def test_a_settlement_is_signed_by_whom_it_names(reader: Reader, refused: Refused) -> None:
    forged = retold("ComputeOracle", "TaskFulfilled", signature=reader.task.sign(reader.task.result, LIAR))
    async with proxy(reader.task.scene.world.url, forged) as liar, refused():
        await reader.open(liar)


@lie("chain view", "a settled task without the log of its settlement", "R17", "task.no_log")
async def test_a_settlement_that_is_hidden_opens_nothing(reader: Reader, refused: Refused) -> None:
    def hidden(call: dict[str, Any], result: Any) -> Any:
        return [] if call["method"] == "eth_getLogs" else result

    async with proxy(reader.task.scene.world.url, hidden) as liar, refused():
        await reader.open(liar)


@lie("chain view", "a settlement from end to end, with an output of its own in storage", "R13 R17", "output.shares")
async def test_an_invented_settlement_opens_nothing_through_honest_brokers(reader: Reader, refused: Refused) -> None:
    """Its log, its state, its signature, its manifest and its ciphertext fit each other; the brokers saw another."""
    task = reader.task
    mine = Finished(task.scene, task.agreement, task.request, task.reader, encoded(pa.table({"n": [666]})))
    reader.put(await record_of(mine))
    reader.put_file(mine.output.ciphertext)
    forged = settlement(task, mine.result, mine.sign(mine.result, LIAR), LIAR.address)
    async with proxy(task.scene.world.url, forged) as liar, refused():
        await reader.open(liar)


@lie("chain view", "a settlement that has no output", "R17", "task.outputs")
async def test_a_settlement_without_the_agreed_outputs_is_refused(reader: Reader, refused: Refused) -> None:
    task = reader.task
    empty = task.result.model_copy(update={"outputs": ()})
    async with proxy(task.scene.world.url, settlement(task, empty, task.sign(empty))) as liar, refused():
        await reader.open(liar)


@lie("chain view", "a settlement of a task that was not settled", "R17", "output.shares")
async def test_an_unsettled_output_stays_closed_whatever_the_client_is_told(
    reader: Reader, tmp_path: Path, refused: Refused
) -> None:
    """The host has stored all that the true worker would; only the settlement is missing."""
    settled, scene = reader.task, reader.task.scene
    request = await scene.request(settled.agreement, result_key=settled.reader.public.digest)
    reader.task = task = Finished(scene, settled.agreement, request, settled.reader)
    reader.put(await record_of(task))
    reader.put_file(task.output.ciphertext)
    digest = task.result.typed_digest(task.domain)
    told = retold(
        "ComputeOracle",
        "TaskFulfilled",
        {1: task.task_id},
        resultDigest=digest,
        result=task.result.to_abi(),
        signature=task.sign(task.result),
    )

    def about_the_other(call: Any) -> None:
        if call["method"] == "eth_getLogs":
            call["params"][0]["topics"][1] = ["0x" + settled.task_id.hex()]

    forged = together(about("ComputeOracle", "task", words(2, 0, 0, 0, 0, digest[:31] + b"\x00", 0)), told)
    refused.watch(released_by(tmp_path / "broker0", tmp_path / "broker1"))
    async with proxy(scene.world.url, forged, ask=about_the_other) as liar, refused():
        await reader.open(liar)


# Agreements and tasks that are not.


@lie("chain view", "the node of another chain", "R13", "chain.id")
async def test_a_client_refuses_another_chain(reader: Reader, refused: Refused) -> None:
    def elsewhere(call: dict[str, Any], result: Any) -> Any:
        return "0x5" if call["method"] == "eth_chainId" else result

    async with proxy(reader.task.scene.world.url, elsewhere) as liar, refused():
        await reader.open(liar)


@lie("chain view", "other terms under an agreement's id", "R7", "agreement.unknown")
async def test_an_agreements_id_is_its_terms(reader: Reader, refused: Refused) -> None:
    task = reader.task
    terms = task.agreement.model_copy(update={"salt": ZERO32[:31] + b"\x01"})
    forged = retold("AgreementRegistry", "AgreementActivated", agreement=terms.to_abi())
    async with proxy(task.scene.world.url, forged) as liar, reader.client(liar) as client, refused():
        await client.agreement(task.agreement_id)


@lie("chain view", "another request under a task's id", "R13", "task.unknown")
async def test_a_tasks_id_is_its_request(reader: Reader, refused: Refused) -> None:
    task = reader.task
    other = task.request.model_copy(update={"params": b'{"least":1}'})
    forged = retold("ComputeOracle", "TaskRequested", request=other.to_abi())
    async with proxy(task.scene.world.url, forged) as liar, reader.client(liar) as client, refused():
        await client.task(task.task_id)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(
            "oracle",
            marks=lie("chain view", "an agreement on an oracle contract of its own", "R7", "agreement.contracts"),
        ),
        pytest.param(
            "enclave_registry",
            marks=lie("chain view", "an agreement on an enclave registry of its own", "R7", "agreement.contracts"),
        ),
    ],
)
async def test_no_fee_goes_to_a_contract_of_the_agreements_makers(tmp_path: Path, refused: Refused, part: str) -> None:
    """Who activates an agreement chooses its contracts; a requester signed none of it."""
    async with worker_world(tmp_path) as place:
        theirs = place.deployment.verifiers["dcap"]
        agreement_id = await place.activate(await place.agreement(**{part: theirs}))
        wallet = SigningKey.generate()
        await place.rpc.call("anvil_setBalance", wallet.address, hex(10**20))
        config = ClientConfig(
            rpc=place.rpc.url, deployment=place.deployment, storage=(place.blobs.as_uri(),), brokers={}
        )

        async def money() -> object:
            return as_int(await place.rpc.call("eth_getBalance", wallet.address, "latest"))

        refused.watch(money)
        async with Client(config, wallet=wallet, result_key=SealingKey.generate()) as client, refused():
            await client.request(agreement_id)


# A worker, which carries what it is told to its enclave, to brokers and to the contract.


@lie("chain view", "a request that nobody made, to a worker", "R9", "ComputeOracle_NotRequested")
async def test_an_invented_request_costs_a_worker_its_time_only(tmp_path: Path, refused: Refused) -> None:
    """Even where brokers were as blind as the worker, as the ones here are, the contract is not."""
    async with worker_world(tmp_path) as place:
        agreement = await place.agreement()
        await place.activate(agreement)
        _, request, _ = await place.request(agreement)
        invented = request.model_copy(update={"nonce": ZERO32})
        domain = Domain(chain_id=place.chain.chain_id, verifying_contract=place.deployment.oracle)
        task_id = invented.typed_digest(domain)
        forged = retold("ComputeOracle", "TaskRequested", {1: task_id}, request=invented.to_abi())
        async with proxy(place.rpc.url, forged) as liar:
            worker = Worker(place.config(rpc=[liar]))
            serving = asyncio.create_task(worker.run())
            await asyncio.wait_for(worker.ready.wait(), 20)

            async def on_chain() -> tuple[object, TaskState]:
                sent = await place.rpc.call("eth_getTransactionCount", place.wallet.address, "latest")
                return sent, (await place.on_chain(task_id)).state

            before = await on_chain()

            async def refuses() -> bool:
                task = await worker._db(worker._db.journal.task, task_id)
                return task is not None and task.code is not None and task.code.startswith("contract.")

            await until(refuses)
            worker.stop()
            await serving
            assert await on_chain() == before
            assert before[1] is TaskState.NONE
    journal = Journal(tmp_path / "worker.sqlite")
    (code,) = [task.code for task in journal.tasks() if task.id == task_id]
    journal.close()
    refused.as_reason((code or "").removeprefix("contract."))
