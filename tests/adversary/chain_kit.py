"""What the cases at a broker and at the contracts share: one small world a file, footprints, and the lies' carriers.

A test file takes the fixtures by name: `broker, scene, world = kit.broker, kit.scene, kit.world`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    Agreement,
    Enclaves,
    Enrolment,
    Outcome,
    RegisteredIdentity,
    Result,
    Retire,
    TaskRequest,
)
from oracle.attestation import Collateral
from oracle.chain.abi import load
from oracle.chain.reader import AgreementReader, EnclaveReader, OracleReader
from oracle.chain.sender import Sender
from oracle.chain.source import Block
from oracle.errors import Retryable
from oracle.keybroker import KeyBroker, read_log
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.log import Released
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Footprint, Refused, lie
from tests.broker_kit import Enclave, Registration, Scene, fulfil_call

QUOTE_SIGNATURE = 436
"""Where a version 3 quote has its ECDSA signature, r ‖ s."""
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SAYS_YES = "0x631626ba7e60e01b60005260206000f3"
"""The code of a wallet that answers every question with ERC-1271's yes."""
MAY_PASS_LATER = frozenset(
    {
        "agreement.inactive",
        "agreement.suspended",
        "enclave.evidence_age",
        "enclave.expired",
        "enclave.unknown",
        "evidence.age",
        "evidence.block_unknown",
        "evidence.collateral_expired",
        "task.delay",
        "task.unknown",
    }
)
"""Refusals of a broker that the chain's next blocks, or newer collateral, may lift: a worker asks again."""


broker, scene, world = fixtures.broker, fixtures.scene, fixtures.world


@pytest.fixture
async def on_chain(scene: Scene) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Makes the chain say another id; afterwards it has its own again."""

    async def become(chain_id: int) -> None:
        await scene.rpc.call("anvil_setChainId", chain_id)

    yield become
    await become(scene.world.deployment.chain_id)


@pytest.fixture
def boot(scene: Scene) -> Enclave:
    """A genuine enclave that is not registered yet."""
    return Enclave(scene.world.enclave.attester)


@pytest.fixture
async def honest(scene: Scene, boot: Enclave) -> Registration:
    """Its registration, which the registry takes."""
    registration = await scene.registration(await scene.evidence(boot), boot)
    before = await scene.rpc.call("evm_snapshot")
    await scene.send_registration(registration)
    # anvil may tell of a transaction before it is done with its block: once a registration outlived its undoing.
    await scene.mine()
    assert await scene.rpc.call("evm_revert", before)
    return registration


def case(seam: str, name: str, value: object, what: str, rules: str, reason: str) -> Any:
    """One lie among the parameters of a test: `value` is what it changes, `name` what it is called there."""
    return pytest.param(value, id=name, marks=lie(seam, what, rules, reason))


def tee(agreement: Agreement, **changes: Any) -> Agreement:
    """The agreement with other terms about enclaves."""
    return agreement.model_copy(update={"tee": agreement.tee.model_copy(update=changes)})


# Footprints: what a refused lie leaves as it was


def releases(directory: Path) -> Footprint:
    """What broker 0 logged before it answered: nothing leaves it without an entry (R13)."""

    async def look() -> object:
        return [e.event for e in read_log(directory / "broker0" / LOG_FILE) if isinstance(e.event, Released)]

    return look


def standing(scene: Scene, agreement_id: bytes) -> Footprint:
    """An agreement's record: its status, its quota and what was spent of it."""

    async def look() -> object:
        reader = AgreementReader(scene.source, scene.world.deployment.agreement_registry)
        return await reader.record(agreement_id, await scene.head())

    return look


def consents(scene: Scene, agreement: Agreement) -> Footprint:
    """How each party consented, as the registry recorded it."""

    async def look() -> object:
        reader = AgreementReader(scene.source, scene.world.deployment.agreement_registry)
        return await reader.consents(scene.world.chain.agreement_id(agreement), agreement.parties(), await scene.head())

    return look


def task(scene: Scene, agreement: Agreement, request: TaskRequest) -> Footprint:
    """A task's state on chain, its escrow and result among it."""

    async def look() -> object:
        task_id = request.typed_digest(scene.world.chain.oracle_domain(agreement))
        return await OracleReader(scene.source, agreement.oracle).task(
            request.agreement_id, task_id, await scene.head()
        )

    return look


def identity(scene: Scene, signer: str, anchor: bytes | None = None, registry: str | None = None) -> Footprint:
    """The registry's record of (anchor, signer)."""

    async def look() -> object:
        reader = EnclaveReader(scene.source, registry or scene.world.deployment.enclave_registry)
        return await reader.record(anchor or scene.anchor, signer, await scene.head())

    return look


def padded(quote: bytes) -> bytes:
    return quote + bytes(64)


def malleated(quote: bytes) -> bytes:
    """The same quote with its signature's other form, (r, n − s), which verifies as well."""
    s = int.from_bytes(quote[QUOTE_SIGNATURE + 32 : QUOTE_SIGNATURE + 64], "big")
    return quote[: QUOTE_SIGNATURE + 32] + (P256_ORDER - s).to_bytes(32, "big") + quote[QUOTE_SIGNATURE + 64 :]


def junk_of(wallet: str) -> bytes:
    """A signature that only `wallet` could make sense of."""
    return bytes.fromhex(wallet[2:]) + b" says so"


