"""A worker that fetches its collateral: it registers, moves to better evaluations, shows earlier ones, and tells ahead."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.structs import Confirmation
from oracle.attestation import Collateral, TcbStatus, parse_dcap
from oracle.attestation.onchain.collateral import posts
from oracle.attestation.onchain.evidence import dcap_challenge, quote_chain, versions
from oracle.attestation.onchain.structs import Pck
from oracle.chain.abi import load
from oracle.chain.collateral import is_newest, post_missing, store_of
from oracle.chain.rpc import as_int
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.errors import Retryable
from oracle.worker.collateral import Appraisal, open_appraisal
from oracle.worker.enclave import Enclave
from oracle.worker.enrolment import Enrolment
from oracle.worker.metrics import Metrics
from oracle.worker.outlook import Outlook
from oracle.worker.register import Enrolled
from oracle.worker.registrars import make_registrar
from tests.pcs_kit import Service, serving
from tests.worker_kit import World, world

DAY = 86_400


@dataclass
class Post:
    """A worker's parts, whose clock is the chain's."""

    place: World
    service: Service
    appraisal: Appraisal
    enrolment: Enrolment
    outlook: Outlook
    gauges: Metrics
    source: SingleSource
    now: Callable[[], int]

    async def look(self) -> Enrolled:
        await self.outlook.look()
        found = await self.enrolment.reread()
        assert found is not None
        return found

    async def fetched(self, evaluation: int, feed: str = "") -> None:
        """Until the cache holds it."""
        await until(
            (self.place.directory / "cache").glob, f"sgx-*{feed}.json", f'tcbEvaluationDataNumber\\":{evaluation}'
        )

    def again(self) -> None:
        """What is held is due for another look at the service."""
        source: Any = self.appraisal.collateral
        for wanted in source._wanted.values():
            wanted.due, wanted.fetched = 0.0, float("-inf")
        source._wake.set()


async def until(glob: Callable[[str], Iterator[Path]], pattern: str, text: str) -> None:
    async with asyncio.timeout(30):
        while not any(text in path.read_text() for path in list(glob(pattern))):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def soon(act: Callable[[], Awaitable[Enrolled]]) -> Enrolled:
    """As a worker tries: again while it has to wait. The time limit catches a hang."""
    async with asyncio.timeout(60):
        while True:
            with suppress(Retryable):
                return await act()
            await asyncio.sleep(0.02)


@asynccontextmanager
async def posted(tmp_path: Path, days: int = 30) -> AsyncIterator[Post]:
    async with world(tmp_path) as place, Enclave(place.enclave.socket) as enclave:
        service = Service(place.authority)
        service.publish(17, days=days)
        async with serving(service):
            where = {"pcs": service.url, "rootCrl": service.root_crl_url, "cache": "cache"}
            config = place.config(attestation={"root": "root.der", "collateral": where}, gauges="worker.prom")
            appraisal = open_appraisal(config.attestation, place.deployment.chain_id)
            assert appraisal is not None
            source, sender = SingleSource(place.rpc), Sender(place.rpc, place.wallet)
            now = [0]
            made = make_registrar(appraisal, place.deployment, sender, source)
            enrolment = Enrolment(
                enclave, None, sender, source, place.deployment, made, None, lambda: None, lambda: now[0]
            )
            gauges = Metrics()

            def clock() -> int:
                return now[0]

            outlook = Outlook(enrolment, appraisal, gauges, clock, config.gauges)
            fetching = asyncio.create_task(appraisal.collateral.run())
            try:
                await soon(enrolment.current)
                now[0] = (await source.confirmed(Confirmation.LATEST)).timestamp
                post = Post(place, service, appraisal, enrolment, outlook, gauges, source, clock)
                yield post
            finally:
                fetching.cancel()
                await asyncio.gather(fetching, return_exceptions=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def sent(post: Post) -> int:
    return as_int(await post.place.rpc.call("eth_getTransactionCount", post.place.wallet.address, "latest"))


async def test_a_worker_with_nothing_but_an_address_registers_its_enclave(tmp_path: Path) -> None:
    async with posted(tmp_path) as post:
        enrolled = await post.look()
        standing = enrolled.record.standing
        assert (standing.tcb_status, standing.evaluation) == (TcbStatus.UP_TO_DATE, 17)
        parsed = parse_dcap(1, enrolled.evidence.quote)
        held = post.appraisal.collateral.for_quote(parsed)
        assert await is_newest(post.source, store_of(post.place.deployment), held)
        before = await sent(post)
        await post.look()
        assert await sent(post) == before


async def test_it_moves_to_a_newer_evaluation_under_which_it_stands_no_lower(tmp_path: Path) -> None:
    async with posted(tmp_path) as post:
        post.service.publish(18)
        post.service.standard = post.service.early = 18
        post.again()
        await post.fetched(18)
        moved = await post.look()
        assert (moved.record.standing.evaluation, moved.record.standing.tcb_status) == (18, TcbStatus.UP_TO_DATE)
        before = await sent(post)
        await post.look()
        assert await sent(post) == before


async def test_it_stays_where_it_stands_better_and_shows_that_when_it_has_to_move(tmp_path: Path) -> None:
    async with posted(tmp_path, days=2) as post:
        post.service.publish(18, "OutOfDate", now=post.now() + 60, days=20)
        post.service.standard = post.service.early = 18
        post.again()
        await post.fetched(18)
        assert (await post.look()).record.standing.evaluation == 17
        # Renewed, it is still the better one.
        renewed = await post.enrolment.renew()
        assert (renewed.record.standing.evaluation, renewed.record.standing.earlier_status) == (17, 0)
        # The earlier one ends, and Intel gives no newer issue of it.
        del post.service.published[17]
        await post.place.rpc.call("evm_increaseTime", 3 * DAY)
        await post.place.rpc.call("anvil_mine", hex(1))
        moved = await post.enrolment.renew()
        standing = moved.record.standing
        assert (standing.evaluation, standing.tcb_status) == (18, TcbStatus.OUT_OF_DATE)
        assert (standing.earlier_evaluation, standing.earlier_status) == (17, TcbStatus.UP_TO_DATE)


async def test_a_coming_evaluation_is_told_once_and_shown_in_the_gauges(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with posted(tmp_path) as post:
        await post.look()
        assert post.gauges.get("coming_evaluation") is None
        post.service.publish(18, "OutOfDate")
        post.service.early = 18
        post.again()
        await post.fetched(18, "-early")
        for _ in range(2):
            await post.look()
        assert warnings(caplog).count("a coming evaluation lowers this platform: update it") == 1
        assert post.gauges.get("coming_evaluation") == 18
        assert post.gauges.get("coming_tcb_status", status="out_of_date") == 1
        assert post.gauges.get("tcb_coming_down") == 1
        assert post.gauges.get("registration_evaluation") == 17
        shown = (tmp_path / "worker.prom").read_text().splitlines()
        assert 'oracle_worker_coming_tcb_status{status="out_of_date"} 1.0' in shown
        assert "oracle_worker_registered 1.0" in shown
        assert 'oracle_worker_registration_tcb_status{status="up_to_date"} 1.0' in shown
        assert any(line.startswith('oracle_worker_collateral_ends{piece="TCB info"} ') for line in shown)


async def test_newer_collateral_on_chain_makes_it_fetch(tmp_path: Path) -> None:
    """Somebody posted what Intel issued a minute ago: only the newest issue counts on chain."""
    async with posted(tmp_path) as post:
        enrolled = await post.look()
        post.service.publish(17, now=post.now() + 60)
        newer = Collateral.from_json(json.dumps(post.service.published[17]))
        chain = quote_chain(parse_dcap(1, enrolled.evidence.quote))
        wanted = posts(newer, chain)
        store = store_of(post.place.deployment)
        assert await post_missing(post.place.requester, post.source, store, wanted, enrolled.anchor)
        await post.place.rpc.call("anvil_mine", hex(1))
        source: Any = post.appraisal.collateral
        for wanted in source._wanted.values():
            wanted.fetched = float("-inf")  # long ago
        with pytest.raises(Retryable) as behind:
            await post.enrolment.renew()
        assert behind.value.code == "register.collateral"
        renewed = await soon(post.enrolment.renew)
        assert renewed.record.standing.block_number > enrolled.record.standing.block_number


async def test_a_challenge_by_others_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with posted(tmp_path) as post:
        enrolled = await post.look()
        parsed = parse_dcap(1, enrolled.evidence.quote)
        post.service.publish(18, "OutOfDate")
        worse = Collateral.from_json(json.dumps(post.service.published[18]))
        chain = quote_chain(parsed)
        deployment, anchor = post.place.deployment, enrolled.anchor
        await post_missing(post.place.requester, post.source, store_of(deployment), posts(worse, chain), anchor)
        proof = dcap_challenge(versions(parsed, Pck.of(chain)), worse)
        identity = enrolled.record.identity.to_abi()
        call = load("EnclaveRegistry").call(
            "challenge", anchor, enrolled.signer, identity, deployment.verifiers["dcap"], proof
        )
        assert (await post.place.requester.transact(deployment.enclave_registry, call)).ok
        lowered = await post.look()
        assert (lowered.record.standing.evaluation, lowered.record.standing.tcb_status) == (18, TcbStatus.OUT_OF_DATE)
        assert post.gauges.get("registration_tcb_status", status="out_of_date") == 1
        # What it holds is of an earlier evaluation than the registry now takes.
        assert post.gauges.get("collateral_available") == 0
        assert "no collateral holds under which the enclave could be renewed" in warnings(caplog)


async def test_what_ends_is_told_ahead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with posted(tmp_path, days=5) as post:
        for _ in range(2):
            await post.look()
        assert warnings(caplog).count("collateral ends soon and no newer was found") == 1
        assert "the registration ends soon and was not renewed" not in warnings(caplog)
        valid_until = post.gauges.get("registration_valid_until")
        assert valid_until is not None
        late = Outlook(post.enrolment, None, post.gauges, lambda: int(valid_until) - 60, None)
        await late.look()
        assert "the registration ends soon and was not renewed" in warnings(caplog)
        gone = Outlook(post.enrolment, None, post.gauges, lambda: int(valid_until) + 60, None)
        await gone.look()
        assert post.gauges.get("registered") == 0
