"""The broker's release, against real contracts and minted quotes: one valid case, then one change for each rule.

What is wrong with evidence or with consent is in tests/adversary.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from enclave_app.protocol.release import ReleaseAnswer, ReleaseBody, open_answer
from enclave_app.protocol.shares import check_share, recover_key
from enclave_app.protocol.structs import Agreement, Dataset, Enclaves, KeyRelease
from oracle.collateral import PcsConfig
from oracle.errors import OracleError, Refused, Retryable
from oracle.keybroker import KeyBroker, open_broker, read_log, verify_log
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.log import Released
from tests import broker_fixtures as fixtures
from tests.broker_kit import Scene
from tests.pcs_kit import Service, serving

broker, scene, world = fixtures.broker, fixtures.scene, fixtures.world


def logged(tmp_path: Path) -> list[Released]:
    events = [entry.event for entry in read_log(tmp_path / "broker0" / LOG_FILE)]
    return [event for event in events if isinstance(event, Released)]


async def refused(broker: KeyBroker, body: ReleaseBody, code: str, kind: type[OracleError], tmp_path: Path) -> None:
    """The rule `code` stops it, and nothing was released or logged."""
    with pytest.raises(OracleError) as caught:
        await broker.releases.release(body)
    assert caught.value.code == code
    assert type(caught.value) is kind
    assert logged(tmp_path) == []


def opened(scene: Scene, body: ReleaseBody, answer: ReleaseAnswer) -> tuple[int, dict[tuple[int, int], bytes]]:
    return open_answer(
        answer,
        chain=body.chain,
        agreement=body.agreement,
        request=body.release.request,
        datasets=body.request.versions,
        signer=body.evidence.signer,
        broker_signer=scene.world.brokers[0].signer,
        key=scene.world.enclave.sealing,
    )


def tee(agreement: Agreement, **changes: Any) -> Enclaves:
    return agreement.tee.model_copy(update=changes)


def keys(agreement: Agreement, **changes: Any) -> KeyRelease:
    return agreement.keys.model_copy(update=changes)


def data(agreement: Agreement, index: int, **changes: Any) -> tuple[Dataset, ...]:
    terms = list(agreement.data)
    terms[index] = terms[index].model_copy(update=changes)
    return tuple(terms)


@pytest.mark.parametrize("aside", [False, True])
async def test_an_agreed_enclave_gets_the_shares_of_the_agreed_columns_only(
    scene: Scene, broker: KeyBroker, tmp_path: Path, aside: bool
) -> None:
    body = await scene.body()
    answer, _ = await broker.releases.release(body, aside=aside)
    x, shares = opened(scene, body, answer)
    assert x == 1
    assert set(shares) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)}  # "texture" is key 3 of dataset 0
    for (dataset, key), share in shares.items():
        check_share(scene.world.sealed[dataset].shares, x, key, share)
    (entry,) = logged(tmp_path)
    assert entry.statement == answer.statement
    assert entry.keys == ((0, 1, 2), (0, 1, 2))
    assert verify_log(tmp_path / "broker0" / LOG_FILE, scene.world.brokers[0].signer).ok


async def test_two_brokers_answers_make_the_data_keys(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    found: dict[int, bytes] = {}
    for index in (0, 2):
        config = scene.config(scene.broker_directory(tmp_path, index))
        release = scene.ask(body.agreement, body.request, broker=scene.world.brokers[index].digest)
        mine = body.model_copy(update={"release": release})
        broker = await open_broker(config)
        answer, _ = await broker.releases.release(mine)
        await broker.close()
        x, shares = open_answer(
            answer,
            chain=mine.chain,
            agreement=mine.agreement,
            request=release.request,
            datasets=mine.request.versions,
            signer=mine.evidence.signer,
            broker_signer=scene.world.brokers[index].signer,
            key=scene.world.enclave.sealing,
        )
        found[x] = shares[1, 2]
    sealed = scene.world.sealed[1]
    assert recover_key(found, 2, sealed.manifest.keys[2]) == sealed.keys[2]


# The body alone: one field changed, everything else valid


async def agreement_with_another_salt(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"agreement": body.agreement.model_copy(update={"salt": secrets.token_bytes(32)})}


async def request_changed(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"request": body.request.model_copy(update={"params": b'{"a":1}'})}


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        (agreement_with_another_salt, "request.agreement", Refused),
        (request_changed, "release.task", Refused),
    ],
)
async def test_a_changed_body_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, change: Any, code: str, kind: type[OracleError]
) -> None:
    body = await scene.body()
    await refused(broker, body.model_copy(update=await change(scene, body)), code, kind, tmp_path)
    await broker.releases.release(body)  # the change alone was at fault


async def test_an_agreed_platform_needs_no_operator(scene: Scene, broker: KeyBroker) -> None:
    agreement = scene.agreement()
    platform = scene.verified(await scene.evidence()).platform
    hosts = tee(agreement, operators=(), platforms=(platform,))
    await broker.releases.release(await scene.body(agreement.model_copy(update={"tee": hosts})))


async def test_any_host_works_where_it_is_written_out(scene: Scene, broker: KeyBroker) -> None:
    agreement = scene.agreement()
    hosts = tee(agreement, operators=(), any_host=True)
    await broker.releases.release(await scene.body(agreement.model_copy(update={"tee": hosts})))


async def test_missing_and_expired_collateral_wait(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    directory = scene.broker_directory(tmp_path)
    broker = await open_broker(scene.config(directory, collateral=tmp_path))
    await refused(broker, body, "collateral.missing", Retryable, tmp_path)
    await broker.close()
    later = time.time() + 60 * 86_400
    config = scene.config(directory, served={"max_block_age": "skip"})
    broker = await open_broker(config, clock=lambda: later)
    await refused(broker, body, "evidence.collateral_expired", Retryable, tmp_path)
    await broker.close()


async def retried(release: Callable[[ReleaseBody], Awaitable[object]], body: ReleaseBody) -> None:
    """As a worker does; a generous time limit catches a hang."""
    async with asyncio.timeout(30):
        while True:
            try:
                await release(body)
                return
            except Retryable as error:
                if error.code != "collateral.missing":
                    raise
                await asyncio.sleep(0.01)


async def test_a_broker_fetches_its_collateral_itself(scene: Scene, tmp_path: Path) -> None:
    """R13. Nobody put a file there, and the answer outlives the service."""
    body, service = await scene.body(), Service(scene.world.authority)
    service.publish(17)
    async with serving(service):
        where = PcsConfig(pcs=service.url, root_crl=service.root_crl_url, cache=tmp_path / "cache")
        config = scene.config(scene.broker_directory(tmp_path), collateral=where)
        broker = await open_broker(config)
        fetching = asyncio.create_task(broker.collateral.run())
        await refused(broker, body, "collateral.missing", Retryable, tmp_path)
        await retried(broker.releases.release, body)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        await broker.close()
    broker = await open_broker(config)
    await broker.releases.release(body)
    await broker.close()


# Grace: newer findings about a platform that was fine (R4)


async def news(scene: Scene, tmp_path: Path, *, renewed: bool) -> Path:
    """Newer collateral, which calls the world's platform out of date; its registration may have been renewed under it."""
    newer = scene.collateral(status="OutOfDate", evaluation=18)
    if renewed:
        await scene.mine()
        await scene.register(await scene.evidence(), collateral=newer, earlier=scene.collateral())
    own = tmp_path / "newer.json"
    own.write_text(newer.to_json())
    return own


