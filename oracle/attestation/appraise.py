"""Third stage: claims against a policy. Pure, and the only stage that accepts anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from enclave_app.appraise.snp import SnpClaims
from oracle.attestation.claims import DcapClaims, Verified
from oracle.attestation.errors import AppraisalError, Code, PolicyError
from oracle.attestation.policy import SKIP, AppraisalPolicy, SnpPolicy
from oracle.attestation.types import intel_name

T = TypeVar("T")

COMMON_FIELDS: Final = ("measurements", "registers", "anchors", "report_data", "platforms")
DCAP_FIELDS: Final = ("statuses", "evaluation_floor", "advisories")
ALIAS_CHECK_COMPLETE: Final = 1 << 5
"""Of PLATFORM_INFO (AMD 56860)."""


@dataclass(frozen=True)
class Appraisal:
    """Accepted claims, and the checks that the policy skipped by name."""

    verified: Verified
    skipped: tuple[str, ...]


def appraise(verified: Verified, policy: AppraisalPolicy) -> Appraisal:
    """Hold `verified` against every field of `policy` that its kind of evidence has something for.

    Raises PolicyError where such a field is unset or empty (R21), AppraisalError with one code for each check.
    """
    skipped = _complete(verified, policy)
    # R3
    if not _listed(verified.measurement, policy.measurements):
        _refuse(
            Code.MEASUREMENT_NOT_LISTED,
            verified.measurement.hex(),
            _hexes(policy.measurements),
            "run an agreed enclave, or agree on this one",
        )
    _check_registers(verified, policy)
    # R4
    if not _listed(verified.root, policy.anchors):
        _refuse(
            Code.ANCHOR_NOT_LISTED,
            f"evidence under root {verified.root.hex()}",
            _hexes(policy.anchors),
            "use hardware under an agreed root; a development root counts only where it is listed",
        )
    # R2
    if policy.report_data not in (SKIP, verified.report_data):
        expected = policy.report_data
        _refuse(
            Code.REPORT_DATA_MISMATCH,
            verified.report_data.hex(),
            expected.hex() if isinstance(expected, bytes) else str(expected),
            "ask the enclave for a quote over this chain, registry, keys and a recent block",
        )
    if verified.dcap is not None:
        _check_dcap(verified, verified.dcap, policy)
    if verified.snp is not None and policy.snp is not None:
        _check_snp(verified.snp, policy.snp)
    # R5: a masked chip id names no machine, so no list can have it.
    masked = verified.snp is not None and verified.snp.chip_masked
    if policy.platforms != SKIP and (masked or not _listed(verified.platform, policy.platforms)):
        _refuse(
            Code.PLATFORM_NOT_LISTED,
            "a platform that hides its id" if masked else verified.platform.hex(),
            _hexes(policy.platforms),
            "run on an agreed platform, or agree on this one",
        )
    return Appraisal(verified, skipped)


def _check_registers(verified: Verified, policy: AppraisalPolicy) -> None:
    if not isinstance(policy.registers, dict):
        return
    for name, wanted in policy.registers.items():
        found = verified.registers.get(name)
        # R3
        if found not in wanted:
            _refuse(
                Code.REGISTER_NOT_LISTED,
                f"no register {name}" if found is None else f"{name} {found.hex()}",
                _hexes(wanted),
                f"run agreed code; {verified.tee.name} has {', '.join(verified.registers)}",
            )


def _check_dcap(verified: Verified, dcap: DcapClaims, policy: AppraisalPolicy) -> None:
    # R4
    if not _listed(verified.tcb_status, policy.statuses):
        wanted = () if isinstance(policy.statuses, str) else policy.statuses or ()
        _refuse(
            Code.STATUS_NOT_ALLOWED,
            "no status" if verified.tcb_status is None else intel_name(verified.tcb_status),
            ", ".join(intel_name(status) for status in wanted),
            "update the platform's firmware and TCB, or allow this status knowingly",
        )
    # R4
    if isinstance(policy.evaluation_floor, int) and verified.evaluation < policy.evaluation_floor:
        _refuse(
            Code.EVALUATION_BELOW_FLOOR,
            f"evaluation numbers {dcap.tcb_evaluation} and {dcap.qe_evaluation}",
            f"at least {policy.evaluation_floor}",
            "fetch collateral of a newer evaluation",
        )
    if not isinstance(policy.advisories, str):
        hit = sorted(set(verified.advisory_ids) & set(policy.advisories or ()))
        # R4
        if hit:
            _refuse(Code.ADVISORY_REFUSED, ", ".join(hit), "none of them", "update the platform, or use another one")


def _check_snp(claims: SnpClaims, policy: SnpPolicy) -> None:
    report = claims.report
    # R3
    if not _listed(report.vmpl, policy.vmpl):
        _refuse(
            Code.VMPL_NOT_LISTED, f"VMPL {report.vmpl}", str(policy.vmpl), "let the agreed level ask for the report"
        )
    if isinstance(policy.min_tcb, dict):
        least = policy.min_tcb.get(claims.line.name)
        # R4
        if least is None or any(claims.tcb[name] < level for name, level in least.items()):
            _refuse(
                Code.TCB_BELOW_MINIMUM,
                f"{claims.line.name} {claims.tcb}",
                f"at least {policy.min_tcb}",
                "update the platform's firmware and launch the guest again, or allow this TCB knowingly",
            )
    # R4
    if not _listed(report.signer, policy.keys):
        _refuse(
            Code.KEY_NOT_LISTED, f"a report signed by a {report.signer.name}", "an agreed kind of key", "agree on it"
        )
    # R3
    if policy.migration_agent == "refuse" and report.policy.migration_agent:
        _refuse(Code.MIGRATION_REFUSED, "a guest that an agent may copy", "bit 18 off", "launch it with another policy")
    # R3
    if policy.smt == "refuse" and report.policy.smt:
        _refuse(Code.SMT_REFUSED, "a guest that may share cores", "bit 16 off", "launch it with another policy")
    # R3
    if policy.single_socket == "require" and not report.policy.single_socket:
        _refuse(
            Code.SINGLE_SOCKET_REQUIRED, "a guest that may span sockets", "bit 20 on", "launch it with another policy"
        )
    # R4
    if policy.alias_check == "require" and not report.platform_info & ALIAS_CHECK_COMPLETE:
        _refuse(Code.ALIAS_CHECK_REQUIRED, "memory that was not checked for aliases", "bit 5 on", "update the firmware")


def _complete(verified: Verified, policy: AppraisalPolicy) -> tuple[str, ...]:
    """The skipped fields, once every field that this evidence calls for is seen to say something (R21)."""
    values = {name: getattr(policy, name) for name in COMMON_FIELDS}
    if verified.dcap is not None:
        values |= {name: getattr(policy, name) for name in DCAP_FIELDS}
    if verified.snp is not None:
        snp = policy.snp or SnpPolicy()
        values |= {f"snp.{name}": getattr(snp, name) for name in SnpPolicy.model_fields}
    for name, value in values.items():
        if value is None:
            raise PolicyError(
                Code.POLICY_UNSET,
                found=f"no {name}",
                expected="a value, or the word skip",
                action=f"set {name} in the appraisal policy",
            )
        if value == () or value == {} or (isinstance(value, dict) and () in value.values()):
            raise PolicyError(
                Code.POLICY_EMPTY,
                found=f"an empty {name}",
                expected="at least one entry, or the word skip",
                action=f"list what {name} may be",
            )
    return tuple(name for name, value in values.items() if value == SKIP)


def _listed(value: T, wanted: tuple[T, ...] | str | None) -> bool:
    return wanted == SKIP or (isinstance(wanted, tuple) and value in wanted)


def _hexes(wanted: tuple[bytes, ...] | str | None) -> str:
    return "one of " + ", ".join(each.hex() for each in wanted) if isinstance(wanted, tuple) else str(wanted)


def _refuse(code: Code, found: str, expected: str, action: str) -> NoReturn:
    raise AppraisalError(code, found=found, expected=expected, action=action)
