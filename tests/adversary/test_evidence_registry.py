"""Evidence at EnclaveRegistry, its verifiers and their collateral: each case relays what is right but for one thing (R2, R4).

Whoever relays one is the host or anybody: nothing but what it carries decides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from eth_abi.abi import encode

from enclave_app.attesters.dcap_format import FLAG_DEBUG, FLAG_INIT, FLAG_MODE64BIT
from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester
from enclave_app.protocol.evidence import Voucher, registered_under, report_data
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Host, RegisteredIdentity, VerifierStatement
from oracle.attestation import Collateral, parse_dcap
from oracle.attestation.collateral import pem_chain
from oracle.attestation.onchain.evidence import dcap_evidence
from oracle.attestation.onchain.structs import certificate_digest
from oracle.chain.abi import load
from oracle.chain.source import Block
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


# Evidence before DcapVerifier


async def quote_of_another(scene: Scene, boot: Enclave) -> bytes:
    other = Enclave(boot.attester)
    return (await scene.registration(await scene.evidence(other), other)).evidence


async def quote_with_a_tail(scene: Scene, boot: Enclave) -> bytes:
    """The second half of the report data is for nobody's words."""
    evidence = await scene.evidence(boot)
    bound = parse_dcap(1, evidence.quote).report_data[:32] + bytes([1]) * 32
    return dcap_evidence(parse_dcap(1, await boot.attester.quote(bound)), scene.collateral())


async def debug_enclave(scene: Scene, boot: Enclave) -> bytes:
    program = replace(scene.world.program, flags=FLAG_INIT | FLAG_DEBUG | FLAG_MODE64BIT)
    debug = Enclave(SoftwareAttester(scene.world.platform, program), boot.signer, boot.sealing)
    evidence = await scene.evidence(debug)
    return dcap_evidence(parse_dcap(1, evidence.quote), scene.collateral())


async def another_measurement(scene: Scene, boot: Enclave) -> bytes:
    quote = bytearray((await scene.evidence(boot)).quote)
    quote[48 + 64] ^= 1  # the first byte of MRENCLAVE
    return dcap_evidence(parse_dcap(1, bytes(quote)), scene.collateral())


async def own_root(scene: Scene, boot: Enclave) -> bytes:
    """A quote that is genuine, under a root of the host's own; the store took none of its certificates."""
    authority = DevelopmentAuthority((await scene.head()).timestamp)
    attester = SoftwareAttester(authority.issue_platform(), scene.world.program)
    evidence = await scene.evidence(Enclave(attester, boot.signer, boot.sealing))
    collateral = Collateral.from_json(json.dumps(authority.collateral()))
    return dcap_evidence(parse_dcap(1, evidence.quote), collateral)


async def better_level(scene: Scene, boot: Enclave) -> bytes:
    """Collateral of its own making, which says that the platform is fine."""
    evidence = await scene.evidence(boot)
    outdated = scene.collateral(status="OutOfDate", evaluation=18)
    await scene.post(evidence.quote, outdated)
    return dcap_evidence(parse_dcap(1, evidence.quote), scene.collateral(evaluation=18))


async def revoked_level(scene: Scene, boot: Enclave) -> bytes:
    evidence = await scene.evidence(boot)
    return (await scene.registration(evidence, boot, scene.collateral(status="Revoked", evaluation=18))).evidence


async def revoked_platform(scene: Scene, boot: Enclave) -> bytes:
    """Its certificate was revoked after it had been posted; anybody may post the list that says so."""
    now = (await scene.head()).timestamp
    newer = scene.collateral(now=now + 60, revoked=[scene.world.platform], evaluation=18)
    return (await scene.registration(await scene.evidence(boot), boot, newer)).evidence


async def not_there(scene: Scene, boot: Enclave) -> bytes:
    evidence = await scene.evidence(boot)
    return dcap_evidence(parse_dcap(1, evidence.quote), scene.collateral(evaluation=18))


STORE = "DcapCollateral_"
VERIFIER = "DcapVerifier_"


@pytest.mark.parametrize(
    "made",
    [
        case("quote", quote_of_another, "another enclave's quote", "R2", DATA),
        case("tail", quote_with_a_tail, "a quote with words of its own", "R2", VERIFIER + "ReportDataNotZero"),
        case("debug", debug_enclave, "an enclave whose memory it can read", "R4", VERIFIER + "Debug"),
        case("measurement", another_measurement, "a quote it changed", "R3", VERIFIER + "BadQuoteSignature"),
        case("root", own_root, "a quote under its own root", "R4", STORE + "UnknownPck"),
        case("own", better_level, "collateral that it made itself", "R4", STORE + "NotCurrent"),
        case("missing", not_there, "collateral that nobody posted", "R4", STORE + "NotCurrent"),
        case("TCB", revoked_level, "a platform whose TCB is revoked", "R4", VERIFIER + "Revoked"),
        case("revoked", revoked_platform, "a platform whose certificate was revoked", "R4", STORE + "Revoked"),
    ],
)
async def test_evidence_that_does_not_hold(
    scene: Scene, refused: Refused, boot: Enclave, honest: Registration, made: Any
) -> None:
    evidence = await made(scene, boot)
    head = await scene.head()
    fresh = await scene.registration(await scene.evidence(boot, head), boot)
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(fresh._replace(evidence=evidence))


