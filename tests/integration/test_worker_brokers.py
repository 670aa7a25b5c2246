"""Three brokers of which two are needed, over real HTTP: one that is down, slow or lying, in each way, stops nothing (R12)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import ErrorBody, ReleaseAnswer, SignedRelease
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import ReleaseStatement
from oracle.errors import Retryable
from oracle.logs import Log
from oracle.worker.brokers import BrokerClient, Round, make_round
from tests.anvil_kit import free_port
from tests.unit.test_worker_brokers import AGREEMENT, CHAIN, ENCLAVE, SEALED, STORY, asked, everything

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NAMES = [broker.hpke_key for broker in AGREEMENT.keys.brokers]
LOG = Log("test")


def answer(index: int, by: SigningKey | None = None, **changes: object) -> ReleaseAnswer:
    request = asked(broker=NAMES[index]).request
    fields: dict[str, object] = {
        "agreement_id": request.agreement_id,
        "task_id": request.task_id,
        "signer": ENCLAVE.address,
        "nonce": request.nonce,
        "broker": request.broker,
        "keys": b"\x04" * 32,
        "answer": sha256(SEALED),
        "collateral": b"\x05" * 32,
        "time": int(time.time()),
        "block_number": 1,
        "block_hash": b"\x06" * 32,
    }
    said = ReleaseStatement.model_validate({**fields, **changes})
    signature = (by or STORY.keys.brokers[index]).sign(said.typed_digest(CHAIN.oracle_domain(AGREEMENT)))
    return ReleaseAnswer(statement=said, signature=signature, sealed=SEALED)


def saying(given: ReleaseAnswer) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=given.canonical())

    return handle


async def never(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65536)


async def slow_drops(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def hangs_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def elsewhere(_request: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect("http://127.0.0.1:9/")


def status(number: int, body: bytes = b"", **headers: str) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=number, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handle


BUSY = ErrorBody(code="broker.rate", message="later", retry=True).canonical()
LIES: dict[str, tuple[Handler, str | None]] = {
    "never answers": (never, None),
    "drops in slowly": (slow_drops, None),
    "an endless answer": (endless, "json.size"),
    "garbage": (status(200, b"\xff" * 100), "json.syntax"),
    "deep garbage": (status(200, b"[" * 5000), "json.depth"),
    "nothing": (status(200), "json.syntax"),
    "hangs up": (hangs_up, "broker.unreachable"),
    "redirects": (elsewhere, "http.307"),
    "a bug": (status(500, b"oops"), "http.500"),
    "a refusal": (status(403, ErrorBody(code="x.y", message="no", retry=False).canonical()), "x.y"),
    "asks to wait": (status(429, BUSY, Retry_After="9"), "broker.rate"),
    "another nonce": (saying(answer(0, nonce=b"\x0f" * 32)), "release.statement"),
    "another task": (saying(answer(0, task_id=b"\x0f" * 32)), "release.statement"),
    "another answer": (saying(answer(0, answer=b"\x0f" * 32)), "release.statement"),
    "another broker's words": (saying(answer(1)), "release.statement"),
    "another key": (saying(answer(0, by=STORY.keys.brokers[1])), "signature.signer"),
}


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, list[int]]]:
    """A broker's address, and a mark for each question that it got."""
    questions: list[int] = []

    async def counted(request: web.Request) -> web.StreamResponse:
        questions.append(1)
        return await handler(request)

    app = web.Application()
    app.router.add_post("/v1/release", counted)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
        yield f"http://127.0.0.1:{port}", questions
    finally:
        await runner.cleanup()


@asynccontextmanager
async def three(*handlers: Handler, hedge: float = 0.02) -> AsyncIterator[tuple[BrokerClient, Round, list[list[int]]]]:
    async with AsyncExitStack() as stack:
        served = [await stack.enter_async_context(serving(handler)) for handler in handlers]
        client = BrokerClient(
            {name: url for name, (url, _) in zip(NAMES, served, strict=True)}, timeout=60.0, hedge=hedge
        )
        stack.push_async_callback(client.close)
        releases: list[SignedRelease] = [asked(broker=name) for name in NAMES]
        round_ = make_round(everything(), releases, ENCLAVE.address)
        stack.callback(round_.close)
        yield client, round_, [questions for _, questions in served]


