"""One JSON-RPC endpoint over HTTP: calls, batches, typed errors. Answers are untrusted input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
from web3 import AsyncHTTPProvider
from web3.types import RPCEndpoint

from oracle.errors import Refused, Retryable, RpcFault


class Rpc:
    """`timeout` in seconds bounds each request."""

    def __init__(self, url: str, *, timeout: float = 20.0) -> None:
        self.url = url
        self._provider = AsyncHTTPProvider(
            url,
            request_kwargs={"timeout": aiohttp.ClientTimeout(total=timeout)},
            exception_retry_configuration=None,
        )

    async def call(self, method: str, *params: Any) -> Any:
        """The `result` of one call; raises Retryable for transport faults and RpcFault for an error answer."""
        return _result(await self._guard(self._provider.make_request(RPCEndpoint(method), list(params))))

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results of several calls in one request; an RpcFault stands in the place of a call that failed."""
        if not calls:
            return []
        requests: list[tuple[RPCEndpoint, Any]] = [(RPCEndpoint(method), list(params)) for method, params in calls]
        answers = await self._guard(self._provider.make_batch_request(requests))
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise Retryable("rpc.batch", f"{self.url} did not answer a batch as asked")
        results: list[Any] = []
        for answer in answers:
            try:
                results.append(_result(answer))
            except RpcFault as fault:
                results.append(fault)
        return results

    async def close(self) -> None:
        await self._provider.disconnect()

    async def _guard(self, request: Any) -> Any:
        try:
            return await request
        except TimeoutError:
            raise Retryable("rpc.timeout", f"{self.url} did not answer in time") from None
        except aiohttp.ClientResponseError as error:
            code = "rpc.rate_limited" if error.status == 429 else "rpc.status"
            raise Retryable(code, f"{self.url} answered with HTTP status {error.status}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable("rpc.unreachable", f"{self.url} cannot be reached ({type(error).__name__})") from None
        except ValueError as error:
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
