"""The receipt of one task: everything that a stranger needs to check how its result came about, and nothing else.

Each field is held by a digest or a signature that another part names, so none can be changed alone. What cannot be
checked without the chain, such as the settlement's transaction, is not in it; what is secret never was in the host's hands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field

from enclave_app.protocol.canonical import Document, load, validate
from enclave_app.protocol.evidence import MAX_ENDORSEMENTS, Voucher
from enclave_app.protocol.fields import Address, Bytes, Bytes32, Uint8
from enclave_app.protocol.structs import Agreement, Chain, ReleaseStatement, Result, TaskRequest
from oracle.agreement.anchors import maker_of
from oracle.attestation import INTEL_ROOT_DIGEST, Collateral
from oracle.attestation.collateral import MAX_COLLATERAL_BYTES, pem_chain
from oracle.files import read_file

Assurance = Literal["SIMULATED", "ATTESTED"]
SIMULATED: Final = "SIMULATED"
ATTESTED: Final = "ATTESTED"
MAX_RECEIPT = 64 << 20
MAX_FUNCTION = 4 << 20
"""A larger function stays out; the agreement names it by its digest, and whoever verifies gives its file."""

CollateralText = Annotated[str, Field(max_length=MAX_COLLATERAL_BYTES)]
CollateralBytes = Annotated[Bytes, Field(max_length=MAX_COLLATERAL_BYTES)]


class ReceiptEvidence(Document):
    """`sealing_key` is the digest of the enclave's HPKE key; chain and registry are the receipt's own."""

    tee: Uint8
    quote: Bytes
    signer: Address
    sealing_key: Bytes32
    block_hash: Bytes32
    operator: Address
    operator_signature: Bytes
    endorsements: tuple[Bytes, ...] = Field(max_length=MAX_ENDORSEMENTS)
    voucher: Voucher | None


class ReceiptCollateral(Document):
    """QuoteCollateralV3: PEM chains, CRLs in DER, and two JSON texts exactly as they were signed."""

    pck_crl_issuer_chain: CollateralText
    root_ca_crl: CollateralBytes
    pck_crl: CollateralBytes
    tcb_info_issuer_chain: CollateralText
    tcb_info: CollateralText
    tcb_info_signature: CollateralBytes
    qe_identity_issuer_chain: CollateralText
    qe_identity: CollateralText
    qe_identity_signature: CollateralBytes

    @classmethod
    def of(cls, collateral: Collateral) -> ReceiptCollateral:
        """With its PEM chains in their one form. Raises CollateralError."""
        return cls(
            pck_crl_issuer_chain=one_form(collateral.pck_crl_issuer_chain),
            root_ca_crl=bytes.fromhex(collateral.root_ca_crl),
            pck_crl=bytes.fromhex(collateral.pck_crl),
            tcb_info_issuer_chain=one_form(collateral.tcb_info_issuer_chain),
            tcb_info=collateral.tcb_info,
            tcb_info_signature=bytes.fromhex(collateral.tcb_info_signature),
            qe_identity_issuer_chain=one_form(collateral.qe_identity_issuer_chain),
            qe_identity=collateral.qe_identity,
            qe_identity_signature=bytes.fromhex(collateral.qe_identity_signature),
        )

    def collateral(self) -> Collateral:
        return Collateral(
            pck_crl_issuer_chain=self.pck_crl_issuer_chain,
            root_ca_crl=self.root_ca_crl.hex(),
            pck_crl=self.pck_crl.hex(),
            tcb_info_issuer_chain=self.tcb_info_issuer_chain,
            tcb_info=self.tcb_info,
            tcb_info_signature=self.tcb_info_signature.hex(),
            qe_identity_issuer_chain=self.qe_identity_issuer_chain,
            qe_identity=self.qe_identity,
            qe_identity_signature=self.qe_identity_signature.hex(),
        )

    def chains(self) -> tuple[str, ...]:
        return self.pck_crl_issuer_chain, self.tcb_info_issuer_chain, self.qe_identity_issuer_chain


class SignedStatement(Document):
    """What one broker said that it released, and its signature; the sealed answer itself is nobody's but the enclave's."""

    statement: ReleaseStatement
    signature: Bytes


class Receipt(Document):
    """`consents` align with the agreement's parties, empty where the chain recorded a consent of another kind. `function`
    is the bundle, None above `MAX_FUNCTION`; `param_domain`, `manifests` and `outputs` are whole documents, byte for byte; a
    public output is there itself. `root` is the DER of a development root, None for a maker's pinned one. `collateral` is None
    for AMD's and AWS's evidence. `releases` are in the agreement's order."""

    format: Literal["enclave-oracle/receipt"]
    v: Literal[1]
    assurance: Assurance
    chain: Chain
    agreement_id: Bytes32
    task_id: Bytes32
    agreement: Agreement
    consents: tuple[Bytes, ...] = Field(max_length=32)
    function: Bytes | None
    param_domain: Bytes
    manifests: tuple[Bytes, ...] = Field(max_length=16)
    request: TaskRequest
    evidence: ReceiptEvidence
    collateral: ReceiptCollateral | None
    root: Bytes | None
    releases: tuple[SignedStatement, ...] = Field(min_length=1, max_length=16)
    result: Result
    signature: Bytes
    outputs: tuple[Bytes, ...] = Field(max_length=16)


def assurance(root: bytes, voucher: Voucher | None) -> Assurance:
    """R4: ATTESTED where a maker's pinned root stands behind the evidence, and behind the verifier that vouched for it, if one
    did. `root` is the digest of the root certificate."""
    if voucher is None:
        return ATTESTED if root == INTEL_ROOT_DIGEST else SIMULATED
    return ATTESTED if voucher.anchor == INTEL_ROOT_DIGEST and maker_of(root) is not None else SIMULATED


def read_receipt(data: bytes) -> Receipt:
    """A receipt from untrusted bytes, however its JSON is laid out; Refused `json.*` or `document.invalid`."""
    return validate(Receipt, load(data, limit=MAX_RECEIPT, canonical=False))


def read_receipt_file(path: Path) -> bytes:
    """The bytes of a receipt's file, never more than one may have; Refused `file.read` or `file.size`."""
    return read_file(path, MAX_RECEIPT)


def one_form(chain: str) -> str:
    """A PEM chain as this code writes it: white space in PEM is nobody's, and could be changed unseen."""
    return "".join(each.public_bytes(Encoding.PEM).decode("ascii") for each in pem_chain(chain))
