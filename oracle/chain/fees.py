"""What a transaction offers per gas (EIP-1559): the market from `eth_feeHistory`, within the payer's caps.

All amounts are in wei per gas. An endpoint that names absurd prices costs no more than the caps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from oracle.chain.rpc import Rpc, as_int
from oracle.errors import OracleError, Retryable, RpcFault

GWEI: Final = 10**9
DEFAULT_TIP: Final = GWEI
"""Where an endpoint does not say what is usual."""
HISTORY: Final = 5
"""Blocks that are looked back on."""
TRANSACTION_GAS: Final = 16_777_216
"""EIP-7825: what one transaction may have."""


@dataclass(frozen=True)
class Fees:
    """`most` bounds the whole price, `tip` the part of it that goes to the block's maker."""

    most: int
    tip: int


@dataclass(frozen=True)
class Market:
    """The base fee of the next block, and the tip that is usual."""

    base: int
    tip: int


@dataclass(frozen=True)
class Caps:
    """The most that is offered; None for no bound."""

    most: int | None = None
    tip: int | None = None

    def offer(self, market: Market) -> Fees:
        """Good for some full blocks in a row, each of which raises the base fee by an eighth.

        Raises Retryable `transaction.fee_cap` while the base fee is above the cap: a transaction that offers less than the
        base fee is in nobody's block and only stops those behind it."""
        tip = market.tip if self.tip is None else min(market.tip, self.tip)
        most = 2 * market.base + tip
        if self.most is not None and most > self.most:
            if market.base > self.most:
                raise Retryable(
                    "transaction.fee_cap",
                    "the base fee is above the configured cap; sending waits",
                    found=market.base,
                    expected=self.most,
                    hint="Wait, or raise `fees.maxFeePerGas`",
                )
            most = self.most
        return Fees(most, min(tip, most))

    def replacement(self, old: Fees, market: Market) -> Fees | None:
        """What takes the place of a transaction that offers `old`: both fields up by an eighth at least, as nodes want it
        (geth and others ask for 10 %). None where the cap leaves no room for that."""
        raised = Fees(_raised(old.most), _raised(old.tip))
        tip = max(raised.tip, market.tip if self.tip is None else min(market.tip, self.tip))
        if self.tip is not None and tip > self.tip:
            # The cap on tips is for the market's; a replacement has to outbid our own.
            tip = raised.tip
        most = max(raised.most, tip, 2 * market.base + tip)
        if self.most is not None:
            if raised.most > self.most or raised.tip > self.most:
                return None
            most = min(most, self.most)
        return Fees(most, min(tip, most))


def _raised(fee: int) -> int:
    return fee + fee // 8 + 1


async def read_market(rpc: Rpc) -> Market:
    """Raises Retryable `rpc.block` where the endpoint says nothing of it."""
    history, suggested = await rpc.batch(
        [("eth_feeHistory", [hex(HISTORY), "latest", [50]]), ("eth_maxPriorityFeePerGas", [])]
    )
    found = _from_history(history)
    if found is None:
        block = await rpc.call("eth_getBlockByNumber", "latest", False)
        if not isinstance(block, dict):
            raise Retryable("rpc.block", "an RPC endpoint does not say its latest block")
        found = as_int(block.get("baseFeePerGas", "0x0")), []
    base, tips = found
    if tips:
        # The median of what the median transaction of each block paid: one odd block moves nothing.
        return Market(base, tips[len(tips) // 2])
    return Market(base, DEFAULT_TIP if isinstance(suggested, RpcFault) else as_int(suggested))


def _from_history(history: Any) -> tuple[int, list[int]] | None:
    """The next block's base fee and the tips of blocks that were not empty, sorted; None where the answer holds neither."""
    if not isinstance(history, dict) or not isinstance(history.get("baseFeePerGas"), list):
        return None
    rewards, ratios = history.get("reward") or [], history.get("gasUsedRatio") or []
    if not isinstance(rewards, list) or not isinstance(ratios, list):
        return None
    try:
        base = as_int(history["baseFeePerGas"][-1])
        tips = [as_int(each[0]) for each, ratio in zip(rewards, ratios, strict=False) if ratio]
    except (OracleError, IndexError, TypeError, KeyError):
        return None
    return base, sorted(each for each in tips if each)
