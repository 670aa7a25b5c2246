"""Which enclaves a registry knows, from its logs and its state: the registry keeps digests, its events say the parts."""

from __future__ import annotations

from dataclasses import dataclass

from eth_utils.address import to_checksum_address

from enclave_app.protocol.structs import RegisteredIdentity, TcbStatus
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


async def registered_enclaves(
    source: SingleSource, deployment: Deployment, at: Block, signer: str | None = None
) -> tuple[RegisteredEnclave, ...]:
    """Every identity that was registered up to `at`, or those of one signer, in the order of first registration.

    Parts come from events, and count only where they make the digest that the registry keeps.
    """
    registry = deployment.enclave_registry
    topics = [
        [topic("EnclaveRegistered")],
        None,
        None if signer is None else [bytes.fromhex(signer[2:]).rjust(32, b"\0")],
    ]
    logs = await get_logs(source.rpc, [registry], deployment.first_block, at.number, topics)
    events = [event for log in logs if (event := load("EnclaveRegistry").event(log)) is not None]
    parts = {
        (fields["anchor"], str(to_checksum_address(fields["signer"]))): RegisteredIdentity.from_abi(fields["identity"])
        for _, fields in events
    }
    reader = EnclaveReader(source, registry)
    found = []
    for (anchor, key), identity in parts.items():
        record = await reader.record(anchor, key, at)
        if record is not None and record.digest == identity.digest:
            standing = record.standing
            revoked = standing.tcb_status == TcbStatus.REVOKED
            valid = not standing.retired and not revoked and standing.valid_until >= at.timestamp
            found.append(RegisteredEnclave(anchor, key, IdentityRecord(identity, standing), valid))
    return tuple(found)
