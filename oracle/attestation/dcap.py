"""Intel DCAP verification: dcap-qvl for the cryptography, and what it leaves to its caller.

dcap-qvl checks chains, revocation, dates, TCB info, QE identity and both signatures. Here: one reading of the PCK
chain, debug and service TDs under their own codes, the time for which the verdict holds, and the claims.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enclave_app.protocol.measurement import SGX_REGISTERS, TDX_REGISTERS
from oracle.attestation.anchors import load_root
from oracle.attestation.claims import DcapClaims, Verified
from oracle.attestation.collateral import Collateral, Window, certificate_window, intersection, pem_chain
from oracle.attestation.errors import Code, CollateralError, VerificationError
from oracle.attestation.onchain.evidence import versions
from oracle.attestation.onchain.structs import Pck
from oracle.attestation.quote import CERTIFICATION_PCK_CHAIN, ParsedQuote, SgxReport
from oracle.attestation.qvl import PckValues, QvlRefused, QvlReport, pck_values, verify_quote
from oracle.attestation.types import INTEL_NAMES, TcbStatus


def verify_dcap(parsed: ParsedQuote, collateral: Collateral, root_der: bytes, now: int) -> Verified:
    """Verify a quote under a root certificate (DER) at `now` (unix seconds). Pure.

    Raises VerificationError, CollateralError or RootError. Any TCB status but Revoked passes: appraisal judges it.
    """
    chain = check_quote(parsed)
    root = load_root(root_der)
    window = intersection([collateral.window(), *map(certificate_window, chain), certificate_window(root)])
    _check_time(window, now)
    try:
        report = verify_quote(parsed.raw, collateral, root_der, now)
        pck = pck_values(chain[0].public_bytes(serialization.Encoding.PEM))
    except QvlRefused as cause:
        _refuse(
            Code.QUOTE_REFUSED,
            f"a quote that dcap-qvl refuses: {cause}",
            "a quote that holds under this root and collateral",
            "fetch collateral for this platform, or use another platform",
        )
    check_agreement(parsed, report, pck)
    posted = Pck.of(chain)
    return Verified(
        tee=parsed.tee,
        measurement=parsed.measurement,
        registers=registers(parsed),
        report_data=parsed.report_data,
        root=hashlib.sha256(root_der).digest(),
        tcb_status=_status(report.status),
        advisory_ids=report.advisory_ids,
        dcap=DcapClaims(
            tcb_evaluation=collateral.tcb_evaluation,
            qe_evaluation=collateral.qe_evaluation,
            fmspc=pck.fmspc,
            pck_serial=posted.serial,
        ),
        platform=posted.platform,
        svn_digest=versions(parsed, posted).digest,
        collateral=collateral.digest,
        verified_at=now,
        valid_until=window.end,
    )


def check_quote(parsed: ParsedQuote) -> list[x509.Certificate]:
    """What a quote decides without collateral; its PCK chain, leaf first. Raises VerificationError."""
    # A debug enclave's memory is the host's to read: to R4 it is no real one.
    if parsed.report.debug:
        _refuse(Code.DEBUG_ENCLAVE, "a debug enclave", "a production enclave", "launch it without the debug attribute")
    if not isinstance(parsed.report, SgxReport) and any(parsed.report.mr_service_td):
        # A service TD can change the measured TD at run time, and no measurement covers it (R3).
        _refuse(Code.SERVICE_TD, "a bound service TD", "MRSERVICETD of zeros", "launch the TD without one")
    return _pck_chain(parsed)


def registers(parsed: ParsedQuote) -> dict[str, bytes]:
    """What the measurement covers, by name (R3)."""
    table = SGX_REGISTERS if isinstance(parsed.report, SgxReport) else TDX_REGISTERS
    return {name: parsed.report.raw[offset : offset + size] for name, offset, size in table}


def _pck_chain(parsed: ParsedQuote) -> list[x509.Certificate]:
    if parsed.section.certification_type != CERTIFICATION_PCK_CHAIN:
        _refuse(
            Code.PCK_CHAIN,
            f"certification data of type {parsed.section.certification_type}",
            "type 5, a PCK certificate chain",
            "let the platform's quote provider library fetch its PCK certificate",
        )
    try:
        return pem_chain(parsed.section.certification.decode("latin-1"))
    except CollateralError as error:
        _refuse(Code.PCK_CHAIN, error.found, error.expected, "obtain the quote again")


def _check_time(window: Window, now: int) -> None:
    """R13: stale collateral refuses."""
    if now >= window.end:
        _refuse(
            Code.COLLATERAL_EXPIRED,
            f"a certificate or collateral that ended at {window.end}",
            f"one that holds at {now}",
            "fetch newer collateral",
        )
    if now < window.start:
        _refuse(
            Code.COLLATERAL_NOT_YET_VALID,
            f"a certificate or collateral that starts at {window.start}",
            f"one that holds at {now}",
            "check the clock, or fetch the collateral of that time",
        )


def check_agreement(parsed: ParsedQuote, report: QvlReport, pck: PckValues) -> None:
    """Two parsers read these bytes; a difference between them must never become an accepted claim (R3)."""
    theirs = report.report
    if isinstance(parsed.report, SgxReport):
        ours = {
            "cpu_svn": parsed.report.cpu_svn,
            "attributes": parsed.report.attributes,
            "mr_enclave": parsed.report.mrenclave,
            "mr_signer": parsed.report.mrsigner,
            "report_data": parsed.report_data,
        }
    else:
        ours = {
            "tee_tcb_svn": parsed.report.tee_tcb_svn,
            "td_attributes": parsed.report.td_attributes,
            "mr_td": parsed.report.mr_td,
            "rt_mr0": parsed.report.rtmr0,
            "rt_mr3": parsed.report.rtmr3,
            "report_data": parsed.report_data,
        }
    differing = [name for name, value in ours.items() if theirs.get(name) != value.hex()]
    if pck.ppid != report.ppid:
        differing.append("ppid")
    if differing:
        _refuse(
            Code.VERIFIER_DISAGREES,
            f"two readings of {', '.join(differing)}",
            "one reading of the quote",
            "refuse this quote and report it as a bug",
        )


def _status(name: str) -> TcbStatus:
    try:
        return INTEL_NAMES[name]
    except KeyError:
        _refuse(Code.QUOTE_REFUSED, f"TCB status {name!r}", ", ".join(INTEL_NAMES), "update this verifier")


def _refuse(code: Code, found: str, expected: str, action: str) -> NoReturn:
    raise VerificationError(code, found=found, expected=expected, action=action)
