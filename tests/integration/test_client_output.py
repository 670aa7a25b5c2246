"""What a client makes of a broker's HTTP answer, however the network cuts it and wherever it points."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from enclave_app.protocol.release import OutputAnswer
from oracle.chain.deploy import Deployment
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.errors import OracleError

ADDRESS = "0x" + "11" * 20
CONFIG = ClientConfig(
    rpc="http://127.0.0.1:1",
    deployment=Deployment(
        chain_id=31337,
        agreement_registry=ADDRESS,
        enclave_registry=ADDRESS,
        oracle=ADDRESS,
        streams=ADDRESS,
        audits=ADDRESS,
        verifiers={},
        first_block=0,
    ),
    storage=("file:///nowhere",),
    brokers={},
)
ANSWER = OutputAnswer(sealed=b"s" * 1200)


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[tuple[Client, str]]:
    app = web.Application()
    app.router.add_post("/v1/output", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        client = Client(CONFIG)
        client._http = session
        try:
            yield client, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
            await client.rpc.close()


async def test_an_answer_that_comes_in_pieces_is_read_whole() -> None:
    async def pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        data = ANSWER.canonical()
        for part in (data[:1000], data[1000:]):
            await response.write(part)
            await asyncio.sleep(0.1)
        await response.write_eof()
        return response

    async with serving(pieces) as (client, url):
        assert await client.post_output(url, b"{}") == ANSWER


async def test_an_answer_without_end_is_refused() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(b" " * (1 << 20))
        return response

    async with serving(endless) as (client, url):
        with pytest.raises(OracleError):
            await client.post_output(url, b"{}")


async def test_a_broker_cannot_send_a_client_elsewhere() -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        if "asked" in request.query:
            return web.json_response(text=ANSWER.model_dump_json(by_alias=True))
        raise web.HTTPTemporaryRedirect("/v1/output?asked")

    async with serving(elsewhere) as (client, url):
        with pytest.raises(OracleError):
            await client.post_output(url, b"{}")
