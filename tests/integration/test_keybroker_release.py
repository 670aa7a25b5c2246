"""The broker's release, against real contracts and minted quotes: one valid case, then one change for each rule."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.release import ReleaseAnswer, ReleaseBody, open_answer
from enclave_app.protocol.shares import check_share, recover_key
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Dataset, Enclaves, KeyRelease, Retire
from oracle.chain.abi import load
from oracle.chain.reader import host_id
from oracle.chain.rpc import Rpc
from oracle.errors import OracleError, Refused, Retryable
from oracle.keybroker import KeyBroker, open_broker, read_log, verify_log
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.log import Released
from tests.broker_kit import Enclave, Scene, World, anvil, collateral_with, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with anvil() as url:
        yield asyncio.run(make_world(url, tmp_path_factory.mktemp("world")))


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    """The world, put back afterwards."""
    rpc = Rpc(world.url)
    before = await rpc.call("evm_snapshot")
    yield Scene(world, rpc)
    await rpc.call("evm_revert", before)
    await rpc.close()


@pytest.fixture
async def broker(scene: Scene, tmp_path: Path) -> AsyncIterator[KeyBroker]:
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path)))
    yield broker
    await broker.close()


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


async def test_an_agreed_enclave_gets_the_shares_of_the_agreed_columns_only(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    body = await scene.body()
    answer, _ = await broker.releases.release(body)
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


async def other_chain(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"chain": body.chain.model_copy(update={"chain_id": 1})}


async def other_registry(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"chain": body.chain.model_copy(update={"agreement_registry": scene.world.deployment.oracle})}


async def agreement_with_another_salt(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"agreement": body.agreement.model_copy(update={"salt": secrets.token_bytes(32)})}


async def agreement_with_an_empty_policy(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"agreement": body.agreement.model_copy(update={"tee": tee(body.agreement, status_mask=0)})}


async def request_of_another_agreement(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"request": body.request.model_copy(update={"agreement_id": secrets.token_bytes(32)})}


async def request_changed(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"request": body.request.model_copy(update={"params": b'{"a":1}'})}


async def one_signature_too_few(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"signatures": body.signatures[:-1]}


async def signature_of_a_stranger(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    digest = body.chain.agreement_id(body.agreement)
    return {"signatures": (*body.signatures[:-1], SigningKey.generate().sign(digest))}


async def signature_left_out(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"signatures": (*body.signatures[:-1], b"")}


async def release_under_an_anchor_that_is_not_agreed(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"release": scene.ask(body.agreement, body.request, anchor=secrets.token_bytes(32))}


async def release_under_an_agreed_anchor_without_registration(scene: Scene, body: ReleaseBody) -> dict[str, Any]:
    return {"release": scene.ask(body.agreement, body.request, anchor=scene.world.root)}


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        (other_chain, "chain.not_served", Refused),
        (other_registry, "chain.not_served", Refused),
        (agreement_with_another_salt, "request.agreement", Refused),
        (agreement_with_an_empty_policy, "agreement.statuses", Refused),
        (request_of_another_agreement, "request.agreement", Refused),
        (request_changed, "release.task", Refused),
        (one_signature_too_few, "consent.count", Refused),
        (signature_of_a_stranger, "consent.missing", Refused),
        (signature_left_out, "consent.missing", Refused),
        (release_under_an_anchor_that_is_not_agreed, "enclave.anchor", Refused),
        (release_under_an_agreed_anchor_without_registration, "enclave.unknown", Retryable),
    ],
)
async def test_a_changed_body_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, change: Any, code: str, kind: type[OracleError]
) -> None:
    body = await scene.body()
    await refused(broker, body.model_copy(update=await change(scene, body)), code, kind, tmp_path)
    await broker.releases.release(body)  # the change alone was at fault


# Evidence: one field changed


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"chain_id": 1}, "evidence.chain", Refused),
        ({"registry": ZERO_ADDRESS}, "evidence.registry", Refused),
        ({"block_hash": bytes(32)}, "evidence.report_data_mismatch", Refused),
        ({"block_number": 1}, "evidence.block", Refused),
        ({"block_number": 10**9}, "evidence.block_unknown", Retryable),
        ({"signer": "0x00000000000000000000000000000000000000AA"}, "release.signature", Refused),
        ({"tee": 2}, "evidence.tee_mismatch", Refused),
        ({"tee": 3}, "evidence.tee_unsupported", Refused),
        ({"operator": "0x00000000000000000000000000000000000000AA"}, "host.not_agreed", Refused),
        ({"operator_signature": b""}, "host.signature", Refused),
        ({"operator_signature": bytes(65)}, "host.signature", Refused),
    ],
)
async def test_changed_evidence_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, change: dict[str, Any], code: str, kind: type[OracleError]
) -> None:
    body = await scene.body()
    evidence = body.evidence.model_copy(update=change)
    await refused(broker, body.model_copy(update={"evidence": evidence}), code, kind, tmp_path)


async def test_a_changed_byte_of_the_quote_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    body = await scene.body()
    quote = bytearray(body.evidence.quote)
    quote[48 + 64] ^= 1  # the first byte of MRENCLAVE
    evidence = body.evidence.model_copy(update={"quote": bytes(quote)})
    await refused(broker, body.model_copy(update={"evidence": evidence}), "evidence.quote_refused", Refused, tmp_path)


async def test_a_registration_that_lies_about_the_measurement_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    """R13: whoever holds the development appraiser's key can register anything; the broker appraises itself."""
    other = Enclave(SoftwareAttester(scene.world.platform, SoftwareEnclave(secrets.token_bytes(32), b"{}")))
    body = await scene.body(enclave=other)
    await scene.register(body.evidence, other, measurement=scene.world.program.measurement)
    await refused(broker, body, "evidence.measurement_not_listed", Refused, tmp_path)


