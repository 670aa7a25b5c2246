"""Second stage: typed evidence to claims. Pure: endorsements, root and clock are passed in."""

from __future__ import annotations

from enclave_app.appraise.nitro import NitroDocument
from enclave_app.appraise.snp import SnpEndorsements, SnpReport
from oracle.attestation.claims import Verified
from oracle.attestation.collateral import Collateral
from oracle.attestation.dcap import verify_dcap
from oracle.attestation.errors import Code, VerificationError
from oracle.attestation.parse import Parsed
from oracle.attestation.quote import ParsedQuote
from oracle.attestation.snp_nitro import verify_nitro, verify_snp


def verify(parsed: Parsed, endorsements: Collateral | SnpEndorsements | None, root_der: bytes, now: int) -> Verified:
    """Check everything that cryptography and `now` (unix seconds) decide.

    Intel's quotes need collateral, AMD's reports three certificates; AWS's documents carry all they need.
    Raises VerificationError, CollateralError or RootError. A Verified is not yet accepted: see `appraise`.
    """
    match parsed, endorsements:
        case ParsedQuote(), Collateral():
            return verify_dcap(parsed, endorsements, root_der, now)
        case SnpReport(), SnpEndorsements():
            return verify_snp(parsed, endorsements, root_der, now)
        case NitroDocument(), None:
            return verify_nitro(parsed, root_der, now)
    raise VerificationError(
        Code.ENDORSEMENTS_KIND,
        found=f"{type(endorsements).__name__} with a {type(parsed).__name__}",
        expected="Collateral with a quote, SnpEndorsements with a report, nothing with a Nitro document",
        action="pass what belongs to this kind of evidence",
    )
