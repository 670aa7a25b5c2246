"""What the oracle contract owes an account: its balances, and its shares of agreements' pools, which anyone can distribute.

An agreement's pool is shared among its `price.to` only when somebody asks for it, so that a settlement costs the same however
many they are (R20).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import pricing
from enclave_app.protocol.structs import Price
from oracle.chain.abi import load as load_contract
from oracle.chain.events import AgreementActivated, read_event

if TYPE_CHECKING:
    from oracle.client import Client


@dataclass(frozen=True)
class Pooled:
    """A pool that holds something for an account: `share` of it, in the smallest unit of the agreement's token."""

    agreement_id: bytes
    price: Price
    share: int
    distribute: bytes
    """Calldata that hands the pool out."""


def share_of(price: Price, pool: int, account: str) -> int:
    """What `ComputeOracle.distribute` gives `account` of a pool."""
    bps = sum(price.bps)
    return sum(pool * own // bps for to, own in zip(price.to, price.bps, strict=True) if to == account and own)


async def pools_for(client: Client, account: str) -> tuple[Pooled, ...]:
    """Every pool with something for `account`, oldest agreement first. Anybody may have put it there."""
    contract, registry = load_contract("ComputeOracle"), client.config.deployment.agreement_registry
    named = []
    for log in await client.logs_about(registry, "AgreementActivated"):
        event = read_event(log)
        if isinstance(event, AgreementActivated) and account in event.agreement.price.to:
            named.append(event)
    pools = await client.oracle.pools([event.agreement_id for event in named], await client.head())
    found = []
    for event, pool in zip(named, pools, strict=True):
        share = share_of(event.agreement.price, pool, account)
        if share:
            call = contract.call("distribute", event.agreement_id, pricing(event.agreement))
            found.append(Pooled(event.agreement_id, event.agreement.price, share, call))
    return tuple(found)


async def owed(client: Client, account: str, token: str = ZERO_ADDRESS) -> int:
    """What `account` can get out in one token: its balance, and its shares of pools."""
    pooled = sum(pool.share for pool in await pools_for(client, account) if pool.price.token == token)
    return pooled + await client.oracle.balance(account, await client.head(), token)


async def hand_out(client: Client, token: str = ZERO_ADDRESS) -> tuple[Pooled, ...]:
    """Distribute the pools that hold something for the client's wallet; gives those that were left alone.

    Anybody can make an agreement that pays others next to nothing: a share of the native coin that is worth less than the gas of
    its distribution stays where it is.
    """
    sender, left = client.sender, []
    for pool in await pools_for(client, sender.address):
        if pool.price.token != token:
            continue
        gas = await sender.estimate(client.config.deployment.oracle, pool.distribute)
        if token == ZERO_ADDRESS and pool.share < gas * await sender.gas_price():
            left.append(pool)
            continue
        await sender.transact(client.config.deployment.oracle, pool.distribute, gas=gas)
    return tuple(left)
