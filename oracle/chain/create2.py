"""CREATE2 through the deterministic deployment proxy, which most chains have at the same address: a contract's address is then
its init code's alone, whoever deploys it.

Source: https://github.com/Arachnid/deterministic-deployment-proxy
"""

from __future__ import annotations

from eth_utils.address import to_checksum_address

from enclave_app.protocol.digests import keccak
from oracle.chain.rpc import Rpc, as_bytes, as_int
from oracle.chain.sender import Sender
from oracle.errors import Permanent

FACTORY = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
FACTORY_CODE = bytes.fromhex(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f580151560"
    "39578182fd5b8082525050506014600cf3"
)
FACTORY_TRANSACTION = bytes.fromhex(
    "f8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffffffffffffffffff"
    "ffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf31ba02222"
    "222222222222222222222222222222222222222222222222222222222222a0222222222222222222222222222222222222222222"
    "2222222222222222222222"
)
"""Signed by nobody: its signature is a made-up number, so nobody has the key of the account that it comes from, and it does the
same on every chain. It is from before EIP-155; a node may have to be told to take such transactions."""
FACTORY_SIGNER = "0x3fAB184622Dc19b6109349B94811493BF2a45362"
FACTORY_COST = 10**16
"""What that transaction may cost, in wei: 100,000 gas at 100 gwei. Its account has to hold it."""


def create2_address(salt: bytes, init_code: bytes) -> str:
    """Where the factory puts a contract (EIP-1014)."""
    digest = keccak(b"\xff" + bytes.fromhex(FACTORY[2:]) + salt + keccak(init_code))
    return str(to_checksum_address(digest[12:]))


def first_created_address(creator: str) -> str:
    """Where a contract puts the first contract that it creates with CREATE: its nonce begins at 1 (EIP-161)."""
    return str(to_checksum_address(keccak(b"\xd6\x94" + bytes.fromhex(creator[2:]) + b"\x01")[12:]))


async def code_at(rpc: Rpc, address: str, block: int | None = None) -> bytes:
    return as_bytes(await rpc.call("eth_getCode", address, "latest" if block is None else hex(block)))


async def check_factory(rpc: Rpc) -> None:
    """Raises Permanent `deploy.no_factory` where the chain lacks it, and `deploy.factory` where something else is there."""
    found = await code_at(rpc, FACTORY)
    if not found:
        raise Permanent(
            "deploy.no_factory",
            f"this chain does not have the deterministic deployment proxy at {FACTORY}",
            hint=f"Send {FACTORY_COST} wei to {FACTORY_SIGNER} and broadcast the signed transaction "
            f"0x{FACTORY_TRANSACTION.hex()}, or let --place-factory do both from your wallet",
        )
    if found != FACTORY_CODE:
        raise Permanent(
            "deploy.factory",
            f"the code at {FACTORY} is not the deterministic deployment proxy's",
            found=f"0x{keccak(found).hex()}",
            expected=f"0x{keccak(FACTORY_CODE).hex()}",
            hint="On this chain no contract of ours can have the address that it has elsewhere",
        )


async def place_factory(sender: Sender) -> bool:
    """Places the factory where the chain lacks it, paid by the sender; whether it had to. Raises as `check_factory`."""
    if await code_at(sender.rpc, FACTORY):
        await check_factory(sender.rpc)
        return False
    lacks = FACTORY_COST - as_int(await sender.rpc.call("eth_getBalance", FACTORY_SIGNER, "latest"))
    if lacks > 0:
        await sender.transact(FACTORY_SIGNER, b"", value=lacks)
    await sender.rpc.call("eth_sendRawTransaction", "0x" + FACTORY_TRANSACTION.hex())
    await sender.wait(keccak(FACTORY_TRANSACTION))
    await check_factory(sender.rpc)
    return True
