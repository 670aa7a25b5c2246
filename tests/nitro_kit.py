"""AWS Nitro as AWS makes it, minted: a root, three CAs, a signing certificate of three hours, and signed documents."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = 1_800_000_000
HOUR = 3_600
DAY = 24 * HOUR
PROTECTED = bytes.fromhex("a1013822")  # {1: -35}: ES384


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class Link:
    """One certificate of the chain. The last one, `ca` False, signs documents."""

    name: str
    ca: bool
    path: int | None
    start: int
    end: int
    key: ec.EllipticCurvePrivateKey = field(default_factory=key)
    usage: bool = True
    cert_sign: bool | None = None
    constraints: bool = True

    def but(self, **changes: object) -> Link:
        return replace(self, **changes)  # type: ignore[arg-type]


def links(now: int = NOW) -> list[Link]:
    """As AWS has them, root first."""
    return [
        Link("aws.nitro-enclaves", True, None, now - 1000 * DAY, now + 10_000 * DAY),
        Link("region", True, 2, now - DAY, now + 20 * DAY),
        Link("zone", True, 1, now - DAY, now + 5 * DAY),
        Link("instance", True, 0, now - HOUR, now + DAY),
        Link("enclave", False, None, now - 3, now + 3 * HOUR),
    ]


def chain(of: Sequence[Link]) -> list[bytes]:
    """DER, root first."""
    return [certificate(link, of[max(index - 1, 0)]) for index, link in enumerate(of)]


def certificate(link: Link, issuer: Link) -> bytes:
    builder = x509.CertificateBuilder(
        _name(issuer.name), _name(link.name), link.key.public_key(), 7, _moment(link.start), _moment(link.end)
    )
    if link.constraints:
        builder = builder.add_extension(x509.BasicConstraints(link.ca, link.path if link.ca else None), True)
    cert_sign = link.ca if link.cert_sign is None else link.cert_sign
    if link.usage:
        usage = x509.KeyUsage(not link.ca, False, False, False, False, cert_sign, link.ca, False, False)
        builder = builder.add_extension(usage, link.ca)
    return builder.sign(issuer.key, hashes.SHA384()).public_bytes(Encoding.DER)


def root_of(certificates: Sequence[bytes]) -> bytes:
    return hashlib.sha256(certificates[0]).digest()


def pcr(text: str) -> bytes:
    return hashlib.sha384(text.encode()).digest()


def content(certificates: Sequence[bytes], **fields: Any) -> dict[str, Any]:
    """What a document says; a field given as `...` is left out."""
    found: dict[str, Any] = {
        "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
        "digest": "SHA384",
        "timestamp": NOW * 1000 + 123,
        "pcrs": {index: pcr(f"{index}") if index < 5 else bytes(48) for index in range(16)},
        "certificate": certificates[-1],
        "cabundle": list(certificates[:-1]),
        "public_key": None,
        "user_data": bytes(range(64)),
        "nonce": None,
        **fields,
    }
    return {name: value for name, value in found.items() if value is not ...}


def sign(payload: bytes, signer: ec.EllipticCurvePrivateKey, *, protected: bytes = PROTECTED, unprotected: object = None,
         tagged: bool = False) -> bytes:  # fmt: skip
    """A COSE_Sign1 message around `payload`."""
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    r, s = decode_dss_signature(signer.sign(signed, ec.ECDSA(hashes.SHA384())))
    message = [
        protected,
        {} if unprotected is None else unprotected,
        payload,
        r.to_bytes(48, "big") + s.to_bytes(48, "big"),
    ]
    return cbor2.dumps(cbor2.CBORTag(18, message) if tagged else message)


def document(of: Sequence[Link], **fields: Any) -> tuple[bytes, bytes]:
    """A signed document under a chain made for it, and its root's digest."""
    certificates = chain(of)
    return sign(cbor2.dumps(content(certificates, **fields)), of[-1].key), root_of(certificates)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
