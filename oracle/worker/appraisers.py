"""Which appraiser a configuration asks for."""

from __future__ import annotations

from oracle.attestation import AttestationError, Collateral, DevelopmentRoot, intel_root
from oracle.chain.deploy import Deployment
from oracle.errors import Permanent, Refused
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
        der = intel_root() if root is None else root.read_bytes()
        collateral = Collateral.from_json(config.attestation.collateral.read_bytes())
        return DevelopmentAppraiser(
            key=signing_key(config.development.appraiser),
            verifier=verifier,
            chain_id=deployment.chain_id,
            root=DevelopmentRoot(der),
            collateral=collateral,
        )
    except OSError as error:
        raise Refused("attestation.file", f"cannot read {error.filename}", found=error.strerror) from error
    except AttestationError as error:
        raise Refused(f"attestation.{error.code}", str(error)) from None