@pytest.mark.parametrize(
    ("said", "code", "kind"),
    [
        ({"measurement": bytes([1]) * 32}, "enclave.measurement", Refused),
        ({"platform": bytes([1]) * 32}, "enclave.platform", Refused),
        ({"tee": 2}, "enclave.platform", Refused),
        ({"tcb_status": 5}, "enclave.status", Refused),
        ({"evaluation": 16}, "enclave.evaluation", Refused),
    ],
)
async def test_a_registration_that_does_not_fit_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, said: dict[str, Any], code: str, kind: type[OracleError]
) -> None:
    enclave = Enclave(scene.world.enclave.attester)
    body = await scene.body(enclave=enclave)
    await scene.register(body.evidence, enclave, **said)
    await refused(broker, body, code, kind, tmp_path)


async def test_a_registration_of_another_agreed_measurement_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    agreement = scene.agreement()
    both = (*agreement.tee.measurements, bytes([1]) * 32)
    enclave = Enclave(scene.world.enclave.attester)
    body = await scene.body(agreement.model_copy(update={"tee": tee(agreement, measurements=both)}), enclave=enclave)
    await scene.register(body.evidence, enclave, measurement=bytes([1]) * 32)
    await refused(broker, body, "enclave.differs", Refused, tmp_path)


async def test_a_registration_with_another_sealing_key_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    registered = Enclave(scene.world.enclave.attester)
    await scene.register(await scene.evidence(registered), registered)
    asking = Enclave(scene.world.enclave.attester, registered.signer)
    await refused(broker, await scene.body(enclave=asking), "enclave.sealing_key", Refused, tmp_path)


