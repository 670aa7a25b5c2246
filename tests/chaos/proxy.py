"""An RPC endpoint between a worker and its chain that answers wrongly for a while, in one of the ways that endpoints do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp import web

HANG_SECONDS = 25.0
STALE_BLOCKS = 4
MAX_BODY = 64 << 20


class Proxy:
    """`await proxy.misbehave(kind, count)` returns once `count` answers were spoilt. One kind at a time."""

    def __init__(self) -> None:
        self.upstream, self.url = "", ""
        self.kind: str | None = None
        self.spoilt = 0
        self._left = 0
        self._over = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def stop(self) -> None:
        self.calm()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def calm(self) -> None:
        self.kind = None

    async def misbehave(self, kind: str, count: int, patience: float) -> int:
        """How many answers were spoilt within `patience` seconds, `count` at most."""
        assert kind in KINDS, kind
        self._left, self.spoilt = count, 0
        self._over.clear()
        self.kind = kind
        try:
            async with asyncio.timeout(patience):
                await self._over.wait()
        except TimeoutError:
            pass
        self.kind = None
        return self.spoilt

    def _take(self, kind: str) -> bool:
        """Whether this answer is to be spoilt."""
        if self.kind != kind or self._left <= 0:
            return False
        self._left -= 1
        self.spoilt += 1
        if self._left == 0:
            self._over.set()
        return True

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        asked = json.loads(raw)
        methods = {each["method"] for each in (asked if isinstance(asked, list) else [asked])}
        if self._take("429"):
            return web.Response(status=429, headers={"Retry-After": "1"})
        if self._take("500"):
            return web.Response(status=502, body=b"<html>bad gateway</html>")
        if self._take("hang"):
            await asyncio.sleep(HANG_SECONDS)
            return _torn(request)
        if self._take("drop"):
            return _torn(request)
        if "eth_sendRawTransaction" in methods and isinstance(asked, dict) and self._take("swallow"):
            # It says that it took the transaction, and never passes it on.
            return _answer(asked, _hash_of(asked["params"][0]))
        body = await self._ask(raw)
        if "eth_sendRawTransaction" in methods:
            if self._take("lost_answer"):
                return _torn(request)
            if self._take("duplicate"):
                body = await self._ask(raw)
        if self._take("truncate"):
            return web.Response(body=body[: len(body) // 2], content_type="application/json")
        answers = json.loads(body)
        changed = await self._spoil(asked, answers)
        return web.Response(body=json.dumps(changed).encode(), content_type="application/json")

    async def _spoil(self, asked: Any, answers: Any) -> Any:
        if isinstance(asked, list):
            if len(asked) > 1 and isinstance(answers, list) and self._take("reorder"):
                return list(reversed(answers))
            return answers
        result, method = answers.get("result"), asked["method"]
        if method == "eth_getLogs" and isinstance(result, list):
            if len(result) > 1 and self._take("reorder_logs"):
                return {**answers, "result": list(reversed(result))}
            if result and self._take("cut_logs"):
                return {**answers, "result": result[:-1]}
        if method == "eth_getTransactionReceipt" and result is not None and self._take("lost_receipt"):
            return {**answers, "result": None}
        if method == "eth_blockNumber" and self._take("stale"):
            return {**answers, "result": hex(max(0, int(result, 16) - STALE_BLOCKS))}
        if method == "eth_getBlockByNumber" and asked["params"][0] == "latest" and result and self._take("stale"):
            back = {**asked, "params": [hex(max(0, int(result["number"], 16) - STALE_BLOCKS)), *asked["params"][1:]]}
            return json.loads(await self._ask(json.dumps(back).encode()))
        return answers

    async def _ask(self, raw: bytes) -> bytes:
        assert self._session is not None
        async with self._session.post(self.upstream, data=raw, headers={"Content-Type": "application/json"}) as answer:
            return await answer.read()


KINDS = (
    "429",
    "500",
    "hang",
    "drop",
    "swallow",
    "lost_answer",
    "duplicate",
    "truncate",
    "reorder",
    "reorder_logs",
    "cut_logs",
    "lost_receipt",
    "stale",
)


def _torn(request: web.Request) -> web.Response:
    """The connection ends without an answer."""
    if request.transport is not None:
        request.transport.close()
    return web.Response(status=500)


def _answer(asked: dict[str, Any], result: Any) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})


def _hash_of(raw: str) -> str:
    from eth_hash.auto import keccak

    return "0x" + keccak(bytes.fromhex(raw[2:])).hex()