@lie("evidence", "evidence that rests on collateral that has ended", "R2 R4", "DcapCollateral_Expired")
async def test_collateral_that_has_ended(scene: Scene, refused: Refused, boot: Enclave) -> None:
    collateral = await kit.for_a_minute(scene)
    await scene.post((await scene.evidence(boot)).quote, collateral)
    await scene.rpc.call("evm_increaseTime", 120)
    await scene.mine()
    registration = await scene.registration(await scene.evidence(boot), boot, collateral)
    refused.watch(kit.identity(scene, registration.signer))
    async with refused():
        await scene.send_registration(registration)


@lie("evidence", "a verifier of its own, which the registry does not know", "R2 R4", "EnclaveRegistry_UnknownVerifier")
async def test_a_verifier_of_the_hosts(scene: Scene, refused: Refused, boot: Enclave, honest: Registration) -> None:
    verifier = await kit.deploy(scene, "DcapVerifier", scene.world.deployment.collateral)
    refused.watch(kit.identity(scene, honest.signer))
    async with refused():
        await scene.send_registration(honest._replace(verifier=verifier))


@lie("evidence", "contracts under a development root on a public chain", "R4", "DcapCollateral_NotADevelopmentChain")
async def test_a_development_root_on_a_public_chain(
    scene: Scene, refused: Refused, on_chain: Callable[[int], Awaitable[None]]
) -> None:
    await kit.deploy(scene, "DcapCollateral", scene.world.authority.root_der)
    await on_chain(11155111)
    refused.watch(scene.head)
    async with refused():
        await kit.deploy(scene, "DcapCollateral", scene.world.authority.root_der)


# Collateral of its own before the store


def own_pieces(scene: Scene) -> tuple[DevelopmentAuthority, Collateral]:
    authority = DevelopmentAuthority(int(time.time()))
    return authority, Collateral.from_json(json.dumps(authority.collateral()))


def own_ca(scene: Scene) -> tuple[Any, ...]:
    authority, _ = own_pieces(scene)
    return "postIssuer", authority._pck_ca.certificate.public_bytes(Encoding.DER)


def own_tcb_info(scene: Scene) -> tuple[Any, ...]:
    """Newer, and signed by its own signer in the name of the posted one."""
    _, own = own_pieces(scene)
    signer = certificate_digest(pem_chain(scene.collateral().tcb_info_issuer_chain)[0])
    return "postTcbInfo", own.tcb_info.encode(), bytes.fromhex(own.tcb_info_signature), signer


def changed_tcb_info(scene: Scene) -> tuple[Any, ...]:
    genuine = scene.collateral(status="OutOfDate", evaluation=18)
    signer = certificate_digest(pem_chain(genuine.tcb_info_issuer_chain)[0])
    changed = genuine.tcb_info.replace("OutOfDate", "UpToDate ", 1)
    return "postTcbInfo", changed.encode(), bytes.fromhex(genuine.tcb_info_signature), signer


def empty_list(scene: Scene) -> tuple[Any, ...]:
    """No platform is revoked, says a list that it signed itself."""
    _, own = own_pieces(scene)
    ca = certificate_digest(pem_chain(scene.collateral().pck_crl_issuer_chain)[0])
    return "postCrl", bytes.fromhex(own.pck_crl), ca


def older_list(scene: Scene) -> tuple[Any, ...]:
    older = scene.collateral(now=int(time.time()) - 7200)
    ca = certificate_digest(pem_chain(older.pck_crl_issuer_chain)[0])
    return "postCrl", bytes.fromhex(older.pck_crl), ca


@pytest.mark.parametrize(
    "post",
    [
        case("CA", own_ca, "a CA of its own", "R4", STORE + "UnknownIssuer"),
        case("TCB info", own_tcb_info, "TCB info that it signed itself", "R4", STORE + "BadSignature"),
        case("changed", changed_tcb_info, "TCB info that it changed", "R4", STORE + "BadSignature"),
        case("CRL", empty_list, "a revocation list that it signed itself", "R4", STORE + "UnknownIssuer"),
        case("older", older_list, "an older revocation list over a newer one", "R4", STORE + "NotNewer"),
    ],
)
async def test_collateral_of_its_own(scene: Scene, refused: Refused, post: Any) -> None:
    store = scene.world.deployment.collateral
    assert store is not None
    refused.watch(scene.head)
    async with refused():
        await scene.transact(scene.world.requester, store, load("DcapCollateral").call(*post(scene)))


