"""What dcap-qvl 0.7.0 answers to minted evidence where Intel's documents leave room: the contract follows these answers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import dcap_qvl
import pytest

from tests.dcap_kit import (
    CPU_SVN,
    DAY,
    LEVELS,
    NOW,
    PCE_SVN,
    TEE_TCB_SVN,
    VALID,
    Authority,
    Case,
    Crl,
    Level,
    Module,
    QvlRefused,
    Span,
    SvnLevel,
    TdBody,
    ask_qvl,
    sgx_case,
    tdx_case,
)

AUTHORITY = Authority.make()
SGX = sgx_case(AUTHORITY)
TDX4 = tdx_case(4, AUTHORITY)
TDX5 = tdx_case(5, AUTHORITY)
CASES = {"sgx-3": SGX, "tdx-4": TDX4, "tdx-5": TDX5}

PLATFORM = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
OUT_OF_DATE = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
}
"""A platform's status where its QE or its TDX module is out of date."""


def refused(case: Case, reason: str, now: int = NOW) -> None:
    with pytest.raises(QvlRefused, match=reason):
        case.ask(now)


def with_levels(case: Case, *levels: Level) -> Case:
    return replace(case, tcb=replace(case.tcb, levels=levels))


def with_module(case: Case, *levels: SvnLevel) -> Case:
    return replace(case, tcb=replace(case.tcb, modules=(Module(0), Module(1, levels=levels))))


def with_qe(case: Case, *levels: SvnLevel) -> Case:
    return replace(case, qe=replace(case.qe, levels=levels))


def with_body(case: Case, **changes: Any) -> Case:
    assert isinstance(case.body, TdBody)
    return replace(case, body=replace(case.body, **changes))


@pytest.mark.parametrize("name", CASES)
def test_minted_evidence_is_accepted_with_the_status_it_was_minted_for(name: str) -> None:
    for status in PLATFORM:
        assert with_levels(CASES[name], Level(status)).ask() == status


@pytest.mark.parametrize("name", CASES)
def test_a_revoked_level_and_a_status_that_tcb_info_does_not_have_are_refused(name: str) -> None:
    refused(with_levels(CASES[name], Level("Revoked")), "Revoked")
    refused(with_levels(CASES[name], Level("TDRelaunchAdvised")), "Unrecognized TCB status")
    refused(with_levels(CASES[name], Level("Unheard")), "unknown variant")


@pytest.mark.parametrize("platform", PLATFORM)
def test_a_qe_moves_the_status_only_where_it_is_out_of_date_or_revoked(platform: str) -> None:
    case = with_levels(SGX, Level(platform))
    for unmoving in ("UpToDate", "ConfigurationNeeded", "OutOfDateConfigurationNeeded"):
        assert with_qe(case, SvnLevel(8, unmoving)).ask() == platform
    assert with_qe(case, SvnLevel(8, "OutOfDate")).ask() == OUT_OF_DATE[platform]
    refused(with_qe(case, SvnLevel(8, "Revoked")), "Revoked")
    refused(with_qe(case, SvnLevel(8, "SWHardeningNeeded")), "Unrecognized TCB status")


@pytest.mark.parametrize("platform", PLATFORM)
def test_a_module_moves_the_status_only_where_it_is_out_of_date_or_revoked(platform: str) -> None:
    case = with_levels(TDX4, Level(platform))
    assert with_module(case, SvnLevel(5)).ask() == platform
    assert with_module(case, SvnLevel(5, "OutOfDate")).ask() == OUT_OF_DATE[platform]
    refused(with_module(case, SvnLevel(5, "Revoked")), "Revoked")
    refused(with_module(case, SvnLevel(5, "ConfigurationNeeded")), "Unrecognized TCB status")


def test_levels_count_in_descending_order_however_they_are_written() -> None:
    best, lower, lowest = Level("ConfigurationNeeded"), Level("OutOfDate", pce_svn=12), LEVELS[1]
    for order in itertools.permutations((best, lower, lowest)):
        assert with_levels(SGX, *order).ask() == "ConfigurationNeeded"
    # SGX components count before PCESVN, and both before TDX components.
    smaller = replace(lower, components=CPU_SVN[:15] + b"\x00", pce_svn=PCE_SVN)
    assert with_levels(SGX, smaller, replace(best, pce_svn=0)).ask() == "OutOfDate"
    without = Level("OutOfDate", tdx=TEE_TCB_SVN[:15] + b"\x00", pce_svn=PCE_SVN)
    assert with_levels(TDX4, without, replace(best, pce_svn=0, tdx=TEE_TCB_SVN)).ask() == "OutOfDate"


