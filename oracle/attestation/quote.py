"""Intel DCAP quotes, versions 3 (SGX), 4 and 5 (SGX and TDX), taken apart into typed values.

Sources: Intel SGX ECDSA Quote Library Reference, appendix A.4; Intel TDX DCAP Quoting Library API, appendix A.3
(versions 4 and 5). Integers are little-endian; everything kept as bytes is in the quote's own order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, NoReturn

from enclave_app.protocol.measurement import sgx_measurement, tdx_measurement
from oracle.attestation.errors import Code, EvidenceError
from oracle.attestation.types import Tee

MAX_QUOTE_BYTES: Final = 64 * 1024
HEADER_BYTES: Final = 48
SGX_BODY: Final = 384
TD10_BODY: Final = 584
TD15_BODY: Final = 648
V5_BODIES: Final = {1: (Tee.SGX, SGX_BODY), 2: (Tee.TDX, TD10_BODY), 3: (Tee.TDX, TD15_BODY)}
"""Body type 4 (TD report 1.5 extended) has configuration registers that no measurement covers yet: refused (R3)."""
TEE_TYPES: Final = {0x00: Tee.SGX, 0x81: Tee.TDX}

ATTESTATION_KEY_P256: Final = 2
CERTIFICATION_PCK_CHAIN: Final = 5
CERTIFICATION_QE_REPORT: Final = 6
SGX_FLAG_DEBUG: Final = 0x02


@dataclass(frozen=True)
class SgxReport:
    """An SGX report body. Every field is raw bytes of its own size; ISV numbers are two bytes, little-endian."""

    cpu_svn: bytes
    miscselect: bytes
    isv_ext_prod_id: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    config_id: bytes
    isv_prod_id: bytes
    isv_svn: bytes
    config_svn: bytes
    isv_family_id: bytes
    report_data: bytes
    raw: bytes

    @property
    def debug(self) -> bool:
        return bool(self.attributes[0] & SGX_FLAG_DEBUG)

    @property
    def tee_tcb_svn(self) -> bytes:
        return bytes(16)

    @property
    def tee_tcb_svn2(self) -> bytes:
        return bytes(16)

    @property
    def measurement(self) -> bytes:
        return sgx_measurement(self.raw)


@dataclass(frozen=True)
class TdReport:
    """A TD report body, 1.0 or 1.5. `tee_tcb_svn2` and `mr_service_td` are zero in version 1.0, which lacks them."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes
    mr_service_td: bytes
    raw: bytes

    @property
    def debug(self) -> bool:
        """TUD, the first byte of TDATTRIBUTES: any bit of it makes the TD untrusted (Intel TDX Module ABI)."""
        return self.td_attributes[0] != 0

    @property
    def measurement(self) -> bytes:
        return tdx_measurement(self.raw)


@dataclass(frozen=True)
class SignatureSection:
    """What vouches for the body. `certification` is the raw data of `certification_type` (5: a PCK chain in PEM)."""

    signature: bytes
    attestation_key: bytes
    qe_report: SgxReport
    qe_signature: bytes
    qe_auth: bytes
    certification_type: int
    certification: bytes


@dataclass(frozen=True)
class ParsedQuote:
    """A quote of exactly its declared length. `raw` is that much of the input; `trailing` counts the zeros cut off."""

    tee: Tee
    version: int
    qe_vendor: bytes
    user_data: bytes
    report: SgxReport | TdReport
    section: SignatureSection
    declared_end: int
    trailing: int
    raw: bytes

    @property
    def report_data(self) -> bytes:
        return self.report.report_data

    @property
    def measurement(self) -> bytes:
        """The 32 bytes that agreements list (R3)."""
        return self.report.measurement


def parse_quote(tee: Tee, evidence: bytes) -> ParsedQuote:
    """Take a quote apart. Zero padding behind the declared end is cut and counted; raises EvidenceError otherwise."""
    if len(evidence) > MAX_QUOTE_BYTES:
        _refuse(Code.EVIDENCE_TOO_LONG, f"{len(evidence)} bytes", f"at most {MAX_QUOTE_BYTES}", "send the quote alone")
    reader = _Reader(bytes(evidence))
    header = _Reader(reader.take(HEADER_BYTES, "quote header"))
    version = header.number(2)
    if version not in (3, 4, 5):
        _refuse(Code.QUOTE_VERSION, f"version {version}", "3, 4 or 5", "obtain an ECDSA quote from a DCAP library")
    key_type = header.number(2)
    if key_type != ATTESTATION_KEY_P256:
        _refuse(Code.QUOTE_KEY_TYPE, f"key type {key_type}", "2 (ECDSA P-256)", "configure the quoting enclave for it")
    tee_type = header.number(4)
    found_tee, body_size = _body_shape(version, tee_type, reader)
    if found_tee is not tee:
        _refuse(Code.TEE_MISMATCH, f"a {found_tee.name} quote", f"{tee.name} evidence", "name the TEE that made it")
    header.take(4, "SVNs")
    qe_vendor = header.take(16, "QE vendor")
    user_data = header.take(20, "user data")
    body = reader.take(body_size, "report body")
    report = _sgx_report(body) if tee is Tee.SGX else _td_report(body)
    section = _signature_section(version, reader.take(reader.number(4), "signature section"))
    end = reader.position
    if any(evidence[end:]):
        _refuse(
            Code.EVIDENCE_TRAILING_BYTES,
            f"non-zero bytes behind the quote's end at {end}",
            "nothing, or zero padding",
            "send the quote exactly as the quoting enclave returned it",
        )
    return ParsedQuote(
        tee, version, qe_vendor, user_data, report, section, end, len(evidence) - end, bytes(evidence[:end])
    )


