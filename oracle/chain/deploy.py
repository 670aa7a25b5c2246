"""Deploying the contracts, and the file that says where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eth_utils.address import to_checksum_address
from pydantic import Field

from enclave_app.protocol.canonical import Document, load, validate
from enclave_app.protocol.fields import Address, Uint256
from oracle.chain.abi import load as load_contract
from oracle.chain.rpc import as_int
from oracle.chain.sender import Sender
from oracle.errors import Permanent
from oracle.files import read_file

MAX_DEPLOYMENT = 1 << 20


class Deployment(Document):
    """Where the contracts are on one chain, and the block from which their logs begin. `verifiers` are the enclave registry's,
    by name: `dcap`, which reads `collateral`, and `attested`; only who registers enclaves needs these."""

    chain_id: Uint256
    agreement_registry: Address
    enclave_registry: Address
    oracle: Address
    streams: Address
    audits: Address
    verifiers: dict[str, Address]
    collateral: Address | None = None
    first_block: Annotated[int, Field(strict=True, ge=0)]

    @classmethod
    def read(cls, path: Path) -> Deployment:
        """Raises Refused `file.*`, `json.*`, `document.invalid`."""
        return validate(cls, load(read_file(path, MAX_DEPLOYMENT), canonical=False))


async def deploy(sender: Sender, root: bytes) -> Deployment:
    """All contracts, under one root certificate in DER for ever. Another than Intel's is refused off development chains (R4)."""
    first = as_int(await sender.rpc.call("eth_blockNumber"))
    collateral = await _create(sender, "DcapCollateral", root)
    dcap = await _create(sender, "DcapVerifier", collateral)
    attested = await _create(sender, "AttestedVerifier")
    enclaves = await _create(sender, "EnclaveRegistry", [dcap, attested])
    streams = await _create(sender, "DatasetStreams")
    audits = await _create(sender, "FunctionAudits")
    agreements = await _create(sender, "AgreementRegistry", streams, audits)
    oracle = await _create(sender, "ComputeOracle", agreements)
    return Deployment(
        chain_id=as_int(await sender.rpc.call("eth_chainId")),
        agreement_registry=agreements,
        enclave_registry=enclaves,
        oracle=oracle,
        streams=streams,
        audits=audits,
        verifiers={"dcap": dcap, "attested": attested},
        collateral=collateral,
        first_block=first,
    )


async def _create(sender: Sender, name: str, *args: object) -> str:
    receipt = await sender.transact(None, load_contract(name).deployment(*args))
    if not receipt.ok or receipt.contract_address is None:
        raise Permanent("deploy.failed", f"{name} could not be deployed")
    return str(to_checksum_address(receipt.contract_address))
