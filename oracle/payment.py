"""Paying a fee in an ERC-20 token: by an allowance that stands, by a signature where the token knows one, or by an approval.

EIP-2612 (permit), EIP-3009 (an authorization whose nonce is the task's id), EIP-5267 (a token says its EIP-712 domain).
A token is somebody's program: what it answers is read strictly, and nothing is signed in a domain that does not name it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import encode

from enclave_app.protocol.digests import keccak
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.onchain import ALLOWANCE, Payment
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import PaymentKind
from oracle.chain.abi import Contract
from oracle.chain.source import Block, Call, Source
from oracle.errors import Refused, Reverted, RpcFault

PERMIT = keccak(text="Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")
RECEIVE = keccak(
    text="ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
_DOMAIN = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_DOMAIN_FIELDS = b"\x0f"
"""EIP-5267: name, version, chainId and verifyingContract, and no others."""
MAX_DECIMALS: Final = 77


def _function(name: str, inputs: str, outputs: str) -> dict[str, Any]:
    def listed(types: str) -> list[dict[str, str]]:
        return [{"name": "", "type": each} for each in types.split()]

    return {"type": "function", "name": name, "inputs": listed(inputs), "outputs": listed(outputs)}


TOKEN = Contract(
    "token",
    {
        "abi": [
            _function("balanceOf", "address", "uint256"),
            _function("allowance", "address address", "uint256"),
            _function("approve", "address uint256", "bool"),
            _function("symbol", "", "string"),
            _function("decimals", "", "uint8"),
            _function("name", "", "string"),
            _function("version", "", "string"),
            _function("nonces", "address", "uint256"),
            _function("DOMAIN_SEPARATOR", "", "bytes32"),
            _function("eip712Domain", "", "bytes1 string string uint256 address bytes32 uint256[]"),
            _function("authorizationState", "address bytes32", "bool"),
        ]
    },
)


@dataclass(frozen=True)
class Fee:
    """What is paid: `amount` in the token's smallest unit, to `oracle`, for one task, until `deadline` (unix seconds)."""

    token: str
    amount: int
    oracle: str
    task_id: bytes
    deadline: int


@dataclass(frozen=True)
class TokenFacts:
    """What a token says of itself: None where it does not say. Nobody checks that it is so."""

    symbol: str | None
    decimals: int | None

    def show(self, amount: int) -> str:
        """An amount of it for a person."""
        if self.symbol is None or self.decimals is None:
            return f"{amount} of its smallest unit"
        whole, part = divmod(amount, 10**self.decimals)
        digits = f"{whole}.{part:0{self.decimals}d}".rstrip("0").removesuffix(".") if self.decimals else str(whole)
        return f"{digits} {self.symbol}"


