"""R15, R17: a broker re-seals its share of a settled output to an agreed recipient, whoever asks, and to nobody else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.output import SealedOutput, TaskSecret, open_output, seal_output
from enclave_app.protocol.release import OutputBody, open_output_share, recipients_digest
from enclave_app.protocol.shares import OutputBinding, ShareList, make_share_list, random_coefficients, recover_key
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Out, OutputShares, Result, TaskRequest
from oracle.chain.abi import load
from oracle.chain.rpc import Rpc
from oracle.errors import OracleError, Refused, Retryable
from oracle.keybroker import KeyBroker, open_broker, read_log, verify_log
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.log import OutputReleased
from tests.broker_kit import Scene, World, anvil, make_world

NAME = "summary"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with anvil() as url:
        yield asyncio.run(make_world(url, tmp_path_factory.mktemp("world")))


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
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


class Finished:
    """A task whose enclave made an output, and can settle it."""

    def __init__(self, scene: Scene, agreement: Agreement, request: TaskRequest, reader: SealingKey) -> None:
        self.scene, self.agreement, self.request, self.reader = scene, agreement, request, reader
        self.chain = scene.world.chain
        self.domain = self.chain.oracle_domain(agreement)
        self.agreement_id, self.task_id = self.chain.agreement_id(agreement), request.typed_digest(self.domain)
        secret = TaskSecret([secrets.token_bytes(32)], self.agreement_id, self.task_id)
        self.output = seal_output(secret, NAME, b"mean radius 14.1", 4096, 2)
        self.shares = self.share_list(self.output)
        self.result = self.make_result()

    def share_list(self, output: SealedOutput) -> ShareList:
        binding = OutputBinding(
            chain_id=self.chain.chain_id,
            oracle=self.agreement.oracle,
            agreement_id=self.agreement_id,
            task_id=self.task_id,
            output=output.manifest.id,
        )
        public = [card.public_key() for card in self.scene.world.brokers]
        return make_share_list(output.manifest.id, [output.key], 2, public, binding, random_coefficients(2))

    def make_result(self, outcome: int = 1, **changes: Any) -> Result:
        out = {
            "name": NAME,
            "kind": 1,
            "recipients_digest": recipients_digest(self.agreement.outputs[0].recipients, self.request.result_key),
            "length": self.output.length,
            "digest": self.output.manifest.id,
        }
        return Result(
            agreement_id=self.agreement_id,
            task_id=self.task_id,
            outcome=outcome,
            outputs=(Out(**{**out, **changes}),) if outcome == 1 else (),
            payee=self.scene.world.operator.address,
            anchor=self.scene.anchor,
        )

    async def settle(self, result: Result | None = None) -> None:
        result = result or self.result
        signature = self.scene.world.enclave.signer.sign(result.typed_digest(self.domain))
        call = load("ComputeOracle").call(
            "fulfil", self.request, self.agreement.tee, self.agreement.price, result, signature
        )
        await self.scene.transact(self.scene.world.requester, self.agreement.oracle, call)

    def statement(self, signer: SigningKey | None = None, **changes: Any) -> dict[str, Any]:
        said = {
            "agreement_id": self.agreement_id,
            "task_id": self.task_id,
            "output_id": self.output.manifest.id,
            "shares": self.shares.id,
        }
        shares = OutputShares(**{**said, **changes})
        signature = (signer or self.scene.world.enclave.signer).sign(shares.typed_digest(self.domain))
        return {"shares": shares, "shares_signature": signature}

    def body(self, **changes: Any) -> OutputBody:
        return OutputBody(
            **{
                "chain": self.chain,
                "agreement": self.agreement,
                "request": self.request,
                "result": self.result,
                "output": 0,
                "manifest": self.output.manifest.canonical(),
                "share_list": self.shares.canonical(),
                **self.statement(),
                "recipient": self.reader.public.wire,
                **changes,
            }
        )


async def finished(scene: Scene, **changes: Any) -> Finished:
    """Requested, computed, not settled yet. The reader holds the request's result key."""
    agreement = scene.agreement(**changes)
    await scene.activate(agreement)
    reader = SealingKey.generate()
    return Finished(scene, agreement, await scene.request(agreement, result_key=reader.public.digest), reader)


def logged(tmp_path: Path) -> list[OutputReleased]:
    events = [entry.event for entry in read_log(tmp_path / "broker0" / LOG_FILE)]
    return [event for event in events if isinstance(event, OutputReleased)]


