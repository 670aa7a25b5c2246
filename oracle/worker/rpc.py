"""Several JSON-RPC endpoints as one: the next one is asked when one cannot answer. No safety rests on what they say (R13)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from oracle.chain.rpc import Rpc
from oracle.errors import Retryable, RpcFault
from oracle.logs import Log

T = TypeVar("T")


class FailoverRpc(Rpc):
    """Stays with an endpoint for as long as it answers; an error that an endpoint reports is an answer."""

    def __init__(self, urls: Sequence[str], *, timeout: float = 20.0) -> None:
        super().__init__(urls[0], timeout=timeout)
        self._endpoints = [Rpc(url, timeout=timeout) for url in urls]
        self._current = 0
        self._log = Log("worker.rpc")

    async def call(self, method: str, *params: Any) -> Any:
        return await self._ask(lambda rpc: rpc.call(method, *params))

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        return await self._ask(lambda rpc: rpc.batch(calls))

    async def close(self) -> None:
        await super().close()
        for rpc in self._endpoints:
            await rpc.close()

    async def _ask(self, question: Callable[[Rpc], Awaitable[T]]) -> T:
        first = self._current
        for turn in range(len(self._endpoints)):
            index = (first + turn) % len(self._endpoints)
            try:
                answer = await question(self._endpoints[index])
            except RpcFault:
                raise
            except Retryable as error:
                if turn == len(self._endpoints) - 1:
                    raise
                self._log.warning("an RPC endpoint does not answer; asking the next", code=error.code, endpoint=index)
                continue
            self._current = index
            return answer
        raise Retryable("rpc.unreachable", "no RPC endpoint is configured")
