"""What a transaction offers per gas: within the caps, and an eighth more when it replaces another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from oracle.chain.fees import DEFAULT_TIP, GWEI, Caps, Fees, Market, read_market
from oracle.chain.rpc import Rpc
from oracle.errors import Retryable, RpcFault
from oracle.worker.fees import FeesConfig

AMOUNTS = st.integers(min_value=0, max_value=10**15)


class Says(Rpc):
    """An endpoint with these answers."""

    def __init__(self, **answers: Any) -> None:
        super().__init__("http://nowhere.test")
        self._answers = answers

    async def call(self, method: str, *params: Any) -> Any:
        return self._answers[method]

    async def batch(self, calls: Any) -> list[Any]:
        return [self._answers.get(method, RpcFault(-32601, "no such method", None)) for method, _ in calls]


def test_an_offer_is_good_for_a_base_fee_twice_as_high() -> None:
    assert Caps().offer(Market(10, 3)) == Fees(23, 3)


@given(AMOUNTS, AMOUNTS, st.integers(1, 10**15), st.integers(1, 10**15))
def test_an_offer_keeps_to_both_caps(base: int, tip: int, most: int, most_tip: int) -> None:
    caps = Caps(most, most_tip)
    if base > most:
        with pytest.raises(Retryable) as raised:
            caps.offer(Market(base, tip))
        assert raised.value.code == "transaction.fee_cap"
        return
    fees = caps.offer(Market(base, tip))
    assert base <= fees.most <= most
    assert fees.tip <= min(most_tip, fees.most)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.integers(1, 10**15))
def test_a_replacement_is_an_eighth_dearer_in_both_fields_or_there_is_none(
    most: int, tip: int, base: int, usual: int, cap: int
) -> None:
    old = Fees(max(most, tip), tip)
    new = Caps(cap, cap).replacement(old, Market(base, usual))
    if new is None:
        assert 8 * cap <= 9 * old.most + 8
        return
    assert 8 * new.most >= 9 * old.most
    assert 8 * new.tip >= 9 * old.tip
    assert new.tip <= new.most <= cap


async def test_the_next_blocks_base_fee_and_the_median_tip_are_read() -> None:
    history = {"baseFeePerGas": ["0x1", "0x2", "0x7"], "gasUsedRatio": [0.5, 0.5], "reward": [["0x5"], ["0x3"]]}
    assert await read_market(Says(eth_feeHistory=history, eth_maxPriorityFeePerGas="0x9")) == Market(7, 5)


@pytest.mark.parametrize(
    "history",
    [None, {}, [], {"baseFeePerGas": []}, {"baseFeePerGas": ["x"]}, {"baseFeePerGas": ["0x1"], "reward": 7}],
)
async def test_an_endpoint_without_a_history_is_asked_for_its_block(history: Any) -> None:
    rpc = Says(eth_feeHistory=history, eth_getBlockByNumber={"baseFeePerGas": "0x4"})
    assert await read_market(rpc) == Market(4, DEFAULT_TIP)


def test_amounts_are_wei_or_gwei() -> None:
    config = FeesConfig.model_validate({"maxFeePerGas": "30.5 gwei", "maxPriorityFeePerGas": 7})
    assert (config.max_fee_per_gas, config.max_priority_fee_per_gas) == (30_500_000_000, 7)
    assert FeesConfig().max_fee_per_gas == 500 * GWEI


@pytest.mark.parametrize("amount", ["0 gwei", "-1 gwei", "1 ether", "1e9", 0, -1])
def test_an_amount_that_is_neither_is_refused(amount: Any) -> None:
    with pytest.raises(ValidationError):
        FeesConfig.model_validate({"maxFeePerGas": amount})
