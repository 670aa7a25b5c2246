"""Lies about data to those who decide on it: key brokers, the contracts, an owner's and a requester's own programs."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.shares import DatasetBinding, make_share_list, random_coefficients
from enclave_app.protocol.structs import Agreement, DatasetPolicy
from oracle.agreement.document import AgreementDocument, write_document
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.errors import Permanent
from oracle.keybroker import KeyBroker
from oracle.keys import create_wallet
from tests import broker_fixtures as fixtures
from tests import enclave_kit
from tests.adversary.lies import Refused, lie, seen
from tests.broker_kit import Scene, Sealed, released_by
from tests.cli_kit import CHEAP, answer, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

Change = Callable[[Scene, ReleaseBody], ReleaseBody]


broker, scene, valid, world = fixtures.module_broker, fixtures.module_scene, fixtures.module_valid, fixtures.world


def told(what: str, rules: str, reason: str, change: Callable[..., Any]) -> Any:
    return pytest.param(change, marks=lie("data", what, rules, reason), id=what)


def older(scene: Scene) -> Sealed:
    """An earlier version of the first dataset, sealed and shared by its owner."""
    world = scene.world
    public = [card.public_key() for card in world.brokers]
    return Sealed.make(world.chain, world.owners[0].address, ["patient", "radius", "texture"], public, 2)


def for_older_version(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    """The request, and what the enclave asks for it, name a version that is not the agreed one."""
    before = older(scene)
    request = body.request.model_copy(update={"versions": (before.manifest.id, body.request.versions[1])})
    changes = {
        "request": request,
        "manifests": (before.manifest.canonical(), body.manifests[1]),
        "share_lists": (before.shares.canonical(), body.share_lists[1]),
        "release": scene.ask(body.agreement, request),
    }
    return body.model_copy(update=changes)


def with_older_documents(scene: Scene, body: ReleaseBody) -> ReleaseBody:
    before = older(scene)
    changes = {
        "manifests": (before.manifest.canonical(), body.manifests[1]),
        "share_lists": (before.shares.canonical(), body.share_lists[1]),
    }
    return body.model_copy(update=changes)


@pytest.mark.parametrize(
    "change",
    [
        told(
            "a broker the manifests of two datasets in each other's place",
            "R11",
            "manifest.digest",
            lambda _, body: body.model_copy(update={"manifests": body.manifests[::-1]}),
        ),
        told(
            "a broker the share lists of two datasets in each other's place",
            "R10",
            "shares.digest",
            lambda _, body: body.model_copy(update={"share_lists": body.share_lists[::-1]}),
        ),
        told(
            "a broker one manifest for two datasets",
            "R10",
            "release.datasets",
            lambda _, body: body.model_copy(update={"manifests": body.manifests[:1]}),
        ),
        told(
            "a broker one share list for two datasets",
            "R10",
            "release.datasets",
            lambda _, body: body.model_copy(update={"share_lists": body.share_lists[:1]}),
        ),
        told(
            "a broker one bit of a manifest flipped",
            "R11",
            "manifest.digest",
            lambda _, body: body.model_copy(update={"manifests": (flipped(body.manifests[0]), body.manifests[1])}),
        ),
        told(
            "a broker one bit of a share list flipped",
            "R10",
            "shares.digest",
            lambda _, body: body.model_copy(update={"share_lists": (flipped(body.share_lists[0]), body.share_lists[1])}),
        ),
        told("a broker an older version's documents", "R7b", "manifest.digest", with_older_documents),
        told("a broker a request for an older version", "R7b", "request.versions", for_older_version),
    ],
)  # fmt: skip
async def test_a_broker_releases_for_the_agreed_datasets(
    scene: Scene, broker: KeyBroker, valid: ReleaseBody, tmp_path: Path, refused: Refused, change: Change
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    async with refused():
        await broker.releases.release(change(scene, valid))


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def first_term(scene: Scene, **changes: Any) -> Agreement:
    agreement = scene.agreement()
    first = agreement.data[0].model_copy(update=changes)
    return agreement.model_copy(update={"data": (first, *agreement.data[1:])})


@pytest.mark.parametrize(
    "agreement",
    [
        told(
            "owners who agree on another lineage than the dataset's",
            "R9",
            "manifest.lineage",
            lambda scene: first_term(scene, lineage=bytes([1]) * 32),
        ),
        told(
            "owners who agree on a column that the dataset lacks",
            "R7",
            "manifest.column",
            lambda scene: first_term(scene, columns=("patient", "age")),
        ),
    ],
)
async def test_a_broker_holds_datasets_against_what_all_agreed(
    scene: Scene,
    broker: KeyBroker,
    valid: ReleaseBody,
    tmp_path: Path,
    refused: Refused,
    agreement: Callable[[Scene], Agreement],
) -> None:
    refused.watch(released_by(tmp_path / "broker0"))
    body = await scene.body(agreement(scene))
    async with refused():
        await broker.releases.release(body)


# R10: a thief, who is the only owner of its agreement, and consents to everything


def thiefs(scene: Scene, sealed: Sealed) -> Agreement:
    """An agreement in which `sealed` is the thief's, which is the second owner of this world."""
    agreement, thief = scene.agreement(), scene.world.owners[1].address
    named = {
        "owner": thief,
        "id_or_stream": sealed.manifest.id,
        "lineage": sealed.manifest.lineage,
        "shares_digest": sealed.shares.id,
        "columns": ("patient", "radius"),
    }
    return agreement.model_copy(
        update={
            "fn": agreement.fn.model_copy(update={"owner": thief}),
            "data": (agreement.data[0].model_copy(update=named),),
        }
    )