def first(client: BrokerClient, *indexes: int) -> None:
    """Let these brokers be the ones that are asked first."""
    for index, name in enumerate(NAMES):
        client.health[name].latency = 0.001 if index in indexes else 10.0


@pytest.mark.parametrize("lie", LIES)
async def test_one_bad_broker_of_three_stops_nothing(lie: str) -> None:
    handler, code = LIES[lie]
    async with three(handler, saying(answer(1)), saying(answer(2))) as (client, round_, _):
        first(client, 0, 1)
        answers = await round_.gather(client, LOG, grace=0)
        assert {each.statement.broker for each in answers} == {NAMES[1], NAMES[2]}
        assert [fault.code for fault in round_.faults.values()] == ([] if code is None else [code])
        if code is not None:
            later = client.order(NAMES, bytes(32))
            assert NAMES[0] not in later if lie == "asks to wait" else later[-1] == NAMES[0]
            assert client.health[NAMES[0]].faults[code] == 1


async def test_a_broker_that_is_down_stops_nothing() -> None:
    async with three(never, saying(answer(1)), saying(answer(2)), hedge=60.0) as (client, round_, _):
        client.endpoints[NAMES[0]] = f"http://127.0.0.1:{free_port()}"
        first(client, 0, 1)
        assert len(await round_.gather(client, LOG, grace=0)) == 2
        assert round_.faults[NAMES[0]].code == "broker.unreachable"


async def test_no_more_brokers_are_asked_than_are_needed() -> None:
    async with three(*(saying(answer(i)) for i in range(3)), hedge=60.0) as (client, round_, questions):
        first(client, 1, 2)
        await round_.gather(client, LOG, grace=0.05)
        assert questions == [[], [1], [1]]
        assert not round_.exhausted
        assert len(await round_.rest()) == 3
        assert questions == [[1], [1], [1]]


async def test_a_blamed_broker_is_asked_last_and_is_not_enough() -> None:
    async with three(*(saying(answer(i)) for i in range(3)), hedge=60.0) as (client, round_, _):
        first(client, 0, 1)
        client.suspects.add(NAMES[0])
        await round_.gather(client, LOG, grace=0)
        assert {NAMES[1], NAMES[2]} <= round_.answers.keys()


async def test_a_blamed_broker_still_counts_where_there_is_no_other() -> None:
    async with three(saying(answer(0)), saying(answer(1)), status(500)) as (client, round_, _):
        client.suspects.add(NAMES[0])
        answers = await round_.gather(client, LOG, grace=0)
        assert {each.statement.broker for each in answers} == {NAMES[0], NAMES[1]}


@pytest.mark.parametrize("when", [1, 1 << 40])
async def test_a_statement_of_another_time_is_taken_only_where_there_is_no_other(when: int) -> None:
    lying = saying(answer(0, time=when))
    async with three(lying, saying(answer(1)), saying(answer(2)), hedge=60.0) as (client, round_, _):
        first(client, 0, 1)
        await round_.gather(client, LOG, grace=0)
        assert {NAMES[1], NAMES[2]} <= round_.answers.keys()
    async with three(lying, saying(answer(1)), status(500)) as (client, round_, _):
        assert len(await round_.gather(client, LOG, grace=0)) == 2


async def test_a_broker_that_asks_for_a_pause_gets_it() -> None:
    waits = status(429, BUSY, Retry_After="30")
    async with three(waits, waits, saying(answer(2))) as (client, round_, questions):
        for _ in range(2):
            with pytest.raises(Retryable, match=r"broker\.rate"):
                await round_.gather(client, LOG, grace=0)
        assert questions == [[1], [1], [1]]


async def test_a_second_round_asks_those_that_failed_and_no_other() -> None:
    moods = [status(503), saying(answer(0))]

    async def recovers(request: web.Request) -> web.StreamResponse:
        return await moods.pop(0)(request)

    async with three(recovers, saying(answer(1)), status(500)) as (client, round_, questions):
        with pytest.raises(Retryable):
            await round_.gather(client, LOG, grace=0)
        assert len(await round_.gather(client, LOG, grace=0)) == 2
        assert questions[1] == [1]
