"""X.509 pieces of a development root: issuers, certificates and revocation lists, shaped like Intel's.

Source: Intel SGX PCK Certificate and CRL Profile Specification, sections 1.3 and 2 (extensions and key usages).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Window = tuple[datetime, datetime]
"""(not before, not after), in UTC with whole seconds."""


@dataclass(frozen=True)
class Issuer:
    """A P-256 key with its certificate; what it issues shares its validity."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    window: Window

    @classmethod
    def root(cls, common_name: str, window: Window) -> Issuer:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        return cls(key, _certificate(name, key, name, key, window, path_length=1), window)

    def authority(self, common_name: str) -> Issuer:
        """A subordinate CA that may issue end-entity certificates only."""
        return self._issue(common_name, path_length=0)

    def leaf(self, common_name: str, *extensions: x509.UnrecognizedExtension) -> Issuer:
        return self._issue(common_name, None, *extensions)

    def revocation_list(self, window: Window, revoked: Sequence[int] = ()) -> bytes:
        """DER of a CRL naming the serial numbers `revoked`."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(window[0])
            .next_update(window[1])
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for serial in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(window[0]).build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def _issue(self, common_name: str, path_length: int | None, *extensions: x509.UnrecognizedExtension) -> Issuer:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(
            _name(common_name), key, self.certificate.subject, self.key, self.window, path_length, *extensions
        )
        return Issuer(key, certificate, self.window)

    def __repr__(self) -> str:
        return f"Issuer({self.certificate.subject.rfc4514_string()}, key=***)"


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Enclave Oracle development"),
        ]
    )


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    window: Window,
    path_length: int | None,
    *extensions: x509.UnrecognizedExtension,
) -> x509.Certificate:
    is_ca = path_length is not None
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=not is_ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(window[0])
        .not_valid_after(window[1])
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
