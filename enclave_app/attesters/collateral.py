"""Collateral of a development root: TCB info, QE identity and revocation lists, in Intel's form.

Source: Intel PCS API v4, TCB info v3 and Enclave Identity v2; the JSON is dcap-qvl's QuoteCollateralV3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from enclave_app.attesters.dcap_format import sign_raw
from enclave_app.attesters.development_pki import Issuer, Window, certificate_pem

QE_MRSIGNER: Final = hashlib.sha256(b"enclave-oracle/development/quoting-enclave").digest()
QE_ISV_PROD_ID: Final = 1
QE_ISV_SVN: Final = 8
QE_FLAGS: Final = 0x11
QE_FLAGS_MASK: Final = "FBFFFFFFFFFFFFFF0000000000000000"

DEFAULT_EVALUATION: Final = 17


@dataclass(frozen=True)
class CollateralSpec:
    """What minted collateral says about platforms of the given SVNs. Statuses are Intel's words, e.g. "OutOfDate".

    Any status but UpToDate comes behind a level that asks for one PCESVN more, as Intel's lists have it. The two
    evaluation numbers are those of TCB info and QE identity (the latter follows the former unless given).
    """

    cpu_svn: bytes
    pce_svn: int
    status: str = "UpToDate"
    advisories: tuple[str, ...] = ()
    qe_status: str = "UpToDate"
    evaluation: int = DEFAULT_EVALUATION
    qe_evaluation: int | None = None


def mint_collateral(
    root: Issuer,
    pck_ca: Issuer,
    tcb: Issuer,
    fmspc: bytes,
    spec: CollateralSpec,
    window: Window,
    revoked: Sequence[int],
) -> dict[str, str]:
    """The nine strings of QuoteCollateralV3, signed; `revoked` are PCK serial numbers."""
    tcb_chain = (certificate_pem(tcb.certificate) + certificate_pem(root.certificate)).decode()
    pck_chain = (certificate_pem(pck_ca.certificate) + certificate_pem(root.certificate)).decode()
    tcb_info = _json(_tcb_info(fmspc, spec, window))
    qe_identity = _json(_qe_identity(spec, window))
    return {
        "pck_crl_issuer_chain": pck_chain,
        "root_ca_crl": root.revocation_list(window).hex(),
        "pck_crl": pck_ca.revocation_list(window, revoked).hex(),
        "tcb_info_issuer_chain": tcb_chain,
        "tcb_info": tcb_info,
        "tcb_info_signature": sign_raw(tcb.key, tcb_info.encode()).hex(),
        "qe_identity_issuer_chain": tcb_chain,
        "qe_identity": qe_identity,
        "qe_identity_signature": sign_raw(tcb.key, qe_identity.encode()).hex(),
    }


def _tcb_info(fmspc: bytes, spec: CollateralSpec, window: Window) -> dict[str, Any]:
    levels = [_tcb_level(spec.cpu_svn, spec.pce_svn, spec.status, spec.advisories, window[0])]
    if spec.status != "UpToDate":
        levels.insert(0, _tcb_level(spec.cpu_svn, spec.pce_svn + 1, "UpToDate", (), window[0]))
    if spec.status != "Revoked":
        levels.append(_tcb_level(bytes(16), 0, "OutOfDate", (), window[0]))
    return {
        "id": "SGX",
        "version": 3,
        "issueDate": _date(window[0]),
        "nextUpdate": _date(window[1]),
        "fmspc": fmspc.hex().upper(),
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": spec.evaluation,
        "tcbLevels": levels,
    }


def _tcb_level(
    cpu_svn: bytes, pce_svn: int, status: str, advisories: tuple[str, ...], date: datetime
) -> dict[str, Any]:
    level: dict[str, Any] = {
        "tcb": {"sgxtcbcomponents": [{"svn": svn} for svn in cpu_svn], "pcesvn": pce_svn},
        "tcbDate": _date(date),
        "tcbStatus": status,
    }
    if advisories:
        level["advisoryIDs"] = list(advisories)
    return level


def _qe_identity(spec: CollateralSpec, window: Window) -> dict[str, Any]:
    levels = [{"tcb": {"isvsvn": QE_ISV_SVN}, "tcbDate": _date(window[0]), "tcbStatus": spec.qe_status}]
    if spec.qe_status != "UpToDate":
        newer = {"tcb": {"isvsvn": QE_ISV_SVN + 1}, "tcbDate": _date(window[0]), "tcbStatus": "UpToDate"}
        levels.insert(0, newer)
    return {
        "id": "QE",
        "version": 2,
        "issueDate": _date(window[0]),
        "nextUpdate": _date(window[1]),
        "tcbEvaluationDataNumber": spec.evaluation if spec.qe_evaluation is None else spec.qe_evaluation,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": QE_FLAGS.to_bytes(8, "little").hex().upper() + "00" * 8,
        "attributesMask": QE_FLAGS_MASK,
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": QE_ISV_PROD_ID,
        "tcbLevels": levels,
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
