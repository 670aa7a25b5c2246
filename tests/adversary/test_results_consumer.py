"""Lies about results, told to a contract that asked for one: examples/RiskDesk.sol, on the base that contracts inherit."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import pytest
from eth_utils.address import to_checksum_address

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.onchain import pricing
from enclave_app.protocol.structs import Result
from oracle.chain.abi import explain_revert, load
from oracle.chain.events import TaskRequested, logs_of_receipt, read_event
from oracle.chain.rpc import as_bytes, as_hex
from oracle.chain.sender import Receipt, Sender
from oracle.errors import RpcFault
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import FEE, Scene
from tests.output_kit import Finished

TOPIC = load("ComputeOracle").topic("TaskRequested")
NOT_ENDED = "ComputeConsumer_NotEnded"


scene, world = fixtures.scene, fixtures.world


@dataclass(frozen=True)
class Desk:
    """examples/RiskDesk.sol, which asked for a task."""

    task: Finished
    address: str

    async def tell(self, function: str, *arguments: object) -> None:
        """As anyone can. Raises the contract's refusal."""
        try:
            await self._call(function, *arguments)
        except RpcFault as fault:
            raise load("RiskDesk").error(fault.data or b"") or explain_revert(fault) from None

    async def retry(self, result: Result | None = None) -> None:
        """The oracle's callback once more, as anyone can ask for it. Raises the contract's refusal."""
        task = self.task
        call = load("ComputeOracle").call("retryCallback", task.request, result or task.result, [])
        await task.scene.transact(task.scene.world.operator, task.agreement.oracle, call)

    async def answer(self) -> bytes:
        return await self._call("answers", self.task.task_id)

    async def pending(self) -> bool:
        return any(await self._call("isPending", self.task.task_id))

    async def _call(self, function: str, *arguments: object) -> bytes:
        rpc, sender = self.task.scene.rpc, self.task.scene.world.operator.address
        call = {"from": sender, "to": self.address, "data": as_hex(load("RiskDesk").call(function, *arguments))}
        return as_bytes(await rpc.call("eth_call", call, "latest"))

    async def footprint(self) -> object:
        return await self.answer(), await self.pending()


@pytest.fixture
async def desk(scene: Scene) -> Desk:
    """A desk whose task is requested; the true result would be taken, and its digest remembered."""
    agreement = scene.agreement()
    await scene.activate(agreement)
    owner, reader = Sender(scene.rpc, scene.world.requester, poll=0.005), SealingKey.generate()
    agreement_id = scene.world.chain.agreement_id(agreement)
    created = load("RiskDesk").deployment(agreement.oracle, agreement_id, reader.public.digest)
    address = str(to_checksum_address((await owner.transact(None, created)).contract_address or ""))
    await scene.rpc.call("anvil_setBalance", address, hex(FEE))
    versions = [term.id_or_stream for term in agreement.data]
    request = asked(await owner.transact(address, load("RiskDesk").call("ask", versions, b"{}", FEE))).request
    made = Desk(Finished(scene, agreement, request, reader), address)
    before = await scene.rpc.call("evm_snapshot")
    await made.task.settle()
    assert (await made.answer(), await made.pending()) == (made.task.output.manifest.id, False)
    await scene.rpc.call("evm_revert", before)
    assert await made.pending()
    return made


def asked(receipt: Receipt) -> TaskRequested:
    found = [read_event(log) for log in logs_of_receipt(receipt.raw) if log.topics[0] == TOPIC]
    assert len(found) == 1
    assert isinstance(found[0], TaskRequested)
    return found[0]


@lie("results", "a result straight to the contract that asked", "R20", "ComputeConsumer_NotOracle")
async def test_a_consumer_hears_results_from_the_oracle_only(desk: Desk, refused: Refused) -> None:
    refused.watch(desk.footprint)
    async with refused():
        await desk.tell("onComputeResult", desk.task.task_id, 1, desk.task.result, [])


@lie("results", "the contract that asked that its task has ended", "R17", "ComputeOracle_DeadlineNotPassed")
async def test_a_consumers_task_does_not_end_before_its_deadline(desk: Desk, refused: Refused) -> None:
    refused.watch(desk.footprint)
    async with refused():
        await desk.tell("reclaim", desk.task.request, pricing(desk.task.agreement))


@lie("results", "the contract that asked that no result came, where its callback failed", "R17", NOT_ENDED)
async def test_a_consumer_does_not_give_a_settled_task_up(desk: Desk, refused: Refused) -> None:
    await without_callback(desk)
    refused.watch(desk.footprint)
    async with refused():
        await desk.tell("reclaim", desk.task.request, pricing(desk.task.agreement))
    await desk.retry()
    assert not await desk.pending()


@lie("results", "another result than was settled, where a callback failed", "R17", "ComputeOracle_WrongResult")
async def test_a_consumer_takes_the_settled_result_only(desk: Desk, refused: Refused) -> None:
    await without_callback(desk)
    other = desk.task.make_result(digest=secrets.token_bytes(32))
    refused.watch(desk.footprint)
    async with refused():
        await desk.retry(other)


@lie("results", "a callback that nobody is waiting for", "R20", "ComputeOracle_NoFailedCallback")
async def test_a_consumer_takes_a_result_once(desk: Desk, refused: Refused) -> None:
    await desk.task.settle()
    refused.watch(desk.footprint)
    async with refused():
        await desk.retry()


async def without_callback(desk: Desk) -> None:
    """Settled while the desk's callback failed: what a retry is for."""
    rpc, code = desk.task.scene.rpc, await desk.task.scene.rpc.call("eth_getCode", desk.address, "latest")
    await rpc.call("anvil_setCode", desk.address, "0x60006000fd")  # PUSH1 0, PUSH1 0, REVERT
    await desk.task.settle()
    await rpc.call("anvil_setCode", desk.address, code)
    assert await desk.pending()
