"""Lies about the chain, told to a broker by one of its RPC endpoints (R13): each a good one, which a broker that believed
one endpoint alone would fall for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enclave_app.attesters.software import SoftwareAttester
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.onchain import admission_hash, settlement_hash
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Retire
from oracle.chain.abi import load
from oracle.keybroker import KeyBroker, open_broker
from tests import broker_fixtures as fixtures
from tests.adversary import chain_kit as kit
from tests.adversary.lies import Refused, lie, reason_of
from tests.broker_kit import OPEN, Enclave, Scene
from tests.output_kit import Finished, finished, released_by
from tests.rpc_kit import Forgery, about, proxy, together, truth, word, words

scene, world = fixtures.scene, fixtures.world


@dataclass(frozen=True)
class Told:
    """What a broker is asked, which is refused as things are, and what makes it look good."""

    ask: Callable[[KeyBroker], Awaitable[object]]
    forgery: Forgery


def release(body: ReleaseBody) -> Callable[[KeyBroker], Awaitable[object]]:
    return lambda broker: broker.releases.release(body)


ACTIVE = word(0, 1)
REGISTRY, ORACLE, ENCLAVES = "AgreementRegistry", "ComputeOracle", "EnclaveRegistry"


async def invented_agreement(scene: Scene) -> Told:
    """Signed by everyone, and never activated; so there is no task under it either."""
    agreement = scene.agreement()
    request = (await scene.body()).request.model_copy(
        update={"agreement_id": scene.world.chain.agreement_id(agreement)}
    )
    oracle, kept = bytes.fromhex(agreement.oracle[2:]), (admission_hash(agreement), settlement_hash(agreement))
    record = words(oracle, 0, 1 << 39, 0, 1, 0, 0, 9, 9, 1, 0, *kept)
    return Told(
        release(await Finished(scene, agreement, request, SealingKey.generate()).release_body()),
        together(
            about(REGISTRY, "agreement", record),
            about(REGISTRY, "status", ACTIVE),
            about(ORACLE, "task", words(1, 1, request.deadline, 0, 0, 0, 0)),
        ),
    )


async def invented_task(scene: Scene) -> Told:
    body = await scene.body()
    request = body.request.model_copy(update={"nonce": bytes(32)})
    body = body.model_copy(update={"request": request, "release": scene.ask(body.agreement, request)})
    return Told(release(body), about(ORACLE, "task", words(1, 1, request.deadline, 0, 0, 0, 0)))


async def invented_registration(scene: Scene) -> Told:
    fresh = Enclave(SoftwareAttester(scene.world.platform, scene.world.program))
    body = await scene.body(enclave=fresh)
    head = await scene.head()
    digest = scene.identity(body.evidence).digest
    record = words(digest, 1, 0, 0, 17, 0, 0, head.timestamp, head.timestamp + 3600, head.number)
    return Told(release(body), about(ENCLAVES, "record", record))


async def invented_consent(scene: Scene) -> Told:
    body = await scene.body()
    body = body.model_copy(update={"signatures": (b"", *body.signatures[1:])})
    return Told(release(body), about(REGISTRY, "consentOf", word(0, 3)))


async def hidden_suspension(scene: Scene) -> Told:
    body = await scene.body()
    await scene.party(scene.world.author, "suspend", body.chain.agreement_id(body.agreement))
    return Told(release(body), about(REGISTRY, "status", ACTIVE))


async def hidden_revocation(scene: Scene) -> Told:
    body = await scene.body()
    await scene.party(scene.world.author, "revoke", body.chain.agreement_id(body.agreement))
    return Told(release(body), about(REGISTRY, "status", ACTIVE))


async def hidden_drop(scene: Scene) -> Told:
    body = await scene.body()
    agreement_id, measurement = body.chain.agreement_id(body.agreement), scene.world.program.measurement
    await scene.party(scene.world.author, "dropMeasurement", agreement_id, measurement)
    return Told(release(body), about(REGISTRY, "isDropped", word(0, 0)))


async def hidden_retirement(scene: Scene) -> Told:
    body = await scene.body()
    signer = scene.world.enclave.signer
    digest = Retire(signer=signer.address).typed_digest(body.chain.enclave_domain(body.agreement))
    call = load(ENCLAVES).call("retire", scene.anchor, signer.address, signer.sign(digest))
    await scene.transact(scene.world.requester, scene.world.deployment.enclave_registry, call)
    return Told(release(body), about(ENCLAVES, "record", word(2, 0)))


async def hidden_expiry(scene: Scene) -> Told:
    """Of a registration for a minute, of which the broker is asked two minutes later."""
    await scene.mine()
    await scene.register(await scene.evidence(), collateral=await kit.for_a_minute(scene))
    await scene.rpc.call("evm_increaseTime", 120)
    body = await scene.body()
    return Told(release(body), about(ENCLAVES, "record", word(8, 1 << 39)))


async def hidden_delay(scene: Scene) -> Told:
    keys = scene.agreement().keys.model_copy(update={"release_delay": 5})
    body = await scene.body(scene.agreement(keys=keys))
    return Told(release(body), about(ORACLE, "task", word(1, 1)))


async def hidden_cancel(scene: Scene) -> Told:
    keys = scene.agreement().keys.model_copy(update={"release_delay": 5})
    body = await scene.body(scene.agreement(keys=keys))
    await scene.transact(scene.world.requester, body.agreement.oracle, load(ORACLE).call("cancel", body.request, OPEN))
    await scene.mine(6)
    return Told(release(body), about(ORACLE, "task", words(1, 1, body.request.deadline, 0, 0, 0, 0)))


async def hidden_deadline(scene: Scene) -> Told:
    body = await scene.body()
    await scene.rpc.call("evm_setNextBlockTimestamp", body.request.deadline + 1)
    await scene.mine()
    await scene.register(evidence := await scene.evidence())
    return Told(release(body.model_copy(update={"evidence": evidence})), about(ORACLE, "task", word(2, 1 << 39)))


async def invented_settlement(scene: Scene) -> Told:
    task = await finished(scene)
    digest = task.result.typed_digest(task.domain)[:31] + b"\x00"
    return Told(
        lambda broker: broker.outputs.output(task.body()), about(ORACLE, "task", words(2, 0, 0, 0, 0, digest, 0))
    )


async def other_settlement(scene: Scene) -> Told:
    task = await finished(scene)
    await task.settle(task.make_result(length=8192))
    digest = int.from_bytes(task.result.typed_digest(task.domain)[:31] + b"\x00", "big")
    return Told(lambda broker: broker.outputs.output(task.body()), about(ORACLE, "task", word(5, digest)))


async def invented_signer(scene: Scene) -> Told:
    """Of a share list, by a key of the liar's."""
    task = await finished(scene)
    await task.settle()
    body = task.body(**task.statement(SigningKey.generate()))
    digest = int.from_bytes(scene.world.identity.digest, "big")
    return Told(lambda broker: broker.outputs.output(body), about(ENCLAVES, "record", word(0, digest)))


