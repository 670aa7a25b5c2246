"""What the contracts refuse: one thing of a valid case changed, one name for it. Nothing a caller brings moves what is hashed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from oracle.attestation import intel_root, parse_dcap
from oracle.attestation.onchain.evidence import EVIDENCE, dcap_challenge, quote_chain, versions
from oracle.attestation.onchain.structs import Pck
from oracle.chain.abi import load
from oracle.chain.rpc import Rpc, as_hex
from oracle.errors import RpcFault
from tests.anvil_kit import anvil
from tests.dcap_chain_kit import Boot, Contracts, Material, change, cut, issuer, revert, show, show_level
from tests.dcap_fixtures import rpc, url
from tests.dcap_kit import (
    DAY,
    EVALUATION,
    LEVELS,
    NOW,
    PCE_SVN,
    TDX,
    VALID,
    Authority,
    Case,
    Crl,
    Level,
    Span,
    SvnLevel,
    sgx_case,
    tdx_case,
)

__all__ = ["rpc", "url"]

AUTHORITY = Authority.make()
SGX = sgx_case(AUTHORITY)
TDX4 = tdx_case(4, AUTHORITY)
TDX5 = tdx_case(5, AUTHORITY)
CASES = {"sgx-3": SGX, "tdx-4": TDX4, "tdx-5": TDX5}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
QUOTE, PCK, CURRENT, EARLIER = range(4)
"""Of Evidence."""
TCB_INFO, SHOWN, REST, MODULES, MODULE, QE = range(6)
"""Of Proof."""
EARLY, LATE = Span(NOW - 20 * DAY, NOW - DAY), Span(NOW + DAY, NOW + 20 * DAY)


@pytest.fixture
async def store(rpc: Rpc) -> Contracts:
    """Contracts under AUTHORITY's root, with nothing posted."""
    return await Contracts.deploy(rpc, AUTHORITY.root_der)


def mirrored(signature: bytes) -> bytes:
    """The other s, by which the same key signs the same thing."""
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + (ORDER - s).to_bytes(32, "big")


def resigned(certificate: bytes) -> bytes:
    """A certificate with the other s in its signature: other bytes, and nothing else."""
    signature = x509.load_der_x509_certificate(certificate).signature
    r, s = decode_dss_signature(signature)
    other = encode_dss_signature(r, ORDER - s)
    content, size = certificate[: -len(signature) - 3], len(other)
    body = content[4:] + b"\x03" + bytes([size + 1]) + b"\0" + other
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


# Malleability: a signature may be written with either s. It changes no digest that anything is kept by.


@pytest.mark.parametrize("name", CASES)
async def test_the_other_s_of_a_quote_is_taken_and_gives_the_same_claims(store: Contracts, name: str) -> None:
    case = CASES[name]
    start = {"sgx-3": 436, "tdx-4": 636, "tdx-5": 706}[name]
    qe = start + 128 + (0 if name == "sgx-3" else 6) + 384
    expected = (await store.ask(case)).claims
    for at in (start, qe):
        other = case.quote[:at] + mirrored(case.quote[at : at + 64]) + case.quote[at + 64 :]
        found = await store.ask(case, evidence=change(show(case), EVIDENCE, [QUOTE], cut(other)))
        assert found.claims == expected


async def test_the_other_s_renews_nothing_that_the_first_did_not(rpc: Rpc) -> None:
    boot = Boot(SGX)
    contracts = await Contracts.deploy(rpc, SGX.root_der)
    await contracts.keep(contracts.posts(Material.of(SGX)).values())
    registration = await boot.registration(contracts)
    await contracts.keep([contracts.register(registration)])

    def other(quote: bytes) -> bytes:
        return quote[:436] + mirrored(quote[436:500]) + quote[500:]

    again = registration._replace(evidence=change(registration.evidence, EVIDENCE, [QUOTE], other))
    assert await contracts.refusal(contracts.register(again)) == "EnclaveRegistry_NotNewer"


async def test_a_certificate_with_the_other_s_is_the_same_issuer_so_nobody_can_post_past_it(store: Contracts) -> None:
    material = Material.of(SGX)
    posts = store.posts(material)
    for name, certificate in (("ca", material.ca), ("signer", material.signer)):
        twin = resigned(certificate)
        assert twin != certificate
        assert issuer(twin) == issuer(certificate)
        first, second = await store.simulate([posts[name], store.post("postIssuer", twin)], NOW)
        assert first.data == second.data == issuer(certificate)


