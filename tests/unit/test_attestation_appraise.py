"""Third stage: every field of the policy can refuse, and an absent one does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from enclave_app.appraise.snp import Signer
from enclave_app.attesters.collateral import CollateralSpec
from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from oracle.agreement.enclave import OF_THE_VERIFIER
from oracle.attestation import (
    AppraisalError,
    AppraisalPolicy,
    Code,
    Collateral,
    PolicyError,
    SnpPolicy,
    TcbStatus,
    Verified,
    appraise,
    parse_evidence,
    verify,
)
from tests import nitro_kit
from tests.snp_kit import Authority, Chip

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
    registers={"mrenclave": (ENCLAVE.mrenclave,)},
    anchors=(VERIFIED.root,),
    statuses=(TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED),
    evaluation_floor=17,
    report_data=bytes(range(64)),
    advisories=("INTEL-SA-00001",),
    platforms=(VERIFIED.platform,),
)
FIELDS = tuple(name for name in AppraisalPolicy.model_fields if name != "snp")

MILAN = Authority()
CHIP = MILAN.chip()
GUEST = verify(parse_evidence(3, CHIP.report(bytes(range(64)))), CHIP.endorsements, MILAN.ark, NOW)
SNP = SnpPolicy(
    vmpl=(0,),
    min_tcb={"Milan": {"bootloader": 4, "tee": 2, "snp": 24, "microcode": 219}},
    keys=(Signer.VCEK,),
    migration_agent="refuse",
    smt="skip",
    single_socket="skip",
    alias_check="require",
)
GUEST_POLICY = AppraisalPolicy(
    measurements=(GUEST.measurement,),
    registers={"measurement": (GUEST.registers["measurement"],), "vmpl": (bytes(4),)},
    anchors=(GUEST.root,),
    report_data=bytes(range(64)),
    platforms=(GUEST.platform,),
    snp=SNP,
)
LINKS = nitro_kit.links()
DOCUMENT, NITRO_ROOT = nitro_kit.document(LINKS)


def with_field(name: str, value: object) -> AppraisalPolicy:
    return AppraisalPolicy.model_validate({**POLICY.model_dump(), name: value})


def test_a_policy_that_names_this_evidence_accepts_it() -> None:
    appraisal = appraise(VERIFIED, POLICY)
    assert (appraisal.verified, appraisal.skipped) == (VERIFIED, ())


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("measurements", (bytes(32),), Code.MEASUREMENT_NOT_LISTED),
        ("registers", {"mrenclave": (bytes(32),)}, Code.REGISTER_NOT_LISTED),
        ("registers", {"mrtd": (bytes(48),)}, Code.REGISTER_NOT_LISTED),
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


@pytest.mark.parametrize("field", [f for f in FIELDS if f not in ("evaluation_floor", "report_data", "registers")])
def test_an_empty_list_refuses(field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        appraise(VERIFIED, with_field(field, ()))
    assert caught.value.code is Code.POLICY_EMPTY


@pytest.mark.parametrize("value", [{}, {"mrenclave": ()}])
def test_an_empty_set_of_registers_refuses(value: object) -> None:
    with pytest.raises(PolicyError) as caught:
        appraise(VERIFIED, with_field("registers", value))
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
registers: {{mrenclave: ["0x{ENCLAVE.mrenclave.hex()}"]}}
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
        f"measurements: ['{'00' * 33}']",
        "measurements: [5]",
        "registers: {mrenclave: '0x00'}",
        f"registers: {{mrenclave: ['0x{'00' * 65}']}}",
        "registers: {mrenclave: ['0x']}",
        "snp: skip",
        "snp: {vmpls: [0]}",
        "snp: {vmpl: [4]}",
        "snp: {keys: [NONE]}",
        "snp: {smt: allow}",
        "snp: {min_tcb: {Rome: {bootloader: 1, tee: 1, snp: 1, microcode: 1}}}",
        "snp: {min_tcb: {Milan: {bootloader: 1, tee: 1, snp: 1}}}",
        "snp: {min_tcb: {Milan: {bootloader: 1, tee: 1, snp: 1, microcode: 256}}}",
        "snp: {min_tcb: {Turin: {bootloader: 1, tee: 1, snp: 1, microcode: 1}}}",
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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("statuses: [Fine]", "statuses[0]: expected one of UpToDate, "),
        ("snp: {vmpl: [4]}", "snp.vmpl[0]: Input should be less than or equal to 3"),
        ("evaluation_floor: -1", "evaluation_floor: Input should be greater than or equal to 0"),
        ("bogus: 1", "bogus: Extra inputs are not permitted"),
    ],
)
def test_a_malformed_policy_is_told_by_its_place_in_the_file(text: str, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        AppraisalPolicy.from_yaml(text)
    assert f"({told}" in caught.value.found
    assert "pydantic" not in caught.value.found
    assert "tuple[" not in caught.value.found


def guest(chip: Chip, **given: Any) -> Verified:
    return verify(parse_evidence(3, chip.report(bytes(range(64)), **given)), chip.endorsements, chip.authority.ark, NOW)


def with_snp(policy: AppraisalPolicy = GUEST_POLICY, **changes: Any) -> AppraisalPolicy:
    """Only what SEV-SNP alone has is judged."""
    fields = {**SNP.model_dump(), **changes}
    skipped = dict.fromkeys(("measurements", "registers"), "skip")
    return AppraisalPolicy.model_validate({**policy.model_dump(), **skipped, "snp": fields})


def test_a_policy_that_names_this_guest_accepts_it() -> None:
    assert appraise(GUEST, GUEST_POLICY).skipped == ("snp.smt", "snp.single_socket")


def test_intel_s_fields_are_not_asked_of_a_guest_of_amd_s_nor_the_other_way_round() -> None:
    assert (GUEST_POLICY.statuses, POLICY.snp) == (None, None)
    appraise(GUEST, GUEST_POLICY)
    appraise(VERIFIED, POLICY)
    for claims, policy, name in ((GUEST, POLICY, "snp.vmpl"), (VERIFIED, GUEST_POLICY, "statuses")):
        with pytest.raises(PolicyError, match=f"no {name}") as caught:
            appraise(claims, policy)
        assert caught.value.code is Code.POLICY_UNSET


@pytest.mark.parametrize("field", SnpPolicy.model_fields)
def test_an_unset_field_for_amd_refuses(field: str) -> None:
    with pytest.raises(PolicyError, match=f"no snp.{field}") as caught:
        appraise(GUEST, with_snp(GUEST_POLICY, **{field: None}))
    assert caught.value.code is Code.POLICY_UNSET


@pytest.mark.parametrize("field", ["vmpl", "keys"])
def test_an_empty_field_for_amd_refuses(field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        appraise(GUEST, with_snp(GUEST_POLICY, **{field: ()}))
    assert caught.value.code is Code.POLICY_EMPTY


@pytest.mark.parametrize("component", ["bootloader", "tee", "snp", "microcode"])
def test_each_component_of_a_tcb_has_its_least_version(component: str) -> None:
    assert isinstance(SNP.min_tcb, dict)
    higher = {**SNP.min_tcb["Milan"], component: SNP.min_tcb["Milan"][component] + 1}
    with pytest.raises(AppraisalError) as caught:
        appraise(GUEST, with_snp(min_tcb={"Milan": higher}))
    assert caught.value.code is Code.TCB_BELOW_MINIMUM


@pytest.mark.parametrize(
    ("field", "value", "given", "code"),
    [
        ("vmpl", (0,), {0x30: b"\x01"}, Code.VMPL_NOT_LISTED),
        ("min_tcb", {"Genoa": SNP.min_tcb["Milan"]}, {}, Code.TCB_BELOW_MINIMUM),  # type: ignore[index]
        ("keys", (Signer.VLEK,), {}, Code.KEY_NOT_LISTED),
        ("migration_agent", "refuse", {0x8: b"\0\0\x07"}, Code.MIGRATION_REFUSED),
        ("smt", "refuse", {}, Code.SMT_REFUSED),
        ("single_socket", "require", {}, Code.SINGLE_SOCKET_REQUIRED),
        ("alias_check", "require", {0x40: b"\x05"}, Code.ALIAS_CHECK_REQUIRED),
    ],
)
def test_one_thing_about_a_guest_that_does_not_fit_refuses(
    field: str, value: object, given: dict[int, bytes], code: Code
) -> None:
    claims = guest(CHIP, at=given)
    with pytest.raises(AppraisalError) as caught:
        appraise(claims, with_snp(GUEST_POLICY, **{field: value}))
    assert caught.value.code is code
    assert f"snp.{field}" in appraise(claims, with_snp(GUEST_POLICY, **{field: "skip"})).skipped


def test_no_agreement_takes_a_guest_that_an_agent_may_copy() -> None:
    """R3: whose agent it is, is not measured."""
    of_agreements = GUEST_POLICY.model_copy(update={"snp": OF_THE_VERIFIER, "measurements": "skip"})
    appraise(GUEST, of_agreements)
    with pytest.raises(AppraisalError) as caught:
        appraise(guest(CHIP, at={0x8: b"\0\0\x07"}), of_agreements)
    assert caught.value.code is Code.MIGRATION_REFUSED


@pytest.mark.parametrize(("field", "bits"), [("smt", b"\0\0\x02"), ("single_socket", b"\0\0\x13")])
def test_a_guest_policy_that_is_strict_enough_is_taken(field: str, bits: bytes) -> None:
    wanted = {"smt": "refuse", "single_socket": "require"}[field]
    appraise(guest(CHIP, at={0x8: bits}), with_snp(GUEST_POLICY, **{field: wanted}))


def test_a_machine_that_hides_its_id_is_on_no_list() -> None:
    """R5: every masked chip has the same id."""
    vlek = Authority(vlek=True, ark_key=MILAN.ark_key)
    claims = guest(vlek.chip())
    base = {**GUEST_POLICY.model_dump(), "anchors": (claims.root,)}
    listed = with_snp(AppraisalPolicy.model_validate({**base, "platforms": (claims.platform,)}), keys=(Signer.VLEK,))
    with pytest.raises(AppraisalError) as caught:
        appraise(claims, listed)
    assert caught.value.code is Code.PLATFORM_NOT_LISTED
    anywhere = with_snp(AppraisalPolicy.model_validate({**base, "platforms": "skip"}), keys=(Signer.VLEK,))
    assert "platforms" in appraise(claims, anywhere).skipped


def test_a_nitro_enclave_is_held_against_what_all_kinds_have() -> None:
    root = parse_evidence(4, DOCUMENT).cabundle[0]  # type: ignore[union-attr]
    claims = verify(parse_evidence(4, DOCUMENT), None, root, nitro_kit.NOW)
    policy = AppraisalPolicy(
        measurements=(claims.measurement,),
        registers={"pcr0": (nitro_kit.pcr("0"),), "pcr3": (nitro_kit.pcr("3"),)},
        anchors=(NITRO_ROOT,),
        report_data=bytes(range(64)),
        platforms=(claims.platform,),
    )
    assert appraise(claims, policy).skipped == ()
    for field, value, code in (
        ("measurements", (bytes(32),), Code.MEASUREMENT_NOT_LISTED),
        ("registers", {"pcr0": (bytes(48),)}, Code.REGISTER_NOT_LISTED),
        ("registers", {"pcr16": (bytes(48),)}, Code.REGISTER_NOT_LISTED),
        ("anchors", (bytes(32),), Code.ANCHOR_NOT_LISTED),
        ("report_data", bytes(64), Code.REPORT_DATA_MISMATCH),
        ("platforms", (bytes(32),), Code.PLATFORM_NOT_LISTED),
    ):
        with pytest.raises(AppraisalError) as caught:
            appraise(claims, AppraisalPolicy.model_validate({**policy.model_dump(), field: value}))
        assert caught.value.code is code


def test_a_policy_for_a_guest_reads_from_yaml() -> None:
    text = """
snp:
  vmpl: [0]
  min_tcb:
    Milan: {bootloader: 4, tee: 2, snp: 24, microcode: 219}
  keys: [VCEK]
  migration_agent: refuse
  smt: skip
  single_socket: skip
  alias_check: require
"""
    policy = AppraisalPolicy.from_yaml(text)
    assert policy.snp == SNP
    assert AppraisalPolicy.from_yaml(policy.model_dump_json()) == policy
