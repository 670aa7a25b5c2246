"""Follows the chain's logs into the journal: first the blocks that were missed, then the head.

A subscription loses what happens while it is down, and gives no word of logs that a reorganisation removed; so this polls,
always from the stored cursor, and compares block hashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from enclave_app.protocol.structs import Confirmation
from oracle.chain.abi import Log as ChainLog
from oracle.chain.events import Event, get_logs, read_event, topic
from oracle.chain.rpc import Rpc
from oracle.chain.source import Block, SingleSource
from oracle.errors import Refused, Retryable, RpcFault
from oracle.logs import Log
from oracle.worker.journal import JournalThread

FOLLOWED = (
    "AgreementApproved",
    "AgreementActivated",
    "TaskRequested",
    "TaskFulfilled",
    "TaskFulfilledInBatch",
    "TaskCancelled",
    "TaskExpired",
)
MAX_RANGE = 2000
"""Blocks asked for at once; halved while an endpoint refuses, for each has its own limit."""

CALM_DEPTH = 64
"""Blocks below the head that a reorganisation seldom reaches."""


class Follower:
    """`on_news` is awaited after each transaction that took new events in (False), or rewound (True).

    `poll` in seconds; `first_block` is where the contracts' logs begin.
    """

    def __init__(
        self,
        rpc: Rpc,
        journal: JournalThread,
        addresses: tuple[str, ...],
        first_block: int,
        *,
        poll: float,
        on_news: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._rpc, self._source, self._journal = rpc, SingleSource(rpc), journal
        self._addresses, self._first, self._poll, self._on_news = addresses, first_block, poll, on_news
        self._topics = [[topic(name) for name in FOLLOWED]]
        self._range = MAX_RANGE
        self._log = Log("worker.follower")
        self.head: Block | None = None
        self.caught_up = asyncio.Event()

    def set_poll(self, seconds: float) -> None:
        self._poll = seconds

    async def run(self) -> None:
        """Until cancelled. Faults of an endpoint are waited out."""
        pause = self._poll
        while True:
            try:
                behind = await self.step()
                pause = self._poll
            except (Retryable, Refused) as error:
                # Refused, too: what an endpoint answers is no reason to stop working for ever.
                self._log.warning("the chain cannot be followed now", code=error.code, message=error.message)
                pause, behind = min(max(pause, 0.25) * 2, 15.0), False
            if not behind:
                await asyncio.sleep(pause)

    async def step(self) -> bool:
        """Take in one range of blocks, or rewind; returns whether there is more to do at once."""
        head = await self._head()
        cursor = await self._journal(self._journal.journal.cursor)
        if cursor is not None:
            if cursor == (head.number, head.hash):
                self.caught_up.set()
                return False
            if await self._rewound(head):
                return True
            if head.number <= cursor[0]:
                return False  # this endpoint lags; nothing it said contradicts what is known
        first = self._first if cursor is None else cursor[0] + 1
        if head.number < first:
            return False
        # A missed past is taken in up to some way below the head first, so that a reorganisation finds a known block there
        # instead of sending us back to the beginning.
        calm = head.number - CALM_DEPTH
        last = min(head.number if first > calm else calm, first + self._range - 1)
        upto = head if last == head.number else await self._source.block(last)
        if upto is None:
            return False
        logs = await self._logs(first, upto)
        if logs is None:
            return True
        new = await self._journal(self._journal.journal.take_in, self._read(logs), upto)
        if last == head.number:
            self.caught_up.set()
        if new:
            await self._on_news(False)
        return last < head.number

    async def _head(self) -> Block:
        block = await self._source.confirmed(Confirmation.LATEST)
        self.head = block
        return block

    async def _rewound(self, head: Block) -> bool:
        """Find where the known blocks leave the chain, if they do, and rewind to there."""
        journal = self._journal.journal
        known = await self._journal(journal.block_at_most, head.number)
        if known is None or await self._is_canonical(known, head):
            return False
        forked_at = known[0]
        while known is not None and not await self._is_canonical(known, head):
            known = await self._journal(journal.block_at_most, known[0] - 1)
        number, block_hash = known if known is not None else (self._first - 1, bytes(32))
        await self._journal(journal.rewind, number, block_hash)
        self._log.warning("the chain was reorganised", changed_at=forked_at, rewound_to=number)
        await self._on_news(True)
        return True

    async def _is_canonical(self, known: tuple[int, bytes], head: Block) -> bool:
        if known[0] == head.number:
            return known[1] == head.hash
        if known[0] == head.number - 1:
            return known[1] == head.parent
        block = await self._source.block(known[0])
        if block is None:
            raise Retryable("chain.no_block", "an endpoint does not know a block below its own head", found=known[0])
        return block.hash == known[1]

    async def _logs(self, first: int, upto: Block) -> list[ChainLog] | None:
        """The logs of a range, or None when it has to be asked for in smaller parts, or changed meanwhile."""
        try:
            logs = await get_logs(self._rpc, self._addresses, first, upto.number, self._topics)
        except Retryable as fault:
            # An endpoint that takes fewer at once, or an answer larger than we do.
            if self._range == 1 or not (isinstance(fault, RpcFault) or fault.code == "rpc.size"):
                raise
            self._range = max(1, self._range // 2)
            self._log.warning("asking for fewer blocks at once", blocks=self._range, message=fault.message)
            return None
        self._range = min(MAX_RANGE, self._range * 2)
        if any(log.block_number == upto.number and log.block_hash != upto.hash for log in logs):
            raise Retryable("chain.reorganising", "the chain changed between two questions")
        return logs

    def _read(self, logs: list[ChainLog]) -> list[Event]:
        events = []
        for log in logs:
            try:
                event = read_event(log)
            except Refused as error:
                # Anyone can request with text that is no UTF-8: one such log must not stop all others.
                self._log.warning(
                    "a log cannot be read and is left out",
                    code=error.code,
                    message=error.message,
                    transaction=log.transaction_hash.hex(),
                    index=log.index,
                )
                continue
            if event is not None and log.address in self._addresses:
                events.append(event)
        return events