async def under(scene: Scene, **changes: Any) -> ReleaseBody:
    agreement = scene.agreement()
    return await scene.body(agreement.model_copy(update={"tee": tee(agreement, **changes)}))


async def test_a_platform_in_the_agreements_grace_gets_its_keys(scene: Scene, tmp_path: Path) -> None:
    own = await news(scene, tmp_path, renewed=True)
    for collateral in (own, scene.world.directory / "collateral.json"):
        home = tmp_path / collateral.stem
        broker = await open_broker(scene.config(scene.broker_directory(home), collateral=collateral))
        await broker.releases.release(await under(scene, grace_days=1))
        await broker.close()


@pytest.mark.parametrize(
    ("renewed", "terms", "code", "kind"),
    [
        (True, {"grace_days": 0}, "evidence.status_not_allowed", Refused),
        (True, {"grace_days": 1, "eval_floor": 18}, "enclave.status", Refused),
        (True, {"grace_days": 1, "status_mask": 1 << 2}, "enclave.status", Refused),
        (False, {"grace_days": 1}, "evidence.status_not_allowed", Retryable),
    ],
    ids=["no grace", "earlier below the floor", "never fine", "not shown yet"],
)
async def test_a_platform_out_of_the_agreements_grace_gets_none(
    scene: Scene, tmp_path: Path, renewed: bool, terms: dict[str, Any], code: str, kind: type[OracleError]
) -> None:
    own = await news(scene, tmp_path, renewed=renewed)
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path), collateral=own))
    await refused(broker, await under(scene, **terms), code, kind, tmp_path)
    await broker.close()