def shared_by_thief(scene: Scene, victim: Sealed) -> Sealed:
    """What the thief can do with a dataset whose keys it has: the same manifest, shared in its own name."""
    world = scene.world
    binding = DatasetBinding(
        chain_id=world.chain.chain_id,
        registry=world.chain.agreement_registry,
        owner=world.owners[1].address,
        dataset=victim.manifest.id,
    )
    public = [card.public_key() for card in world.brokers]
    shares = make_share_list(victim.manifest.id, victim.keys, 2, public, binding, random_coefficients(2))
    return Sealed(victim.manifest, victim.keys, shares)


def copied(_: Scene, victim: Sealed) -> Sealed:
    return victim


def rehomed(scene: Scene, victim: Sealed) -> Sealed:
    """A dataset of the thief's own, whose share list holds the victim's envelopes."""
    manifest = victim.manifest.model_copy(update={"lineage": secrets.token_bytes(32)})
    return Sealed(manifest, victim.keys, victim.shares.model_copy(update={"dataset": manifest.id}))


@pytest.mark.parametrize(
    "steal",
    [
        told("a co-owner's dataset and share list as its own", "R10", "hpke.open", copied),
        told("a co-owner's shares in a share list of its own dataset", "R10", "hpke.open", rehomed),
    ],
)
async def test_copied_shares_do_not_open_for_another_owner(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, steal: Callable[[Scene, Sealed], Sealed]
) -> None:
    own = shared_by_thief(scene, scene.world.sealed[0])
    await broker.releases.release(await scene.body(thiefs(scene, own), sealed=(own,)))
    refused.watch(released_by(tmp_path / "broker0"))
    stolen = steal(scene, scene.world.sealed[0])
    body = await scene.body(thiefs(scene, stolen), sealed=(stolen,))
    async with refused():
        await broker.releases.release(body)


# At the contracts


@lie("data", "the contract a request for an older version than agreed", "R7b", "AgreementRegistry_WrongAdmission")
async def test_the_contract_takes_requests_for_the_agreed_version(scene: Scene, refused: Refused) -> None:
    agreement = scene.agreement()
    await scene.activate(agreement)
    await scene.request(agreement)

    async def escrow() -> object:
        return await scene.rpc.call("eth_getBalance", scene.world.deployment.oracle, "latest")

    refused.watch(escrow)
    async with refused():
        await scene.request(agreement, versions=(older(scene).manifest.id, agreement.data[1].id_or_stream))


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(
            policy,
            marks=lie(
                "data",
                f"the contract one version's shares for a dataset under the policy {policy.name}",
                "R7b R10",
                "AgreementRegistry_Conflict",
            ),
            id=policy.name,
        )
        for policy in DatasetPolicy
        if policy is not DatasetPolicy.FIXED
    ],
)
async def test_a_stream_has_no_shares_of_its_own(scene: Scene, refused: Refused, policy: DatasetPolicy) -> None:
    """Each version has its own; an agreement that named one's would release another's under them."""
    of_a_stream = {"policy": policy, "min_version": 1}
    await scene.activate(first_term(scene, **of_a_stream, shares_digest=ZERO32))

    async def height() -> object:
        return (await scene.head()).number

    refused.watch(height)
    async with refused():
        await scene.activate(first_term(scene, **of_a_stream))


# At an owner's command line, and at a requester


@lie("data", "an owner the manifest of another dataset than it signs for", "R7", "explain.manifest")
async def test_an_owner_is_told_about_the_dataset_that_is_agreed(tmp_path: Path, refused: Refused) -> None:
    agreed = enclave_kit.make_world(tmp_path / "storage", bytes([1]) * 32)
    (tmp_path / "pw").write_text("correct horse\n")
    owner = create_wallet(tmp_path / "owner", lambda: "correct horse", n=CHEAP)
    fn = agreed.agreement.fn.model_copy(update={"owner": owner})
    file = tmp_path / "agreement.json"
    write_document(file, AgreementDocument(chain=enclave_kit.CHAIN, agreement=agreed.changed(fn=fn)))
    for dataset in agreed.datasets:
        (tmp_path / dataset.name).write_bytes(dataset.manifest.canonical())
    keys = ("--keystore", tmp_path / "owner", "--password-file", tmp_path / "pw", "--yes")
    told_well = ("agreement", "sign", file, "--manifest", f"a={tmp_path / 'a'}", *keys)
    assert answer(*told_well, "--out", tmp_path / "signed.json")["signed"] == [owner]
    refused.watch(seen(file.read_bytes))
    async with refused():
        error = refusal("agreement", "sign", file, "--manifest", f"a={tmp_path / 'b'}", *keys)
        raise Permanent(error["code"], error["message"])


@lie("data", "a requester another parameter domain than agreed", "R15", "blob.digest")
async def test_a_requester_goes_by_the_agreed_parameters(scene: Scene, tmp_path: Path, refused: Refused) -> None:
    agreed = enclave_kit.make_world(tmp_path / "storage", bytes([1]) * 32)
    config = ClientConfig(
        rpc=scene.world.url, deployment=scene.world.deployment, storage=(agreed.storage.as_uri(),), brokers={}
    )
    async with Client(config) as client:
        assert await client.parameters(agreed.agreement) == agreed.domain
        path = agreed.path(agreed.domain.id)
        path.write_bytes(path.read_bytes().replace(b'"max":100', b'"max":999'))

        async def height() -> object:
            return (await scene.head()).number

        refused.watch(height)
        async with refused():
            await client.parameters(agreed.agreement)