async def refused(broker: KeyBroker, body: OutputBody, code: str, kind: type[OracleError], tmp_path: Path) -> None:
    with pytest.raises(OracleError) as caught:
        await broker.outputs.output(body)
    assert caught.value.code == code
    assert type(caught.value) is kind
    assert logged(tmp_path) == []


async def test_two_brokers_open_a_settled_output_for_its_recipient(scene: Scene, tmp_path: Path) -> None:
    task = await finished(scene)
    await task.settle()
    found: dict[int, bytes] = {}
    for index in (0, 1):
        broker = await open_broker(scene.config(scene.broker_directory(tmp_path, index)))
        body = task.body()
        answer = await broker.outputs.output(body)
        await broker.close()
        digest = scene.world.brokers[index].digest
        x, share = open_output_share(answer.sealed, task.chain, task.agreement, body.shares, digest, task.reader)
        found[x] = share
    manifest = task.output.manifest
    key = recover_key(found, 2, manifest.keys[0])
    opened = open_output(manifest, bytes(task.output.ciphertext), key, task.agreement_id, task.task_id, NAME)
    assert opened == b"mean radius 14.1"
    (entry,) = logged(tmp_path)
    assert (entry.task_id, entry.recipient) == (task.task_id, task.reader.public.digest)
    assert verify_log(tmp_path / "broker0" / LOG_FILE, scene.world.brokers[0].signer).ok


async def test_asking_again_gets_the_same_answer_and_no_other_log_entry(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    task = await finished(scene)
    await task.settle()
    first = await broker.outputs.output(task.body())
    assert await broker.outputs.output(task.body()) == first
    assert len(logged(tmp_path)) == 1


async def test_nobody_reads_a_result_that_was_not_settled(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    task = await finished(scene)
    await refused(broker, task.body(), "output.not_settled", Retryable, tmp_path)
    await task.settle()
    await broker.outputs.output(task.body())


async def test_a_result_other_than_the_settled_one_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    task = await finished(scene)
    await task.settle(task.make_result(digest=secrets.token_bytes(32)))
    await refused(broker, task.body(), "output.result", Refused, tmp_path)


async def test_an_output_of_another_name_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    task = await finished(scene)
    result = task.make_result(name="other")
    await task.settle(result)
    await refused(broker, task.body(result=result), "output.name", Refused, tmp_path)


async def test_an_output_that_is_no_sealed_stream_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    task = await finished(scene)
    table = scene.world.sealed[0].manifest
    result = task.make_result(digest=table.id)
    await task.settle(result)
    body = task.body(result=result, manifest=table.canonical(), **task.statement(output_id=table.id))
    await refused(broker, body, "output.encryption", Refused, tmp_path)


async def test_a_task_that_failed_has_no_output(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    task = await finished(scene)
    await task.settle(task.make_result(outcome=2))
    await refused(broker, task.body(), "output.no_result", Refused, tmp_path)
    await refused(broker, task.body(result=task.make_result(outcome=2)), "result.outcome", Refused, tmp_path)


async def test_a_recipient_who_was_not_agreed_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    task = await finished(scene)
    await task.settle()
    thief = SealingKey.generate()
    await refused(broker, task.body(recipient=thief.public.wire), "output.recipient", Refused, tmp_path)


async def test_recipients_come_from_the_agreement_not_from_the_result(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    """An enclave that lied about recipients settles, and still reads nothing through an honest broker."""
    task = await finished(scene)
    thief = SealingKey.generate()
    result = task.make_result(recipients_digest=recipients_digest([thief.public.digest], ZERO32))
    await task.settle(result)
    body = task.body(result=result, recipient=thief.public.wire)
    await refused(broker, body, "output.recipient", Refused, tmp_path)
    await refused(broker, task.body(result=result), "output.recipients", Refused, tmp_path)


async def test_a_named_recipient_reads_and_the_request_key_does_not(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    named = SealingKey.generate()
    output = scene.agreement().outputs[0].model_copy(update={"recipients": (named.public.digest,)})
    task = await finished(scene, outputs=(output,))
    await task.settle()
    await refused(broker, task.body(), "output.recipient", Refused, tmp_path)
    await broker.outputs.output(task.body(recipient=named.public.wire))


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("agreement_id", bytes([1]) * 32, "output.shares_task"),
        ("task_id", bytes([1]) * 32, "output.shares_task"),
        ("output_id", bytes([1]) * 32, "output.shares_output"),
        ("shares", bytes([1]) * 32, "shares.digest"),
    ],
)
async def test_a_statement_about_something_else_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, field: str, value: bytes, code: str
) -> None:
    task = await finished(scene)
    await task.settle()
    changes: dict[str, Any] = {field: value}
    await refused(broker, task.body(**task.statement(**changes)), code, Refused, tmp_path)


async def test_a_share_list_that_no_enclave_signed_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    task = await finished(scene)
    await task.settle()
    body = task.body(**task.statement(SigningKey.generate()))
    await refused(broker, body, "output.signer", Refused, tmp_path)


async def test_a_share_list_of_another_program_is_refused(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
    from tests.broker_kit import Enclave

    other = Enclave(SoftwareAttester(scene.world.platform, SoftwareEnclave(secrets.token_bytes(32), b"{}")))
    await scene.register(await scene.evidence(other), other)
    task = await finished(scene)
    await task.settle()
    await refused(broker, task.body(**task.statement(other.signer)), "output.signer", Refused, tmp_path)


async def test_another_outputs_shares_do_not_open(scene: Scene, broker: KeyBroker, tmp_path: Path) -> None:
    """Shares of another task's output, passed off as this one's."""
    other = await finished(scene)
    task = await finished(scene)
    await task.settle()
    moved = other.shares.model_copy(update={"dataset": task.output.manifest.id})
    body = task.body(share_list=moved.canonical(), **task.statement(shares=moved.id))
    await refused(broker, body, "hpke.open", Refused, tmp_path)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"output": 1}, "result.outputs"),
        ({"manifest": b"{}"}, "manifest.digest"),
        ({"share_list": b"{}"}, "shares.digest"),
        ({"recipient": b"\x01"}, "hpke.public_key"),
        ({"shares_signature": b""}, "signature.length"),
    ],
)
async def test_a_changed_body_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    task = await finished(scene)
    await task.settle()
    await refused(broker, task.body(**changes), code, Refused, tmp_path)


