"""First stage: bytes to typed evidence. Pure; trusts nothing and proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from enclave_app.appraise.nitro import NitroDocument
from enclave_app.appraise.snp import SnpReport
from oracle.attestation.errors import Code, EvidenceError
from oracle.attestation.quote import ParsedQuote, parse_quote
from oracle.attestation.snp_nitro import parse_nitro, parse_snp
from oracle.attestation.types import Tee

Parsed: TypeAlias = ParsedQuote | SnpReport | NitroDocument

PARSERS: Final[dict[Tee, Callable[[Tee, bytes], Parsed]]] = {
    Tee.SGX: parse_quote,
    Tee.TDX: parse_quote,
    Tee.SNP: parse_snp,
    Tee.NITRO: parse_nitro,
}


def parse_evidence(tee: int, evidence: bytes) -> Parsed:
    """Parse what an enclave of TEE kind `tee` (1 SGX, 2 TDX, 3 SNP, 4 Nitro) returned. Raises EvidenceError."""
    kind = next((known for known in PARSERS if known == tee), None)
    if kind is None:
        raise _unsupported(tee, tuple(PARSERS))
    return PARSERS[kind](kind, evidence)


def parse_dcap(tee: int, evidence: bytes) -> ParsedQuote:
    """The same where only Intel's evidence will do. Raises EvidenceError."""
    if tee not in (Tee.SGX, Tee.TDX):
        raise _unsupported(tee, (Tee.SGX, Tee.TDX))
    return parse_quote(Tee(tee), evidence)


def _unsupported(tee: int, kinds: tuple[Tee, ...]) -> EvidenceError:
    return EvidenceError(
        Code.TEE_UNSUPPORTED,
        found=f"TEE kind {tee}",
        expected=", ".join(f"{each.value} ({each.name})" for each in kinds),
        action="use a worker of a supported kind",
    )
