"""What a task will cost, before anyone signs: the fee, what of it is kept, and the gas of its request at today's price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.structs import Agreement
from oracle.agreement.document import AgreementDocument
from oracle.chain.abi import explain_revert
from oracle.chain.fees import read_market
from oracle.chain.reader import AgreementStatus
from oracle.chain.rpc import as_hex, as_int
from oracle.errors import Permanent, Refused, Reverted, RpcFault
from oracle.payment import Token, TokenFacts

if TYPE_CHECKING:
    from oracle.client import Client

MEASURED: Final[Mapping[str, int]] = {
    "value": 90_000,
    "allowance": 120_000,
    "permit": 145_000,
    "authorization": 155_000,
    "approval": 50_000,
}
"""Gas of a request by how its fee is paid, and of an approval before one: somewhat above what was
measured with short parameters and one dataset (tests/integration/test_payment.py holds them against a chain)."""
THROWAWAY_KEY = b"\x01" * 32


@dataclass(frozen=True)
class Quote:
    """Amounts of the fee in wei, or in the smallest unit of `token`; `gas_price` in wei per gas.

    `estimated` says that the node ran this very request; else `gas` is what such requests took when it was measured, for the
    reason `because`. `transactions` is how many the requester sends.
    """

    agreement: Agreement
    status: AgreementStatus
    facts: TokenFacts | None
    gas: int
    estimated: bool
    because: str
    transactions: int
    base_fee: int
    tip: int

    @property
    def gas_price(self) -> int:
        return self.base_fee + self.tip

    @property
    def gas_wei(self) -> int:
        return self.gas * self.gas_price

    @property
    def total_wei(self) -> int:
        """Of the chain's own coin: gas, and the fee where it is in that."""
        price = self.agreement.price
        return self.gas_wei + (price.fee if price.token == ZERO_ADDRESS else 0)


async def quote(
    client: Client,
    under: AgreementDocument | bytes,
    params: Mapping[str, Any] | None = None,
    *,
    requester: str | None = None,
    requesters: Mapping[str, int] | None = None,
) -> Quote:
    """What a request would cost `requester` now. A draft that nobody signed yet has a quote, too; nothing is signed or sent."""
    agreement_id = under if isinstance(under, bytes) else under.id
    agreement = (await client.agreement(agreement_id)).agreement if isinstance(under, bytes) else under.agreement
    status = (await client.agreement_status(agreement_id)).status
    how, facts = "value", None
    if agreement.price.token != ZERO_ADDRESS:
        token = Token(client.source, agreement.price.token, await client.head())
        facts = await token.facts()
        if agreement.price.fee:
            how = await _way(client, token, agreement, requester)
    gas, because = None, "no requester was given"
    if status != AgreementStatus.ACTIVE:
        because = f"the agreement is {'not active yet' if status == AgreementStatus.NONE else status.name.lower()}"
    elif how not in ("value", "allowance"):
        because = f"the fee is paid by {how}"
    elif requester is not None:
        gas, because = await _estimate(client, under, params, requester, requesters)
    market = await read_market(client.rpc)
    measured = MEASURED["allowance"] + MEASURED["approval"] if how == "approval" else MEASURED[how]
    return Quote(
        agreement=agreement,
        status=status,
        facts=facts,
        gas=measured if gas is None else gas,
        estimated=gas is not None,
        because=because,
        transactions=2 if how == "approval" else 1,
        base_fee=market.base,
        tip=market.tip,
    )


async def _way(client: Client, token: Token, agreement: Agreement, requester: str | None) -> str:
    if requester is not None and await token.allowance(requester, agreement.oracle) >= agreement.price.fee:
        return "allowance"
    return await token.signed_way(client.chain.chain_id) or "approval"


async def _estimate(
    client: Client,
    under: AgreementDocument | bytes,
    params: Mapping[str, Any] | None,
    requester: str,
    requesters: Mapping[str, int] | None,
) -> tuple[int | None, str]:
    """The node's word for this request, or None and why there is none."""
    try:
        key = None if client.result_key is not None else THROWAWAY_KEY
        asking = await client.prepare(under, params, requesters=requesters, requester=requester, result_key=key)
        call = {
            "from": requester,
            "to": asking.agreement.oracle,
            "data": as_hex(asking.call()),
            "value": hex(asking.value),
        }
        return as_int(await client.rpc.call("eth_estimateGas", call)), ""
    except RpcFault as fault:
        return None, str(explain_revert(fault).message)
    except (Refused, Reverted, Permanent) as error:
        return None, error.message