async def test_a_pck_and_documents_with_the_other_s_are_what_they_were(store: Contracts) -> None:
    material = Material.of(SGX)
    posts = store.posts(material)
    twin = store.post("postPck", resigned(material.pck), issuer(material.ca))
    *_, first, second = await store.simulate([posts["ca"], posts["pck"], twin], NOW)
    assert first.data == second.data

    other = store.post("postTcbInfo", material.tcb_info, mirrored(material.tcb_signature), issuer(material.signer))
    *_, again = await store.simulate([posts["signer"], posts["tcb_info"], other], NOW)
    assert again.refusal == "DcapCollateral_NotNewer"
    assert (await store.ask(SGX, tcb_info=other)).status == "UpToDate"


# Trailing bytes


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("extra", [b"\0", b"\x01", b"\0" * 32])
async def test_a_byte_behind_the_cut_quote_is_refused(store: Contracts, name: str, extra: bytes) -> None:
    longer = change(show(CASES[name]), EVIDENCE, [QUOTE], lambda quote: quote + extra)
    assert (await store.ask(CASES[name], evidence=longer)).refusal == "DcapVerifier_TrailingBytes"


@pytest.mark.parametrize("name", CASES)
async def test_a_quote_that_lacks_a_byte_is_refused(store: Contracts, name: str) -> None:
    shorter = change(show(CASES[name]), EVIDENCE, [QUOTE], lambda quote: quote[:-1])
    assert (await store.ask(CASES[name], evidence=shorter)).refusal == "DcapVerifier_TooShort"


@pytest.mark.parametrize("piece", ["ca", "signer", "pck", "root_crl", "pck_crl", "tcb_info", "qe_identity"])
async def test_a_byte_behind_anything_posted_is_refused(store: Contracts, piece: str) -> None:
    material = Material.of(SGX)
    changes: dict[str, Any] = {piece: getattr(material, piece) + b"\0"}
    longer = replace(material, **changes)
    posts = store.posts(material)
    call = store.posts(replace(longer, ca=material.ca, signer=material.signer))[piece]
    if piece in ("ca", "signer"):
        call = store.post("postIssuer", getattr(longer, piece))
    before = [posts[name] for name in ("ca", "signer") if name != piece]
    *_, found = await store.simulate([*before, call], NOW)
    assert not found.ok


# Swapped chains


async def test_a_chain_of_another_root_is_refused(store: Contracts) -> None:
    other = Material.of(sgx_case())
    for name, call in store.posts(other).items():
        *_, found = await store.simulate([call], NOW)
        assert found.refusal in ("DcapCollateral_UnknownIssuer", "DcapCollateral_BadSignature"), name


async def test_contracts_with_intels_root_refuse_what_a_software_enclave_has(rpc: Rpc) -> None:
    """R4"""
    intel, minted = await Contracts.deploy(rpc, intel_root()), Material.of(SGX)
    for name, call in intel.posts(minted).items():
        *_, found = await intel.simulate([call], NOW)
        assert found.refusal in ("DcapCollateral_UnknownIssuer", "DcapCollateral_BadSignature"), name


async def test_the_two_issuers_cannot_stand_for_each_other(store: Contracts) -> None:
    material = Material.of(SGX)
    posts = store.posts(material)
    ca, signer = issuer(material.ca), issuer(material.signer)
    swapped = (
        store.post("postPck", material.pck, signer),
        store.post("postCrl", material.pck_crl, signer),
        store.post("postTcbInfo", material.tcb_info, material.tcb_signature, ca),
        store.post("postQeIdentity", material.qe_identity, material.qe_signature, ca),
        store.post("postPck", material.pck, store.anchor),
        store.post("postPck", material.ca, store.anchor),
    )
    outcomes = await store.simulate([posts["ca"], posts["signer"], *swapped], NOW)
    assert {each.refusal for each in outcomes[2:]} == {"DcapCollateral_WrongIssuer"}


