"""The registrars that a configuration asks for: how evidence gets into the form that a verifier contract takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.evidence import Evidence, Voucher
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.structs import RegisteredIdentity
from enclave_app.protocol.wire import Identity
from oracle.agreement.enclave import identity_of
from oracle.attestation import (
    INTEL_ROOT_DIGEST,
    AttestationError,
    Collateral,
    DevelopmentRoot,
    evidence_refusal,
    intel_root,
    parse_evidence,
)
from oracle.attestation.anchors import MAX_ROOT
from oracle.attestation.collateral import MAX_COLLATERAL_BYTES
from oracle.attestation.onchain import dcap_evidence, posts
from oracle.chain.collateral import post_missing
from oracle.chain.deploy import Deployment
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.errors import Permanent, Refused, Retryable
from oracle.files import read_file
from oracle.worker.config import AttestationConfig, WorkerConfig
from oracle.worker.register import Registrar, check_evidence


@dataclass(frozen=True)
class DcapRegistrar:
    """Intel DCAP, which the contract checks itself: what its collateral store lacks is posted first, from `collateral`, a file
    that is read anew each time."""

    sender: Sender
    source: SingleSource
    store: str
    verifier: str
    root: bytes
    collateral: Path

    @property
    def voucher(self) -> Voucher | None:
        return None

    @property
    def anchor(self) -> bytes:
        return sha256(self.root)

    def identify(self, evidence: Evidence, claimed: Identity, now: int) -> RegisteredIdentity:
        verified = check_evidence(evidence, claimed, self._read(), self.root, now)
        return identity_of(evidence, PublicKey(evidence.sealing_key).digest, verified)

    async def proof(self, evidence: Evidence, now: int) -> bytes:
        collateral = self._read()
        try:
            parsed = parse_evidence(evidence.tee, evidence.quote)
            wanted, encoded = posts(collateral, parsed), dcap_evidence(parsed, collateral)
        except AttestationError as error:
            raise evidence_refusal(error) from None
        await post_missing(self.sender, self.source, self.store, wanted)
        return encoded

    def _read(self) -> Collateral:
        try:
            return Collateral.from_json(read_file(self.collateral, MAX_COLLATERAL_BYTES))
        except AttestationError as error:
            raise Retryable(f"attestation.{error.code}", str(error)) from None
        except Refused as error:
            raise Retryable("attestation.file", f"the collateral cannot be read: {error.message}") from None


def make_registrar(
    config: WorkerConfig, deployment: Deployment, sender: Sender, source: SingleSource
) -> Registrar | None:
    """None where others register the enclave. Raises Refused `attestation.*` or Permanent `config.deployment`."""
    if config.attestation is None:
        return None
    verifier = deployment.verifiers.get("dcap")
    if verifier is None:
        raise Permanent("config.deployment", "the deployment has no verifier `dcap`")
    return DcapRegistrar(
        sender,
        source,
        deployment.collateral,
        verifier,
        _root(config.attestation, deployment),
        config.attestation.collateral,
    )


def _root(attestation: AttestationConfig, deployment: Deployment) -> bytes:
    try:
        if attestation.root is None:
            return intel_root()
        root = DevelopmentRoot(read_file(attestation.root, MAX_ROOT))
        if root.digest != INTEL_ROOT_DIGEST:
            # R4
            root.refuse_on_public_chain(deployment.chain_id)
        return root.der
    except AttestationError as error:
        raise Refused(f"attestation.{error.code}", str(error)) from None
