"""Lies about a task's terms, shares and files, told to a running enclave by the host and by a minority of brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.release import ReleaseAnswer, answer_info, pack_answer
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.storage import blob_name
from enclave_app.protocol.wire import TaskBody
from tests.adversary.lies import Refused, lie
from tests.enclave_kit import CHAIN, RunningEnclave, World, enclave, make_world, measured, share

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = 64 << 20
"""What an endless blob is cut to, in bytes, so that a test of one ends."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured())


def other_versions(world: World) -> TaskBody:
    return world.body(versions=tuple(reversed([d.id_or_stream for d in world.agreement.data])))


def longer_file(world: World) -> TaskBody:
    """An owner's manifest, which the agreement names, with a file one byte longer than its digest's."""
    dataset = world.datasets[0]
    head, *rest = dataset.manifest.files
    manifest = dataset.manifest.model_copy(update={"files": (head.model_copy(update={"size": head.size + 1}), *rest)})
    listed = share(dataset.name, dataset.table, dataset.keys, manifest, world.brokers, world.put)
    world.datasets[0] = listed
    changes = {"id_or_stream": manifest.id, "shares_digest": listed.shares.id}
    term = world.agreement.data[0].model_copy(update=changes)
    return world.body(world.changed(data=(term, *world.agreement.data[1:])))


def nobody_to_pay(world: World) -> TaskBody:
    return world.body().model_copy(update={"payee": ZERO_ADDRESS})


def shares_that_lack_a_key(world: World) -> TaskBody:
    """A co-owner's list, which the agreement names, without the last column's key."""
    dataset = world.datasets[0]
    listed = share(dataset.name, dataset.table, dataset.keys[:-1], dataset.manifest, world.brokers, world.put).shares
    term = world.agreement.data[0].model_copy(update={"shares_digest": listed.id})
    return world.body(world.changed(data=(term, *world.agreement.data[1:])))


@pytest.mark.parametrize(
    "tell",
    [
        pytest.param(
            other_versions, marks=lie("data", "a request that names two datasets in each other's place", "R7", "request.versions")
        ),
        pytest.param(
            shares_that_lack_a_key, marks=lie("keys", "a share list with a share too few for its dataset", "R10", "task.shares")
        ),
        pytest.param(nobody_to_pay, marks=lie("results", "nobody to pay for a result", "R20", "task.payee")),
    ],
)  # fmt: skip
async def test_a_task_on_other_terms_is_not_started(
    running: RunningEnclave, world: World, refused: Refused, tell: Callable[[World], TaskBody]
) -> None:
    refused.watch(running.footprint)
    async with refused():
        await running.start(tell(world))


@lie("data", "a manifest with a file longer than its digest's", "R7 R19", "blob.digest")
async def test_a_file_has_the_length_that_its_manifest_says(
    running: RunningEnclave, world: World, refused: Refused
) -> None:
    body = longer_file(world)
    refused.watch(running.footprint)
    async with refused():
        await running.whole(world, body)


# Answers of brokers, of which one is good and two are needed: that the lie does not count shows in `release.too_few`.

Given = tuple[bytes, list[ReleaseAnswer], str]
"""The task, the answers that the host hands over, and what the bad one is blamed for."""
Answers = Callable[[RunningEnclave, World, TaskBody], Awaitable[Given]]


async def answer_of_a_stranger(running: RunningEnclave, world: World, body: TaskBody) -> Given:
    started = await running.start(body)
    good, second = world.answers(body, started, await running.identity(), (0, 1))
    stranger = SigningKey.generate()
    said = second.statement.model_copy(update={"broker": sha256(b"a stranger")})
    signature = stranger.sign(said.typed_digest(CHAIN.oracle_domain(body.agreement)))
    return (
        started.task_id,
        [good, second.model_copy(update={"statement": said, "signature": signature})],
        "release.broker",
    )


async def share_of_another_broker(running: RunningEnclave, world: World, body: TaskBody) -> Given:
    """Broker 1 gives broker 0's share in its own name, under its own signature: two answers, one share."""
    started, identity = await running.start(body), await running.identity()
    good, second = world.answers(body, started, identity, (0, 1))
    info = answer_info(CHAIN, body.agreement, started.releases[1].request, body.request.versions, identity.signer)
    sealed = PublicKey(identity.sealing_key).seal(pack_answer(1, world.shares_of(body, 0)), info)
    said = second.statement.model_copy(update={"answer": sha256(sealed)})
    signature = world.brokers[1].signer.sign(said.typed_digest(CHAIN.oracle_domain(body.agreement)))
    return started.task_id, [good, ReleaseAnswer(statement=said, signature=signature, sealed=sealed)], "release.keys"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(
            answer_of_a_stranger,
            marks=lie("keys", "an answer of a broker that nobody agreed on", "R11 R15", "release.too_few"),
        ),
        pytest.param(
            share_of_another_broker,
            marks=lie("keys", "one share twice, in the names of two brokers", "R11", "release.too_few"),
        ),
    ],
)
async def test_an_answer_that_is_not_its_brokers_own_does_not_count(
    running: RunningEnclave, world: World, refused: Refused, answers: Answers
) -> None:
    body = world.body()
    task, given, blame = await answers(running, world, body)
    refused.watch(running.footprint)
    async with refused():
        await running.run(task, given)
    assert [line["code"] for line in running.logged() if line["event"] == "error"][-1] == "release.too_few"
    assert blame in [line["message"] for line in running.logged() if line["event"] == "error"][-1]
    await running.run(task, world.answers(body, await running.start(body), await running.identity()))


# Blobs that are longer than they may be: an enclave reads no further than it has to.


async def sent(running: RunningEnclave, world: World, digest: bytes) -> int:
    """Serves the world's storage, but for one blob that goes on; returns how much of that was taken."""
    taken = 0

    async def blob(request: web.Request) -> web.StreamResponse:
        nonlocal taken
        name = request.match_info["name"]
        if name != blob_name(digest):
            return web.Response(body=(world.storage / name).read_bytes())
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(world.path(digest).read_bytes())
        while taken < ENDLESS:
            await response.write(bytes(1 << 20))
            taken += 1 << 20
        return response

    app = web.Application()
    app.router.add_get("/{name}", blob)
    async with TestServer(app) as server:
        body = world.body().model_copy(update={"storage": (str(server.make_url("/")),)})
        try:
            await running.whole(world, body)
        finally:
            assert taken < ENDLESS // 2, "the enclave read on and on"
    return taken


def broker_key(world: World) -> bytes:
    return world.agreement.keys.brokers[0].hpke_key


def ciphertext(world: World) -> bytes:
    return world.datasets[0].manifest.files[0].sha256


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(broker_key, marks=lie("data", "a document without an end", "R7 R19", "blob.digest")),
        pytest.param(ciphertext, marks=lie("data", "a file of a dataset without an end", "R7 R19", "blob.digest")),
    ],
)
async def test_a_blob_without_an_end_is_left_off(
    running: RunningEnclave, world: World, refused: Refused, blob: Callable[[World], bytes]
) -> None:
    refused.watch(running.footprint)
    async with refused():
        await sent(running, world, blob(world))
