"""AMD SEV-SNP: a report held against the certificates of the key that signed it.

Sources: AMD SEV Secure Nested Paging Firmware ABI Specification (56860); AMD Versioned Chip Endorsement Key Certificate and
KDS Interface Specification (57230), certificate extensions. Roots of AMD's are pinned by whoever calls, by digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enclave_app.appraise.certificates import (
    SHA384,
    basic_constraints,
    check_issued,
    check_revocation,
    check_time,
    common_name,
    read_certificate,
    window,
)
from enclave_app.appraise.claims import Claims, digest_of, svn_digest
from enclave_app.appraise.errors import Code, refuse
from enclave_app.appraise.snp_report import SIGNED_BYTES, Signer, SnpReport, parse_report
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.structs import Tee

__all__ = ["LINES", "Line", "Signer", "SnpClaims", "SnpEndorsements", "SnpReport", "parse_report", "verify_report"]

_OID: Final = "1.3.6.1.4.1.3704.1."
_STRUCTURE, _PRODUCT, _HWID, _CSP = (x509.ObjectIdentifier(_OID + end) for end in ("1", "2", "4", "5"))
_SPL: Final = {
    "bootloader": x509.ObjectIdentifier(_OID + "3.1"),
    "tee": x509.ObjectIdentifier(_OID + "3.2"),
    "snp": x509.ObjectIdentifier(_OID + "3.3"),
    "microcode": x509.ObjectIdentifier(_OID + "3.8"),
    "fmc": x509.ObjectIdentifier(_OID + "3.9"),
}
_RESERVED_SPL: Final = tuple(x509.ObjectIdentifier(f"{_OID}3.{end}") for end in (4, 5, 6, 7))
_NO_AGENT: Final = (bytes(32), b"\xff" * 32)
_ENDORSEMENT_NAMES: Final = {Signer.VCEK: "SEV-VCEK", Signer.VLEK: "SEV-VLEK"}


@dataclass(frozen=True)
class Line:
    """One generation of processors: how its certificates are named, and what the 8 bytes of a TCB mean.

    `tcb` maps a component to its byte; the other bytes are reserved. `chip_id` is how many bytes of CHIP_ID there are.
    """

    name: str
    families: tuple[tuple[int, range], ...]
    tcb: tuple[tuple[str, int], ...]
    chip_id: int
    structure: int

    def components(self, tcb: bytes) -> dict[str, int]:
        return {name: tcb[offset] for name, offset in self.tcb}

    def reserved(self, tcb: bytes) -> bytes:
        return bytes(each for offset, each in enumerate(tcb) if offset not in dict(self.tcb).values())


_BEFORE_TURIN: Final = (("bootloader", 0), ("tee", 1), ("snp", 6), ("microcode", 7))
_TURIN: Final = (("fmc", 0), ("bootloader", 1), ("tee", 2), ("snp", 3), ("microcode", 7))
LINES: Final = {
    line.name: line
    for line in (
        Line("Milan", ((0x19, range(0x00, 0x10)),), _BEFORE_TURIN, 64, 0),
        # 0xA0: Bergamo and Siena, whose certificates are Genoa's.
        Line("Genoa", ((0x19, range(0x10, 0x20)), (0x19, range(0xA0, 0xB0))), _BEFORE_TURIN, 64, 0),
        Line("Turin", ((0x1A, range(0x00, 0x20)),), _TURIN, 8, 1),
    )
}


@dataclass(frozen=True)
class SnpEndorsements:
    """DER: the endorsement key's certificate (VCEK or VLEK), AMD's signing key and root; perhaps the root's CRL."""

    ek: bytes
    ask: bytes
    ark: bytes
    crl: bytes | None = None

    @classmethod
    def of(cls, documents: Sequence[bytes]) -> SnpEndorsements:
        """As evidence carries them: ek, ask, ark. Raises EvidenceRefused."""
        if len(documents) != 3:
            refuse(Code.CERTIFICATE_CHAIN, f"{len(documents)} certificates", "three: ek, ask, ark", "send all of them")
        return cls(*documents)

    @property
    def digest(self) -> bytes:
        """32 bytes: what a verdict rests on."""
        return digest_of((self.ek, self.ask, self.ark, *([] if self.crl is None else [self.crl])))


@dataclass(frozen=True)
class SnpClaims(Claims):
    """`tcb` has, by component, the least that the reported, committed, current and launch TCB all reach.

    `csp` names the provider whose VLEK signed. `chip_masked`: the host hides the chip's id, so `platform` is zero.
    """

    report: SnpReport
    line: Line
    tcb: dict[str, int]
    csp: str | None
    chip_masked: bool


