"""AWS Nitro Enclaves: an attestation document, a COSE_Sign1 message, taken apart and held against AWS's root.

Sources: AWS Nitro Enclaves User Guide, "Verifying the root of trust" (document, syntax, chain and signature); RFC 9052, 4.4
(COSE_Sign1); RFC 9053, 2.1 (ES384). The root is pinned by whoever calls, by digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from enclave_app.appraise import cbor
from enclave_app.appraise.certificates import (
    SHA384,
    basic_constraints,
    check_issued,
    check_time,
    key_usage,
    read_certificate,
    window,
)
from enclave_app.appraise.claims import Claims, digest_of, svn_digest
from enclave_app.appraise.errors import Code, refuse
from enclave_app.protocol.measurement import nitro_measurement
from enclave_app.protocol.structs import Tee

MAX_DOCUMENT: Final = 32 * 1024
MAX_CHAIN: Final = 8
MAX_CERTIFICATE: Final = 1024
MAX_USER_BYTES: Final = {"public_key": 1024, "user_data": 512, "nonce": 512}
PCR_COUNT: Final = 32
PCR_SIZES: Final = (32, 48, 64)
CODE_PCRS: Final = (0, 1, 2)
INSTANCE_PCR: Final = 4

_COSE_SIGN1: Final = 0xD2
_BYTES: Final = 2
_ES384: Final = {1: -35}
_SIGNATURE_BYTES: Final = 96
_REQUIRED: Final = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})


@dataclass(frozen=True)
class NitroDocument:
    """`timestamp` is in milliseconds; certificates are DER, `cabundle` root first. `trailing` counts the zeros cut off.

    What the enclave put in is None where it put in nothing. `raw` is the message without padding.
    """

    module_id: str
    timestamp: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    protected: bytes
    payload: bytes
    signature: bytes
    trailing: int
    raw: bytes

    @property
    def measurement(self) -> bytes:
        """The 32 bytes that agreements list (R3)."""
        return nitro_measurement(self.pcrs)

    @property
    def report_data(self) -> bytes:
        """Our binding puts the 64 bytes into `user_data` (R2)."""
        return self.user_data or b""

    @property
    def debug(self) -> bool:
        """An enclave in debug mode has zeros in the registers of its code."""
        return any(not any(self.pcrs[index]) for index in CODE_PCRS)


@dataclass(frozen=True)
class NitroClaims(Claims):
    document: NitroDocument


def parse_document(evidence: bytes) -> NitroDocument:
    """Take a document apart. Zero padding behind it is cut and counted; raises EvidenceRefused for anything else there."""
    if len(evidence) > MAX_DOCUMENT:
        refuse(Code.EVIDENCE_TOO_LONG, f"{len(evidence)} bytes", f"at most {MAX_DOCUMENT}", "send the document alone")
    message, end = cbor.decode(evidence, start=1 if evidence[:1] == bytes([_COSE_SIGN1]) else 0)
    if any(evidence[end:]):
        refuse(
            Code.EVIDENCE_TRAILING_BYTES,
            f"non-zero bytes behind the document's end at {end}",
            "nothing, or zero padding",
            "send the document exactly as NSM returned it",
        )
    match message:
        case [bytes(protected), dict(unprotected), bytes(payload), bytes(signature)]:
            _check_headers(protected, unprotected, signature)
        case _:
            _malformed("another message", "COSE_Sign1: protected and unprotected header, payload, signature")
    content, payload_end = cbor.decode(payload)
    if payload_end != len(payload) or not isinstance(content, dict):
        _malformed("a payload that is not one map", "the attestation document")
    if content.keys() - MAX_USER_BYTES.keys() != _REQUIRED:
        _malformed(f"fields {sorted(map(str, content))}", f"{sorted(_REQUIRED)}, and {sorted(MAX_USER_BYTES)} or less")
    if content["digest"] != "SHA384":
        _malformed(f"digest {content['digest']!r}", "SHA384")
    return NitroDocument(
        module_id=_module_id(content["module_id"]),
        timestamp=_timestamp(content["timestamp"]),
        pcrs=_pcrs(content["pcrs"]),
        certificate=_sized(content["certificate"], "certificate", MAX_CERTIFICATE),
        cabundle=_bundle(content["cabundle"]),
        public_key=_optional(content, "public_key"),
        user_data=_optional(content, "user_data"),
        nonce=_optional(content, "nonce"),
        protected=protected,
        payload=payload,
        signature=signature,
        trailing=len(evidence) - end,
        raw=bytes(evidence[:end]),
    )


def verify_document(document: NitroDocument, root: bytes, now: int) -> NitroClaims:
    """Check everything that cryptography and `now` (unix seconds) decide. `root` is SHA-256 of the accepted root. Pure.

    Raises EvidenceRefused. A document holds for about three hours: as long as the certificate that signed it.
    """
    # A debug enclave's console is the host's to read: to R4 it is no enclave.
    if document.debug:
        refuse(
            Code.DEBUG_ENCLAVE, "zeros in PCR0, PCR1 or PCR2", "an enclave's digests", "launch it without debug mode"
        )
    # R4
    if hashlib.sha256(document.cabundle[0]).digest() != root:
        found = hashlib.sha256(document.cabundle[0]).hexdigest()
        refuse(Code.ROOT_MISMATCH, f"root {found}", root.hex(), "use AWS hardware, or accept this root knowingly")
    chain = [
        *(read_certificate(der, f"certificate {index} of the chain") for index, der in enumerate(document.cabundle)),
        read_certificate(document.certificate, "the signing certificate"),
    ]
    _check_chain(chain)
    windows = [window(each) for each in chain]
    seconds = document.timestamp // 1000
    if now < seconds:
        refuse(
            Code.COLLATERAL_NOT_YET_VALID, f"a document of {seconds}", f"one that was made by {now}", "check the clock"
        )
    # Who keeps an ended key cannot date a document back, nor forward.
    check_time(windows, seconds)
    check_time(windows, now)
    _check_signature(document, chain[-1])
    return NitroClaims(
        tee=Tee.NITRO,
        measurement=document.measurement,
        report_data=document.report_data,
        root=root,
        platform=hashlib.sha256(document.pcrs[INSTANCE_PCR]).digest(),
        svn_digest=svn_digest(Tee.NITRO),
        collateral=digest_of((*document.cabundle, document.certificate)),
        verified_at=now,
        valid_until=min(each.end for each in windows),
        document=document,
    )


def _check_chain(chain: list[x509.Certificate]) -> None:
    """RFC 5280, 6.1, for a chain that starts with a root and ends with the key that signed."""
    check_issued(chain[0], chain[0], "the root")
    for index in range(1, len(chain)):
        check_issued(chain[index], chain[index - 1], f"certificate {index} of the chain")
    for index, issuer in enumerate(chain[:-1]):
        constraints = basic_constraints(issuer)
        allowed = None if constraints is None else constraints.path_length
        below = len(chain) - 2 - index
        if allowed is not None and below > allowed:
            refuse(
                Code.CERTIFICATE_CHAIN, f"{below} CAs below one that allows {allowed}", "a chain it allows", "check it"
            )
    leaf, usage = basic_constraints(chain[-1]), key_usage(chain[-1])
    if (leaf is not None and leaf.ca) or usage is None or not usage.digital_signature:
        refuse(
            Code.CERTIFICATE_CHAIN,
            "a signing certificate that may not sign",
            "digitalSignature, no CA",
            "check the chain",
        )


def _check_signature(document: NitroDocument, leaf: x509.Certificate) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        refuse(Code.CERTIFICATE_CHAIN, "a signing key of another kind", "ECDSA P-384", "send AWS's document")
    half = _SIGNATURE_BYTES // 2
    r, s = (int.from_bytes(part, "big") for part in (document.signature[:half], document.signature[half:]))
    # RFC 9052, 4.4: ["Signature1", protected, external_aad, payload]
    signed = b"\x84\x6aSignature1" + _string(document.protected) + _string(b"") + _string(document.payload)
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA384))
    except InvalidSignature:
        refuse(
            Code.DOCUMENT_SIGNATURE,
            "a document that its certificate did not sign",
            "its signature over header and payload",
            "send the document unchanged",
        )


def _string(data: bytes) -> bytes:
    return cbor.head(_BYTES, len(data)) + data


def _check_headers(protected: bytes, unprotected: dict[int | str, cbor.Value], signature: bytes) -> None:
    header, end = cbor.decode(protected)
    if header != _ES384 or end != len(protected) or unprotected:
        refuse(
            Code.DOCUMENT_HEADER,
            f"protected header {protected.hex()}, {len(unprotected)} unprotected fields",
            "algorithm ES384, and nothing else",
            "send the document as NSM returned it",
        )
    if len(signature) != _SIGNATURE_BYTES:
        _malformed(f"a signature of {len(signature)} bytes", f"{_SIGNATURE_BYTES}")


def _module_id(value: cbor.Value) -> str:
    if not isinstance(value, str) or not value:
        _malformed(f"module_id {value!r}", "text")
    return value


def _timestamp(value: cbor.Value) -> int:
    if not isinstance(value, int) or value <= 0:
        _malformed(f"timestamp {value!r}", "milliseconds since 1970")
    return value


def _pcrs(value: cbor.Value) -> dict[int, bytes]:
    if not isinstance(value, dict):
        _malformed("pcrs of another form", "a map of registers")
    found: dict[int, bytes] = {}
    for index, register in value.items():
        if not isinstance(index, int) or not 0 <= index < PCR_COUNT:
            _malformed(f"register {index!r}", f"0 to {PCR_COUNT - 1}")
        if not isinstance(register, bytes) or len(register) not in PCR_SIZES:
            _malformed(f"a register {index} of another size", "32, 48 or 64 bytes")
        found[index] = register
    missing = {*CODE_PCRS, INSTANCE_PCR} - found.keys()
    if missing or not any(found[INSTANCE_PCR]):
        # They say what runs (R3) and where (R5).
        _malformed("no PCR0, PCR1, PCR2 or PCR4", "all of them")
    return found


def _bundle(value: cbor.Value) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CHAIN:
        _malformed("a cabundle of another form", f"1 to {MAX_CHAIN} certificates")
    return tuple(_sized(each, "cabundle", MAX_CERTIFICATE) for each in value)


def _optional(content: dict[int | str, cbor.Value], name: str) -> bytes | None:
    value = content.get(name)
    return None if value is None else _sized(value, name, MAX_USER_BYTES[name], least=0)


def _sized(value: cbor.Value, name: str, most: int, *, least: int = 1) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        _malformed(f"{name} of another form", f"{least} to {most} bytes")
    return value


def _malformed(found: str, expected: str) -> NoReturn:
    refuse(Code.DOCUMENT_FIELD, found, expected, "send the document as NSM returned it")
