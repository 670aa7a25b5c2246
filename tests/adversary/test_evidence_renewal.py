"""Registrations that are used again, here or elsewhere, and renewals: one quote is one identity, and none is another's (R2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from eth_account import Account

from enclave_app.attesters.platform import DEVELOPMENT_PCE_SVN
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.signing import SigningKey
from oracle.attestation import parse_dcap
from oracle.attestation.onchain.evidence import dcap_challenge, quote_chain, versions
from oracle.attestation.onchain.structs import Pck
from oracle.chain.abi import load
from tests.adversary import chain_kit as kit
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Enclave, Registration, Scene

boot, honest, on_chain, scene, world = kit.boot, kit.honest, kit.on_chain, kit.scene, kit.world
case = partial(kit.case, "evidence")


# Replays


@lie("evidence", "a registration of another registry", "R2", "EnclaveRegistry_WrongProofOfPossession")
async def test_a_registration_of_another_registry(scene: Scene, refused: Refused, honest: Registration) -> None:
    other = await kit.deploy(scene, "EnclaveRegistry", [honest.verifier])
    refused.watch(kit.identity(scene, honest.signer, registry=other))
    async with refused():
        await scene.send_registration(honest, other)


@lie("evidence", "another registry's quote, enrolled anew", "R2", "EnclaveRegistry_WrongReportData")
async def test_a_quote_of_another_registry(scene: Scene, refused: Refused, boot: Enclave, honest: Registration) -> None:
    """The enclave enrols here as well; its quote still says where it was made for."""
    other = await kit.deploy(scene, "EnclaveRegistry", [honest.verifier])
    there = kit.at_registry(scene, other)
    enrolled = await there.registration(await there.evidence(boot), boot)
    here = enrolled._replace(block_number=honest.block_number, block_hash=honest.block_hash, evidence=honest.evidence)
    here = here._replace(proof_of_possession=kit.possession(there, boot.signer, here))
    refused.watch(kit.identity(scene, honest.signer, registry=other))
    async with refused():
        await scene.send_registration(here, other)


@lie("evidence", "a registration of another chain", "R2", "EnclaveRegistry_WrongProofOfPossession")
async def test_a_registration_of_another_chain(
    scene: Scene, refused: Refused, honest: Registration, on_chain: Callable[[int], Awaitable[None]]
) -> None:
    await on_chain(31338)
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(honest)


@lie("evidence", "a quote of a fork that was dropped", "R2", "EnclaveRegistry_WrongBlockHash")
async def test_a_block_of_another_fork(scene: Scene, refused: Refused, boot: Enclave) -> None:
    lost = await kit.forked(scene)
    registration = await scene.registration(await scene.evidence(boot, lost), boot)
    refused.watch(kit.identity(scene, registration.signer))
    async with refused():
        await scene.send_registration(registration)


@lie("evidence", "a quote over a block more than 256 back", "R2", "EnclaveRegistry_WrongBlockHash")
async def test_a_block_of_long_ago(scene: Scene, refused: Refused, boot: Enclave) -> None:
    registration = await scene.registration(await scene.evidence(boot), boot)
    await scene.mine(256)
    refused.watch(kit.identity(scene, registration.signer))
    async with refused():
        await scene.send_registration(registration)


# Renewals


@pytest.fixture
async def registered(scene: Scene, boot: Enclave, honest: Registration) -> Registration:
    """The enclave is on chain, and a newer block is there to renew over."""
    await scene.send_registration(honest)
    await scene.mine()
    return honest


@lie("evidence", "the same registration once more", "R2", "EnclaveRegistry_NotNewer")
async def test_a_registration_twice(scene: Scene, refused: Refused, registered: Registration) -> None:
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await scene.send_registration(registered)


@pytest.mark.parametrize(
    "another_form",
    [
        case("padded", kit.padded, "a used quote, with zeros behind it", "R2", "EnclaveRegistry_NotNewer"),
        case("malleated", kit.malleated, "a used quote, its signature malleated", "R2", "EnclaveRegistry_NotNewer"),
    ],
)
async def test_one_quote_twice(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration, another_form: Any
) -> None:
    """Both verify and are appraised anew; nothing is keyed by a quote's bytes, so there is no second record either."""
    block = await scene.source.block(registered.block_number)
    evidence = await scene.evidence(boot, block)
    again = evidence.model_copy(update={"quote": another_form(evidence.quote)})
    registration = await scene.registration(again, boot)
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await scene.send_registration(registration)


@lie("evidence", "a renewal over an older block", "R2", "EnclaveRegistry_NotNewer")
async def test_a_renewal_over_an_older_block(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration
) -> None:
    older = await scene.source.block(registered.block_number - 1)
    renewal = await scene.registration(await scene.evidence(boot, older), boot)
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await scene.send_registration(renewal)
    await scene.send_registration(await scene.registration(await scene.evidence(boot), boot))


