"""Lies about results around the callback (R20): consumers that misbehave, and relayers who starve them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import pytest
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import pricing
from enclave_app.protocol.structs import Result, TaskRequest, TaskState
from oracle.chain.abi import explain_revert, load
from oracle.chain.reader import OracleReader
from oracle.chain.rpc import as_bytes, as_hex
from oracle.chain.sender import Receipt, Sender
from oracle.errors import RpcFault
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import FEE, OPEN, Scene, fulfil_call
from tests.output_kit import Finished, finished, standing

GAS = 200_000
FAILED = "CallbackFailed"
"""The event with which a settlement that stands says that its callback did not."""
GUARDED = keccak(text="ReentrancyGuardReentrantCall()")[:4]


scene, world = fixtures.scene, fixtures.world


@dataclass(frozen=True)
class Called:
    """A task whose requester is a contract, which is called back; all of the fee goes to it, too."""

    task: Finished
    consumer: str
    result: Result

    async def settle(self) -> Receipt:
        """Settles with enough gas for all that the consumer may use; what a callback could take was paid once."""
        task = self.task
        receipt = await task.fulfil(self.result, task.sign(self.result))
        assert (await task.on_chain()).state is TaskState.FULFILLED
        oracle = OracleReader(task.scene.source, task.agreement.oracle)
        assert await oracle.balance(self.consumer, await task.scene.head()) == FEE
        return receipt


async def called(scene: Scene, code: bytes, gas: int = GAS) -> Called:
    """A request by a contract whose code is `code`; with code that only stops, the callback is a success."""
    consumer = str(to_checksum_address(secrets.token_bytes(20)))
    await scene.rpc.call("anvil_setCode", consumer, "0x00")
    await scene.rpc.call("anvil_setBalance", consumer, hex(10**20))
    await scene.rpc.call("anvil_impersonateAccount", consumer)
    template = await finished(scene)
    changes = {"requester": consumer, "callback": consumer, "callback_gas": gas}
    request = TaskRequest(**{**template.request.model_dump(), **changes})
    call = load("ComputeOracle").call("request", request, OPEN, "")
    transaction = {"from": consumer, "to": template.agreement.oracle, "data": as_hex(call), "value": hex(FEE)}
    sent = as_bytes(await scene.rpc.call("eth_sendTransaction", transaction))
    assert (await Sender(scene.rpc, scene.world.requester, poll=0.005).wait(sent)).ok
    task = Finished(scene, template.agreement, request, template.reader)
    made = Called(task, consumer, task.result.model_copy(update={"payee": consumer}))
    before = await scene.rpc.call("evm_snapshot")
    assert FAILED not in events(await made.settle())
    await scene.rpc.call("evm_revert", before)
    await scene.rpc.call("anvil_setCode", consumer, as_hex(code))
    return made


def events(receipt: Receipt) -> list[str]:
    contract = load("ComputeOracle")
    names = {contract.topic(name): name for name in contract._events}
    return [names[as_bytes(log["topics"][0])] for log in receipt.raw["logs"]]


def reverting_with(size: int) -> bytes:
    return b"\x62" + size.to_bytes(3, "big") + bytes.fromhex("6000fd")  # PUSH3 size, PUSH1 0, REVERT


CIRCLE = bytes.fromhex("5b600056")  # JUMPDEST, PUSH1 0, JUMP


@pytest.mark.parametrize(
    ("code", "gas"),
    [
        pytest.param(
            reverting_with(0), GAS, marks=lie("results", "a callback that reverts", "R20", FAILED), id="reverts"
        ),
        pytest.param(
            CIRCLE, GAS, marks=lie("results", "a callback that uses up its gas", "R20", FAILED), id="runs in a circle"
        ),
        pytest.param(
            reverting_with(690_000),  # as much as its gas buys
            1_000_000,
            marks=lie("results", "a callback that answers with 690 kB", "R20", FAILED),
            id="bombs",
        ),
    ],
)
async def test_a_callback_cannot_block_a_settlement(scene: Scene, refused: Refused, code: bytes, gas: int) -> None:
    made = await called(scene, code, gas)
    receipt = await made.settle()
    # Copying what a callback answers would cost the relayer as much again as the callback had.
    assert receipt.gas_used < gas + 250_000
    refused.as_reason(FAILED if FAILED in events(receipt) else "called")


def entering(oracle: str, call: bytes) -> bytes:
    """Calls the oracle, and keeps the first bytes of its answer in slot 0."""
    code = b""
    for position in range(0, len(call), 32):
        chunk = call[position : position + 32].ljust(32, b"\x00")
        code += b"\x7f" + chunk + b"\x61" + position.to_bytes(2, "big") + b"\x52"
    code += bytes.fromhex("60006000") + b"\x61" + len(call).to_bytes(2, "big") + bytes.fromhex("60006000")
    code += b"\x73" + bytes.fromhex(oracle[2:]) + bytes.fromhex("5af150")
    return code + bytes.fromhex("6000600052" + "6004600060003e" + "600051600055" + "00")


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(
            "withdraw",
            marks=lie(
                "results", "a callback that withdraws while it is being paid", "R20", "ReentrancyGuardReentrantCall"
            ),
        ),
        pytest.param(
            "request",
            marks=lie("results", "a callback that asks for the same task again", "R20", "ReentrancyGuardReentrantCall"),
        ),
        pytest.param(
            "expire",
            marks=lie(
                "results", "a callback that ends the task it is called for", "R20", "ReentrancyGuardReentrantCall"
            ),
        ),
    ],
)
async def test_nothing_is_entered_from_a_callback(scene: Scene, refused: Refused, function: str) -> None:
    made = await called(scene, b"\x00", 1_000_000)
    request = made.task.request
    contract = load("ComputeOracle")
    calls = {
        "withdraw": lambda: contract.call("withdraw", ZERO_ADDRESS, made.consumer),
        "request": lambda: contract.call("request", request, OPEN, ""),
        "expire": lambda: contract.call("expire", request, pricing(made.task.agreement)),
    }
    code = entering(made.task.agreement.oracle, calls[function]())
    await scene.rpc.call("anvil_setCode", made.consumer, as_hex(code))
    assert FAILED not in events(await made.settle())
    said = as_bytes(await scene.rpc.call("eth_getStorageAt", made.consumer, "0x0", "latest"))[:4]
    refused.as_reason("ReentrancyGuardReentrantCall" if said == GUARDED else said.hex())


@lie("results", "too little gas for the callback, so that it fails", "R20", "ComputeOracle_NotEnoughGas")
async def test_a_relayer_cannot_starve_the_callback(scene: Scene, refused: Refused) -> None:
    made = await called(scene, CIRCLE, 1_000_000)
    task = made.task
    call = fulfil_call(task.agreement, task.request, made.result, scene.world.identity, task.sign(made.result))
    refused.watch(standing(task, [made.consumer]))
    transaction = {"from": scene.world.operator.address, "to": task.agreement.oracle, "data": as_hex(call)}
    async with refused():
        # Called and not sent: a transaction with so little gas would be mined, and revert without a reason.
        try:
            await scene.rpc.call("eth_call", {**transaction, "gas": hex(900_000)}, "latest")
        except RpcFault as fault:
            raise explain_revert(fault) from None
