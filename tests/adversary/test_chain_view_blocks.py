"""Lies about the chain as a whole, told to a broker: old blocks, other chains, blocks that go away, contracts of the liar's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.structs import Agreement, TaskRequest
from oracle.chain.source import Block
from oracle.keybroker import open_broker
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Scene
from tests.output_kit import Finished, released_by
from tests.rpc_kit import Forgery, about, always_latest, proxy, word

scene, world = fixtures.scene, fixtures.world


@pytest.fixture
def directory(scene: Scene, tmp_path: Path, refused: Refused) -> Path:
    """Of the broker that is lied to: nothing leaves it."""
    directory = scene.broker_directory(tmp_path)
    refused.watch(released_by(directory))
    return directory


async def release(
    scene: Scene, directory: Path, body: ReleaseBody, urls: list[str] | None = None, later: int = 0, **served: Any
) -> None:
    """What a broker does whose clock is `later` seconds ahead; an answer, or what it raises."""
    config = scene.config(directory, urls or [scene.world.url], served=served)
    broker = await open_broker(config, clock=lambda: time.time() + later)
    try:
        await broker.releases.release(body)
    finally:
        await broker.close()


async def body_of(scene: Scene, agreement: Agreement, request: TaskRequest, **changes: Any) -> ReleaseBody:
    body = await Finished(scene, agreement, request, SealingKey.generate()).release_body()
    return body.model_copy(update=changes)


async def raw_block(scene: Scene, number: int) -> dict[str, Any]:
    found = await scene.rpc.call("eth_getBlockByNumber", hex(number), False)
    assert isinstance(found, dict)
    return found


# Old views.


@lie("chain view", "RPCs that all stand still at a block before a suspension", "R8 R13", "chain.stale")
async def test_a_chain_that_stands_still_is_not_believed(
    scene: Scene, tmp_path: Path, directory: Path, refused: Refused
) -> None:
    body = await scene.body()
    frozen = always_latest(await raw_block(scene, (await scene.head()).number))
    await scene.party(scene.world.author, "suspend", body.chain.agreement_id(body.agreement))
    async with proxy(scene.world.url, frozen) as one, proxy(scene.world.url, frozen) as two:
        urls = [one, two]
        control = scene.broker_directory(tmp_path / "control")
        await release(scene, control, body, urls, later=2 * 3600, max_block_age="skip")
        async with refused():
            await release(scene, directory, body, urls, later=2 * 3600)


@lie("chain view", "one RPC of two that hides the newest blocks", "R13", "agreement.inactive")
async def test_a_laggard_delays_and_does_not_mislead(scene: Scene, directory: Path, refused: Refused) -> None:
    body = await scene.body()
    lag = always_latest(await raw_block(scene, (await scene.head()).number - 2))
    async with proxy(scene.world.url, lag) as laggard, refused():
        await release(scene, directory, body, [scene.world.url, laggard])


# Other chains, and blocks that are on none.


@lie("chain view", "an RPC of another chain", "R13", "chain.wrong")
async def test_endpoints_of_another_chain_are_refused(scene: Scene, directory: Path, refused: Refused) -> None:
    body = await scene.body()

    def elsewhere(call: dict[str, Any], result: Any) -> Any:
        return "0x5" if call["method"] == "eth_chainId" else result

    async with proxy(scene.world.url, elsewhere) as other, refused():
        await release(scene, directory, body, [other])


async def with_forged_block(scene: Scene) -> tuple[ReleaseBody, Forgery]:
    """Evidence over a made-up block, and an endpoint that has it on its chain."""
    body, head = await scene.body(), await scene.head()
    forged = Block(number=head.number, hash=bytes([9]) * 32, parent=head.parent, timestamp=head.timestamp)

    def lie(call: dict[str, Any], result: Any) -> Any:
        if call["method"] == "eth_getBlockByNumber" and call["params"][0] == hex(head.number):
            return {**result, "hash": "0x" + forged.hash.hex()}
        return result

    return body.model_copy(update={"evidence": await scene.evidence(block=forged)}), lie


@lie("chain view", "evidence over a block that was never on this chain", "R2", "evidence.block")
async def test_a_made_up_block_does_not_make_evidence_fresh(
    scene: Scene, tmp_path: Path, directory: Path, refused: Refused
) -> None:
    body, forgery = await with_forged_block(scene)
    async with proxy(scene.world.url, forgery) as liar:
        await release(scene, scene.broker_directory(tmp_path / "control"), body, [liar])
    async with refused():
        await release(scene, directory, body)


@lie("chain view", "one RPC of two that knows a made-up block", "R2 R13", "chain.disagree")
async def test_an_endpoint_alone_cannot_vouch_for_a_block(scene: Scene, directory: Path, refused: Refused) -> None:
    body, forgery = await with_forged_block(scene)
    async with proxy(scene.world.url, forgery) as liar, refused():
        await release(scene, directory, body, [scene.world.url, liar])


@lie("chain view", "an answer that would fill the broker's memory", "R13", "rpc.size")
async def test_an_answer_of_a_size_that_no_read_needs_is_not_taken_in(
    scene: Scene, directory: Path, refused: Refused
) -> None:
    body = await scene.body()
    bomb = about("AgreementRegistry", "status", lambda data: data + bytes(5 << 20))
    async with proxy(scene.world.url, bomb) as liar, refused():
        await release(scene, directory, body, [liar])


# Blocks that go away.


@lie("chain view", "a request that a reorganisation took away", "R9", "task.unknown")
async def test_a_request_that_was_reorganised_away_is_not_released(
    scene: Scene, tmp_path: Path, directory: Path, refused: Refused
) -> None:
    agreement = scene.agreement()
    await scene.activate(agreement)
    evidence = await scene.evidence()
    fork = await scene.rpc.call("evm_snapshot")
    body = await body_of(scene, agreement, await scene.request(agreement), evidence=evidence)
    await release(scene, scene.broker_directory(tmp_path / "control"), body)
    await scene.rpc.call("evm_revert", fork)
    await scene.mine(3)
    async with refused():
        await release(scene, directory, body)


@lie("chain view", "an agreement whose activation a reorganisation took away", "R7", "agreement.inactive")
async def test_an_activation_that_was_reorganised_away_releases_nothing(
    scene: Scene, tmp_path: Path, directory: Path, refused: Refused
) -> None:
    evidence = await scene.evidence()
    fork = await scene.rpc.call("evm_snapshot")
    body = (await scene.body()).model_copy(update={"evidence": evidence})
    await release(scene, scene.broker_directory(tmp_path / "control"), body)
    await scene.rpc.call("evm_revert", fork)
    await scene.mine(3)
    async with refused():
        await release(scene, directory, body)


@lie("chain view", "a request in a block that is not confirmed as agreed", "R9", "task.unknown")
async def test_a_request_that_may_yet_go_away_is_not_released(
    scene: Scene, tmp_path: Path, directory: Path, refused: Refused
) -> None:
    agreed = scene.agreement()
    agreed = agreed.model_copy(update={"keys": agreed.keys.model_copy(update={"confirm_blocks": 4})})
    await scene.activate(agreed)
    await scene.mine(8)
    body = await body_of(scene, agreed, await scene.request(agreed))
    async with refused():
        await release(scene, directory, body)
    await scene.mine(4)
    await release(scene, scene.broker_directory(tmp_path / "control"), body)


# Contracts of the liar's.

YES = "6001600052" + "6001602052" + "647fffffffff604052"
"""To whatever is asked, in so many words as follow; of a task, that it was requested at block 1, until the year 19391."""
REGISTERED = "6001600052" + "6001602052" + "647fffffffff61010052"
"""The same about an enclave: registered as something, up to date, until that year."""
ANSWERS = {
    "oracle": YES + "60e06000f3",
    "enclave_registry": REGISTERED + "6101406000f3",
    "agreement_registry": YES + "6101a06000f3",
}
"""RETURN of seven, ten and thirteen words: a task, a record, an agreement."""


async def with_contract(scene: Scene, name: str) -> tuple[Scene, ReleaseBody]:
    """The same world in which one contract is the liar's, and a body that fits it, signed for as the true agreement was."""
    fake = str(to_checksum_address("0x" + "fa" * 20))
    await scene.rpc.call("anvil_setCode", fake, "0x" + ANSWERS[name])
    agreement = scene.agreement()
    await scene.activate(agreement)
    request = await scene.request(agreement)
    deployment = scene.world.deployment.model_copy(update={name: fake})
    theirs = Scene(scene.world.changed(deployment=deployment), scene.rpc)
    named = agreement.model_copy(update={name: fake} if name in type(agreement).model_fields else {})
    request = request.model_copy(update={"agreement_id": theirs.world.chain.agreement_id(named)})
    return theirs, await body_of(theirs, named, request, signatures=scene.signatures(agreement))