LIES: list[tuple[Callable[[Scene], Awaitable[Told]], str, str, str]] = [
    (invented_agreement, "invents an agreement", "R7 R13", "agreement.inactive"),
    (invented_task, "invents a task", "R9 R13", "task.unknown"),
    (invented_registration, "invents an enclave's registration", "R2 R13", "enclave.unknown"),
    (invented_consent, "invents a party's consent", "R7 R13", "consent.missing"),
    (hidden_suspension, "hides a suspension", "R8 R13", "agreement.suspended"),
    (hidden_revocation, "hides a revocation", "R8 R13", "agreement.revoked"),
    (hidden_drop, "hides that a measurement was dropped", "R8 R13", "agreement.dropped"),
    (hidden_retirement, "hides that an enclave was retired", "R2 R13", "enclave.retired"),
    (hidden_expiry, "hides that a registration has expired", "R2 R13", "enclave.expired"),
    (hidden_delay, "hides that a task can still be cancelled", "R9 R13", "task.delay"),
    (hidden_cancel, "hides that a task was cancelled", "R9 R13", "task.closed"),
    (hidden_deadline, "hides that a deadline has passed", "R9 R13", "task.deadline"),
    (invented_settlement, "invents a settlement", "R17 R13", "output.not_settled"),
    (other_settlement, "invents the settlement of another result", "R17 R13", "output.result"),
    (invented_signer, "invents an enclave that signed shares", "R17 R13", "output.signer"),
]
OF_TWO = [
    pytest.param(tell, code, marks=lie("chain view", f"one RPC of two that {what}", rules, "chain.disagree"), id=what)
    for tell, what, rules, code in LIES
]
OF_THREE = [
    pytest.param(tell, marks=lie("chain view", f"one RPC of three that {what}", rules, code), id=what)
    for tell, what, rules, code in LIES
]


async def answer(scene: Scene, directory: Path, told: Told, urls: list[str], **served: Any) -> None:
    """What a broker does that reads the chain through `urls`; an answer, or what it raises."""
    broker = await open_broker(scene.config(directory, urls, served=served))
    try:
        await told.ask(broker)
    finally:
        await broker.close()


async def good_lie(scene: Scene, tmp_path: Path, told: Told, code: str, liar: str) -> None:
    """Refused as things are, and believed by a broker that asks nobody else."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its code is compared
        await answer(scene, scene.broker_directory(tmp_path / "honest"), told, [scene.world.url])
    assert reason_of(caught.value) == code
    await answer(scene, scene.broker_directory(tmp_path / "alone"), told, [liar])


@pytest.mark.parametrize(("tell", "code"), OF_TWO)
async def test_two_endpoints_that_disagree_stop_everything(
    scene: Scene, tmp_path: Path, refused: Refused, tell: Callable[[Scene], Awaitable[Told]], code: str
) -> None:
    told, directory = await tell(scene), scene.broker_directory(tmp_path)
    refused.watch(released_by(directory))
    async with proxy(scene.world.url, told.forgery) as liar:
        await good_lie(scene, tmp_path, told, code, liar)
        async with refused():
            await answer(scene, directory, told, [scene.world.url, liar])


@pytest.mark.parametrize("tell", OF_THREE)
async def test_one_endpoint_of_three_is_outvoted(
    scene: Scene, tmp_path: Path, refused: Refused, tell: Callable[[Scene], Awaitable[Told]]
) -> None:
    """The same lies, each of which a broker falls for that asks nobody else, as above."""
    told, directory = await tell(scene), scene.broker_directory(tmp_path)
    refused.watch(released_by(directory))
    async with proxy(scene.world.url, told.forgery) as liar, proxy(scene.world.url, truth) as honest, refused():
        await answer(scene, directory, told, [liar, scene.world.url, honest], quorum=2)


@lie("chain view", "two RPCs of three that tell the same lie, where all must agree", "R13", "chain.disagree")
async def test_most_endpoints_are_not_all(scene: Scene, tmp_path: Path, refused: Refused) -> None:
    told, directory = await hidden_revocation(scene), scene.broker_directory(tmp_path)
    refused.watch(released_by(directory))
    async with proxy(scene.world.url, told.forgery) as liar, proxy(scene.world.url, told.forgery) as other:
        await good_lie(scene, tmp_path, told, "agreement.revoked", liar)
        async with refused():
            await answer(scene, directory, told, [liar, scene.world.url, other])