@pytest.mark.parametrize(
    ("part", "changes", "code"),
    [
        ("chain", {"chain_id": 1}, "chain.not_served"),
        ("request", {"agreement_id": bytes(32)}, "request.agreement"),
        ("request", {"params": b'{"a":1}'}, "result.task"),
        ("result", {"agreement_id": bytes(32)}, "result.agreement"),
        ("result", {"task_id": bytes(32)}, "result.task"),
        ("result", {"payee": "0x00000000000000000000000000000000000000AA"}, "output.result"),
    ],
)
async def test_a_changed_part_is_refused(
    scene: Scene, broker: KeyBroker, tmp_path: Path, part: str, changes: dict[str, Any], code: str
) -> None:
    task = await finished(scene)
    await task.settle()
    body = task.body()
    changed = body.model_copy(update={part: getattr(body, part).model_copy(update=changes)})
    await refused(broker, changed, code, Refused, tmp_path)


async def test_narrowing_does_not_withhold_an_outcome(scene: Scene, broker: KeyBroker) -> None:
    """R8: suspended, dropped, revoked, retired enclave: the settled result still reaches its reader."""
    from enclave_app.protocol.structs import Retire

    task = await finished(scene)
    await task.settle()
    author, signer = scene.world.author, scene.world.enclave.signer
    await scene.party(author, "suspend", task.agreement_id)
    await broker.outputs.output(task.body())
    await scene.party(author, "dropMeasurement", task.agreement_id, scene.world.program.measurement)
    await scene.party(author, "revoke", task.agreement_id)
    digest = Retire(signer=signer.address).typed_digest(task.chain.enclave_domain(task.agreement))
    call = load("EnclaveRegistry").call("retire", scene.anchor, signer.address, signer.sign(digest))
    await scene.transact(scene.world.requester, task.agreement.enclave_registry, call)
    await broker.outputs.output(task.body())


async def test_a_settled_task_is_released_again_to_rebuild_it(scene: Scene, broker: KeyBroker) -> None:
    """R17: another enclave may rebuild an output that a host withholds, within the cap."""
    body = await scene.body()
    reader = SealingKey.generate()
    await Finished(scene, body.agreement, body.request, reader).settle()
    await scene.rpc.call("evm_increaseTime", 100)
    await scene.mine()
    answer, _ = await broker.releases.release(body)
    assert answer.statement.answer == sha256(answer.sealed)
