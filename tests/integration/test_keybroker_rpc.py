"""R13: no single endpoint is needed either. What liars and dead endpoints are refused with is in tests/adversary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.release import ReleaseBody
from oracle.errors import Retryable
from oracle.keybroker import open_broker
from tests import broker_fixtures as fixtures
from tests.anvil_kit import free_port
from tests.broker_kit import Scene
from tests.rpc_kit import about, proxy, truth, word

scene, world = fixtures.scene, fixtures.world


async def attempt(scene: Scene, directory: Path, body: ReleaseBody, urls: list[str], **served: Any) -> None:
    broker = await open_broker(scene.config(directory, urls, served=served))
    try:
        await broker.releases.release(body)
    finally:
        await broker.close()


async def test_a_liar_cannot_stop_an_honest_majority(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    lie = about("AgreementRegistry", "status", word(0, 3))
    async with proxy(scene.world.url, lie) as liar, proxy(scene.world.url, truth) as honest:
        await attempt(scene, scene.broker_directory(tmp_path), body, [liar, scene.world.url, honest], quorum=2)


async def test_a_dead_endpoint_stops_a_quorum_of_all_and_not_a_majority(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    dead = f"http://127.0.0.1:{free_port()}"
    directory = scene.broker_directory(tmp_path)
    with pytest.raises(Retryable):
        await attempt(scene, directory, body, [scene.world.url, dead])
    async with proxy(scene.world.url, truth) as honest:
        await attempt(scene, directory, body, [dead, scene.world.url, honest], quorum=2)
