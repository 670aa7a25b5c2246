"""R17: a broker re-seals its share of a settled output to an agreed recipient, whoever asks.

What it refuses is in tests/adversary/test_results_brokers.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.output import open_output
from enclave_app.protocol.release import open_output_share
from enclave_app.protocol.shares import recover_key
from enclave_app.protocol.structs import Retire
from oracle.chain.abi import load
from oracle.errors import Retryable
from oracle.keybroker import KeyBroker, open_broker, verify_log
from oracle.keybroker.keys import LOG_FILE
from tests import broker_fixtures as fixtures
from tests.broker_kit import Scene
from tests.output_kit import NAME, PLAINTEXT, Finished, finished, outputs_logged

broker, scene, world = fixtures.broker, fixtures.scene, fixtures.world


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
    assert opened == PLAINTEXT
    (entry,) = outputs_logged(tmp_path / "broker0")
    assert (entry.task_id, entry.recipient) == (task.task_id, task.reader.public.digest)
    assert verify_log(tmp_path / "broker0" / LOG_FILE, scene.world.brokers[0].signer).ok


async def test_asking_again_gets_the_same_answer_and_no_other_log_entry(
    scene: Scene, broker: KeyBroker, tmp_path: Path
) -> None:
    task = await finished(scene)
    await task.settle()
    first = await broker.outputs.output(task.body())
    assert await broker.outputs.output(task.body()) == first
    assert len(outputs_logged(tmp_path / "broker0")) == 1


async def test_a_reader_who_asks_too_early_may_ask_again(scene: Scene, broker: KeyBroker) -> None:
    task = await finished(scene)
    with pytest.raises(Retryable):
        await broker.outputs.output(task.body())
    await task.settle()
    await broker.outputs.output(task.body())


async def test_a_recipient_whom_the_agreement_names_reads(scene: Scene, broker: KeyBroker) -> None:
    named = SealingKey.generate()
    output = scene.agreement().outputs[0].model_copy(update={"recipients": (named.public.digest,)})
    task = await finished(scene, outputs=(output,))
    await task.settle()
    await broker.outputs.output(task.body(recipient=named.public.wire))


async def test_narrowing_does_not_withhold_an_outcome(scene: Scene, broker: KeyBroker) -> None:
    """R8: suspended, dropped, revoked, retired enclave: the settled result still reaches its reader."""
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
