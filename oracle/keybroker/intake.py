"""Taking request bodies in: bounded in bytes for all together and for each client, before a request gets one of the slots.

So a slow sender holds the bytes that it has sent, and nothing that others wait for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from oracle.errors import Refused, Retryable
from oracle.keybroker.limits import network_of

READ_SECONDS = 30.0
CHUNK = 1 << 16
CLIENT_SHARE = 4
"""One network may hold a fourth of all bytes."""


class Intake:
    """`budget` in bytes for all bodies that are being read or worked on, `most` for each."""

    def __init__(self, budget: int, most: int) -> None:
        self._left, self._most = budget, most
        self._share = max(most, budget // CLIENT_SHARE)
        self._held: Counter[str | None] = Counter()

    @asynccontextmanager
    async def body(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body, whose bytes count until the block is left.

        Raises Refused `http.body`, `http.broken`; Retryable `http.slow`, and `broker.busy` beyond the budget.
        """
        client = None if request.remote is None else network_of(request.remote)
        data, taken = bytearray(), 0
        try:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    while chunk := await request.content.read(CHUNK):
                        if len(data) + len(chunk) > self._most:
                            raise Refused("http.body", "the body is too large", expected=f"at most {self._most} bytes")
                        self._take(client, len(chunk))
                        taken += len(chunk)
                        data += chunk
            except TimeoutError:
                raise Retryable("http.slow", "the body did not arrive in time") from None
            except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, web.RequestPayloadError, OSError):
                raise Refused("http.broken", "the body ended early, or is not encoded as its header says") from None
            yield bytes(data)
        finally:
            self._left += taken
            self._held[client] -= taken
            if not self._held[client]:
                del self._held[client]

    def _take(self, client: str | None, size: int) -> None:
        # A Unix socket's clients have no address, and share all of it.
        if size > self._left or (client is not None and self._held[client] + size > self._share):
            raise Retryable("broker.busy", "the broker works on as many bytes of requests as it takes")
        self._left -= size
        self._held[client] += size


class Slots:
    """`count` requests are worked on at one time; those of one network have half of them at most, so that others find one."""

    def __init__(self, count: int) -> None:
        self._all = asyncio.Semaphore(count)
        self._most = max(1, (count + 1) // 2)
        self._networks: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    @asynccontextmanager
    async def one(self, client: str | None) -> AsyncIterator[None]:
        if client is None:
            async with self._all:
                yield
            return
        network = network_of(client)
        own, users = self._networks.setdefault(network, (asyncio.Semaphore(self._most), []))
        users.append(None)
        try:
            async with own, self._all:
                yield
        finally:
            users.pop()
            if not users:
                self._networks.pop(network, None)
