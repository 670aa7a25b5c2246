"""Follows the chain's logs into the journal: first the blocks that were missed, then the head.

A subscription loses what happens while it is down, and gives no word of logs that a reorganisation removed; so it is a reason
to look, and no more. This looks always from the stored cursor on, and compares block hashes. Near the head each block's header
is read as well: the blocks have to hang together, logs have to be theirs, and what a header's bloom may hold is asked for again
where no log came: nodes that are behind or overloaded leave logs out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from enclave_app.protocol.structs import Confirmation
from oracle.chain.abi import Log as ChainLog
from oracle.chain.bloom import BYTES, Wanted
from oracle.chain.events import Event, get_logs, get_logs_of, read_event, topic
from oracle.chain.rpc import Rpc, as_bytes
from oracle.chain.source import Block, SingleSource, read_block
from oracle.chain.subscription import Heads
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

NEAR = 32
"""Blocks at once whose headers are read, too. A longer past is taken in without them."""
CALM_DEPTH = 64
"""Blocks below the head that a reorganisation seldom reaches."""
SUBSCRIBED_POLL = 4.0
"""Seconds between two looks while a subscription stands."""


class Follower:
    """`on_news` is awaited after each transaction that took new events in (False), or rewound (True).

    `poll` in seconds; `first_block` is where the contracts' logs begin; `subscribe` the URL of a WebSocket that tells of new
    heads.
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
        subscribe: str | None = None,
    ) -> None:
        self._rpc, self._source, self._journal = rpc, SingleSource(rpc), journal
        self._addresses, self._first, self._poll, self._on_news = addresses, first_block, poll, on_news
        self._topics = [[topic(name) for name in FOLLOWED]]
        self._wanted = Wanted(addresses, self._topics[0])
        self._look = asyncio.Event()
        self.heads = None if subscribe is None else Heads(subscribe, self._look.set)
        self._range = MAX_RANGE
        self._log = Log("worker.follower")
        self.head: Block | None = None
        self.caught_up = asyncio.Event()

    def set_poll(self, seconds: float) -> None:
        self._poll = seconds

    async def run(self) -> None:
        """Until cancelled. Faults of an endpoint are waited out."""
        if self.heads is None:
            await self._follow()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self.heads.run())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        failures = 0
        while True:
            self._look.clear()
            pause = self._poll if self.heads is None or not self.heads.alive else max(self._poll, SUBSCRIBED_POLL)
            try:
                behind = await self.step()
                failures = 0
            except (Retryable, Refused) as error:
                # Refused, too: what an endpoint answers is no reason to stop working for ever.
                self._log.warning("the chain cannot be followed now", code=error.code, message=error.message)
                failures += 1
                pause, behind = min(max(self._poll, 0.25) * 2.0 ** min(failures, 10), 15.0), False
            if not behind:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._look.wait()

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
        if last - first < NEAR:
            parent = None if cursor is None or cursor[1] == bytes(32) else cursor[1]
            logs = await self._complete(first, upto, logs, parent)
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
            # An endpoint that takes fewer at once, one that needs too long, or an answer larger than we take.
            if first == upto.number or not (isinstance(fault, RpcFault) or fault.code in ("rpc.size", "rpc.timeout")):
                raise
            self._range = max(1, min(self._range, upto.number - first + 1) // 2)
            self._log.warning("asking for fewer blocks at once", blocks=self._range, message=fault.message)
            return None
        self._range = min(MAX_RANGE, self._range * 2)
        if any(log.block_number == upto.number and log.block_hash != upto.hash for log in logs):
            raise Retryable("chain.reorganising", "the chain changed between two questions")
        return logs

    async def _complete(self, first: int, upto: Block, logs: list[ChainLog], parent: bytes | None) -> list[ChainLog]:
        """The logs of blocks that hang together, from `parent` on, with those that were left out at first."""
        answers = await self._rpc.batch(
            [("eth_getBlockByNumber", (hex(number), False)) for number in range(first, upto.number + 1)]
        )
        by_hash: dict[bytes, list[ChainLog]] = {}
        for log in logs:
            by_hash.setdefault(log.block_hash, []).append(log)
        complete: list[ChainLog] = []
        for number, answer in enumerate(answers, first):
            block = None if isinstance(answer, RpcFault) else read_block(answer)
            if block is None or block.number != number or (parent is not None and block.parent != parent):
                raise Retryable("chain.reorganising", "the chain changed between two questions", found=number)
            found = by_hash.pop(block.hash, [])
            if not found and self._wanted.may_be_in(as_bytes(answer.get("logsBloom"), BYTES)):
                # By hash: a node that does not have the block says so, and gives no empty list.
                found = await get_logs_of(self._rpc, self._addresses, block.hash, self._topics)
                if found:
                    self._log.warning("an endpoint left logs out at first", block=number, logs=len(found))
            complete += found
            parent = block.hash
        if parent != upto.hash or by_hash:
            raise Retryable("chain.reorganising", "the chain changed between two questions", found=upto.number)
        return complete

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
