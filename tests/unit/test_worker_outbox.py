"""The outbox against a model of a chain that drops, reorders, reorganises and is shared: each key has at most one effect, and
whatever happened, the way is free again in the end."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oracle.chain.fees import GWEI
from oracle.chain.rpc import Rpc
from oracle.errors import Retryable, RpcFault
from oracle.worker.fees import FeesConfig
from oracle.worker.journal import JournalThread
from oracle.worker.outbox import Outbox
from oracle.worker.transactions import Fate

TO = "0x" + "ab" * 20
AT_ONCE = FeesConfig(replace_seconds=1e-9, rebroadcast_seconds=1e-9, displaced_seconds=0, watch_seconds=1e-9)
FINAL_DEPTH = 6


@dataclass(frozen=True)
class Tx:
    hash: bytes
    nonce: int
    most: int
    tip: int
    data: bytes
    to: bytes


@dataclass(frozen=True)
class ModelBlock:
    number: int
    hash: bytes
    txs: tuple[Tx, ...]


class ModelChain(Rpc):
    """One wallet's view of a chain and of one node's pool."""

    def __init__(self) -> None:
        super().__init__("http://model.test")
        self._serial = itertools.count(1)
        self.blocks = [ModelBlock(0, self._fresh(), ())]
        self.pool: dict[int, Tx] = {}
        self.base = GWEI
        self.deaf = False

    def _fresh(self) -> bytes:
        return next(self._serial).to_bytes(32, "big")

    @property
    def count(self) -> int:
        return sum(len(block.txs) for block in self.blocks)

    @property
    def effects(self) -> Counter[bytes]:
        return Counter(tx.data for block in self.blocks for tx in block.txs if tx.data)

    def mine(self) -> None:
        txs = []
        nonce = self.count
        while nonce in self.pool and self.pool[nonce].most >= self.base:
            txs.append(self.pool.pop(nonce))
            nonce += 1
        self._add(txs)

    def _add(self, txs: Sequence[Tx]) -> None:
        self.blocks.append(ModelBlock(len(self.blocks), self._fresh(), tuple(txs)))

    def by_another(self) -> None:
        """Another program's transaction takes the next nonce."""
        nonce = self.count
        self.pool.pop(nonce, None)
        self._add([Tx(self._fresh(), nonce, 0, 0, b"", b"")])

    def reorganise(self, depth: int, *, back: bool) -> None:
        """`back` says whether what was in the blocks is in the pool again."""
        depth = min(depth, len(self.blocks) - 1)
        gone = [tx for block in self.blocks[len(self.blocks) - depth :] for tx in block.txs]
        del self.blocks[len(self.blocks) - depth :]
        if back:
            self.pool.update({tx.nonce: tx for tx in gone})
        for _ in range(depth + 1):
            self._add([])

    async def call(self, method: str, *params: Any) -> Any:
        (answer,) = await self.batch([(method, params)])
        if isinstance(answer, RpcFault):
            raise answer
        return answer

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        answers = []
        for method, params in calls:
            if self.deaf and method == "eth_sendRawTransaction":
                raise Retryable("rpc.unreachable", "nobody hears")
            try:
                answers.append(getattr(self, "_" + method)(*params))
            except RpcFault as fault:
                answers.append(fault)
        return answers

    def _eth_chainId(self) -> str:  # noqa: N802 (the method's name)
        return "0x1"

    def _eth_getBalance(self, *_: Any) -> str:  # noqa: N802 (the method's name)
        return hex(10**24)

    def _eth_feeHistory(self, *_: Any) -> Any:  # noqa: N802 (the method's name)
        return {"baseFeePerGas": [hex(self.base)], "gasUsedRatio": [], "reward": []}

    def _eth_maxPriorityFeePerGas(self) -> str:  # noqa: N802 (the method's name)
        return hex(GWEI)

    def _eth_call(self, call: dict[str, str], _: str) -> str:
        if self.effects[bytes.fromhex(call["data"][2:])]:
            raise RpcFault(3, "execution reverted", bytes.fromhex("08c379a0") + bytes(31) + b"\x20" + bytes(32))
        return "0x"

    def _eth_getTransactionCount(self, _: str, tag: str) -> str:  # noqa: N802 (the method's name)
        nonce = self.count
        while tag == "pending" and nonce in self.pool:
            nonce += 1
        return hex(nonce)

    def _eth_getBlockByNumber(self, which: str, _: bool) -> Any:  # noqa: N802 (the method's name)
        top = len(self.blocks) - 1
        number = {"latest": top, "finalized": max(0, top - FINAL_DEPTH)}.get(which)
        number = int(which, 16) if number is None else number
        if number > top:
            return None
        block = self.blocks[number]
        parent = self.blocks[number - 1].hash if number else bytes(32)
        return {"number": hex(number), "hash": _hex(block.hash), "parentHash": _hex(parent), "timestamp": "0x1"}

    def _eth_getTransactionReceipt(self, wanted: str) -> Any:  # noqa: N802 (the method's name)
        for block in self.blocks:
            for tx in block.txs:
                if _hex(tx.hash) == wanted:
                    return {
                        "transactionHash": wanted,
                        "blockNumber": hex(block.number),
                        "blockHash": _hex(block.hash),
                        "gasUsed": "0x1",
                        "effectiveGasPrice": "0x1",
                        "status": "0x1",
                        "logs": [],
                    }
        return None

    def _eth_sendRawTransaction(self, raw: str) -> str:  # noqa: N802 (the method's name)
        data = bytes.fromhex(raw[2:])
        fields = TypedTransaction.from_bytes(HexBytes(data)).as_dict()
        tx = Tx(
            keccak(data),
            fields["nonce"],
            fields["maxFeePerGas"],
            fields["maxPriorityFeePerGas"],
            bytes(fields["data"]),
            bytes(fields["to"]),
        )
        if tx.nonce < self.count:
            raise RpcFault(-32000, "nonce too low", None)
        there = self.pool.get(tx.nonce)
        if there is not None and there.hash == tx.hash:
            raise RpcFault(-32000, "already known", None)
        if there is not None and (10 * tx.most < 11 * there.most or 10 * tx.tip < 11 * there.tip):
            raise RpcFault(-32000, "replacement transaction underpriced", None)
        self.pool[tx.nonce] = tx
        return _hex(tx.hash)


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


