"""Sending transactions from one key: own nonces under a lock, EIP-1559 fees, refusals decoded before sending, and a higher
offer for one that is stuck while somebody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.signing import SigningKey
from oracle.chain.abi import explain_revert
from oracle.chain.fees import TRANSACTION_GAS, Caps, Fees, read_market
from oracle.chain.rpc import Rpc, as_bytes, as_hex, as_int
from oracle.errors import Bug, OracleError, Refused, Retryable, RpcFault

NONCE_ATTEMPTS = 5
GAS_SLACK = 30_000
"""Added to every estimate: a precompile given only its estimated gas answers wrongly instead of failing (FACTS)."""
REPLACE_SECONDS: Final = 30.0
"""How long the next transaction of a wallet may wait for its block before more is offered for it."""
REMEMBERED: Final = 256
"""Transactions that can be replaced; of others the one receipt is waited for."""


@dataclass(frozen=True)
class Receipt:
    """A mined transaction. `gas_used` in gas, `gas_price` in wei per gas; `ok` is its status."""

    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    gas_used: int
    gas_price: int
    ok: bool
    contract_address: str | None
    raw: dict[str, Any]


@dataclass(frozen=True)
class SignedTransaction:
    hash: bytes
    raw: bytes
    nonce: int


@dataclass
class _Sent:
    """What was sent with one nonce: `hashes` of the transactions, each offering more than the one before, the last of them
    `fees`, at `at` on the monotonic clock."""

    to: str | None
    data: bytes
    value: int
    gas: int
    nonce: int
    fees: Fees
    hashes: list[bytes]
    at: float


def account_of(key: SigningKey) -> LocalAccount:
    """The account that sends with `key`."""
    account: LocalAccount = Account.from_key(key.secret())
    return account


class Sender:
    """Sends from `wallet`. `max_fee_per_gas` in wei caps what it pays; None lets it follow the base fee.

    It remembers nothing: whoever has to finish what a crash interrupted sends through the worker's outbox, which is a Sender
    that keeps what it signed. For those, `purpose` and `key` say what a transaction is for; here they mean nothing."""

    def __init__(
        self, rpc: Rpc, wallet: LocalAccount, *, max_fee_per_gas: int | None = None, poll: float = 0.02
    ) -> None:
        self.rpc, self.address, self.replace_seconds = rpc, wallet.address, REPLACE_SECONDS
        self.caps = Caps(max_fee_per_gas)
        self._wallet, self._poll = wallet, poll
        self._lock = asyncio.Lock()
        self._nonce: int | None = None
        self._chain_id: int | None = None
        self._sent: OrderedDict[bytes, _Sent] = OrderedDict()

    async def transact(
        self,
        to: str | None,
        data: bytes,
        *,
        value: int = 0,
        gas: int | None = None,
        purpose: str = "other",
        key: bytes = b"",
    ) -> Receipt:
        """Estimate, sign, send, wait for the receipt. A contract's refusal is raised as `Reverted` before sending."""
        signed = await self.submit(to, data, value=value, gas=gas, purpose=purpose, key=key)
        return await self.wait(signed.hash)

    async def submit(
        self,
        to: str | None,
        data: bytes,
        *,
        value: int = 0,
        gas: int | None = None,
        purpose: str = "other",
        key: bytes = b"",
    ) -> SignedTransaction:
        """Sign and send without waiting. The nonce is taken only once the transaction is known to be good."""
        limit = gas if gas is not None else await self.estimate(to, data, value)
        check_gas(limit)
        async with self._lock:
            for attempt in range(NONCE_ATTEMPTS):
                signed, fees = await self._sign(to, data, value, limit)
                try:
                    await self.rpc.call("eth_sendRawTransaction", as_hex(signed.raw))
                except RpcFault as fault:
                    self._nonce = None  # whatever the node has seen since is read again
                    if nonce_taken(fault) and attempt < NONCE_ATTEMPTS - 1:
                        continue  # another program sends from this key; this transaction was never accepted
                    if "already known" not in str(fault):
                        raise self.explained(fault) from None
                except Retryable:
                    self._nonce = None
                    raise
                self._nonce = signed.nonce + 1
                now = time.monotonic()
                self._sent[signed.hash] = _Sent(to, data, value, limit, signed.nonce, fees, [signed.hash], now)
                while len(self._sent) > REMEMBERED:
                    self._sent.popitem(last=False)
                return signed
        raise Bug("sender.attempts", "a transaction was neither sent nor refused")

    async def gas_price(self) -> int:
        """Wei per gas that a transaction would pay in the next block, if the base fee stays."""
        market = await read_market(self.rpc)
        return market.base + market.tip

    def forget_nonce(self) -> None:
        """Read the nonce from the chain before the next transaction: a reorganisation may have dropped one of ours, and
        all that came after it would wait for ever behind the gap."""
        self._nonce = None

    async def estimate(self, to: str | None, data: bytes, value: int = 0) -> int:
        """Gas with slack; raises the contract's refusal, decoded."""
        call: dict[str, Any] = {"from": self.address, "data": as_hex(data), "value": hex(value)}
        if to is not None:
            call["to"] = to
        try:
            needed = as_int(await self.rpc.call("eth_estimateGas", call))
        except RpcFault as fault:
            raise self.explained(fault) from None
        return needed + needed // 8 + GAS_SLACK

    def explained(self, fault: RpcFault) -> OracleError:
        # Every client's words for it; nodes have no code of their own for an empty wallet.
        if not fault.data and "insufficient funds" in str(fault).lower():
            return Retryable(
                "wallet.funds",
                "the wallet cannot pay for this transaction and its gas",
                found=self.address,
                hint="Send it some of the chain's currency",
            )
        return explain_revert(fault)

    async def wait(self, transaction_hash: bytes, *, patience: float = 300.0) -> Receipt:
        """The receipt, polled for `patience` seconds: of the transaction, or of what took its place where it was stuck. A
        reverted transaction is a receipt with `ok` false."""
        deadline = time.monotonic() + patience
        pause, sent = self._poll, self._sent.get(transaction_hash)
        while True:
            for each in [transaction_hash] if sent is None else sent.hashes:
                receipt = await self.receipt(each)
                if receipt is not None:
                    self._sent.pop(transaction_hash, None)
                    return receipt
            now = time.monotonic()
            if now > deadline:
                raise Retryable("transaction.unmined", f"transaction 0x{transaction_hash.hex()} is not mined yet")
            if sent is not None and now - sent.at > self.replace_seconds:
                await self._offer_more(sent)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    async def receipt(self, transaction_hash: bytes) -> Receipt | None:
        raw = await self.rpc.call("eth_getTransactionReceipt", as_hex(transaction_hash))
        return None if raw is None else read_receipt(raw)

    async def _offer_more(self, sent: _Sent) -> None:
        """Offer more for the next transaction to be mined, where the caps leave room. What goes wrong is tried again later."""
        sent.at = time.monotonic()
        try:
            if as_int(await self.rpc.call("eth_getTransactionCount", self.address, "latest")) != sent.nonce:
                return
            fees = self.caps.replacement(sent.fees, await read_market(self.rpc))
            if fees is None:
                return
            signed = await self.sign(sent.to, sent.data, sent.value, sent.gas, sent.nonce, fees)
            # Before it is sent: the answer may be lost, and not the transaction.
            sent.hashes.append(signed.hash)
            sent.fees = fees
            await self.rpc.call("eth_sendRawTransaction", as_hex(signed.raw))
        except Retryable:
            return

    async def _sign(self, to: str | None, data: bytes, value: int, gas: int) -> tuple[SignedTransaction, Fees]:
        if self._nonce is None:
            self._nonce = as_int(await self.rpc.call("eth_getTransactionCount", self.address, "pending"))
        fees = self.caps.offer(await read_market(self.rpc))
        return await self.sign(to, data, value, gas, self._nonce, fees), fees

    async def sign(
        self, to: str | None, data: bytes, value: int, gas: int, nonce: int, fees: Fees
    ) -> SignedTransaction:
        if self._chain_id is None:
            self._chain_id = as_int(await self.rpc.call("eth_chainId"))
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": nonce,
            "to": to_checksum_address(to) if to else b"",
            "data": data,
            "value": value,
            "gas": gas,
            "maxFeePerGas": fees.most,
            "maxPriorityFeePerGas": fees.tip,
        }
        signed = self._wallet.sign_transaction(transaction)
        return SignedTransaction(bytes(signed.hash), bytes(signed.raw_transaction), nonce)


def check_gas(limit: int) -> None:
    """EIP-7825. Raises Refused `transaction.gas` for what no block would take."""
    if limit > TRANSACTION_GAS:
        raise Refused(
            "transaction.gas", "a transaction needs more gas than one may have", found=limit, expected=TRANSACTION_GAS
        )


def nonce_taken(fault: RpcFault) -> bool:
    return any(text in str(fault) for text in ("nonce too low", "replacement transaction underpriced"))


def read_receipt(raw: Any) -> Receipt:
    if not isinstance(raw, dict):
        raise Refused("rpc.receipt", "an RPC answer holds no receipt where one belongs")
    created = raw.get("contractAddress")
    address = None if created is None else str(to_checksum_address(as_bytes(created, 20)))
    return Receipt(
        transaction_hash=as_bytes(raw.get("transactionHash"), 32),
        block_number=as_int(raw.get("blockNumber")),
        block_hash=as_bytes(raw.get("blockHash"), 32),
        gas_used=as_int(raw.get("gasUsed")),
        gas_price=as_int(raw.get("effectiveGasPrice", "0x0")),
        ok=as_int(raw.get("status")) == 1,
        contract_address=None if address == ZERO_ADDRESS else address,
        raw=raw,
    )
