"""Attestation in three pure stages: parse, verify, appraise (RFC 9334: the Verifier)."""

from oracle.attestation.anchors import INTEL_ROOT_DIGEST, DevelopmentRoot, intel_root
from oracle.attestation.appraise import Appraisal, appraise
from oracle.attestation.claims import Verified
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
from oracle.attestation.parse import parse_evidence
from oracle.attestation.policy import AppraisalPolicy
from oracle.attestation.quote import ParsedQuote, SgxReport, TdReport
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
    "DevelopmentRoot",
    "EvidenceError",
    "ParsedQuote",
    "PolicyError",
    "RootError",
    "SgxReport",
    "TcbStatus",
    "TdReport",
    "Tee",
    "VerificationError",
    "Verified",
    "appraise",
    "evidence_refusal",
    "intel_root",
    "parse_evidence",
    "verify",
]
