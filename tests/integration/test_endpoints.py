"""Several endpoints as one, in front of real chains: what fails, lies, lags or asks to be left alone, and the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from oracle.chain.endpoints import Endpoints, Pace
from oracle.chain.rpc import RateLimited, Rpc, place_of
from oracle.chain.source import SingleSource
from oracle.chain.subscription import Heads
from oracle.errors import OracleError, Permanent, Retryable, RpcFault
from tests.anvil_kit import anvil
from tests.rpc_kit import proxy, served, truth

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    with anvil() as found:
        yield found


@asynccontextmanager
async def endpoints(*urls: Any, **options: Any) -> AsyncIterator[Endpoints]:
    opened = Endpoints(urls, **options)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def answering(answer: Callable[[Any], web.Response | Awaitable[web.Response]]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        answered = answer(await request.json())
        return answered if isinstance(answered, web.Response) else await answered

    async with served("/", handle) as place:
        yield place


def result(asked: Any, value: Any) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": value})


def error(code: int, message: str) -> Callable[[Any], web.Response]:
    return lambda asked: web.json_response(
        {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": code, "message": message}}
    )


FAILURES: dict[str, tuple[Callable[[Any], web.Response], str]] = {
    "no JSON": (lambda _: web.Response(text="<html>"), "rpc.answer"),
    "a server's error": (lambda _: web.Response(status=502), "rpc.status"),
    "a redirect": (lambda _: web.Response(status=302, headers={"Location": "/"}), "rpc.status"),
    "a pace by status": (lambda _: web.Response(status=429, headers={"Retry-After": "40"}), "rpc.rate_limited"),
    "a pace by code": (error(-32005, "daily request limit reached: rate limited"), "rpc.rate_limited"),
    "no result": (lambda asked: web.json_response({"jsonrpc": "2.0", "id": asked["id"]}), "rpc.answer"),
}


@pytest.mark.parametrize(("answer", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_one_that_fails_is_left_alone_and_the_next_is_asked(
    url: str, answer: Callable[[Any], web.Response], code: str
) -> None:
    told: list[tuple[str, str]] = []
    async with (
        answering(answer) as bad,
        endpoints(bad, url, on_error=lambda name, code: told.append((name, code))) as both,
    ):
        assert await both.call("eth_chainId") == "0x7a69"
        assert await both.call("eth_chainId") == "0x7a69"
    assert told == [(place_of(bad), code)]
    first, second = both.health()
    assert (first.usable, first.failures, second.usable) == (False, 1, True)
    assert code != "rpc.rate_limited" or first.waits > 0.5


async def test_a_time_that_an_endpoint_asks_for_is_kept_even_if_it_is_the_only_one() -> None:
    asked = []

    def limited(question: Any) -> web.Response:
        asked.append(question)
        return web.Response(status=429, headers={"Retry-After": "40"})

    async with answering(limited) as busy, endpoints(busy) as one:
        for _ in range(3):
            with pytest.raises(Retryable):
                await one.call("eth_chainId")
        assert one.health()[0].waits > 30
    assert len(asked) == 1


async def test_questions_that_were_under_way_together_fail_once() -> None:
    """Else a busy worker leaves its only endpoint alone for half a minute after one hiccup."""
    together, fails = asyncio.Barrier(8), False

    async def answer(asked: Any) -> web.Response:
        if fails:
            await together.wait()
            return web.Response(status=503)
        return result(asked, "0x7a69" if asked["method"] == "eth_chainId" else None)

    async with answering(answer) as flaky, endpoints(flaky) as one:
        await one.call("eth_chainId")
        fails = True
        answers = await asyncio.gather(*(one.call("eth_gasPrice") for _ in range(8)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Retryable] * 8
        assert one.health()[0].failures == 1
        # One that is asked afterwards, and fails, is a further failure.
        together, fails = asyncio.Barrier(1), True
        with pytest.raises(Retryable):
            await one.call("eth_gasPrice")
        assert one.health()[0].failures == 2


async def test_one_that_failed_is_asked_all_the_same_when_there_is_no_other(url: str) -> None:
    down = True

    def forgery(call: dict[str, Any], value: Any) -> Any:
        if down:
            raise web.HTTPServiceUnavailable
        return value

    async with proxy(url, forgery) as flaky, endpoints(flaky) as one:
        with pytest.raises(Retryable):
            await one.call("eth_chainId")
        down = False
        assert await one.call("eth_chainId") == "0x7a69"


async def test_an_error_that_is_an_answer_is_given_on(url: str) -> None:
    async with endpoints(url, url + "/") as both:
        with pytest.raises(RpcFault):
            await both.call("eth_noSuchMethod")
        assert [each.failures for each in both.health()] == [0, 0]


async def test_an_endpoint_of_another_chain_is_never_used(url: str) -> None:
    def other(call: dict[str, Any], value: Any) -> Any:
        return "0x1" if call["method"] == "eth_chainId" else value

    async with proxy(url, other) as wrong:
        async with endpoints(wrong, url, chain_id=31337) as both:
            assert await both.call("eth_blockNumber") == "0x0"
            assert [each.usable for each in both.health()] == [False, True]
        async with endpoints(wrong, chain_id=31337) as one:
            with pytest.raises(Permanent) as caught:
                await one.call("eth_blockNumber")
            assert caught.value.code == "chain.wrong"


async def test_a_fork_with_our_chain_id_is_another_chain(url: str) -> None:
    with anvil("--timestamp", "1700000000") as fork:
        genesis = await _genesis(url)
        assert genesis != await _genesis(fork)
        async with endpoints(fork, url, chain_id=31337, genesis=genesis) as both:
            await both.call("eth_blockNumber")
            assert [each.usable for each in both.health()] == [False, True]
        # Where nobody says which, the first that is asked tells.
        async with endpoints(url, fork, chain_id=31337, quorum=2) as both:
            with pytest.raises(Permanent) as caught:
                await both.call("eth_getBlockByNumber", "0x0", False)
            assert caught.value.code == "chain.wrong"


async def test_one_that_was_away_is_checked_again_before_it_is_believed(url: str) -> None:
    served_chain, fails = "0x7a69", False

    def forgery(call: dict[str, Any], value: Any) -> Any:
        if fails:
            raise web.HTTPServiceUnavailable
        return served_chain if call["method"] == "eth_chainId" else value

    async with proxy(url, forgery) as changing, endpoints(changing, chain_id=31337) as one:
        await one.call("eth_blockNumber")
        fails = True
        with pytest.raises(Retryable):
            await one.call("eth_blockNumber")
        fails, served_chain = False, "0x1"
        with pytest.raises(Permanent) as caught:
            await one.call("eth_blockNumber")
    assert caught.value.code == "chain.wrong"


async def test_a_quorum_is_of_the_same_words_and_one_liar_is_outvoted(url: str) -> None:
    def liar(call: dict[str, Any], value: Any) -> Any:
        return [] if call["method"] == "eth_getLogs" else {**value, "hash": "0x" + "11" * 32} if value else value

    async with proxy(url, liar) as lying, proxy(url, truth) as true:
        async with endpoints(lying, url, true, quorum=2) as three:
            block = await SingleSource(three).block(0)
            assert block is not None
            assert block.hash == await _genesis(url)
        async with endpoints(lying, url, quorum=2) as two:
            with pytest.raises(OracleError):
                await two.call("eth_getBlockByNumber", "0x0", False)


async def test_a_quorums_head_is_one_that_a_quorum_has_reached() -> None:
    with anvil() as url:
        rpc = Rpc(url)
        await rpc.call("anvil_mine", hex(5))
        await rpc.close()

        def behind(call: dict[str, Any]) -> None:
            if call["params"][:1] == ["latest"]:
                call["params"][0] = "0x3"

        async with proxy(url, truth, behind) as slow, endpoints(url, slow, quorum=2) as both:
            assert int((await both.call("eth_getBlockByNumber", "latest", False))["number"], 16) == 3


async def test_one_whose_head_is_behind_the_others_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracle.chain.endpoints.LOOK_SECONDS", -1.0)
    with anvil() as url:
        rpc = Rpc(url)
        await rpc.call("anvil_mine", hex(40))
        await rpc.close()

        def stuck(call: dict[str, Any]) -> None:
            if call["params"][:1] == ["latest"]:
                call["params"][0] = "0x2"

        async with proxy(url, truth, stuck) as old, endpoints(old, url) as both:
            assert int((await both.call("eth_getBlockByNumber", "latest", False))["number"], 16) == 40
            assert [each.usable for each in both.health()] == [False, True]


async def test_a_transaction_goes_to_all_and_one_that_is_known_is_sent() -> None:
    seen: list[str] = []
    raw = "0x02"
    known = error(-32000, "already known")

    def first(asked: Any) -> web.Response:
        if asked["method"] == "eth_sendRawTransaction":
            seen.append("first")
            return known(asked)
        return result(asked, {"eth_chainId": "0x1"}.get(asked["method"]))

    def second(asked: Any) -> web.Response:
        if asked["method"] == "eth_sendRawTransaction":
            seen.append("second")
            return error(-32000, "underpriced")(asked)
        return result(asked, {"eth_chainId": "0x1"}.get(asked["method"]))

    async with answering(first) as one, answering(second) as two:
        async with endpoints(one, two) as both:
            assert (await both.call("eth_sendRawTransaction", raw)).startswith("0x")
        assert sorted(seen) == ["first", "second"]
        async with endpoints(two) as alone:
            with pytest.raises(RpcFault):
                await alone.call("eth_sendRawTransaction", raw)


async def test_transactions_that_are_sent_together_go_to_all_and_a_slow_endpoint_is_not_waited_for() -> None:
    released, seen = asyncio.Event(), list[str]()
    raws = ["0x02", "0x03"]

    async def slow(asked: Any) -> web.Response:
        if isinstance(asked, list):
            await released.wait()
            seen.append("slow")
            return web.json_response([{"jsonrpc": "2.0", "id": each["id"], "result": "0x"} for each in asked])
        return result(asked, {"eth_chainId": "0x1"}.get(asked["method"]))

    async def quick(asked: Any) -> web.Response:
        if isinstance(asked, list):
            seen.append("quick")
            faults = {"code": -32000, "message": "nonce too low"}, {"code": -32000, "message": "underpriced"}
            return web.json_response(
                [
                    {"jsonrpc": "2.0", "id": each["id"], "error": fault}
                    for each, fault in zip(asked, faults, strict=True)
                ]
            )
        return result(asked, {"eth_chainId": "0x1"}.get(asked["method"]))

    async def taking(asked: Any) -> web.Response:
        if isinstance(asked, list):
            seen.append("taking")
            return web.json_response([{"jsonrpc": "2.0", "id": each["id"], "result": "0x0a"} for each in asked])
        return result(asked, {"eth_chainId": "0x1"}.get(asked["method"]))

    async with answering(slow) as one, answering(quick) as two, answering(taking) as three:
        async with endpoints(one, two, three) as all_three:
            assert await all_three.batch([("eth_sendRawTransaction", [raw]) for raw in raws]) == ["0x0a", "0x0a"]
            assert "slow" not in seen
            released.set()
        assert sorted(seen) == ["quick", "slow", "taking"]
        async with endpoints(two) as alone:
            answers = await alone.batch([("eth_sendRawTransaction", [raw]) for raw in raws])
            assert [type(answer) for answer in answers] == [RpcFault, RpcFault]


async def test_nothing_of_a_url_but_its_host_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    async with endpoints("http://user:secret@127.0.0.1:9/key-of-mine?token=abc") as one:
        with pytest.raises(Retryable) as caught:
            await one.call("eth_chainId")
    shown = caught.value.message + json.dumps([each.name for each in one.health()]) + caplog.text
    assert "127.0.0.1:9" in shown
    assert not [word for word in ("secret", "key-of-mine", "abc") if word in shown]


async def test_endpoints_are_exchanged_while_they_are_used(url: str) -> None:
    async with endpoints("http://127.0.0.1:9") as one:
        with pytest.raises(Retryable):
            await one.call("eth_chainId")
        one.replace([url])
        assert await one.call("eth_chainId") == "0x7a69"
        with pytest.raises(Permanent):
            one.replace([url], quorum=2)
        assert await one.call("eth_chainId") == "0x7a69"


async def test_an_endpoints_pace_is_kept() -> None:
    begun = asyncio.get_running_loop().time()
    pace = Pace(20.0)
    for _ in range(15):
        await pace.turn()
    # Ten may go at once, and the others one each twentieth of a second.
    assert asyncio.get_running_loop().time() - begun >= 4 / 20
    await pace.turn(10_000)
    with pytest.raises(RateLimited):
        await pace.turn()


async def test_a_subscription_tells_of_new_heads_and_is_opened_again() -> None:
    told = asyncio.Event()
    with anvil() as url:
        heads = Heads(url.replace("http", "ws"), told.set, silence=0.3)
        running = asyncio.create_task(heads.run())
        rpc = Rpc(url)
        try:
            for _ in range(3):
                async with asyncio.timeout(10):
                    await told.wait()
                for _ in range(1000):
                    if heads.alive:
                        break
                    await asyncio.sleep(0.01)
                told.clear()
                await rpc.call("anvil_mine", "0x1")
                async with asyncio.timeout(10):
                    await told.wait()
                # Silent for longer than it may: opened anew, which is word enough.
                told.clear()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await rpc.close()
    assert not heads.alive


async def test_a_subscription_that_is_answered_with_nonsense_is_tried_again() -> None:
    answers = ["{", "[" * 100_000, "7", '{"result": "0x1"}']
    asked = 0
    told = asyncio.Event()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        nonlocal asked
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive_json()
        await socket.send_str(answers[min(asked, 3)])
        asked += 1
        await socket.receive()
        return socket

    async with served("/", handle) as url:
        heads = Heads(url.replace("http", "ws"), told.set, pause=0.01)
        running = asyncio.create_task(heads.run())
        try:
            async with asyncio.timeout(20):
                while not heads.alive:
                    await told.wait()
                    told.clear()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert asked == len(answers)


async def _genesis(url: str) -> bytes:
    rpc = Rpc(url)
    try:
        block = await SingleSource(rpc).block(0)
    finally:
        await rpc.close()
    assert block is not None
    return block.hash