@pytest.mark.parametrize("position", [i for i, svn in enumerate(CPU_SVN) if svn < 255])
def test_every_sgx_component_has_to_be_met(position: int) -> None:
    higher = bytes(svn + (i == position) for i, svn in enumerate(CPU_SVN))
    assert with_levels(SGX, Level(components=higher), Level("OutOfDate")).ask() == "OutOfDate"
    refused(with_levels(SGX, Level(components=higher)), "No matching TCB level")


def test_pcesvn_has_to_be_met() -> None:
    assert with_levels(SGX, Level(pce_svn=PCE_SVN + 1), Level("OutOfDate")).ask() == "OutOfDate"


@pytest.mark.parametrize("position", range(16))
def test_the_first_two_tdx_components_are_left_to_the_module_unless_its_version_is_zero(position: int) -> None:
    higher = bytes(svn + (i == position) for i, svn in enumerate(TEE_TCB_SVN))
    case = with_levels(TDX4, Level(tdx=higher), Level("OutOfDate", pce_svn=0, tdx=bytes(16)))
    assert case.ask() == ("UpToDate" if position < 2 else "OutOfDate")

    version_0 = b"\x05\x00" + TEE_TCB_SVN[2:]
    higher = bytes(svn + (i == position) for i, svn in enumerate(version_0))
    case = with_levels(TDX4, Level(tdx=higher), Level("OutOfDate", pce_svn=0, tdx=bytes(16)))
    assert with_body(case, tee_tcb_svn=version_0).ask() == "OutOfDate"


def test_a_module_of_version_zero_is_judged_by_no_module_level() -> None:
    version_0 = b"\x05\x00" + TEE_TCB_SVN[2:]
    case = with_levels(with_module(TDX4, SvnLevel(9, "Revoked")), Level(tdx=version_0))
    assert with_body(case, tee_tcb_svn=version_0).ask() == "UpToDate"


def test_a_module_without_an_identity_or_a_level_is_refused() -> None:
    refused(replace(TDX4, tcb=replace(TDX4.tcb, modules=(Module(0),))), "No TDX module identity with id TDX_01")
    refused(replace(TDX4, tcb=replace(TDX4.tcb, modules=(Module(0), Module(3)))), "No TDX module identity")
    refused(with_module(TDX4, SvnLevel(6)), "below minimum")


def test_the_first_identity_and_the_first_level_that_fit_count() -> None:
    worse = Module(1, levels=(SvnLevel(5, "OutOfDate"),))
    tcb = replace(TDX4.tcb, modules=(Module(0), worse, Module(1)))
    assert replace(TDX4, tcb=tcb).ask() == "OutOfDate"
    assert with_module(TDX4, SvnLevel(2, "OutOfDate"), SvnLevel(5)).ask() == "OutOfDate"
    assert with_qe(SGX, SvnLevel(2, "OutOfDate"), SvnLevel(8)).ask() == "OutOfDate"


def test_the_module_is_who_signed_it_and_what_its_attributes_say() -> None:
    refused(with_body(TDX4, mr_signer_seam=bytes(48)), "MRSIGNER mismatch")
    refused(with_body(TDX4, seam_attributes=bytes(7) + b"\x01"), "SEAMATTRIBUTES mismatch")
    masked = replace(TDX4, tcb=replace(TDX4.tcb, modules=(Module(0), Module(1, mask=bytes(8)))))
    assert masked.ask() == "UpToDate"
    refused(with_body(masked, seam_attributes=bytes(7) + b"\x01"), "outside mask")


