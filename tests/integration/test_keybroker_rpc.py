"""R13: no single endpoint is believed. Endpoints that lie, lag, disagree or die, in front of a real chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.structs import Retire
from oracle.chain.abi import load
from oracle.chain.rpc import Rpc
from oracle.chain.source import Block
from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.keybroker import KeyBroker, open_broker
from tests.broker_kit import Scene, World, anvil, free_port, make_world

Lie = Callable[[dict[str, Any], Any], Any]
"""The call and its true result, to the result that is given."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with anvil() as url:
        yield asyncio.run(make_world(url, tmp_path_factory.mktemp("world")))


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    rpc = Rpc(world.url)
    before = await rpc.call("evm_snapshot")
    yield Scene(world, rpc)
    await rpc.call("evm_revert", before)
    await rpc.close()


@asynccontextmanager
async def proxy(url: str, lie: Lie) -> AsyncIterator[str]:
    """An endpoint that answers as `url` does, but for its lie."""
    async with aiohttp.ClientSession() as session:

        async def answer(request: web.Request) -> web.Response:
            asked = await request.json()
            async with session.post(url, json=asked) as response:
                said = json.loads(await response.text())
            calls, answers = (asked, said) if isinstance(asked, list) else ([asked], [said])
            by_id = {call["id"]: call for call in calls}
            for each in answers:
                if "result" in each:
                    each["result"] = lie(by_id[each["id"]], each["result"])
            return web.json_response(said)

        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


def truth(_call: dict[str, Any], result: Any) -> Any:
    return result


def about(contract: str, function: str, say: Callable[[bytes], bytes]) -> Lie:
    """A lie about one function of a contract."""
    entry = load(contract)._functions[function]
    zeros = [bytes(32) if i["type"] == "bytes32" else "0x" + "00" * 20 for i in entry["inputs"]]
    selector = "0x" + load(contract).call(function, *zeros)[:4].hex()

    def lie(call: dict[str, Any], result: Any) -> Any:
        if call["method"] == "eth_call" and call["params"][0]["data"].startswith(selector):
            return "0x" + say(bytes.fromhex(result[2:])).hex()
        return result

    return lie


def word(index: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: 32 * index] + value.to_bytes(32, "big") + data[32 * index + 32 :]


async def attempt(scene: Scene, directory: Path, body: ReleaseBody, urls: list[str], **served: Any) -> KeyBroker:
    broker = await open_broker(scene.config(directory, urls, served=served))
    try:
        await broker.releases.release(body)
        return broker
    finally:
        await broker.close()


async def code_of(scene: Scene, directory: Path, body: ReleaseBody, urls: list[str], **served: Any) -> OracleError:
    with pytest.raises(OracleError) as caught:
        await attempt(scene, directory, body, urls, **served)
    return caught.value


async def suspended(scene: Scene) -> tuple[ReleaseBody, str, Lie]:
    body = await scene.body()
    await scene.party(scene.world.author, "suspend", body.chain.agreement_id(body.agreement))
    return body, "agreement.suspended", about("AgreementRegistry", "status", word(0, 1))


async def revoked(scene: Scene) -> tuple[ReleaseBody, str, Lie]:
    body = await scene.body()
    await scene.party(scene.world.author, "revoke", body.chain.agreement_id(body.agreement))
    return body, "agreement.revoked", about("AgreementRegistry", "status", word(0, 1))


async def not_consented(scene: Scene) -> tuple[ReleaseBody, str, Lie]:
    body = await scene.body()
    body = body.model_copy(update={"signatures": (b"", *body.signatures[1:])})
    return body, "consent.missing", about("AgreementRegistry", "consentOf", word(0, 3))


async def measurement_dropped(scene: Scene) -> tuple[ReleaseBody, str, Lie]:
    body = await scene.body()
    measurement = scene.world.program.measurement
    await scene.party(scene.world.author, "dropMeasurement", body.chain.agreement_id(body.agreement), measurement)
    return body, "agreement.dropped", about("AgreementRegistry", "isDropped", word(0, 0))


async def never_requested(scene: Scene) -> tuple[ReleaseBody, str, Lie]:
    body = await scene.body()
    request = body.request.model_copy(update={"nonce": bytes(32)})
    body = body.model_copy(update={"request": request, "release": scene.ask(body.agreement, request)})

    def forge(_data: bytes) -> bytes:
        words = [1, 1, request.deadline, 0, 0, 0]
        return b"".join(w.to_bytes(32, "big") for w in words)

    return body, "task.unknown", about("ComputeOracle", "task", forge)


async def retired(scene: Scene) -> tuple[ReleaseBody, str, Lie]:
    body = await scene.body()
    signer = scene.world.enclave.signer
    digest = Retire(signer=signer.address).typed_digest(body.chain.enclave_domain(body.agreement))
    call = load("EnclaveRegistry").call("retire", scene.anchor, signer.address, signer.sign(digest))
    await scene.transact(scene.world.requester, scene.world.deployment.enclave_registry, call)
    return body, "enclave.retired", about("EnclaveRegistry", "identity", word(5, 0))


CASES = [suspended, revoked, not_consented, measurement_dropped, never_requested, retired]


