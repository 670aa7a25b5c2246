"""Intel evidence under a development root: quotes of every version, and all that Intel would publish about their platform.

A `Case` is valid as it is made. A test changes one thing of it with `dataclasses.replace`, and what depends on that is signed
again. Times are unix seconds. Sources: Intel SGX ECDSA Quote Library Reference, appendix A.4; Intel TDX DCAP Quoting Library
API, appendix A.3; Intel PCS API v4 (TCB info v3, QE identity v2).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, NamedTuple

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enclave_app.attesters.collateral import QE_FLAGS, QE_FLAGS_MASK, QE_MRSIGNER
from enclave_app.attesters.dcap_format import (
    ATTESTATION_KEY_P256,
    CERTIFICATION_PCK_CHAIN,
    FLAG_MODE64BIT,
    INTEL_QE_VENDOR,
    ReportBody,
    raw_public_key,
    sign_raw,
)
from enclave_app.attesters.development_pki import Issuer, certificate_pem
from enclave_app.attesters.sgx_extension import OID, encode_sgx_extension
from oracle.attestation import Collateral

NOW: Final = 1_800_000_000
"""2027-01-15: what is minted here holds then."""
DAY: Final = 86_400

FMSPC: Final = bytes.fromhex("dec0de000000")
CPU_SVN: Final = bytes.fromhex("0e0e0303ffff01000000000000000000")
PCE_SVN: Final = 13
TEE_TCB_SVN: Final = bytes.fromhex("05010400000000000000000000000000")
"""Module 1 at ISVSVN 5, and 4 in the third byte."""
SEAM_SIGNER: Final = hashlib.sha384(b"enclave-oracle/development/seam").digest()
TD_ATTRIBUTES: Final = (1 << 28).to_bytes(8, "little")
"""SEPT_VE_DISABLE."""
EVALUATION: Final = 17
TCB_DATE: Final = NOW - 100 * DAY
AUTH: Final = bytes(range(32))

SGX, TDX = 1, 2
TEE_TYPES: Final = {SGX: 0x00, TDX: 0x81}
V5_BODY_TYPES: Final = {584: 2, 648: 3}


class Span(NamedTuple):
    start: int
    end: int

    @property
    def window(self) -> tuple[datetime, datetime]:
        return datetime.fromtimestamp(self.start, UTC), datetime.fromtimestamp(self.end, UTC)


VALID: Final = Span(NOW - 3600, NOW + 30 * DAY)


@dataclass(frozen=True)
class Authority:
    """A root, its PCK CA, and its signer of TCB info and QE identities."""

    root: Issuer
    ca: Issuer
    signer: Issuer

    @classmethod
    def make(cls, root: Span = VALID, ca: Span = VALID, signer: Span = VALID) -> Authority:
        made = Issuer.root("Enclave Oracle DEVELOPMENT SGX Root CA", root.window)
        return cls(
            made,
            replace(made, window=ca.window).authority("Enclave Oracle DEVELOPMENT SGX PCK Platform CA"),
            replace(made, window=signer.window).leaf("Enclave Oracle DEVELOPMENT SGX TCB Signing"),
        )

    @property
    def root_der(self) -> bytes:
        return der(self.root)

    def sign(self, text: str) -> str:
        """As collateral carries it: r ‖ s in hex."""
        return sign_raw(self.signer.key, text.encode()).hex()

    def platform(
        self,
        cpu_svn: bytes = CPU_SVN,
        pce_svn: int = PCE_SVN,
        fmspc: bytes = FMSPC,
        pce_id: bytes = bytes(2),
        ppid: bytes = bytes(range(16)),
        span: Span = VALID,
        extension: bytes | None = None,
    ) -> Issuer:
        """A platform's PCK certificate and key. `extension`: the SGX extension, instead of what the values give."""
        content = encode_sgx_extension(ppid, cpu_svn, pce_svn, pce_id, fmspc) if extension is None else extension
        return replace(self.ca, window=span.window).leaf(
            "Enclave Oracle DEVELOPMENT SGX PCK Certificate",
            x509.UnrecognizedExtension(x509.ObjectIdentifier(OID), content),
        )


