"""The structs of IDcapCollateral, read from what Intel signs; field order is the contracts'.

A digest is keccak256(abi.encode(struct)), as the store keeps it. Times are unix seconds.
Sources: Intel PCS API v4 (TCB info v3, QE identity v2); Intel SGX PCK Certificate and CRL Profile Specification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from eth_abi.abi import encode

from enclave_app.protocol.digests import keccak
from oracle.attestation.collateral import Collateral, certificate_window, document, pem_chain
from oracle.attestation.errors import Code, CollateralError, VerificationError
from oracle.attestation.qvl import QvlRefused, pck_values
from oracle.attestation.types import INTEL_NAMES, Tee

PCK: Final = "(bytes32,bytes32,bytes32,bytes32,bytes16,bytes6,bytes2,uint16,uint160,uint40,uint40)"
TCB_INFO: Final = "(uint8,bytes6,bytes2,uint32,uint40,uint40,uint40,bytes32,bytes32,bytes32)"
TCB_LEVEL: Final = "(bytes32,uint16,uint8,uint40)"
TDX_MODULE: Final = "(uint8,bytes,bytes8,bytes8,uint256[])"
QE_IDENTITY: Final = "(uint8,uint32,uint40,uint40,bytes4,bytes4,bytes16,bytes16,bytes32,uint16,uint256[],bytes32)"
ZERO: Final = bytes(32)
_TEES: Final = {"SGX": Tee.SGX, "TDX": Tee.TDX, "QE": Tee.SGX, "TD_QE": Tee.TDX}


@dataclass(frozen=True)
class Pck:
    """A PCK certificate. `platform` is SHA-256 of the PPID, `issuer` of the CA's certificate."""

    x: bytes
    y: bytes
    platform: bytes
    issuer: bytes
    cpu_svn: bytes
    fmspc: bytes
    pce_id: bytes
    pce_svn: int
    serial: int
    not_before: int
    not_after: int

    @classmethod
    def of(cls, chain: Sequence[x509.Certificate]) -> Pck:
        """From a chain that begins with the PCK certificate and its CA's. Raises VerificationError."""
        if len(chain) < 2:
            raise _bad_chain(f"{len(chain)} certificates", "the PCK certificate, then its CA's")
        leaf, ca = chain[0], chain[1]
        try:
            leaf.verify_directly_issued_by(ca)
            values = pck_values(leaf.public_bytes(serialization.Encoding.PEM))
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, QvlRefused) as cause:
            raise _bad_chain(
                f"certificates that are not such a pair ({cause!r})", "the PCK certificate, then its CA's"
            ) from cause
        key = leaf.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise _bad_chain("a key that is not on P-256", "a PCK certificate")
        if not 0 < leaf.serial_number < 1 << 160:
            raise _bad_chain("a serial number that is not positive or too long", "at most 20 bytes")
        numbers, window = key.public_numbers(), certificate_window(leaf)
        return cls(
            x=numbers.x.to_bytes(32, "big"),
            y=numbers.y.to_bytes(32, "big"),
            platform=hashlib.sha256(values.ppid).digest(),
            issuer=certificate_digest(ca),
            cpu_svn=values.cpu_svn,
            fmspc=values.fmspc,
            pce_id=values.pce_id,
            pce_svn=values.pce_svn,
            serial=leaf.serial_number,
            not_before=window.start,
            not_after=window.end,
        )

    def abi(self) -> tuple[object, ...]:
        return (
            self.x,
            self.y,
            self.platform,
            self.issuer,
            self.cpu_svn,
            self.fmspc,
            self.pce_id,
            self.pce_svn,
            self.serial,
            self.not_before,
            self.not_after,
        )

    @property
    def digest(self) -> bytes:
        return keccak(encode([PCK], [self.abi()]))


@dataclass(frozen=True)
class TcbLevel:
    """`components`: 16 SGX SVNs, then 16 TDX SVNs (zeros for SGX)."""

    components: bytes
    pce_svn: int
    status: int
    date: int

    def abi(self) -> tuple[object, ...]:
        return (self.components, self.pce_svn, self.status, self.date)


@dataclass(frozen=True)
class TdxModule:
    """`version` 0 is `tdxModule`, n the identity "TDX_n"; `levels` are ISVSVN << 48 | status << 40 | tcbDate."""

    version: int
    mr_signer: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[int, ...]

    def abi(self) -> tuple[object, ...]:
        return (self.version, self.mr_signer, self.attributes, self.attributes_mask, self.levels)

    @property
    def digest(self) -> bytes:
        return keccak(encode([TDX_MODULE], [self.abi()]))


