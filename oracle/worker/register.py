"""Registering an enclave on chain: evidence over a recent block, its appraisal, the proofs of possession and of host.

`register_enclave` is the whole of it, for the worker and for `oracle enclave register`. Which verifier takes the evidence is
the deployment's matter; `DevelopmentAppraiser` serves the development verifier, whose anchor is a key of ours (R4).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from eth_abi.abi import encode

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import Evidence, development_anchor, report_data
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Confirmation, Host, VerifierStatement
from enclave_app.protocol.wire import EvidenceBody, Identity
from oracle.attestation import (
    AppraisalPolicy,
    AttestationError,
    Collateral,
    DevelopmentRoot,
    TcbStatus,
    Verified,
    appraise,
    evidence_refusal,
    parse_evidence,
    verify,
)
from oracle.chain.abi import load
from oracle.chain.deploy import Deployment
from oracle.chain.reader import EnclaveReader, IdentityRecord
from oracle.chain.sender import Sender
from oracle.chain.source import Block, Call, SingleSource
from oracle.errors import Permanent, Refused, Retryable, Reverted
from oracle.worker.enclave import Enclave


class Appraiser(Protocol):
    """Turns evidence into what an on-chain verifier takes."""

    @property
    def verifier(self) -> str:
        """The verifier contract's address."""
        ...

    @property
    def anchor(self) -> bytes:
        """The trust anchor under which it registers."""
        ...

    def proof(self, evidence: Evidence, identity: Identity, now: int) -> bytes:
        """The verifier's evidence bytes. Raises Refused `evidence.*`, Retryable where only the collateral is out of date."""
        ...


@dataclass(frozen=True)
class DevelopmentAppraiser:
    """Appraises evidence under a development root and signs for it, in the DevelopmentVerifier's domain."""

    key: SigningKey
    verifier: str
    chain_id: int
    root: DevelopmentRoot
    collateral: Collateral

    def __post_init__(self) -> None:
        try:
            self.root.refuse_on_public_chain(self.chain_id)
        except AttestationError as error:
            raise Refused(f"anchors.{error.code}", str(error)) from None

    @property
    def anchor(self) -> bytes:
        return development_anchor(self.chain_id, self.key.address)

    def proof(self, evidence: Evidence, identity: Identity, now: int) -> bytes:
        verified = check_evidence(evidence, identity, self.collateral, self.root.der, now)
        statement = VerifierStatement(
            tee=verified.tee,
            measurement=verified.measurement,
            report_data=verified.report_data[:32],
            root=verified.root,
            tcb_status=verified.tcb_status or 0,
            evaluation=verified.evaluation,
            platform=verified.platform,
            svn_digest=verified.svn_digest,
            collateral=verified.collateral,
            appraised_at=now,
            valid_until=verified.valid_until,
        )
        domain = Domain(chain_id=self.chain_id, verifying_contract=self.verifier)
        signature = self.key.sign(statement.typed_digest(domain))
        return encode([VerifierStatement.abi_type(), "bytes"], [statement.to_abi(), signature])


def check_evidence(
    evidence: Evidence, identity: Identity, collateral: Collateral, root_der: bytes, now: int
) -> Verified:
    """Parse, verify and appraise evidence for what `identity` claims. TCB policy and hosts are the agreements' business.

    Raises Refused or Retryable `evidence.` and the attestation's code.
    """
    expected = report_data(
        evidence.chain_id,
        evidence.registry,
        evidence.signer,
        PublicKey(evidence.sealing_key).digest,
        evidence.block_hash,
    )
    try:
        verified = verify(parse_evidence(evidence.tee, evidence.quote), collateral, root_der, now)
        appraise(
            verified,
            AppraisalPolicy(
                measurements=(identity.measurement,),
                registers="skip",
                anchors=(sha256(root_der),),
                statuses=tuple(status for status in TcbStatus if status is not TcbStatus.REVOKED),
                evaluation_floor="skip",
                report_data=expected,
                advisories="skip",
                platforms="skip",
            ),
        )
    except AttestationError as error:
        raise evidence_refusal(error) from None
    return verified


