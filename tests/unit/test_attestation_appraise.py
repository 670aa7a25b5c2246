"""Third stage: every field of the policy can refuse, and an absent one does."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import ValidationError

from enclave_app.attesters.collateral import CollateralSpec
from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from oracle.attestation import (
    AppraisalError,
    AppraisalPolicy,
    Code,
    Collateral,
    PolicyError,
    TcbStatus,
    appraise,
    parse_evidence,
    verify,
)

NOW = 1_800_000_000
AUTHORITY = DevelopmentAuthority(NOW)
PLATFORM = AUTHORITY.issue_platform()
ENCLAVE = SoftwareEnclave(mrenclave=bytes(range(32)), launch_config=b"configuration")
QUOTE = asyncio.run(SoftwareAttester(PLATFORM, ENCLAVE).quote(bytes(range(64))))
SPEC = CollateralSpec(PLATFORM.cpu_svn, PLATFORM.pce_svn, "SWHardeningNeeded", ("INTEL-SA-00615",))
VERIFIED = verify(
    parse_evidence(1, QUOTE), Collateral.from_json(json.dumps(AUTHORITY.collateral(SPEC))), AUTHORITY.root_der, NOW
)
POLICY = AppraisalPolicy(
    measurements=(ENCLAVE.measurement,),
    anchors=(VERIFIED.root,),
    statuses=(TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED),
    evaluation_floor=17,
    report_data=bytes(range(64)),
    advisories=("INTEL-SA-00001",),
    platforms=(VERIFIED.platform,),
)
FIELDS = tuple(AppraisalPolicy.model_fields)


def with_field(name: str, value: object) -> AppraisalPolicy:
    return AppraisalPolicy.model_validate({**POLICY.model_dump(), name: value})


def test_a_policy_that_names_this_evidence_accepts_it() -> None:
    appraisal = appraise(VERIFIED, POLICY)
    assert (appraisal.verified, appraisal.skipped) == (VERIFIED, ())


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("measurements", (bytes(32),), Code.MEASUREMENT_NOT_LISTED),
        ("anchors", (bytes(32),), Code.ANCHOR_NOT_LISTED),
        ("statuses", (TcbStatus.UP_TO_DATE,), Code.STATUS_NOT_ALLOWED),
        ("evaluation_floor", 18, Code.EVALUATION_BELOW_FLOOR),
        ("report_data", bytes(64), Code.REPORT_DATA_MISMATCH),
        ("advisories", ("INTEL-SA-00615",), Code.ADVISORY_REFUSED),
        ("platforms", (bytes(32),), Code.PLATFORM_NOT_LISTED),
    ],
)
def test_one_field_that_does_not_fit_refuses_under_its_own_code(field: str, value: object, code: Code) -> None:
    with pytest.raises(AppraisalError) as caught:
        appraise(VERIFIED, with_field(field, value))
    assert caught.value.code is code
    assert all((caught.value.found, caught.value.expected, caught.value.action))


@pytest.mark.parametrize("field", FIELDS)
def test_an_unset_field_refuses(field: str) -> None:
    with pytest.raises(PolicyError, match=f"no {field}") as caught:
        appraise(VERIFIED, with_field(field, None))
    assert caught.value.code is Code.POLICY_UNSET


@pytest.mark.parametrize("field", [f for f in FIELDS if f not in ("evaluation_floor", "report_data")])
def test_an_empty_list_refuses(field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        appraise(VERIFIED, with_field(field, ()))
    assert caught.value.code is Code.POLICY_EMPTY


def test_an_empty_policy_refuses() -> None:
    with pytest.raises(PolicyError):
        appraise(VERIFIED, AppraisalPolicy())


@pytest.mark.parametrize("field", FIELDS)
def test_a_check_skipped_by_name_is_named_in_the_appraisal(field: str) -> None:
    assert appraise(VERIFIED, with_field(field, "skip")).skipped == (field,)


def test_a_policy_reads_from_yaml_and_is_frozen() -> None:
    text = f"""
measurements: ["0x{ENCLAVE.measurement.hex()}"]
anchors: ["0x{VERIFIED.root.hex()}"]
statuses: [UpToDate, SWHardeningNeeded]
evaluation_floor: 17
report_data: "0x{bytes(range(64)).hex()}"
advisories: [INTEL-SA-00001]
platforms: ["0x{VERIFIED.platform.hex()}"]
"""
    policy = AppraisalPolicy.from_yaml(text)
    assert policy == POLICY
    assert AppraisalPolicy.from_yaml(policy.model_dump_json()) == POLICY
    with pytest.raises(ValidationError):
        policy.evaluation_floor = 0


def test_a_bare_digest_is_the_text_that_it_looks_like() -> None:
    bare, quoted = (AppraisalPolicy.from_yaml(f"measurements: [{m}0x{'00' * 32}{m}]") for m in ("", "'"))
    assert bare == quoted
    assert bare.measurements == (bytes(32),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- measurements",
        "measurement: skip",
        "measurements: any",
        "measurements: ['0x00']",
        "statuses: [Fine]",
        "evaluation_floor: -1",
        "evaluation_floor: '17'",
        "report_data: '0x00'",
        "measurements: [",
    ],
)
def test_a_malformed_policy_is_refused(text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        AppraisalPolicy.from_yaml(text)
    assert caught.value.code is Code.POLICY_FORMAT