def another_program(scene: Scene, boot: Enclave) -> Enclave:
    attester = SoftwareAttester(scene.world.platform, SoftwareEnclave(bytes([1]) * 32, b"{}"))
    return Enclave(attester, boot.signer, boot.sealing)


def another_machine(scene: Scene, boot: Enclave) -> Enclave:
    attester = SoftwareAttester(scene.world.authority.issue_platform(), scene.world.program)
    return Enclave(attester, boot.signer, boot.sealing)


def another_sealing_key(scene: Scene, boot: Enclave) -> Enclave:
    return Enclave(boot.attester, boot.signer)


CHANGED = "EnclaveRegistry_IdentityChanged"


@pytest.mark.parametrize(
    "renewed",
    [
        case("program", another_program, "a renewal with another measurement", "R2 R3", CHANGED),
        case("machine", another_machine, "a renewal from another machine", "R2 R5", CHANGED),
        case("sealing key", another_sealing_key, "a renewal with another sealing key", "R1 R2", CHANGED),
    ],
)
async def test_a_renewal_of_something_else(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration, renewed: Any
) -> None:
    changed = renewed(scene, boot)
    registration = await scene.registration(await scene.evidence(changed), changed)
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await scene.send_registration(registration)
    await scene.register(await scene.evidence(boot), boot)


@lie("evidence", "a renewal by another operator", "R5", CHANGED)
async def test_a_renewal_by_another_operator(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration
) -> None:
    registration = await scene.registration(await scene.evidence(boot, operator=Account.create()), boot)
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await scene.send_registration(registration)


@lie("evidence", "a renewal under an older TCB evaluation", "R4", "EnclaveRegistry_OlderEvaluation")
async def test_a_renewal_under_an_older_evaluation(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration
) -> None:
    """Genuine collateral, whose end is as far away: it only knows less."""
    registration = await scene.registration(await scene.evidence(boot), boot, scene.collateral(evaluation=16))
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await scene.send_registration(registration)


# Challenges


async def challenge(scene: Scene, signed: Evidence, proof: bytes) -> None:
    call = load("EnclaveRegistry").call(
        "challenge",
        scene.anchor,
        signed.signer,
        scene.identity(signed),
        scene.world.deployment.verifiers["dcap"],
        proof,
    )
    await scene.transact(scene.world.requester, scene.world.deployment.enclave_registry, call)


async def news(scene: Scene, evidence: Evidence, **shown: Any) -> bytes:
    """Proof of how these versions stand under other collateral, which is posted."""
    collateral, parsed = scene.collateral(**shown), parse_dcap(1, evidence.quote)
    await scene.post(evidence.quote, collateral)
    return dcap_challenge(versions(parsed, Pck.of(quote_chain(parsed))), collateral)


@pytest.mark.parametrize(
    "shown",
    [
        case("as good", {"evaluation": 18}, "a challenge that lowers nothing", "R4", "EnclaveRegistry_NotLower"),
        case(
            "older",
            {"evaluation": 16, "status": "OutOfDate"},
            "a challenge by an older TCB evaluation",
            "R4",
            "EnclaveRegistry_OlderEvaluation",
        ),
    ],
)
async def test_a_challenge_that_must_not_lower(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration, shown: dict[str, Any]
) -> None:
    evidence = await scene.evidence(boot)
    proof = await news(scene, evidence, **shown)
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await challenge(scene, evidence, proof)
    await challenge(scene, evidence, await news(scene, evidence, evaluation=19, status="OutOfDate"))


@lie("evidence", "another platform's news as a competitor's", "R4", "EnclaveRegistry_WrongChallenge")
async def test_a_challenge_by_another_platforms_versions(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration
) -> None:
    evidence = await scene.evidence(boot)
    platform = scene.world.authority.issue_platform(pce_svn=DEVELOPMENT_PCE_SVN - 1)
    worse = Enclave(SoftwareAttester(platform, scene.world.program))
    proof = await news(scene, await scene.evidence(worse), evaluation=18)
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await challenge(scene, evidence, proof)


@lie("evidence", "a renewal of a retired enclave", "R2", "EnclaveRegistry_Retired")
async def test_a_renewal_of_a_retired_enclave(
    scene: Scene, refused: Refused, boot: Enclave, registered: Registration
) -> None:
    await kit.retire(scene, registered.signer, boot.signer)
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await scene.register(await scene.evidence(boot), boot)


@lie("evidence", "a competitor's enclave as retired", "R2", "EnclaveRegistry_WrongRetirement")
async def test_retiring_somebody_elses_enclave(scene: Scene, refused: Refused, registered: Registration) -> None:
    refused.watch(kit.identity(scene, registered.signer))
    async with refused():
        await kit.retire(scene, registered.signer, SigningKey.generate())
