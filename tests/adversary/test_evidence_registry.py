"""Evidence at EnclaveRegistry and its verifier: each case relays a registration that is right but for one thing (R2, R4).

Whoever relays one is the host or anybody: nothing but what it carries decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from eth_account import Account

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Host
from tests.adversary import chain_kit as kit
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Enclave, Registration, Scene

boot, honest, on_chain, scene, world = kit.boot, kit.honest, kit.on_chain, kit.scene, kit.world
case = partial(kit.case, "evidence")

HOST = SigningKey.generate()
"""A key of the host's own."""


def hosted(scene: Scene, key: SigningKey, signer: str) -> bytes:
    return key.sign(Host(signer=signer).typed_digest(kit.registry_domain(scene)))


def my_operator(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(operator=HOST.address, operator_signature=hosted(scene, HOST, said.signer))


def my_key(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    mine = said._replace(signer=HOST.address, operator_signature=operator_for(scene, HOST.address))
    return mine._replace(proof_of_possession=kit.possession(scene, HOST, mine))


def operator_for(scene: Scene, signer: str) -> bytes:
    return hosted(scene, SigningKey(bytes(scene.world.operator.key)), signer)


def my_proof(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(proof_of_possession=kit.possession(scene, HOST, said))


def no_proof(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(proof_of_possession=b"")


def my_sealing_key(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(sealing_key=bytes([1]) * 32)


def no_sealing_key(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    none = said._replace(sealing_key=bytes(32))
    return none._replace(proof_of_possession=kit.possession(scene, boot.signer, none))


def signed_sealing_key(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    other = said._replace(sealing_key=bytes([1]) * 32)
    return other._replace(proof_of_possession=kit.possession(scene, boot.signer, other))


def no_operator_signature(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(operator_signature=b"")


def operators_word_for_another(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(operator_signature=operator_for(scene, HOST.address))


def my_word_for_the_operator(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(operator_signature=hosted(scene, HOST, said.signer))


def unknown_hash(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(block_hash=bytes([1]) * 32)


def unknown_block(scene: Scene, boot: Enclave, said: Registration) -> Registration:
    return said._replace(block_number=said.block_number + 10**6, block_hash=bytes(32))


BLOCK = "EnclaveRegistry_WrongBlockHash"
POSSESSION = "EnclaveRegistry_WrongProofOfPossession"
OPERATOR = "EnclaveRegistry_BadOperatorSignature"
DATA = "EnclaveRegistry_WrongReportData"


@pytest.mark.parametrize(
    "change",
    [
        case("my proof", my_proof, "somebody else's key, with a proof by its own", "R2", POSSESSION),
        case("no proof", no_proof, "somebody else's key, without a proof", "R2", POSSESSION),
        case("my key", my_key, "its own key, with an enclave's quote", "R2", DATA),
        case("sealing key", my_sealing_key, "an enclave's key with a sealing key of its own", "R2", POSSESSION),
        case("none", no_sealing_key, "an enclave without a sealing key", "R2 R21", "EnclaveRegistry_Zero"),
        case("signed", signed_sealing_key, "a sealing key that the quote does not bind", "R2", DATA),
        case("operator", my_operator, "itself as operator, in a registration that it saw", "R5", POSSESSION),
        case("unsigned", no_operator_signature, "an operator who did not sign", "R5", OPERATOR),
        case("another", operators_word_for_another, "an operator's word for another enclave", "R5", OPERATOR),
        case("my word", my_word_for_the_operator, "an operator's name over its own signature", "R5", OPERATOR),
        case("hash", unknown_hash, "a block hash that this chain never had", "R2", BLOCK),
        case("block", unknown_block, "a block that is not there yet, with hash zero", "R2", BLOCK),
    ],
)
async def test_a_changed_registration(
    scene: Scene, refused: Refused, boot: Enclave, honest: Registration, change: Any
) -> None:
    changed = change(scene, boot, honest)
    refused.watch(kit.identity(scene, honest.signer))
    refused.watch(kit.identity(scene, changed.signer))
    async with refused():
        await scene.send_registration(changed)


@pytest.mark.parametrize(
    "said",
    [
        case("revoked", {"tcb_status": 7}, "a platform whose TCB is revoked", "R3", "EnclaveRegistry_BadTcbStatus"),
        case("status", {"tcb_status": 33}, "a TCB status that is none", "R21", "EnclaveRegistry_BadTcbStatus"),
        case("TEE", {"tee": 5}, "a kind of TEE that is none", "R21", "EnclaveRegistry_BadTeeKind"),
        case("nothing", {"measurement": bytes(32)}, "an enclave without a measurement", "R3", "EnclaveRegistry_Zero"),
        case("data", {"report_data": bytes([1]) * 32}, "an appraisal of another quote", "R2", DATA),
        case("old", {"appraised_at": -900}, "an appraisal of long ago", "R2", "EnclaveRegistry_StaleAppraisal"),
        case("early", {"appraised_at": 900}, "an appraisal of the future", "R2", "EnclaveRegistry_StaleAppraisal"),
        case("ended", {"valid_until": -1}, "evidence that has expired", "R2", "EnclaveRegistry_EvidenceExpired"),
    ],
)
async def test_an_appraisal_that_does_not_hold(
    scene: Scene, refused: Refused, boot: Enclave, said: dict[str, Any]
) -> None:
    """By the registry's own appraiser; times are given from now."""
    now = (await scene.head()).timestamp
    moments = {name: now + value for name, value in said.items() if name in ("appraised_at", "valid_until")}
    registration = await scene.registration(await scene.evidence(boot), boot, **{**said, **moments})
    refused.watch(kit.identity(scene, registration.signer))
    async with refused():
        await scene.send_registration(registration)


# The verifier


@lie("evidence", "an appraisal that it signed itself", "R4", "DevelopmentVerifier_WrongAppraiser")
async def test_an_appraisal_by_the_host(scene: Scene, refused: Refused, boot: Enclave, honest: Registration) -> None:
    statement = await scene.statement(await scene.evidence(boot))
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(honest._replace(evidence=scene.appraised(statement, Account.create())))


@lie("evidence", "an appraisal that was signed for another verifier", "R4", "DevelopmentVerifier_WrongAppraiser")
async def test_an_appraisal_for_another_verifier(
    scene: Scene, refused: Refused, boot: Enclave, honest: Registration
) -> None:
    statement = await scene.statement(await scene.evidence(boot))
    elsewhere = scene.appraised(statement, verifier=scene.world.deployment.oracle)
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(honest._replace(evidence=elsewhere))


@lie("evidence", "an appraisal with another measurement than was signed", "R4", "DevelopmentVerifier_WrongAppraiser")
async def test_an_appraisal_changed_after_signing(scene: Scene, refused: Refused, honest: Registration) -> None:
    changed = bytearray(honest.evidence)
    changed[32 + 31] ^= 1  # the second word is the measurement
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(honest._replace(evidence=bytes(changed)))


@lie("evidence", "an appraisal with words of its own behind it", "R2", "DevelopmentVerifier_BadEvidenceLength")
async def test_an_appraisal_with_trailing_bytes(scene: Scene, refused: Refused, honest: Registration) -> None:
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(honest._replace(evidence=honest.evidence + bytes(32)))


@lie("evidence", "a verifier of its own, which the registry does not know", "R2 R4", "EnclaveRegistry_UnknownVerifier")
async def test_a_verifier_of_the_hosts(scene: Scene, refused: Refused, boot: Enclave, honest: Registration) -> None:
    own = Account.create()
    verifier = await kit.deploy(scene, "DevelopmentVerifier", own.address)
    statement = await scene.statement(await scene.evidence(boot))
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(
            honest._replace(verifier=verifier, evidence=scene.appraised(statement, own, verifier))
        )


@lie("evidence", "a verifier whose appraiser is nobody", "R4 R21", "DevelopmentVerifier_ZeroAppraiser")
async def test_an_appraiser_who_is_nobody(scene: Scene, refused: Refused) -> None:
    """No signature at all recovers to the zero address."""
    refused.watch(scene.head)
    async with refused():
        await kit.deploy(scene, "DevelopmentVerifier", ZERO_ADDRESS)


@lie("evidence", "the development verifier on a public chain", "R4", "DevelopmentVerifier_NotADevelopmentChain")
async def test_the_development_verifier_on_a_public_chain(
    scene: Scene, refused: Refused, on_chain: Callable[[int], Awaitable[None]]
) -> None:
    appraiser = scene.world.appraiser.address
    await kit.deploy(scene, "DevelopmentVerifier", appraiser)
    await on_chain(11155111)
    refused.watch(scene.head)
    async with refused():
        await kit.deploy(scene, "DevelopmentVerifier", appraiser)