async def test_a_platforms_key_does_not_vouch_for_another_platforms_quote(store: Contracts) -> None:
    neighbour = replace(SGX, pck=AUTHORITY.platform(ppid=bytes(16)))
    post = store.posts(Material.of(neighbour))["pck"]
    parts = Pck.of([neighbour.pck.certificate, AUTHORITY.ca.certificate]).abi()
    found = await store.ask(SGX, evidence=change(show(SGX), EVIDENCE, [PCK], parts), pck=post)
    assert found.refusal == "DcapVerifier_BadQeSignature"


async def test_a_pck_that_was_not_posted_is_refused_whatever_parts_are_shown(store: Contracts) -> None:
    assert (await store.ask(SGX, pck=None)).refusal == "DcapCollateral_UnknownPck"
    for member in range(11):
        if member < 2:
            continue
        forged = change(show(SGX), EVIDENCE, [PCK, member], _other)
        found = await store.ask(SGX, evidence=forged)
        assert found.refusal == "DcapCollateral_UnknownPck", member


async def test_collateral_that_was_not_posted_is_refused_whatever_parts_are_shown(store: Contracts) -> None:
    for piece, members in ((TCB_INFO, 10), (QE, 12)):
        for member in range(members):
            forged = change(show(TDX5), EVIDENCE, [CURRENT, piece, member], _other)
            assert not (await store.ask(TDX5, evidence=forged)).ok, (piece, member)
    for member in range(4):
        forged = change(show(TDX5), EVIDENCE, [CURRENT, SHOWN, 0, member], _other)
        assert (await store.ask(TDX5, evidence=forged)).refusal == "DcapVerifier_WrongLevels", member
    for member in range(5):
        forged = change(show(TDX5), EVIDENCE, [CURRENT, MODULE, 0, member], _other)
        assert not (await store.ask(TDX5, evidence=forged)).ok, member
    for member in (REST, MODULES):
        forged = change(show(TDX5), EVIDENCE, [CURRENT, member], _other)
        assert not (await store.ask(TDX5, evidence=forged)).ok, member


def _other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    return value[1:] if len(value) > 1 else [_other(each) for each in value]


# The platform


async def test_tcb_info_of_another_platform_is_refused(store: Contracts) -> None:
    other = replace(SGX, tcb=replace(SGX.tcb, fmspc=bytes(6)))
    assert (await store.ask(other)).refusal == "DcapVerifier_WrongFmspc"
    other = replace(SGX, tcb=replace(SGX.tcb, pce_id=b"\0\1"))
    assert (await store.ask(other)).refusal == "DcapVerifier_WrongPceId"


async def test_collateral_of_the_other_tee_is_refused(store: Contracts) -> None:
    for case in (replace(SGX, tcb=TDX4.tcb), replace(SGX, qe=replace(SGX.qe, tee=TDX))):
        evidence = show_level(case.tee, case.quote, case.collateral, 0)
        assert (await store.ask(case, evidence=evidence)).refusal == "DcapVerifier_WrongTee"


# Dates


PIECES = ("tcb", "qe", "root_crl", "pck_crl")


def dated(piece: str, span: Span) -> Case:
    if piece == "pck":
        return replace(SGX, pck=AUTHORITY.platform(span=span))
    if piece in ("root", "ca", "signer"):
        return sgx_case(Authority.make(**{piece: span}))
    return replace(SGX, **{piece: replace(getattr(SGX, piece), span=span)})


@pytest.mark.parametrize("piece", ["root", "ca", "signer", "pck", *PIECES])
async def test_each_piece_counts_in_its_dates_alone(rpc: Rpc, piece: str) -> None:
    for span, refusal in ((EARLY, "DcapCollateral_Expired"), (LATE, "DcapCollateral_NotYetValid")):
        case = dated(piece, span)
        contracts = await Contracts.deploy(rpc, case.root_der)
        assert (await contracts.ask(case)).refusal == refusal
        # All else still holds, or already did, in the middle of that time.
        middle = (span.start + span.end) // 2
        if VALID.start < middle:
            assert (await contracts.ask(case, middle)).status == "UpToDate"


@pytest.mark.parametrize("piece", ["ca", "signer", "pck", *PIECES])
async def test_a_verdict_lasts_until_the_first_end_of_what_it_rests_on(rpc: Rpc, piece: str) -> None:
    end = NOW + 3 * DAY
    case = dated(piece, Span(NOW - DAY, end))
    contracts = await Contracts.deploy(rpc, case.root_der)
    assert (await contracts.ask(case)).claims["judgement"]["validUntil"] == end - 1
    assert (await contracts.ask(case, end - 1)).ok
    assert (await contracts.ask(case, end)).refusal == "DcapCollateral_Expired"


