"""Collateral from a stand-in of Intel's service: what is kept of its answers, and what is not believed."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enclave_app.attesters.platform import DEVELOPMENT_FMSPC, DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from oracle.attestation import Collateral, ParsedQuote, TcbStatus, Tee, intel_root, parse_dcap, verify
from oracle.attestation.types import INTEL_NAMES
from oracle.collateral import (
    Cache,
    FetchedCollateral,
    Pcs,
    PcsConfig,
    Platform,
    check_collateral,
    check_evaluations,
    platform_of,
)
from oracle.collateral.source import keep
from oracle.errors import OracleError, Permanent, Refused, Retryable
from tests import dcap_kit, recorded_kit
from tests.pcs_kit import Answer, Service, serving

NOW = int(time.time())
AUTHORITY = DevelopmentAuthority(NOW, days=400)
MACHINE = AUTHORITY.issue_platform()
PLATFORM = Platform(Tee.SGX, DEVELOPMENT_FMSPC, "platform")
DAY = 86_400
END = "-----END CERTIFICATE-----\n"
RECORDED = ("phala-sgx-v3", "dcaprs-sgx-v3-evalnumber", "phala-tdx-v4", "automata-tdx-v4", "google-tdx-v5")


@asynccontextmanager
async def service(**said: Any) -> AsyncIterator[Service]:
    made = Service(AUTHORITY, **said)
    made.publish(17)
    async with serving(made) as running:
        yield running


def config(of: Service, tmp_path: Path, **said: Any) -> PcsConfig:
    root_crl = None if of.pccs else of.root_crl_url
    return PcsConfig(**{"pcs": of.url, "cache": tmp_path / "cache", "root_crl": root_crl, **said})


async def quote(authority: DevelopmentAuthority | None = None) -> ParsedQuote:
    machine = MACHINE if authority is None else authority.issue_platform()
    return parse_dcap(1, await SoftwareAttester(machine, SoftwareEnclave(bytes(32), b"{}")).quote(bytes(64)))


@asynccontextmanager
async def fetched(
    of: Service, tmp_path: Path, ahead: bool = False, root: bytes = AUTHORITY.root_der, now: int = NOW
) -> AsyncIterator[FetchedCollateral]:
    source = FetchedCollateral(config(of, tmp_path), {b"": root}, lambda: now, ahead=ahead)
    running = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def soon(found: Callable[[], object]) -> Any:
    """What is found at last; a generous time limit catches a hang."""
    async with asyncio.timeout(30):
        while True:
            with suppress(Retryable):
                if value := found():
                    return value
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("pccs", [False, True])
async def test_what_a_pcs_or_pccs_answers_verifies_a_quote(pccs: bool, tmp_path: Path) -> None:
    async with service(pccs=pccs) as running, Pcs(config(running, tmp_path)) as pcs:
        found = await pcs.collateral(PLATFORM, "standard")
    assert found == Collateral.from_json(json.dumps(running.published[17]))
    check_collateral(found, PLATFORM, AUTHORITY.root_der, NOW)
    assert verify(await quote(), found, AUTHORITY.root_der, NOW).evaluation == 17


async def test_a_tdx_platform_has_paths_documents_and_files_of_its_own(tmp_path: Path) -> None:
    case = dcap_kit.tdx_case()
    parsed = parse_dcap(2, case.quote)
    made = Service(AUTHORITY, {17: case.pieces}, tee=Tee.TDX, fmspc=dcap_kit.FMSPC, signer=case.authority.signer)
    async with serving(made) as running:
        async with fetched(running, tmp_path, root=case.root_der, now=dcap_kit.NOW) as source:
            found = await soon(lambda: source.for_quote(parsed))
        async with Pcs(config(running, tmp_path)) as pcs:
            listed = await pcs.evaluations(Tee.TDX)
            with pytest.raises(Permanent) as sgx:
                await pcs.evaluations(Tee.SGX)
    assert found == case.collateral
    assert sgx.value.code == "collateral.unknown"
    assert [each.number for each in check_evaluations(listed, case.root_der, dcap_kit.NOW)] == [17]
    assert sorted(each.name for each in (tmp_path / "cache").iterdir()) == [
        f"tdx-{dcap_kit.FMSPC.hex()}-17.json",
        f"tdx-{dcap_kit.FMSPC.hex()}.json",
    ]
    verified = verify(parsed, found, case.root_der, dcap_kit.NOW)
    assert (verified.evaluation, verified.tcb_status) == (17, TcbStatus.UP_TO_DATE)
    # A list of the other kind, under the same root, is not taken for this one's.
    with pytest.raises(Refused) as other:
        check_evaluations(replace(listed, tee=Tee.SGX), case.root_der, dcap_kit.NOW)
    assert other.value.code == "collateral.platform"


@pytest.mark.parametrize("name", RECORDED)
async def test_intels_own_documents_arrive_as_they_were_recorded(name: str, tmp_path: Path) -> None:
    """Collateral as Intel signed it, behind the stand-in, at the time it was recorded."""
    case = recorded_kit.case(name)
    run = case["verify"][0]
    parsed = parse_dcap({"sgx": 1, "tdx": 2}[case["tee"]], recorded_kit.evidence(case))
    platform = platform_of(parsed)
    pieces = json.loads(recorded_kit.collateral_file(run["collateral"]).read_text())
    evaluation = Collateral.from_json(json.dumps(pieces)).tcb_evaluation
    made = Service(
        AUTHORITY, {evaluation: pieces}, standard=evaluation, tee=platform.tee, fmspc=platform.fmspc, ca=platform.ca
    )
    async with serving(made) as running, fetched(running, tmp_path, root=intel_root(), now=run["now"]) as source:
        found = await soon(lambda: source.for_quote(parsed))
    verified = verify(parsed, found, intel_root(), run["now"])
    assert (verified.tcb_status, set(verified.advisory_ids)) == (INTEL_NAMES[run["status"]], set(run["advisory_ids"]))


async def test_an_evaluation_is_asked_for_by_its_number_or_its_feed(tmp_path: Path) -> None:
    async with service(early=18) as running, Pcs(config(running, tmp_path)) as pcs:
        running.publish(18)
        feeds: list[Any] = ["standard", "early", 17, 18]
        found = [(await pcs.collateral(PLATFORM, feed)).tcb_evaluation for feed in feeds]
        assert found == [17, 18, 17, 18]
        with pytest.raises(Permanent) as none:
            await pcs.collateral(PLATFORM, 16)
        assert none.value.code == "collateral.unknown"
        listed = await pcs.evaluations(Tee.SGX)
        assert [each.number for each in check_evaluations(listed, AUTHORITY.root_der, NOW)] == [18, 17]
        forged = replace(listed.signed, document=listed.signed.document.replace("18", "19"))
        with pytest.raises(Refused) as refused:
            check_evaluations(replace(listed, signed=forged), AUTHORITY.root_der, NOW)
        assert refused.value.code == "collateral.signature"
        with pytest.raises(Refused) as ended:
            check_evaluations(listed, AUTHORITY.root_der, NOW + 31 * DAY)
        assert ended.value.code == "collateral_expired"


def status(number: int) -> Callable[[str, Answer], Answer]:
    return lambda path, answer: (number, answer[1], answer[2])


def at(end: str, change: Callable[[Answer], Answer]) -> Callable[[str, Answer], Answer]:
    return lambda path, answer: change(answer) if path.endswith(end) else answer


def without(name: str) -> Callable[[Answer], Answer]:
    return lambda answer: (answer[0], answer[1], {k: v for k, v in answer[2].items() if k != name})


FAULTS: dict[str, tuple[Callable[[str, Answer], Answer], type[OracleError], str]] = {
    "a redirect": (lambda p, a: (302, b"", {"Location": "http://127.0.0.1:1/"}), Refused, "pcs.redirect"),
    "not found": (status(404), Permanent, "collateral.unknown"),
    "gone": (status(410), Permanent, "collateral.unknown"),
    "a bad request": (status(400), Refused, "pcs.answer"),
    "too many requests": (status(429), Retryable, "pcs.busy"),
    "an error": (status(500), Retryable, "pcs.status"),
    "no chain": (at("/tcb", without("TCB-Info-Issuer-Chain")), Refused, "pcs.answer"),
    "no CRL chain": (at("/pckcrl", without("SGX-PCK-CRL-Issuer-Chain")), Refused, "pcs.answer"),
    "a chain that is none": (
        at("/tcb", lambda a: (200, a[1], {"TCB-Info-Issuer-Chain": "%41"})), Refused, "pcs.answer",
    ),
    "no JSON": (at("/identity", lambda a: (200, b"<html>", a[2])), Refused, "pcs.answer"),
    "more beside it": (at("/tcb", lambda a: (200, a[1][:-1] + b',"x":1}', a[2])), Refused, "pcs.answer"),
    "a list that is none": (at("/pckcrl", lambda a: (200, b"0123", a[2])), Refused, "pcs.answer"),
    "too long a document": (at("/tcb", lambda a: (200, bytes(600_000), a[2])), Refused, "pcs.size"),
    "too long a list": (at("Root" + "CA.der", lambda a: (200, bytes(1_100_000), a[2])), Refused, "pcs.size"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_answer_with_one_fault_is_refused(fault: str, tmp_path: Path) -> None:
    lie, kind, code = FAULTS[fault]
    async with service(lie=lie) as running, Pcs(config(running, tmp_path)) as pcs:
        with pytest.raises(kind) as refused:
            await pcs.collateral(PLATFORM, "standard")
    assert refused.value.code == code


async def test_a_service_that_is_not_there_or_silent_is_tried_again(tmp_path: Path) -> None:
    nowhere = PcsConfig(pcs="http://127.0.0.1:1", cache=tmp_path)
    async with Pcs(nowhere) as pcs:
        with pytest.raises(Retryable) as unreachable:
            await pcs.collateral(PLATFORM, "standard")
    assert unreachable.value.code == "pcs.unreachable"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = PcsConfig(pcs=f"http://127.0.0.1:{listener.getsockname()[1]}", cache=tmp_path, timeout=0.2)
        async with Pcs(silent) as pcs:
            with pytest.raises(Retryable) as slow:
                await pcs.collateral(PLATFORM, "standard")
    assert slow.value.code == "pcs.timeout"


async def test_a_source_fetches_what_a_quote_needs_and_keeps_it(tmp_path: Path) -> None:
    parsed = await quote()
    async with service() as running, fetched(running, tmp_path) as source:
        with pytest.raises(Retryable) as waits:
            source.for_quote(parsed)
        assert waits.value.code == "collateral.missing"
        found = await soon(lambda: source.for_quote(parsed))
    assert found.tcb_evaluation == 17
    assert sorted(each.name for each in (tmp_path / "cache").iterdir()) == [
        f"{PLATFORM.name}-17.json",
        f"{PLATFORM.name}.json",
    ]
    # The next process has it without any service.
    running.lie = status(500)
    again = FetchedCollateral(config(running, tmp_path), {b"": AUTHORITY.root_der}, lambda: NOW)
    assert again.for_quote(parsed) == found


async def test_nothing_is_fetched_for_a_platform_of_another_root(tmp_path: Path) -> None:
    stranger = await quote(DevelopmentAuthority(NOW))
    async with service() as running, fetched(running, tmp_path) as source:
        with pytest.raises(Refused) as refused:
            source.for_quote(stranger)
        assert refused.value.code == "evidence.pck_chain"
        await soon(lambda: source._loop)
        assert not source._wanted
    assert not running.asked


async def test_a_restart_refreshes_what_is_held_and_whoever_registers_sees_ahead(tmp_path: Path) -> None:
    parsed = await quote()
    async with service() as running:
        keep(Cache(tmp_path / "cache"), PLATFORM, "standard", held_of(running, 17), AUTHORITY.root_der, NOW)
        running.publish(17, now=NOW + 60)
        running.publish(18)
        running.publish(19)
        running.standard, running.early = 18, 19
        async with fetched(running, tmp_path, ahead=True) as source:
            coming = await soon(lambda: source.coming(parsed))
            held = source.evaluations(parsed)
    assert coming.tcb_evaluation == 19
    assert [each.tcb_evaluation for each in held] == [18, 17]
    assert held[1].tcb_info == held_of(running, 17).tcb_info


async def test_what_is_held_is_fetched_again_under_the_root_that_it_stands_under(tmp_path: Path) -> None:
    other = DevelopmentAuthority(NOW)
    async with service() as running:
        keep(Cache(tmp_path / "cache"), PLATFORM, "standard", held_of(running, 17), AUTHORITY.root_der, NOW)
        running.publish(17, now=NOW + 60)
        roots = {b"other": other.root_der, b"its own": AUTHORITY.root_der}
        source = FetchedCollateral(config(running, tmp_path), roots, lambda: NOW)
        task = asyncio.create_task(source.run())
        new = held_of(running, 17)
        await soon(lambda: source.cache.get(PLATFORM, "standard") == new)
        task.cancel()
    # Of another root's nothing is asked for.
    cache = Cache(tmp_path / "strange")
    cache.put(PLATFORM, "standard", new)
    strange = FetchedCollateral(
        config(running, tmp_path, cache=cache.path(PLATFORM).parent), {b"": other.root_der}, lambda: NOW
    )
    assert strange._root_held(PLATFORM) is None


def held_of(running: Service, evaluation: int) -> Collateral:
    return Collateral.from_json(json.dumps(running.published[evaluation]))


async def test_what_is_found_under_its_feed_is_found_under_its_number_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.path(PLATFORM).mkdir()  # as if it ended between the two
    async with service() as running:
        with pytest.raises(Refused) as refused:
            cache.put(PLATFORM, "standard", held_of(running, 17))
    assert refused.value.code == "file.write"
    assert [each.tcb_evaluation for each in cache.evaluations(PLATFORM)] == [17]


async def test_a_service_cannot_roll_back_what_is_held(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    async with service() as running:
        old = held_of(running, 17)
        revoking = AUTHORITY.collateral(now=NOW + 60, days=30, revoked=[MACHINE])
        new = Collateral.from_json(json.dumps(revoking))
        assert keep(cache, PLATFORM, "standard", new, AUTHORITY.root_der, NOW) == ()
        names = ("TCB info", "QE identity", "PCK CRL", "root CRL")
        assert keep(cache, PLATFORM, "standard", old, AUTHORITY.root_der, NOW) == names
        assert cache.get(PLATFORM) == new
        # One revocation list alone, too.
        mixed = replace(new, pck_crl=old.pck_crl)
        assert keep(cache, PLATFORM, "standard", mixed, AUTHORITY.root_der, NOW) == ("PCK CRL",)
        assert cache.get(PLATFORM) == new
        # What ended is replaced by whatever holds.
        running.publish(17, now=NOW + 40 * DAY)
        assert keep(cache, PLATFORM, "standard", held_of(running, 17), AUTHORITY.root_der, NOW + 40 * DAY) == ()


LIES: dict[str, tuple[Callable[[Collateral], Collateral], str]] = {
    "another document": (lambda c: replace(c, tcb_info=c.tcb_info.replace("17", "18")), "collateral.signature"),
    "another identity": (lambda c: replace(c, qe_identity=c.qe_identity.replace("17", "18")), "collateral.signature"),
    "another's signature": (lambda c: replace(c, tcb_info_signature=c.qe_identity_signature), "collateral.signature"),
    "a short signature": (lambda c: replace(c, tcb_info_signature="00"), "collateral.signature"),
    "the lists swapped": (
        lambda c: replace(c, pck_crl=c.root_ca_crl, root_ca_crl=c.pck_crl), "collateral.signature",
    ),
    "a CRL's bit": (
        lambda c: replace(c, pck_crl=c.pck_crl[:-2] + f"{int(c.pck_crl[-2:], 16) ^ 1:02x}"), "collateral.signature",
    ),
    "another root's chain": (
        lambda c: replace(c, tcb_info_issuer_chain=DevelopmentAuthority(NOW).collateral()["tcb_info_issuer_chain"]),
        "collateral.signature",
    ),
    "a chain of one": (
        lambda c: replace(c, tcb_info_issuer_chain=c.tcb_info_issuer_chain.partition(END)[0] + END),
        "collateral.signature",
    ),
    "a signer of the wrong kind": (
        lambda c: replace(c, tcb_info_issuer_chain=c.pck_crl_issuer_chain), "collateral.signature",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_collateral_that_is_not_signed_under_the_root_is_not_kept(lie: str, tmp_path: Path) -> None:
    change, code = LIES[lie]
    good = Collateral.from_json(json.dumps(AUTHORITY.collateral(days=30)))
    assert keep(Cache(tmp_path), PLATFORM, "standard", good, AUTHORITY.root_der, NOW) == ()
    with pytest.raises(Refused) as refused:
        keep(Cache(tmp_path), PLATFORM, "standard", change(good), AUTHORITY.root_der, NOW)
    assert refused.value.code == code
    assert Cache(tmp_path).get(PLATFORM) == good


async def test_collateral_of_another_platform_evaluation_or_time_is_not_kept(tmp_path: Path) -> None:
    cache, good = Cache(tmp_path), Collateral.from_json(json.dumps(AUTHORITY.collateral(days=30)))

    def refused(platform: Platform, feed: Any, now: int) -> str:
        with pytest.raises(Refused) as found:
            keep(cache, platform, feed, good, AUTHORITY.root_der, now)
        return found.value.code

    assert refused(replace(PLATFORM, fmspc=bytes(6)), "standard", NOW) == "collateral.platform"
    assert refused(replace(PLATFORM, tee=Tee.TDX), "standard", NOW) == "collateral.platform"
    assert refused(replace(PLATFORM, ca="processor"), "standard", NOW) == "collateral.platform"
    assert refused(PLATFORM, 18, NOW) == "collateral.evaluation"
    assert refused(PLATFORM, "standard", NOW + 31 * DAY) == "collateral_expired"
    assert refused(PLATFORM, "standard", NOW - DAY) == "collateral_not_yet_valid"
    assert cache.platforms() == ()


async def test_a_failing_service_is_asked_again_and_the_last_word_stays(tmp_path: Path) -> None:
    parsed = await quote()
    failing = 2

    def lie(path: str, answer: Answer) -> Answer:
        nonlocal failing
        if path.endswith("/tcb") and failing:
            failing -= 1
            return 503, b"", {}
        return answer

    async with service(lie=lie) as running, fetched(running, tmp_path) as source:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("oracle.collateral.source.FIRST_RETRY", 0.01)
            assert (await soon(lambda: source.for_quote(parsed))).tcb_evaluation == 17
    assert failing == 0


def test_the_cache_of_one_ca_is_not_taken_for_anothers(tmp_path: Path) -> None:
    cache, good = Cache(tmp_path), Collateral.from_json(json.dumps(AUTHORITY.collateral(days=30)))
    cache.put(PLATFORM, "standard", good)
    assert cache.get(PLATFORM) == good
    assert cache.get(replace(PLATFORM, ca="processor")) is None
    cache.path(PLATFORM).write_text("{")
    assert cache.get(PLATFORM) is None
