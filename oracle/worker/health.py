"""What supervisors ask over HTTP: `/healthz` (is it alive), `/readyz` (is it of use, and why not), `/metrics`.

All three answer from memory, so they answer while the chain, the journal or the brokers are stuck. The server is small on
purpose: GET only, one answer a connection, a bounded number of connections, each bounded in time and bytes. Nothing that it
says is secret, and all the same it belongs on a loopback address.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oracle.errors import Permanent
from oracle.logs import Log
from oracle.worker.metrics import Metrics

MAX_CONNECTIONS: Final = 32
MAX_HEAD: Final = 8192
"""Bytes of a request's line and headers."""
PATIENCE_SECONDS: Final = 5.0
"""For the request to come, and again for the answer to be taken."""
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Check:
    """One thing that has to hold. `reason` says what was found and what was expected."""

    ok: bool
    reason: str


class Pulse:
    """Whether the worker's loops still turn: each says so by `beat`, and is alive for `seconds` after it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until: dict[str, float] = {}

    def beat(self, loop: str, seconds: float) -> None:
        self._until[loop] = self._monotonic() + seconds

    def forget(self, loop: str) -> None:
        """The loop ended as it should."""
        self._until.pop(loop, None)

    def silent(self) -> tuple[str, ...]:
        now = self._monotonic()
        return tuple(sorted(name for name, until in self._until.items() if until < now))


class HealthServer:
    """Serves until `close`. `ready` is asked at each `/readyz`, and must not wait for anything.

    `listen` is `host:port`, or a path of a Unix socket; `address` says where it listens."""

    def __init__(
        self,
        listen: str | Path,
        metrics: Metrics,
        pulse: Pulse,
        ready: Callable[[], Mapping[str, Check]],
    ) -> None:
        self._listen, self._metrics, self._pulse, self._ready = listen, metrics, pulse, ready
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._log = Log("worker.health")
        self.address = ""

    async def start(self) -> None:
        """Raises Permanent `health.listen`."""
        try:
            if isinstance(self._listen, Path):
                self._listen.unlink(missing_ok=True)
                mask = os.umask(0o177)
                try:
                    self._server = await asyncio.start_unix_server(self._serve, self._listen, limit=MAX_HEAD)
                finally:
                    os.umask(mask)
                self.address = f"unix:{self._listen}"
                return
            host, port = split_listen(self._listen)
            self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD)
        except OSError as error:
            raise Permanent(
                "health.listen",
                f"cannot listen on {self._listen} ({error.strerror})",
                hint="Is another worker running there? Give another `health.listen`",
            ) from None
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open.add(task)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer(head))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            # Whoever asks too slowly, too much or goes away gets no answer.
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()
            with suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            return _response(400, "text/plain", b"not HTTP/1\n")
        if parts[0] not in (b"GET", b"HEAD"):
            return _response(405, "text/plain", b"GET only\n")
        status, kind, body = self._page(parts[1].split(b"?", 1)[0])
        return _response(status, kind, body, with_body=parts[0] == b"GET")

    def _page(self, path: bytes) -> tuple[int, str, bytes]:
        try:
            if path == b"/metrics":
                return 200, PROMETHEUS, self._metrics.text().encode()
            if path == b"/healthz":
                silent = self._pulse.silent()
                return _json(503 if silent else 200, {"alive": not silent, "silentLoops": list(silent)})
            if path == b"/readyz":
                checks = self._ready()
                ready = all(check.ok for check in checks.values())
                told = {name: {"ok": check.ok, "reason": check.reason} for name, check in checks.items()}
                return _json(200 if ready else 503, {"ready": ready, "checks": told})
        except Exception as error:
            self._metrics.count("bugs_total", where="health")
            self._log.error("a bug: please report it; a health page has no answer", error)
            return _json(500, {"error": "bug"})
        return _json(404, {"pages": ["/healthz", "/readyz", "/metrics"]})


def split_listen(listen: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise ValueError("give host:port, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def _json(status: int, value: object) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(value).encode() + b"\n"


_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def _response(status: int, kind: str, body: bytes, *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