# Revocation


@pytest.mark.parametrize("piece", ["pck", "ca", "signer", "root"])
async def test_what_is_revoked_does_not_count(store: Contracts, piece: str) -> None:
    revoked = SGX.pck if piece == "pck" else getattr(AUTHORITY, piece)
    crl = "pck_crl" if piece == "pck" else "root_crl"
    changes: dict[str, Any] = {crl: Crl(Span(NOW - 60, NOW + DAY), (AUTHORITY.platform(), revoked))}
    case = replace(SGX, **changes)
    posts = store.posts(Material.of(SGX))
    late = store.posts(Material.of(case))[crl]
    # Also after everything was posted, and found good, under the list before.
    *_, before, _, after = await store.simulate(
        [*posts.values(), store.verify(show(SGX)), late, store.verify(show(SGX))], NOW
    )
    assert before.claims["judgement"]["tcbStatus"] == 1
    assert after.refusal == "DcapCollateral_Revoked"


@pytest.mark.parametrize("crl", ["root_crl", "pck_crl"])
async def test_without_a_revocation_list_nothing_counts(store: Contracts, crl: str) -> None:
    without: dict[str, Any] = {crl: None}
    assert (await store.ask(SGX, **without)).refusal == "DcapCollateral_NoCrl"


async def test_a_serial_revoked_by_another_issuer_is_not_revoked(store: Contracts) -> None:
    case = replace(SGX, root_crl=Crl(VALID, (SGX.pck,)), pck_crl=Crl(VALID, (AUTHORITY.ca, AUTHORITY.signer)))
    assert (await store.ask(case)).status == "UpToDate"


# Rolled back


@pytest.mark.parametrize("piece", ["tcb_info", "qe_identity", "root_crl", "pck_crl"])
async def test_nothing_that_was_posted_is_rolled_back(store: Contracts, piece: str) -> None:
    later = Span(VALID.start + 60, VALID.end)
    newer = replace(
        SGX,
        tcb=replace(SGX.tcb, span=later),
        qe=replace(SGX.qe, span=later),
        root_crl=Crl(later),
        pck_crl=Crl(later),
    )
    old, new = store.posts(Material.of(SGX)), store.posts(Material.of(newer))
    issuers = [old["ca"], old["signer"]]
    *_, kept, back = await store.simulate([*issuers, new[piece], old[piece]], NOW)
    assert kept.ok
    assert back.refusal == "DcapCollateral_NotNewer"


@pytest.mark.parametrize("piece", ["tcb", "qe"])
async def test_a_document_that_a_newer_one_replaced_does_not_count(store: Contracts, piece: str) -> None:
    later = Span(VALID.start + 60, VALID.end)
    newer = store.posts(Material.of(replace(SGX, **{piece: replace(getattr(SGX, piece), span=later)})))
    post = newer["tcb_info" if piece == "tcb" else "qe_identity"]
    posts = store.posts(Material.of(SGX)).values()
    *_, found = await store.simulate([*posts, post, store.verify(show(SGX))], NOW)
    assert found.refusal == "DcapCollateral_NotCurrent"


async def test_an_evaluation_beside_a_newer_one_counts_with_its_own_number(store: Contracts) -> None:
    newer = replace(SGX, tcb=replace(SGX.tcb, evaluation=EVALUATION + 1))
    post = store.posts(Material.of(newer))["tcb_info"]
    *_, older, newest = await store.simulate(
        [*store.posts(Material.of(SGX)).values(), post, store.verify(show(SGX)), store.verify(show(newer))], NOW
    )
    assert older.claims["judgement"]["evaluation"] == EVALUATION
    # The QE identity is still of the earlier number, and a verdict is as old as the older of the two.
    assert newest.claims["judgement"]["evaluation"] == EVALUATION


# Statuses and levels


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "status",
    [
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ],
)
async def test_each_status_is_claimed_as_it_is(store: Contracts, name: str, status: str) -> None:
    case = CASES[name]
    case = replace(case, tcb=replace(case.tcb, levels=(Level(status), LEVELS[1])))
    assert (await store.ask(case)).status == status == case.ask()


