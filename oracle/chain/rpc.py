"""One JSON-RPC endpoint over HTTP: calls, batches, typed errors. Answers are untrusted input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint

from enclave_app.protocol.canonical import check_depth
from oracle.errors import OracleError, Permanent, Refused, Retryable, RpcFault

MAX_ANSWER = 8 << 20
"""Records, block headers, hashes: one endpoint must not fill a broker's memory (R13)."""
MAX_LOGS = 64 << 20
"""Logs of a range of blocks, or of a transaction; a full block's, at 60 million gas, are about a quarter of it."""
MIN_VALUE = 16
"""Bytes that a value of an answer has on average, at least: a list of empty lists grows thirtyfold when it is parsed."""
_LOGS = frozenset({"eth_getLogs", "eth_getTransactionReceipt"})
MOST_WAIT = 600.0
"""Seconds that an endpoint can make us wait, whatever it asks for."""
_SECONDS = re.compile(r"[0-9]{1,6}")
_LIMITED = re.compile(r"rate.?limit|too many requests|request limit|limit exceeded|capacity|throttl", re.IGNORECASE)
_RANGE = re.compile(r"query returned|block range|response size|log", re.IGNORECASE)
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")


class RateLimited(Retryable):
    """An endpoint wants us to wait for `seconds`."""

    def __init__(self, code: str, message: str, seconds: float) -> None:
        super().__init__(code, message)
        self.seconds = min(max(seconds, 1.0), MOST_WAIT)


class Rpc:
    """`timeout` in seconds bounds each request. web3 encodes and decodes; the session is ours, because web3's connects anew
    for each request."""

    def __init__(self, url: str, *, timeout: float = 20.0) -> None:
        self.url = url
        self._place = place_of(url)
        self._codec = AsyncJSONBaseProvider()
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """Host and port, for people: the rest of a URL may be a key."""
        return self._place

    async def call(self, method: str, *params: Any) -> Any:
        """The `result` of one call; raises Retryable for transport faults (`rpc.size` where the answer is too large) and
        RpcFault for an error answer."""
        most = MAX_LOGS if method in _LOGS else MAX_ANSWER
        return _result(await self._post(self._codec.encode_rpc_request(RPCEndpoint(method), list(params)), most))

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results of several calls in one request; an RpcFault stands in the place of a call that failed."""
        if not calls:
            return []
        requests: list[tuple[RPCEndpoint, Any]] = [(RPCEndpoint(method), list(params)) for method, params in calls]
        answers = await self._post(self._codec.encode_batch_rpc_request(requests), MAX_ANSWER)
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise Retryable("rpc.batch", f"{self.name} did not answer a batch as asked")
        by_id = {a["id"]: a for a in answers if isinstance(a, dict) and isinstance(a.get("id"), int)}
        if len(by_id) != len(calls):
            raise Retryable("rpc.batch", f"{self.name} did not number its answers")
        results: list[Any] = []
        for _, answer in sorted(by_id.items()):
            try:
                results.append(_result(answer))
            except RpcFault as fault:
                results.append(fault)  # and a RateLimited ends it all: an answer in parts is none
        return results

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes, most: int) -> Any:
        if self._closed:
            raise Permanent("rpc.closed", "this connection to the chain is closed", hint="Stay inside the `async with`")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, connector=aiohttp.TCPConnector(limit=64))
        try:
            async with self._session.post(
                self.url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as answer:
                if answer.status == 429:
                    seconds = answer.headers.get(aiohttp.hdrs.RETRY_AFTER, "")
                    # Its other form, a date, is nobody's for this.
                    wait = float(seconds) if _SECONDS.fullmatch(seconds) else 0.0
                    raise RateLimited("rpc.rate_limited", f"{self.name} asks for fewer requests", wait)
                if answer.status != 200:
                    raise Retryable("rpc.status", f"{self.name} answered with HTTP status {answer.status}")
                raw = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 20):
                    raw += chunk
                    if len(raw) > most:
                        raise Retryable("rpc.size", f"{self.name} answered with more than {most} bytes")
        except TimeoutError:
            raise Retryable("rpc.timeout", f"{self.name} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable("rpc.unreachable", f"{self.name} cannot be reached ({type(error).__name__})") from None
        return self._decode(bytes(raw), most)

    def _decode(self, raw: bytes, most: int) -> Any:
        if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > most // MIN_VALUE:
            raise Retryable("rpc.size", f"{self.name} answered with more than {most // MIN_VALUE} values")
        try:
            check_depth(raw)
            return self._codec.decode_rpc_response(raw)
        except (ValueError, RecursionError, OracleError) as error:
            raise Retryable(
                "rpc.answer", f"{self.name} did not answer with JSON-RPC ({type(error).__name__})"
            ) from None


def _result(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise Retryable("rpc.answer", "an RPC endpoint did not answer with JSON-RPC")
    error = answer.get("error")
    if error is None:
        if "result" not in answer:
            raise Retryable("rpc.answer", "an RPC answer has neither result nor error")
        return answer["result"]
    if not isinstance(error, dict):
        raise RpcFault(0, str(error), None)
    code = error.get("code")
    return_data = error.get("data")
    message = str(error.get("message", ""))
    # -32005 stands for both, a pace and a question that is too large (EIP-1474): words tell.
    if code in (-32005, 429, -32029) and _LIMITED.search(message) and not _RANGE.search(message):
        raise RateLimited("rpc.rate_limited", "an RPC endpoint asks for fewer requests", 0.0)
    if isinstance(return_data, dict):
        return_data = return_data.get("data")
    raise RpcFault(code if isinstance(code, int) else 0, message, _maybe_bytes(return_data))


def place_of(url: str) -> str:
    """Host and port of a URL: what may be shown of it."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or '?'}:{parts.port}" if parts.port else parts.hostname or "?"
    except ValueError:
        return "?"


def _maybe_bytes(value: Any) -> bytes | None:
    if not isinstance(value, str) or not value.startswith("0x"):
        return None
    try:
        raw = bytes.fromhex(value[2:])
    except ValueError:
        return None
    # fromhex passes over white space.
    return raw if 2 * len(raw) == len(value) - 2 else None


def as_int(value: Any) -> int:
    """A JSON-RPC quantity."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise Refused("rpc.quantity", "an RPC answer holds no quantity where one belongs")


def as_bytes(value: Any, length: int | None = None) -> bytes:
    """JSON-RPC data, of `length` bytes if given."""
    raw = _maybe_bytes(value)
    if raw is None or (length is not None and len(raw) != length):
        raise Refused("rpc.data", "an RPC answer holds no bytes where they belong")
    return raw


def as_hex(data: bytes) -> str:
    return "0x" + data.hex()
