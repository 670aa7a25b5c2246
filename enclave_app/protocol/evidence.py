"""What evidence binds as its report_data (R2), under which anchor it counts (R4), and how it travels."""

from __future__ import annotations

from pydantic import Field

from .canonical import Document
from .digests import hash_abi
from .fields import Address, Bytes, Bytes32, Uint8, Uint64, Uint256

EVIDENCE_VERSION = 1
MAX_ENDORSEMENTS = 4


def report_data(chain_id: int, registry: str, signer: str, sealing_key: bytes, block_hash: bytes) -> bytes:
    """The 64 bytes a quote must carry: H("evidence", 1, chain, registry, signer, sealing key digest, block hash) ‖ 0³²."""
    bound = hash_abi(
        "evidence",
        ["uint256", "uint256", "address", "address", "bytes32", "bytes32"],
        [EVIDENCE_VERSION, chain_id, registry, signer, sealing_key, block_hash],
    )
    return bound + bytes(32)


def attested_anchor(verifier_anchor: bytes, verifier_measurement: bytes, root: bytes) -> bytes:
    """The trust anchor of what an attested verifier vouches for (R4), as AttestedVerifier.anchorOf has it:
    H("attested-anchor", verifier's anchor, verifier's measurement, maker's root)."""
    return hash_abi("attested-anchor", ["bytes32", "bytes32", "bytes32"], [verifier_anchor, verifier_measurement, root])


class Voucher(Document):
    """The enclave that vouched for evidence which no contract can check: the anchor and the measurement that it is registered
    under. Only a digest that somebody agreed on makes it more than a claim."""

    anchor: Bytes32
    measurement: Bytes32


def registered_under(root: bytes, voucher: Voucher | None) -> bytes:
    """The anchor under which a registry holds an identity whose evidence rests on `root`: that root, or the attested anchor."""
    return root if voucher is None else attested_anchor(voucher.anchor, voucher.measurement, root)


class Evidence(Document):
    """Evidence for one enclave identity, with what its report_data binds. Untrusted until appraised.

    `quote` is what its kind of TEE gives, `endorsements` the certificates in DER that come beside it (SEV-SNP: the chip's or
    the loader's, then ASK, then ARK). `voucher` is set where the identity was registered through an attested verifier.
    """

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
    endorsements: tuple[Bytes, ...] = Field(default=(), max_length=MAX_ENDORSEMENTS)
    voucher: Voucher | None = None
