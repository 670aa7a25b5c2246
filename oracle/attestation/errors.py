"""Errors of attestation, each with a code that stays the same across releases.

AttestationError
├── EvidenceError       parse: the bytes are not the evidence they claim to be
├── CollateralError     the collateral is not in the form that this code reads
├── VerificationError   verify: the evidence does not hold under this collateral, root and clock
├── PolicyError         the appraisal policy is empty, unset or malformed (R21)
├── AppraisalError      appraise: the evidence holds, and the policy does not want it
└── RootError           a trust anchor is malformed, or not allowed here (R4)
"""

from __future__ import annotations

from enum import StrEnum

from enclave_app.protocol.errors import OracleError, Refused, Retryable


class Code(StrEnum):
    """Stable names for programs to match on; messages are for people and may change."""

    EVIDENCE_TOO_SHORT = "evidence_too_short"
    EVIDENCE_TOO_LONG = "evidence_too_long"
    EVIDENCE_TRAILING_BYTES = "evidence_trailing_bytes"
    TEE_UNSUPPORTED = "tee_unsupported"
    TEE_MISMATCH = "tee_mismatch"
    QUOTE_VERSION = "quote_version"
    QUOTE_KEY_TYPE = "quote_key_type"
    QUOTE_BODY_TYPE = "quote_body_type"
    QUOTE_SIGNATURE_SECTION = "quote_signature_section"
    QUOTE_RESERVED_BYTES = "quote_reserved_bytes"

    REPORT_VERSION = "report_version"
    REPORT_RESERVED_BYTES = "report_reserved_bytes"
    REPORT_VMPL = "report_vmpl"
    REPORT_SIGNATURE_ALGORITHM = "report_signature_algorithm"
    REPORT_UNSIGNED = "report_unsigned"
    DOCUMENT_ENCODING = "document_encoding"
    DOCUMENT_HEADER = "document_header"
    DOCUMENT_FIELD = "document_field"

    COLLATERAL_FORMAT = "collateral_format"
    COLLATERAL_EXPIRED = "collateral_expired"
    COLLATERAL_NOT_YET_VALID = "collateral_not_yet_valid"

    PCK_CHAIN = "pck_chain"
    DEBUG_ENCLAVE = "debug_enclave"
    SERVICE_TD = "service_td"
    QUOTE_REFUSED = "quote_refused"
    VERIFIER_DISAGREES = "verifier_disagrees"
    ENDORSEMENTS_KIND = "endorsements_kind"
    REPORT_SIGNATURE = "report_signature"
    PRODUCT_MISMATCH = "product_mismatch"
    TCB_MISMATCH = "tcb_mismatch"
    CHIP_MISMATCH = "chip_mismatch"
    DOCUMENT_SIGNATURE = "document_signature"
    CERTIFICATE_FORMAT = "certificate_format"
    CERTIFICATE_CHAIN = "certificate_chain"
    CERTIFICATE_REVOKED = "certificate_revoked"
    REVOCATION_LIST = "revocation_list"
    ROOT_MISMATCH = "root_mismatch"

    POLICY_FORMAT = "policy_format"
    POLICY_UNSET = "policy_unset"
    POLICY_EMPTY = "policy_empty"

    MEASUREMENT_NOT_LISTED = "measurement_not_listed"
    ANCHOR_NOT_LISTED = "anchor_not_listed"
    STATUS_NOT_ALLOWED = "status_not_allowed"
    EVALUATION_BELOW_FLOOR = "evaluation_below_floor"
    REPORT_DATA_MISMATCH = "report_data_mismatch"
    ADVISORY_REFUSED = "advisory_refused"
    PLATFORM_NOT_LISTED = "platform_not_listed"
    REGISTER_NOT_LISTED = "register_not_listed"
    VMPL_NOT_LISTED = "vmpl_not_listed"
    TCB_BELOW_MINIMUM = "tcb_below_minimum"
    KEY_NOT_LISTED = "key_not_listed"
    MIGRATION_REFUSED = "migration_refused"
    SMT_REFUSED = "smt_refused"
    SINGLE_SOCKET_REQUIRED = "single_socket_required"
    ALIAS_CHECK_REQUIRED = "alias_check_required"

    ROOT_FORMAT = "root_format"
    ROOT_ON_PUBLIC_CHAIN = "root_on_public_chain"


RETRYABLE = frozenset({Code.COLLATERAL_EXPIRED, Code.COLLATERAL_NOT_YET_VALID})
"""What fetching newer collateral, or waiting, can mend; everything else is permanent for this evidence."""


class AttestationError(Refused):
    """`code` for programs; `found`, `expected` and `action` make up the message."""

    def __init__(self, code: Code, *, found: str, expected: str, action: str) -> None:
        super().__init__(code, str(code), found=found, expected=expected, hint=action)
        self.found = found
        self.expected = expected
        self.action = action

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


class EvidenceError(AttestationError):
    """Parse: the bytes are not the evidence they claim to be."""


class CollateralError(AttestationError):
    """The collateral is not in the form that this code reads."""


class VerificationError(AttestationError):
    """Verify: the evidence does not hold under this collateral, root and clock."""


class PolicyError(AttestationError):
    """The appraisal policy is empty, unset or malformed (R21)."""


class AppraisalError(AttestationError):
    """Appraise: the evidence holds, and the policy does not want it."""


class RootError(AttestationError):
    """A trust anchor is malformed, or not allowed here (R4)."""


def evidence_refusal(error: AttestationError) -> OracleError:
    """As those who judge evidence tell it: `evidence.` and the code, Retryable where newer collateral or waiting mends it."""
    kind = Retryable if error.retryable else Refused
    return kind(f"evidence.{error.code}", str(error))
