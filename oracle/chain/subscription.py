"""Word of new heads over WebSocket (`eth_subscribe`), as a reason to look and nothing else: what a subscription says is not
used, and what it leaves out is found by looking from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Final

import aiohttp

from enclave_app.protocol.canonical import check_depth
from oracle.chain.rpc import place_of
from oracle.errors import OracleError, Retryable
from oracle.logs import Log

MAX_MESSAGE: Final = 1 << 20
SILENCE_SECONDS: Final = 60.0
"""A subscription that gives no word for so long is opened anew; some chains are slow, and then nothing is lost by it."""
PAUSE_FIRST, PAUSE_MOST = 1.0, 60.0


class Heads:
    """`await run()` for ever; `news` is called at each message. `alive` while a subscription stands. `silence` and `pause`,
    the first one between two attempts, in seconds."""

    def __init__(
        self, url: str, news: Callable[[], None], *, silence: float = SILENCE_SECONDS, pause: float = PAUSE_FIRST
    ) -> None:
        self._url, self._news, self._silence, self._pause = url, news, silence, pause
        self.alive = False
        self._log = Log("chain.subscription", endpoint=place_of(url))

    async def run(self) -> None:
        """Until cancelled. A subscription that ends or is silent is opened again, less and less often while that fails."""
        pause = self._pause
        while True:
            try:
                await self._listen()
                pause = self._pause
            except (aiohttp.ClientError, OSError, TimeoutError, TypeError, Retryable) as error:
                self._log.warning(
                    "no subscription to new heads; looking from time to time", reason=type(error).__name__
                )
                pause = min(PAUSE_MOST, 2 * pause)
            finally:
                self.alive = False
            # What came meanwhile is not told.
            self._news()
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        """Until it is silent or ends. Raises what opening it raises."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.ws_connect(self._url, heartbeat=20, max_msg_size=MAX_MESSAGE) as socket,
        ):
            await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]})
            check_subscribed(await socket.receive_str(timeout=10))
            self.alive = True
            self._news()
            with contextlib.suppress(TimeoutError):
                while True:
                    message = await socket.receive(timeout=self._silence)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return
                    self._news()


def check_subscribed(answer: str) -> None:
    """Raises Retryable `rpc.subscription` for anything but the answer that gives a subscription."""
    try:
        check_depth(answer.encode("utf-8", "surrogatepass"))
        found = json.loads(answer)
    except (ValueError, OracleError) as error:
        raise Retryable(
            "rpc.subscription", f"an endpoint did not answer with JSON-RPC ({type(error).__name__})"
        ) from None
    if not isinstance(found, dict) or "result" not in found:
        raise Retryable("rpc.subscription", "an endpoint does not give word of new heads")
