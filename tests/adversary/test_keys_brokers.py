"""Lies about keys, told to a key broker, and to an owner's command line: who asks, for what, and whose keys are meant."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.shares import DatasetBinding, make_share_list, random_coefficients
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.storage import blob_name
from enclave_app.protocol.structs import Agreement
from oracle.errors import Permanent
from oracle.keybroker import KeyBroker
from oracle.keys import write_public_key
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie, seen
from tests.broker_kit import Enclave, Scene, Sealed, released_by
from tests.cli_kit import answer, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

Change = Callable[[Scene, ReleaseBody], ReleaseBody]
THIEF = SealingKey.generate()


broker, scene, valid, world = fixtures.module_broker, fixtures.module_scene, fixtures.module_valid, fixtures.world


def told(what: str, rules: str, reason: str, change: Callable[..., Any]) -> Any:
    return pytest.param(change, marks=lie("keys", what, rules, reason), id=what)


def asked(**changes: Any) -> Change:
    """The enclave's own question, about something else."""
    return lambda scene, body: body.model_copy(update={"release": scene.ask(body.agreement, body.request, **changes)})


def signed_by(key: SigningKey) -> Change:
    def change(_: Scene, body: ReleaseBody) -> ReleaseBody:
        digest = body.release.request.typed_digest(body.chain.oracle_domain(body.agreement))
        return body.model_copy(update={"release": body.release.model_copy(update={"signature": key.sign(digest)})})

    return change


def renonced(_: Scene, body: ReleaseBody) -> ReleaseBody:
    request = body.release.request.model_copy(update={"nonce": secrets.token_bytes(32)})
    return body.model_copy(update={"release": body.release.model_copy(update={"request": request})})