# The word of an enclave, before AttestedVerifier


@dataclass(frozen=True)
class Word:
    """What a verifier enclave says of an enclave that no contract can judge, and who says that it is registered."""

    statement: VerifierStatement
    signer: SigningKey
    anchor: bytes
    identity: RegisteredIdentity


async def word(scene: Scene, boot: Enclave, head: Block) -> Word:
    deployment = scene.world.deployment
    bound = report_data(
        deployment.chain_id, deployment.enclave_registry, boot.signer.address, boot.sealing.public.digest, head.hash
    )
    statement = VerifierStatement(
        tee=3,
        measurement=bytes([1]) * 32,
        report_data=bound[:32],
        root=bytes([2]) * 32,
        tcb_status=1,
        evaluation=0,
        platform=bytes([3]) * 32,
        svn_digest=bytes([4]) * 32,
        collateral=bytes(32),
        appraised_at=head.timestamp,
        valid_until=head.timestamp + 3600,
    )
    return Word(statement, scene.world.enclave.signer, scene.anchor, scene.world.identity)


async def vouched(scene: Scene, boot: Enclave, said: Word, head: Block) -> Registration:
    signature = said.signer.sign(said.statement.typed_digest(kit.registry_domain(scene)))
    attested = (
        said.statement.to_abi(), said.anchor, scene.world.enclave.signer.address, said.identity.to_abi(), signature
    )  # fmt: skip
    kinds = f"({VerifierStatement.abi_type()},bytes32,address,{RegisteredIdentity.abi_type()},bytes)"
    honest = await scene.registration(await scene.evidence(boot, head), boot)
    return honest._replace(verifier=scene.world.deployment.verifiers["attested"], evidence=encode([kinds], [attested]))


def said(**changes: Any) -> Callable[[Word], Word]:
    return lambda word: replace(word, statement=word.statement.model_copy(update=changes))


def early(word: Word) -> Word:
    return said(appraised_at=word.statement.appraised_at - 900)(word)


def shown(**changes: Any) -> Callable[[Word], Word]:
    return lambda word: replace(word, identity=word.identity.model_copy(update=changes))


ATTESTED = "AttestedVerifier_"


@pytest.mark.parametrize(
    "change",
    [
        case(
            "signed", lambda word: replace(word, signer=HOST), "a verdict that it signed itself", "R4",
            ATTESTED + "WrongSigner",
        ),
        case("SGX", said(tee=1), "a verdict on evidence that contracts judge", "R4", ATTESTED + "BadTeeKind"),
        case("old", early, "a verdict of long ago", "R2", ATTESTED + "StaleAppraisal"),
        case("other", said(report_data=bytes(32)), "a verdict on other evidence", "R2", DATA),
        case("revoked", said(tcb_status=7), "a platform that the verdict calls revoked", "R4", "EnclaveRegistry_BadTcbStatus"),
        case("ended", said(valid_until=1), "a verdict that has ended", "R2", "EnclaveRegistry_EvidenceExpired"),
        case(
            "program", shown(measurement=bytes([9]) * 32), "a verdict by another verifier than it says", "R3",
            "EnclaveRegistry_WrongIdentity",
        ),
        case(
            "nested", shown(verifier=bytes([9]) * 32), "a verdict by an enclave that rests on another's", "R4",
            ATTESTED + "Nested",
        ),
        case(
            "nobody", lambda word: replace(word, anchor=bytes([9]) * 32), "a verdict by an enclave that nobody registered",
            "R2 R4", ATTESTED + "InvalidVerifier",
        ),
    ],
)  # fmt: skip
async def test_the_word_of_another_enclave(scene: Scene, refused: Refused, boot: Enclave, change: Any) -> None:
    head = await scene.head()
    honest = await word(scene, boot, head)
    before = await scene.rpc.call("evm_snapshot")
    await scene.send_registration(await vouched(scene, boot, honest, head))
    await scene.rpc.call("evm_revert", before)
    through = registered_under(
        honest.statement.root, Voucher(anchor=scene.anchor, measurement=honest.identity.measurement)
    )
    refused.watch(kit.identity(scene, boot.signer.address, through))
    changed = await vouched(scene, boot, change(honest), head)
    async with refused():
        await scene.send_registration(changed)


@lie("evidence", "the word of a verifier enclave that was retired", "R2 R4", "AttestedVerifier_InvalidVerifier")
async def test_the_word_of_a_retired_verifier(scene: Scene, refused: Refused, boot: Enclave) -> None:
    signer = scene.world.enclave.signer
    await kit.retire(scene, signer.address, signer)
    head = await scene.head()
    registration = await vouched(scene, boot, await word(scene, boot, head), head)
    refused.watch(scene.head)
    async with refused():
        await scene.send_registration(registration)
