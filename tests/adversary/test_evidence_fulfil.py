"""Evidence at ComputeOracle.fulfil: each case settles a task from an enclave that is registered, and right but for one thing.

The contract goes by the registry's record and the terms that were signed, never by what a broker found (R4, R5).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from eth_account import Account

from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
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
async def test_a_downgrade_to_a_development_root(scene: Scene, refused: Refused, anchor: bytes | None) -> None:
    agreement, request = await asked(scene, refused, anchors=(INTEL_ROOT_DIGEST,))
    async with refused():
        await kit.fulfil(scene, agreement, request, anchor=anchor or scene.anchor)


@lie("evidence", "its own root's record over the agreed one", "R2 R4", "ComputeOracle_AnchorNotAgreed")
async def test_the_record_of_another_anchor(scene: Scene, refused: Refused) -> None:
    """Another verifier of the same registry takes the same signer, and says what the host likes: it overwrites nothing."""
    scene, theirs = await kit.with_second_verifier(scene)
    await scene.register(await scene.evidence())
    await scene.mine()
    agreement, request = await asked(scene, refused)
    refused.watch(kit.identity(scene, scene.world.enclave.signer.address))
    async with refused():
        await theirs.register(evidence := await theirs.evidence())
        shown = theirs.identity(evidence)
        await kit.fulfil(scene, agreement, request, anchor=theirs.anchor, enclave=shown)
    await kit.fulfil(scene, agreement, request)


def another_program(scene: Scene, boot: Enclave) -> Enclave:
    attester = SoftwareAttester(scene.world.platform, SoftwareEnclave(bytes([1]) * 32, b"{}"))
    return Enclave(attester, boot.signer, boot.sealing)


@lie("evidence", "a result by another program", "R3", "ComputeOracle_MeasurementNotAgreed")
async def test_another_program(scene: Scene, refused: Refused, boot: Enclave) -> None:
    agreement, request = await asked(scene, refused)
    other = another_program(scene, boot)
    await scene.register(evidence := await scene.evidence(other), other)
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer, enclave=scene.identity(evidence))


@lie("evidence", "another program's result, shown as the agreed program's", "R3", "EnclaveRegistry_WrongIdentity")
async def test_another_identity_than_is_registered(scene: Scene, refused: Refused, boot: Enclave) -> None:
    """The relayer brings the parts of the identity; the registry knows their digest."""
    agreement, request = await asked(scene, refused)
    other = another_program(scene, boot)
    await scene.register(evidence := await scene.evidence(other), other)
    shown = scene.identity(evidence).model_copy(update={"measurement": scene.world.program.measurement})
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer, enclave=shown)


@pytest.mark.parametrize(
    "shown",
    [
        case(
            "status",
            {"status": "OutOfDate", "evaluation": 18},
            "a result from an outdated platform",
            "R3",
            "ComputeOracle_TcbStatusNotAgreed",
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
    scene: Scene, refused: Refused, boot: Enclave, shown: dict[str, Any]
) -> None:
    agreement, request = await asked(scene, refused)
    evidence = await scene.evidence(boot)
    await scene.register(evidence, boot, collateral=scene.collateral(**shown))
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer, enclave=scene.identity(evidence))


@lie("evidence", "a result from a platform whose grace is over", "R4", "ComputeOracle_TcbStatusNotAgreed")
async def test_a_platform_past_its_grace(scene: Scene, refused: Refused, boot: Enclave) -> None:
    """It was fine under the evaluation before, and shows that; a day after the better level came, it is not any more."""
    agreement, request = await asked(scene, refused, grace_days=1)
    evidence = await scene.evidence(boot)
    newer = scene.collateral(status="OutOfDate", evaluation=18)
    await scene.register(evidence, boot, collateral=newer, earlier=scene.collateral())
    identity = scene.identity(evidence)
    before = await scene.rpc.call("evm_snapshot")
    await kit.fulfil(scene, agreement, request, boot.signer, enclave=identity)
    await scene.rpc.call("evm_revert", before)
    longer = kit.tee(agreement, max_evidence_age=1 << 30)
    await scene.activate(longer)
    request = await scene.request(longer, deadline=(await scene.head()).timestamp + 3 * 86_400)
    refused.watch(kit.task(scene, longer, request))
    await scene.rpc.call("evm_increaseTime", 86_400)
    await scene.mine()
    async with refused():
        await kit.fulfil(scene, longer, request, boot.signer, enclave=identity)


@lie("evidence", "a result by an enclave on somebody else's machine", "R5", "ComputeOracle_HostNotAgreed")
async def test_another_operator(scene: Scene, refused: Refused, boot: Enclave) -> None:
    agreement, request = await asked(scene, refused)
    await scene.register(evidence := await scene.evidence(boot, operator=Account.create()), boot)
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer, enclave=scene.identity(evidence))


@lie("evidence", "a result from a machine that is not listed", "R5", "ComputeOracle_HostNotAgreed")
async def test_another_platform(scene: Scene, refused: Refused) -> None:
    agreed = scene.verified(await scene.evidence()).platform
    agreement, request = await asked(scene, refused, operators=(), platforms=(agreed,))
    elsewhere = Enclave(SoftwareAttester(scene.world.authority.issue_platform(), scene.world.program))
    await scene.register(evidence := await scene.evidence(elsewhere), elsewhere)
    async with refused():
        await kit.fulfil(scene, agreement, request, elsewhere.signer, enclave=scene.identity(evidence))
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
    evidence = await scene.evidence(boot)
    await scene.register(evidence, boot, collateral=scene.collateral(status="OutOfDate", evaluation=18))
    wider = agreement.tee.model_copy(update={"status_mask": 1 << 1 | 1 << 5})
    async with refused():
        await kit.fulfil(scene, agreement, request, boot.signer, wider, scene.identity(evidence))