class Token:
    """Reads one token at one block."""

    def __init__(self, source: Source, address: str, at: Block) -> None:
        self._source, self.address, self._at = source, address, at

    async def facts(self) -> TokenFacts:
        symbol, decimals = await self._maybe("symbol"), await self._maybe("decimals")
        readable = isinstance(symbol, str) and 0 < len(symbol) <= 32 and symbol.isprintable()
        return TokenFacts(symbol if readable else None, decimals if decimals in range(MAX_DECIMALS + 1) else None)

    async def balance(self, account: str) -> int:
        return int(await self._ask("balanceOf", account))

    async def allowance(self, owner: str, spender: str) -> int:
        return int(await self._ask("allowance", owner, spender))

    async def signed_way(self, chain_id: int) -> str | None:
        """`permit` or `authorization`, where the token knows one."""
        if await self._separator(chain_id) is None:
            return None
        if await self._maybe("nonces", ZERO_ADDRESS) is not None:
            return "permit"
        used = await self._maybe("authorizationState", ZERO_ADDRESS, ZERO32)
        return "authorization" if used is not None else None

    async def permit(self, key: SigningKey, fee: Fee, chain_id: int) -> Payment | None:
        """EIP-2612: leave for the oracle to take exactly the fee; None where the token has no such thing."""
        nonce, separator = await self._maybe("nonces", key.address), await self._separator(chain_id)
        if nonce is None or separator is None:
            return None
        words = [PERMIT, key.address, fee.oracle, fee.amount, nonce, fee.deadline]
        kinds = ["bytes32", "address", "address", "uint256", "uint256", "uint256"]
        return _signed(PaymentKind.PERMIT, key, separator, encode(kinds, words), fee)

    async def authorization(self, key: SigningKey, fee: Fee, chain_id: int) -> Payment | None:
        """EIP-3009: the fee for this task and no other; None where the token has no such thing."""
        used, separator = (
            await self._maybe("authorizationState", key.address, fee.task_id),
            await self._separator(chain_id),
        )
        if used is not False or separator is None:
            return None
        words = [RECEIVE, key.address, fee.oracle, fee.amount, 0, fee.deadline, fee.task_id]
        kinds = ["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"]
        return _signed(PaymentKind.AUTHORIZATION, key, separator, encode(kinds, words), fee)

    async def _separator(self, chain_id: int) -> bytes | None:
        """The token's EIP-712 domain, where what it says makes the separator that it uses, and names this token on this chain:
        else a signature for one token might be one for another."""
        used = await self._maybe("DOMAIN_SEPARATOR")
        told = await self._maybe("eip712Domain")
        if told is not None:
            fields, name, version, chain, contract, salt, extensions = told
            if fields != _DOMAIN_FIELDS or salt != ZERO32 or extensions or chain != chain_id:
                return None
            if contract.lower() != self.address.lower():
                return None
            tried = [(name, version)]
        else:
            name, version = await self._maybe("name"), await self._maybe("version")
            tried = [(name, version if isinstance(version, str) else "1")] if isinstance(name, str) else []
        for name, version in tried:
            words = [_DOMAIN, keccak(text=name), keccak(text=version), chain_id, self.address]
            separator = keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], words))
            # EIP-3009 does not ask for DOMAIN_SEPARATOR; a token that has EIP-5267 was compared above.
            if used == separator or (used is None and told is not None):
                return separator
        return None

    async def _ask(self, function: str, *args: object) -> Any:
        try:
            (data,) = await self._source.calls([Call(self.address, TOKEN.call(function, *args))], self._at)
            return TOKEN.result(function, data)
        except (Refused, Reverted, RpcFault) as error:
            raise Refused(
                "payment.token", f"{self.address} does not answer as an ERC-20 token: {error.message}"
            ) from None

    async def _maybe(self, function: str, *args: object) -> Any | None:
        """None where the token does not have the function."""
        try:
            return await self._ask(function, *args)
        except Refused:
            return None


@dataclass(frozen=True)
class Paying:
    """How a fee is paid: `approve` is the allowance that has to be given first, in transactions of its own, in order."""

    payment: Payment
    approvals: tuple[int, ...] = ()

    @property
    def how(self) -> str:
        if self.approvals:
            return "approval"
        return PaymentKind(self.payment.kind).name.lower()


async def choose(token: Token, fee: Fee, key: SigningKey, chain_id: int, *, signed_only: bool = False) -> Paying:
    """How `key` pays a fee: an allowance that is there already, else a permit, an authorization, or an approval of exactly it.

    With `signed_only`, for whoever sends no transaction of its own, the last is Refused `payment.unsigned`. Raises Refused
    `payment.balance` for a fee that is not there, and `payment.token` for what is no token.
    """
    held = await token.balance(key.address)
    if held < fee.amount:
        facts = await token.facts()
        raise Refused(
            "payment.balance",
            f"{key.address} does not have the fee in the token {token.address}",
            found=facts.show(held),
            expected=facts.show(fee.amount),
        )
    allowed = await token.allowance(key.address, fee.oracle)
    if allowed >= fee.amount:
        return Paying(ALLOWANCE)
    for way in (token.permit, token.authorization):
        payment = await way(key, fee, chain_id)
        if payment is not None:
            return Paying(payment)
    if signed_only:
        raise Refused(
            "payment.unsigned",
            "the token knows no approval by signature, and the oracle has no allowance",
            found=token.address,
            hint=f"Send the token approve({fee.oracle}, {fee.amount}) once from this account",
        )
    # Some tokens do not change an allowance to another that is not zero.
    return Paying(ALLOWANCE, (0, fee.amount) if allowed else (fee.amount,))


def approval(oracle: str, amount: int) -> bytes:
    """Calldata for the token."""
    return TOKEN.call("approve", oracle, amount)


def _signed(kind: PaymentKind, key: SigningKey, separator: bytes, words: bytes, fee: Fee) -> Payment:
    signature = key.sign(keccak(b"\x19\x01" + separator + keccak(words)))
    return Payment(
        kind=kind,
        value=fee.amount,
        valid_after=0,
        deadline=fee.deadline,
        v=signature[64],
        r=signature[:32],
        s=signature[32:64],
    )