@pytest.mark.parametrize("name", CASES)
async def test_a_revoked_level_is_refused_and_a_challenge_learns_of_it(store: Contracts, name: str) -> None:
    case = CASES[name]
    case = replace(case, tcb=replace(case.tcb, levels=(Level("Revoked"),)))
    assert (await store.ask(case)).refusal == "DcapVerifier_Revoked"
    parsed = parse_dcap(case.tee, case.quote)
    proof = dcap_challenge(versions(parsed, Pck.of(quote_chain(parsed))), case.collateral)
    *_, found = await store.simulate([*store.posts(Material.of(case)).values(), store.judge(proof)], NOW)
    _, _, judgement = load("DcapVerifier").result("judge", found.data)
    assert judgement["tcbStatus"] == 7


@pytest.mark.parametrize("status", ["TDRelaunchAdvised", "Unheard"])
async def test_a_status_that_tcb_info_does_not_have_cannot_be_posted(store: Contracts, status: str) -> None:
    case = replace(SGX, tcb=replace(SGX.tcb, levels=(Level(status),)))
    posts = store.posts(Material.of(case))
    *_, found = await store.simulate([posts["signer"], posts["tcb_info"]], NOW)
    assert found.refusal == "IntelJson_UnknownStatus"


@pytest.mark.parametrize("name", CASES)
async def test_no_other_level_than_the_first_that_is_met_can_be_named(store: Contracts, name: str) -> None:
    case = CASES[name]
    levels = (
        Level(pce_svn=PCE_SVN + 1),
        Level("SWHardeningNeeded"),
        Level("OutOfDate", bytes(16), 1, bytes(16)),
        Level("OutOfDate", bytes(16), 0, bytes(16)),
    )
    case = replace(case, tcb=replace(case.tcb, levels=levels))
    found = [
        await store.ask(case, evidence=show_level(case.tee, case.quote, case.collateral, last)) for last in range(4)
    ]
    assert [each.refusal for each in found] == [
        "DcapVerifier_LevelNotMet",
        None,
        "DcapVerifier_BetterLevelMet",
        "DcapVerifier_BetterLevelMet",
    ]
    assert found[1].status == "SWHardeningNeeded"


async def test_a_level_cannot_be_left_out(store: Contracts) -> None:
    case = replace(SGX, tcb=replace(SGX.tcb, levels=(Level("OutOfDate"), *LEVELS[1:])))
    evidence = show_level(case.tee, case.quote, case.collateral, 1)
    without = change(evidence, EVIDENCE, [CURRENT, SHOWN], lambda levels: levels[1:])
    assert (await store.ask(case, evidence=without)).refusal == "DcapVerifier_WrongLevels"
    none: list[Any] = []
    nothing = change(evidence, EVIDENCE, [CURRENT, SHOWN], none)
    assert (await store.ask(case, evidence=nothing)).refusal == "DcapVerifier_WrongLevels"


async def test_levels_in_another_order_than_intels_cannot_be_posted(store: Contracts) -> None:
    for levels in ((LEVELS[1], LEVELS[0]), (LEVELS[0], LEVELS[0])):
        posts = store.posts(Material.of(replace(SGX, tcb=replace(SGX.tcb, levels=levels))))
        *_, found = await store.simulate([posts["signer"], posts["tcb_info"]], NOW)
        assert found.refusal == "IntelJson_NotDescending"


async def test_a_quoting_enclave_that_is_out_of_date_or_unknown_counts_so(store: Contracts) -> None:
    case = replace(SGX, qe=replace(SGX.qe, levels=(SvnLevel(9), SvnLevel(8, "OutOfDate"))))
    assert (await store.ask(case)).status == "OutOfDate"
    case = replace(SGX, qe=replace(SGX.qe, levels=(SvnLevel(9),)))
    assert (await store.ask(case)).refusal == "DcapVerifier_QeTooOld"


