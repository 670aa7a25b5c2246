"""A receipt of a real network: offline, against its chain, and what is not its chain."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol.digests import keccak
from enclave_app.protocol.structs import TaskState
from oracle.chain.rpc import Rpc
from oracle.chain.source import SingleSource
from oracle.devnet import Devnet
from oracle.receipt import Expected, Report, Verdict, verify_receipt, verify_with_chain
from tests.anvil_kit import anvil
from tests.cli_kit import answer, oracle, refusal
from tests.e2e.conftest import MARKER

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Settled:
    task_id: bytes
    data: bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settled(devnet: Devnet, agreement_id: bytes) -> AsyncIterator[Settled]:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": 100})
        await task.wait(patience=40)
        yield Settled(task.id, await task.fetch_receipt())


async def with_chain(data: bytes, agreement_id: bytes, url: str) -> Report:
    rpc = Rpc(url)
    try:
        return await verify_with_chain(
            data, Expected(agreement_id=agreement_id), int(time.time()), SingleSource(rpc), allow_simulated=True
        )
    finally:
        await rpc.close()


async def test_it_verifies_offline(settled: Settled, agreement_id: bytes) -> None:
    found = verify_receipt(settled.data, Expected(agreement_id=agreement_id), int(time.time()), allow_simulated=True)
    assert (found.verdict, found.failed, found.reason) == (Verdict.AUTHENTIC, None, None)
    assert found.simulated


async def test_it_verifies_against_its_chain(settled: Settled, agreement_id: bytes, devnet: Devnet) -> None:
    found = await with_chain(settled.data, agreement_id, devnet.rpc_url)
    assert (found.verdict, found.failed, found.reason) == (Verdict.AUTHENTIC, None, None)
    assert [link.name for link in found.links[-5:]] == ["chain", "activation", "settlement", "registration", "blocks"]
    assert all(link.ok for link in found.links)


async def test_a_signed_failure_leaves_a_receipt_that_its_chain_confirms(agreement_id: bytes, devnet: Devnet) -> None:
    async with devnet.client("requester") as client:
        task = await client.request(agreement_id, {"least": 1000})
        assert await task.wait(patience=40) is TaskState.FAILED
        found = await with_chain(await task.fetch_receipt(), agreement_id, devnet.rpc_url)
    assert (found.verdict, found.outcome) == (Verdict.AUTHENTIC, "failed")


async def test_a_chain_of_another_id_refuses_it(settled: Settled, agreement_id: bytes, tmp_path: Path) -> None:
    with anvil() as url:
        rpc = Rpc(url)
        await rpc.call("anvil_setChainId", 99)
        await rpc.close()
        found = await with_chain(settled.data, agreement_id, url)
    assert (found.verdict, found.failed, found.reason) == (Verdict.REFUSED, "chain", "chain.id")
    assert [link.ok for link in found.links[-4:]] == [None] * 4


async def test_a_chain_that_never_saw_it_refuses_it(settled: Settled, agreement_id: bytes) -> None:
    with anvil() as url:
        found = await with_chain(settled.data, agreement_id, url)
    assert (found.verdict, found.failed, found.reason) == (Verdict.REFUSED, "chain", "chain.contracts")


async def test_a_result_that_the_chain_did_not_settle_is_refused(
    settled: Settled, agreement_id: bytes, devnet: Devnet
) -> None:
    rpc = Rpc(devnet.rpc_url)
    snapshot = await rpc.call("evm_snapshot")
    try:
        storage = await _slot_of(rpc, devnet, agreement_id, settled.task_id)
        await rpc.call("anvil_setStorageAt", devnet.deployment.oracle, storage, "0x" + "11" * 31 + "02")
        await rpc.call("anvil_mine")
        found = await with_chain(settled.data, agreement_id, devnet.rpc_url)
    finally:
        await rpc.call("evm_revert", snapshot)
        await rpc.close()
    assert (found.verdict, found.failed) == (Verdict.REFUSED, "settlement")


async def _slot_of(rpc: Rpc, devnet: Devnet, agreement_id: bytes, task_id: bytes) -> str:
    """The storage slot of a task: the mapping's place is found by looking, since the layout is the compiler's."""
    for place in range(16):
        slot = "0x" + keccak(task_id + keccak(agreement_id + place.to_bytes(32, "big"))).hex()
        if int(await rpc.call("eth_getStorageAt", devnet.deployment.oracle, slot, "latest"), 16):
            return slot
    raise AssertionError("no mapping holds the task")


async def test_it_holds_no_plaintext_and_no_key(settled: Settled, devnet: Devnet, home: Path) -> None:
    assert MARKER.encode() not in settled.data
    for account in devnet.accounts.values():
        assert account.wallet.secret().hex().encode() not in settled.data
    for keyfile in (home / "owners").rglob("keys*"):
        assert keyfile.read_bytes()[:64] not in settled.data


async def test_the_command_line_fetches_shows_and_verifies_it(
    settled: Settled, agreement_id: bytes, devnet: Devnet, tmp_path: Path
) -> None:
    file, config = tmp_path / "receipt.json", devnet.directory / "hospital-a.yaml"
    said = await _in_thread(
        lambda: answer("receipt", "fetch", "0x" + settled.task_id.hex(), "--out", file, "--config", config)
    )
    assert said["bytes"] == len(settled.data)
    assert file.read_bytes() == settled.data
    expected = ("--agreement", "0x" + agreement_id.hex(), "--rpc", devnet.rpc_url)
    good: dict[str, Any] = await _in_thread(lambda: answer("receipt", "verify", file, *expected, "--allow-simulated"))
    assert good["verdict"] == "authentic"
    nowhere = (*expected[:2], "--allow-simulated", "--rpc", "http://127.0.0.1:1")
    assert (await _in_thread(lambda: refusal("receipt", "verify", file, *nowhere)))["retry"] is True
    refused = await _in_thread(lambda: oracle("receipt", "verify", file, *expected, "--json"))
    assert refused.code == 1
    assert json.loads(refused.stdout)["reason"] == "receipt.simulated"


async def _in_thread(call: Any) -> Any:
    """A command runs an event loop of its own."""
    return await asyncio.to_thread(call)
