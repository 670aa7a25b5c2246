"""What a real enclave signed, taken by the real contracts: one result, many, a batch, and an output for everyone.

The brokers are the test's own, which answer anything; whose consent, quota and identity it is, the contracts check.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol.abi_output import decode_row
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.onchain import NO_AUDITORS, admission
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Chain, Confirmation, Outcome, Output, OutputKind, TaskState
from enclave_app.protocol.wire import TaskDone
from oracle.chain.abi import load
from oracle.chain.deploy import Deployment, deploy
from oracle.chain.events import PublicOutputs, logs_of_receipt, read_event
from oracle.chain.reader import OracleReader
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.worker.collateral import open_appraisal
from oracle.worker.config import AttestationConfig
from oracle.worker.enclave import Enclave
from oracle.worker.register import Enrolled, register_enclave
from oracle.worker.registrars import make_registrar
from oracle.worker.settle import Settler
from tests import enclave_kit
from tests.enclave_kit import RunningEnclave, World, enclave, make_world, measured
from tests.worker_kit import anvil, funded

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE_ROW = "SELECT count(*) AS n FROM a JOIN b USING (id) WHERE a.x >= $least"


@dataclass
class Place:
    """A chain with the contracts, and an enclave that is registered there."""

    rpc: Rpc
    deployment: Deployment
    requester: Sender
    running: RunningEnclave
    enrolled: Enrolled
    owner: SigningKey
    settler: Settler
    world: World

    async def activate(self, agreement: Agreement) -> None:
        signature = self.owner.sign(enclave_kit.CHAIN.agreement_id(agreement))
        call = load("AgreementRegistry").call("activate", agreement, [signature], NO_AUDITORS)
        assert (await self.requester.transact(self.deployment.agreement_registry, call)).ok

    async def run(self, agreement: Agreement, **request: Any) -> TaskRecord:
        """Asked for on the chain, and run in the enclave; it is not forgotten there."""
        head = await SingleSource(self.rpc).confirmed(Confirmation.LATEST)
        times = {"as_of": head.timestamp, "deadline": head.timestamp + 3600}
        body = self.world.body(agreement, requester=self.requester.address, **times, **request)
        call = load("ComputeOracle").call("request", body.request, admission(agreement), "")
        assert (await self.requester.transact(self.deployment.oracle, call)).ok
        done: TaskDone = await self.running.whole(self.world, body)
        return TaskRecord(
            chain=body.chain,
            agreement=agreement,
            request=body.request,
            result=done.result,
            signature=done.signature,
            signer=self.enrolled.signer,
            outputs=done.outputs,
            releases=(),
            evidence=self.enrolled.evidence,
            consents=(),
            enclave=self.enrolled.record.identity,
            public_outputs=done.public_outputs,
        )

    async def states(self, records: Sequence[TaskRecord]) -> list[TaskState]:
        """Of tasks that the chain holds with these very results; NONE for any other."""
        source, found = SingleSource(self.rpc), []
        reader, head = OracleReader(source, self.deployment.oracle), await source.confirmed(Confirmation.LATEST)
        for each in records:
            task = await reader.task(each.result.agreement_id, each.result.task_id, head)
            digest = each.result.typed_digest(each.chain.oracle_domain(each.agreement))
            found.append(task.state if task.settled_with(digest) else TaskState.NONE)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    directory = tmp_path_factory.mktemp("enclave")
    async with enclave(directory) as running, anvil() as rpc, Enclave(running.socket) as client:
        requester, worker = Sender(rpc, await funded(rpc)), Sender(rpc, await funded(rpc))
        platform = directory / "platform"
        root = (platform / "root.der").read_bytes()
        deployment = await deploy(Sender(rpc, await funded(rpc)), root)
        source, owner = SingleSource(rpc), SigningKey.generate()
        config = AttestationConfig(root=platform / "root.der", collateral=platform / "collateral.json")
        registrar = make_registrar(open_appraisal(config, deployment.chain_id), deployment, worker, source)
        assert registrar is not None
        enrolled = await register_enclave(client, worker, source, deployment, registrar, None)
        with pytest.MonkeyPatch.context() as patch:
            chain = Chain(chain_id=deployment.chain_id, agreement_registry=deployment.agreement_registry)
            patch.setattr(enclave_kit, "CHAIN", chain)
            patch.setattr(enclave_kit, "ORACLE", deployment.oracle)
            patch.setattr(enclave_kit, "REGISTRY", deployment.enclave_registry)
            patch.setattr(enclave_kit, "OWNER", owner.address)
            patch.setattr(enclave_kit, "ANCHOR", sha256(root))
            world = make_world(directory / "storage", measured(), sql=ONE_ROW)
            settler = Settler(worker, deployment.oracle)
            yield Place(rpc, deployment, requester, running, enrolled, owner, settler, world)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sealed(place: Place) -> Agreement:
    await place.activate(place.world.agreement)
    return place.world.agreement


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def public(place: Place) -> Agreement:
    (output,) = place.world.agreement.outputs
    opened = Output(name=output.name, kind=OutputKind.ABI_VALUES, recipients=(), owners=output.owners, size_class=1)
    keys = place.world.agreement.keys.model_copy(update={"confirmation": Confirmation.FINALIZED})
    agreement = place.world.changed(outputs=(opened,), keys=keys)
    await place.activate(agreement)
    return agreement


async def test_a_batch_that_a_real_enclave_signed_settles_all_of_its_tasks(place: Place, sealed: Agreement) -> None:
    records = [await place.run(sealed) for _ in range(3)]
    async with Enclave(place.running.socket) as client:
        answer = await client.batch([each.result.task_id for each in records])
    sent = await place.settler.send_batch(records, answer.batch, answer.signature)
    assert sent is not None
    receipt = await place.settler.wait(sent.hash, 10)
    assert receipt is not None
    assert receipt.ok
    assert await place.states(records) == [TaskState.FULFILLED] * 3


async def test_successes_and_failures_of_a_real_enclave_are_settled_together(place: Place, sealed: Agreement) -> None:
    records = [await place.run(sealed), await place.run(sealed, params=b"{}")]
    assert [each.result.outcome for each in records] == [Outcome.SUCCEEDED, Outcome.FAILED]
    (sent,) = await place.settler.send_many(records)
    receipt = await place.settler.wait(sent.hash, 10)
    assert receipt is not None
    assert receipt.ok
    assert await place.states(records) == [TaskState.FULFILLED, TaskState.FAILED]


async def test_a_public_output_of_a_real_enclave_is_published(place: Place, public: Agreement) -> None:
    records = [await place.run(public, result_key=ZERO32) for _ in range(2)]
    (sent,) = await place.settler.send_many(records)
    receipt = await place.settler.wait(sent.hash, 10)
    assert receipt is not None
    assert receipt.ok
    events = [read_event(log) for log in logs_of_receipt(receipt.raw)]
    published = [event.outputs for event in events if isinstance(event, PublicOutputs)]
    assert published == [each.public_outputs for each in records]
    assert [decode_row(["int64"], content) for (content,) in published] == [(99,)] * 2
    assert await place.states(records) == [TaskState.FULFILLED] * 2
