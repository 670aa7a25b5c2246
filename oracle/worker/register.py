"""Registering an enclave on chain: evidence over a recent block, its appraisal, the proofs of possession and of host.

`register_enclave` is the whole of it, for the worker and for `oracle enclave register`. How a verifier contract takes the
evidence is its `Registrar`'s matter (registrars.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import Evidence, Voucher, report_data
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Confirmation, Host, RegisteredIdentity
from enclave_app.protocol.wire import EvidenceBody, Identity
from oracle.agreement.enclave import OF_THE_VERIFIER
from oracle.attestation import (
    AppraisalPolicy,
    AttestationError,
    Collateral,
    SnpEndorsements,
    TcbStatus,
    Verified,
    appraise,
    evidence_refusal,
    parse_evidence,
    verify,
)
from oracle.chain.abi import load
from oracle.chain.deploy import Deployment
from oracle.chain.reader import EnclaveReader, EnclaveRecord, IdentityRecord, Standing
from oracle.chain.sender import Sender
from oracle.chain.source import Block, SingleSource
from oracle.errors import Retryable, Reverted
from oracle.worker.enclave import Enclave


class IdentityChanged(Retryable):
    """The enclave is registered as something that its evidence no longer says: its platform was patched, or it has another
    operator. It has to start again with new keys (R1)."""

    def __init__(self, found: object, registered: object) -> None:
        super().__init__(
            "register.changed",
            "the enclave is registered as another platform's or operator's than it is now",
            found=found,
            expected=registered,
            hint="Start the enclave again",
        )


class Registrar(Protocol):
    """Brings evidence into the form that one verifier contract takes."""

    @property
    def verifier(self) -> str:
        """The verifier contract's address."""
        ...

    async def voucher(self) -> Voucher | None:
        """The enclave that vouches for the evidence, where no contract can check it. Raises Retryable where none does now."""
        ...

    def endorse(self, given: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The certificates that go with the evidence; `given` are the platform's own. Raises Retryable."""
        ...

    def identify(self, evidence: Evidence, claimed: Identity, now: int) -> tuple[bytes, RegisteredIdentity]:
        """The trust anchor under which it will be registered, and as what. Raises Refused `evidence.*`, Retryable where only the
        collateral is out of date."""
        ...

    async def proof(self, evidence: Evidence, registered: Standing | None, now: int) -> bytes:
        """The verifier's evidence bytes, once everything that they rest on is on chain. `registered` is what is renewed."""
        ...


def check_evidence(
    evidence: Evidence,
    identity: Identity,
    collateral: Collateral | SnpEndorsements | None,
    root_der: bytes,
    now: int,
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
                snp=OF_THE_VERIFIER,
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
    enclave: Enclave,
    identity: Identity,
    deployment: Deployment,
    block: Block,
    operator: SigningKey | None,
    registrar: Registrar | None = None,
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
        endorsements=answer.endorsements if registrar is None else registrar.endorse(answer.endorsements),
        voucher=None if registrar is None else await registrar.voucher(),
    )
    return evidence, answer.proof_of_possession


@dataclass(frozen=True)
class Prepared:
    """Evidence over the newest block, what it says the enclave is, and what the registry has of it at that block."""

    claimed: Identity
    evidence: Evidence
    possession: bytes
    anchor: bytes
    identity: RegisteredIdentity
    record: EnclaveRecord | None
    head: Block


async def prepare(
    enclave: Enclave,
    source: SingleSource,
    deployment: Deployment,
    registrar: Registrar,
    operator: SigningKey | None,
) -> Prepared:
    """Raises IdentityChanged, and what evidence is refused for."""
    claimed = await enclave.identity()
    head = await source.confirmed(Confirmation.LATEST)
    evidence, possession = await make_evidence(enclave, claimed, deployment, head, operator, registrar)
    anchor, identity = registrar.identify(evidence, claimed, _now(head))
    record = await EnclaveReader(source, deployment.enclave_registry).record(anchor, claimed.signer, head)
    if record is not None and record.digest != identity.digest:
        raise IdentityChanged(identity.digest.hex(), record.digest.hex())
    return Prepared(claimed, evidence, possession, anchor, identity, record, head)


async def register_enclave(
    enclave: Enclave,
    sender: Sender,
    source: SingleSource,
    deployment: Deployment,
    registrar: Registrar,
    operator: SigningKey | None = None,
) -> Enrolled:
    """Register the enclave, or renew its registration over the newest block.

    Raises Retryable where the chain moved on or collateral has to be fetched first, IdentityChanged, `Reverted` for another
    refusal of the contracts, and what the enclave says.
    """
    prepared = await prepare(enclave, source, deployment, registrar, operator)
    return await register(prepared, sender, source, deployment, registrar)


async def register(
    prepared: Prepared, sender: Sender, source: SingleSource, deployment: Deployment, registrar: Registrar
) -> Enrolled:
    """As `register_enclave`, with evidence that is made."""
    evidence, signer = prepared.evidence, prepared.claimed.signer
    standing = None if prepared.record is None else prepared.record.standing
    registration = (
        signer,
        prepared.identity.sealing_key,
        evidence.block_number,
        evidence.block_hash,
        evidence.operator,
        prepared.possession,
        evidence.operator_signature,
        registrar.verifier,
        await registrar.proof(evidence, standing, _now(prepared.head)),
    )
    call = load("EnclaveRegistry").call("register", registration)
    try:
        # The call holds the evidence's block: the same evidence is registered once, a renewal is another.
        receipt = await sender.transact(deployment.enclave_registry, call, purpose="register", key=sha256(call))
    except Reverted as error:
        raise _meaning(error) from None
    if not receipt.ok:
        raise Retryable("register.reverted", "the registration was mined and refused; the chain moved meanwhile")
    head = await source.confirmed(Confirmation.LATEST)
    record = await EnclaveReader(source, deployment.enclave_registry).record(prepared.anchor, signer, head)
    if record is None or record.digest != prepared.identity.digest:
        raise Retryable("register.missing", "the registration is not on chain; it is being reorganised")
    whole = IdentityRecord(prepared.identity, record.standing)
    return Enrolled(prepared.claimed, prepared.anchor, evidence, whole)


def _meaning(refusal: Reverted) -> Exception:
    """What to do about a refusal: Retryable where another block or other collateral mends it."""
    if refusal.name == "EnclaveRegistry_IdentityChanged":
        return IdentityChanged(refusal.arguments["got"], refusal.arguments["registered"])
    if refusal.name in ("EnclaveRegistry_WrongBlockHash", "EnclaveRegistry_NotNewer"):
        return Retryable("register.block", "the block that the evidence binds is no longer good", found=refusal)
    if refusal.name in STALE:
        return Retryable("register.collateral", "the collateral is out of date on chain; fetch newer", found=refusal)
    if refusal.name in VERIFIER:
        return Retryable(
            "register.verifier", "the verifier enclave's word does not count now", found=refusal,
            hint="Is it registered, and is the clock right?",
        )  # fmt: skip
    return refusal


VERIFIER = (
    "AttestedVerifier_InvalidVerifier",
    "AttestedVerifier_WrongSigner",
    "AttestedVerifier_StaleAppraisal",
    "EnclaveRegistry_WrongIdentity",
)
"""Refusals that a verifier's renewed registration, or a new statement of its, mends."""
STALE = (
    "EnclaveRegistry_OlderEvaluation",
    "EnclaveRegistry_EvidenceExpired",
    "DcapCollateral_NotCurrent",
    "DcapCollateral_Expired",
    "DcapCollateral_NotYetValid",
    "DcapCollateral_NoCrl",
)
"""Refusals that newer collateral mends."""


def _now(head: Block) -> int:
    # A chain that was moved forward (a devnet) goes by its own clock, and an idle one by ours.
    return max(head.timestamp, int(time.time()))