LAUNCHED = {
    ("OutOfDate", "UpToDate"): "TDRelaunchAdvised",
    ("OutOfDate", "SWHardeningNeeded"): "TDRelaunchAdvised",
    ("OutOfDate", "ConfigurationNeeded"): "TDRelaunchAdvisedConfigurationNeeded",
    ("OutOfDate", "ConfigurationAndSWHardeningNeeded"): "TDRelaunchAdvisedConfigurationNeeded",
    ("OutOfDate", "OutOfDate"): "OutOfDate",
    ("OutOfDate", "OutOfDateConfigurationNeeded"): "OutOfDate",
    ("OutOfDateConfigurationNeeded", "UpToDate"): "TDRelaunchAdvisedConfigurationNeeded",
    ("OutOfDateConfigurationNeeded", "OutOfDate"): "OutOfDateConfigurationNeeded",
    ("ConfigurationNeeded", "UpToDate"): "ConfigurationNeeded",
    ("UpToDate", "OutOfDate"): "UpToDate",
}
"""Status by launch level and by current level."""
NEWER = TEE_TCB_SVN[:2] + b"\x05" + TEE_TCB_SVN[3:]


@pytest.mark.parametrize(("launch", "current"), LAUNCHED)
def test_a_td_1_5_is_judged_by_what_it_was_launched_on_and_by_what_runs_now(launch: str, current: str) -> None:
    case = with_levels(TDX5, Level(current, tdx=NEWER), Level(launch))
    assert with_body(case, tee_tcb_svn2=NEWER).ask() == LAUNCHED[launch, current]
    assert case.ask() == launch


def test_what_a_td_1_5_runs_on_now_may_lie_below_its_launch_but_must_be_known() -> None:
    case = with_levels(TDX5, Level(tdx=NEWER), Level("OutOfDate"))
    fallen = with_body(case, tee_tcb_svn=NEWER, tee_tcb_svn2=TEE_TCB_SVN)
    assert fallen.ask() == "UpToDate"
    refused(with_levels(fallen, Level(tdx=NEWER)), "No matching TCB level")
    refused(with_levels(fallen, Level(tdx=NEWER), Level("Revoked")), "Revoked")


def test_the_module_that_a_td_1_5_runs_on_now_has_to_be_known_and_not_revoked() -> None:
    moved = with_body(TDX5, tee_tcb_svn2=b"\x05\x03" + TEE_TCB_SVN[2:])
    assert moved.ask() == "UpToDate"
    refused(with_body(TDX5, tee_tcb_svn2=b"\x05\x02" + TEE_TCB_SVN[2:]), "No TDX module identity with id TDX_02")
    modules = (Module(0), Module(1), Module(3, levels=(SvnLevel(5, "Revoked"),)))
    refused(replace(moved, tcb=replace(moved.tcb, modules=modules)), "Revoked")
    # Only the module of the launch has to be the one that SEAMATTRIBUTES and MRSIGNERSEAM describe.
    modules = (Module(0), Module(1), Module(3, mr_signer=bytes(48)))
    assert replace(moved, tcb=replace(moved.tcb, modules=modules)).ask() == "UpToDate"


def test_a_qe_out_of_date_counts_for_launch_and_for_now() -> None:
    case = with_body(with_levels(TDX5, Level(tdx=NEWER), Level("OutOfDate")), tee_tcb_svn2=NEWER)
    assert case.ask() == "TDRelaunchAdvised"
    assert with_qe(case, SvnLevel(8, "OutOfDate")).ask() == "OutOfDate"


@pytest.mark.parametrize("bit", range(64))
def test_td_attributes_are_taken_bit_by_bit(bit: int) -> None:
    allowed = {16, 18, 19, 20, 21, 22, 27, 28, 30, 31, 62, 63}
    case = with_body(TDX4, td_attributes=(1 << 28 | 1 << bit).to_bytes(8, "little"))
    if bit in allowed:
        assert case.ask() == "UpToDate"
    else:
        refused(case, "Debug|profiling|Reserved bits|migration|SERVTD_EXT")


def test_a_td_without_sept_ve_disable_or_with_a_service_td_is_refused() -> None:
    refused(with_body(TDX4, td_attributes=bytes(8)), "SEPT_VE_DISABLE")
    refused(with_body(TDX5, mr_service_td=bytes(47) + b"\x01"), "service TD")