def verify_report(report: SnpReport, endorsements: SnpEndorsements, root: bytes, now: int) -> SnpClaims:
    """Check everything that cryptography and `now` (unix seconds) decide. `root` is SHA-256 of the accepted ARK. Pure.

    Raises EvidenceRefused.
    """
    # A debug guest's memory is the host's to read: to R4 it is no enclave.
    if report.policy.debug:
        refuse(
            Code.DEBUG_ENCLAVE, "a guest policy that allows debugging", "bit 19 off", "launch it with another policy"
        )
    # R4
    if hashlib.sha256(endorsements.ark).digest() != root:
        found = hashlib.sha256(endorsements.ark).hexdigest()
        refuse(
            Code.ROOT_MISMATCH, f"root {found}", root.hex(), "send the maker's own root, or accept this one knowingly"
        )
    ek, ask, ark = (
        read_certificate(der, name)
        for der, name in ((endorsements.ek, "the EK"), (endorsements.ask, "the ASK"), (endorsements.ark, "the ARK"))
    )
    line = _line(ark)
    _check_chain(report, line, ek, ask, ark)
    windows = [window(each) for each in (ek, ask, ark)]
    if endorsements.crl is not None:
        windows.append(check_revocation(endorsements.crl, ark, ask))
    check_time(windows, now)
    _check_signature(report, ek)
    _check_processor(report, line)
    _check_key(report, line, ek)
    tcbs = (report.reported_tcb, report.committed_tcb, report.current_tcb, report.launch_tcb)
    levels = [line.components(tcb) for tcb in tcbs]
    return SnpClaims(
        tee=Tee.SNP,
        measurement=report.measurement,
        report_data=report.report_data,
        root=root,
        # R5: of a masked chip id everyone has the same, and no agreement can list zero.
        platform=hashlib.sha256(report.chip_id).digest() if any(report.chip_id) else ZERO32,
        # With what issued the key: where AMD revokes that, a challenge must not reach the keys of another issuer.
        svn_digest=svn_digest(Tee.SNP, hashlib.sha256(ask.tbs_certificate_bytes).digest(), line.name.encode(), *tcbs),
        collateral=endorsements.digest,
        verified_at=now,
        valid_until=min(each.end for each in windows),
        report=report,
        line=line,
        tcb={name: min(level[name] for level in levels) for name, _ in line.tcb},
        csp=_text(ek, _CSP) if report.signer is Signer.VLEK else None,
        chip_masked=not any(report.chip_id),
    )


def _line(ark: x509.Certificate) -> Line:
    name = common_name(ark.subject)
    line = LINES.get(name.removeprefix("ARK-"))
    if line is None or name != f"ARK-{line.name}":
        refuse(Code.PRODUCT_MISMATCH, f"root {name!r}", "ARK-" + ", ARK-".join(LINES), "use a processor of these lines")
    return line


def _check_chain(
    report: SnpReport, line: Line, ek: x509.Certificate, ask: x509.Certificate, ark: x509.Certificate
) -> None:
    key = _ENDORSEMENT_NAMES[report.signer]
    wanted = f"SEV-VLEK-{line.name}" if report.signer is Signer.VLEK else f"SEV-{line.name}"
    for certificate, name in ((ek, key), (ask, wanted)):
        if common_name(certificate.subject) != name:
            refuse(
                Code.CERTIFICATE_CHAIN,
                f"a certificate of {common_name(certificate.subject)!r}",
                f"one of {name!r}, as this report's key and root call for",
                "send the endorsements of this report",
            )
    check_issued(ark, ark, "the ARK")
    check_issued(ask, ark, "the ASK")
    check_issued(ek, ask, "the EK")
    constraints = basic_constraints(ek)
    if constraints is not None and constraints.ca:
        refuse(Code.CERTIFICATE_CHAIN, "an endorsement key that is a CA", "an end entity", "send the endorsement key")


def _check_signature(report: SnpReport, ek: x509.Certificate) -> None:
    key = ek.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        refuse(Code.CERTIFICATE_CHAIN, "an endorsement key of another kind", "ECDSA P-384", "send the VCEK or VLEK")
    try:
        key.verify(encode_dss_signature(*report.signature), report.raw[:SIGNED_BYTES], ec.ECDSA(SHA384))
    except InvalidSignature:
        refuse(
            Code.REPORT_SIGNATURE,
            "a report that this endorsement key did not sign",
            "its signature over the first 0x2A0 bytes",
            "send the report unchanged, with the certificate of its own chip and TCB",
        )


