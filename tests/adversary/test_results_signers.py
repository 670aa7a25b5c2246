"""Lies about who signed a result: an enclave that the agreement does not take, or takes no more, settles nothing."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from eth_account import Account

from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.structs import Enclaves, Retire
from oracle.attestation import INTEL_ROOT_DIGEST
from oracle.chain.abi import load
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Enclave, Scene
from tests.output_kit import Finished, finished, settles, standing

STRANGER = str(Account.create().address)
NOBODY = "ComputeOracle_UnknownEnclave"


scene, world = fixtures.scene, fixtures.world


@pytest.fixture
async def task(scene: Scene) -> Finished:
    """A task whose true result the contract takes: tried, and taken back."""
    task = await finished(scene)
    await settles(task)
    return task


async def retired(scene: Scene) -> Finished:
    task = await finished(scene)
    signer, registry = scene.world.enclave.signer, scene.world.deployment.enclave_registry
    digest = Retire(signer=signer.address).typed_digest(task.chain.enclave_domain(task.agreement))
    await scene.transact(
        scene.world.requester,
        registry,
        load("EnclaveRegistry").call("retire", scene.anchor, signer.address, signer.sign(digest)),
    )
    return task


async def expired(scene: Scene) -> Finished:
    """Past a week, at which the registration ends, and within the request's time."""
    now = (await scene.head()).timestamp
    task = await finished(scene, request={"deadline": now + 8 * 86_400}, tee=terms_of(scene, max_evidence_age=1 << 30))
    await scene.rpc.call("evm_increaseTime", 7 * 86_400 + 60)
    await scene.mine()
    return task


async def old(scene: Scene) -> Finished:
    task = await finished(scene, request={"deadline": (await scene.head()).timestamp + 86_400})
    await scene.rpc.call("evm_increaseTime", 3700)
    await scene.mine()
    return task


async def unlisted_anchor(scene: Scene) -> Finished:
    return await finished(scene, tee=terms_of(scene, anchors=(INTEL_ROOT_DIGEST,)))


async def other_host(scene: Scene) -> Finished:
    return await finished(scene, tee=terms_of(scene, operators=(STRANGER,)))


async def higher_floor(scene: Scene) -> Finished:
    return await finished(scene, tee=terms_of(scene, eval_floor=1 << 20))


async def other_program(scene: Scene) -> Finished:
    tee = terms_of(scene, measurements=(SoftwareEnclave(secrets.token_bytes(32), b"{}").measurement,))
    return await finished(scene, tee=tee)


async def worse_status(scene: Scene) -> Finished:
    return await finished(scene, tee=terms_of(scene, status_mask=1 << 2))


def terms_of(scene: Scene, **changes: Any) -> Enclaves:
    return scene.agreement().tee.model_copy(update=changes)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            retired,
            marks=lie("results", "a result of an enclave that was retired", "R2", "ComputeOracle_EnclaveRetired"),
        ),
        pytest.param(
            expired,
            marks=lie("results", "a result from an expired registration", "R8", "ComputeOracle_EnclaveExpired"),
        ),
        pytest.param(
            old,
            marks=lie("results", "a result from older evidence than agreed", "R2", "ComputeOracle_EvidenceTooOld"),
        ),
        pytest.param(
            unlisted_anchor,
            marks=lie("results", "a result under a trust anchor not agreed", "R4", "ComputeOracle_AnchorNotAgreed"),
        ),
        pytest.param(
            other_host,
            marks=lie("results", "a result from a host that was not agreed", "R5", "ComputeOracle_HostNotAgreed"),
        ),
        pytest.param(
            other_program,
            marks=lie(
                "results", "a result of a program that was not agreed", "R3", "ComputeOracle_MeasurementNotAgreed"
            ),
        ),
        pytest.param(
            worse_status,
            marks=lie("results", "a result from a TCB status not agreed", "R7", "ComputeOracle_TcbStatusNotAgreed"),
        ),
        pytest.param(
            higher_floor,
            marks=lie("results", "a result under too old a TCB evaluation", "R7", "ComputeOracle_EvaluationTooLow"),
        ),
    ],
)
async def test_a_signer_that_the_agreement_does_not_take_settles_nothing(
    scene: Scene, refused: Refused, place: Callable[[Scene], Awaitable[Finished]]
) -> None:
    await settles(await finished(scene))
    task = await place(scene)
    refused.watch(standing(task))
    async with refused():
        await task.settle()


@lie("results", "an anchor that is agreed, and under which its enclave is not registered", "R2", NOBODY)
async def test_an_identity_is_an_anchor_and_a_signer(scene: Scene, refused: Refused) -> None:
    task = await finished(scene, tee=terms_of(scene, anchors=(scene.world.root, INTEL_ROOT_DIGEST)))
    await settles(task)
    refused.watch(standing(task))
    async with refused():
        await task.settle(task.result.model_copy(update={"anchor": INTEL_ROOT_DIGEST}))


@lie("results", "a result of an enclave that was never registered", "R2", NOBODY)
async def test_an_enclave_that_was_never_registered_settles_nothing(task: Finished, refused: Refused) -> None:
    scene = task.scene
    fresh = Enclave(SoftwareAttester(scene.world.platform, scene.world.program))
    refused.watch(standing(task))
    async with refused():
        await task.fulfil(task.result, task.sign(task.result, fresh.signer))
