"""Whether fetched collateral is what was asked for, signed under a root, and in its dates.

Whoever verifies evidence checks all of it again. Here it keeps a service that lies, or is broken, from replacing what is good.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from enclave_app.protocol.canonical import check_depth
from oracle.attestation import Code, Collateral, CollateralError, Tee
from oracle.attestation.anchors import load_root
from oracle.attestation.collateral import Window, certificate_window, document_window, intersection, pem_chain
from oracle.collateral.pcs import Evaluations
from oracle.collateral.platform import Platform, ca_of
from oracle.errors import OracleError, Refused

QE_IDS = {Tee.SGX: "QE", Tee.TDX: "TD_QE"}


def check_collateral(collateral: Collateral, platform: Platform | None, root_der: bytes, now: int) -> None:
    """All nine parts, for `platform` unless that is None, at `now` (unix seconds).

    Raises Refused `collateral.signature`, `collateral.platform`, and CollateralError for another form and for dates.
    """
    root = load_root(root_der)
    tcb_signer = signer_of(collateral.tcb_info_issuer_chain, root, "TCB info")
    qe_signer = signer_of(collateral.qe_identity_issuer_chain, root, "QE identity")
    pck_ca = signer_of(collateral.pck_crl_issuer_chain, root, "PCK revocation list")
    _check_signed(tcb_signer, collateral.tcb_info, collateral.tcb_info_signature, "TCB info")
    _check_signed(qe_signer, collateral.qe_identity, collateral.qe_identity_signature, "QE identity")
    _check_crl(collateral.root_ca_crl, root, "root's revocation list")
    _check_crl(collateral.pck_crl, pck_ca, "PCK revocation list")
    tcb = _object(collateral.tcb_info, "TCB info")
    if platform is not None:
        _check_is("TCB info's kind of TEE", tcb.get("id"), platform.tee.name)
        _check_is("TCB info's FMSPC", str(tcb.get("fmspc")).lower(), platform.fmspc.hex())
        _check_is("QE identity", _object(collateral.qe_identity, "QE identity").get("id"), QE_IDS[platform.tee])
        _check_is("PCK revocation list's CA", ca_of(pck_ca.subject), platform.ca)
    _check_window(collateral.window(), now)


def _check_window(window: Window, now: int) -> None:
    if now >= window.end:
        raise CollateralError(
            Code.COLLATERAL_EXPIRED,
            found=f"an end at {window.end}",
            expected=f"a later one than {now}",
            action="fetch newer collateral",
        )
    if now < window.start:
        raise CollateralError(
            Code.COLLATERAL_NOT_YET_VALID,
            found=f"a start at {window.start}",
            expected=f"an earlier one than {now}",
            action="check the clock",
        )


@dataclass(frozen=True)
class Evaluation:
    """One evaluation that Intel offers. `recovery` in unix seconds is the event behind it: Intel makes it the standard
    about a year later."""

    number: int
    recovery: int


def check_evaluations(evaluations: Evaluations, root_der: bytes, now: int) -> tuple[Evaluation, ...]:
    """What a signed list that holds at `now` names, the highest first. Raises Refused `collateral.signature`,
    `collateral.numbers`, `collateral.platform`, and CollateralError."""
    signed, what = evaluations.signed, "list of evaluations"
    signer = signer_of(signed.chain, load_root(root_der), what)
    _check_signed(signer, signed.document, signed.signature, what)
    value = _object(signed.document, what)
    _check_is(f"{what}' kind of TEE", value.get("id"), evaluations.tee.name)
    _check_window(intersection([document_window(signed.document, what), certificate_window(signer)]), now)
    try:
        found = [_evaluation(each) for each in value["tcbEvalNumbers"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Refused("collateral.numbers", f"the {what} cannot be read", found=repr(error)[:200]) from None
    return tuple(sorted(found, key=lambda each: each.number, reverse=True))


def _evaluation(value: dict[str, Any]) -> Evaluation:
    number, recovery = value["tcbEvaluationDataNumber"], datetime.fromisoformat(value["tcbRecoveryEventDate"])
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 1 << 32:
        raise ValueError("a number that is none")
    return Evaluation(number, int(recovery.astimezone(UTC).timestamp()))


def signer_of(chain_pem: str, root: x509.Certificate, what: str) -> x509.Certificate:
    """The certificate that signed a piece: the first of two, the second being the root itself."""
    chain = pem_chain(chain_pem)
    if len(chain) != 2 or chain[1].public_bytes(Encoding.DER) != root.public_bytes(Encoding.DER):
        raise _unsigned(f"the {what} has a chain of its own")
    try:
        chain[0].verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise _unsigned(f"the {what} is signed by a certificate that the root did not issue") from None
    return chain[0]


def _check_signed(signer: x509.Certificate, document: str, signature: str, what: str) -> None:
    key, raw = signer.public_key(), bytes.fromhex(signature)
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(raw) != 64:
        raise _unsigned(f"the {what} has no P-256 signature")
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    try:
        key.verify(der, _utf8(document), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _unsigned(f"the {what} is not signed by its chain") from None


def _check_crl(crl_hex: str, issuer: x509.Certificate, what: str) -> None:
    key = issuer.public_key()
    try:
        crl = x509.load_der_x509_crl(bytes.fromhex(crl_hex))
        good = isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    except (ValueError, x509.InvalidVersion) as error:
        raise _unsigned(f"the {what} cannot be read ({error})") from None
    if not good or crl.issuer != issuer.subject:
        raise _unsigned(f"the {what} is not its issuer's")


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        check_depth(_utf8(text))
        value = json.loads(text)
    except (ValueError, OracleError) as error:
        raise Refused("collateral.signature", f"the {what} cannot be read", found=str(error)[:200]) from None
    if not isinstance(value, dict):
        raise Refused("collateral.signature", f"the {what} is no JSON object")
    return value


def _utf8(text: str) -> bytes:
    # Half a surrogate pair can stand in JSON, and nobody has signed one.
    return text.encode("utf-8", "surrogatepass")


def _check_is(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Refused("collateral.platform", f"the {what} is another one", found=found, expected=expected)


def _unsigned(what: str) -> Refused:
    return Refused("collateral.signature", what, hint="Ask another service, or name its root with --root")