def test_a_debug_quoting_enclave_is_refused_whatever_the_identity_masks() -> None:
    report = replace(SGX.qe_report, flags=SGX.qe_report.flags | 2)
    case = replace(SGX, qe_report=report, qe=replace(SGX.qe, attributes_mask=bytes(16)))
    refused(case, "Debug")


def test_authentication_data_has_32_bytes() -> None:
    refused(replace(SGX, auth=bytes(31)), "QE auth data length")
    refused(replace(SGX, auth=bytes(33)), "QE auth data length")
    assert replace(SGX, auth=bytes(32)).ask() == "UpToDate"


def test_documents_and_certificates_hold_through_their_last_second_and_lists_until_it() -> None:
    end = NOW + DAY
    ends = Span(NOW - DAY, end)
    documents = (
        replace(SGX, tcb=replace(SGX.tcb, span=ends)),
        replace(SGX, qe=replace(SGX.qe, span=ends)),
        replace(SGX, pck=AUTHORITY.platform(span=ends)),
        sgx_case(Authority.make(ca=ends)),
        sgx_case(Authority.make(signer=ends)),
    )
    for case in documents:
        assert case.ask(end) == "UpToDate"
        refused(case, "expired|Expired", end + 1)
    for case in (replace(SGX, root_crl=Crl(ends)), replace(SGX, pck_crl=Crl(ends))):
        assert case.ask(end - 1) == "UpToDate"
        refused(case, "CrlExpired", end)


def test_nothing_holds_before_its_first_second_but_revocation_lists() -> None:
    later = Span(NOW + 1, NOW + DAY)
    cases = (
        replace(SGX, tcb=replace(SGX.tcb, span=later)),
        replace(SGX, qe=replace(SGX.qe, span=later)),
        replace(SGX, pck=AUTHORITY.platform(span=later)),
        sgx_case(Authority.make(ca=later)),
        sgx_case(Authority.make(signer=later)),
    )
    for case in cases:
        refused(case, "future|NotValidYet")
        assert case.ask(NOW + 1) == "UpToDate"
    assert replace(SGX, root_crl=Crl(later), pck_crl=Crl(later)).ask() == "UpToDate"


def test_root_is_taken_by_its_key_alone_so_its_dates_are_ours_to_check() -> None:
    assert sgx_case(Authority.make(root=Span(NOW - 2 * DAY, NOW - DAY))).ask() == "UpToDate"


def test_a_revoked_certificate_is_refused_wherever_it_stands_in_a_chain() -> None:
    refused(replace(SGX, pck_crl=Crl(VALID, (SGX.pck,))), "CertRevoked")
    for revoked in (AUTHORITY.ca, AUTHORITY.signer, AUTHORITY.root):
        refused(replace(SGX, root_crl=Crl(VALID, (revoked,))), "CertRevoked")
    assert replace(SGX, root_crl=Crl(VALID, (SGX.pck,)), pck_crl=Crl(VALID, (AUTHORITY.signer,))).ask() == "UpToDate"


def test_pceid_is_not_compared_by_dcap_qvl_so_it_is_ours_to_check() -> None:
    assert replace(SGX, pck=AUTHORITY.platform(pce_id=b"\x00\x01")).ask() == "UpToDate"
    refused(replace(SGX, pck=AUTHORITY.platform(fmspc=bytes(6))), "Fmspc")


def test_evaluation_is_the_lower_of_the_two_numbers() -> None:
    for tcb, qe in ((17, 19), (19, 17)):
        case = replace(SGX, tcb=replace(SGX.tcb, evaluation=tcb), qe=replace(SGX.qe, evaluation=qe))
        pieces = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(case.pieces))
        policy = dcap_qvl.QuotePolicy.claims_only(NOW)
        claims = dcap_qvl.QuoteVerifier(case.root_der).verify_with_policy(case.quote, pieces, NOW, policy)
        assert json.loads(claims.to_json())["tcb"]["eval_data_number"] == 17


def test_a_high_s_is_accepted() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    quote, start = SGX.quote, 48 + 384 + 4 + 32
    s = int.from_bytes(quote[start : start + 32], "big")
    mirrored = quote[:start] + (order - s).to_bytes(32, "big") + quote[start + 32 :]
    assert ask_qvl(mirrored, SGX.pieces, SGX.root_der, NOW) == "UpToDate"
