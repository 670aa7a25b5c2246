"""Several JSON-RPC endpoints as one: health, failover, a quorum where one is asked for, and the pace that each allows.

No safety rests on what they say (R13): brokers and the contract check everything again. What rests on it is that the worker
neither stands still nor works for nothing. So an endpoint is believed once it was seen to serve the right chain, and not
while it fails, lags behind the others, or asks us to wait.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from enclave_app.protocol.digests import keccak
from oracle.chain.rpc import RateLimited, Rpc, as_bytes, as_hex, as_int
from oracle.errors import OracleError, Permanent, Retryable, RpcFault
from oracle.logs import Log

T = TypeVar("T")
LOOK_SECONDS: Final = 15.0
"""How often the heads of all endpoints are compared."""
LOOK_PATIENCE: Final = 2.0
BENCH_FIRST: Final = 1.0
BENCH_MOST: Final = 30.0
WRONG_SECONDS: Final = 300.0
"""How long an endpoint of another chain is left alone."""
PACE_PATIENCE: Final = 10.0
"""The longest that a call waits for its turn at an endpoint's pace."""
_AGREED: Final = frozenset({"eth_getBlockByNumber", "eth_getBlockByHash", "eth_getLogs", "eth_getTransactionReceipt"})
"""What a quorum has to agree on: the chain as it is followed. State is read at blocks by their hash."""
_TAGS: Final = frozenset({"latest", "safe", "finalized"})
_KNOWN: Final = ("already known", "already imported", "known transaction", "alreadyknown")


@dataclass(frozen=True)
class Health:
    """What is known of an endpoint: `name` is its host and port, `head` the last block number that it named, `waits` the
    seconds for which it is left alone."""

    name: str
    usable: bool
    failures: int
    head: int | None
    latency: float | None
    waits: float


class Pace:
    """At most `rate` requests a second on average (None: as many as may be), ten of them at once."""

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._next = 0.0

    async def turn(self, requests: int = 1) -> None:
        """Wait for it. Raises RateLimited where that would take too long."""
        if self._rate is None:
            return
        now = self._clock()
        burst = 10 / self._rate
        at = max(self._next, now - burst)
        if at - now > PACE_PATIENCE:
            raise RateLimited("rpc.paced", "an RPC endpoint's pace leaves no room now", at - now)
        self._next = at + requests / self._rate
        if at > now:
            await asyncio.sleep(at - now)


