"""One JSON-RPC endpoint over HTTP: calls, batches, typed errors. Answers are untrusted input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint

from enclave_app.protocol.canonical import check_depth
from oracle.errors import OracleError, Permanent, Refused, Retryable, RpcFault

MAX_ANSWER = 256 << 20


class Rpc:
    """`timeout` in seconds bounds each request. web3 encodes and decodes; the session is ours, because web3's connects anew
    for each request. `most` bounds an answer in bytes."""

    def __init__(self, url: str, *, timeout: float = 20.0, most: int = MAX_ANSWER) -> None:
        self.url = url
        self._codec = AsyncJSONBaseProvider()
        self._timeout, self._most = aiohttp.ClientTimeout(total=timeout), most
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def call(self, method: str, *params: Any) -> Any:
        """The `result` of one call; raises Retryable for transport faults and RpcFault for an error answer."""
        return _result(await self._post(self._codec.encode_rpc_request(RPCEndpoint(method), list(params))))

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results of several calls in one request; an RpcFault stands in the place of a call that failed."""
        if not calls:
            return []
        requests: list[tuple[RPCEndpoint, Any]] = [(RPCEndpoint(method), list(params)) for method, params in calls]
        answers = await self._post(self._codec.encode_batch_rpc_request(requests))
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise Retryable("rpc.batch", f"{self.url} did not answer a batch as asked")
        by_id = {a["id"]: a for a in answers if isinstance(a, dict) and isinstance(a.get("id"), int)}
        if len(by_id) != len(calls):
            raise Retryable("rpc.batch", f"{self.url} did not number its answers")
        results: list[Any] = []
        for _, answer in sorted(by_id.items()):
            try:
                results.append(_result(answer))
            except RpcFault as fault:
                results.append(fault)
        return results

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes) -> Any:
        if self._closed:
            raise Permanent("rpc.closed", "this connection to the chain is closed", hint="Stay inside the `async with`")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, connector=aiohttp.TCPConnector(limit=64))
        try:
            async with self._session.post(
                self.url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    code = "rpc.rate_limited" if answer.status == 429 else "rpc.status"
                    raise Retryable(code, f"{self.url} answered with HTTP status {answer.status}")
                raw = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 20):
                    raw += chunk
                    if len(raw) > self._most:
                        raise Retryable("rpc.size", f"{self.url} answered with more than {self._most} bytes")
        except TimeoutError:
            raise Retryable("rpc.timeout", f"{self.url} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable("rpc.unreachable", f"{self.url} cannot be reached ({type(error).__name__})") from None
        return self._decode(bytes(raw))

    def _decode(self, raw: bytes) -> Any:
        try:
            check_depth(raw)
            return self._codec.decode_rpc_response(raw)
        except (ValueError, RecursionError, OracleError) as error:
            raise Retryable("rpc.answer", f"{self.url} did not answer with JSON-RPC ({type(error).__name__})") from None


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
    if isinstance(return_data, dict):
        return_data = return_data.get("data")
    raise RpcFault(code if isinstance(code, int) else 0, str(error.get("message", "")), _maybe_bytes(return_data))


def _maybe_bytes(value: Any) -> bytes | None:
    try:
        return bytes.fromhex(value[2:]) if isinstance(value, str) and value.startswith("0x") else None
    except ValueError:
        return None


def as_int(value: Any) -> int:
    """A JSON-RPC quantity."""
    try:
        if isinstance(value, str) and value.startswith("0x") and len(value) <= 66:
            return int(value, 16)
    except ValueError:
        pass
    raise Refused("rpc.quantity", "an RPC answer holds no quantity where one belongs")


def as_bytes(value: Any, length: int | None = None) -> bytes:
    """JSON-RPC data, of `length` bytes if given."""
    raw = _maybe_bytes(value)
    if raw is None or (length is not None and len(raw) != length):
        raise Refused("rpc.data", "an RPC answer holds no bytes where they belong")
    return raw


def as_hex(data: bytes) -> str:
    return "0x" + data.hex()