def der(issuer: Issuer) -> bytes:
    return issuer.certificate.public_bytes(serialization.Encoding.DER)


def pem(*chain: Issuer) -> str:
    return b"".join(certificate_pem(each.certificate) for each in chain).decode()


@dataclass(frozen=True)
class TdBody:
    """A TD report body: 648 bytes (1.5), or 584 (1.0) where `later` is false."""

    report_data: bytes = bytes(64)
    tee_tcb_svn: bytes = TEE_TCB_SVN
    mr_seam: bytes = bytes(48)
    mr_signer_seam: bytes = SEAM_SIGNER
    seam_attributes: bytes = bytes(8)
    td_attributes: bytes = TD_ATTRIBUTES
    xfam: bytes = bytes.fromhex("e702060000000000")
    mr_td: bytes = hashlib.sha384(b"td").digest()
    mr_config_id: bytes = bytes(48)
    mr_owner: bytes = bytes(48)
    mr_owner_config: bytes = bytes(48)
    rtmrs: tuple[bytes, ...] = tuple(hashlib.sha384(b"rtmr%d" % i).digest() for i in range(4))
    tee_tcb_svn2: bytes = TEE_TCB_SVN
    mr_service_td: bytes = bytes(48)
    later: bool = False

    def encode(self) -> bytes:
        body = b"".join(
            (
                self.tee_tcb_svn,
                self.mr_seam,
                self.mr_signer_seam,
                self.seam_attributes,
                self.td_attributes,
                self.xfam,
                self.mr_td,
                self.mr_config_id,
                self.mr_owner,
                self.mr_owner_config,
                *self.rtmrs,
                self.report_data,
            )
        )
        assert len(body) == 584
        if not self.later:
            return body
        assert (len(self.tee_tcb_svn2), len(self.mr_service_td)) == (16, 48)
        return body + self.tee_tcb_svn2 + self.mr_service_td


SGX_BODY: Final = ReportBody(
    cpu_svn=CPU_SVN,
    mrenclave=hashlib.sha256(b"enclave").digest(),
    mrsigner=hashlib.sha256(b"signer").digest(),
    report_data=bytes(64),
    isv_prod_id=1,
    isv_svn=2,
)


@dataclass(frozen=True)
class Level:
    """One TCB level. `tdx` are its TDX components; only TDX TCB info writes them."""

    status: str = "UpToDate"
    components: bytes = CPU_SVN
    pce_svn: int = PCE_SVN
    tdx: bytes = TEE_TCB_SVN
    date: int = TCB_DATE
    advisories: tuple[str, ...] = ()

    def document(self, tee: int) -> dict[str, Any]:
        tcb: dict[str, Any] = {
            "sgxtcbcomponents": [{"svn": svn} for svn in self.components],
            "pcesvn": self.pce_svn,
        }
        if tee == TDX:
            tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in self.tdx]
        return _dated(tcb, self)


@dataclass(frozen=True)
class SvnLevel:
    """A level by ISVSVN: of a quoting enclave, or of a TDX module."""

    isv_svn: int
    status: str = "UpToDate"
    date: int = TCB_DATE
    advisories: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        return _dated({"isvsvn": self.isv_svn}, self)


LEVELS: Final = (Level(), Level("OutOfDate", bytes(16), 0, bytes(16), TCB_DATE - 300 * DAY))
MODULE_LEVELS: Final = (SvnLevel(5), SvnLevel(2, "OutOfDate", TCB_DATE - 300 * DAY))


@dataclass(frozen=True)
class Module:
    """A TDX module. Version 0 is `tdxModule`; n is the identity TDX_n."""

    version: int
    mr_signer: bytes = SEAM_SIGNER
    attributes: bytes = bytes(8)
    mask: bytes = b"\xff" * 8
    levels: tuple[SvnLevel, ...] = MODULE_LEVELS

    def document(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "mrsigner": self.mr_signer.hex().upper(),
            "attributes": self.attributes.hex().upper(),
            "attributesMask": self.mask.hex().upper(),
        }
        if self.version == 0:
            return value
        levels = [level.document() for level in self.levels]
        return {"id": f"TDX_{self.version:02X}"} | value | {"tcbLevels": levels}


