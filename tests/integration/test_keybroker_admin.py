"""What a broker's operator sees: readiness, metrics that say why it refuses, forks, and signals; on real servers and chains."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from enclave_app.protocol.canonical import parse
from enclave_app.protocol.release import ErrorBody, ReleaseBody
from oracle.errors import Retryable
from oracle.keybroker import KeyBroker, KeyBrokerConfig, open_broker, read_log
from oracle.keybroker.admin import Admin
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.log import Vanished
from oracle.keybroker.server import listen, start
from tests import broker_fixtures as fixtures
from tests.anvil_kit import anvil, free_port
from tests.broker_kit import Scene

scene, world = fixtures.scene, fixtures.world


@asynccontextmanager
async def both(config: KeyBrokerConfig) -> AsyncIterator[tuple[KeyBroker, str, str]]:
    """A broker, its public address and its operator's."""
    assert config.admin is not None
    broker = await open_broker(config)
    public, address = await start(broker, config)
    private, admin = await listen(Admin(broker, config).application(), config.admin)
    try:
        yield broker, address, admin
    finally:
        await private.cleanup()
        await public.cleanup()
        await broker.close()


def with_admin(scene: Scene, tmp_path: Path, rpc: list[str] | None = None, **changes: Any) -> KeyBrokerConfig:
    return scene.config(scene.broker_directory(tmp_path), rpc, admin={"port": 0}, **changes)


async def get(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.read()


async def post(url: str, body: ReleaseBody) -> tuple[int, dict[str, Any], str | None]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/release", data=body.canonical()) as response,
    ):
        return response.status, json.loads(await response.read()), response.headers.get("Retry-After")


