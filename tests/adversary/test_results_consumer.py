"""Lies about results, told to a contract that asked for one: examples/RiskDesk.sol, on the base that contracts inherit."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import pytest
from eth_utils.address import to_checksum_address

from enclave_app.protocol.hpke import SealingKey
from oracle.chain.abi import load
from oracle.chain.events import TaskRequested, logs_of_receipt, read_event
from oracle.chain.rpc import as_bytes, as_hex
from oracle.chain.sender import Receipt, Sender
from oracle.errors import RpcFault
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import FEE, Scene
from tests.output_kit import Finished

TOPIC = load("ComputeOracle").topic("TaskRequested")


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
            raise load("RiskDesk").error(fault.data or b"") or fault from None

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
        await desk.tell("onComputeResult", desk.task.task_id, 1, desk.task.result)


@lie("results", "a result that was not settled yet to the contract that asked", "R17", "ComputeConsumer_NotEnded")
async def test_a_consumer_takes_no_result_before_its_settlement(desk: Desk, refused: Refused) -> None:
    refused.watch(desk.footprint)
    async with refused():
        await desk.tell("redeliver", desk.task.task_id, desk.task.result)


@lie("results", "another result than was settled to the contract that asked", "R17", "ComputeConsumer_WrongResult")
async def test_a_consumer_takes_the_settled_result_only(desk: Desk, refused: Refused) -> None:
    await without_callback(desk)
    other = desk.task.make_result(digest=secrets.token_bytes(32))
    refused.watch(desk.footprint)
    async with refused():
        await desk.tell("redeliver", desk.task.task_id, other)


@lie("results", "the settled result a second time to the contract that asked", "R20", "ComputeConsumer_NotPending")
async def test_a_consumer_takes_a_result_once(desk: Desk, refused: Refused) -> None:
    await desk.task.settle()
    refused.watch(desk.footprint)
    async with refused():
        await desk.tell("redeliver", desk.task.task_id, desk.task.result)


async def without_callback(desk: Desk) -> None:
    """Settled while the desk's callback failed: what redelivery is for, and the true result would be taken."""
    rpc, code = desk.task.scene.rpc, await desk.task.scene.rpc.call("eth_getCode", desk.address, "latest")
    await rpc.call("anvil_setCode", desk.address, "0x60006000fd")  # PUSH1 0, PUSH1 0, REVERT
    await desk.task.settle()
    await rpc.call("anvil_setCode", desk.address, code)
    await desk.tell("redeliver", desk.task.task_id, desk.task.result)
