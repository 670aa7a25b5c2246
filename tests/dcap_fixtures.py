"""A chain whose clock stands where minted evidence holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from oracle.chain.rpc import Rpc
from tests.broker_kit import anvil
from tests.dcap_kit import NOW


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    async def start(url: str) -> None:
        rpc = Rpc(url)
        await rpc.call("anvil_setNextBlockTimestamp", NOW)
        await rpc.call("anvil_mine", "0x2")
        await rpc.close()

    with anvil() as url:
        asyncio.run(start(url))
        yield url


@pytest.fixture
async def rpc(url: str) -> AsyncIterator[Rpc]:
    rpc = Rpc(url)
    yield rpc
    await rpc.close()
