"""A task from start to the opened output, against a running enclave: with everything right, and with one thing wrong."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from enclave_app.protocol import signing
from enclave_app.protocol.canonical import dump
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.structs import Outcome
from enclave_app.protocol.wire import INLINE
from tests.enclave_kit import (
    ANCHOR,
    CHAIN,
    MARKER,
    PAYEE,
    Refusal,
    RunningEnclave,
    World,
    enclave,
    enclave_config,
    make_world,
    measured,
    tables,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured())


def expected() -> list[dict[str, Any]]:
    found = tables()
    y = dict(zip(found["b"]["id"].to_pylist(), found["b"]["y"].to_pylist(), strict=True))
    groups: dict[str, list[float]] = {}
    for row in found["a"].to_pylist():
        if row["id"] in y and row["x"] >= 1:
            groups.setdefault(row["grp"], []).append(row["x"] * y[row["id"]])
    rows = [{"grp": g, "n": len(v), "total": sum(v)} for g, v in groups.items()]
    return sorted(rows, key=lambda row: -row["total"])


async def test_a_task_gives_the_agreed_output_to_its_recipient(running: RunningEnclave, world: World) -> None:
    body = world.body()
    done = await running.whole(world, body)
    identity = await running.identity()
    assert done.result.outcome == Outcome.SUCCEEDED
    assert (done.result.payee, done.result.anchor) == (signing_address(PAYEE), ANCHOR)
    domain = CHAIN.oracle_domain(world.agreement)
    assert done.result.task_id == body.request.typed_digest(domain)
    signing.check(done.result.typed_digest(domain), done.signature, identity.signer, "a result")
    signed = done.outputs[0]
    signing.check(signed.shares.typed_digest(domain), signed.signature, identity.signer, "a share list")
    assert signed.shares.shares == sha256(signed.share_list)
    found = world.open(body, done, await running.file(done))
    assert found.drop_columns(["total"]).to_pylist() == [{"grp": r["grp"], "n": r["n"]} for r in expected()]
    assert found["total"].to_pylist() == pytest.approx([r["total"] for r in expected()])
    assert done.result.outputs[0].length % 4096 == 0
    assert done.used == tuple(b.hpke_key for b in world.agreement.keys.brokers[:2])
    assert done.blamed == ()


def signing_address(text: str) -> str:
    from eth_utils.address import to_checksum_address

    return str(to_checksum_address(text))


async def test_any_t_brokers_are_enough_and_make_the_same_output(running: RunningEnclave, world: World) -> None:
    body, found = world.body(), []
    for positions in ((0, 1), (0, 2), (1, 2)):
        started = await running.start(body)
        done = await running.run(started.task_id, world.answers(body, started, await running.identity(), positions))
        found.append((done.result, done.signature, await running.file(done)))
    # R16: a re-run, by whichever brokers, is byte for byte the same.
    assert found[0] == found[1] == found[2]


async def test_the_same_run_again_gives_the_same_bytes(running: RunningEnclave, world: World) -> None:
    body = world.body()
    started = await running.start(body)
    answers = world.answers(body, started, await running.identity())
    assert await running.run(started.task_id, answers) == await running.run(started.task_id, answers)


async def test_the_next_task_with_the_same_keys_reads_and_decodes_no_data_again(
    running: RunningEnclave, world: World
) -> None:
    first = await running.whole(world, world.body())
    _remove_data(world)
    body = world.body(nonce=bytes([9]) * 32)
    second = await running.whole(world, body)
    assert second.result.task_id != first.result.task_id
    assert world.open(body, second, await running.file(second)).num_rows == len(expected())


async def test_a_decoded_table_opens_for_no_task_that_too_few_brokers_answered(
    running: RunningEnclave, world: World
) -> None:
    await running.whole(world, world.body())
    body = world.body(nonce=bytes([9]) * 32)
    started = await running.start(body)
    with pytest.raises(Refusal) as caught:
        await running.run(started.task_id, world.answers(body, started, await running.identity(), (0,)))
    assert caught.value.code == "release.too_few"


async def test_an_enclave_that_may_keep_nothing_reads_its_data_again(tmp_path: Path) -> None:
    config = enclave_config(max_decoded_bytes=0)
    world = make_world(tmp_path / "storage", measured(config))
    async with enclave(tmp_path / "enclave", config=config) as running:
        await running.whole(world, world.body())
        _remove_data(world)
        with pytest.raises(Refusal) as caught:
            await running.whole(world, world.body(nonce=bytes([9]) * 32))
    assert caught.value.code == "blob.missing"


def _remove_data(world: World) -> None:
    for version in world.body().request.versions:
        for file in read_manifest(world.path(version).read_bytes(), version).files:
            world.path(file.sha256).unlink()


async def test_an_anchor_that_is_not_agreed_is_refused(running: RunningEnclave, world: World) -> None:
    body = world.body().model_copy(update={"anchor": bytes([1]) * 32})
    with pytest.raises(Refusal) as caught:
        await running.start(body)
    assert caught.value.code == "task.anchor"


async def test_the_right_blob_is_taken_from_the_next_base(
    running: RunningEnclave, world: World, tmp_path: Path
) -> None:
    lying = tmp_path / "lying"
    lying.mkdir()
    for path in world.storage.iterdir():
        (lying / path.name).write_bytes(b"something else")
    body = world.body().model_copy(update={"storage": (lying.as_uri(), world.storage.as_uri())})
    assert (await running.whole(world, body)).result.outcome == Outcome.SUCCEEDED


async def test_storage_of_a_scheme_that_is_not_configured_is_refused(running: RunningEnclave, world: World) -> None:
    with pytest.raises(Refusal) as caught:
        await running.start(world.body().model_copy(update={"storage": ("ftp://127.0.0.1/",)}))
    assert caught.value.code == "storage.scheme"


async def test_blobs_come_over_http(running: RunningEnclave, world: World) -> None:
    async def blob(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(world.storage / request.match_info["name"])

    app = web.Application()
    app.router.add_get("/blobs/{name}", blob)
    async with TestServer(app) as server:
        body = world.body().model_copy(update={"storage": (str(server.make_url("/blobs")),)})
        assert (await running.whole(world, body)).result.outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize("params", [{"least": 1 << 41}, {"least": "1"}, {}, {"least": 1, "more": 2}])
async def test_invalid_parameters_end_in_a_signed_failure(
    running: RunningEnclave, world: World, params: dict[str, Any]
) -> None:
    body = world.body(params=dump(params))
    started = await running.start(body)
    identity = await running.identity()
    with pytest.raises(Refusal):
        await running.run(started.task_id, world.answers(body, started, identity, (0,)))
    done = await running.run(started.task_id, world.answers(body, started, identity))
    assert (done.result.outcome, done.result.outputs, done.outputs) == (Outcome.FAILED, (), ())
    digest = done.result.typed_digest(CHAIN.oracle_domain(world.agreement))
    signing.check(digest, done.signature, identity.signer, "a failure")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT cast(grp AS INTEGER) AS x FROM a",
        "SELECT nothing FROM a",
        "SELECT random() AS x FROM a",
        "SELECT secret FROM a",
        "SELECT id FROM a, range(3)",
        "SELEC",
        "SELECT a.id FROM a, b, a AS c",
    ],
)
async def test_a_function_that_fails_on_any_machine_ends_in_a_signed_failure(
    running: RunningEnclave, tmp_path: Path, sql: str
) -> None:
    world = make_world(tmp_path / "other", measured(), sql=sql)
    done = await running.whole(world, world.body())
    assert (done.result.outcome, done.outputs) == (Outcome.FAILED, ())


async def test_running_out_of_time_is_retryable_and_not_signed(running: RunningEnclave, tmp_path: Path) -> None:
    world = make_world(
        tmp_path / "other",
        measured(),
        sql="SELECT count(*) AS n FROM a, a AS b, a AS c, a AS d, a AS e WHERE a.x + b.x + c.x + d.x + e.x < 0",
        limits={"time_seconds": 1},
    )
    started = time.monotonic()
    with pytest.raises(Refusal) as caught:
        await running.whole(world, world.body())
    assert (caught.value.code, caught.value.body.retry) == ("run.time", True)
    assert time.monotonic() - started < 10


async def test_a_task_that_is_forgotten_while_it_runs_is_stopped_and_the_next_one_runs(tmp_path: Path) -> None:
    endless = "SELECT count(*) AS n FROM a, a AS b, a AS c, a AS d, a AS e WHERE a.x + b.x + c.x + d.x + e.x < 0"
    config = enclave_config(max_running=1)
    slow = make_world(tmp_path / "slow", measured(config), sql=endless, limits={"time_seconds": 300})
    quick = make_world(tmp_path / "quick", measured(config))
    async with enclave(tmp_path / "enclave", config=config) as running:
        identity, body = await running.identity(), slow.body()
        started = await running.start(body)
        run = asyncio.create_task(running.run(started.task_id, slow.answers(body, started, identity)))
        await asyncio.sleep(1.0)  # the function is in its sandbox
        await running.call("DELETE", f"/v1/tasks/0x{started.task_id.hex()}")
        with pytest.raises(Refusal) as caught:
            await asyncio.wait_for(run, 20)
        assert (caught.value.code, caught.value.body.retry) == ("task.forgotten", True)
        # There is room for one: the stopped function has left it.
        done = await asyncio.wait_for(running.whole(quick, quick.body()), 60)
        assert done.result.outcome == Outcome.SUCCEEDED


async def test_running_out_of_memory_is_retryable_and_not_signed(running: RunningEnclave, tmp_path: Path) -> None:
    world = make_world(
        tmp_path / "other",
        measured(),
        sql="SELECT len(list(a.grp || b.grp || c.grp)) AS n FROM a, a AS b, a AS c",
        limits={"memory_mib": 64},
    )
    with pytest.raises(Refusal) as caught:
        await running.whole(world, world.body())
    assert caught.value.code in ("run.memory", "run.crashed")
    assert caught.value.body.retry


async def test_as_of_is_the_only_clock(running: RunningEnclave, tmp_path: Path) -> None:
    world = make_world(tmp_path / "other", measured(), sql="SELECT epoch($as_of) AS t FROM a LIMIT 1")
    body = world.body(as_of=86_400)
    done = await running.whole(world, body)
    assert world.open(body, done, await running.file(done)).to_pylist() == [{"t": 86_400.0}]


async def test_no_error_or_log_line_holds_a_value(running: RunningEnclave, tmp_path: Path) -> None:
    """Functions that would put what they read into an error's text (conversion errors quote the value)."""
    messages = []
    for sql in ("SELECT cast(grp AS DATE) AS x FROM a", "SELECT error(grp) AS x FROM a"):
        world = make_world(tmp_path / sha256(sql.encode()).hex()[:8], measured(), sql=sql)
        messages.append(repr(await running.whole(world, world.body())))
    text = running.log.read_text() + "".join(messages)
    assert all(value not in text for value in ("'red'", '"red"', "green", MARKER))


