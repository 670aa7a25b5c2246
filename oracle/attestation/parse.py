"""First stage: bytes to typed evidence. Pure; trusts nothing and proves nothing."""

from __future__ import annotations

from oracle.attestation.errors import Code, EvidenceError
from oracle.attestation.quote import ParsedQuote, parse_quote
from oracle.attestation.types import Tee

PARSERS = {Tee.SGX: parse_quote, Tee.TDX: parse_quote}


def parse_evidence(tee: int, evidence: bytes) -> ParsedQuote:
    """Parse what an enclave of TEE kind `tee` (1 SGX, 2 TDX) returned. Raises EvidenceError."""
    kind = next((known for known in PARSERS if known == tee), None)
    if kind is None:
        raise EvidenceError(
            Code.TEE_UNSUPPORTED,
            found=f"TEE kind {tee}",
            expected=", ".join(f"{each.value} ({each.name})" for each in PARSERS),
            action="use a worker of a supported kind",
        )
    return PARSERS[kind](kind, evidence)