class OutboxAgainstChain(RuleBasedStateMachine):
    """A crash is a new outbox on the same database; one before the broadcast is a deaf node and then a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.Runner()
        self.chain = ModelChain()
        self.wallet = Account.create()
        self.db = JournalThread(Path(self.folder.name) / "journal.sqlite")
        self.outbox = self.restarted()
        self.asked: set[bytes] = set()

    def restarted(self) -> Outbox:
        return Outbox(self.chain, self.wallet, self.db, AT_ONCE)

    @rule(key=st.integers(0, 5), deaf=st.booleans())
    def send(self, key: int, deaf: bool) -> None:
        wanted = bytes([key + 1]) * 32
        self.chain.deaf = deaf
        with suppress(Retryable):  # the base fee is above the cap
            self.loop.run(self.outbox.submit(TO, wanted, gas=50_000, purpose="test", key=wanted))
            self.asked.add(wanted)
        self.chain.deaf = False

    @rule()
    def crash(self) -> None:
        self.outbox = self.restarted()

    @rule()
    def mine(self) -> None:
        self.chain.mine()

    @rule()
    def look(self) -> None:
        self.loop.run(self.outbox.round())

    @rule()
    def lose_the_pool(self) -> None:
        self.chain.pool.clear()

    @rule(index=st.integers(0, 3))
    def lose_one(self, index: int) -> None:
        self.chain.pool.pop(self.chain.count + index, None)

    @rule(depth=st.integers(1, FINAL_DEPTH - 1), back=st.booleans())
    def reorganise(self, depth: int, back: bool) -> None:
        self.chain.reorganise(depth, back=back)
        self.outbox.reorganised()

    @rule()
    def another_program_sends(self) -> None:
        self.chain.by_another()

    @rule(base=st.sampled_from([GWEI // 10, GWEI, 40 * GWEI, 900 * GWEI]))
    def base_fee(self, base: int) -> None:
        self.chain.base = base
        self.outbox._market = None

    @invariant()
    def nothing_is_done_twice(self) -> None:
        assert all(count == 1 for count in self.chain.effects.values())

    def teardown(self) -> None:
        try:
            self._is_free_in_the_end()
        finally:
            self.db.close()
            self.loop.close()
            self.folder.cleanup()

    def _is_free_in_the_end(self) -> None:
        self.base_fee(GWEI // 10)
        for _ in range(40):
            self.loop.run(self.outbox.round())
            self.chain.mine()
            if not self.db.journal.db.execute("SELECT 1 FROM transactions WHERE state = 'pending'").fetchall():
                break
        self.loop.run(self.outbox.round())
        self.nothing_is_done_twice()
        assert not self.outbox._book.open()
        # Each has had its effect, or its outcome says that it has to be asked for anew; then it gets through.
        for wanted in sorted(self.asked):
            # Gaps that lost transactions of others left are filled one by one.
            for _ in range(20):
                if self.chain.effects[wanted]:
                    break
                self.loop.run(self.outbox.submit(TO, wanted, gas=50_000, purpose="test", key=wanted))
                self.chain.mine()
                self.loop.run(self.outbox.round())
        assert all(self.chain.effects[wanted] == 1 for wanted in self.asked)


TestOutboxAgainstChain = OutboxAgainstChain.TestCase
TestOutboxAgainstChain.settings = settings(max_examples=12, stateful_step_count=25, deadline=None, derandomize=True)


async def test_a_chain_that_undoes_what_it_called_final_stops_nobody(tmp_path: Path) -> None:
    chain, db = ModelChain(), JournalThread(tmp_path / "journal.sqlite")
    outbox = Outbox(chain, Account.create(), db, AT_ONCE)
    keys = [bytes([n]) * 32 for n in (1, 2, 3, 4)]

    async def send(key: bytes) -> bytes:
        return (await outbox.submit(TO, key, gas=50_000, purpose="test", key=key)).hash

    try:
        sent = [await send(key) for key in keys[:3]]
        chain.mine()
        for _ in range(FINAL_DEPTH + 1):
            chain.mine()
        await outbox.round()
        assert {row.fate for row in outbox._book.slot_of(sent[0])} == {Fate.FINAL}
        waiting = asyncio.create_task(outbox.outcome(sent[0], 30))
        assert await waiting is not None
        chain.reorganise(FINAL_DEPTH + 3, back=False)
        later = await send(keys[3])  # behind the nonces that are free again
        outbox.reorganised()
        await outbox.round()
        assert await outbox.outcome(sent[0], 30) is None
        again = [await send(key) for key in keys[:3]]
        assert not {*again} & {*sent}
        for _ in range(3):
            await outbox.round()
            chain.mine()
        assert [chain.effects[key] for key in keys] == [1, 1, 1, 1]
        await outbox.round()
        assert await outbox.outcome(later, 30) is not None
    finally:
        db.close()
