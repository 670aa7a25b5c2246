"""Requests that no agreement allows: at ComputeOracle, and at a broker that is asked for keys all the same (R7 to R9, R14)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.onchain import admission
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.structs import Access, Agreement, TaskRequest
from oracle.agreement.requesters import admission_of, requesters_root
from oracle.chain.abi import load
from oracle.errors import Reverted
from oracle.keybroker import KeyBroker
from tests.adversary import chain_kit as kit
from tests.adversary.lies import Refused, lie
from tests.broker_kit import FEE, OPEN, Scene

broker, scene, world = kit.broker, kit.scene, kit.world
case = partial(kit.case, "consent")

NOT_ACTIVE = "AgreementRegistry_NotActive"
NOT_ALLOWED = "AgreementRegistry_RequesterNotAllowed"
OUTSIDE = "AgreementRegistry_OutsideWindow"
AS_OF = "ComputeOracle_BadAsOf"
DEADLINE = "ComputeOracle_BadDeadline"


async def offered(scene: Scene, refused: Refused, **changes: Any) -> tuple[Agreement, TaskRequest]:
    """An active agreement, and a request that it would take; neither may change."""
    agreement = scene.agreement(**changes)
    await scene.activate(agreement)
    request = await scene.task_request(agreement)
    watch(scene, refused, agreement, request)
    return agreement, request


def watch(scene: Scene, refused: Refused, agreement: Agreement, request: TaskRequest) -> None:
    refused.watch(kit.standing(scene, scene.world.chain.agreement_id(agreement)))
    refused.watch(kit.task(scene, agreement, request))


# Who may request


@lie("consent", "a request in the name of somebody who may", "R7", "ComputeOracle_NotRequester")
async def test_a_request_in_anothers_name(scene: Scene, refused: Refused) -> None:
    _, request = await offered(scene, refused)
    async with refused():
        await scene.send_request(request, sender=scene.world.operator)
    await scene.send_request(request)


@pytest.mark.parametrize(
    "proof_of",
    [
        case("none", None, "a requester who is not listed", "R7", NOT_ALLOWED),
        case("another", "owners", "a listed requester's proof for itself", "R7", NOT_ALLOWED),
    ],
)
async def test_a_requester_who_is_not_allowed(scene: Scene, refused: Refused, proof_of: str | None) -> None:
    listed = {str(owner.address): 10 for owner in scene.world.owners}
    first = next(iter(listed))
    access = Access(requesters=requesters_root(listed), quota=10, quota_per_requester=10)
    agreement, request = await offered(scene, refused, access=access)
    theirs = admission_of(agreement, listed, first)
    async with refused():
        await scene.send_request(request, theirs if proof_of else admission(agreement, 10))
    await scene.send_request(request.model_copy(update={"requester": first}), theirs, scene.world.owners[0])


@lie("consent", "a requester with a larger quota than it was given", "R7 R9", NOT_ALLOWED)
async def test_a_requester_with_a_larger_quota(scene: Scene, refused: Refused) -> None:
    listed = {str(scene.world.requester.address): 1, str(scene.world.owners[0].address): 10}
    access = Access(requesters=requesters_root(listed), quota=10, quota_per_requester=10)
    agreement, request = await offered(scene, refused, access=access)
    own = admission_of(agreement, listed, scene.world.requester.address)
    async with refused():
        await scene.send_request(request, own.model_copy(update={"quota": 2}))
    await scene.send_request(request, own)


@lie("consent", "a request that says anyone may ask, where only some may", "R7", "AgreementRegistry_WrongAdmission")
async def test_a_request_under_other_requesters(scene: Scene, refused: Refused) -> None:
    listed = {str(owner.address): 10 for owner in scene.world.owners}
    access = Access(requesters=requesters_root(listed), quota=10, quota_per_requester=10)
    _, request = await offered(scene, refused, access=access)
    async with refused():
        await scene.send_request(request, OPEN)


# Quota and fee (R9)


@pytest.mark.parametrize(
    "access",
    [
        case("all", (1, 1), "a request past the quota", "R9", "AgreementRegistry_QuotaSpent"),
        case("one", (5, 1), "a request past the requester's own quota", "R9", "AgreementRegistry_RequesterQuotaSpent"),
    ],
)
async def test_a_request_past_the_quota(scene: Scene, refused: Refused, access: tuple[int, int]) -> None:
    quota, per_requester = access
    terms = scene.agreement().access.model_copy(update={"quota": quota, "quota_per_requester": per_requester})
    agreement, request = await offered(scene, refused, access=terms)
    await scene.request(agreement)
    async with refused():
        await scene.send_request(request)


@lie("consent", "the same request twice", "R9", "ComputeOracle_TaskExists")
async def test_a_request_twice(scene: Scene, refused: Refused) -> None:
    _, request = await offered(scene, refused)
    await scene.send_request(request)
    async with refused():
        await scene.send_request(request)


@pytest.mark.parametrize(
    "value",
    [
        case("less", FEE - 1, "less than the agreed fee", "R7", "ComputeOracle_WrongPayment"),
        case("nothing", 0, "no fee", "R7", "ComputeOracle_WrongPayment"),
    ],
)
async def test_less_than_the_fee(scene: Scene, refused: Refused, value: int) -> None:
    _, request = await offered(scene, refused)
    async with refused():
        await scene.send_request(request, value=value)


# When, and under which agreement


@pytest.mark.parametrize(
    "how",
    [
        case("suspended", "suspend", "a request under a suspended agreement", "R8", NOT_ACTIVE),
        case("revoked", "revoke", "a request under a revoked agreement", "R8", NOT_ACTIVE),
    ],
)
async def test_a_request_after_narrowing(scene: Scene, refused: Refused, how: str) -> None:
    _, request = await offered(scene, refused)
    await scene.party(scene.world.owners[1], how, request.agreement_id)
    async with refused():
        await scene.send_request(request)


@lie("consent", "a request under an agreement that nobody activated", "R7", NOT_ACTIVE)
async def test_a_request_under_a_draft(scene: Scene, refused: Refused) -> None:
    draft = scene.agreement()
    request = await scene.task_request(draft)
    watch(scene, refused, draft, request)
    async with refused():
        await scene.send_request(request)


@lie("consent", "a request through an oracle that the agreement does not name", "R7", "AgreementRegistry_NotOracle")
async def test_a_request_through_another_oracle(scene: Scene, refused: Refused) -> None:
    _, request = await offered(scene, refused)
    other = await kit.deploy(scene, "ComputeOracle", scene.world.deployment.agreement_registry)
    call = load("ComputeOracle").call("request", request, OPEN, "")
    async with refused():
        await scene.transact(scene.world.requester, other, call, value=FEE)


@lie("consent", "a request for another dataset than is agreed", "R7 R7b", "AgreementRegistry_WrongAdmission")
async def test_a_request_for_another_dataset(scene: Scene, refused: Refused) -> None:
    agreement, request = await offered(scene, refused)
    other = request.model_copy(update={"versions": (request.versions[0], bytes([1]) * 32)})
    watch(scene, refused, agreement, other)
    async with refused():
        await scene.send_request(other)
    await scene.send_request(request)


@pytest.mark.parametrize(
    "window",
    [
        case("early", (1000, 2000), "a request before the agreement begins", "R7", OUTSIDE),
        case("late", (-1000, 1000), "a request after the agreement's end", "R7", OUTSIDE),
    ],
)
async def test_a_request_outside_the_agreements_time(scene: Scene, refused: Refused, window: tuple[int, int]) -> None:
    now = (await scene.head()).timestamp
    agreement, _ = await offered(scene, refused, not_before=now + window[0], not_after=now + window[1])
    if window[0] < 0:
        await scene.rpc.call("evm_setNextBlockTimestamp", now + window[1])
        await scene.mine()
    request = await scene.task_request(agreement)
    async with refused():
        await scene.send_request(request)


@pytest.mark.parametrize(
    "moments",
    [
        case("future", {"as_of": 600}, "an `asOf` in the future", "R14", AS_OF),
        case("past", {"as_of": -4000}, "an `asOf` of long ago", "R14", AS_OF),
        case("over", {"deadline": -1}, "a deadline that has passed", "R9", DEADLINE),
        case("far", {"deadline": 31 * 86_400}, "a deadline far away", "R9", DEADLINE),
    ],
)
async def test_a_request_at_another_time(scene: Scene, refused: Refused, moments: dict[str, int]) -> None:
    agreement, request = await offered(scene, refused)
    now = (await scene.head()).timestamp
    changed = request.model_copy(update={name: now + seconds for name, seconds in moments.items()})
    watch(scene, refused, agreement, changed)
    async with refused():
        await scene.send_request(changed)
    await scene.send_request(request)


# Cancelling gives quota back, so it is bounded (R9)


@pytest.mark.parametrize(
    "late",
    [
        case("stranger", False, "a cancel of somebody else's request", "R9", "ComputeOracle_NotRequester"),
        case("late", True, "a cancel after brokers may have released", "R9", "ComputeOracle_CancelClosed"),
    ],
)
async def test_a_cancel_that_is_not_due(scene: Scene, refused: Refused, late: bool) -> None:
    keys = scene.agreement().keys.model_copy(update={"release_delay": 2})
    _, request = await offered(scene, refused, keys=keys)
    await scene.send_request(request)
    sender = scene.world.requester if late else scene.world.operator
    await scene.mine(3 if late else 0)
    async with refused():
        await scene.transact(sender, scene.world.deployment.oracle, load("ComputeOracle").call("cancel", request, OPEN))


# The same at a broker, which is asked all the same (R13)


def asking(scene: Scene, body: ReleaseBody, request: TaskRequest) -> ReleaseBody:
    """The same call for another request: the enclave, too, was told that it stands."""
    return body.model_copy(update={"request": request, "release": scene.ask(body.agreement, request)})


@pytest.mark.parametrize(
    "name",
    [
        case("request", "request", "a request that names another agreement", "R7 R13", "request.agreement"),
        case("release", "release", "a release request that names another agreement", "R13", "release.agreement"),
    ],
)
async def test_a_request_that_names_another_agreement(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, name: str
) -> None:
    body = await scene.body()
    other = scene.world.chain.agreement_id(scene.agreement())
    changed = {
        "request": body.request.model_copy(update={"agreement_id": other}),
        "release": scene.ask(body.agreement, body.request, agreement_id=other),
    }
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={name: changed[name]}))
    await broker.releases.release(body)


@pytest.mark.parametrize(
    "lie_told",
    [
        case("quota", (1, {}), "a broker a request past the quota", "R9 R13", "task.unknown"),
        case("asOf", (2, {"as_of": 2**40}), "a broker an `asOf` in the future", "R13 R14", "task.unknown"),
    ],
)
async def test_a_request_that_the_contract_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, lie_told: tuple[int, dict[str, Any]]
) -> None:
    """The enclave runs what it is given; a broker releases for no task that does not stand."""
    quota, changes = lie_told
    agreement = scene.agreement()
    access = agreement.access.model_copy(update={"quota": quota, "quota_per_requester": quota})
    body = await scene.body(agreement.model_copy(update={"access": access}))
    request = await scene.task_request(body.agreement, **changes)
    with pytest.raises(Reverted):
        await scene.send_request(request)
    await kit.ask(broker, refused, tmp_path, asking(scene, body, request))
    await broker.releases.release(body)


@pytest.fixture
async def cancellable(scene: Scene) -> ReleaseBody:
    """A task that its requester may cancel for three blocks."""
    agreement = scene.agreement()
    keys = agreement.keys.model_copy(update={"release_delay": 3})
    return await scene.body(agreement.model_copy(update={"keys": keys}))


@lie("consent", "a task that can still be cancelled", "R9", "task.delay")
async def test_a_task_that_can_be_cancelled(
    scene: Scene, broker: KeyBroker, cancellable: ReleaseBody, tmp_path: Path, refused: Refused
) -> None:
    await scene.mine(3)
    await kit.ask(broker, refused, tmp_path, cancellable)
    await scene.mine()
    await broker.releases.release(cancellable)


@lie("consent", "a task whose requester took it back", "R9", "task.closed")
async def test_a_cancelled_task(
    scene: Scene, broker: KeyBroker, cancellable: ReleaseBody, tmp_path: Path, refused: Refused
) -> None:
    call = load("ComputeOracle").call("cancel", cancellable.request, OPEN)
    await scene.transact(scene.world.requester, scene.world.deployment.oracle, call)
    await scene.mine(5)
    await kit.ask(broker, refused, tmp_path, cancellable)


@lie("consent", "a task after its deadline", "R9", "task.deadline")
async def test_a_task_after_its_deadline(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body(kit.tee(scene.agreement(), max_evidence_age=10**6))
    await scene.rpc.call("evm_setNextBlockTimestamp", body.request.deadline + 1)
    await scene.mine()
    await kit.ask(broker, refused, tmp_path, body)