@dataclass(frozen=True)
class Tcb:
    """TCB info."""

    tee: int = SGX
    fmspc: bytes = FMSPC
    pce_id: bytes = bytes(2)
    evaluation: int = EVALUATION
    span: Span = VALID
    levels: tuple[Level, ...] = LEVELS
    modules: tuple[Module, ...] = (Module(0), Module(3), Module(1))

    @property
    def text(self) -> str:
        value: dict[str, Any] = {
            "id": "SGX" if self.tee == SGX else "TDX",
            "version": 3,
            "issueDate": _date(self.span.start),
            "nextUpdate": _date(self.span.end),
            "fmspc": self.fmspc.hex().upper(),
            "pceId": self.pce_id.hex().upper(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": self.evaluation,
        }
        if self.tee == TDX:
            base, *identities = self.modules
            value["tdxModule"] = base.document()
            value["tdxModuleIdentities"] = [each.document() for each in identities]
        value["tcbLevels"] = [level.document(self.tee) for level in self.levels]
        return _json(value)


QE_ISV_SVN: Final = 8


@dataclass(frozen=True)
class Qe:
    """A QE identity."""

    tee: int = SGX
    evaluation: int = EVALUATION
    span: Span = VALID
    misc_select: bytes = bytes(4)
    misc_select_mask: bytes = b"\xff" * 4
    attributes: bytes = QE_FLAGS.to_bytes(8, "little") + bytes(8)
    attributes_mask: bytes = bytes.fromhex(QE_FLAGS_MASK)
    mr_signer: bytes = QE_MRSIGNER
    isv_prod_id: int = 1
    levels: tuple[SvnLevel, ...] = (SvnLevel(QE_ISV_SVN), SvnLevel(5, "OutOfDate"))

    @property
    def text(self) -> str:
        return _json(
            {
                "id": "QE" if self.tee == SGX else "TD_QE",
                "version": 2,
                "issueDate": _date(self.span.start),
                "nextUpdate": _date(self.span.end),
                "tcbEvaluationDataNumber": self.evaluation,
                "miscselect": self.misc_select.hex().upper(),
                "miscselectMask": self.misc_select_mask.hex().upper(),
                "attributes": self.attributes.hex().upper(),
                "attributesMask": self.attributes_mask.hex().upper(),
                "mrsigner": self.mr_signer.hex().upper(),
                "isvprodid": self.isv_prod_id,
                "tcbLevels": [level.document() for level in self.levels],
            }
        )


@dataclass(frozen=True)
class Crl:
    """A revocation list: when it holds, and which certificates it revokes."""

    span: Span = VALID
    revoked: tuple[Issuer, ...] = ()

    def encode(self, issuer: Issuer) -> bytes:
        return issuer.revocation_list(self.span.window, [each.certificate.serial_number for each in self.revoked])


@dataclass(frozen=True)
class Case:
    """A quote of one platform, and the collateral it is judged by. The two texts stand for what `tcb` and `qe` would write."""

    authority: Authority
    pck: Issuer
    body: ReportBody | TdBody
    version: int
    tcb: Tcb
    qe: Qe
    qe_report: ReportBody
    auth: bytes = AUTH
    root_crl: Crl = Crl()
    pck_crl: Crl = Crl()
    tcb_text: str | None = None
    qe_text: str | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __repr__(self) -> str:
        return f"Case(version={self.version}, tee={self.tee})"

    @property
    def tee(self) -> int:
        return SGX if isinstance(self.body, ReportBody) else TDX

    @property
    def root_der(self) -> bytes:
        return self.authority.root_der

    @property
    def chain(self) -> str:
        return pem(self.pck, self.authority.ca, self.authority.root)

    @cached_property
    def quote(self) -> bytes:
        return self.mint()

    def bind(self, report_data: bytes) -> Case:
        return replace(self, body=replace(self.body, report_data=report_data))

    def mint(
        self,
        signed: Callable[[bytes], bytes] = lambda signed: signed,
        qe_report: Callable[[bytes], bytes] = lambda report: report,
    ) -> bytes:
        """The quote. The two functions change header and body, and the QE's report, before they are signed."""
        body = self.body.encode()
        header = struct.pack(
            "<HHIHH16s20s",
            self.version,
            ATTESTATION_KEY_P256,
            TEE_TYPES[self.tee],
            QE_ISV_SVN if self.version == 3 else 0,
            PCE_SVN if self.version == 3 else 0,
            INTEL_QE_VENDOR,
            bytes(20),
        )
        if self.version == 5:
            header += struct.pack("<HI", V5_BODY_TYPES[len(body)], len(body))
        content = signed(header + body)
        key = raw_public_key(self.key.public_key())
        binding = hashlib.sha256(key + self.auth).digest() + bytes(32)
        report = qe_report(replace(self.qe_report, report_data=binding).encode())
        chain = self.chain.encode()
        vouched = b"".join(
            (
                report,
                sign_raw(self.pck.key, report),
                struct.pack("<H", len(self.auth)),
                self.auth,
                struct.pack("<HI", CERTIFICATION_PCK_CHAIN, len(chain)),
                chain,
            )
        )
        if self.version > 3:
            vouched = struct.pack("<HI", 6, len(vouched)) + vouched
        section = sign_raw(self.key, content) + key + vouched
        return content + struct.pack("<I", len(section)) + section

    @cached_property
    def pieces(self) -> dict[str, str]:
        """The nine strings of QuoteCollateralV3."""
        authority = self.authority
        signers = pem(authority.signer, authority.root)
        tcb, qe = self.tcb_text or self.tcb.text, self.qe_text or self.qe.text
        return {
            "pck_crl_issuer_chain": pem(authority.ca, authority.root),
            "root_ca_crl": self.root_crl.encode(authority.root).hex(),
            "pck_crl": self.pck_crl.encode(authority.ca).hex(),
            "tcb_info_issuer_chain": signers,
            "tcb_info": tcb,
            "tcb_info_signature": authority.sign(tcb),
            "qe_identity_issuer_chain": signers,
            "qe_identity": qe,
            "qe_identity_signature": authority.sign(qe),
        }

    @property
    def collateral(self) -> Collateral:
        return Collateral.from_json(json.dumps(self.pieces))

    def ask(self, now: int = NOW) -> str:
        return ask_qvl(self.quote, self.pieces, self.root_der, now)


QE_REPORT: Final = ReportBody(
    cpu_svn=CPU_SVN,
    mrenclave=hashlib.sha256(b"quoting enclave").digest(),
    mrsigner=QE_MRSIGNER,
    report_data=bytes(64),
    isv_prod_id=1,
    isv_svn=QE_ISV_SVN,
    flags=QE_FLAGS | FLAG_MODE64BIT,
)


def sgx_case(authority: Authority | None = None) -> Case:
    """An SGX quote, version 3, UpToDate."""
    authority = authority or Authority.make()
    return Case(authority, authority.platform(), SGX_BODY, 3, Tcb(SGX), Qe(SGX), QE_REPORT)


def tdx_case(version: int = 4, authority: Authority | None = None) -> Case:
    """A TDX quote, version 4 with a TD report 1.0 or version 5 with 1.5, UpToDate."""
    authority = authority or Authority.make()
    return Case(
        authority,
        authority.platform(),
        TdBody(later=version == 5),
        version,
        Tcb(TDX),
        Qe(TDX, isv_prod_id=2),
        replace(QE_REPORT, isv_prod_id=2),
    )


class QvlRefused(Exception):
    """dcap-qvl's own reason."""


def ask_qvl(quote: bytes, pieces: dict[str, str], root_der: bytes, now: int) -> str:
    """The status that dcap-qvl itself gives, with no policy of ours before or behind it. Raises QvlRefused."""
    try:
        collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(pieces))
        return str(dcap_qvl.verify_with_root_ca(quote, collateral, root_der, now).status)
    except ValueError as cause:
        raise QvlRefused(" ".join(str(cause).split())) from cause


def _dated(tcb: dict[str, Any], level: Level | SvnLevel) -> dict[str, Any]:
    value = {"tcb": tcb, "tcbDate": _date(level.date), "tcbStatus": level.status}
    if level.advisories:
        value["advisoryIDs"] = list(level.advisories)
    return value


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
