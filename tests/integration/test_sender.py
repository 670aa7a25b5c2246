"""A wallet that remembers nothing but what somebody waits for."""

from __future__ import annotations

import asyncio

import pytest

from oracle.chain.fees import GWEI
from oracle.chain.rpc import Rpc, as_hex, as_int
from oracle.chain.sender import Sender
from oracle.errors import Retryable
from tests.worker_kit import anvil, funded, until

TO = "0x" + "ab" * 20


async def pool(rpc: Rpc) -> dict[str, str]:
    """Hash and offer of each transaction that waits."""
    content = await rpc.call("txpool_content")
    waiting = [each for part in content.values() for slots in part.values() for each in slots.values()]
    return {each["hash"]: each["maxFeePerGas"] for each in waiting}


async def test_more_is_offered_for_a_transaction_that_is_stuck_and_its_receipt_is_the_successors() -> None:
    async with anvil() as rpc:
        sender = Sender(rpc, await funded(rpc))
        sender.replace_seconds = 0.2
        await rpc.call("evm_setAutomine", False)
        first = await sender.submit(TO, b"", value=7)
        before = await pool(rpc)
        waiting = asyncio.create_task(sender.wait(first.hash, patience=20))

        async def replaced() -> bool:
            return bool((await pool(rpc)).keys() - before.keys())

        await until(replaced)
        [(successor, offer)] = (await pool(rpc)).items()
        assert as_int(offer) >= as_int(before[as_hex(first.hash)]) * 1.125
        await rpc.call("evm_mine")
        receipt = await waiting
        assert (as_hex(receipt.transaction_hash), receipt.ok) == (successor, True)
        assert as_int(await rpc.call("eth_getBalance", TO, "latest")) == 7
        await rpc.call("evm_setAutomine", True)
        assert (await sender.transact(TO, b"", value=1)).ok is True


async def test_what_waits_behind_another_and_what_is_at_its_cap_is_left_alone() -> None:
    async with anvil() as rpc:
        sender = Sender(rpc, await funded(rpc))
        sender.replace_seconds = 0.05
        await rpc.call("evm_setAutomine", False)
        await sender.submit(TO, b"")
        behind = await sender.submit(TO, b"")
        before = await pool(rpc)
        with pytest.raises(Retryable, match="is not mined yet"):
            await sender.wait(behind.hash, patience=0.5)
        assert await pool(rpc) == before
        capped = Sender(rpc, await funded(rpc), max_fee_per_gas=3 * GWEI)
        capped.replace_seconds = 0.05
        held = await capped.submit(TO, b"")
        before = await pool(rpc)
        with pytest.raises(Retryable, match="is not mined yet"):
            await capped.wait(held.hash, patience=0.5)
        assert await pool(rpc) == before
