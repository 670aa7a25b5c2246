"""Certificates as AMD and AWS issue them: read, held against their issuer, and the time in which they hold (RFC 5280)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from enclave_app.appraise.errors import Code, refuse

MAX_CERTIFICATE: Final = 8 * 1024
SHA384: Final = hashes.SHA384()
PSS_SHA384: Final = padding.PSS(padding.MGF1(SHA384), SHA384.digest_size)
MIN_RSA_BITS: Final = 2048
# What this module or its callers judge; any other critical extension refuses.
UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)


class Window(NamedTuple):
    """Valid from `start` on, and no longer at `end`; unix seconds."""

    start: int
    end: int


def read_certificate(der: bytes, name: str) -> x509.Certificate:
    """One certificate in DER, with extensions that this program understands. Raises EvidenceRefused."""
    if len(der) > MAX_CERTIFICATE:
        refuse(Code.CERTIFICATE_FORMAT, f"{len(der)} bytes as {name}", f"at most {MAX_CERTIFICATE}", "send DER")
    try:
        with warnings.catch_warnings():
            # AMD gives every endorsement key the serial number 0.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            # Each of these is read only when it is asked for, and can fail.
            extensions = list(certificate.extensions)
            certificate.public_key()
            window(certificate)
            common_name(certificate.subject), common_name(certificate.issuer)
            sealed = _sealed_once(der, certificate.tbs_certificate_bytes, certificate.signature)
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm) as cause:
        refuse(
            Code.CERTIFICATE_FORMAT, f"an unreadable {name} ({cause})", "one X.509 certificate in DER", "fetch it again"
        )
    if not sealed:
        refuse(
            Code.CERTIFICATE_FORMAT, f"two signature algorithms in {name}", "one, inside and outside", "fetch it again"
        )
    strange = [each.oid.dotted_string for each in extensions if each.critical and each.oid not in UNDERSTOOD]
    if strange:
        refuse(
            Code.CERTIFICATE_FORMAT,
            f"critical extension {strange[0]} of {name}",
            "only known ones",
            "update this verifier",
        )
    return certificate


def common_name(name: x509.Name) -> str:
    """The one common name, or an empty string."""
    found = [each.value for each in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return str(found[0]) if len(found) == 1 else ""


def check_issued(certificate: x509.Certificate, issuer: x509.Certificate, name: str) -> None:
    """`issuer` is a CA that signed `certificate`. Raises EvidenceRefused."""
    if certificate.issuer.public_bytes() != issuer.subject.public_bytes():
        refuse(
            Code.CERTIFICATE_CHAIN,
            f"{name}, issued by {common_name(certificate.issuer)!r}",
            f"one issued by {common_name(issuer.subject)!r}",
            "send the chain that belongs together",
        )
    if not may_issue(issuer):
        refuse(
            Code.CERTIFICATE_CHAIN, f"an issuer of {name} that is no CA", "keyCertSign and CA", "send the maker's chain"
        )
    if not signed_by(
        issuer, certificate.signature_algorithm_oid, certificate.signature, certificate.tbs_certificate_bytes
    ):
        refuse(
            Code.CERTIFICATE_CHAIN,
            f"{name} with a wrong signature",
            "its issuer's",
            "send the chain that belongs together",
        )


def may_issue(certificate: x509.Certificate) -> bool:
    """RFC 5280, 4.2.1.3 and 4.2.1.9."""
    constraints, usage = basic_constraints(certificate), key_usage(certificate)
    return constraints is not None and constraints.ca and usage is not None and usage.key_cert_sign


def signed_by(issuer: x509.Certificate, algorithm: x509.ObjectIdentifier, signature: bytes, data: bytes) -> bool:
    """As AMD signs (RSASSA-PSS, SHA-384, a salt of 48 bytes) or AWS (ECDSA P-384, SHA-384); nothing else counts."""
    key = issuer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm == SignatureAlgorithmOID.RSASSA_PSS:
            if key.key_size < MIN_RSA_BITS:
                return False
            key.verify(signature, data, PSS_SHA384, SHA384)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm == SignatureAlgorithmOID.ECDSA_WITH_SHA384:
            if not isinstance(key.curve, ec.SECP384R1):
                return False
            key.verify(signature, data, ec.ECDSA(SHA384))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def basic_constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def check_revocation(crl_der: bytes, issuer: x509.Certificate, certificate: x509.Certificate) -> Window:
    """The list's own window, when `issuer` signed it and it does not name `certificate`.

    Raises EvidenceRefused.
    """
    try:
        crl = x509.load_der_x509_crl(crl_der)
        start, end = crl.last_update_utc, crl.next_update_utc
        strange = [each.oid.dotted_string for each in crl.extensions if each.critical]
        revoked = {entry.serial_number: list(entry.extensions) for entry in crl}
        algorithm, signature, signed = crl.signature_algorithm_oid, crl.signature, crl.tbs_certlist_bytes
        issued_by = crl.issuer.public_bytes()
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm) as cause:
        refuse(Code.REVOCATION_LIST, f"an unreadable list ({cause})", "a CRL in DER", "fetch it again from the maker")
    critical = any(each.critical for extensions in revoked.values() for each in extensions)
    if end is None or strange or critical or not _sealed_once(crl_der, signed, signature):
        refuse(
            Code.REVOCATION_LIST, "an open-ended list, or critical extensions", "nextUpdate and none", "fetch it again"
        )
    if issued_by != issuer.subject.public_bytes() or not signed_by(issuer, algorithm, signature, signed):
        refuse(
            Code.REVOCATION_LIST,
            "a list that another signed",
            f"{common_name(issuer.subject)}'s",
            "fetch it from the maker",
        )
    if certificate.serial_number in revoked:
        refuse(
            Code.CERTIFICATE_REVOKED,
            f"{common_name(certificate.subject)}, which its issuer revoked",
            "one that is not on the list",
            "use another platform",
        )
    return Window(int(start.timestamp()), int(end.timestamp()))


def _sealed_once(der: bytes, signed: bytes, signature: bytes) -> bool:
    """RFC 5280, 4.1.1.2: the algorithm beside a signature is the signed one, so that no byte of `der` is anyone's to choose."""
    size = len(signature) + 1
    bits = bytes(
        [0x03, *([size] if size < 0x80 else [0x81, size] if size < 0x100 else [0x82, size >> 8, size & 0xFF]), 0]
    )
    start = der.find(signed) + len(signed)
    outer = der[start : len(der) - len(bits) - len(signature)]
    return der.endswith(bits + signature) and outer in signed


def window(certificate: x509.Certificate) -> Window:
    return Window(int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp()))


def check_time(windows: Iterable[Window], now: int) -> None:
    """Raises EvidenceRefused when one of them does not hold at `now` (unix seconds)."""
    for each in windows:
        if now >= each.end:
            refuse(Code.COLLATERAL_EXPIRED, f"a certificate or list that ended at {each.end}", f"one that holds at {now}",
                   "fetch newer endorsements, or newer evidence")  # fmt: skip
        if now < each.start:
            refuse(Code.COLLATERAL_NOT_YET_VALID, f"a certificate, list or document of {each.start}", f"one that holds at {now}",
                   "check the clock")  # fmt: skip
