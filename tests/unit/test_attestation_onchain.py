"""What the contract is told: that it is what the contract wants, its own tests show with `tests/vectors/dcap.json`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from enclave_app.attesters.development_pki import Issuer
from oracle.attestation import Code, CollateralError, Tee, VerificationError, parse_dcap
from oracle.attestation.collateral import pem_chain
from oracle.attestation.onchain.evidence import (
    EVIDENCE,
    PROOF,
    VERSIONS,
    Versions,
    dcap_challenge,
    dcap_evidence,
    quote_chain,
    versions,
)
from oracle.attestation.onchain.structs import TCB_LEVEL, Pck, QeIdentity, TcbInfo
from oracle.attestation.quote import ParsedQuote
from oracle.attestation.types import TcbStatus
from tests.dcap_kit import (
    CPU_SVN,
    FMSPC,
    NOW,
    PCE_SVN,
    QE_ISV_SVN,
    TCB_DATE,
    TEE_TCB_SVN,
    VALID,
    Authority,
    Case,
    Level,
    Module,
    SvnLevel,
    TdBody,
    sgx_case,
    tdx_case,
)

AUTHORITY = Authority.make()
SGX = sgx_case(AUTHORITY)
TDX = tdx_case(4, AUTHORITY)
TDX15 = tdx_case(5, AUTHORITY)


def parsed(case: Case) -> ParsedQuote:
    return parse_dcap(case.tee, case.quote)


def signed(issuer: Issuer) -> bytes:
    """As the store names an issuer: SHA-256 of what is signed of its certificate."""
    return hashlib.sha256(issuer.certificate.tbs_certificate_bytes).digest()


def told(case: Case, earlier: Case | None = None) -> tuple[Any, ...]:
    """(quote, pck, proof, earlier proofs)"""
    evidence = dcap_evidence(parsed(case), case.collateral, earlier.collateral if earlier else None)
    (value,) = decode([EVIDENCE], evidence)
    assert encode([EVIDENCE], [value]) == evidence
    return tuple(value)


def proof(case: Case) -> dict[str, Any]:
    names = ("tcb", "levels", "rest", "modules", "module", "qe")
    return dict(zip(names, told(case)[2], strict=True))


def with_body(case: Case, **fields: Any) -> Case:
    assert isinstance(case.body, TdBody)
    return replace(case, body=replace(case.body, **fields))


def with_levels(case: Case, *levels: Level) -> Case:
    return replace(case, tcb=replace(case.tcb, levels=levels))


def code_of(caught: pytest.ExceptionInfo[VerificationError]) -> str:
    return caught.value.code


@pytest.mark.parametrize("case", [SGX, TDX, TDX15], ids=["sgx-3", "tdx-4", "tdx-5"])
def test_the_quote_ends_before_its_chain(case: Case) -> None:
    cut = told(case)[0]
    assert case.quote == cut + case.chain.encode()
    assert cut[-6:-4] == b"\x05\x00"
    assert int.from_bytes(cut[-4:], "little") == len(case.chain)


def test_padding_of_a_quote_stays_at_home() -> None:
    padded = parse_dcap(Tee.TDX, TDX.quote + bytes(70))
    assert dcap_evidence(padded, TDX.collateral) == dcap_evidence(parsed(TDX), TDX.collateral)


def test_the_certificate_is_the_chains_first_and_its_issuer_the_second() -> None:
    pck = Pck.of(quote_chain(parsed(SGX)))
    numbers = SGX.pck.key.public_key().public_numbers()
    assert (pck.x, pck.y) == (numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"))
    assert pck.issuer == signed(AUTHORITY.ca)
    assert pck.platform == hashlib.sha256(bytes(range(16))).digest()
    assert (pck.cpu_svn, pck.pce_svn, pck.fmspc, pck.pce_id) == (CPU_SVN, PCE_SVN, FMSPC, bytes(2))
    assert pck.serial == SGX.pck.certificate.serial_number
    assert (pck.not_before, pck.not_after) == VALID


def test_a_chain_whose_second_certificate_did_not_sign_the_first_is_refused() -> None:
    leaf, ca, root = pem_chain(SGX.chain)
    for chain in ([leaf], [leaf, root, ca], [leaf, pem_chain(sgx_case().chain)[1]], [ca, ca]):
        with pytest.raises(VerificationError) as caught:
            Pck.of(chain)
        assert code_of(caught) is Code.PCK_CHAIN


def test_the_digest_of_versions_is_over_every_one_of_them() -> None:
    of = versions(parsed(TDX15), Pck.of(quote_chain(parsed(TDX15))))
    words = [
        hashlib.sha256(b"enclave-oracle/svn/1").digest(),
        bytes(31) + b"\x02",
        FMSPC + bytes(26),
        bytes(32),
        CPU_SVN + bytes(16),
        PCE_SVN.to_bytes(32, "big"),
        TEE_TCB_SVN + bytes(16),
        TEE_TCB_SVN + bytes(16),
        QE_ISV_SVN.to_bytes(32, "big"),
        TDX15.pck.certificate.serial_number.to_bytes(32, "big"),
        signed(AUTHORITY.ca),
    ]
    assert of.digest == hashlib.sha256(b"".join(words)).digest()
    others: list[Versions] = [
        replace(of, tee=Tee.SGX),
        replace(of, fmspc=bytes(6)),
        replace(of, pce_id=b"\x00\x01"),
        replace(of, cpu_svn=bytes(16)),
        replace(of, pce_svn=0),
        replace(of, tee_tcb_svn=bytes(16)),
        replace(of, tee_tcb_svn2=bytes(16)),
        replace(of, qe_svn=0),
        replace(of, pck_serial=1),
        replace(of, pck_issuer=bytes(32)),
    ]
    assert len({each.digest for each in (of, *others)}) == 11


def test_a_quote_without_tee_versions_has_zeros_for_them() -> None:
    pck = Pck.of(quote_chain(parsed(SGX)))
    assert versions(parsed(SGX), pck).tee_tcb_svn == versions(parsed(SGX), pck).tee_tcb_svn2 == bytes(16)
    assert versions(parsed(TDX), pck).tee_tcb_svn == TEE_TCB_SVN
    assert versions(parsed(TDX), pck).tee_tcb_svn2 == bytes(16)


def test_levels_go_down_to_the_one_that_is_met() -> None:
    levels = [
        Level(pce_svn=PCE_SVN + 2),
        Level(pce_svn=PCE_SVN + 1),
        Level("OutOfDate"),
        Level(pce_svn=0),
        Level(pce_svn=0),
    ]
    case = with_levels(SGX, *levels)
    shown = proof(case)
    assert [level[1] for level in shown["levels"]] == [PCE_SVN + 2, PCE_SVN + 1, PCE_SVN]
    assert shown["levels"][-1] == (CPU_SVN + bytes(16), PCE_SVN, TcbStatus.OUT_OF_DATE, TCB_DATE)
    rest = bytes(32)
    for level in reversed(TcbInfo.of(case.collateral).levels[3:]):
        rest = keccak(encode([TCB_LEVEL, "bytes32"], [level.abi(), rest]))
    assert shown["rest"] == rest


def test_nothing_is_behind_the_last_level() -> None:
    assert proof(with_levels(SGX, Level()))["rest"] == bytes(32)


def test_a_component_that_is_one_too_low_fails_a_level() -> None:
    higher = bytearray(CPU_SVN)
    higher[15] += 1
    assert len(proof(with_levels(SGX, Level(components=bytes(higher)), Level()))["levels"]) == 2
    assert len(proof(with_levels(TDX, Level(tdx=TEE_TCB_SVN[:15] + b"\x01"), Level()))["levels"]) == 2


def test_a_module_with_a_version_is_not_judged_by_the_platforms_levels() -> None:
    above = Level(tdx=b"\xff\xff" + TEE_TCB_SVN[2:])
    assert len(proof(with_levels(TDX, above, Level()))["levels"]) == 1
    plain = with_body(TDX, tee_tcb_svn=b"\x05\x00" + TEE_TCB_SVN[2:])
    shown = proof(with_levels(plain, above, Level(tdx=bytes(16))))
    assert len(shown["levels"]) == 2
    assert [module[0] for module in shown["module"]] == [0]


def test_the_module_is_the_one_that_the_quote_names() -> None:
    shown = proof(TDX)
    assert [module[0] for module in shown["module"]] == [1]
    digests = [each.digest for each in TcbInfo.of(TDX.collateral).modules]
    assert shown["modules"] == tuple(digests)
    assert shown["tcb"][8] == keccak(b"".join(digests))
    assert proof(SGX)["module"] == proof(SGX)["modules"] == ()
    assert proof(SGX)["tcb"][8] == bytes(32)


def test_a_module_updated_under_the_td_is_shown_beside_the_launched_one() -> None:
    updated = with_body(TDX15, tee_tcb_svn=b"\x04" + TEE_TCB_SVN[1:])
    assert [module[0] for module in proof(updated)["module"]] == [1]
    other = with_body(TDX15, tee_tcb_svn2=b"\x05\x03" + TEE_TCB_SVN[2:])
    assert [module[0] for module in proof(other)["module"]] == [1, 3]


def test_versions_of_now_below_those_of_the_launch_cannot_be_shown() -> None:
    older = with_body(TDX15, tee_tcb_svn2=TEE_TCB_SVN[:2] + b"\x03" + TEE_TCB_SVN[3:])
    with pytest.raises(VerificationError) as caught:
        told(older)
    assert code_of(caught) is Code.QUOTE_REFUSED


def test_a_platform_that_meets_no_level_is_refused() -> None:
    with pytest.raises(VerificationError, match="none of 1 TCB levels") as caught:
        told(with_levels(SGX, Level(pce_svn=PCE_SVN + 1)))
    assert code_of(caught) is Code.QUOTE_REFUSED


def test_a_module_that_the_tcb_info_does_not_name_is_refused() -> None:
    with pytest.raises(VerificationError, match="TDX module version 1"):
        told(replace(TDX, tcb=replace(TDX.tcb, modules=(Module(0), Module(3)))))


def test_an_earlier_evaluation_is_shown_behind_the_current() -> None:
    before = with_levels(replace(SGX, tcb=replace(SGX.tcb, evaluation=16)), Level("OutOfDate"))
    _, _, current, earlier = told(SGX, before)
    assert (current[0][3], current[1][-1][2]) == (17, TcbStatus.UP_TO_DATE)
    assert [(shown[0][3], shown[1][-1][2]) for shown in earlier] == [(16, TcbStatus.OUT_OF_DATE)]
    assert told(SGX)[3] == ()


def test_a_challenge_has_the_versions_and_the_same_proof() -> None:
    of = versions(parsed(TDX15), Pck.of(quote_chain(parsed(TDX15))))
    got, shown = decode([VERSIONS, PROOF], dcap_challenge(of, TDX15.collateral))
    assert shown == told(TDX15)[2]
    assert got[0] == Tee.TDX
    assert (
        hashlib.sha256(hashlib.sha256(b"enclave-oracle/svn/1").digest() + encode([VERSIONS], [got])).digest()
        == of.digest
    )


def test_the_dates_and_the_signer_are_those_of_the_document() -> None:
    tcb, qe = TcbInfo.of(SGX.collateral), QeIdentity.of(SGX.collateral)
    assert (tcb.issued_at, tcb.next_update) == (qe.issued_at, qe.next_update) == VALID
    assert tcb.changed_at == TCB_DATE < NOW
    assert tcb.signer == qe.signer == signed(AUTHORITY.signer)


def test_isv_levels_are_one_word_each() -> None:
    case = replace(SGX, qe=replace(SGX.qe, levels=(SvnLevel(8, "OutOfDate"), SvnLevel(5))))
    assert QeIdentity.of(case.collateral).levels == (8 << 48 | 5 << 40 | TCB_DATE, 5 << 48 | 1 << 40 | TCB_DATE)


@pytest.mark.parametrize("name", ["tcb_info", "qe_identity"])
def test_a_document_of_another_form_is_refused(name: str) -> None:
    collateral = SGX.collateral
    for old, new in (('"tcbLevels"', '"levels"'), ('"UpToDate"', '"Fine"'), ('"id":"', '"id":"X'), ('Z"', '"')):
        text = getattr(collateral, name)
        assert old in text
        with pytest.raises(CollateralError) as caught:
            dcap_evidence(parsed(SGX), replace(collateral, **{name: text.replace(old, new)}))
        assert caught.value.code is Code.COLLATERAL_FORMAT
