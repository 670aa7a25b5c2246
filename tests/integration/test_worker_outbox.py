"""The outbox and its settlements on a real chain: drops, spikes, reorganisations, another program with the same key, crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount

from enclave_app.protocol.signing import SigningKey
from oracle.chain.fees import GWEI
from oracle.chain.rpc import Rpc, as_hex, as_int
from oracle.chain.sender import Sender
from oracle.errors import Retryable, Reverted
from oracle.worker.fees import FeesConfig
from oracle.worker.journal import JournalThread
from oracle.worker.outbox import Outbox
from oracle.worker.rows import Task
from oracle.worker.settle import Verdict, judge
from oracle.worker.settlement import Settlements
from oracle.worker.states import State
from tests.settle_kit import record, register
from tests.worker_kit import World, anvil, funded, until, world

TO = "0x" + "ab" * 20
QUICK = FeesConfig(replace_seconds=0.3, rebroadcast_seconds=0.2, displaced_seconds=0.3, watch_seconds=0.2)


@asynccontextmanager
async def serving(
    rpc: Rpc, wallet: LocalAccount, path: Path, config: FeesConfig = QUICK
) -> AsyncIterator[tuple[Outbox, JournalThread]]:
    db = JournalThread(path)
    outbox = Outbox(rpc, wallet, db, config)
    running = asyncio.create_task(outbox.run())
    try:
        yield outbox, db
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        db.close()


async def count(rpc: Rpc, wallet: LocalAccount) -> int:
    return as_int(await rpc.call("eth_getTransactionCount", wallet.address, "latest"))


async def held(rpc: Rpc) -> None:
    """Transactions stay in the pool until a block is asked for."""
    await rpc.call("evm_setAutomine", False)


async def mine(rpc: Rpc) -> None:
    await rpc.call("anvil_mine", hex(1))


async def test_what_was_stored_and_never_sent_is_sent_by_the_next_start_under_its_nonce(tmp_path: Path) -> None:
    class Deaf(Rpc):
        """A crash between the database and the endpoint."""

        async def batch(self, calls: Any) -> list[Any]:
            if calls and calls[0][0] == "eth_sendRawTransaction":
                raise Retryable("rpc.unreachable", "nobody hears")
            return await super().batch(calls)

    async with anvil() as rpc:
        wallet = await funded(rpc)
        deaf = Deaf(rpc.url)
        db = JournalThread(tmp_path / "journal.sqlite")
        first = await Outbox(deaf, wallet, db).submit(TO, b"", purpose="test", key=b"one")
        db.close()
        await deaf.close()
        async with serving(rpc, wallet, tmp_path / "journal.sqlite") as (outbox, _):
            again = await outbox.submit(TO, b"", purpose="test", key=b"one")
            assert again.hash == first.hash
            assert (await outbox.wait(first.hash, patience=10)).transaction_hash == first.hash
        assert await count(rpc, wallet) == 1


async def test_a_transaction_that_the_pool_dropped_is_sent_again(tmp_path: Path) -> None:
    async with anvil() as rpc:
        wallet = await funded(rpc)
        await held(rpc)
        patient = QUICK.model_copy(update={"replace_seconds": 60.0})
        async with serving(rpc, wallet, tmp_path / "journal.sqlite", patient) as (outbox, _):
            sent = await outbox.submit(TO, b"", purpose="test", key=b"one")
            await rpc.call("anvil_dropTransaction", as_hex(sent.hash))

            async def is_back() -> bool:
                return await rpc.call("eth_getTransactionByHash", as_hex(sent.hash)) is not None

            await until(is_back)
            await mine(rpc)
            assert (await outbox.wait(sent.hash, patience=10)).ok


async def test_a_stuck_one_is_replaced_until_the_cap_and_waits_there_visibly(tmp_path: Path) -> None:
    async with anvil() as rpc:
        wallet = await funded(rpc)
        await held(rpc)
        config = QUICK.model_copy(update={"max_fee_per_gas": 6 * GWEI})
        async with serving(rpc, wallet, tmp_path / "journal.sqlite", config) as (outbox, db):
            sent = await outbox.submit(TO, b"", purpose="test", key=b"one")
            await rpc.call("anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
            await mine(rpc)

            async def is_capped() -> bool:
                return outbox.facts.capped == 1

            await until(is_capped)
            assert outbox.facts.replaced >= 1
            assert outbox.facts.stuck == 1
            slot = await db(outbox._book.slot_of, sent.hash)
            for old, new in pairwise(slot):
                assert 8 * new.fees.most >= 9 * old.fees.most
                assert 8 * new.fees.tip >= 9 * old.fees.tip
            outbox._market = None
            with pytest.raises(Retryable) as raised:
                await outbox.submit(TO, b"", purpose="test", key=b"two")
            assert raised.value.code == "transaction.fee_cap"

            async def is_through() -> bool:
                await rpc.call("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
                await mine(rpc)
                return await count(rpc, wallet) == 1

            await until(is_through)
            receipt = await outbox.wait(sent.hash, patience=10)
            assert receipt.transaction_hash in [each.hash for each in slot]
        assert await count(rpc, wallet) == 1


async def test_a_reorganisation_brings_the_same_transactions_again(tmp_path: Path) -> None:
    async with anvil() as rpc:
        wallet = await funded(rpc)
        await rpc.call("anvil_mine", hex(3))
        async with serving(rpc, wallet, tmp_path / "journal.sqlite") as (outbox, _):
            sent = [await outbox.submit(TO, b"", purpose="test", key=bytes([n])) for n in range(3)]
            for each in sent:
                await outbox.wait(each.hash, patience=10)
            await rpc.call("anvil_reorg", 3, [])
            outbox.reorganised()

            async def are_back() -> bool:
                await mine(rpc)
                return await count(rpc, wallet) == 3

            await until(are_back)
            receipts = [await outbox.wait(each.hash, patience=10) for each in sent]
            assert [each.transaction_hash for each in receipts] == [each.hash for each in sent]


async def test_another_program_with_the_same_key_is_noticed_and_survived(tmp_path: Path) -> None:
    async with anvil() as rpc:
        wallet = await funded(rpc)
        async with serving(rpc, wallet, tmp_path / "journal.sqlite") as (outbox, _):
            await held(rpc)
            sent = await outbox.submit(TO, b"", purpose="test", key=b"one")
            await rpc.call("anvil_dropTransaction", as_hex(sent.hash))
            other = await Sender(rpc, wallet).submit(TO, b"\x01")
            assert other.nonce == sent.nonce
            await mine(rpc)
            assert await outbox.outcome(sent.hash, 10) is None
            assert outbox.facts.displaced == 1
            again = await outbox.submit(TO, b"", purpose="test", key=b"one")
            assert again.nonce == sent.nonce + 1
            await mine(rpc)
            assert (await outbox.wait(again.hash, patience=10)).ok


async def test_a_gap_that_a_dropped_transaction_left_is_filled(tmp_path: Path) -> None:
    async with anvil() as rpc:
        wallet = await funded(rpc)
        await held(rpc)
        other = await Sender(rpc, wallet).submit(TO, b"\x01")
        async with serving(rpc, wallet, tmp_path / "journal.sqlite") as (outbox, _):
            sent = await outbox.submit(TO, b"", purpose="test", key=b"one")
            assert sent.nonce == other.nonce + 1
            await rpc.call("anvil_dropTransaction", as_hex(other.hash))
            await rpc.call("evm_setAutomine", True)

            async def is_through() -> bool:
                await mine(rpc)
                return await count(rpc, wallet) == 2

            await until(is_through)
            assert (await outbox.wait(sent.hash, patience=10)).ok
            assert outbox.facts.gaps_filled == 1


async def test_an_empty_wallet_waits_and_nothing_is_stored(tmp_path: Path) -> None:
    async with anvil() as rpc:
        wallet = await funded(rpc)
        await rpc.call("anvil_setBalance", wallet.address, hex(1))
        async with serving(rpc, wallet, tmp_path / "journal.sqlite") as (outbox, db):
            with pytest.raises(Retryable) as raised:
                await outbox.submit(TO, b"", gas=21_000, purpose="test", key=b"one")
            assert raised.value.code == "wallet.funds"
            assert outbox.facts.balance == 1
            assert await db(outbox._book.open) == []


async def test_gas_is_booked_by_purpose_and_survives_finality(tmp_path: Path) -> None:
    async with anvil("--slots-in-an-epoch", "1") as rpc:
        wallet = await funded(rpc)
        before = as_int(await rpc.call("eth_getBalance", wallet.address, "latest"))
        async with serving(rpc, wallet, tmp_path / "journal.sqlite") as (outbox, db):
            for n in range(3):
                await outbox.transact(TO, b"", purpose="test", key=bytes([n]))
            await rpc.call("anvil_mine", hex(4))

            async def is_final() -> bool:
                return await db(outbox._book.watched) == []

            await until(is_final)
            after = as_int(await rpc.call("eth_getBalance", wallet.address, "latest"))
            assert await db(outbox._book.spent) == {"test": before - after}


# Settlements.


async def stored(place: World, db: JournalThread, tasks: int, **changes: Any) -> list[Task]:
    """Tasks of one agreement with results, as the pipeline leaves them for their settlement."""
    agreement = await place.agreement()
    await place.activate(agreement)
    made = []
    for _ in range(tasks):
        task_id, request, _ = await place.request(agreement)
        signed = record(place, agreement, task_id, request, **changes)
        await db(
            db.journal.db.execute,
            "INSERT INTO tasks (id, agreement_id, request, uri, state, record, stored, block_number, block_hash,"
            " transaction_hash, log_index) VALUES (?, ?, ?, '', ?, ?, 1, 1, ?, ?, 0)",
            (
                task_id,
                request.agreement_id,
                request.canonical().decode(),
                State.STORED,
                signed.canonical().decode(),
                b"",
                b"",
            ),
        )
        task = await db(db.journal.task, task_id)
        assert task is not None
        made.append(task)
    return made


async def test_what_is_ready_together_is_settled_together_and_moves_with_it(tmp_path: Path) -> None:
    async with world(tmp_path) as place, serving(place.rpc, place.wallet, tmp_path / "j.sqlite") as (outbox, db):
        await register(place)
        tasks = await stored(place, db, 6)
        settlements = Settlements(outbox, db, place.deployment.oracle)
        before = await count(place.rpc, place.wallet)
        moved = await asyncio.gather(*(settlements.send(task) for task in tasks))
        assert {task.state for task in moved} == {State.SETTLING}
        for task in moved:
            assert await db(db.journal.task, task.id) == task
            assert await settlements.outcome(task, 10) is not None
        assert await count(place.rpc, place.wallet) - before <= 2
        assert settlements.together >= 5


async def test_a_member_that_is_refused_takes_no_other_down(tmp_path: Path) -> None:
    async with world(tmp_path) as place, serving(place.rpc, place.wallet, tmp_path / "j.sqlite") as (outbox, db):
        await register(place)
        tasks = await stored(place, db, 5)
        assert tasks[2].record is not None
        # Its signature is of no one: the contract refuses the whole of a common settlement for it.
        signature = SigningKey.generate().sign(b"\x01" * 32)
        wrong = tasks[2].record.model_copy(update={"signature": signature})
        await db(
            db.journal.db.execute,
            "UPDATE tasks SET record = ? WHERE id = ?",
            (wrong.canonical().decode(), tasks[2].id),
        )
        broken = await db(db.journal.task, tasks[2].id)
        assert broken is not None
        tasks[2] = broken
        settlements = Settlements(outbox, db, place.deployment.oracle)
        answers = await asyncio.gather(*(settlements.send(task) for task in tasks), return_exceptions=True)
        refusal = answers.pop(2)
        assert isinstance(refusal, Reverted)
        assert judge(refusal) is Verdict.SIGNER_GONE
        for task in answers:
            assert isinstance(task, Task)
            assert await settlements.outcome(task, 10) is not None


async def test_one_that_another_worker_settled_meanwhile_is_found_out_and_told(tmp_path: Path) -> None:
    async with world(tmp_path) as place, serving(place.rpc, place.wallet, tmp_path / "j.sqlite") as (outbox, db):
        await register(place)
        tasks = await stored(place, db, 3)
        settlements = Settlements(outbox, db, place.deployment.oracle)
        await held(place.rpc)
        moved = await asyncio.gather(*(settlements.send(task) for task in tasks))
        # The other's transaction pays more, so it comes first in the block.
        theirs = settlements._settler._call(moved[0].record) if moved[0].record is not None else b""
        rival = await funded(place.rpc)
        await Sender(place.rpc, rival).submit(place.deployment.oracle, theirs, gas=500_000)
        pending = moved[0].settlement
        assert pending is not None
        await place.rpc.call("anvil_dropTransaction", as_hex(pending))
        await mine(place.rpc)
        await place.rpc.call("evm_setIntervalMining", 1)
        found = [await settlements.outcome(task, 10) for task in moved]
        assert found[0] is None
        assert all(each is not None for each in found[1:])
        again = await db(db.journal.stored, moved[0])
        with pytest.raises(Reverted) as raised:
            await settlements.send(again)
        assert judge(raised.value) is Verdict.SETTLED
