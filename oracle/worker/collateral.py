"""What the worker appraises its own enclave with: one root, and collateral under it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from oracle.attestation import INTEL_ROOT_DIGEST, AttestationError, DevelopmentRoot, intel_root
from oracle.attestation.anchors import MAX_ROOT
from oracle.collateral import CollateralSource, open_source
from oracle.errors import Refused
from oracle.files import read_file
from oracle.worker.config import AttestationConfig


@dataclass(frozen=True)
class Appraisal:
    """`root` is DER. The early evaluation is fetched as well, to see what is coming."""

    root: bytes
    collateral: CollateralSource


def open_appraisal(config: AttestationConfig | None, chain_id: int) -> Appraisal | None:
    """None where the configuration has no `attestation`. Raises Refused `attestation.*`, `file.*`."""
    if config is None:
        return None
    try:
        der, digest = intel_root(), INTEL_ROOT_DIGEST
        if config.root is not None:
            root = DevelopmentRoot(read_file(config.root, MAX_ROOT))
            if root.digest != INTEL_ROOT_DIGEST:
                root.refuse_on_public_chain(chain_id)  # R4
            der, digest = root.der, root.digest
    except AttestationError as error:
        raise Refused(f"attestation.{error.code}", str(error)) from None
    return Appraisal(der, open_source(config.collateral, {digest: der}, time.time, ahead=True))
