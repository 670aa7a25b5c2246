"""Why evidence is refused, under names that stay the same across releases."""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from enclave_app.protocol.errors import Refused


class Code(StrEnum):
    """Stable names for programs to match on; messages are for people and may change."""

    EVIDENCE_TOO_SHORT = "evidence_too_short"
    EVIDENCE_TOO_LONG = "evidence_too_long"
    EVIDENCE_TRAILING_BYTES = "evidence_trailing_bytes"
    DEBUG_ENCLAVE = "debug_enclave"

    # SEV-SNP
    REPORT_VERSION = "report_version"
    REPORT_RESERVED_BYTES = "report_reserved_bytes"
    REPORT_VMPL = "report_vmpl"
    REPORT_SIGNATURE_ALGORITHM = "report_signature_algorithm"
    REPORT_UNSIGNED = "report_unsigned"
    REPORT_SIGNATURE = "report_signature"
    PRODUCT_MISMATCH = "product_mismatch"
    TCB_MISMATCH = "tcb_mismatch"
    CHIP_MISMATCH = "chip_mismatch"

    # Nitro
    DOCUMENT_ENCODING = "document_encoding"
    DOCUMENT_HEADER = "document_header"
    DOCUMENT_FIELD = "document_field"
    DOCUMENT_SIGNATURE = "document_signature"

    # Certificates of either
    CERTIFICATE_FORMAT = "certificate_format"
    CERTIFICATE_CHAIN = "certificate_chain"
    CERTIFICATE_REVOKED = "certificate_revoked"
    REVOCATION_LIST = "revocation_list"
    ROOT_MISMATCH = "root_mismatch"
    COLLATERAL_EXPIRED = "collateral_expired"
    COLLATERAL_NOT_YET_VALID = "collateral_not_yet_valid"


class EvidenceRefused(Refused):
    """`code` for programs; `found`, `expected` and `action` make up the message."""

    def __init__(self, code: Code, *, found: str, expected: str, action: str) -> None:
        super().__init__(code, str(code), found=found, expected=expected, hint=action)
        self.found = found
        self.expected = expected
        self.action = action


def refuse(code: Code, found: str, expected: str, action: str) -> NoReturn:
    raise EvidenceRefused(code, found=found, expected=expected, action=action)
