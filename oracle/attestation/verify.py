"""Second stage: typed evidence to claims. Pure: collateral, root and clock are passed in."""

from __future__ import annotations

from oracle.attestation.claims import Verified
from oracle.attestation.collateral import Collateral
from oracle.attestation.dcap import verify_dcap
from oracle.attestation.quote import ParsedQuote


def verify(parsed: ParsedQuote, collateral: Collateral, root_der: bytes, now: int) -> Verified:
    """Check everything that cryptography and `now` (unix seconds) decide.

    Raises VerificationError, CollateralError or RootError. A Verified is not yet accepted: see `appraise`.
    """
    return verify_dcap(parsed, collateral, root_der, now)