async def metrics(url: str) -> dict[str, float]:
    status, page = await get(f"{url}/metrics")
    assert status == 200
    lines = [line.rsplit(" ", 1) for line in page.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_metrics_say_what_was_released_and_why_not(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    async with both(with_admin(scene, tmp_path)) as (broker, url, admin):
        assert (await post(url, body))[0] == 200
        assert (await post(url, body))[0] == 200
        assert (await post(url, body.model_copy(update={"signatures": (b"", *body.signatures[1:])})))[0] == 403
        await broker.watch.look()
        found = await metrics(admin)
    assert found["oracle_keybroker_releases_total"] == 1
    assert found["oracle_keybroker_repeats_total"] == 1
    assert found['oracle_keybroker_refusals_total{code="consent.missing",what="release"}'] == 1
    assert found['oracle_keybroker_request_seconds_count{what="release"}'] == 3
    assert found["oracle_keybroker_cap_used_ratio_sum"] == pytest.approx(1 / 3)
    assert found["oracle_keybroker_log_bytes"] == (tmp_path / "broker0" / LOG_FILE).stat().st_size
    assert found["oracle_keybroker_log_entries"] == 2
    chain = scene.world.deployment.chain_id
    assert found[f'oracle_keybroker_provider_up{{chain="{chain}",provider="0"}}'] == 1
    assert found[f'oracle_keybroker_chain_agreed{{chain="{chain}"}}'] == 1
    assert found['oracle_keybroker_collateral_end_seconds{platform="collateral"}'] > 1e9
    assert all(found[f'oracle_keybroker_ready{{check="{check}"}}'] for check in ("log", "disk", "collateral"))


async def test_the_public_address_shows_no_metrics(scene: Scene, tmp_path: Path) -> None:
    async with both(with_admin(scene, tmp_path)) as (_, url, admin):
        assert (await get(f"{url}/metrics"))[0] == (await get(f"{url}/readyz"))[0] == 404
        assert (await get(f"{admin}/healthz"))[0] == 200


async def test_codes_of_refusals_are_bounded_in_number(scene: Scene, tmp_path: Path) -> None:
    async with both(with_admin(scene, tmp_path)) as (broker, _, admin):
        for number in range(400):
            broker.metrics.refused("release", f"made.up{number}")
        found = [name for name in await metrics(admin) if name.startswith("oracle_keybroker_refusals_total")]
    assert 100 < len(found) < 200


async def test_owners_data_is_asked_for_at_a_rate(scene: Scene, tmp_path: Path) -> None:
    """Only what holds by every rule counts: what is refused costs the owner nothing."""
    body = await scene.body()
    limits = {"per_owner": 0.01, "per_owner_burst": 1}
    async with both(with_admin(scene, tmp_path, limits=limits)) as (_, url, admin):
        for _ in range(3):
            assert (await post(url, body.model_copy(update={"signatures": (b"", *body.signatures[1:])})))[0] == 403
        assert (await post(url, body))[0] == 200
        status, error, after = await post(url, body)
        found = await metrics(admin)
    assert (status, error["code"], error["retry"], after) == (429, "broker.rate", True, "100")
    assert found['oracle_keybroker_rate_limited_total{by="owner"}'] == 1


async def test_enclaves_of_one_platform_ask_at_a_rate(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    limits = {"per_platform": 0.01, "per_platform_burst": 1}
    unsigned = body.release.model_copy(update={"signature": bytes(65)})
    async with both(with_admin(scene, tmp_path, limits=limits)) as (_, url, _):
        assert (await post(url, body.model_copy(update={"release": unsigned})))[0] == 403  # costs the platform nothing
        assert (await post(url, body))[0] == 200
        assert (await post(url, body))[0] == 429


async def readiness(admin: str) -> tuple[int, dict[str, str]]:
    status, data = await get(f"{admin}/readyz")
    return status, {check: said for check, said in json.loads(data)["checks"].items() if said != "ok"}


async def test_a_broker_that_can_release_is_ready(scene: Scene, tmp_path: Path) -> None:
    async with both(with_admin(scene, tmp_path)) as (broker, _, admin):
        status, wrong = await readiness(admin)
        assert (status, list(wrong)) == (503, [f"chain:{scene.world.deployment.chain_id}"])  # not looked at yet
        await broker.watch.look()
        assert await readiness(admin) == (200, {})


async def broken_log(broker: KeyBroker) -> None:
    os.close(broker.ledger._descriptors[0])
    broker.ledger._descriptors[0] = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(Retryable):
        await broker.ledger.append(Vanished(task_id=bytes(32), block_number=1, block_hash=bytes(32)))


@pytest.mark.parametrize(
    ("changes", "after", "check"),
    [
        ({"min_free_bytes": 1 << 62}, None, "disk"),
        ({"collateral": Path("ended.json")}, None, "collateral"),
        ({"served": {"max_block_age": 1}}, None, "chain"),
        ({}, broken_log, "log"),
    ],
    ids=["disk", "collateral", "chain", "log"],
)
async def test_a_broker_that_cannot_release_is_not_ready(
    scene: Scene, tmp_path: Path, changes: dict[str, Any], after: Callable[[KeyBroker], Any] | None, check: str
) -> None:
    if "collateral" in changes:
        ended = scene.world.authority.collateral(days=1, now=1_600_000_000)
        (tmp_path / "ended.json").write_text(json.dumps(ended))
        changes = {"collateral": tmp_path / "ended.json"}
    if check == "chain":
        await asyncio.sleep(2.1)
    async with both(with_admin(scene, tmp_path, **changes)) as (broker, _, admin):
        await broker.watch.look()
        if after is not None:
            await after(broker)
        status, wrong = await readiness(admin)
    assert status == 503
    assert [name.partition(":")[0] for name in wrong] == [check]


# Forks


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_release_over_a_block_that_the_chain_dropped_is_noticed_once(
    scene: Scene, tmp_path: Path, restarted: bool
) -> None:
    body, chain = await scene.body(), scene.world.deployment.chain_id
    forks = f'oracle_keybroker_release_forks_total{{chain="{chain}"}}'
    await scene.mine()
    config = with_admin(scene, tmp_path)
    async with both(config) as (broker, url, admin):
        assert (await post(url, body))[0] == 200
        await broker.watch.look()
        assert forks not in await metrics(admin)
        await scene.rpc.call("anvil_reorg", 1, [])
        if not restarted:
            await broker.watch.look()
            assert (await metrics(admin))[forks] == 1
    for expected in (int(restarted), 0):
        async with both(config) as (broker, _, admin):
            for _ in range(2):
                await broker.watch.look()
            assert (await metrics(admin)).get(forks, 0) == expected
    noted = [e.event for e in read_log(tmp_path / "broker0" / LOG_FILE) if isinstance(e.event, Vanished)]
    assert [each.task_id for each in noted] == [body.release.request.task_id]


async def test_a_broker_whose_providers_are_on_two_forks_says_retry(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    with anvil() as fork:
        config = with_admin(scene, tmp_path, [scene.world.url, fork], served={"chain_id": 31337})
        async with both(config) as (broker, url, admin):
            async with aiohttp.ClientSession() as session:
                for _ in range(3):  # the other chain is as long, and of other blocks
                    mine = {"jsonrpc": "2.0", "id": 1, "method": "anvil_mine", "params": ["0x100"]}
                    await (await session.post(fork, json=mine)).read()
            status, error, _ = await post(url, body)
            assert (status, error["code"], error["retry"]) == (503, "chain.disagree", True)
            await broker.watch.look()
            found = await metrics(admin)
            _, wrong = await readiness(admin)
    assert found['oracle_keybroker_chain_agreed{chain="31337"}'] == 0
    assert found['oracle_keybroker_chain_disagreements_total{chain="31337"}'] >= 1
    assert "chain.disagree" in wrong["chain:31337"]


async def test_a_provider_that_is_down_shows(scene: Scene, tmp_path: Path) -> None:
    urls = [scene.world.url, f"http://127.0.0.1:{free_port()}"]
    async with both(with_admin(scene, tmp_path, urls)) as (broker, _, admin):
        await broker.watch.look()
        found = await metrics(admin)
    chain = scene.world.deployment.chain_id
    up = [found[f'oracle_keybroker_provider_up{{chain="{chain}",provider="{n}"}}'] for n in (0, 1)]
    assert up == [1, 0]


async def test_other_providers_are_taken_over_while_it_serves(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    config = with_admin(scene, tmp_path, [f"http://127.0.0.1:{free_port()}"])
    async with both(config) as (broker, url, _):
        assert (await post(url, body))[1]["code"] == "rpc.unreachable"
        broker.chains.set([config.chains[0].model_copy(update={"rpc": (scene.world.url,)})])
        assert (await post(url, body))[0] == 200


# Signals, as a process of its own


async def test_sighup_takes_over_limits_and_refuses_the_rest_and_sigterm_drains(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    config = with_admin(scene, tmp_path)
    file, errors = tmp_path / "broker.yaml", tmp_path / "stderr"

    def write(**changes: Any) -> None:
        value = config.model_copy(update=changes).model_dump(mode="json")
        file.write_text(yaml.safe_dump(value))

    def said() -> list[dict[str, Any]]:
        return [json.loads(line) for line in errors.read_text().splitlines() if line.startswith("{")]

    async def until(event: str, count: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while len(found := [line for line in said() if line["event"] == event]) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found[-1]

    write()
    with errors.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            ".venv/bin/oracle", "keybroker", "serve", "--config", str(file), stderr=sink, stdout=sink
        )
    try:
        url, admin = (await until("serving"))["address"], (await until("admin"))["address"]
        assert (await post(url, body))[0] == 200
        async with asyncio.timeout(30):
            while (await get(f"{admin}/readyz"))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

        write(limits=config.limits.model_copy(update={"per_owner": 0.01, "per_owner_burst": 1}))
        process.send_signal(signal.SIGHUP)
        await until("reloaded")
        assert [(await post(url, body))[0] for _ in range(2)] == [200, 429]

        write(max_body=4096)
        process.send_signal(signal.SIGHUP)
        refused = await until("reload")
        assert (refused["code"], "max_body" in refused["message"]) == ("config.restart", True)
        assert [(await post(url, body))[0]] == [429]

        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert said()[-1]["event"] == "stopped"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_drained_broker_says_so_before_it_goes(scene: Scene, tmp_path: Path) -> None:
    config = with_admin(scene, tmp_path)
    broker = await open_broker(config)
    admin = Admin(broker, config)
    admin.draining = True
    assert admin.problems()["serving"] is not None
    await broker.close()


def test_an_error_of_too_many_fits_the_protocol() -> None:
    from oracle.keybroker.limits import TooMany

    error = TooMany("too many", "owner", 3.2)
    body = ErrorBody(code=error.code, message=error.message, retry=isinstance(error, Retryable))
    assert parse(ErrorBody, body.canonical()).message.endswith("4 s")