async def test_an_expired_registration_waits_for_a_renewal(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    enclave = Enclave(scene.world.enclave.attester)
    body = await scene.body(enclave=enclave)
    now = (await scene.head()).timestamp
    await scene.register(body.evidence, enclave, valid_until=now + 60)
    await scene.rpc.call("evm_increaseTime", 120)
    await scene.mine()
    await refused(broker, body, "enclave.expired", Retryable, tmp_path)


async def test_a_retired_enclave_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    body = await scene.body()
    signer = scene.world.enclave.signer
    digest = Retire(signer=signer.address).typed_digest(body.chain.enclave_domain(body.agreement))
    call = load("EnclaveRegistry").call("retire", scene.anchor, signer.address, signer.sign(digest))
    await scene.transact(scene.world.requester, scene.world.deployment.enclave_registry, call)
    await refused(broker, body, "enclave.retired", Refused, tmp_path)


async def test_an_operator_other_than_the_registered_one_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    another = Account.create()
    agreement = scene.agreement()
    operators = (scene.world.operator.address, another.address)
    body = await scene.body(agreement.model_copy(update={"tee": tee(agreement, operators=operators)}))
    evidence = await scene.evidence(operator=another)
    await refused(broker, body.model_copy(update={"evidence": evidence}), "enclave.operator", Refused, tmp_path)


async def test_an_agreed_platform_needs_no_operator(scene: Scene, broker: KeyBroker) -> None:
    agreement = scene.agreement()
    platform = scene.verified(await scene.evidence()).platform
    hosts = tee(agreement, operators=(), platforms=(platform,))
    await broker.releases.release(await scene.body(agreement.model_copy(update={"tee": hosts})))


async def test_another_platform_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    agreement = scene.agreement()
    hosts = tee(agreement, operators=(), platforms=(bytes([7]) * 32,))
    body = await scene.body(agreement.model_copy(update={"tee": hosts}))
    await refused(broker, body, "host.not_agreed", Refused, tmp_path)


async def test_any_host_works_where_it_is_written_out(scene: Scene, broker: KeyBroker) -> None:
    agreement = scene.agreement()
    hosts = tee(agreement, operators=(), any_host=True)
    await broker.releases.release(await scene.body(agreement.model_copy(update={"tee": hosts})))


async def test_a_root_that_the_agreement_does_not_list_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    agreement = scene.agreement()
    body = await scene.body(agreement.model_copy(update={"tee": tee(agreement, anchors=(scene.anchor,))}))
    await refused(broker, body, "evidence.anchor_not_listed", Refused, tmp_path)


async def test_a_broker_without_the_development_root_refuses(scene: Scene, tmp_path: Path) -> None:
    """R4: the broker's own flag is needed as well, whatever the agreement lists."""
    body = await scene.body()
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path), anchors={"intel": True}))
    await refused(broker, body, "evidence.quote_refused", Refused, tmp_path)
    await broker.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": "OutOfDate"}, "evidence.status_not_allowed"),
        ({"evaluation": 16}, "evidence.evaluation_below_floor"),
    ],
)
async def test_the_broker_goes_by_its_own_collateral(
    scene: Scene, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    body = await scene.body()
    (tmp_path / "own.json").write_text(collateral_with(scene.world, **changes))
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path), collateral=tmp_path / "own.json"))
    await refused(broker, body, code, Refused, tmp_path)
    (tmp_path / "own.json").write_text(collateral_with(scene.world))
    await broker.releases.release(body)  # fresh collateral is read without a restart
    await broker.close()


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


# Consent