# Lies at a broker


async def ask(broker: KeyBroker, refused: Refused, directory: Path, body: ReleaseBody) -> None:
    """The broker refuses `body` with the case's reason, says rightly whether to ask again, and logs no release."""
    refused.watch(releases(directory))
    async with refused():
        (answer,) = await asyncio.gather(broker.releases.release(body), return_exceptions=True)
        if isinstance(answer, BaseException):
            assert isinstance(answer, Retryable) == (refused.told.reason in MAY_PASS_LATER), type(answer)
            raise answer


# Lies at the contracts


def failure(scene: Scene, agreement: Agreement, request: TaskRequest, **changes: Any) -> Result:
    """The smallest result that settles a task: a signed failure, under the development root's anchor."""
    base = {
        "agreement_id": request.agreement_id,
        "task_id": request.typed_digest(scene.world.chain.oracle_domain(agreement)),
        "outcome": Outcome.FAILED,
        "outputs": (),
        "payee": scene.world.operator.address,
        "anchor": scene.anchor,
    }
    return Result(**{**base, **changes})


async def fulfil(
    scene: Scene,
    agreement: Agreement,
    request: TaskRequest,
    signer: SigningKey | None = None,
    given: Enclaves | None = None,
    enclave: RegisteredIdentity | None = None,
    **changes: Any,
) -> None:
    """Settle a task with a result by `signer`, who is registered as `enclave`; `given` are the enclave terms that the relayer
    claims were agreed."""
    result = failure(scene, agreement, request, **changes)
    signature = (signer or scene.world.enclave.signer).sign(
        result.typed_digest(scene.world.chain.oracle_domain(agreement))
    )
    shown = agreement if given is None else agreement.model_copy(update={"tee": given})
    call = fulfil_call(shown, request, result, enclave or scene.world.identity, signature)
    await scene.transact(scene.world.requester, agreement.oracle, call)


def possession(scene: Scene, key: SigningKey, said: Registration) -> bytes:
    """`key`'s proof of possession for what a registration says, in the scene's registry."""
    enrolment = Enrolment(
        signer=said.signer, sealing_key=said.sealing_key, block_hash=said.block_hash, operator=said.operator
    )
    return key.sign(enrolment.typed_digest(registry_domain(scene)))


async def retire(scene: Scene, signer: str, key: SigningKey) -> None:
    """`key`'s word that `signer` is no longer used."""
    signature = key.sign(Retire(signer=signer).typed_digest(registry_domain(scene)))
    call = load("EnclaveRegistry").call("retire", scene.anchor, signer, signature)
    await scene.transact(scene.world.requester, scene.world.deployment.enclave_registry, call)


def registry_domain(scene: Scene) -> Domain:
    deployment = scene.world.deployment
    return Domain(chain_id=deployment.chain_id, verifying_contract=deployment.enclave_registry)


async def deploy(scene: Scene, name: str, *args: object) -> str:
    """A contract of the liar's own."""
    sender = Sender(scene.rpc, scene.world.requester, poll=0.005)
    receipt = await sender.transact(None, load(name).deployment(*args))
    assert receipt.ok
    assert receipt.contract_address is not None
    return str(to_checksum_address(receipt.contract_address))


def at_registry(scene: Scene, registry: str) -> Scene:
    """The same world with another enclave registry: evidence, registrations and agreements are for that one."""
    deployment = scene.world.deployment.model_copy(update={"enclave_registry": registry})
    return Scene(scene.world.changed(deployment=deployment), scene.rpc)


def under(scene: Scene, authority: DevelopmentAuthority) -> Scene:
    """The same world where the host's own root vouches for the registered enclave's keys, and for any program."""
    platform = authority.issue_platform()
    enclave = replace(scene.world.enclave, attester=SoftwareAttester(platform, scene.world.program))
    return Scene(scene.world.changed(authority=authority, platform=platform, enclave=enclave), scene.rpc)


async def with_second_verifier(scene: Scene) -> tuple[Scene, Scene]:
    """A registry that takes a verifier under the host's own root beside the agreed one: as the agreed root sees the world, and
    as the host's does."""
    own = DevelopmentAuthority(int(time.time()))
    store = await deploy(scene, "DcapCollateral", own.root_der)
    verifier = await deploy(scene, "DcapVerifier", store)
    registry = await deploy(scene, "EnclaveRegistry", [scene.world.deployment.verifiers["dcap"], verifier])
    agreed = at_registry(scene, registry)
    theirs = under(agreed, own)
    deployment = agreed.world.deployment.model_copy(update={"verifiers": {"dcap": verifier}, "collateral": store})
    return agreed, Scene(theirs.world.changed(deployment=deployment), scene.rpc)


async def for_a_minute(scene: Scene) -> Collateral:
    """Collateral that ends in a minute of the chain's time, under an evaluation number of its own."""
    return scene.collateral(now=(await scene.head()).timestamp + 60, days=0, evaluation=18)


async def forked(scene: Scene) -> Block:
    """A block that was mined and then replaced by another one of the same number."""
    before = await scene.rpc.call("evm_snapshot")
    await scene.mine()
    lost = await scene.head()
    await scene.rpc.call("evm_revert", before)
    await scene.rpc.call("evm_setNextBlockTimestamp", lost.timestamp + 1)
    await scene.mine()
    assert (await scene.head()).number == lost.number
    return lost
