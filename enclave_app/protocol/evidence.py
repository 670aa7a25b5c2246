"""What a quote's report_data says (R2), and how evidence travels."""

from __future__ import annotations

from .canonical import Document
from .digests import hash_abi
from .fields import Address, Bytes, Bytes32, Uint8, Uint64, Uint256

EVIDENCE_VERSION = 1


def report_data(chain_id: int, registry: str, signer: str, sealing_key: bytes, block_hash: bytes) -> bytes:
    """The 64 bytes a quote must carry: H("evidence", 1, chain, registry, signer, sealing key digest, block hash) ‖ 0³²."""
    bound = hash_abi(
        "evidence",
        ["uint256", "uint256", "address", "address", "bytes32", "bytes32"],
        [EVIDENCE_VERSION, chain_id, registry, signer, sealing_key, block_hash],
    )
    return bound + bytes(32)


def development_anchor(chain_id: int, appraiser: str) -> bytes:
    """The trust anchor of a development appraiser (R4): H("development-anchor", chain, appraiser), as its contract has it."""
    return hash_abi("development-anchor", ["uint256", "address"], [chain_id, appraiser])


class Evidence(Document):
    """Evidence for one enclave identity, with what its report_data binds. Untrusted until appraised."""

    tee: Uint8
    quote: Bytes
    signer: Address
    sealing_key: Bytes
    chain_id: Uint256
    registry: Address
    block_number: Uint64
    block_hash: Bytes32
    operator: Address
    operator_signature: Bytes
