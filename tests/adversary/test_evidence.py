"""Evidence at a broker: each case asks for a release with evidence that is right but for one thing (R2, R3, R5, R13)."""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from enclave_app.attesters.platform import DEVELOPMENT_PCE_SVN
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import report_data
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Host
from oracle.keybroker import KeyBroker
from tests.adversary import chain_kit as kit
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Enclave, Scene

broker, scene, world = kit.broker, kit.scene, kit.world
case = partial(kit.case, "evidence")

NOBODY = "0x00000000000000000000000000000000000000AA"
MISMATCH = "evidence.report_data_mismatch"
MEASUREMENT = "evidence.measurement_not_listed"


def with_evidence(body: ReleaseBody, **changes: Any) -> ReleaseBody:
    return body.model_copy(update={"evidence": body.evidence.model_copy(update=changes)})


@pytest.mark.parametrize(
    "change",
    [
        case("chain", {"chain_id": 1}, "evidence that names another chain", "R2", "evidence.chain"),
        case("registry", {"registry": NOBODY}, "evidence that names another registry", "R2", "evidence.registry"),
        case("hash", {"block_hash": bytes(32)}, "another block hash than the quote binds", "R2", MISMATCH),
        case("number", {"block_number": 1}, "an old block's number with a new one's hash", "R2", "evidence.block"),
        case("no block", {"block_number": 10**9}, "a block that is not there", "R2", "evidence.block_unknown"),
        case("signer", {"signer": NOBODY}, "evidence of another signer than who asks", "R2 R13", "release.signature"),
        case("TEE", {"tee": 2}, "an SGX quote as one of TDX", "R3", "evidence.tee_mismatch"),
        case("SNP", {"tee": 3}, "an SGX quote as a report of SEV-SNP", "R3", "evidence.evidence_trailing_bytes"),
        case("no TEE", {"tee": 5}, "evidence of a TEE that nobody verifies", "R21", "evidence.tee_unsupported"),
        case("operator", {"operator": NOBODY}, "an operator that is not agreed", "R5", "host.not_agreed"),
        case("unsigned", {"operator_signature": b""}, "an agreed operator's name, unsigned", "R5", "host.signature"),
        case(
            "zeros", {"operator_signature": bytes(65)}, "an agreed operator's name over zeros", "R5", "host.signature"
        ),
    ],
)
async def test_changed_evidence(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, change: dict[str, Any]
) -> None:
    body = await scene.body()
    await kit.ask(broker, refused, tmp_path, with_evidence(body, **change))
    await broker.releases.release(body)  # the change alone was at fault


@pytest.mark.parametrize(
    "bound",
    [
        case("signer", {"signer": NOBODY}, "a quote over another signer", "R2", MISMATCH),
        case("sealing key", {"sealing_key": bytes([1]) * 32}, "a quote over another sealing key", "R2", MISMATCH),
        case("chain", {"chain_id": 1}, "a quote over another chain", "R2", MISMATCH),
        case("registry", {"registry": NOBODY}, "a quote over another registry", "R2", MISMATCH),
        case("block", {"block_hash": bytes([1]) * 32}, "a quote over another block", "R2", MISMATCH),
        case("tail", {"tail": bytes([1]) * 32}, "a quote with words of its own behind what it binds", "R2", MISMATCH),
    ],
)
async def test_a_genuine_quote_over_something_else(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, bound: dict[str, Any]
) -> None:
    body = await scene.body()
    right = {
        "chain_id": body.evidence.chain_id,
        "registry": body.evidence.registry,
        "signer": body.evidence.signer,
        "sealing_key": scene.world.enclave.sealing.public.digest,
        "block_hash": body.evidence.block_hash,
        "tail": bytes(32),
    }
    said = {**right, **bound}
    tail = said.pop("tail")
    quote = await scene.world.enclave.attester.quote(report_data(**said)[:32] + tail)
    await kit.ask(broker, refused, tmp_path, with_evidence(body, quote=quote))
    await broker.releases.release(body)


