"""SEV-SNP as AMD makes it, minted: a root, signing keys, endorsement keys with AMD's extensions, and signed reports.

Under a root of its own, so nothing here passes for AMD's. RSA keys are shorter than AMD's, for speed.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from enclave_app.appraise.snp import LINES, SnpEndorsements

NOW = 1_800_000_000
DAY = 86_400
YEAR = 365 * DAY
OID = "1.3.6.1.4.1.3704.1."
SPL_OIDS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
PROCESSORS = {"Milan": (0x19, 0x01, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 0x02, 1)}
TCB = {"fmc": 1, "bootloader": 4, "tee": 2, "snp": 24, "microcode": 219}
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)


def raw_tcb(line: str, levels: Mapping[str, int] = TCB) -> bytes:
    raw = bytearray(8)
    for name, offset in LINES[line].tcb:
        raw[offset] = levels[name]
    return bytes(raw)


def der_integer(number: int) -> bytes:
    return b"\x02\x01" + bytes([number]) if number < 0x80 else b"\x02\x02\x00" + bytes([number])


def ia5(text: str) -> bytes:
    return bytes([0x16, len(text)]) + text.encode()


@dataclass(frozen=True)
class Validity:
    start: int = NOW - YEAR
    end: int = NOW + YEAR


@dataclass
class Authority:
    """AMD's part for one processor line, or VLEKs of a provider."""

    line: str = "Milan"
    vlek: bool = False
    ark_name: str | None = None
    ark_issuer: str | None = None
    ask_name: str | None = None
    ask_ca: bool = True
    ask_serial: int = 65537
    digest: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA384)
    ark_validity: Validity = Validity()
    ask_validity: Validity = Validity()
    ark_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    ask_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @cached_property
    def ark(self) -> bytes:
        name = self.ark_name or f"ARK-{self.line}"
        return certificate(
            name, self.ark_issuer or name, self.ark_key.public_key(), self.ark_key, self.ark_validity, 65536, ca=True
        )

    @cached_property
    def ask(self) -> bytes:
        name = self.ask_name or (f"SEV-VLEK-{self.line}" if self.vlek else f"SEV-{self.line}")
        return certificate(
            name, subject(self.ark), self.ask_key.public_key(), self.ark_key, self.ask_validity, self.ask_serial,
            ca=self.ask_ca, digest=self.digest,
        )  # fmt: skip

    @property
    def root(self) -> bytes:
        """The trust anchor's digest."""
        return hashlib.sha256(self.ark).digest()

    def crl(self, *revoked: int, start: int = NOW - DAY, end: int = NOW + DAY) -> bytes:
        builder = x509.CertificateRevocationListBuilder(name(subject(self.ark)), moment(start), moment(end))
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder(serial, moment(start)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.ark_key, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)

    def chip(self, chip_id: bytes | None = None) -> Chip:
        length = LINES[self.line].chip_id
        found = hashlib.sha512(b"a chip").digest()[:length] if chip_id is None else chip_id
        return Chip(self, bytes(64) if self.vlek else found.ljust(64, b"\0"))


@dataclass(frozen=True)
class Chip:
    """A processor with its endorsement key, derived for `levels`. What is None is as AMD would have it."""

    authority: Authority
    chip_id: bytes
    levels: Mapping[str, int] = field(default_factory=lambda: TCB)
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    validity: Validity = Validity()
    subject_name: str | None = None
    issuer_name: str | None = None
    extensions: Mapping[str, bytes | None] = field(default_factory=dict)
    critical: tuple[str, ...] = ()
    ca: bool | None = None

    @cached_property
    def ek(self) -> bytes:
        of = self.authority
        found: dict[str, bytes | None] = {
            "1": der_integer(LINES[of.line].structure),
            "2": ia5(of.line if of.vlek or of.line != "Milan" else "Milan-B0"),
            **{SPL_OIDS[name]: der_integer(self.levels[name]) for name, _ in LINES[of.line].tcb},
            **{f"3.{end}": der_integer(0) for end in (4, 5, 6, 7)},
            **({"5": ia5("CN=provider")} if of.vlek else {"4": self.chip_id[: LINES[of.line].chip_id]}),
            **self.extensions,
        }
        name_ = self.subject_name or ("SEV-VLEK" if of.vlek else "SEV-VCEK")
        return certificate(
            name_, self.issuer_name or subject(of.ask), self.key.public_key(), of.ask_key, self.validity, 77,
            extensions={end: value for end, value in found.items() if value is not None}, critical=self.critical, ca=self.ca,
        )  # fmt: skip

    @property
    def endorsements(self) -> SnpEndorsements:
        return SnpEndorsements(self.ek, self.authority.ask, self.authority.ark)

    def report(self, report_data: bytes = bytes(64), version: int = 3, at: Mapping[int, bytes] | None = None) -> bytes:
        """A signed report, with `at`'s bytes at those offsets."""
        line = self.authority.line
        tcb = raw_tcb(line, self.levels)
        raw = bytearray(1184)
        put(raw, 0x00, version.to_bytes(4, "little"))
        put(raw, 0x08, (0x30000).to_bytes(8, "little"))
        put(raw, 0x34, b"\x01")
        put(raw, 0x40, b"\x25")
        put(raw, 0x48, bytes([0x04 if self.authority.vlek else 0x00]))
        put(raw, 0x50, report_data)
        put(raw, 0x90, hashlib.sha384(b"a guest").digest())
        put(raw, 0x160, b"\xff" * 32)
        if version >= 3:
            put(raw, 0x188, bytes(PROCESSORS[line]))
        put(raw, 0x1A0, self.chip_id)
        for offset in (0x38, 0x180, 0x1E0, 0x1F0):
            put(raw, offset, tcb)
        for offset, value in (at or {}).items():
            put(raw, offset, value)
        return self.sign(bytes(raw))

    def sign(self, raw: bytes) -> bytes:
        r, s = decode_dss_signature(self.key.sign(raw[:0x2A0], ec.ECDSA(hashes.SHA384())))
        return raw[:0x2A0] + r.to_bytes(72, "little") + s.to_bytes(72, "little") + raw[0x2A0 + 144 :]

    def but(self, **changes: object) -> Chip:
        return replace(self, **changes)  # type: ignore[arg-type]


def put(raw: bytearray, offset: int, value: bytes) -> None:
    raw[offset : offset + len(value)] = value


def moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def subject(der: bytes) -> str:
    found = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value)


def certificate(
    common: str,
    issuer: str,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    signer: rsa.RSAPrivateKey,
    validity: Validity,
    serial: int,
    *,
    ca: bool | None = None,
    extensions: Mapping[str, bytes] | None = None,
    critical: tuple[str, ...] = (),
    digest: hashes.SHA256 | hashes.SHA384 | None = None,
) -> bytes:
    builder = x509.CertificateBuilder(
        name(issuer), name(common), key, serial, moment(validity.start), moment(validity.end)
    )
    if ca is not None:
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True).add_extension(usage, True)
    for end, value in (extensions or {}).items():
        oid = x509.ObjectIdentifier(OID + end)
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), end in critical)
    digest = digest or hashes.SHA384()
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return builder.sign(signer, digest, rsa_padding=pss).public_bytes(Encoding.DER)