async def test_a_small_output_comes_with_its_result_and_a_large_one_does_not(
    running: RunningEnclave, tmp_path: Path
) -> None:
    for size, comes in ((4096, True), (INLINE, False)):  # the stream's own bytes come on top
        world = make_world(tmp_path / str(size), measured(), size_class=size)
        done = await running.whole(world, world.body())
        assert done.files == ((await running.file(done),) if comes else ())


async def test_a_start_lets_go_of_the_tasks_that_are_over(running: RunningEnclave, world: World) -> None:
    done = [await running.whole(world, world.body(nonce=bytes([n]) * 32)) for n in (1, 2, 3)]
    over = tuple(each.result.task_id for each in done[:2])
    started = await running.start(world.body(nonce=bytes([4]) * 32).model_copy(update={"over": (*over, bytes(32))}))
    assert started.task_id not in over
    for each, gone in zip(done, (True, True, False), strict=True):
        if gone:
            with pytest.raises(Refusal) as caught:
                await running.file(each)
            assert caught.value.code == "task.unknown"
        else:
            await running.file(each)


async def test_the_documents_of_an_agreement_are_read_once_and_their_storage_is_checked_each_time(
    running: RunningEnclave, world: World
) -> None:
    await running.start(world.body())
    for path in world.storage.iterdir():
        path.unlink()
    await running.start(world.body(nonce=bytes([9]) * 32))
    with pytest.raises(Refusal) as caught:
        await running.start(world.body().model_copy(update={"storage": ("ftp://127.0.0.1/",)}))
    assert caught.value.code == "storage.scheme"