@dataclass(frozen=True)
class Enrolled:
    """An enclave that is on chain: who it is, evidence over a recent block, and the registry's record."""

    identity: Identity
    anchor: bytes
    evidence: Evidence
    record: IdentityRecord

    @property
    def signer(self) -> str:
        return self.identity.signer


async def make_evidence(
    enclave: Enclave, identity: Identity, deployment: Deployment, block: Block, operator: SigningKey | None
) -> tuple[Evidence, bytes]:
    """Evidence that binds `block` (R2), with the operator's word for the host (R5), and the proof of possession."""
    body = EvidenceBody(
        chain_id=deployment.chain_id,
        registry=deployment.enclave_registry,
        block_hash=block.hash,
        operator=operator.address if operator is not None else ZERO_ADDRESS,
    )
    answer = await enclave.evidence(body)
    domain = Domain(chain_id=deployment.chain_id, verifying_contract=deployment.enclave_registry)
    host = Host(signer=identity.signer).typed_digest(domain)
    evidence = Evidence(
        tee=identity.tee,
        quote=answer.quote,
        signer=identity.signer,
        sealing_key=identity.sealing_key,
        chain_id=body.chain_id,
        registry=body.registry,
        block_number=block.number,
        block_hash=block.hash,
        operator=body.operator,
        operator_signature=operator.sign(host) if operator is not None else b"",
    )
    return evidence, answer.proof_of_possession


async def register_enclave(
    enclave: Enclave,
    sender: Sender,
    source: SingleSource,
    deployment: Deployment,
    appraiser: Appraiser,
    operator: SigningKey | None = None,
) -> Enrolled:
    """Register the enclave, or renew its registration over the newest block.

    Raises Retryable where the chain moved on or collateral has to be fetched first, `Reverted` for another refusal of the
    registry, and what the enclave says.
    """
    identity = await enclave.identity()
    head = await source.confirmed(Confirmation.LATEST)
    evidence, possession = await make_evidence(enclave, identity, deployment, head, operator)
    # A chain that was moved forward (a devnet) goes by its own clock, and an idle one by ours.
    now = max(head.timestamp, int(time.time()))
    registration = (
        identity.signer,
        PublicKey(identity.sealing_key).digest,
        evidence.block_number,
        evidence.block_hash,
        evidence.operator,
        possession,
        evidence.operator_signature,
        appraiser.verifier,
        appraiser.proof(evidence, identity, now),
    )
    call = load("EnclaveRegistry").call("register", registration)
    try:
        receipt = await sender.transact(deployment.enclave_registry, call)
    except Reverted as error:
        if error.name in ("EnclaveRegistry_WrongBlockHash", "EnclaveRegistry_NotNewer"):
            raise Retryable(
                "register.block", "the block that the evidence binds is no longer good", found=error
            ) from None
        raise
    if not receipt.ok:
        raise Retryable("register.reverted", "the registration was mined and refused; the chain moved meanwhile")
    record = await read_record(source, deployment, appraiser.anchor, identity.signer)
    if record is None:
        raise Retryable("register.missing", "the registration is not on chain; it is being reorganised")
    return Enrolled(identity, appraiser.anchor, evidence, record)


async def read_record(
    source: SingleSource, deployment: Deployment, anchor: bytes, signer: str
) -> IdentityRecord | None:
    head = await source.confirmed(Confirmation.LATEST)
    return await EnclaveReader(source, deployment.enclave_registry).identity(anchor, signer, head)


async def anchor_of(source: SingleSource, verifier: str) -> bytes:
    """The anchor under which a verifier contract registers, from the contract itself."""
    contract = load("DevelopmentVerifier")
    head = await source.confirmed(Confirmation.LATEST)
    (answer,) = await source.calls([Call(verifier, contract.call("anchor"))], head)
    anchor = contract.result("anchor", answer)
    if not isinstance(anchor, bytes) or not any(anchor):
        raise Permanent("register.anchor", "the configured verifier has no anchor", found=verifier)
    return anchor