def own_sealing_key(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    """Even if the enclave could be brought to sign for it, its quote is over another key."""
    evidence = body.evidence.model_copy(update={"sealing_key": THIEF.public.wire})
    release = scene.ask(body.agreement, body.request, sealing_key=THIEF.public.digest)
    return body.model_copy(update={"evidence": evidence, "release": release})


def own_enclave_keys(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    """Another enclave's quote, and both keys the host's own."""
    host = Enclave(scene.world.enclave.attester, SigningKey.generate(), THIEF)
    evidence = body.evidence.model_copy(update={"signer": host.signer.address, "sealing_key": THIEF.public.wire})
    release = scene.ask(body.agreement, body.request, host)
    return body.model_copy(update={"evidence": evidence, "release": release})


def own_result_key(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    request = body.request.model_copy(update={"result_key": THIEF.public.digest})
    return body.model_copy(update={"request": request})


def task_for_own_result_key(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    """The enclave is told another request, and asks for the task that this one makes."""
    changed = own_result_key(scene, body)
    return changed.model_copy(update={"release": scene.ask(changed.agreement, changed.request)})


def as_recipient(agreement: Agreement) -> Agreement:
    (output,) = agreement.outputs
    return agreement.model_copy(update={"outputs": (output.model_copy(update={"recipients": (THIEF.public.digest,)}),)})


def own_recipient(_: Scene, body: ReleaseBody) -> ReleaseBody:
    return body.model_copy(update={"agreement": as_recipient(body.agreement)})


def agreement_for_own_recipient(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    """And all that follows from it: ids, request and the enclave's question."""
    agreement = as_recipient(body.agreement)
    request = body.request.model_copy(update={"agreement_id": body.chain.agreement_id(agreement)})
    changes = {"agreement": agreement, "request": request, "release": scene.ask(agreement, request)}
    return body.model_copy(update=changes)


@pytest.mark.parametrize(
    "change",
    [
        told(
            "what was asked of another broker",
            "R12 R13",
            "release.broker",
            lambda scene, body: asked(broker=scene.world.brokers[1].digest)(scene, body),
        ),
        told("what was asked for another agreement", "R12", "release.agreement", asked(agreement_id=bytes([1]) * 32)),
        told("what was asked for another task", "R12", "release.task", asked(task_id=bytes([1]) * 32)),
        told("what was asked for another sealing key", "R2", "release.sealing_key", asked(sealing_key=THIEF.public.digest)),
        told("a question that a stranger signed", "R13", "release.signature", signed_by(SigningKey.generate())),
        told("a question with a nonce of its own", "R12", "release.signature", renonced),
        told("its own sealing key beside the enclave's quote", "R2", "evidence.report_data_mismatch", own_sealing_key),
        told("both keys its own beside an enclave's quote", "R2 R13", "evidence.report_data_mismatch", own_enclave_keys),
        told("a request with its own result key", "R15", "release.task", own_result_key),
        told("a task of its own making, with its own result key", "R13 R15", "task.unknown", task_for_own_result_key),
        told("an agreement with its own key as the recipient's", "R15", "request.agreement", own_recipient),
        told(
            "a whole story about itself as the recipient",
            "R7 R15",
            "consent.missing",
            agreement_for_own_recipient,
        ),
    ],
)  # fmt: skip
async def test_a_broker_answers_the_enclave_that_asked(
    scene: Scene, broker: KeyBroker, valid: ReleaseBody, tmp_path: Path, refused: Refused, change: Change
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(change(scene, valid))


@lie("keys", "a task asked for once more than the agreement allows", "R13", "release.cap")
async def test_a_replayed_question_counts(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    agreement = scene.agreement()
    keys = agreement.keys.model_copy(update={"max_releases": 2})
    body = await scene.body(agreement.model_copy(update={"keys": keys}))

    def another_nonce() -> ReleaseBody:
        return body.model_copy(update={"release": scene.ask(body.agreement, body.request)})

    await broker.releases.release(body)
    await broker.releases.release(body)  # the same question, which gets the same answer and counts once
    await broker.releases.release(another_nonce())
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(another_nonce())


# Agreements and share lists that all parties signed, and that mean other brokers


def keys(scene: Scene, **changes: Any) -> Agreement:
    agreement = scene.agreement()
    return agreement.model_copy(update={"keys": agreement.keys.model_copy(update=changes)})


def without_this_broker(scene: Scene) -> tuple[Agreement, Sequence[Sealed]]:
    return keys(scene, brokers=scene.agreement().keys.brokers[1:]), scene.world.sealed


def with_another_signer(scene: Scene) -> tuple[Agreement, Sequence[Sealed]]:
    first, *others = scene.agreement().keys.brokers
    changed = first.model_copy(update={"signer": SigningKey.generate().address})
    return keys(scene, brokers=(changed, *others)), scene.world.sealed


def shared(
    threshold: int = 2, order: tuple[int, ...] = (0, 1, 2), keys: int = 4, **bound: Any
) -> Callable[[Scene], tuple[Agreement, Sequence[Sealed]]]:
    """An agreement whose first dataset was shared otherwise than it says."""

    def change(scene: Scene) -> tuple[Agreement, Sequence[Sealed]]:
        world, sealed, agreement = scene.world, scene.world.sealed[0], scene.agreement()
        binding = DatasetBinding(
            chain_id=world.chain.chain_id,
            registry=world.chain.agreement_registry,
            owner=world.owners[0].address,
            dataset=sealed.manifest.id,
        ).model_copy(update=bound)
        public = [world.brokers[i].public_key() for i in order]
        coefficients = random_coefficients(threshold)
        shares = make_share_list(sealed.manifest.id, sealed.keys[:keys], threshold, public, binding, coefficients)
        term = agreement.data[0].model_copy(update={"shares_digest": shares.id})
        agreement = agreement.model_copy(update={"data": (term, *agreement.data[1:])})
        return agreement, (Sealed(sealed.manifest, sealed.keys, shares), world.sealed[1])

    return change


@pytest.mark.parametrize(
    "change",
    [
        told("an agreement that does not name the broker", "R15", "broker.not_named", without_this_broker),
        told("an agreement with another signer for the broker", "R15", "broker.signer", with_another_signer),
        told("shares of which one is enough", "R10", "shares.threshold", shared(threshold=1)),
        told("shares for the brokers in another order", "R10", "shares.brokers", shared(order=(1, 0, 2))),
        told("shares of fewer keys than the dataset has", "R10", "shares.keys", shared(keys=3)),
        told("shares made for another chain", "R10", "hpke.open", shared(chain_id=1)),
        told("shares made for another agreement registry", "R10", "hpke.open", shared(registry="0x" + "11" * 20)),
        told("shares made for another dataset of the owner", "R10", "hpke.open", shared(dataset=bytes([1]) * 32)),
    ],
)
async def test_a_broker_opens_shares_that_were_made_for_the_agreement(
    scene: Scene,
    broker: KeyBroker,
    valid: ReleaseBody,
    tmp_path: Path,
    refused: Refused,
    change: Callable[[Scene], tuple[Agreement, Sequence[Sealed]]],
) -> None:
    agreement, sealed = change(scene)
    body = await scene.body(agreement, sealed=sealed)
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(body)


# At an owner's command line


@lie("keys", "an owner its own key in place of a broker's, among what is to be published", "R15", "publish.broker")
async def test_an_owner_publishes_the_keys_that_it_shared_with(tmp_path: Path, refused: Refused) -> None:
    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "in.parquet")
    dataset, target = tmp_path / "ds", tmp_path / "storage"
    secret = ("--keys", tmp_path / "k", "--yes")
    answer("dataset", "seal", tmp_path / "in.parquet", "--out", dataset, "--dangerous-plaintext-keys", *secret)
    contracts = dict.fromkeys(("agreementRegistry", "enclaveRegistry", "oracle", "streams", "audits"), ZERO_ADDRESS)
    deployment = {"chainId": "31337", **contracts, "verifiers": {}, "firstBlock": 0}
    (tmp_path / "deployment.json").write_text(json.dumps(deployment))
    brokers = [SealingKey.generate() for _ in range(2)]
    named: list[object] = []
    for index, key in enumerate(brokers):
        write_public_key(tmp_path / f"b{index}", key.public)
        named += ["--broker", tmp_path / f"b{index}"]
    where = ("--owner", "0x" + "22" * 20, "--deployment", tmp_path / "deployment.json", "--threshold", 2)
    answer("dataset", "share", dataset, *where, *named, *secret)
    publish = ("dataset", "publish", dataset, "--storage")
    await asyncio.to_thread(answer, *publish, (tmp_path / "elsewhere").as_uri())
    (dataset / "blobs" / blob_name(brokers[0].public.digest)).write_bytes(THIEF.public.wire)
    refused.watch(seen(target.exists))
    async with refused():
        error = await asyncio.to_thread(refusal, *publish, target.as_uri())
        raise Permanent(error["code"], error["message"])
