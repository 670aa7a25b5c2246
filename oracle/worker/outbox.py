"""The worker's wallet: transactions that are stored before anyone sees them, and seen through to finality.

    submit:  simulate → sign → store with its nonce (durably, with what depends on it) → broadcast
    run:     receipts · rebroadcast · replacement of stuck ones · gaps · reorganisations · finality

A worker that dies anywhere in between broadcasts the same transaction again: for a purpose and a key there is never a second
one beside the first. Other programs that use the same wallet are noticed and survived; they cost time.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eth_account.signers.local import LocalAccount
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes

from enclave_app.protocol.structs import Confirmation
from oracle.chain.fees import Fees, Market, read_market
from oracle.chain.rpc import Rpc, as_bytes, as_hex, as_int
from oracle.chain.sender import Receipt, Sender, SignedTransaction, check_gas, read_receipt
from oracle.chain.source import SingleSource
from oracle.errors import OracleError, Retryable, Reverted, RpcFault
from oracle.logs import Log
from oracle.worker.fees import FeesConfig
from oracle.worker.journal import JournalThread
from oracle.worker.transactions import GAP, Fate, Mined, Transaction, TransactionBook, is_over, new_row

AT_ONCE: Final = 100
"""Transactions that one round asks about, lowest nonces first."""
MARKET_SECONDS: Final = 1.0
"""How long fees are good for; the offer covers several full blocks."""
REMEMBERED: Final = 256
"""Receipts of the newest transactions."""
GAP_GAS: Final = 21_000
HARMLESS: Final = ("already known", "already imported", "nonce too low", "replacement transaction underpriced")
"""What nodes say to a transaction that they have, or have the successor of: rounds find out which."""


@dataclass
class OutboxFacts:
    """What an operator watches. Balance in wei; `stuck` are those that wait longer than they should, `capped` those that the
    fee cap keeps waiting; the others count since the start."""

    pending: int = 0
    stuck: int = 0
    capped: int = 0
    replaced: int = 0
    gaps_filled: int = 0
    displaced: int = 0
    reorganised: int = 0
    balance: int | None = None
    gas_spent: dict[str, int] = field(default_factory=dict)


class Outbox(Sender):
    """A Sender whose transactions survive. `run` has to run beside it; `wait` waits for what that finds."""

    def __init__(
        self, rpc: Rpc, wallet: LocalAccount, db: JournalThread, config: FeesConfig | None = None, *, poll: float = 0.05
    ) -> None:
        super().__init__(rpc, wallet, poll=poll)
        self.config = FeesConfig() if config is None else config
        self.caps = self.config.caps()
        self.facts = OutboxFacts()
        self._db, self._book = db, TransactionBook(db.journal.db, wallet.address)
        self._source = SingleSource(rpc)
        self._floor: int | None = None
        self._market: tuple[float, Market] | None = None
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._woken = asyncio.Event()
        self._reorganised = True
        self._watched_at = self._balance_at = 0.0
        self._found: OrderedDict[bytes, Receipt] = OrderedDict()
        self._sent_at: dict[int, float] = {}
        self._passed_at: dict[int, float] = {}
        self._gap_at: dict[int, float] = {}
        self._log = Log("worker.outbox")

    # What others do with it.

    async def submit(
        self,
        to: str | None,
        data: bytes,
        *,
        value: int = 0,
        gas: int | None = None,
        purpose: str = "other",
        key: bytes = b"",
        keys: Sequence[bytes] = (),
        along: Callable[[bytes], object] | None = None,
    ) -> SignedTransaction:
        """Store, then broadcast. The hash is of the one that lives already where `purpose` and `key` have one.

        `keys` are more that the same transaction does; `along` is as in TransactionBook.add. An endpoint that does not take
        the transaction raises nothing: it is stored, and rounds see to it. Raises Retryable `wallet.funds` and
        `transaction.fee_cap`, before anything is stored.
        """
        wanted = (*([key] if key else []), *keys)
        limit = gas if gas is not None else await self.estimate(to, data, value)
        check_gas(limit)
        async with self._lock:
            alive = await self._db(self._book.alive, purpose, [key]) if key else {}
            if key in alive:
                return SignedTransaction(alive[key], b"", -1)
            fees = self.caps.offer(await self._fresh_market())
            await self._check_funds(limit * fees.most + value)
            nonce = await self._db(self._book.next_nonce, await self._chain_nonce())
            signed = await self.sign(to, data, value, limit, nonce, fees)
            await self._db(self._book.add, new_row(signed.hash, signed.raw, nonce, purpose, fees), wanted, along)
        self.facts.pending += 1
        await self._broadcast([(nonce, signed.raw)])
        self._woken.set()
        return signed

    async def alive(self, purpose: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Which of `keys` a transaction of ours does already, and its hash."""
        return await self._db(self._book.alive, purpose, keys)

    async def wait(self, transaction_hash: bytes, *, patience: float = 300.0) -> Receipt:
        """Raises Retryable `transaction.dropped` for one that will never be mined, and `transaction.unmined`."""
        receipt = await self.outcome(transaction_hash, patience)
        if receipt is None:
            raise Retryable("transaction.dropped", f"transaction 0x{transaction_hash.hex()} will not be mined")
        return receipt

    async def outcome(self, transaction_hash: bytes, patience: float) -> Receipt | None:
        """The receipt of the transaction or of what replaced it, once it stands in the canonical chain; None where another
        has its nonce. Raises Retryable `transaction.unmined` after `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.setdefault(transaction_hash, set()).add(news)
                    try:
                        slot = await self._db(self._book.slot_of, transaction_hash)
                        if not slot:
                            # Of an earlier release, of another wallet, or over for long.
                            return await self.receipt(transaction_hash)
                        over = is_over(slot)
                        if over is not None:
                            if over.purpose == GAP:
                                return None
                            receipt = self._found.get(over.hash)
                            if receipt is None or receipt.block_hash != over.block_hash:
                                receipt = await self.receipt(over.hash)
                            if receipt is not None:
                                return receipt
                            self.reorganised()
                        elif all(each.fate is Fate.DEAD for each in slot):
                            return None
                        await news
                    finally:
                        self._forget_waiter(transaction_hash, news)
        except TimeoutError:
            raise Retryable("transaction.unmined", f"transaction 0x{transaction_hash.hex()} is not mined yet") from None

    def wake(self) -> None:
        """There is a new block."""
        self._woken.set()

    def reorganised(self) -> None:
        """Blocks were replaced: what was mined has to be looked at again, and the nonce too."""
        self._reorganised = True
        self._found.clear()
        self._floor = None
        self._woken.set()

    def forget_nonce(self) -> None:
        self.reorganised()

    async def run(self) -> None:
        """Until cancelled. What an endpoint does wrong costs a round."""
        pause = self._poll
        while True:
            self._woken.clear()
            try:
                busy = await self.round()
                pause = self._poll if busy else min(1.0, 1.5 * pause)
            except Retryable as error:
                pause = min(5.0, max(1.0, 2 * pause))
                self._log.warning("the outbox cannot look after its transactions now", code=error.code)
            if not self.facts.pending:
                pause = self.config.watch_seconds
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(self._poll / 5)  # many wake at once; one round serves them all

    # One round.

    async def round(self) -> bool:
        """Look after everything once; whether anything moved."""
        slots: dict[int, list[Transaction]] = {}
        for row in await self._db(self._book.open):
            slots.setdefault(row.nonce, []).append(row)
        moved = await self._find_receipts(slots)
        left = {nonce: slot for nonce, slot in slots.items() if nonce not in moved}
        self.facts.pending = len(left)
        self.facts.stuck = self.facts.capped = 0
        if left or self._reorganised:
            count = as_int(await self.rpc.call("eth_getTransactionCount", self.address, "latest"))
            if self._reorganised:
                await self._check_final(count)
            if left:
                await self._push(left, count)
        if self._reorganised or time.monotonic() - self._watched_at > self.config.watch_seconds:
            self._reorganised, self._watched_at = False, time.monotonic()
            await self._watch(await self._db(self._book.watched))
        for known in (self._sent_at, self._passed_at):
            for nonce in [each for each in known if each not in slots]:
                known.pop(nonce, None)
        return bool(moved)

    async def _find_receipts(self, slots: dict[int, list[Transaction]]) -> set[int]:
        """Nonces that were found in the canonical chain."""
        asked = [row for nonce in sorted(slots) for row in slots[nonce]][:AT_ONCE]
        found = await self._receipts(asked)
        if found:
            await self._db(self._book.mined, [_mined(receipt) for receipt in found.values()])
        nonces = {row.nonce for row in asked if row.hash in found}
        self._tell(row for nonce in nonces for row in slots[nonce])
        return nonces

    async def _receipts(self, rows: Sequence[Transaction]) -> dict[bytes, Receipt]:
        """By hash, those whose block is the canonical one of its number: endpoints keep receipts of blocks that are gone."""
        if not rows:
            return {}
        answers = await self.rpc.batch([("eth_getTransactionReceipt", [as_hex(row.hash)]) for row in rows])
        found: dict[bytes, Receipt] = {}
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, dict):
                receipt = read_receipt(answer)
                if receipt.transaction_hash == row.hash:
                    found[row.hash] = receipt
        numbers = sorted({receipt.block_number for receipt in found.values()})
        blocks = await self.rpc.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
        canonical = {
            number: as_bytes(block.get("hash"), 32)
            for number, block in zip(numbers, blocks, strict=True)
            if isinstance(block, dict)
        }
        found = {h: each for h, each in found.items() if canonical.get(each.block_number) == each.block_hash}
        # Many tasks wait for one of them.
        self._found |= found
        while len(self._found) > REMEMBERED:
            self._found.popitem(last=False)
        return found

    async def _push(self, slots: dict[int, list[Transaction]], count: int) -> None:
        """Towards the chain: what has no receipt and is not `count` transactions behind."""
        now, unsent = time.monotonic(), []
        for nonce in sorted(slots)[:AT_ONCE]:
            slot = slots[nonce]
            if nonce < count:
                await self._passed(nonce, slot, now)
                continue
            self._passed_at.pop(nonce, None)
            newest = slot[-1]
            waited = time.time() - newest.made_at
            if nonce == count and not 0 <= waited < self.config.replace_seconds and await self._replace(slot):
                continue
            self.facts.stuck += waited >= self.config.replace_seconds
            if now - self._sent_at.get(nonce, -1e9) >= self.config.rebroadcast_seconds:
                unsent.append((nonce, newest.raw))
        await self._broadcast(unsent)
        await self._fill_gap(min(slots), count, now)

    async def _passed(self, nonce: int, slot: Sequence[Transaction], now: float) -> None:
        """The chain has the nonce and no receipt of ours: an endpoint that lags, or another program with this key."""
        since = self._passed_at.setdefault(nonce, now)
        if now - since < self.config.displaced_seconds:
            return
        await self._db(self._book.dead, nonce)
        self._floor = None
        self._passed_at.pop(nonce, None)
        self.facts.displaced += 1
        self._log.error(
            "another program sends from this wallet: its transaction took the place of one of ours",
            wallet=self.address,
            nonce=nonce,
            transaction=slot[-1].hash.hex(),
        )
        self._tell(slot)

    async def _replace(self, slot: list[Transaction]) -> bool:
        """The next to be mined has waited too long: offer more for it, or for nothing in its place where it is no longer
        wanted. False where that is not to be."""
        newest, dearest = slot[-1], Fees(max(r.fees.most for r in slot), max(r.fees.tip for r in slot))
        fees = self.caps.replacement(dearest, await self._fresh_market())
        if fees is None:
            self.facts.capped += 1
            self._log.warning(
                "a transaction waits at the fee cap",
                nonce=newest.nonce,
                offered=dearest.most,
                cap=self.caps.most,
                transaction=newest.hash.hex(),
            )
            return False
        call = _read_raw(newest.raw)
        purpose = newest.purpose
        if purpose != GAP and await self._is_unwanted(call):
            purpose, call = GAP, _nothing(self.address)
        signed = await self.sign(call.to, call.data, call.value, call.gas, newest.nonce, fees)
        await self._db(self._book.stand_in, new_row(signed.hash, signed.raw, newest.nonce, purpose, fees))
        self.facts.replaced += 1
        self._log.warning(
            "a stuck transaction is replaced",
            nonce=newest.nonce,
            purpose=purpose,
            was=newest.hash.hex(),
            transaction=signed.hash.hex(),
            max_fee=fees.most,
        )
        await self._broadcast([(newest.nonce, signed.raw)])
        return True

    async def _is_unwanted(self, call: _Call) -> bool:
        """At the head, where a node's own pool has not been applied: there it would have done itself already."""
        asked = {"from": self.address, "to": call.to, "data": as_hex(call.data), "value": hex(call.value)}
        try:
            await self.rpc.call("eth_call", asked, "latest")
        except RpcFault as fault:
            return isinstance(self.explained(fault), Reverted)
        except Retryable:
            return False  # not known now: what was wanted still is
        return False

    async def _fill_gap(self, lowest: int, count: int, now: float) -> None:
        """Nonces that were dropped, or that another program took back, stop all behind them: they are used up."""
        if lowest <= count or await self._db(self._book.has_nonce, count):
            self._gap_at.clear()
            return
        since = self._gap_at.setdefault(count, now)
        if now - since < self.config.rebroadcast_seconds:
            return
        pooled = as_int(await self.rpc.call("eth_getTransactionCount", self.address, "pending"))
        if pooled > count:
            return  # somebody's transaction waits there
        sent: list[tuple[int, bytes]] = []
        async with self._lock:
            fees = self.caps.offer(await self._fresh_market())
            call = _nothing(self.address)
            for nonce in range(count, min(lowest, count + AT_ONCE)):
                if await self._db(self._book.has_nonce, nonce):
                    continue
                signed = await self.sign(call.to, call.data, call.value, call.gas, nonce, fees)
                await self._db(self._book.add, new_row(signed.hash, signed.raw, nonce, GAP, fees), ())
                self._log.warning("a gap in the nonces is filled", nonce=nonce, transaction=signed.hash.hex())
                sent.append((nonce, signed.raw))
        self.facts.gaps_filled += len(sent)
        await self._broadcast(sent)

    async def _watch(self, rows: Sequence[Transaction]) -> None:
        """What was mined, or given up, may have changed with the chain; what is final is booked."""
        standing: dict[bytes, Receipt] = {}
        for start in range(0, len(rows), AT_ONCE):
            standing |= await self._receipts(rows[start : start + AT_ONCE])
        moved = [r for r in rows if r.hash in standing and r.block_hash != standing[r.hash].block_hash]
        await self._db(self._book.mined, [_mined(standing[row.hash]) for row in moved])
        self._tell(row for row in rows if row.hash in standing)
        gone = [row for row in rows if row.fate is Fate.MINED and row.hash not in standing]
        if gone:
            self.facts.reorganised += len(gone)
            self._log.warning("transactions lost their blocks; they are sent again", transactions=len(gone))
            await self._db(self._book.unmined, [row.hash for row in gone])
            self.facts.pending += len(gone)
            await self._broadcast([(row.nonce, row.raw) for row in gone])
            self._woken.set()
        if standing:
            final = await self._final_block()
            await self._db(self._book.final, [h for h, each in standing.items() if each.block_number <= final])
        await self._db(self._book.prune, time.time())
        self.facts.balance = as_int(await self.rpc.call("eth_getBalance", self.address, "latest"))
        self.facts.gas_spent = await self._db(self._book.spent)

    async def _check_final(self, count: int) -> None:
        """A chain that undoes what it called final breaks its word, and must not stop us."""
        rows = (await self._db(self._book.final_from, count))[:AT_ONCE]
        standing = await self._receipts(rows)
        gone = [row for row in rows if row.hash not in standing]
        if not gone:
            return
        self.facts.reorganised += len(gone)
        self._log.error(
            "the chain undid blocks that it had called final; transactions in them are asked for anew",
            transactions=len(gone),
            nonces=[row.nonce for row in gone],
        )
        await self._db(self._book.lost, [row.hash for row in gone])
        self._floor = None
        self._tell(gone)

    async def _final_block(self) -> int:
        """Its number; -1 on a chain that is younger than that."""
        try:
            return (await self._source.confirmed(Confirmation.FINALIZED)).number
        except Retryable:
            return -1

    # Towards the endpoint.

    async def _broadcast(self, transactions: Sequence[tuple[int, bytes]]) -> None:
        """To the endpoint, which may say no: everything here is stored, and comes again."""
        if not transactions:
            return
        try:
            answers = await self.rpc.batch([("eth_sendRawTransaction", [as_hex(raw)]) for _, raw in transactions])
        except Retryable as error:
            self._log.warning("transactions could not be sent; they are sent again", code=error.code)
            return
        now = time.monotonic()
        for (nonce, _), answer in zip(transactions, answers, strict=True):
            self._sent_at[nonce] = now
            if isinstance(answer, RpcFault) and not any(text in str(answer) for text in HARMLESS):
                fault: OracleError = self.explained(answer)
                self._log.warning(
                    "an endpoint does not take a transaction", nonce=nonce, code=fault.code, message=fault.message
                )

    async def _fresh_market(self) -> Market:
        now = time.monotonic()
        if self._market is None or now - self._market[0] > MARKET_SECONDS:
            self._market = now, await read_market(self.rpc)
        return self._market[1]

    async def _check_funds(self, wei: int) -> None:
        self.facts.balance = as_int(await self.rpc.call("eth_getBalance", self.address, "latest"))
        if self.facts.balance < wei:
            raise Retryable(
                "wallet.funds",
                "the wallet cannot pay for this transaction and its gas",
                found=self.facts.balance,
                expected=f"at least {wei} wei in {self.address}",
                hint="Send it some of the chain's currency",
            )

    async def _chain_nonce(self) -> int:
        """What the chain and the endpoint's pool have of this wallet; the book knows better where it knows more."""
        if self._floor is None:
            self._floor = as_int(await self.rpc.call("eth_getTransactionCount", self.address, "pending"))
        return self._floor

    def _tell(self, rows: Iterable[Transaction]) -> None:
        for row in rows:
            for news in self._waiting.get(row.hash, ()):
                if not news.done():
                    news.set_result(None)

    def _forget_waiter(self, transaction_hash: bytes, news: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(transaction_hash, set())
        waiters.discard(news)
        if not waiters:
            self._waiting.pop(transaction_hash, None)


@dataclass(frozen=True)
class _Call:
    to: str | None
    data: bytes
    value: int
    gas: int


def _nothing(wallet: str) -> _Call:
    return _Call(wallet, b"", 0, GAP_GAS)


def _read_raw(raw: bytes) -> _Call:
    """What a transaction of ours does."""
    fields: dict[str, Any] = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    to = bytes(fields["to"])
    return _Call(
        str(to_checksum_address(to)) if to else None, bytes(fields["data"]), int(fields["value"]), int(fields["gas"])
    )


def _mined(receipt: Receipt) -> Mined:
    spent = receipt.gas_used * receipt.gas_price
    return Mined(receipt.transaction_hash, receipt.block_number, receipt.block_hash, spent, receipt.ok)