def _check_processor(report: SnpReport, line: Line) -> None:
    """From version 3 on the report says which processor made it."""
    fits = any(report.family == family and report.model in models for family, models in line.families)
    if report.version >= 3 and not fits:
        refuse(
            Code.PRODUCT_MISMATCH,
            f"family 0x{report.family:x}, model 0x{report.model:x}",
            f"a {line.name} processor",
            "send the endorsements of this processor",
        )
    for tcb in (report.reported_tcb, report.committed_tcb, report.current_tcb, report.launch_tcb):
        if any(line.reserved(tcb)):
            refuse(Code.REPORT_RESERVED_BYTES, f"TCB {tcb.hex()}", "zeros in reserved bytes", "update this verifier")
    if any(report.chip_id[line.chip_id :]):
        refuse(Code.REPORT_RESERVED_BYTES, "a longer chip id", f"{line.chip_id} bytes", "update this verifier")
    # A report says which agent may move the guest, if one may.
    if not report.policy.migration_agent and report.report_id_ma not in _NO_AGENT:
        refuse(Code.REPORT_RESERVED_BYTES, "a migration agent's id", "none, as the policy says", "check the report")


def _check_key(report: SnpReport, line: Line, ek: x509.Certificate) -> None:
    """57230, certificate extensions: the key is derived from exactly the TCB that the report names, on that chip."""
    if _integer(ek, _STRUCTURE) != line.structure:
        refuse(
            Code.PRODUCT_MISMATCH,
            "another structure version",
            f"{line.structure}",
            "send the endorsements of this chip",
        )
    product = _text(ek, _PRODUCT)
    # "Milan-B0" names the stepping as well.
    if product.split("-")[0] != line.name:
        refuse(
            Code.PRODUCT_MISMATCH, f"an endorsement key of {product!r}", line.name, "send the endorsements of this chip"
        )
    found = {name: _integer(ek, _SPL[name]) for name, _ in line.tcb}
    stray = [oid for oid in _RESERVED_SPL if _has(ek, oid) and _integer(ek, oid) != 0]
    if found != line.components(report.reported_tcb) or stray:
        refuse(
            Code.TCB_MISMATCH,
            f"an endorsement key for TCB {found}",
            f"one for the reported {line.components(report.reported_tcb)}",
            "fetch the endorsement key of the reported TCB",
        )
    if report.signer is Signer.VLEK:
        if _has(ek, _HWID) or not _text(ek, _CSP):
            refuse(Code.CHIP_MISMATCH, "a VLEK with a chip id, or without a provider", "a provider", "send the VLEK")
        return
    if _has(ek, _CSP) or _hwid(ek) != report.chip_id[: line.chip_id]:
        refuse(
            Code.CHIP_MISMATCH,
            "an endorsement key of another chip",
            f"one of {report.chip_id[: line.chip_id].hex()}",
            "send the endorsements of this chip, and let the host not mask its id",
        )


def _has(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bool:
    return any(each.oid == oid for each in certificate.extensions)


def _value(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes:
    for each in certificate.extensions:
        if each.oid == oid and isinstance(each.value, x509.UnrecognizedExtension):
            return each.value.value
    refuse(
        Code.CERTIFICATE_FORMAT, f"an endorsement key without {oid.dotted_string}", "AMD's extensions", "fetch it again"
    )


def _integer(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> int:
    """A DER INTEGER from 0 to 255."""
    value = _value(certificate, oid)
    number = value[-1] if value else 0
    if value != (b"\x02\x01" if number < 0x80 else b"\x02\x02\x00") + bytes([number]):
        refuse(
            Code.CERTIFICATE_FORMAT, f"{value.hex()} as {oid.dotted_string}", "an INTEGER up to 255", "fetch it again"
        )
    return number


def _text(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    """A DER IA5String of at most 127 characters."""
    value = _value(certificate, oid)
    if len(value) < 2 or value[0] != 0x16 or value[1] != len(value) - 2 or len(value) > 129 or not value.isascii():
        refuse(Code.CERTIFICATE_FORMAT, f"{value.hex()} as {oid.dotted_string}", "an IA5String", "fetch it again")
    return value[2:].decode("ascii")


def _hwid(certificate: x509.Certificate) -> bytes:
    """The chip's id: bare in most certificates, inside an OCTET STRING in some."""
    value = _value(certificate, _HWID)
    if len(value) in (10, 66) and value[:2] == bytes([0x04, len(value) - 2]):
        return value[2:]
    return value
