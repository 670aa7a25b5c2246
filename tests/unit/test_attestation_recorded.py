"""Evidence of real machines, at the time of its recording, under Intel's pinned root."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from oracle.attestation import (
    Code,
    SgxReport,
    Tee,
    VerificationError,
    intel_root,
    parse_dcap,
    parse_evidence,
    verify,
)
from oracle.attestation.quote import ParsedQuote
from oracle.attestation.types import INTEL_NAMES
from tests import recorded_kit
from tests.recorded_kit import collateral, evidence, named

CASES = recorded_kit.cases("sgx", "tdx")
RUNS = [(case, run) for case, run in recorded_kit.runs("sgx", "tdx") if run["collateral"]]
ACCEPTED = [(case, run) for case, run in RUNS if run["expected"] == "ok"]
REFUSED = {
    "Debug mode is enabled": Code.DEBUG_ENCLAVE,
    "Invalid MR service TD": Code.SERVICE_TD,
    "SEPT_VE_DISABLE is not enabled": Code.QUOTE_REFUSED,
    "No matching TCB level found": Code.QUOTE_REFUSED,
}


def read(case: dict[str, Any]) -> tuple[int, bytes]:
    return Tee[case["tee"].upper()].value, evidence(case)


def quote(case: dict[str, Any]) -> ParsedQuote:
    return parse_dcap(*read(case))


def registers(parsed: ParsedQuote) -> dict[str, object]:
    report = parsed.report
    if isinstance(report, SgxReport):
        return {
            "mr_enclave": report.mrenclave.hex(),
            "mr_signer": report.mrsigner.hex(),
            "attributes": report.attributes.hex(),
            "cpu_svn": report.cpu_svn.hex(),
            "isv_prod_id": int.from_bytes(report.isv_prod_id, "little"),
            "isv_svn": int.from_bytes(report.isv_svn, "little"),
        }
    names = ("mr_td", "mr_seam", "mr_config_id", "mr_owner", "td_attributes", "xfam", "tee_tcb_svn")
    values: dict[str, object] = {name: getattr(report, name).hex() for name in names}
    values |= {f"rt_mr{i}": getattr(report, f"rtmr{i}").hex() for i in range(4)}
    return values | {"mr_service_td": report.mr_service_td.hex(), "tee_tcb_svn2": report.tee_tcb_svn2.hex()}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_recorded_quote_parses_into_its_recorded_fields(case: dict[str, Any]) -> None:
    assert hashlib.sha256(evidence(case)).hexdigest() == case["quote"]["sha256"]

    parsed = quote(case)

    assert (parsed.declared_end, parsed.trailing) == (case["declared_end"], case["trailing_bytes"])
    found = {**registers(parsed), "report_data": parsed.report_data.hex()}
    for name, value in case["fields"].items():
        assert found[name] == value, name


@pytest.mark.parametrize(("case", "run"), ACCEPTED, ids=named(ACCEPTED))
def test_a_recorded_quote_gives_its_status_at_its_time(case: dict[str, Any], run: dict[str, Any]) -> None:
    claims = verify(parse_evidence(*read(case)), collateral(run["collateral"]), intel_root(), run["now"])

    assert claims.tcb_status is INTEL_NAMES[run["status"]]
    assert list(claims.advisory_ids) == run["advisory_ids"]
    assert claims.dcap is not None
    assert claims.dcap.fmspc.hex() == case["pck"]["fmspc"]
    assert claims.root == hashlib.sha256(intel_root()).digest()
    assert run["now"] < claims.valid_until


@pytest.mark.parametrize(("case", "run"), ACCEPTED, ids=named(ACCEPTED))
def test_a_recorded_quote_is_refused_after_its_collateral_ended(case: dict[str, Any], run: dict[str, Any]) -> None:
    parsed, pieces = parse_evidence(*read(case)), collateral(run["collateral"])
    end = verify(parsed, pieces, intel_root(), run["now"]).valid_until
    verify(parsed, pieces, intel_root(), end - 1)
    with pytest.raises(VerificationError) as caught:
        verify(parsed, pieces, intel_root(), end)
    assert caught.value.code is Code.COLLATERAL_EXPIRED


REJECTED = [(case, run) for case, run in RUNS if run["expected"] == "reject"]


@pytest.mark.parametrize(("case", "run"), REJECTED, ids=named(REJECTED))
def test_a_recorded_quote_that_must_not_count_is_refused(case: dict[str, Any], run: dict[str, Any]) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(parse_evidence(*read(case)), collateral(run["collateral"]), intel_root(), run["now"])
    assert caught.value.code is REFUSED[run["reason"]]


def test_a_recorded_quote_without_a_certificate_chain_is_refused() -> None:
    case = recorded_kit.case("oasis-sgx-v3-eppid-nochain")
    pieces = collateral("sgx-00a067110000-processor-2025-06-19")
    with pytest.raises(VerificationError) as caught:
        verify(parse_evidence(*read(case)), pieces, intel_root(), 1_751_624_924)
    assert caught.value.code is Code.PCK_CHAIN


def test_both_kinds_and_all_three_versions_are_among_the_accepted() -> None:
    versions = {(case["tee"], quote(case).version) for case, _ in ACCEPTED}
    assert versions == {("sgx", 3), ("tdx", 4), ("tdx", 5)}