def _body_shape(version: int, tee_type: int, reader: _Reader) -> tuple[Tee, int]:
    expected = TEE_TYPES.get(tee_type)
    if expected is None or (version == 3 and expected is not Tee.SGX):
        _refuse(Code.TEE_UNSUPPORTED, f"TEE type 0x{tee_type:x} in version {version}", "SGX or TDX", "check the quote")
    if version < 5:
        return expected, SGX_BODY if expected is Tee.SGX else TD10_BODY
    body_type, size = reader.number(2), reader.number(4)
    if V5_BODIES.get(body_type) != (expected, size):
        _refuse(
            Code.QUOTE_BODY_TYPE,
            f"body type {body_type} of {size} bytes in a {expected.name} quote",
            "type 1 (384 bytes) for SGX, 2 (584) or 3 (648) for TDX",
            "use a quoting library that writes one of these",
        )
    return expected, size


def _sgx_report(body: bytes) -> SgxReport:
    reader = _Reader(body)
    values = {
        "cpu_svn": reader.take(16),
        "miscselect": reader.take(4),
        "_1": reader.take(12),
        "isv_ext_prod_id": reader.take(16),
        "attributes": reader.take(16),
        "mrenclave": reader.take(32),
        "_2": reader.take(32),
        "mrsigner": reader.take(32),
        "_3": reader.take(32),
        "config_id": reader.take(64),
        "isv_prod_id": reader.take(2),
        "isv_svn": reader.take(2),
        "config_svn": reader.take(2),
        "_4": reader.take(42),
        "isv_family_id": reader.take(16),
        "report_data": reader.take(64),
    }
    reserved = b"".join(values.pop(name) for name in ("_1", "_2", "_3", "_4"))
    if any(reserved):
        # A register that Intel defines later would otherwise stay outside every measurement (R3).
        _refuse(Code.QUOTE_RESERVED_BYTES, "non-zero reserved bytes", "zeros", "update this verifier for that hardware")
    return SgxReport(**values, raw=body)


_TD_SIZES: Final = (16, 48, 48, 8, 8, 8, 48, 48, 48, 48, 48, 48, 48, 48, 64)


def _td_report(body: bytes) -> TdReport:
    reader = _Reader(body)
    names = [field.name for field in fields(TdReport)]
    values = {name: reader.take(size) for name, size in zip(names, _TD_SIZES, strict=False)}
    later = len(body) == TD15_BODY
    values["tee_tcb_svn2"] = reader.take(16) if later else bytes(16)
    values["mr_service_td"] = reader.take(48) if later else bytes(48)
    return TdReport(**values, raw=body)


def _signature_section(version: int, data: bytes) -> SignatureSection:
    reader = _Reader(data, Code.QUOTE_SIGNATURE_SECTION)
    signature, key = reader.take(64), reader.take(64)
    if version > 3:
        kind, size = reader.number(2), reader.number(4)
        if kind != CERTIFICATION_QE_REPORT or size != reader.left:
            _refuse(
                Code.QUOTE_SIGNATURE_SECTION,
                f"certification type {kind} of {size} bytes, with {reader.left} left",
                "type 6 (QE report) filling the section",
                "obtain the quote again",
            )
    qe_report, qe_signature = _sgx_report(reader.take(SGX_BODY)), reader.take(64)
    qe_auth = reader.take(reader.number(2))
    kind = reader.number(2)
    certification = reader.take(reader.number(4))
    if reader.left:
        _refuse(
            Code.QUOTE_SIGNATURE_SECTION,
            f"{reader.left} undeclared bytes in the signature section",
            "none",
            "obtain the quote again",
        )
    return SignatureSection(signature, key, qe_report, qe_signature, qe_auth, kind, certification)


class _Reader:
    """Takes fields off the front, and refuses to read past the end."""

    def __init__(self, data: bytes, code: Code = Code.EVIDENCE_TOO_SHORT) -> None:
        self._data = data
        self._code = code
        self.position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self.position

    def take(self, size: int, what: str = "a field") -> bytes:
        if size > self.left:
            _refuse(self._code, f"{self.left} bytes for {what}", f"{size}", "send the whole quote")
        start, self.position = self.position, self.position + size
        return self._data[start : self.position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size, "a number"), "little")


def _refuse(code: Code, found: str, expected: str, action: str) -> NoReturn:
    raise EvidenceError(code, found=found, expected=expected, action=action)