async def test_what_is_forgotten_is_gone(running: RunningEnclave, world: World) -> None:
    done = await running.whole(world, world.body())
    await running.call("DELETE", f"/v1/tasks/{done.result.task_id.hex()}")
    with pytest.raises(Refusal) as caught:
        await running.file(done)
    assert (caught.value.code, caught.value.status) == ("task.unknown", 404)


async def test_started_tasks_are_bounded_in_bytes(tmp_path: Path) -> None:
    """A host that starts tasks and never runs them gets the newest kept, the oldest forgotten."""
    config = enclave_config(max_kept_bytes=32_768)
    world = make_world(tmp_path / "storage", measured(config))
    async with enclave(tmp_path / "enclave", config=config) as running:
        started = [await running.start(world.body()) for _ in range(6)]
        codes = []
        for task in started:
            with pytest.raises(Refusal) as caught:
                await running.run(task.task_id, [])
            codes.append(caught.value.code)
    assert codes[0] == "task.unknown"
    assert codes[-1] == "release.too_few"


async def test_a_small_join_takes_little_time(running: RunningEnclave, world: World, record_property: Any) -> None:
    """Start, answers, run, result: measured, and loosely bounded, because the machine is shared."""
    identity, spent, inside = await running.identity(), [], []
    for _ in range(10):
        body = world.body()
        begun = time.perf_counter()
        started = await running.start(body)
        answered = time.perf_counter()
        answers = world.answers(body, started, identity)
        waited = time.perf_counter()
        done = await running.run(started.task_id, answers)
        spent.append((answered - begun + time.perf_counter() - waited) * 1000)
        inside.append(done.enclave_ms)
    record_property("enclave_ms", statistics.median(inside))
    print(f"start and run: median {statistics.median(spent):.1f} ms; enclave_ms {statistics.median(inside)}")
    assert statistics.median(spent) < 2000
