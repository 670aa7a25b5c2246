"""AMD SEV-SNP and AWS Nitro in the three stages: `enclave_app.appraise` reads and verifies, refusals are told as here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from enclave_app.appraise.claims import Claims
from enclave_app.appraise.errors import Code as EvidenceCode
from enclave_app.appraise.errors import EvidenceRefused, refuse
from enclave_app.appraise.nitro import NitroClaims, NitroDocument, parse_document, verify_document
from enclave_app.appraise.snp import SnpClaims, SnpEndorsements, SnpReport, parse_report, verify_report
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.measurement import SNP_REGISTERS
from oracle.attestation.claims import Verified
from oracle.attestation.errors import AttestationError, Code, EvidenceError, VerificationError
from oracle.attestation.types import Tee


def parse_snp(tee: Tee, evidence: bytes) -> SnpReport:
    """Raises EvidenceError."""
    with _told_as(EvidenceError):
        return parse_report(evidence)


def parse_nitro(tee: Tee, evidence: bytes) -> NitroDocument:
    """Raises EvidenceError."""
    with _told_as(EvidenceError):
        return parse_document(evidence)


def verify_snp(report: SnpReport, endorsements: SnpEndorsements, root_der: bytes, now: int) -> Verified:
    """Raises VerificationError."""
    with _told_as(VerificationError):
        claims = verify_report(report, endorsements, sha256(root_der), now)
    return _verified(claims, snp_registers(report), snp=claims)


def verify_nitro(document: NitroDocument, root_der: bytes, now: int) -> Verified:
    """Raises VerificationError."""
    with _told_as(VerificationError):
        claims = verify_document(document, sha256(root_der), now)
    return _verified(claims, nitro_registers(document), nitro=claims)


def carried(parsed: SnpReport | NitroDocument, certificates: Sequence[bytes]) -> tuple[bytes, SnpEndorsements | None]:
    """The root (DER) that evidence brings along, unverified, and what `verify` takes beside it. `certificates` are those of
    `Evidence.endorsements`: three for a report, none for a document. Raises VerificationError."""
    with _told_as(VerificationError):
        if isinstance(parsed, SnpReport):
            endorsements = SnpEndorsements.of(certificates)
            return endorsements.ark, endorsements
        if certificates:
            refuse(EvidenceCode.CERTIFICATE_CHAIN, "certificates beside a document", "none", "send the document alone")
        return parsed.cabundle[0], None


def snp_registers(report: SnpReport) -> dict[str, bytes]:
    return {name: report.raw[offset : offset + size] for name, offset, size in SNP_REGISTERS}


def nitro_registers(document: NitroDocument) -> dict[str, bytes]:
    return {f"pcr{index}": value for index, value in sorted(document.pcrs.items())}


def _verified(
    claims: Claims, registers: Mapping[str, bytes], *, snp: SnpClaims | None = None, nitro: NitroClaims | None = None
) -> Verified:
    return Verified(
        tee=claims.tee,
        measurement=claims.measurement,
        registers=registers,
        report_data=claims.report_data,
        root=claims.root,
        platform=claims.platform,
        svn_digest=claims.svn_digest,
        collateral=claims.collateral,
        verified_at=claims.verified_at,
        valid_until=claims.valid_until,
        snp=snp,
        nitro=nitro,
    )


@contextmanager
def _told_as(kind: type[AttestationError]) -> Iterator[None]:
    try:
        yield
    except EvidenceRefused as error:
        raise kind(Code(error.code), found=error.found, expected=error.expected, action=error.action) from error
