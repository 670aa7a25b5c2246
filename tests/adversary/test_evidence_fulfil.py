"""Evidence at ComputeOracle.fulfil: each case settles a task from an enclave that is registered, and right but for one thing.

The contract goes by the registry's record and the terms that were signed, never by what a broker found (R4, R5).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from eth_account import Account

from enclave_app.attesters.software import SoftwareAttester
from enclave_app.protocol.evidence import development_anchor
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, TaskRequest
from oracle.attestation import INTEL_ROOT_DIGEST
from tests.adversary import chain_kit as kit
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Enclave, Scene

boot, scene, world = kit.boot, kit.scene, kit.world
case = partial(kit.case, "evidence")


async def asked(scene: Scene, refused: Refused, **tee: Any) -> tuple[Agreement, TaskRequest]:
    """A task that waits for its result, under an agreement with these enclave terms; it has to stay so."""
    agreement = kit.tee(scene.agreement(), **tee)
    await scene.activate(agreement)
    request = await scene.request(agreement)
    refused.watch(kit.task(scene, agreement, request))
    return agreement, request


@lie("evidence", "a result by an enclave that nobody registered", "R2", "ComputeOracle_UnknownEnclave")
async def test_no_registration(scene: Scene, refused: Refused) -> None:
    agreement, request = await asked(scene, refused)
    async with refused():
        await kit.fulfil(scene, agreement, request, SigningKey.generate())
    await kit.fulfil(scene, agreement, request)


@pytest.mark.parametrize(
    "anchor",
    [
        case(
            "development",
            None,
            "a result by a simulated enclave, where Intel's anchor is agreed",
            "R4",
            "ComputeOracle_AnchorNotAgreed",
        ),
        case(
            "Intel",
            INTEL_ROOT_DIGEST,
            "a simulated enclave's result under Intel's anchor",
            "R2 R4",
            "ComputeOracle_UnknownEnclave",
        ),
    ],
)
async def test_a_downgrade_to_the_development_verifier(scene: Scene, refused: Refused, anchor: bytes | None) -> None:
    agreement, request = await asked(scene, refused, anchors=(INTEL_ROOT_DIGEST,))
    async with refused():
        await kit.fulfil(scene, agreement, request, anchor=anchor or scene.anchor)


@lie("evidence", "its own appraiser's record over the agreed one", "R2 R4", "ComputeOracle_AnchorNotAgreed")
async def test_the_record_of_another_anchor(scene: Scene, refused: Refused) -> None:
    """Another verifier of the same registry takes the same signer, and says what the host likes: it overwrites nothing."""
    scene, own, verifier = await kit.with_second_verifier(scene)
    await scene.register(await scene.evidence())
    await scene.mine()
    agreement, request = await asked(scene, refused)
    refused.watch(kit.identity(scene, scene.world.enclave.signer.address))
    theirs = development_anchor(scene.world.chain.chain_id, own.address)
    async with refused():
        await kit.register_under(scene, own, verifier, measurement=bytes([1]) * 32)
        await kit.fulfil(scene, agreement, request, anchor=theirs)
    await kit.fulfil(scene, agreement, request)


@pytest.mark.parametrize(
    "said",
    [
        case(
            "program",
            {"measurement": bytes([1]) * 32},
            "a result by another program",
            "R3",
            "ComputeOracle_MeasurementNotAgreed",
        ),
        case(
            "status", {"tcb_status": 5}, "a result from an outdated platform", "R3", "ComputeOracle_TcbStatusNotAgreed"
        ),
        case(
            "evaluation",
            {"evaluation": 16},
            "a result under an old TCB evaluation",
            "R3",
            "ComputeOracle_EvaluationTooLow",
        ),
    ],
)
async def test_an_enclave_that_is_not_agreed(
    scene: Scene, refused: Refused, boot: Enclave, said: dict[str, Any]
) -> None:
    agreement, request = await asked(scene, refused)
    await scene.register(await scene.evidence(boot), boot, **said)
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer)


@lie("evidence", "a result by an enclave on somebody else's machine", "R5", "ComputeOracle_HostNotAgreed")
async def test_another_operator(scene: Scene, refused: Refused, boot: Enclave) -> None:
    agreement, request = await asked(scene, refused)
    await scene.register(await scene.evidence(boot, operator=Account.create()), boot)
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer)


@lie("evidence", "a result from a machine that is not listed", "R5", "ComputeOracle_HostNotAgreed")
async def test_another_platform(scene: Scene, refused: Refused) -> None:
    agreed = scene.verified(await scene.evidence()).platform
    agreement, request = await asked(scene, refused, operators=(), platforms=(agreed,))
    elsewhere = Enclave(SoftwareAttester(scene.world.authority.issue_platform(), scene.world.program))
    await scene.register(await scene.evidence(elsewhere), elsewhere)
    async with refused():
        await kit.fulfil(scene, agreement, request, elsewhere.signer)
    await kit.fulfil(scene, agreement, request)


@lie("evidence", "a result over evidence older than agreed", "R2", "ComputeOracle_EvidenceTooOld")
async def test_old_evidence(scene: Scene, refused: Refused) -> None:
    agreement, request = await asked(scene, refused, max_evidence_age=500)
    await scene.rpc.call("evm_increaseTime", 600)
    await scene.mine()
    async with refused():
        await kit.fulfil(scene, agreement, request)
    await scene.register(await scene.evidence())
    await kit.fulfil(scene, agreement, request)


@lie("evidence", "a result by an enclave that was retired", "R2", "ComputeOracle_EnclaveRetired")
async def test_a_retired_identity(scene: Scene, refused: Refused) -> None:
    agreement, request = await asked(scene, refused)
    signer = scene.world.enclave.signer
    await kit.retire(scene, signer.address, signer)
    async with refused():
        await kit.fulfil(scene, agreement, request)


@lie("evidence", "wider enclave terms than were signed", "R3 R7", "ComputeOracle_WrongSettlement")
async def test_wider_terms(scene: Scene, refused: Refused, boot: Enclave) -> None:
    """`fulfil` is given the terms again; what they were is kept as a hash."""
    agreement, request = await asked(scene, refused)
    await scene.register(await scene.evidence(boot), boot, tcb_status=5)
    wider = agreement.tee.model_copy(update={"status_mask": 1 << 1 | 1 << 5})
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer, wider)
