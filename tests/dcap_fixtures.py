"""A chain whose clock stands where minted evidence holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from oracle.chain.rpc import Rpc
from tests.dcap_chain_kit import chain_at
from tests.dcap_kit import NOW


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with chain_at(NOW) as url:
        yield url


@pytest.fixture
async def rpc(url: str) -> AsyncIterator[Rpc]:
    rpc = Rpc(url)
    yield rpc
    await rpc.close()