@pytest.mark.parametrize(
    ("change_", "field"),
    [
        ({"mr_signer": bytes(32)}, "mrSigner"),
        ({"isv_prod_id": 2}, "isvProdId"),
        ({"misc_select": b"\1\0\0\0"}, "miscSelect"),
        ({"attributes": bytes(16)}, "attributes"),
    ],
)
async def test_another_quoting_enclave_than_intel_names_is_refused(
    store: Contracts, change_: dict[str, Any], field: str
) -> None:
    found = await store.ask(replace(SGX, qe=replace(SGX.qe, **change_)))
    assert found.error is not None
    assert (found.refusal, found.error.arguments["field"]) == ("DcapVerifier_WrongQe", field)


# Who registers what


@pytest.mark.parametrize("name", CASES)
async def test_report_data_with_anything_in_its_second_half_is_refused(store: Contracts, name: str) -> None:
    case = CASES[name].bind(bytes(63) + b"\1")
    assert (await store.ask(case)).refusal == "DcapVerifier_ReportDataNotZero"


@pytest.mark.parametrize("name", CASES)
async def test_a_byte_of_the_signed_quote_that_changes_is_refused(store: Contracts, name: str) -> None:
    case = CASES[name]
    evidence, quote = show(case), cut(case.quote)
    calls = []
    for at in range(0, {"sgx-3": 432, "tdx-4": 632, "tdx-5": 702}[name], 7):
        flipped = quote[:at] + bytes([quote[at] ^ 1]) + quote[at + 1 :]
        calls.append(store.verify(change(evidence, EVIDENCE, [QUOTE], flipped)))
    outcomes = await store.simulate([*store.posts(Material.of(case)).values(), *calls], NOW)
    assert not any(each.ok for each in outcomes[-len(calls) :])


async def test_where_the_pieces_lie_in_the_evidence_is_the_callers_choice_and_changes_nothing(store: Contracts) -> None:
    """ABI offsets are the only ones a caller chooses; the same parts elsewhere give the same claims, others give none."""
    evidence = show(SGX)
    moved = (0x40).to_bytes(32, "big") + bytes(32) + evidence[32:]
    expected = (await store.ask(SGX)).claims
    assert (await store.ask(SGX, evidence=moved)).claims == expected
    for word in range(0, len(evidence) // 32):
        at = 32 * word
        value = int.from_bytes(evidence[at : at + 32], "big")
        if not 0x20 <= value <= len(evidence) or value % 32:
            continue
        for other in (value + 32, value - 32, 0, 1 << 255, (1 << 256) - 32):
            forged = evidence[:at] + other.to_bytes(32, "big") + evidence[at + 32 :]
            found = await store.ask(SGX, evidence=forged)
            assert not found.ok or found.claims == expected, (at, other)


# The precompile


@pytest.fixture(scope="module")
def prague() -> Iterator[str]:
    """A chain whose fork has no P-256 precompile."""
    with anvil("--hardfork", "prague") as url:
        yield url


async def test_a_store_cannot_be_deployed_where_the_precompile_is_absent(prague: str) -> None:
    rpc = Rpc(prague)
    data = load("DcapCollateral").deployment(AUTHORITY.root_der)
    found = await refusal_of(rpc, {"data": as_hex(data)})
    await rpc.close()
    assert found == "DcapCollateral_NoP256"


# What stands at 0x100 instead, as code: nothing, 1 in 32 bytes for everything, 2, 31 bytes, 33 bytes, a revert.
ANSWERS = {
    "nothing": "00",
    "always 1": "60015f5260205ff3",
    "2": "60025f5260205ff3",
    "31 bytes": "60015f52601f5ff3",
    "64 bytes": "60015f5260405ff3",
    "1 in the highest byte": "600160f81b5f5260205ff3",
    "a revert": "5f5ffd",
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_precompile_that_answers_wrongly_deploys_no_store(prague: str, answer: str) -> None:
    rpc = Rpc(prague)
    data = load("DcapCollateral").deployment(AUTHORITY.root_der)
    code = {"0x" + "100".rjust(40, "0"): {"code": "0x" + ANSWERS[answer]}}
    found = await refusal_of(rpc, {"data": as_hex(data)}, code)
    await rpc.close()
    assert found in ("DcapCollateral_NoP256", "P256_CallFailed")


async def refusal_of(rpc: Rpc, call: dict[str, str], state: dict[str, Any] | None = None) -> str | None:
    try:
        await rpc.call("eth_call", call, "latest", *([state] if state else []))
    except RpcFault as fault:
        return revert(fault.data or b"").name
    return None