@lie("chain view", "an oracle contract of its own, which says that every task was requested", "R7", "consent.missing")
async def test_an_oracle_contract_of_the_liars_is_not_what_parties_signed(
    scene: Scene, tmp_path: Path, directory: Path, refused: Refused
) -> None:
    theirs, body = await with_contract(scene, "oracle")
    async with refused():
        await release(scene, directory, body)
    # Consent is all that stands there: brokers believe the oracle that all parties signed for (explain.py says it loudly).
    signed = await theirs.activate(body.agreement)
    fooled = body.model_copy(update={"signatures": signed})
    await release(scene, scene.broker_directory(tmp_path / "control"), fooled)


@lie("chain view", "an enclave registry of its own", "R7", "consent.missing")
async def test_an_enclave_registry_of_the_liars_is_not_what_parties_signed(
    scene: Scene, directory: Path, refused: Refused
) -> None:
    _, body = await with_contract(scene, "enclave_registry")
    async with refused():
        await release(scene, directory, body)


@lie("chain view", "an agreement registry of its own, in which everyone consented", "R21", "chain.not_served")
async def test_an_agreement_registry_of_the_liars_is_not_asked(scene: Scene, directory: Path, refused: Refused) -> None:
    _, body = await with_contract(scene, "agreement_registry")
    async with refused():
        await release(scene, directory, body)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            0,
            marks=lie("chain view", "an agreement on another oracle than it names", "R7", "agreement.contracts"),
            id="oracle",
        ),
        pytest.param(
            12,
            marks=lie(
                "chain view", "an agreement on another enclave registry, price or TEE", "R7", "agreement.contracts"
            ),
            id="settlement",
        ),
        pytest.param(
            11,
            marks=lie("chain view", "an agreement that admits other requesters or data", "R7", "agreement.admission"),
            id="admission",
        ),
    ],
)
async def test_a_record_with_other_terms_is_refused(
    scene: Scene, directory: Path, refused: Refused, place: int
) -> None:
    body = await scene.body()
    async with proxy(scene.world.url, about("AgreementRegistry", "agreement", word(place, 0xAA))) as liar, refused():
        await release(scene, directory, body, [liar])