@pytest.mark.parametrize("case", CASES)
async def test_a_lie_works_on_a_broker_that_believes_one_endpoint(scene: Scene, tmp_path: Path, case: Any) -> None:
    """That each lie is a good one: without a quorum it gets the keys."""
    body, code, lie = await case(scene)
    directory = scene.broker_directory(tmp_path)
    assert (await code_of(scene, directory, body, [scene.world.url])).code == code
    async with proxy(scene.world.url, lie) as liar:
        await attempt(scene, directory, body, [liar])


@pytest.mark.parametrize("case", CASES)
async def test_one_liar_of_two_stops_the_release(scene: Scene, tmp_path: Path, case: Any) -> None:
    body, _, lie = await case(scene)
    async with proxy(scene.world.url, lie) as liar:
        error = await code_of(scene, scene.broker_directory(tmp_path), body, [scene.world.url, liar])
    assert (error.code, type(error)) == ("chain.disagree", Retryable)


@pytest.mark.parametrize("case", CASES)
async def test_one_liar_of_three_is_outvoted(scene: Scene, tmp_path: Path, case: Any) -> None:
    body, code, lie = await case(scene)
    async with proxy(scene.world.url, lie) as liar, proxy(scene.world.url, truth) as honest:
        urls = [liar, scene.world.url, honest]
        assert (await code_of(scene, scene.broker_directory(tmp_path), body, urls, quorum=2)).code == code


async def test_a_liar_cannot_stop_an_honest_majority(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    lie = about("AgreementRegistry", "status", word(0, 3))
    async with proxy(scene.world.url, lie) as liar, proxy(scene.world.url, truth) as honest:
        await attempt(scene, scene.broker_directory(tmp_path), body, [liar, scene.world.url, honest], quorum=2)


async def test_an_answer_of_a_size_that_no_read_needs_is_not_taken_in(scene: Scene, tmp_path: Path) -> None:
    """One endpoint must not fill a broker's memory: zeros behind a true answer decode, so only the size tells."""
    body = await scene.body()
    lie = about("AgreementRegistry", "status", lambda data: data + bytes(5 << 20))
    async with proxy(scene.world.url, lie) as liar:
        error = await code_of(scene, scene.broker_directory(tmp_path), body, [liar])
    assert (error.code, type(error)) == ("rpc.size", Retryable)


async def test_a_dead_endpoint_stops_a_quorum_of_all_and_not_a_majority(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    dead = f"http://127.0.0.1:{free_port()}"
    directory = scene.broker_directory(tmp_path)
    error = await code_of(scene, directory, body, [scene.world.url, dead])
    assert isinstance(error, Retryable)
    async with proxy(scene.world.url, truth) as honest:
        await attempt(scene, directory, body, [dead, scene.world.url, honest], quorum=2)


async def test_an_endpoint_that_hides_the_newest_blocks_sets_the_pace(scene: Scene, tmp_path: Path) -> None:
    """A laggard can delay a release; it cannot have the broker read two different blocks."""
    body = await scene.body()
    old = (await scene.head()).number - 2

    async with aiohttp.ClientSession() as session:
        asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": [hex(old), False]}
        async with session.post(scene.world.url, json=asked) as response:
            block = json.loads(await response.text())["result"]

    def lag(call: dict[str, Any], result: Any) -> Any:
        return block if call["method"] == "eth_getBlockByNumber" and call["params"][0] == "latest" else result

    async with proxy(scene.world.url, lag) as laggard:
        error = await code_of(scene, scene.broker_directory(tmp_path), body, [scene.world.url, laggard])
    assert (error.code, type(error)) == ("agreement.inactive", Retryable)


async def test_a_forged_block_does_not_make_evidence_fresh(scene: Scene, tmp_path: Path) -> None:
    """The liar says that the evidence's made-up block is on the chain."""
    body = await scene.body()
    head = await scene.head()
    forged = Block(number=head.number, hash=bytes([9]) * 32, parent=head.parent, timestamp=head.timestamp)
    body = body.model_copy(update={"evidence": await scene.evidence(block=forged)})

    def lie(call: dict[str, Any], result: Any) -> Any:
        if call["method"] == "eth_getBlockByNumber" and call["params"][0] == hex(head.number):
            return {**result, "hash": "0x" + forged.hash.hex()}
        return result

    directory = scene.broker_directory(tmp_path)
    error = await code_of(scene, directory, body, [scene.world.url])
    assert (error.code, type(error)) == ("evidence.block", Refused)
    async with proxy(scene.world.url, lie) as liar:
        await attempt(scene, directory, body, [liar])  # believed alone
        error = await code_of(scene, directory, body, [scene.world.url, liar])
    assert error.code == "chain.disagree"


@pytest.mark.parametrize("place", [0, 5], ids=["oracle", "enclave registry"])
async def test_a_record_with_other_contracts_is_refused(scene: Scene, tmp_path: Path, place: int) -> None:
    body = await scene.body()
    async with proxy(scene.world.url, about("AgreementRegistry", "agreement", word(place, 0xAA))) as liar:
        error = await code_of(scene, scene.broker_directory(tmp_path), body, [liar])
    assert (error.code, type(error)) == ("agreement.contracts", Refused)


async def test_endpoints_of_another_chain_are_refused(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()

    def lie(call: dict[str, Any], result: Any) -> Any:
        return "0x5" if call["method"] == "eth_chainId" else result

    async with proxy(scene.world.url, lie) as other:
        error = await code_of(scene, scene.broker_directory(tmp_path), body, [other])
    assert (error.code, type(error)) == ("chain.wrong", Permanent)