@dataclass(frozen=True)
class TcbInfo:
    """TCB info with its levels and modules; the struct on chain holds their hashes."""

    tee: Tee
    fmspc: bytes
    pce_id: bytes
    evaluation: int
    issued_at: int
    next_update: int
    changed_at: int
    levels: tuple[TcbLevel, ...]
    modules: tuple[TdxModule, ...]
    signer: bytes

    @classmethod
    def of(cls, collateral: Collateral) -> TcbInfo:
        """Raises CollateralError for anything that is not Intel's form."""
        signer = certificate_digest(pem_chain(collateral.tcb_info_issuer_chain)[0])
        try:
            value = document(collateral.tcb_info, "tcb_info")
            tee = _TEES[value["id"]]
            levels = tuple(_tcb_level(each, tee) for each in value["tcbLevels"])
            return cls(
                tee=tee,
                fmspc=_hex(value["fmspc"], 6),
                pce_id=_hex(value["pceId"], 2),
                evaluation=collateral.tcb_evaluation,
                issued_at=_seconds(value["issueDate"]),
                next_update=_seconds(value["nextUpdate"]),
                changed_at=levels[0].date,
                levels=levels,
                modules=_modules(value) if tee is Tee.TDX else (),
                signer=signer,
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as cause:
            raise _malformed("TCB info", cause) from cause

    def rest(self, start: int) -> bytes:
        """Hash of the levels from index `start` on; zero behind the last."""
        digest = ZERO
        for level in reversed(self.levels[start:]):
            digest = keccak(encode([TCB_LEVEL, "bytes32"], [level.abi(), digest]))
        return digest

    def abi(self) -> tuple[object, ...]:
        modules = keccak(b"".join(each.digest for each in self.modules)) if self.modules else ZERO
        return (
            self.tee,
            self.fmspc,
            self.pce_id,
            self.evaluation,
            self.issued_at,
            self.next_update,
            self.changed_at,
            self.rest(0),
            modules,
            self.signer,
        )

    @property
    def digest(self) -> bytes:
        return keccak(encode([TCB_INFO], [self.abi()]))


@dataclass(frozen=True)
class QeIdentity:
    """`levels` as in TdxModule, by the quoting enclave's ISVSVN."""

    tee: Tee
    evaluation: int
    issued_at: int
    next_update: int
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[int, ...]
    signer: bytes

    @classmethod
    def of(cls, collateral: Collateral) -> QeIdentity:
        """Raises CollateralError for anything that is not Intel's form."""
        signer = certificate_digest(pem_chain(collateral.qe_identity_issuer_chain)[0])
        try:
            value = document(collateral.qe_identity, "qe_identity")
            return cls(
                tee=_TEES[value["id"]],
                evaluation=collateral.qe_evaluation,
                issued_at=_seconds(value["issueDate"]),
                next_update=_seconds(value["nextUpdate"]),
                misc_select=_hex(value["miscselect"], 4),
                misc_select_mask=_hex(value["miscselectMask"], 4),
                attributes=_hex(value["attributes"], 16),
                attributes_mask=_hex(value["attributesMask"], 16),
                mr_signer=_hex(value["mrsigner"], 32),
                isv_prod_id=_number(value["isvprodid"]),
                levels=_isv_levels(value["tcbLevels"]),
                signer=signer,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as cause:
            raise _malformed("QE identity", cause) from cause

    def abi(self) -> tuple[object, ...]:
        return (
            self.tee,
            self.evaluation,
            self.issued_at,
            self.next_update,
            self.misc_select,
            self.misc_select_mask,
            self.attributes,
            self.attributes_mask,
            self.mr_signer,
            self.isv_prod_id,
            self.levels,
            self.signer,
        )

    @property
    def digest(self) -> bytes:
        return keccak(encode([QE_IDENTITY], [self.abi()]))


def certificate_digest(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the TBSCertificate, under which the store keeps an issuer: of its signature, everyone can make another."""
    return hashlib.sha256(certificate.tbs_certificate_bytes).digest()


def _tcb_level(value: dict[str, Any], tee: Tee) -> TcbLevel:
    tcb = value["tcb"]
    parts = [bytes(each["svn"] for each in tcb["sgxtcbcomponents"]), bytes(16)]
    if tee is Tee.TDX:
        parts[1] = bytes(each["svn"] for each in tcb["tdxtcbcomponents"])
    if any(len(each) != 16 for each in parts):
        raise ValueError("a TCB level without 16 components")
    return TcbLevel(
        b"".join(parts), _number(tcb["pcesvn"]), INTEL_NAMES[value["tcbStatus"]], _seconds(value["tcbDate"])
    )


def _modules(value: dict[str, Any]) -> tuple[TdxModule, ...]:
    """`tdxModule`, then the identities in Intel's order."""
    modules = [_module(0, value["tdxModule"], [])]
    for each in value.get("tdxModuleIdentities", []):
        modules.append(_module(int(each["id"].removeprefix("TDX_"), 16), each, each["tcbLevels"]))
    return tuple(modules)


def _module(version: int, value: dict[str, Any], levels: list[dict[str, Any]]) -> TdxModule:
    return TdxModule(
        version,
        _hex(value["mrsigner"], 48),
        _hex(value["attributes"], 8),
        _hex(value["attributesMask"], 8),
        _isv_levels(levels),
    )


def _isv_levels(values: list[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(
        _number(each["tcb"]["isvsvn"]) << 48 | INTEL_NAMES[each["tcbStatus"]] << 40 | _seconds(each["tcbDate"])
        for each in values
    )


def _hex(text: str, size: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes where {size} should be")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 16:
        raise ValueError(f"{value!r} where a number of 16 bits should be")
    return value


def _seconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a date without a time zone: {text!r}")
    seconds = int(moment.timestamp())
    if seconds <= 0:
        raise ValueError(f"a date before 1970: {text!r}")
    return seconds


def _malformed(what: str, cause: Exception) -> CollateralError:
    return CollateralError(
        Code.COLLATERAL_FORMAT,
        found=f"{what} of another form ({cause!r})",
        expected="Intel's form",
        action="fetch the collateral from Intel's PCS or a PCCS",
    )


def _bad_chain(found: str, expected: str) -> VerificationError:
    return VerificationError(Code.PCK_CHAIN, found=found, expected=expected, action="obtain the quote again")