async def test_a_grace_ends_by_the_chains_time(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    await news(scene, tmp_path, renewed=True)
    await broker.releases.release(await under(scene, grace_days=1, max_evidence_age=1 << 30))
    await scene.rpc.call("evm_increaseTime", 86_400)
    await scene.mine()
    late = await under(scene, grace_days=1, max_evidence_age=1 << 30)
    with pytest.raises(Refused) as caught:
        await broker.releases.release(late)
    assert caught.value.code == "enclave.status"


# Consent


async def test_a_contract_account_consents_as_the_chain_recorded(scene: Scene, broker: KeyBroker) -> None:
    """ERC-1271, by a wallet that answers every question with the magic value."""
    wallet = Account.create().address
    await scene.rpc.call("anvil_setCode", wallet, "0x631626ba7e60e01b60005260206000f3")
    agreement = scene.agreement()
    agreement = agreement.model_copy(update={"fn": agreement.fn.model_copy(update={"owner": wallet})})
    signatures = (b"anything", *scene.signatures(agreement)[1:])
    await broker.releases.release(await scene.body(agreement, signatures=signatures))


async def test_consent_by_transaction_counts_as_the_chain_recorded(scene: Scene, broker: KeyBroker) -> None:
    agreement = scene.agreement()
    await scene.party(scene.world.author, "approve", scene.world.chain.agreement_id(agreement))
    signatures = (b"", *scene.signatures(agreement)[1:])
    await broker.releases.release(await scene.body(agreement, signatures=signatures))


async def test_a_delegated_account_consents_by_its_own_signature(scene: Scene, broker: KeyBroker) -> None:
    """EIP-7702: the account has code, and its key still signs."""
    delegate = "0xef0100" + scene.world.deployment.oracle[2:]
    await scene.rpc.call("anvil_setCode", scene.world.owners[0].address, delegate)
    await broker.releases.release(await scene.body())


# Narrowing (R8) and the task's standing (R9)


async def test_a_task_that_is_not_on_chain_waits(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    body = await scene.body()
    request = body.request.model_copy(update={"nonce": secrets.token_bytes(32)})
    changed = body.model_copy(update={"request": request, "release": scene.ask(body.agreement, request)})
    await refused(broker, changed, "task.unknown", Retryable, tmp_path)


async def test_unconfirmed_tasks_wait(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    agreement = scene.agreement()
    agreement = agreement.model_copy(update={"keys": keys(agreement, confirm_blocks=4)})
    await scene.activate(agreement)
    await scene.mine(8)
    request = await scene.request(agreement)
    body = ReleaseBody(
        chain=scene.world.chain,
        agreement=agreement,
        signatures=scene.signatures(agreement),
        request=request,
        manifests=tuple(s.manifest.canonical() for s in scene.world.sealed),
        share_lists=tuple(s.shares.canonical() for s in scene.world.sealed),
        release=scene.ask(agreement, request),
        evidence=await scene.evidence(),
    )
    await refused(broker, body, "task.unknown", Retryable, tmp_path)
    await scene.mine(4)
    answer, _ = await broker.releases.release(body)
    assert answer.statement.block_number == (await scene.head()).number - 4


async def test_the_brokers_own_minimum_binds_too(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    served = {"minimum": {"rule": "latest", "blocks": 1}}
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path), served=served))
    await refused(broker, body, "task.unknown", Retryable, tmp_path)
    await scene.mine()
    await broker.releases.release(body)
    await broker.close()


# The cap (R13)


def asked_again(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    """The same enclave with another nonce: another question."""
    return body.model_copy(update={"release": scene.ask(body.agreement, body.request)})


async def test_the_cap_holds_across_a_restart_and_for_calls_at_once(scene: Scene, tmp_path: Path) -> None:
    agreement = scene.agreement()
    body = await scene.body(agreement.model_copy(update={"keys": keys(agreement, max_releases=2)}))
    config = scene.config(scene.broker_directory(tmp_path))
    broker = await open_broker(config)
    await broker.releases.release(body)
    await broker.close()

    broker = await open_broker(config)
    several = [asked_again(scene, body) for _ in range(3)]
    outcomes = await asyncio.gather(*(broker.releases.release(each) for each in several), return_exceptions=True)
    codes = sorted(o.code for o in outcomes if isinstance(o, OracleError))
    assert codes == ["release.cap", "release.cap"]
    assert len(logged(tmp_path)) == 2
    await broker.close()

    broker = await open_broker(config)
    with pytest.raises(Refused) as caught:
        await broker.releases.release(asked_again(scene, body))
    assert caught.value.code == "release.cap"
    await broker.close()
    assert verify_log(tmp_path / "broker0" / LOG_FILE, scene.world.brokers[0].signer).ok


# The same question again (R13): equal, uncounted, and for nothing else


async def test_a_question_asked_again_gets_the_same_answer_and_counts_once(scene: Scene, tmp_path: Path) -> None:
    agreement = scene.agreement()
    body = await scene.body(agreement.model_copy(update={"keys": keys(agreement, max_releases=1)}))
    config = scene.config(scene.broker_directory(tmp_path))
    broker = await open_broker(config)
    first = await asyncio.gather(*(broker.releases.release(body) for _ in range(3)))
    await broker.close()
    broker = await open_broker(config)
    again, _ = await broker.releases.release(body)
    await broker.close()
    assert {answer for answer, _ in first} == {again}
    assert len(logged(tmp_path)) == 1
    opened(scene, body, again)


async def other_nonce(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"release": scene.ask(body.agreement, body.request)}


async def other_evidence(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    await scene.mine()
    return {"evidence": await scene.evidence()}


@pytest.mark.parametrize("change", [other_nonce, other_evidence])
async def test_an_answer_is_given_again_to_its_own_question_only(
    scene: Scene, tmp_path: Path, broker: KeyBroker, change: Any
) -> None:
    body = await scene.body()
    answer, _ = await broker.releases.release(body)
    other, _ = await broker.releases.release(body.model_copy(update=await change(scene, body)))
    assert other != answer
    assert len(logged(tmp_path)) == 2


@pytest.mark.parametrize("part", ["manifests", "share_lists"])
async def test_an_answer_is_not_given_again_over_other_documents(
    scene: Scene, tmp_path: Path, broker: KeyBroker, part: str
) -> None:
    body = await scene.body()
    await broker.releases.release(body)
    swapped = body.model_copy(update={part: tuple(reversed(getattr(body, part)))})
    with pytest.raises(Refused):
        await broker.releases.release(swapped)
    assert len(logged(tmp_path)) == 1


async def test_an_answer_is_not_given_again_after_a_narrowing(scene: Scene, tmp_path: Path, broker: KeyBroker) -> None:
    """R8: the rules are asked each time, whatever was answered before."""
    body = await scene.body()
    await broker.releases.release(body)
    await scene.party(scene.world.owners[0], "revoke", scene.world.chain.agreement_id(body.agreement))
    with pytest.raises(Refused) as caught:
        await broker.releases.release(body)
    assert caught.value.code == "agreement.revoked"


async def test_an_answer_over_a_block_that_is_gone_is_made_anew(
    scene: Scene, tmp_path: Path, broker: KeyBroker
) -> None:
    body = await scene.body()
    await scene.mine()
    first, _ = await broker.releases.release(body)
    await scene.rpc.call("anvil_reorg", 1, [])
    second, _ = await broker.releases.release(body)
    assert first.statement.block_hash != second.statement.block_hash
    assert len(logged(tmp_path)) == 2


async def test_a_task_of_a_time_whose_log_was_lost_gets_nothing(
    scene: Scene, tmp_path: Path, broker: KeyBroker
) -> None:
    body = await scene.body()
    broker.ledger.refused_until = body.request.as_of
    await refused(broker, body, "task.log_lost", Refused, tmp_path)
    broker.ledger.refused_until = body.request.as_of - 1
    await broker.releases.release(body)


async def test_an_agreement_whose_parties_activated_another_in_its_place_releases_nothing(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    body = await scene.body()
    await scene.activate(scene.agreement(supersedes=body.chain.agreement_id(body.agreement)))
    await refused(broker, body, "agreement.superseded", Refused, tmp_path)
