"""Which enclaves a registry knows, from its logs and its state."""

from __future__ import annotations

from dataclasses import dataclass

from eth_utils.address import to_checksum_address

from oracle.chain.abi import load
from oracle.chain.deploy import Deployment
from oracle.chain.events import get_logs, topic
from oracle.chain.reader import EnclaveReader, IdentityRecord
from oracle.chain.source import Block, SingleSource


@dataclass(frozen=True)
class RegisteredEnclave:
    """An identity, (anchor, signer), and its record. `valid` is as of the block it was read at."""

    anchor: bytes
    signer: str
    record: IdentityRecord
    valid: bool


async def registered_enclaves(source: SingleSource, deployment: Deployment, at: Block) -> tuple[RegisteredEnclave, ...]:
    """Every identity that was registered up to `at`, in the order of first registration."""
    registry = deployment.enclave_registry
    logs = await get_logs(source.rpc, [registry], deployment.first_block, at.number, [[topic("EnclaveRegistered")]])
    events = [event for log in logs if (event := load("EnclaveRegistry").event(log)) is not None]
    identities = dict.fromkeys((fields["anchor"], str(to_checksum_address(fields["signer"]))) for _, fields in events)
    reader = EnclaveReader(source, registry)
    found = []
    for anchor, signer in identities:
        record = await reader.identity(anchor, signer, at)
        if record is not None:
            valid = not record.retired and record.valid_until >= at.timestamp
            found.append(RegisteredEnclave(anchor, signer, record, valid))
    return tuple(found)
