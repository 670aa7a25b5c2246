"""The fixtures of whoever tests against `broker_kit`'s world: anvil with real contracts, minted quotes, brokers in-process.

A test file takes the ones it needs by name: `broker, scene, world = fixtures.broker, fixtures.scene, fixtures.world`. One whose
tests share a module's event loop takes `scene = fixtures.module_scene` and its like instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from enclave_app.protocol.release import ReleaseBody
from oracle.chain.rpc import Rpc
from oracle.keybroker import KeyBroker, open_broker
from tests.anvil_kit import anvil
from tests.broker_kit import Scene, World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with anvil() as url:
        yield asyncio.run(make_world(url, tmp_path_factory.mktemp("world")))


@asynccontextmanager
async def restored(world: World) -> AsyncIterator[Scene]:
    """The world, put back afterwards."""
    rpc = Rpc(world.url)
    before = await rpc.call("evm_snapshot")
    yield Scene(world, rpc)
    await rpc.call("evm_revert", before)
    await rpc.close()


@asynccontextmanager
async def opened(scene: Scene, directory: Path) -> AsyncIterator[KeyBroker]:
    """Broker 0, whose keys and log are in `directory`."""
    broker = await open_broker(scene.config(scene.broker_directory(directory)))
    yield broker
    await broker.close()


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    async with restored(world) as scene:
        yield scene


@pytest.fixture
async def broker(scene: Scene, tmp_path: Path) -> AsyncIterator[KeyBroker]:
    async with opened(scene, tmp_path) as broker:
        yield broker


@pytest_asyncio.fixture(name="scene", loop_scope="module")
async def module_scene(world: World) -> AsyncIterator[Scene]:
    async with restored(world) as scene:
        yield scene


@pytest_asyncio.fixture(name="broker", loop_scope="module")
async def module_broker(scene: Scene, tmp_path: Path) -> AsyncIterator[KeyBroker]:
    async with opened(scene, tmp_path) as broker:
        yield broker


@pytest_asyncio.fixture(name="valid", loop_scope="module")
async def module_valid(scene: Scene, broker: KeyBroker) -> ReleaseBody:
    """A release request that the broker answers."""
    body = await scene.body()
    await broker.releases.release(body)
    return body
