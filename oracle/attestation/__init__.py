"""Attestation in three pure stages: parse, verify, appraise (RFC 9334: the Verifier)."""

from enclave_app.appraise.nitro import NitroDocument
from enclave_app.appraise.snp import SnpEndorsements, SnpReport
from oracle.attestation.anchors import INTEL_ROOT_DIGEST, DevelopmentRoot, intel_root, maker_roots
from oracle.attestation.appraise import Appraisal, appraise
from oracle.attestation.claims import DcapClaims, Verified
from oracle.attestation.collateral import Collateral
from oracle.attestation.errors import (
    AppraisalError,
    AttestationError,
    Code,
    CollateralError,
    EvidenceError,
    PolicyError,
    RootError,
    VerificationError,
    evidence_refusal,
)
from oracle.attestation.parse import Parsed, parse_dcap, parse_evidence
from oracle.attestation.policy import AppraisalPolicy, SnpPolicy
from oracle.attestation.quote import ParsedQuote, SgxReport, TdReport
from oracle.attestation.snp_nitro import carried
from oracle.attestation.types import TcbStatus, Tee
from oracle.attestation.verify import verify

__all__ = [
    "INTEL_ROOT_DIGEST",
    "Appraisal",
    "AppraisalError",
    "AppraisalPolicy",
    "AttestationError",
    "Code",
    "Collateral",
    "CollateralError",
    "DcapClaims",
    "DevelopmentRoot",
    "EvidenceError",
    "NitroDocument",
    "Parsed",
    "ParsedQuote",
    "PolicyError",
    "RootError",
    "SgxReport",
    "SnpEndorsements",
    "SnpPolicy",
    "SnpReport",
    "TcbStatus",
    "TdReport",
    "Tee",
    "VerificationError",
    "Verified",
    "appraise",
    "carried",
    "evidence_refusal",
    "intel_root",
    "maker_roots",
    "parse_dcap",
    "parse_evidence",
    "verify",
]