async def test_an_agreement_that_was_never_activated_waits(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    body = await scene.body()
    draft = scene.agreement()
    request = body.request.model_copy(update={"agreement_id": body.chain.agreement_id(draft)})
    changed = body.model_copy(
        update={
            "agreement": draft,
            "signatures": scene.signatures(draft),
            "request": request,
            "release": scene.ask(draft, request),
        }
    )
    await refused(broker, changed, "agreement.inactive", Retryable, tmp_path)


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


async def test_a_suspended_agreement_waits_until_it_is_resumed(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    body = await scene.body()
    agreement_id = body.chain.agreement_id(body.agreement)
    await scene.party(scene.world.owners[1], "suspend", agreement_id)
    await refused(broker, body, "agreement.suspended", Retryable, tmp_path)
    await scene.party(scene.world.owners[1], "resume", agreement_id)
    await broker.releases.release(body)


async def test_a_revoked_agreement_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    body = await scene.body()
    await scene.party(scene.world.owners[0], "revoke", body.chain.agreement_id(body.agreement))
    await refused(broker, body, "agreement.revoked", Refused, tmp_path)


@pytest.mark.parametrize("what", ["measurement", "platform", "operator"])
async def test_what_a_party_dropped_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path, what: str) -> None:
    body = await scene.body()
    verified = scene.verified(body.evidence)
    dropped = {
        "measurement": ("dropMeasurement", verified.measurement),
        "platform": ("dropHost", verified.platform),
        "operator": ("dropHost", host_id(scene.world.operator.address)),
    }
    function, thing = dropped[what]
    await scene.party(scene.world.author, function, body.chain.agreement_id(body.agreement), thing)
    await refused(broker, body, "agreement.dropped", Refused, tmp_path)


async def test_a_task_that_is_not_on_chain_waits(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    body = await scene.body()
    request = body.request.model_copy(update={"nonce": secrets.token_bytes(32)})
    changed = body.model_copy(update={"request": request, "release": scene.ask(body.agreement, request)})
    await refused(broker, changed, "task.unknown", Retryable, tmp_path)


async def test_no_release_while_the_task_can_be_cancelled(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    agreement = scene.agreement()
    body = await scene.body(agreement.model_copy(update={"keys": keys(agreement, release_delay=3)}))
    await scene.mine(3)
    await refused(broker, body, "task.delay", Retryable, tmp_path)
    await scene.mine()
    await broker.releases.release(body)


async def test_a_cancelled_task_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    agreement = scene.agreement()
    body = await scene.body(agreement.model_copy(update={"keys": keys(agreement, release_delay=3)}))
    call = load("ComputeOracle").call("cancel", body.request)
    await scene.transact(scene.world.requester, scene.world.deployment.oracle, call)
    await scene.mine(5)
    await refused(broker, body, "task.closed", Refused, tmp_path)


async def test_the_deadline_is_the_last_second_for_a_release(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    agreement = scene.agreement()
    agreement = agreement.model_copy(update={"tee": tee(agreement, max_evidence_age=10**6)})
    body = await scene.body(agreement)
    await scene.rpc.call("evm_setNextBlockTimestamp", body.request.deadline + 1)
    await scene.mine()
    await refused(broker, body, "task.deadline", Refused, tmp_path)


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


async def test_old_evidence_waits_for_a_renewal(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    agreement = scene.agreement()
    old = await scene.head()
    await scene.rpc.call("evm_increaseTime", 600)
    await scene.mine()
    await scene.register(await scene.evidence())
    body = await scene.body(agreement.model_copy(update={"tee": tee(agreement, max_evidence_age=500)}))
    stale = body.model_copy(update={"evidence": await scene.evidence(block=old)})
    await refused(broker, stale, "evidence.age", Retryable, tmp_path)
    await broker.releases.release(body)


async def test_an_old_registration_waits_for_a_renewal(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    agreement = scene.agreement()
    await scene.rpc.call("evm_increaseTime", 600)
    body = await scene.body(agreement.model_copy(update={"tee": tee(agreement, max_evidence_age=500)}))
    await refused(broker, body, "enclave.evidence_age", Retryable, tmp_path)


async def test_a_chain_that_stands_still_is_not_believed(scene: Scene, tmp_path: Path) -> None:
    body = await scene.body()
    late = time.time() + 4000
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path)), clock=lambda: late)
    await refused(broker, body, "chain.stale", Retryable, tmp_path)
    await broker.close()


# The cap (R13)


async def test_the_cap_holds_across_a_restart_and_for_calls_at_once(scene: Scene, tmp_path: Path) -> None:
    agreement = scene.agreement()
    body = await scene.body(agreement.model_copy(update={"keys": keys(agreement, max_releases=2)}))
    config = scene.config(scene.broker_directory(tmp_path))
    broker = await open_broker(config)
    await broker.releases.release(body)
    await broker.close()

    broker = await open_broker(config)
    outcomes = await asyncio.gather(*(broker.releases.release(body) for _ in range(3)), return_exceptions=True)
    codes = sorted(o.code for o in outcomes if isinstance(o, OracleError))
    assert codes == ["release.cap", "release.cap"]
    assert len(logged(tmp_path)) == 2
    await broker.close()

    broker = await open_broker(config)
    with pytest.raises(Refused) as caught:
        await broker.releases.release(body)
    assert caught.value.code == "release.cap"
    await broker.close()
    assert verify_log(tmp_path / "broker0" / LOG_FILE, scene.world.brokers[0].signer).ok
