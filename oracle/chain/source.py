"""Where reads come from: one endpoint, or several that must agree (R13). All reads name one block by its hash."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from enclave_app.protocol.structs import Confirmation
from oracle.chain.abi import explain_revert
from oracle.chain.rpc import Rpc, as_bytes, as_hex, as_int
from oracle.errors import OracleError, Refused, Retryable, RpcFault

T = TypeVar("T")
_TAGS = {Confirmation.LATEST: "latest", Confirmation.SAFE: "safe", Confirmation.FINALIZED: "finalized"}


@dataclass(frozen=True)
class Block:
    """`timestamp` in unix seconds."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int


@dataclass(frozen=True)
class Call:
    to: str
    data: bytes


class Source(Protocol):
    async def chain_id(self) -> int: ...
    async def block(self, number: int) -> Block | None: ...
    async def block_by_hash(self, block_hash: bytes) -> Block | None: ...
    async def confirmed(self, rule: Confirmation, depth: int = 0) -> Block: ...
    async def calls(self, calls: Sequence[Call], at: Block) -> list[bytes]:
        """The return data of each call at `at`; a refusal raises, decoded."""
        ...


class SingleSource:
    """One endpoint, believed. For workers and users; a broker needs `QuorumSource`."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc

    async def chain_id(self) -> int:
        return as_int(await self.rpc.call("eth_chainId"))

    async def block(self, number: int) -> Block | None:
        return read_block(await self.rpc.call("eth_getBlockByNumber", hex(number), False))

    async def block_by_hash(self, block_hash: bytes) -> Block | None:
        return read_block(await self.rpc.call("eth_getBlockByHash", as_hex(block_hash), False))

    async def confirmed(self, rule: Confirmation, depth: int = 0) -> Block:
        block = read_block(await self.rpc.call("eth_getBlockByNumber", _TAGS[rule], False))
        if block is not None and depth:
            block = await self.block(max(0, block.number - depth))
        if block is None:
            raise Retryable("chain.no_block", f"{self.rpc.name} knows no {_TAGS[rule]} block yet")
        return block

    async def calls(self, calls: Sequence[Call], at: Block) -> list[bytes]:
        place = {"blockHash": as_hex(at.hash), "requireCanonical": True}
        answers = await self.rpc.batch([("eth_call", [{"to": c.to, "data": as_hex(c.data)}, place]) for c in calls])
        for answer in answers:
            if isinstance(answer, RpcFault):
                raise explain_revert(answer)
        return [as_bytes(answer) for answer in answers]


class QuorumSource:
    """Several endpoints; what fewer than `quorum` of them say is not believed (R13)."""

    def __init__(self, sources: Sequence[SingleSource], quorum: int) -> None:
        if not 1 <= quorum <= len(sources):
            raise Refused("chain.quorum", "the quorum must be between 1 and the number of endpoints", found=quorum)
        self._sources, self._quorum = tuple(sources), quorum

    async def chain_id(self) -> int:
        return await self._agree(lambda s: s.chain_id(), "the chain id")

    async def block(self, number: int) -> Block | None:
        return await self._agree(lambda s: s.block(number), f"block {number}")

    async def block_by_hash(self, block_hash: bytes) -> Block | None:
        return await self._agree(lambda s: s.block_by_hash(block_hash), "a block")

    async def confirmed(self, rule: Confirmation, depth: int = 0) -> Block:
        """The highest block that a quorum calls confirmed: endpoints lag, so the lowest of the quorum's best."""
        heads = [h for h in await self._ask(lambda s: s.confirmed(rule, depth)) if isinstance(h, Block)]
        if len(heads) < self._quorum:
            raise Retryable("chain.quorum", "too few RPC endpoints answer", found=len(heads), expected=self._quorum)
        number = sorted((h.number for h in heads), reverse=True)[self._quorum - 1]
        block = await self.block(number)
        if block is None:
            raise Retryable("chain.no_block", "the confirmed block is gone; the chain is reorganising")
        return block

    async def calls(self, calls: Sequence[Call], at: Block) -> list[bytes]:
        return list(await self._agree(lambda s: _frozen(s.calls(calls, at)), f"the state at block {at.number}"))

    async def _ask(self, question: Callable[[SingleSource], Awaitable[T]]) -> list[T | BaseException]:
        return await asyncio.gather(*(question(s) for s in self._sources), return_exceptions=True)

    async def _agree(self, question: Callable[[SingleSource], Awaitable[T]], what: str) -> T:
        answers = await self._ask(question)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, OracleError):
                raise answer
        counts = Counter(a for a in answers if not isinstance(a, BaseException))
        if counts:
            answer, votes = counts.most_common(1)[0]
            if votes >= self._quorum:
                return answer
        faults = [a for a in answers if isinstance(a, OracleError)]
        refusals = Counter(f.code for f in faults if not isinstance(f, Retryable))
        if refusals and refusals.most_common(1)[0][1] >= self._quorum:
            raise next(f for f in faults if f.code == refusals.most_common(1)[0][0])
        raise Retryable(
            "chain.disagree",
            f"RPC endpoints do not agree on {what}",
            found=f"{len(counts)} answers, {len(faults)} faults",
        )


async def _frozen(calls: Awaitable[list[bytes]]) -> tuple[bytes, ...]:
    return tuple(await calls)


def read_block(answer: Any) -> Block | None:
    """Of an RPC answer; None where the endpoint has none. Raises Refused `rpc.block` and as rpc.py."""
    if answer is None:
        return None
    if not isinstance(answer, dict):
        raise Refused("rpc.block", "an RPC answer holds no block where one belongs")
    return Block(
        number=as_int(answer.get("number")),
        hash=as_bytes(answer.get("hash"), 32),
        parent=as_bytes(answer.get("parentHash"), 32),
        timestamp=as_int(answer.get("timestamp")),
    )
