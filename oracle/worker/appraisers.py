"""Which appraiser a configuration asks for."""

from __future__ import annotations

from oracle.attestation import AttestationError, Collateral, DevelopmentRoot, intel_root
from oracle.attestation.anchors import MAX_ROOT
from oracle.attestation.collateral import MAX_COLLATERAL_BYTES
from oracle.chain.deploy import Deployment
from oracle.collateral.config import PcsConfig
from oracle.errors import Permanent, Refused
from oracle.files import read_file
from oracle.worker.config import WorkerConfig
from oracle.worker.keys import signing_key
from oracle.worker.register import Appraiser, DevelopmentAppraiser


def make_appraiser(config: WorkerConfig, deployment: Deployment) -> Appraiser | None:
    """None where others register the enclave. Raises Refused `attestation.*` or Permanent `config.verifier`."""
    if config.development is None or config.attestation is None:
        return None
    verifier = deployment.verifiers.get(config.verifier)
    if verifier is None:
        raise Permanent("config.verifier", "the deployment has no verifier of that name", found=config.verifier)
    try:
        root = config.attestation.root
        der = intel_root() if root is None else read_file(root, MAX_ROOT)
        if isinstance(config.attestation.collateral, PcsConfig):
            raise Permanent("config.collateral", "the development verifier's collateral is a file")
        collateral = Collateral.from_json(read_file(config.attestation.collateral, MAX_COLLATERAL_BYTES))
        return DevelopmentAppraiser(
            key=signing_key(config.development.appraiser),
            verifier=verifier,
            chain_id=deployment.chain_id,
            root=DevelopmentRoot(der),
            collateral=collateral,
        )
    except AttestationError as error:
        raise Refused(f"attestation.{error.code}", str(error)) from None
