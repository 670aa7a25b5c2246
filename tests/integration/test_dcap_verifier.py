"""The contract that verifies Intel's quotes: recorded machines at their time, and minted ones that register."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from oracle.attestation import intel_root, parse_dcap
from oracle.attestation.errors import VerificationError
from oracle.attestation.onchain.evidence import dcap_challenge, dcap_evidence, quote_chain, versions
from oracle.attestation.onchain.structs import Pck
from oracle.attestation.types import TcbStatus, Tee, intel_name
from oracle.chain.abi import load
from oracle.chain.rpc import Rpc
from tests.dcap_chain_kit import Boot, Call, Contracts, Material, Recorded, recorded, show, show_level
from tests.dcap_fixtures import rpc, url
from tests.dcap_kit import (
    DAY,
    EVALUATION,
    NOW,
    TCB_DATE,
    Case,
    Span,
    sgx_case,
    tdx_case,
)

__all__ = ["rpc", "url"]

RECORDED = recorded()
REFUSED = {
    "automata-sgx-v3-debug": "DcapVerifier_Debug",
    "automata-tdx-v5-servicetd": "DcapVerifier_ServiceTd",
    "trustee-tdx-v4-debug": "DcapVerifier_Debug",
    "trustee-aztdx-v4-septve": "DcapVerifier_BadTdAttributes",
    "phala-tappd-v4-notcb": "DcapVerifier_LevelNotMet",
    "phala-tdx-v5-notcb": "DcapVerifier_LevelNotMet",
}
MINTED: dict[str, Callable[[], Case]] = {
    "sgx-3": sgx_case,
    "tdx-4": lambda: tdx_case(4),
    "tdx-5": lambda: tdx_case(5),
}
EARLIER_STATUS = 2
"""Of a Standing, in the order of its fields."""


@pytest.fixture
async def intel(rpc: Rpc) -> Contracts:
    return await Contracts.deploy(rpc, intel_root())


@pytest.mark.parametrize("case", RECORDED, ids=[case.name for case in RECORDED])
async def test_a_recorded_quote_gets_its_verdict_and_status_at_its_time(intel: Contracts, case: Recorded) -> None:
    parsed, collateral = parse_dcap(case.tee, case.quote), case.collateral
    posts = list(intel.posts(case.material).values())
    try:
        evidence = dcap_evidence(parsed, collateral)
    except VerificationError:
        # No level is met, so the last one is named.
        last = len(json.loads(collateral.tcb_info)["tcbLevels"]) - 1
        evidence = show_level(parsed.tee, parsed.raw, collateral, last)

    *posted, found = await intel.simulate([*posts, intel.verify(evidence)], case.now)

    assert [each.refusal for each in posted] == [None] * len(posts)
    if case.status is None:
        assert found.refusal == REFUSED[case.name.split("@")[0]]
        return
    if any(parsed.report_data[32:]):
        # What it binds is not ours. This is looked at last, so all else was found to be good; its status comes from its versions.
        assert found.refusal == "DcapVerifier_ReportDataNotZero"
    else:
        assert found.status == case.status
        assert found.claims["measurement"] == parsed.measurement
        assert found.claims["anchor"] == intel.anchor
    proof = dcap_challenge(versions(parsed, Pck.of(quote_chain(parsed))), collateral)
    *_, judged = await intel.simulate([*posts, intel.judge(proof)], case.now)
    _, _, judgement = load("DcapVerifier").result("judge", judged.data)
    assert intel_name(TcbStatus(judgement["tcbStatus"])) == case.status
    assert judgement["evaluation"] == min(collateral.tcb_evaluation, collateral.qe_evaluation)


def test_every_kind_and_version_is_among_the_recorded_that_are_accepted_whole() -> None:
    whole = {
        (each.tee, each.quote[0])
        for each in RECORDED
        if each.status and not any(parse_dcap(each.tee, each.quote).report_data[32:])
    }
    assert whole == {(Tee.SGX, 3), (Tee.TDX, 4), (Tee.TDX, 5)}


async def test_minted_collateral_is_refused_by_a_store_under_intels_root(intel: Contracts) -> None:
    case = sgx_case()
    posts = intel.posts(Material.of(case))
    outcomes = await intel.simulate([*posts.values(), intel.verify(show(case))], NOW)
    assert not any(each.ok for each in outcomes)


# Registration, renewal, challenge


async def kept(rpc: Rpc, case: Case) -> Contracts:
    """Contracts where all that a case rests on was posted."""
    contracts = await Contracts.deploy(rpc, case.root_der)
    await contracts.keep(contracts.posts(Material.of(case)).values())
    return contracts


async def standing(contracts: Contracts, boot: Boot) -> dict[str, Any]:
    (found,) = await contracts.simulate([boot.record(contracts)], NOW)
    _, result = load("EnclaveRegistry").result("record", found.data)
    return dict(result)


def identity(contracts: Contracts, boot: Boot) -> tuple[object, ...]:
    """IEnclaveRegistry.Identity, from the evidence alone."""
    parsed = parse_dcap(boot.case.tee, boot.case.quote)
    of = versions(parsed, Pck.of(quote_chain(parsed)))
    pck = Pck.of(quote_chain(parsed))
    zero = bytes(32)
    return (parsed.measurement, pck.platform, boot.sealing_key, of.digest, zero, "0x" + "00" * 20, int(parsed.tee))


def challenge(contracts: Contracts, boot: Boot, newer: Case, proof: bytes | None = None) -> Call:
    parsed = parse_dcap(boot.case.tee, boot.case.quote)
    if proof is None:
        proof = dcap_challenge(versions(parsed, Pck.of(quote_chain(parsed))), newer.collateral)
    return Call(
        contracts.registry,
        load("EnclaveRegistry").call(
            "challenge",
            contracts.anchor,
            boot.signer.address,
            identity(contracts, boot),
            contracts.verifier,
            proof,
        ),
    )


@pytest.mark.parametrize("name", MINTED)
async def test_a_minted_quote_registers_and_renews(rpc: Rpc, name: str) -> None:
    boot = Boot(MINTED[name]())
    contracts = await kept(rpc, boot.case)

    await contracts.keep([contracts.register(await boot.registration(contracts))])
    first = await standing(contracts, boot)
    await contracts.keep([contracts.register(await boot.registration(contracts))])
    second = await standing(contracts, boot)

    assert first["tcbStatus"] == TcbStatus.UP_TO_DATE
    assert first["evaluation"] == EVALUATION
    assert first["validUntil"] == first["evidenceAt"] + 7 * DAY
    assert second["blockNumber"] > first["blockNumber"]


@pytest.mark.parametrize("name", MINTED)
async def test_evidence_cannot_register_another_key_or_twice(rpc: Rpc, name: str) -> None:
    boot = Boot(MINTED[name]())
    contracts = await kept(rpc, boot.case)
    registration = await boot.registration(contracts)
    other = Boot(boot.case)
    # The other's own proof of possession, with this one's evidence.
    stolen = (await other.registration(contracts))._replace(evidence=registration.evidence)
    assert await contracts.refusal(contracts.register(stolen)) == "EnclaveRegistry_WrongReportData"

    await contracts.keep([contracts.register(registration)])
    assert await contracts.refusal(contracts.register(registration)) == "EnclaveRegistry_NotNewer"


@pytest.mark.parametrize("name", MINTED)
async def test_newer_collateral_lets_anyone_lower_a_standing_and_grace_remembers_it(rpc: Rpc, name: str) -> None:
    boot = Boot(MINTED[name]())
    contracts = await kept(rpc, boot.case)
    await contracts.keep([contracts.register(await boot.registration(contracts))])
    newer = outdated(boot.case)

    await contracts.keep([*documents(contracts, newer), challenge(contracts, boot, newer)])

    found = await standing(contracts, boot)
    assert found["tcbStatus"] == TcbStatus.OUT_OF_DATE
    assert found["evaluation"] == EVALUATION + 1
    assert found["earlierStatus"] == TcbStatus.UP_TO_DATE
    assert found["earlierEvaluation"] == EVALUATION
    assert found["changedAt"] == TCB_DATE + 90 * DAY
    assert await contracts.refusal(challenge(contracts, boot, newer)) == "EnclaveRegistry_NotLower"
    again = contracts.register(await boot.registration(contracts))
    assert await contracts.refusal(again) == "EnclaveRegistry_OlderEvaluation"


@pytest.mark.parametrize("name", MINTED)
async def test_a_registration_shows_how_the_platform_stood_under_the_earlier_evaluation(rpc: Rpc, name: str) -> None:
    older = MINTED[name]()
    boot = Boot(outdated(older))
    contracts = await kept(rpc, boot.case)
    await contracts.keep(documents(contracts, older))

    await contracts.keep([contracts.register(await boot.registration(contracts, earlier=older))])

    found = await standing(contracts, boot)
    assert (found["tcbStatus"], found["earlierStatus"]) == (TcbStatus.OUT_OF_DATE, TcbStatus.UP_TO_DATE)
    assert (found["evaluation"], found["earlierEvaluation"]) == (EVALUATION + 1, EVALUATION)


async def test_a_revoked_platform_is_lowered_for_good_and_has_no_grace(rpc: Rpc) -> None:
    boot = Boot(sgx_case())
    contracts = await kept(rpc, boot.case)
    await contracts.keep([contracts.register(await boot.registration(contracts))])
    crl = replace(boot.case.pck_crl, span=Span(NOW - 60, NOW + DAY), revoked=(boot.case.pck,))
    revoked = replace(boot.case, pck_crl=crl)

    await contracts.keep([contracts.posts(Material.of(revoked))["pck_crl"], challenge(contracts, boot, boot.case)])

    found = await standing(contracts, boot)
    assert (found["tcbStatus"], found["earlierStatus"]) == (TcbStatus.REVOKED, 0)
    again = contracts.register(await boot.registration(contracts))
    assert await contracts.refusal(again) == "DcapCollateral_Revoked"


async def test_a_challenge_with_other_versions_is_refused(rpc: Rpc) -> None:
    boot = Boot(sgx_case())
    contracts = await kept(rpc, boot.case)
    await contracts.keep([contracts.register(await boot.registration(contracts))])
    newer = outdated(boot.case)
    await contracts.keep(documents(contracts, newer))
    weaker = Boot(replace(boot.case, pck=boot.case.authority.platform(pce_svn=12)), boot.signer, boot.sealing_key)
    parsed = parse_dcap(weaker.case.tee, weaker.case.quote)
    proof = dcap_challenge(versions(parsed, Pck.of(quote_chain(parsed))), newer.collateral)
    call = challenge(contracts, boot, newer, proof)
    assert await contracts.refusal(call) == "EnclaveRegistry_WrongChallenge"
    call = challenge(contracts, weaker, newer)
    assert await contracts.refusal(call) == "EnclaveRegistry_WrongIdentity"


def outdated(case: Case) -> Case:
    """The same platform a year on: it stands where the level before the best one is."""
    better = replace(case.tcb.levels[0], pce_svn=case.tcb.levels[0].pce_svn + 1, date=TCB_DATE + 90 * DAY)
    levels = (better, replace(case.tcb.levels[0], status="OutOfDate"), *case.tcb.levels[1:])
    tcb = replace(case.tcb, levels=levels, evaluation=EVALUATION + 1)
    return replace(case, tcb=tcb, qe=replace(case.qe, evaluation=EVALUATION + 1))


def documents(contracts: Contracts, case: Case) -> list[Call]:
    """Posts of TCB info and QE identity alone."""
    posts = contracts.posts(Material.of(case))
    return [posts["tcb_info"], posts["qe_identity"]]