class Endpoint:
    """One of them, with what is known of it."""

    def __init__(self, url: str, rate: float | None, timeout: float) -> None:
        self.rpc = Rpc(url, timeout=timeout)
        self.pace = Pace(rate)
        self.rate = rate
        self.checked = False
        self.failures = 0
        self.until = 0.0
        self.left_alone = -math.inf
        self.barred = False
        self.lock = asyncio.Lock()
        self.head: int | None = None
        self.latency: float | None = None

    @property
    def name(self) -> str:
        return self.rpc.name

    def waits(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def worked(self, seconds: float) -> None:
        self.failures = 0
        self.latency = seconds if self.latency is None else 0.8 * self.latency + 0.2 * seconds

    def failed(self, error: OracleError, asked: float) -> None:
        """`asked` is when, by the monotonic clock: what was under way when it failed is the same failure, and no further one."""
        if asked >= self.left_alone:
            self.failures += 1
        seconds = min(BENCH_MOST, BENCH_FIRST * 2.0 ** min(max(self.failures - 1, 0), 10)) * random.uniform(0.7, 1.3)  # noqa: S311
        if isinstance(error, RateLimited):
            seconds = max(seconds, error.seconds)
        self.barred = isinstance(error, RateLimited) or error.code == "chain.wrong"
        if error.code == "chain.wrong":
            seconds = WRONG_SECONDS
        self.left_alone = time.monotonic()
        self.until = max(self.until, self.left_alone + seconds)
        # What comes back may be another chain.
        self.checked = False


class Endpoints(Rpc):
    """`urls` with the requests a second that each allows, or None. `quorum` of them have to say the same of blocks, logs and
    receipts. `chain_id` and `genesis` are what they have to serve; without a genesis, the first one's counts for all.

    `on_error` is told the name and the code of each failure. Raises Retryable while none answers, and Permanent
    `chain.wrong` where all of them serve another chain.
    """

    def __init__(
        self,
        urls: Sequence[str | tuple[str, float | None]],
        *,
        chain_id: int | None = None,
        genesis: bytes | None = None,
        quorum: int = 1,
        max_lag: int = 16,
        timeout: float = 20.0,
        on_error: Callable[[str, str], None] | None = None,
    ) -> None:
        given = [(url, None) if isinstance(url, str) else url for url in urls]
        super().__init__(given[0][0], timeout=timeout)
        if not 1 <= quorum <= len(given):
            raise Permanent("rpc.quorum", "the quorum has to be between 1 and the number of endpoints", found=quorum)
        self._seconds, self._max_lag, self._quorum = timeout, max_lag, quorum
        self._chain_id, self.genesis = chain_id, genesis
        self._endpoints = [Endpoint(url, rate, timeout) for url, rate in given]
        self._retired: list[Endpoint] = []
        self._current = self._endpoints[0]
        self._looked = time.monotonic()
        self._sending: set[asyncio.Task[list[Any] | OracleError]] = set()
        self._on_error = on_error
        self._log = Log("chain.endpoints")

    @property
    def name(self) -> str:
        return self._current.name

    def health(self) -> tuple[Health, ...]:
        return tuple(
            Health(e.name, e.checked and not e.waits(), e.failures, e.head, e.latency, e.waits())
            for e in self._endpoints
        )

    async def call(self, method: str, *params: Any) -> Any:
        if method == "eth_sendRawTransaction":
            [answer] = await self._broadcast([str(params[0])])
            if isinstance(answer, RpcFault):
                raise answer
            return answer
        if method == "eth_getBlockByNumber" and params[0] in _TAGS:
            return await self._head(params)
        if self._quorum > 1 and method in _AGREED:
            return await self._agreed(lambda rpc: rpc.call(method, *params), method)
        return await self._ask(lambda rpc: rpc.call(method, *params))

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        if calls and all(method == "eth_sendRawTransaction" for method, _ in calls):
            return await self._broadcast([str(params[0]) for _, params in calls])
        if self._quorum > 1 and any(method in _AGREED for method, _ in calls):
            return list(await self._agreed(lambda rpc: rpc.batch(calls), "a batch"))
        return await self._ask(lambda rpc: rpc.batch(calls), len(calls))

    def replace(self, urls: Sequence[str | tuple[str, float | None]], *, quorum: int | None = None) -> None:
        """Ask these from now on. Calls that are under way end where they began. Raises as the constructor, and then changes
        nothing."""
        given = [(url, None) if isinstance(url, str) else url for url in urls]
        wanted = self._quorum if quorum is None else quorum
        if not 1 <= wanted <= len(given):
            raise Permanent("rpc.quorum", "the quorum has to be between 1 and the number of endpoints", found=wanted)
        known = {(e.rpc.url, e.rate): e for e in self._endpoints}
        self._retired += [e for place, e in known.items() if place not in given]
        self._endpoints = [known.get(place) or Endpoint(*place, self._seconds) for place in given]
        self._quorum = wanted
        if self._current not in self._endpoints:
            self._current = self._endpoints[0]

    async def close(self) -> None:
        await super().close()
        await asyncio.gather(*self._sending)  # bounded by the time that one answer may take
        for endpoint in (*self._endpoints, *self._retired):
            await endpoint.rpc.close()

    # One endpoint after the other.

    async def _ask(self, question: Callable[[Rpc], Awaitable[T]], requests: int = 1) -> T:
        failure: OracleError | None = None
        for endpoint in self._in_order():
            try:
                answer = await self._try(endpoint, question, requests)
            except RpcFault:
                self._prefer(endpoint)
                raise
            except (Retryable, Permanent) as error:
                failure = _worse(failure, error)
                continue
            self._prefer(endpoint)
            return answer
        raise failure or self._none()

    def _none(self) -> OracleError:
        """Why there is no endpoint to ask."""
        wait = min(e.waits() for e in self._endpoints)
        if all(e.barred and e.waits() > BENCH_MOST for e in self._endpoints):
            return Retryable("chain.wrong", "no RPC endpoint serves this chain, or all want to be left alone")
        return Retryable("rpc.unreachable", f"no RPC endpoint may be asked for another {wait:.0f} s")

    async def _try(self, endpoint: Endpoint, question: Callable[[Rpc], Awaitable[T]], requests: int = 1) -> T:
        """Raises RpcFault for an answer that is an error, other Retryables for a failure of the endpoint, which is then left
        alone for a while, and Permanent `chain.wrong`."""
        asked = time.monotonic()
        try:
            async with endpoint.lock:
                if not endpoint.checked:
                    await self._check(endpoint)
            await endpoint.pace.turn(requests)
            begun = time.monotonic()
            answer = await question(endpoint.rpc)
        except RpcFault:
            endpoint.worked(endpoint.latency or 0.0)
            raise
        except Permanent as error:
            if error.code == "rpc.closed":
                raise
            self._failed(endpoint, error, asked)
            raise
        except Retryable as error:
            if error.code != "rpc.size":  # a question's fault, not an endpoint's
                self._failed(endpoint, error, asked)
            raise
        endpoint.worked(time.monotonic() - begun)
        return answer

    async def _check(self, endpoint: Endpoint) -> None:
        """Whether it serves our chain: its id, and its first block, which a fork of the id does not share."""
        await endpoint.pace.turn(2)
        chain_id = as_int(await endpoint.rpc.call("eth_chainId"))
        if self._chain_id is not None and chain_id != self._chain_id:
            raise Permanent(
                "chain.wrong",
                f"the RPC endpoint {endpoint.name} serves another chain",
                found=chain_id,
                expected=self._chain_id,
            )
        first = await endpoint.rpc.call("eth_getBlockByNumber", "0x0", False)
        # Light and pruned nodes may not have it; then the id has to do.
        if isinstance(first, dict):
            genesis = as_bytes(first.get("hash"), 32)
            if self.genesis is not None and genesis != self.genesis:
                raise Permanent(
                    "chain.wrong",
                    f"the RPC endpoint {endpoint.name} serves a chain with another first block",
                    found=as_hex(genesis),
                    expected=as_hex(self.genesis),
                )
            self.genesis = genesis
        endpoint.checked = True

    def _failed(self, endpoint: Endpoint, error: OracleError, asked: float) -> None:
        endpoint.failed(error, asked)
        if error.code == "chain.wrong":
            self._log.error("an RPC endpoint serves another chain and is not used", endpoint=endpoint.name)
        else:
            self._log.warning(
                "an RPC endpoint fails and is left alone for a while",
                endpoint=endpoint.name,
                code=error.code,
                message=error.message,
                seconds=round(endpoint.waits(), 1),
            )
        if self._on_error is not None:
            self._on_error(endpoint.name, error.code)

    def _prefer(self, endpoint: Endpoint) -> None:
        if endpoint in self._endpoints:
            self._current = endpoint

    def _in_order(self) -> list[Endpoint]:
        """The one in use first, those that wait last: rather one that failed than none, but for those that asked us to wait
        or serve another chain."""
        ready = [e for e in self._endpoints if not e.waits()]
        ready.sort(key=lambda e: (e is not self._current, e.failures, e.latency or 0.0))
        if ready:
            return ready
        failing = [e for e in self._endpoints if not e.barred]
        return sorted(failing, key=lambda e: e.until)

    # What several have to say.

    async def _agreed(self, question: Callable[[Rpc], Awaitable[T]], what: str) -> T:
        """The answer that a quorum gives. Further endpoints are asked where the first ones do not agree or answer."""
        votes: Counter[str] = Counter()
        answers: dict[str, T] = {}
        failure: OracleError | None = None
        waiting = self._in_order()
        while len(waiting) + max(votes.values(), default=0) >= self._quorum:
            ask = self._quorum - max(votes.values(), default=0)
            asked, waiting = waiting[:ask], waiting[ask:]
            for found in await asyncio.gather(*(self._try(e, question) for e in asked), return_exceptions=True):
                if isinstance(found, OracleError):
                    failure = _worse(failure, found)
                    continue
                if isinstance(found, BaseException):
                    raise found
                text = _comparable(found)
                votes[text] += 1
                answers[text] = found
            for text, count in votes.items():
                if count >= self._quorum:
                    return answers[text]
        if len(votes) > 1:
            self._log.warning("RPC endpoints do not agree", what=what, answers=len(votes))
            if self._on_error is not None:
                self._on_error("all", "rpc.disagree")
            raise Retryable("rpc.disagree", f"RPC endpoints do not agree on {what}", found=f"{len(votes)} answers")
        raise failure or Retryable(
            "rpc.quorum", "too few RPC endpoints can be asked now", expected=f"{self._quorum} that agree"
        )

    async def _head(self, params: Sequence[Any]) -> Any:
        """The block of a tag. Endpoints lag: under a quorum, the highest that a quorum has reached."""
        if self._quorum > 1:
            return await self._quorum_head(params)
        if len(self._endpoints) > 1 and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            await self._look()
        answer = await self._ask(lambda rpc: rpc.call("eth_getBlockByNumber", *params))
        if params[0] == "latest":
            self._current.head = _number(answer)
        return answer

    async def _quorum_head(self, params: Sequence[Any]) -> Any:
        asked = self._in_order()
        found = await asyncio.gather(
            *(self._try(e, lambda rpc: rpc.call("eth_getBlockByNumber", *params)) for e in asked),
            return_exceptions=True,
        )
        numbers = []
        for endpoint, answer in zip(asked, found, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, OracleError):
                raise answer
            number = None if isinstance(answer, BaseException) else _number(answer)
            if number is not None:
                numbers.append(number)
                if params[0] == "latest":
                    endpoint.head = number
        if len(numbers) < self._quorum:
            failures = [each for each in found if isinstance(each, OracleError)]
            raise failures[0] if failures else Retryable("rpc.quorum", "too few RPC endpoints know a head")
        number = sorted(numbers, reverse=True)[self._quorum - 1]
        return await self._agreed(lambda rpc: rpc.call("eth_getBlockByNumber", hex(number), False), f"block {number}")

    async def _look(self) -> None:
        """Leave an endpoint that others have left behind. The highest head of three or more is nobody's word alone."""
        able = [e for e in self._endpoints if not e.waits()]

        async def look(endpoint: Endpoint) -> None:
            async with asyncio.timeout(LOOK_PATIENCE):
                endpoint.head = _number(
                    await self._try(endpoint, lambda rpc: rpc.call("eth_getBlockByNumber", "latest", False))
                )

        await asyncio.gather(*(look(e) for e in able), return_exceptions=True)
        heads = sorted((e.head for e in able if e.head is not None and not e.waits()), reverse=True)
        if not heads:
            return
        best = heads[1] if len(heads) > 2 else heads[0]
        for endpoint in able:
            if endpoint.head is not None and endpoint.head + self._max_lag < best:
                self._failed(
                    endpoint,
                    Retryable(
                        "rpc.behind", "its head is behind others'", found=endpoint.head, expected=f"about {best}"
                    ),
                    time.monotonic(),
                )

    async def _broadcast(self, raws: Sequence[str]) -> list[Any]:
        """Transactions, to all that can take them: one that keeps them to itself must not be the only one, and one that is
        slow is not waited for. In order, a hash or an RpcFault of each; what an endpoint has already is sent."""
        calls = [("eth_sendRawTransaction", [raw]) for raw in raws]
        asked = [asyncio.create_task(self._send(e, calls)) for e in self._in_order()]
        self._sending.update(asked)
        for each in asked:
            each.add_done_callback(self._sending.discard)
        answers: list[Any] | None = None
        failure: OracleError | None = None
        for sent in asyncio.as_completed(asked):
            found = await sent
            if isinstance(found, OracleError):
                failure = _worse(failure, found)
                continue
            pairs = zip(raws, found, answers or found, strict=True)
            answers = [_accepted(raw, new) if isinstance(old, RpcFault) else old for raw, new, old in pairs]
            if not any(isinstance(answer, RpcFault) for answer in answers):
                break
        if answers is None:
            raise failure or self._none()
        return answers

    async def _send(self, endpoint: Endpoint, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any] | OracleError:
        """What it answers to each, or why it does not."""
        try:
            if len(calls) > 1:
                return await self._try(endpoint, lambda rpc: rpc.batch(calls), len(calls))
            [(method, params)] = calls  # not each endpoint takes batches
            return [await self._try(endpoint, lambda rpc: rpc.call(method, *params))]
        except RpcFault as fault:
            return [fault]
        except (Retryable, Permanent) as error:
            return error


def _accepted(raw: str, answer: Any) -> Any:
    known = isinstance(answer, RpcFault) and any(word in str(answer).lower() for word in _KNOWN)
    return as_hex(keccak(as_bytes(raw))) if known else answer


def _worse(before: OracleError | None, now: OracleError) -> OracleError:
    """Of two failures, the one to report: that which passes by itself."""
    return now if before is None or isinstance(before, Permanent) else before


def _comparable(answer: Any) -> str:
    """Answers that mean the same, as the same text: logs in any order, and without what nodes add of their own."""
    return json.dumps(_bare(answer), sort_keys=True, default=str)


_BLOCK: Final = ("number", "hash", "parentHash", "timestamp", "logsBloom")
_LOG: Final = ("address", "topics", "data", "blockNumber", "blockHash", "transactionHash", "logIndex")
_RECEIPT: Final = ("transactionHash", "blockHash", "blockNumber", "status", "gasUsed", "effectiveGasPrice", "logs")


def _bare(answer: Any) -> Any:
    if isinstance(answer, list):
        return sorted((_bare(each) for each in answer), key=lambda each: json.dumps(each, sort_keys=True, default=str))
    if isinstance(answer, dict):
        # A block's transactions are asked for by hash, or not at all.
        for mark, fields in (("parentHash", _BLOCK), ("effectiveGasPrice", _RECEIPT), ("logIndex", _LOG)):
            if mark in answer:
                return {name: _bare(answer.get(name)) for name in fields}
        return dict(answer)
    if isinstance(answer, str):
        return answer.lower()
    return f"{type(answer).__name__}: {answer}" if isinstance(answer, OracleError) else answer


def _number(block: Any) -> int | None:
    return as_int(block.get("number")) if isinstance(block, dict) else None
