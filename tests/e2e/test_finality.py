"""Agreements that wait for finality and leave time to cancel (R9), on a chain with blocks of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from enclave_app.protocol.structs import TaskState
from oracle.devnet import Devnet, Options
from oracle.devnet.scenario import activate, prepare
from tests.e2e.conftest import PARAMS, QUERY, expected, tables

FEE = 10**18
DELAY = 3
EPOCH = 4
"""Blocks until one is safe here, and twice as many until it is final."""


async def test_nothing_is_released_before_finality_and_a_cancel_gives_fee_and_quota_back(tmp_path: Path) -> None:
    async with Devnet.open(tmp_path / "net", Options(block_time=1.0)) as devnet:
        brokers = [{"key": "0x" + b.card.digest.hex(), "signer": b.card.signer} for b in devnet.brokers]
        changes = {
            "brokers": {"threshold": 2, "confirmation": "finalized", "releaseDelay": DELAY, "list": brokers},
            "price": {"fee": "1 ether", "shares": {"hospital-a": "25 %"}},
        }
        prepared = await prepare(devnet, tmp_path / "owners", tables(), QUERY, params=PARAMS, changes=changes)
        agreement_id = await activate(devnet, prepared)
        async with devnet.client("requester") as client, devnet.client("hospital-a") as owner:
            kept = await client.request(agreement_id, {"least": 10})
            taken_back = await client.request(agreement_id, {"least": 10})
            await taken_back.cancel()
            assert (await taken_back.state()).state is TaskState.CANCELLED
            assert (await client.agreement_status(agreement_id)).used == 1
            assert await client.balance() == FEE
            assert await kept.wait(patience=60) is TaskState.FULFILLED
            assert (await kept.result(patience=60)).to_pylist() == expected(10)
            assert await owner.balance() == FEE // 4
            assert kept.receipt is not None
            released = [answer.statement.block_number for answer in (await client.record(kept.id)).releases]
            assert len(released) >= 2
            # Each broker read the chain at a final block past the delay, and signed that it did.
            assert all(number > kept.receipt.block_number + DELAY for number in released)
            await asyncio.sleep(2)
            assert (await taken_back.state()).state is TaskState.CANCELLED
        logs = [(devnet.directory / "brokers" / str(n) / "log.jsonl").read_text() for n in (1, 2, 3)]
        assert any(kept.id.hex() in log for log in logs)
        assert not any(taken_back.id.hex() in log for log in logs)


async def test_a_safe_block_is_enough_where_the_agreement_says_so(tmp_path: Path) -> None:
    async with Devnet.open(tmp_path / "net", Options(block_time=0.5, epoch=EPOCH)) as devnet:
        brokers = [{"key": "0x" + b.card.digest.hex(), "signer": b.card.signer} for b in devnet.brokers]
        changes = {"brokers": {"threshold": 2, "confirmation": "safe", "list": brokers}}
        prepared = await prepare(devnet, tmp_path / "owners", tables(), QUERY, params=PARAMS, changes=changes)
        agreement_id = await activate(devnet, prepared)
        async with devnet.client("requester") as client:
            task = await client.request(agreement_id, {"least": 10})
            assert await task.wait(patience=60) is TaskState.FULFILLED
            assert (await task.result(patience=60)).to_pylist() == expected(10)
            assert task.receipt is not None
            released = [answer.statement.block_number for answer in (await client.record(task.id)).releases]
            (settled,) = await client.logs_about(task.agreement.oracle, "TaskFulfilled", task.id)
            # Brokers read the chain at a block that was safe, an epoch behind its head.
            assert all(task.receipt.block_number <= number <= settled.block_number - EPOCH for number in released)
