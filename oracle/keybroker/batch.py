"""Reads that are begun together go out as one JSON-RPC batch, whichever readers begin them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from enclave_app.protocol.structs import Confirmation
from oracle.chain.source import Block, Call, Source
from oracle.errors import Refused


class OneBatch:
    """A `Source` at one block: the `calls` of one turn of the event loop are one call of the source behind it."""

    def __init__(self, source: Source, at: Block) -> None:
        self._source, self._at = source, at
        self._waiting: list[tuple[Sequence[Call], asyncio.Future[list[bytes]]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def calls(self, calls: Sequence[Call], at: Block) -> list[bytes]:
        if at != self._at:
            raise Refused("chain.block", "a read names another block than its batch", found=at.number)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[bytes]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._start)
        self._waiting.append((calls, answer))
        return await answer

    def _start(self) -> None:
        task = asyncio.create_task(self._send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            data = await self._source.calls([call for calls, _ in waiting for call in calls], self._at)
        except Exception as error:  # every reader of the batch gets it
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            return
        for calls, answer in waiting:
            mine, data = data[: len(calls)], data[len(calls) :]
            if not answer.done():
                answer.set_result(mine)

    async def chain_id(self) -> int:
        return await self._source.chain_id()

    async def block(self, number: int) -> Block | None:
        return await self._source.block(number)

    async def block_by_hash(self, block_hash: bytes) -> Block | None:
        return await self._source.block_by_hash(block_hash)

    async def confirmed(self, rule: Confirmation, depth: int = 0) -> Block:
        return await self._source.confirmed(rule, depth)
