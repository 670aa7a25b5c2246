"""Deploying the contracts, at addresses that follow from their code, and the file that says where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from enclave_app.protocol.canonical import Document, load, validate
from enclave_app.protocol.digests import keccak
from enclave_app.protocol.fields import Address, Bytes32, Uint256
from oracle.chain.abi import load as load_contract
from oracle.chain.create2 import FACTORY, check_factory, code_at, create2_address, first_created_address
from oracle.chain.rpc import Rpc, as_int
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.errors import Permanent, Retryable, Reverted, RpcFault
from oracle.files import read_file

MAX_DEPLOYMENT = 1 << 20
SALT = keccak(text="enclave-oracle/deployment/1")
"""The same for every contract: their init codes tell them apart."""


class Deployment(Document):
    """Where the contracts are on one chain, and the block from which their logs begin. `verifiers` are the enclave registry's,
    by name: `dcap`, which reads `collateral`, and `attested`; only who registers enclaves needs these. `genesis` is the hash of
    the chain's first block: a fork has the same id."""

    chain_id: Uint256
    agreement_registry: Address
    enclave_registry: Address
    oracle: Address
    streams: Address
    audits: Address
    verifiers: dict[str, Address]
    collateral: Address | None = None
    first_block: Annotated[int, Field(strict=True, ge=0)]
    genesis: Bytes32 | None = None

    @classmethod
    def read(cls, path: Path) -> Deployment:
        """Raises Refused `file.*`, `json.*`, `document.invalid`."""
        return validate(cls, load(read_file(path, MAX_DEPLOYMENT), canonical=False))

    def pretty(self) -> bytes:
        """As a file that people read too."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2).encode() + b"\n"


@dataclass(frozen=True)
class Planned:
    """A contract and where it will be. `arguments` are its constructor's, encoded; `init_code` holds them, and is empty for a
    contract that another one's constructor creates."""

    name: str
    address: str
    arguments: bytes
    init_code: bytes


def plan(root: bytes) -> dict[str, Planned]:
    """The contracts under one root certificate in DER, in the order in which they can be deployed. Their addresses are the same
    on every chain, and depend on nothing but their code and that certificate."""
    contracts: dict[str, Planned] = {}

    def add(name: str, *args: object) -> str:
        contract = load_contract(name)
        init_code = contract.deployment(*args)
        address = create2_address(SALT, init_code)
        contracts[name] = Planned(name, address, init_code[len(contract.bytecode) :], init_code)
        return address

    streams = add("DatasetStreams")
    audits = add("FunctionAudits")
    agreements = add("AgreementRegistry", streams, audits)
    contracts["AgreementTerms"] = Planned("AgreementTerms", first_created_address(agreements), b"", b"")
    add("ComputeOracle", agreements)
    dcap = add("DcapVerifier", add("DcapCollateral", root))
    add("EnclaveRegistry", [dcap, add("AttestedVerifier")])
    return contracts


async def missing(rpc: Rpc, contracts: Sequence[Planned]) -> list[Planned]:
    """Those that are not there yet. Raises Permanent `deploy.code` for one that is there with other code than was compiled."""
    return [planned for planned in contracts if not await _is_there(rpc, planned)]


async def deploy(sender: Sender, root: bytes) -> Deployment:
    """All contracts that are not there yet, under one root certificate in DER for ever. Another than Intel's is refused off
    development chains (R4). What an earlier run, or anybody else, deployed is as good as ours: its address says so.

    Raises as `check_factory` and `missing`; Reverted for a constructor that refuses; Permanent `deploy.failed`; Retryable
    `deploy.unseen` where the node does not know yet what it mined.
    """
    rpc = sender.rpc
    await check_factory(rpc)
    chain_id, head = as_int(await rpc.call("eth_chainId")), as_int(await rpc.call("eth_blockNumber"))
    contracts = plan(root)
    wanted = await missing(rpc, list(contracts.values()))
    for planned in wanted:
        if planned.init_code:
            await _place(sender, planned)
        if not await _is_there(rpc, planned):
            raise Retryable(
                "deploy.unseen", f"{planned.name} is not seen at {planned.address} yet", hint="Run it again"
            )
    # What was there before may be as old as the chain.
    since = head if len(wanted) == len(contracts) else 0
    first = await _first_block(rpc, list(contracts.values()), since, as_int(await rpc.call("eth_blockNumber")))
    at = {name: planned.address for name, planned in contracts.items()}
    return Deployment(
        chain_id=chain_id,
        agreement_registry=at["AgreementRegistry"],
        enclave_registry=at["EnclaveRegistry"],
        oracle=at["ComputeOracle"],
        streams=at["DatasetStreams"],
        audits=at["FunctionAudits"],
        verifiers={"dcap": at["DcapVerifier"], "attested": at["AttestedVerifier"]},
        collateral=at["DcapCollateral"],
        first_block=first,
        genesis=await _genesis(rpc),
    )


async def _genesis(rpc: Rpc) -> bytes | None:
    """None where the node does not keep the chain's first block."""
    block = await SingleSource(rpc).block(0)
    return None if block is None else block.hash


async def _place(sender: Sender, planned: Planned) -> None:
    try:
        receipt = await sender.transact(FACTORY, SALT + planned.init_code)
    except (Reverted, RpcFault):
        if await code_at(sender.rpc, planned.address):
            return  # somebody was faster, with the same code
        # The factory passes no reason on; the constructor by itself says it.
        await sender.estimate(None, planned.init_code)
        raise
    if not receipt.ok and not await code_at(sender.rpc, planned.address):
        raise Permanent("deploy.failed", f"{planned.name} could not be deployed")


async def _is_there(rpc: Rpc, planned: Planned) -> bool:
    code = await code_at(rpc, planned.address)
    if not code:
        return False
    compiled = load_contract(planned.name).without_immutables(code)
    if compiled != load_contract(planned.name).runtime:
        raise Permanent(
            "deploy.code",
            f"{planned.name} at {planned.address} does not have the code that was compiled",
            found=f"{len(code)} bytes, 0x{keccak(code).hex()}",
            hint="The endpoint does not tell the truth, or the chain's EVM is not Ethereum's",
        )
    return True


async def _first_block(rpc: Rpc, contracts: Sequence[Planned], since: int, head: int) -> int:
    """The first block in which any of them was there; `since` where the node has forgotten that: logs from there miss nothing."""
    low, high = since, head
    try:
        while low < high:
            middle = (low + high) // 2
            if any([await code_at(rpc, planned.address, middle) for planned in contracts]):
                high = middle
            else:
                low = middle + 1
    except RpcFault:
        return since
    return low
