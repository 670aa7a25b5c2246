"""Lies about results, told to the recipient who opens one (R15, R17): by storage, and in the place of a broker."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.release import (
    OutputAnswer,
    OutputBody,
    SignedShares,
    open_output_share,
    seal_output_share,
)
from enclave_app.protocol.storage import blob_name
from oracle.errors import OracleError
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Scene
from tests.output_kit import Finished
from tests.reader_kit import Reader, reading, record_of
from tests.rpc_kit import served

scene, world = fixtures.scene, fixtures.world


@pytest.fixture
async def reader(scene: Scene, tmp_path: Path) -> AsyncIterator[Reader]:
    async with reading(scene, tmp_path) as found:
        yield found


# Storage, which the host writes.


async def ciphertext_flipped(reader: Reader) -> None:
    path = reader.storage / blob_name(reader.task.output.manifest.files[0].sha256)
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])


def record(change: Callable[[SignedShares], dict[str, Any]]) -> Callable[[Reader], Awaitable[None]]:
    async def tell(reader: Reader) -> None:
        told = await record_of(reader.task)
        output = told.outputs[0].model_copy(update=change(told.outputs[0]))
        reader.put(told.model_copy(update={"outputs": (output,)}))

    return tell


async def record_of_another_task(reader: Reader) -> None:
    """With the true manifest and shares, whose statement is for another task."""
    task = reader.task
    said = task.statement(task_id=bytes([1]) * 32)
    told = await record_of(task)
    output = told.outputs[0].model_copy(update={"shares": said["shares"], "signature": said["shares_signature"]})
    reader.put(told.model_copy(update={"outputs": (output,)}))


async def nothing_to_open(reader: Reader) -> None:
    told = await record_of(reader.task)
    reader.put(told.model_copy(update={"outputs": ()}))


async def output_of_another_task(reader: Reader) -> None:
    """A whole record, each part of it good, and of another task of the same agreement."""
    task = reader.task
    request = await task.scene.request(task.agreement, result_key=task.reader.public.digest)
    other = Finished(task.scene, task.agreement, request, task.reader)
    await other.settle()
    reader.put(await record_of(other))


async def shares_that_nobody_signed(reader: Reader) -> None:
    told = await record_of(reader.task)
    output = told.outputs[0].model_copy(update={"signature": bytes(64) + b"\x1b"})
    reader.put(told.model_copy(update={"outputs": (output,)}))


@pytest.mark.parametrize(
    "tell",
    [
        pytest.param(
            ciphertext_flipped,
            marks=lie("results", "an output's ciphertext with one bit changed", "R17", "blob.digest"),
        ),
        pytest.param(
            record(lambda _: {"manifest": b"{}"}),
            marks=lie("results", "another manifest to the recipient than was settled", "R17", "manifest.digest"),
            id="manifest",
        ),
        pytest.param(
            record(lambda _: {"share_list": b"{}"}),
            marks=lie(
                "results", "another share list to the recipient than its statement names", "R17", "shares.digest"
            ),
            id="share list",
        ),
        pytest.param(
            record_of_another_task,
            marks=lie("results", "an enclave's word on another task to the recipient", "R17", "task.record"),
        ),
        pytest.param(
            nothing_to_open,
            marks=lie("results", "a record without the output to the recipient", "R17", "task.record"),
        ),
        pytest.param(
            output_of_another_task,
            marks=lie("results", "the record of another task to the recipient", "R17", "manifest.digest"),
        ),
        pytest.param(
            shares_that_nobody_signed,
            marks=lie("results", "an unsigned share list to the recipient", "R17", "output.shares"),
        ),
    ],
)
async def test_storage_cannot_pass_off_another_output(
    reader: Reader, refused: Refused, tell: Callable[[Reader], Awaitable[None]]
) -> None:
    await tell(reader)
    refused.watch(reader.footprint)
    async with refused():
        await reader.open()


# A gateway in front of the brokers, or a minority of them.


Answer = Callable[[Finished, OutputBody], OutputAnswer]


def answer_with(task: Finished, body: OutputBody, share: bytes, reader: PublicKey) -> OutputAnswer:
    broker = task.scene.world.brokers[0].digest
    return OutputAnswer(sealed=seal_output_share(task.chain, task.agreement, body.shares, broker, reader, 1, share))


def random_share(task: Finished, body: OutputBody) -> OutputAnswer:
    return answer_with(task, body, secrets.token_bytes(32), task.reader.public)


def sealed_to_another(task: Finished, body: OutputBody) -> OutputAnswer:
    return answer_with(task, body, secrets.token_bytes(32), SealingKey.generate().public)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            random_share,
            marks=lie("results", "a wrong share of an output's key to the recipient", "R11", "output.shares"),
        ),
        pytest.param(
            sealed_to_another,
            marks=lie(
                "results", "an answer that is sealed to another key than the recipient's", "R15", "output.shares"
            ),
        ),
    ],
)
async def test_a_minority_of_brokers_cannot_make_another_output(
    reader: Reader, refused: Refused, answer: Answer
) -> None:
    async def lying(request: web.Request) -> web.Response:
        body = parse(OutputBody, await request.read(), limit=1 << 26, canonical=False)
        return web.Response(body=answer(reader.task, body).canonical())

    refused.watch(reader.footprint)
    async with served("/v1/output", lying) as url, refused():
        await reader.open(brokers={**reader.brokers, next(iter(reader.brokers)): url})


@lie("keys", "one share of an output's key twice, in the names of two brokers", "R11", "output.shares")
async def test_one_share_counts_once(reader: Reader, refused: Refused) -> None:
    """Broker 1 has given its share away, and another answers with it in broker 0's place."""
    task, urls = reader.task, list(reader.brokers.values())
    brokers = [card.digest for card in task.scene.world.brokers]

    async def lying(request: web.Request) -> web.Response:
        body = parse(OutputBody, await request.read(), limit=1 << 26, canonical=False)
        async with ClientSession() as session, session.post(f"{urls[1]}/v1/output", data=body.canonical()) as other:
            sealed = parse(OutputAnswer, await other.read(), canonical=False).sealed
        x, share = open_output_share(sealed, task.chain, task.agreement, body.shares, brokers[1], task.reader)
        again = seal_output_share(task.chain, task.agreement, body.shares, brokers[0], task.reader.public, x, share)
        return web.Response(body=OutputAnswer(sealed=again).canonical())

    refused.watch(reader.footprint)
    async with served("/v1/output", lying) as url:
        liars = {**reader.brokers, brokers[0]: url}
        async with refused():
            await reader.open(brokers=liars)
        with pytest.raises(OracleError, match="another's share"):
            await reader.open(brokers=liars)


@lie("results", "nothing, of a task that ended in a signed failure", "R19", "task.failed")
async def test_a_failure_is_told_as_one(reader: Reader, scene: Scene, refused: Refused) -> None:
    request = await scene.request(reader.task.agreement, result_key=reader.task.reader.public.digest)
    reader.task = Finished(scene, reader.task.agreement, request, reader.task.reader)
    await reader.task.settle(reader.task.make_result(outcome=2))
    refused.watch(reader.footprint)
    async with refused():
        await reader.open()