@lie("evidence", "its own sealing key, with the enclave's quote and old signature", "R2 R13", MISMATCH)
async def test_a_sealing_key_of_the_hosts(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    own = SealingKey.generate()
    release = scene.ask(body.agreement, body.request, sealing_key=own.public.digest)
    changed = with_evidence(body, sealing_key=own.public.wire).model_copy(update={"release": release})
    await kit.ask(broker, refused, tmp_path, changed)


@lie("evidence", "an agreed program's measurement in another program's quote", "R3", "evidence.quote_refused")
async def test_a_changed_byte_of_the_quote(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    quote = bytearray(body.evidence.quote)
    quote[48 + 64] ^= 1  # the first byte of MRENCLAVE
    await kit.ask(broker, refused, tmp_path, with_evidence(body, quote=bytes(quote)))


# Freshness


@lie("evidence", "evidence over a block of a fork that was dropped", "R2 R13", "evidence.block")
async def test_a_block_of_another_fork(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    lost = await kit.forked(scene)
    body = await scene.body()
    stale = body.model_copy(update={"evidence": await scene.evidence(block=lost)})
    await kit.ask(broker, refused, tmp_path, stale)
    await broker.releases.release(body)


@lie("evidence", "evidence that is older than the agreement takes", "R2", "evidence.age")
async def test_old_evidence(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    old = await scene.head()
    await scene.rpc.call("evm_increaseTime", 600)
    await scene.mine()
    await scene.register(await scene.evidence())
    body = await scene.body(kit.tee(scene.agreement(), max_evidence_age=500))
    stale = body.model_copy(update={"evidence": await scene.evidence(block=old)})
    await kit.ask(broker, refused, tmp_path, stale)
    await broker.releases.release(body)


@lie("evidence", "fresh evidence with a registration that was never renewed", "R2", "enclave.evidence_age")
async def test_an_old_registration(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    await scene.rpc.call("evm_increaseTime", 600)
    await scene.mine()
    body = await scene.body(kit.tee(scene.agreement(), max_evidence_age=500))
    await kit.ask(broker, refused, tmp_path, body)
    await scene.register(await scene.evidence())
    await broker.releases.release(body)


# What the registry holds about this signer


@lie("evidence", "an enclave whose registration has expired", "R2", "enclave.expired")
async def test_an_expired_registration(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    enclave = Enclave(scene.world.enclave.attester)
    body = await scene.body(enclave=enclave)
    await scene.register(body.evidence, enclave, collateral=await kit.for_a_minute(scene))
    await scene.rpc.call("evm_increaseTime", 120)
    await scene.mine()
    await kit.ask(broker, refused, tmp_path, body)


@lie("evidence", "an enclave that was retired", "R2", "enclave.retired")
async def test_a_retired_identity(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    await kit.retire(scene, body.evidence.signer, scene.world.enclave.signer)
    await kit.ask(broker, refused, tmp_path, body)


@lie("evidence", "a genuine enclave that nobody registered", "R2", "enclave.unknown")
async def test_no_registration(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    enclave = Enclave(scene.world.enclave.attester)
    body = await scene.body(enclave=enclave)
    await kit.ask(broker, refused, tmp_path, body)
    await scene.register(body.evidence, enclave)
    await broker.releases.release(body)


@lie("evidence", "a registered signer with another sealing key", "R2", "enclave.identity")
async def test_another_sealing_key_than_registered(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    registered = Enclave(scene.world.enclave.attester)
    await scene.register(await scene.evidence(registered), registered)
    asking = Enclave(scene.world.enclave.attester, registered.signer)
    await kit.ask(broker, refused, tmp_path, await scene.body(enclave=asking))


@lie("evidence", "another agreed operator than the registered one", "R5 R13", "enclave.identity")
async def test_another_operator_than_registered(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    another = Account.create()
    operators = (scene.world.operator.address, another.address)
    body = await scene.body(kit.tee(scene.agreement(), operators=operators))
    evidence = await scene.evidence(operator=another)
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"evidence": evidence}))


@lie("evidence", "an agreed operator's word for another enclave", "R5", "host.signature")
async def test_an_operators_word_for_another_enclave(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    body = await scene.body()
    other = await scene.evidence(Enclave(scene.world.enclave.attester))
    await kit.ask(broker, refused, tmp_path, with_evidence(body, operator_signature=other.operator_signature))


@lie("evidence", "an agreed operator's word in another registry", "R5", "host.signature")
async def test_an_operators_word_in_another_registry(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    body = await scene.body()
    elsewhere = Domain(chain_id=body.chain.chain_id, verifying_contract=NOBODY)
    host = Host(signer=body.evidence.signer).typed_digest(elsewhere)
    signature = SigningKey(bytes(scene.world.operator.key)).sign(host)
    await kit.ask(broker, refused, tmp_path, with_evidence(body, operator_signature=signature))


@lie("evidence", "no operator where the agreement names operators", "R5", "host.not_agreed")
async def test_a_nameless_host(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    await kit.ask(broker, refused, tmp_path, with_evidence(body, operator=ZERO_ADDRESS, operator_signature=b""))


@lie("evidence", "a machine that the agreement does not list", "R5", "host.not_agreed")
async def test_another_platform(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    agreed = scene.verified(await scene.evidence()).platform
    body = await scene.body(kit.tee(scene.agreement(), operators=(), platforms=(agreed,)))
    await broker.releases.release(body)
    elsewhere = Enclave(SoftwareAttester(scene.world.authority.issue_platform(), scene.world.program))
    release = scene.ask(body.agreement, body.request, elsewhere)
    evidence = await scene.evidence(elsewhere)
    await scene.register(evidence, elsewhere)
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"release": release, "evidence": evidence}))


# A registry that a broker does not simply believe: it makes the identity from the evidence that it appraised (R13)


def another_program(scene: Scene, enclave: Enclave) -> Enclave:
    program = SoftwareEnclave(secrets.token_bytes(32), b"{}")
    return Enclave(SoftwareAttester(scene.world.platform, program), enclave.signer, enclave.sealing)


def another_machine(scene: Scene, enclave: Enclave) -> Enclave:
    attester = SoftwareAttester(scene.world.authority.issue_platform(), scene.world.program)
    return Enclave(attester, enclave.signer, enclave.sealing)


def patched_machine(scene: Scene, enclave: Enclave) -> Enclave:
    """The same machine with another PCESVN: the status was judged by other versions."""
    world = scene.world
    platform = world.authority.issue_platform(ppid=world.platform.ppid, pce_svn=DEVELOPMENT_PCE_SVN + 1)
    return Enclave(SoftwareAttester(platform, world.program), enclave.signer, enclave.sealing)


@pytest.mark.parametrize(
    "registered",
    [
        case("program", another_program, "a registration of another program", "R13", "enclave.identity"),
        case("machine", another_machine, "a registration of another machine", "R13", "enclave.identity"),
        case("versions", patched_machine, "a registration of the same machine, patched", "R13", "enclave.identity"),
    ],
)
async def test_a_registration_of_something_else(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, registered: Any
) -> None:
    """By the same keys, so that the registry has a record of the signer."""
    enclave = Enclave(scene.world.enclave.attester)
    other = registered(scene, enclave)
    await scene.register(await scene.evidence(other), other)
    await kit.ask(broker, refused, tmp_path, await scene.body(enclave=enclave))


@pytest.mark.parametrize(
    "shown",
    [
        case(
            "status",
            {"status": "OutOfDate", "evaluation": 18},
            "a registration with a TCB status that is not agreed",
            "R3",
            "enclave.status",
        ),
        case("evaluation", {"evaluation": 16}, "a registration below the evaluation floor", "R3", "enclave.evaluation"),
    ],
)
async def test_a_registration_that_does_not_fit(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, shown: dict[str, Any]
) -> None:
    enclave = Enclave(scene.world.enclave.attester)
    body = await scene.body(enclave=enclave)
    await scene.register(body.evidence, enclave, collateral=scene.collateral(**shown))
    await kit.ask(broker, refused, tmp_path, body)


@lie("evidence", "an agreed program's registration with another program's quote", "R3 R13", MEASUREMENT)
async def test_a_registration_that_lies_about_the_program(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    other = another_program(scene, scene.world.enclave)
    await kit.ask(broker, refused, tmp_path, await scene.body(enclave=other))


@lie("evidence", "one agreed program, registered as another agreed one", "R3 R13", "enclave.identity")
async def test_a_registration_of_another_agreed_program(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    enclave = Enclave(scene.world.enclave.attester)
    other = another_program(scene, enclave)
    await scene.register(evidence := await scene.evidence(other), other)
    agreed = (scene.world.program.measurement, scene.verified(evidence).measurement)
    body = await scene.body(kit.tee(scene.agreement(), measurements=agreed), enclave=enclave)
    await kit.ask(broker, refused, tmp_path, body)
