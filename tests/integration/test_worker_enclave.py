"""The enclave's API from the host's side, where it is behind a URL."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from oracle.errors import Permanent
from oracle.worker.enclave import Enclave


async def test_a_verifier_is_where_the_configuration_says_and_nowhere_else() -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/other"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", elsewhere)
    async with TestServer(application) as server, Enclave(str(server.make_url("/"))) as verifier:
        with pytest.raises(Permanent) as refused:
            await verifier.identity()
    assert (refused.value.code, asked) == ("http.307", ["/v1/identity"])
