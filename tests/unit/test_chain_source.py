"""Reading the chain from endpoints that know less than they should: what they cannot tell, nobody believes (R13)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from enclave_app.protocol.structs import Confirmation
from oracle.chain.rpc import Rpc
from oracle.chain.source import QuorumSource, SingleSource
from oracle.errors import OracleError, Refused, Retryable


class Endpoint:
    """Answers by the number of a block or its tag, as an endpoint that is behind, down or rewound would."""

    name = "http://an.endpoint"

    def __init__(self, heads: dict[str, int], known: int) -> None:
        self._heads, self._known = heads, known

    async def call(self, method: str, *params: Any) -> Any:
        assert method == "eth_getBlockByNumber"
        if not self._heads:
            raise Retryable("rpc.unreachable", "an endpoint is down")
        number = self._heads.get(params[0], -1) if params[0].isalpha() else int(params[0], 16)
        if not 0 <= number <= self._known:
            return None
        block = f"0x{number:064x}"
        return {"number": hex(number), "hash": block, "parentHash": block, "timestamp": hex(1_800_000_000 + number)}


def single(known: int = 9, **heads: int) -> SingleSource:
    return SingleSource(cast(Rpc, Endpoint(heads, known)))


async def refusal(sources: list[SingleSource]) -> OracleError:
    source = sources[0] if len(sources) == 1 else QuorumSource(sources, 2)
    with pytest.raises(OracleError) as caught:
        await source.confirmed(Confirmation.LATEST)
    return caught.value


async def test_a_quorum_takes_the_highest_block_that_enough_endpoints_know() -> None:
    source = QuorumSource([single(latest=9), single(latest=7), single()], 2)
    assert (await source.confirmed(Confirmation.LATEST)).number == 7


@pytest.mark.parametrize(
    ("sources", "code"),
    [
        pytest.param([single(latest=99)], "chain.no_block", id="an endpoint without the block that it is asked for"),
        pytest.param([single(latest=9), single(), single()], "chain.quorum", id="one of three endpoints up"),
    ],
)
async def test_what_too_few_endpoints_know_waits(sources: list[SingleSource], code: str) -> None:
    refused = await refusal(sources)
    assert isinstance(refused, Retryable)
    assert refused.code == code


async def test_a_chain_that_rewinds_between_two_questions_waits() -> None:
    """Each endpoint gives a head and, once asked for that block by its number, has none any more."""

    class Rewinding(Endpoint):
        async def call(self, method: str, *params: Any) -> Any:
            found = await super().call(method, *params)
            self._known = 3
            return found

    sources = [SingleSource(cast(Rpc, Rewinding({"latest": 9}, 9))) for _ in range(3)]
    refused = await refusal(sources)
    assert isinstance(refused, Retryable)
    assert refused.code == "chain.no_block"


@pytest.mark.parametrize("quorum", [-1, 0, 4])
def test_a_quorum_of_none_or_of_more_than_there_are_is_refused(quorum: int) -> None:
    with pytest.raises(Refused) as caught:
        QuorumSource([single()] * 3, quorum)
    assert caught.value.code == "chain.quorum"
