"""Several JSON-RPC endpoints as one: the next one is asked when one cannot answer. No safety rests on what they say (R13)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from oracle.chain.rpc import Rpc
from oracle.errors import Retryable, RpcFault
from oracle.logs import Log

T = TypeVar("T")


class FailoverRpc(Rpc):
    """Stays with an endpoint for as long as it answers; an error that an endpoint reports is an answer."""

    def __init__(self, urls: Sequence[str], *, timeout: float = 20.0) -> None:
        super().__init__(urls[0], timeout=timeout)
        self._endpoints = [Rpc(url, timeout=timeout) for url in urls]
        self._retired: list[Rpc] = []
        self._per_call = timeout
        self._current = 0
        self.errors: Counter[tuple[str, str]] = Counter()
        """Failed calls by endpoint (host and port only: paths and queries hold keys) and code, since the start."""
        self._log = Log("worker.rpc")

    async def call(self, method: str, *params: Any) -> Any:
        return await self._ask(lambda rpc: rpc.call(method, *params))

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        return await self._ask(lambda rpc: rpc.batch(calls))

    def replace(self, urls: Sequence[str]) -> None:
        """Ask these from now on. Calls that are under way end where they began."""
        known = {rpc.url: rpc for rpc in self._endpoints}
        endpoints = [known[url] if url in known else Rpc(url, timeout=self._per_call) for url in urls]
        self._retired += [rpc for url, rpc in known.items() if url not in urls]
        self._endpoints, self._current = endpoints, 0

    async def close(self) -> None:
        await super().close()
        for rpc in (*self._endpoints, *self._retired):
            await rpc.close()

    async def _ask(self, question: Callable[[Rpc], Awaitable[T]]) -> T:
        first, endpoints = self._current, self._endpoints
        for turn in range(len(endpoints)):
            index = (first + turn) % len(endpoints)
            try:
                answer = await question(endpoints[index])
            except RpcFault:
                raise
            except Retryable as error:
                self.errors[place_of(endpoints[index].url), error.code] += 1
                if turn == len(endpoints) - 1:
                    raise
                self._log.warning("an RPC endpoint does not answer; asking the next", code=error.code, endpoint=index)
                continue
            if endpoints is self._endpoints:
                self._current = index
            return answer
        raise Retryable("rpc.unreachable", "no RPC endpoint is configured")


def place_of(url: str) -> str:
    """What of an endpoint's URL may be shown."""
    parts = urlsplit(url)
    return parts.hostname or "" if parts.port is None else f"{parts.hostname}:{parts.port}"
