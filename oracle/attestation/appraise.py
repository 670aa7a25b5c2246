"""Third stage: claims against a policy. Pure, and the only stage that accepts anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, TypeVar

from oracle.attestation.claims import Verified
from oracle.attestation.errors import AppraisalError, Code, PolicyError
from oracle.attestation.policy import SKIP, AppraisalPolicy
from oracle.attestation.types import intel_name

T = TypeVar("T")


@dataclass(frozen=True)
class Appraisal:
    """Accepted claims, and the checks that the policy skipped by name."""

    verified: Verified
    skipped: tuple[str, ...]


def appraise(verified: Verified, policy: AppraisalPolicy) -> Appraisal:
    """Hold `verified` against every field of `policy`.

    Raises PolicyError where a field is unset or empty (R21), AppraisalError with one code for each check.
    """
    skipped = _complete(policy)
    # R3
    if not _listed(verified.measurement, policy.measurements):
        _refuse(
            Code.MEASUREMENT_NOT_LISTED,
            verified.measurement.hex(),
            _hexes(policy.measurements),
            "run an agreed enclave, or agree on this one",
        )
    # R4
    if not _listed(verified.root, policy.anchors):
        _refuse(
            Code.ANCHOR_NOT_LISTED,
            f"evidence under root {verified.root.hex()}",
            _hexes(policy.anchors),
            "use hardware under an agreed root; a development root counts only where it is listed",
        )
    # R4
    if not _listed(verified.tcb_status, policy.statuses):
        wanted = () if isinstance(policy.statuses, str) else policy.statuses or ()
        _refuse(
            Code.STATUS_NOT_ALLOWED,
            intel_name(verified.tcb_status),
            ", ".join(intel_name(status) for status in wanted),
            "update the platform's firmware and TCB, or allow this status knowingly",
        )
    # R4
    if isinstance(policy.evaluation_floor, int) and verified.evaluation < policy.evaluation_floor:
        _refuse(
            Code.EVALUATION_BELOW_FLOOR,
            f"evaluation number {verified.evaluation}",
            f"at least {policy.evaluation_floor}",
            "fetch collateral of a newer evaluation",
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
    if not isinstance(policy.advisories, str):
        hit = sorted(set(verified.advisory_ids) & set(policy.advisories or ()))
        # R4
        if hit:
            _refuse(Code.ADVISORY_REFUSED, ", ".join(hit), "none of them", "update the platform, or use another one")
    # R5
    if not _listed(verified.platform, policy.platforms):
        _refuse(
            Code.PLATFORM_NOT_LISTED,
            verified.platform.hex(),
            _hexes(policy.platforms),
            "run on an agreed platform, or agree on this one",
        )
    return Appraisal(verified, skipped)


def _complete(policy: AppraisalPolicy) -> tuple[str, ...]:
    """The skipped fields, once every field is seen to say something (R21)."""
    values = {name: getattr(policy, name) for name in AppraisalPolicy.model_fields}
    for name, value in values.items():
        if value is None:
            raise PolicyError(
                Code.POLICY_UNSET,
                found=f"no {name}",
                expected="a value, or the word skip",
                action=f"set {name} in the appraisal policy",
            )
        if value == ():
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
