"""Services that lie, and first an RPC endpoint: a proxy in front of a real chain, which changes one thing of what it is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from eth_abi.abi import decode, encode
from eth_utils.abi import collapse_if_tuple

from oracle.chain.abi import load
from oracle.chain.rpc import as_bytes, as_hex

Forgery = Callable[[dict[str, Any], Any], Any]
"""The call and its true result, to the result that is given."""


@asynccontextmanager
async def served(path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A service's place on the network, taken by somebody else, who answers what is sent to `path`."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxy(url: str, forgery: Forgery, ask: Callable[[Any], None] | None = None) -> AsyncIterator[str]:
    """An endpoint that answers as `url` does, but for its forgery. `ask` changes what it asks."""
    async with aiohttp.ClientSession() as session:

        async def answer(request: web.Request) -> web.Response:
            asked = await request.json()
            for call in asked if isinstance(asked, list) else [asked]:
                if ask is not None:
                    ask(call)
            async with session.post(url, json=asked) as response:
                said = json.loads(await response.text())
            calls, answers = (asked, said) if isinstance(asked, list) else ([asked], [said])
            by_id = {call["id"]: call for call in calls}
            for each in answers:
                if "result" in each:
                    each["result"] = forgery(by_id[each["id"]], each["result"])
            return web.json_response(said)

        async with served("/", answer) as place:
            yield place


def truth(_call: dict[str, Any], result: Any) -> Any:
    return result


def about(contract: str, function: str, say: Callable[[bytes], bytes]) -> Forgery:
    """A lie about one function of a contract, whatever its arguments."""
    entry = load(contract)._functions[function]
    zeros = [bytes(32) if i["type"] == "bytes32" else "0x" + "00" * 20 for i in entry["inputs"]]
    selector = "0x" + load(contract).call(function, *zeros)[:4].hex()

    def forgery(call: dict[str, Any], result: Any) -> Any:
        if call["method"] == "eth_call" and call["params"][0]["data"].startswith(selector):
            return "0x" + say(bytes.fromhex(result[2:])).hex()
        return result

    return forgery


def word(index: int, value: int) -> Callable[[bytes], bytes]:
    """Says the true words, but for one."""
    return lambda data: data[: 32 * index] + value.to_bytes(32, "big") + data[32 * index + 32 :]


def words(*values: int | bytes) -> Callable[[bytes], bytes]:
    """Says these words, whatever the truth."""
    said = b"".join(v.rjust(32, b"\x00") if isinstance(v, bytes) else v.to_bytes(32, "big") for v in values)
    return lambda _: said


def together(*forgeries: Forgery) -> Forgery:
    def forgery(call: dict[str, Any], result: Any) -> Any:
        for each in forgeries:
            result = each(call, result)
        return result

    return forgery


def always_latest(block: dict[str, Any]) -> Forgery:
    """Says that `block` is the newest, for ever."""

    def forgery(call: dict[str, Any], result: Any) -> Any:
        return block if call["method"] == "eth_getBlockByNumber" and call["params"][0] == "latest" else result

    return forgery


def retold(contract: str, event: str, topics: dict[int, bytes] | None = None, **fields: object) -> Forgery:
    """A log of the chain, told again with other `fields` and indexed `topics`."""
    entry, bound = load(contract)._events[event], load(contract).topic(event)
    rest = [i for i in entry["inputs"] if not i["indexed"]]
    types = [str(collapse_if_tuple(i)) for i in rest]

    def retell(raw: dict[str, Any]) -> dict[str, Any]:
        values = dict(zip([i["name"] for i in rest], decode(types, as_bytes(raw["data"])), strict=True)) | fields
        told = list(raw["topics"])
        for position, topic in (topics or {}).items():
            told[position] = as_hex(topic)
        return {**raw, "topics": told, "data": as_hex(encode(types, list(values.values())))}

    def forgery(call: dict[str, Any], result: Any) -> Any:
        if call["method"] != "eth_getLogs":
            return result
        return [retell(raw) if as_bytes(raw["topics"][0]) == bound else raw for raw in result]

    return forgery
