"""Second stage on minted evidence: each negative changes one thing of a case that holds."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from enclave_app.appraise.errors import Code as AppraiseCode
from enclave_app.attesters.collateral import CollateralSpec
from enclave_app.attesters.dcap_format import FLAG_DEBUG, FLAG_INIT, FLAG_MODE64BIT
from enclave_app.attesters.platform import DAY, DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from oracle.attestation import (
    Code,
    Collateral,
    CollateralError,
    DcapClaims,
    DevelopmentRoot,
    EvidenceError,
    Parsed,
    RootError,
    SnpEndorsements,
    TcbStatus,
    VerificationError,
    Verified,
    dcap,
    intel_root,
    parse_dcap,
    parse_evidence,
    verify,
)
from oracle.attestation.dcap import check_agreement
from oracle.attestation.qvl import pck_values, verify_quote
from oracle.attestation.types import intel_name
from tests import recorded_kit

NOW = 1_800_000_000
ENCLAVE = SoftwareEnclave(mrenclave=bytes(range(32)), launch_config=b"configuration")
AUTHORITY = DevelopmentAuthority(NOW)
PLATFORM = AUTHORITY.issue_platform()
QUOTE = asyncio.run(SoftwareAttester(PLATFORM, ENCLAVE).quote(bytes(range(64))))
COLLATERAL = Collateral.from_json(json.dumps(AUTHORITY.collateral()))


def check(
    quote: bytes = QUOTE, collateral: Collateral = COLLATERAL, root: bytes = AUTHORITY.root_der, now: int = NOW
) -> Verified:
    return verify(parse_evidence(1, quote), collateral, root, now)


def code_of(error: pytest.ExceptionInfo[VerificationError]) -> str:
    return error.value.code


def minted(**fields: object) -> Collateral:
    spec = replace(CollateralSpec(PLATFORM.cpu_svn, PLATFORM.pce_svn), **fields)  # type: ignore[arg-type]
    return Collateral.from_json(json.dumps(AUTHORITY.collateral(spec)))


def test_a_minted_quote_gives_the_claims_that_were_put_in() -> None:
    claims = check()

    assert claims.tcb_status is TcbStatus.UP_TO_DATE
    assert claims.measurement == ENCLAVE.measurement
    assert claims.report_data == bytes(range(64))
    assert claims.root == hashlib.sha256(AUTHORITY.root_der).digest() == DevelopmentRoot(AUTHORITY.root_der).digest
    assert claims.platform == hashlib.sha256(PLATFORM.ppid).digest()
    assert claims.dcap == DcapClaims(17, 17, PLATFORM.fmspc, PLATFORM.serial)
    assert claims.registers["mrenclave"] == ENCLAVE.mrenclave
    assert claims.evaluation == 17
    assert claims.collateral == COLLATERAL.digest
    assert claims.valid_until == NOW + 30 * DAY


def test_each_kind_of_evidence_takes_its_own_endorsements_only() -> None:
    snp, nitro = recorded_kit.case("virtee-milan-v2"), recorded_kit.case("anjuna-prod-2023")
    endorsements = recorded_kit.endorsements(snp)
    kinds: list[tuple[Parsed, Collateral | SnpEndorsements | None]] = [
        (parse_evidence(1, QUOTE), COLLATERAL),
        (parse_evidence(3, recorded_kit.evidence(snp)), endorsements),
        (parse_evidence(4, recorded_kit.evidence(nitro)), None),
    ]
    for parsed, _ in kinds:
        for other, given in kinds:
            if other is not parsed:
                with pytest.raises(VerificationError) as caught:
                    verify(parsed, given, AUTHORITY.root_der, NOW)
                assert code_of(caught) is Code.ENDORSEMENTS_KIND


def test_what_amd_and_aws_call_evidence_refuses_under_the_names_of_this_package() -> None:
    report, document = (
        parse_evidence(3, recorded_kit.evidence(recorded_kit.case("virtee-milan-v2"))),
        parse_evidence(4, recorded_kit.evidence(recorded_kit.case("anjuna-prod-2023"))),
    )
    endorsements = recorded_kit.endorsements(recorded_kit.case("virtee-milan-v2"))
    for parsed, given in ((report, endorsements), (document, None)):
        with pytest.raises(VerificationError) as caught:
            verify(parsed, given, AUTHORITY.root_der, NOW)
        assert code_of(caught) is Code.ROOT_MISMATCH
    for tee in (3, 4):
        with pytest.raises(EvidenceError) as malformed:
            parse_evidence(tee, b"")
        assert malformed.value.code is Code.EVIDENCE_TOO_SHORT
    assert {str(code) for code in AppraiseCode} <= {str(code) for code in Code}


def test_padding_does_not_change_the_claims() -> None:
    assert check(QUOTE + bytes(100)) == check()


def test_other_roots_refuse_it() -> None:
    for root in (intel_root(), DevelopmentAuthority(NOW).root_der):
        with pytest.raises(VerificationError) as caught:
            check(root=root)
        assert code_of(caught) is Code.QUOTE_REFUSED


def test_collateral_of_another_root_refuses_it() -> None:
    other = Collateral.from_json(json.dumps(DevelopmentAuthority(NOW).collateral()))
    with pytest.raises(VerificationError) as caught:
        check(collateral=other)
    assert code_of(caught) is Code.QUOTE_REFUSED


# cpu_svn, mrenclave, config_id, report_data (two), quote signature, attestation key, QE report, QE signature, QE auth
@pytest.mark.parametrize("offset", [48, 112, 240, 368, 431, 436, 500, 564 + 320, 948, 1014])
def test_one_changed_byte_is_refused(offset: int) -> None:
    changed = QUOTE[:offset] + bytes([QUOTE[offset] ^ 1]) + QUOTE[offset + 1 :]
    with pytest.raises(VerificationError) as caught:
        check(changed)
    assert code_of(caught) is Code.QUOTE_REFUSED


def test_a_debug_enclave_is_refused() -> None:
    debug = replace(ENCLAVE, flags=FLAG_INIT | FLAG_DEBUG | FLAG_MODE64BIT)
    quote = asyncio.run(SoftwareAttester(PLATFORM, debug).quote(bytes(64)))
    with pytest.raises(VerificationError) as caught:
        check(quote)
    assert code_of(caught) is Code.DEBUG_ENCLAVE


@pytest.mark.parametrize("status", [s for s in TcbStatus if s < TcbStatus.REVOKED])
def test_each_status_of_the_platform_is_reported(status: TcbStatus) -> None:
    claims = check(collateral=minted(status=intel_name(status), advisories=("INTEL-SA-00001",)))
    assert claims.tcb_status is status
    assert claims.advisory_ids == ("INTEL-SA-00001",)


def test_an_outdated_quoting_enclave_makes_the_whole_out_of_date() -> None:
    assert check(collateral=minted(qe_status="OutOfDate")).tcb_status is TcbStatus.OUT_OF_DATE


def test_a_revoked_tcb_is_refused() -> None:
    with pytest.raises(VerificationError) as caught:
        check(collateral=minted(status="Revoked"))
    assert code_of(caught) is Code.QUOTE_REFUSED


def test_a_revoked_pck_certificate_is_refused_and_its_neighbour_is_not() -> None:
    neighbour = AUTHORITY.issue_platform()
    collateral = Collateral.from_json(json.dumps(AUTHORITY.collateral(revoked=[PLATFORM])))
    with pytest.raises(VerificationError) as caught:
        check(collateral=collateral)
    assert code_of(caught) is Code.QUOTE_REFUSED
    quote = asyncio.run(SoftwareAttester(neighbour, ENCLAVE).quote(bytes(64)))
    assert check(quote, collateral).tcb_status is TcbStatus.UP_TO_DATE


def test_the_evaluation_number_is_the_older_of_the_two() -> None:
    claims = check(collateral=minted(evaluation=20, qe_evaluation=19))
    assert claims.dcap == DcapClaims(20, 19, PLATFORM.fmspc, PLATFORM.serial)
    assert claims.evaluation == 19


def test_expired_collateral_is_refused_and_a_newer_one_mends_it() -> None:
    short = Collateral.from_json(json.dumps(AUTHORITY.collateral(days=1)))
    assert check(collateral=short, now=NOW + DAY - 1).valid_until == NOW + DAY
    with pytest.raises(VerificationError) as caught:
        check(collateral=short, now=NOW + DAY)
    assert code_of(caught) is Code.COLLATERAL_EXPIRED
    assert caught.value.retryable
    newer = Collateral.from_json(json.dumps(AUTHORITY.collateral(now=NOW + DAY, days=1)))
    assert check(collateral=newer, now=NOW + DAY + 1).tcb_status is TcbStatus.UP_TO_DATE


def test_collateral_of_the_future_is_refused() -> None:
    with pytest.raises(VerificationError) as caught:
        check(now=NOW - DAY)
    assert code_of(caught) is Code.COLLATERAL_NOT_YET_VALID


@pytest.mark.parametrize("name", ["tcb_info", "qe_identity"])
def test_an_edited_document_is_refused(name: str) -> None:
    edited = getattr(COLLATERAL, name).replace('"tcbEvaluationDataNumber":17', '"tcbEvaluationDataNumber":18')
    with pytest.raises(VerificationError) as caught:
        check(collateral=replace(COLLATERAL, **{name: edited}))
    assert code_of(caught) is Code.QUOTE_REFUSED


def test_a_second_certificate_smuggled_into_the_chain_is_refused() -> None:
    """Another PEM label in front would give two readers of the chain two different leaves."""
    decoy = AUTHORITY.issue_platform().chain_pem
    first = decoy[: decoy.index(b"-----END CERTIFICATE-----\n") + 26].replace(b"CERTIFICATE", b"X509 CERTIFICATE")
    quote = asyncio.run(
        SoftwareAttester(replace(PLATFORM, chain_pem=first + PLATFORM.chain_pem), ENCLAVE).quote(bytes(64))
    )
    with pytest.raises(VerificationError) as caught:
        check(quote)
    assert code_of(caught) is Code.PCK_CHAIN


def test_the_svn_digest_does_not_move_with_the_enclave() -> None:
    again = asyncio.run(SoftwareAttester(PLATFORM, replace(ENCLAVE, mrenclave=bytes(32))).quote(bytes(64)))
    assert check(again).svn_digest == check().svn_digest


@pytest.mark.parametrize("name", ["mr_enclave", "report_data", "attributes"])
def test_two_readings_of_one_quote_are_refused(name: str) -> None:
    parsed = parse_dcap(1, QUOTE)
    pck = pck_values(PLATFORM.chain_pem)
    report = verify_quote(QUOTE, COLLATERAL, AUTHORITY.root_der, NOW)
    check_agreement(parsed, report, pck)
    with pytest.raises(VerificationError, match=name) as caught:
        check_agreement(parsed, replace(report, report={**report.report, name: "00"}), pck)
    assert code_of(caught) is Code.VERIFIER_DISAGREES
    with pytest.raises(VerificationError, match="ppid"):
        check_agreement(parsed, report, replace(pck, ppid=bytes(16)))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ppid": bytes(16)}, Code.VERIFIER_DISAGREES),
        ({"status": "Splendid"}, Code.QUOTE_REFUSED),
    ],
)
def test_a_verdict_that_does_not_fit_the_quote_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], code: Code
) -> None:
    """As a later dcap-qvl might read or say something else than this verifier knows."""
    monkeypatch.setattr(dcap, "verify_quote", lambda *given: replace(verify_quote(*given), **change))
    with pytest.raises(VerificationError) as caught:
        check()
    assert code_of(caught) is code


def test_a_root_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(RootError) as caught:
        check(root=b"no certificate")
    assert caught.value.code is Code.ROOT_FORMAT


def test_collateral_digest_is_that_of_canonical_json_whatever_the_order_and_case() -> None:
    value = json.loads(COLLATERAL.to_json())
    reordered = {key: value[key] for key in sorted(value, reverse=True)}
    reordered["pck_crl"] = reordered["pck_crl"].upper()
    reordered["pck_certificate_chain"] = "ignored"
    assert Collateral.from_json(json.dumps(reordered, indent=2)).digest == COLLATERAL.digest
    assert (
        COLLATERAL.digest == hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).digest()
    )


@pytest.mark.parametrize(
    "change",
    [{"tcb_info": 1}, {"pck_crl": "zz"}, {"extra": "x"}, {"tcb_info": None}],
    ids=["int", "hex", "key", "null"],
)
def test_collateral_of_another_form_is_refused(change: dict[str, object]) -> None:
    value = {**json.loads(COLLATERAL.to_json()), **change}
    with pytest.raises(CollateralError) as caught:
        Collateral.from_json(json.dumps(value))
    assert caught.value.code is Code.COLLATERAL_FORMAT


def test_collateral_with_a_key_twice_is_refused() -> None:
    text = COLLATERAL.to_json()
    with pytest.raises(CollateralError):
        Collateral.from_json(text[:-1] + ',"tcb_info":"{}"}')


def test_collateral_in_another_encoding_is_refused_before_its_depth_matters() -> None:
    """In UTF-16 an escaped quote is two bytes from what it escapes, so a count of brackets in bytes goes wrong."""
    deep = ('["\\"",' + "[" * 200_000).encode("utf-16-le")
    with pytest.raises(CollateralError) as caught:
        Collateral.from_json(deep)
    assert caught.value.code == Code.COLLATERAL_FORMAT


def test_development_roots_are_refused_on_public_chains_only() -> None:
    root = DevelopmentRoot(AUTHORITY.root_der)
    for chain in (1, 10, 56, 100, 137, 8453, 42161, 43114, 11155111, 17000, 560048):
        with pytest.raises(RootError) as caught:
            root.refuse_on_public_chain(chain)
        assert caught.value.code is Code.ROOT_ON_PUBLIC_CHAIN
    root.refuse_on_public_chain(31337)
