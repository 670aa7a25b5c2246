"""Consent at a broker: each case asks for a release that one party did not allow, and that is right but for this (R7 to R9).

A broker recomputes what it can and reads the rest at a confirmed block: that the contract would refuse is not enough (R13).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from enclave_app.protocol.digests import keccak
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement
from oracle.chain.reader import host_id
from oracle.errors import Reverted
from oracle.keybroker import KeyBroker
from tests.adversary import chain_kit as kit
from tests.adversary.forgeries import Edit, Forgery, after_signing, for_a_party
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Scene

broker, scene, world = kit.broker, kit.scene, kit.world
case = partial(kit.case, "consent")

MISSING = "consent.missing"
NOT_SERVED = "chain.not_served"
OWN = "0x00000000000000000000000000000000000000AA"
RECORDS = 2
"""The storage slot of AgreementRegistry's records, behind EIP712's two; a record begins with its oracle."""


def about(scene: Scene, body: ReleaseBody, agreement: Agreement, **changes: Any) -> ReleaseBody:
    """The same call about another agreement, request and release request included."""
    request = body.request.model_copy(update={"agreement_id": scene.world.chain.agreement_id(agreement)})
    said = {"agreement": agreement, "request": request, "release": scene.ask(agreement, request), **changes}
    return body.model_copy(update=said)


# Signatures


@pytest.mark.parametrize(
    "party",
    [
        case("function", 0, "a broker an agreement that the function's owner did not sign", "R7 R13", MISSING),
        case("first", 1, "a broker an agreement that the first data owner did not sign", "R7 R13", MISSING),
        case("last", 2, "a broker an agreement that the last data owner did not sign", "R7 R13", MISSING),
    ],
)
async def test_one_signature_missing(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, party: int
) -> None:
    body = await scene.body()
    signatures = [b"" if i == party else each for i, each in enumerate(body.signatures)]
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"signatures": tuple(signatures)}))
    await broker.releases.release(body)


@pytest.mark.parametrize("forge", for_a_party("to a broker", MISSING))
async def test_a_forged_signature(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, forge: Forgery
) -> None:
    body = await scene.body()
    owner = SigningKey(bytes(scene.world.owners[1].key))
    forged = (*body.signatures[:-1], forge(body.chain, body.agreement, owner))
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"signatures": forged}))
    await broker.releases.release(body)


@pytest.mark.parametrize(
    "elsewhere",
    [
        case("chain", {"chain_id": 1}, "an agreement of a chain that the broker does not serve", "R7 R21", NOT_SERVED),
        case("registry", {"agreement_registry": OWN}, "an agreement in a registry of its own", "R7 R21", NOT_SERVED),
    ],
)
async def test_an_agreement_of_elsewhere(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, elsewhere: dict[str, Any]
) -> None:
    """Whoever wrote a registry says in it what is active: a broker knows those that it goes by."""
    body = await scene.body()
    changed = body.model_copy(update={"chain": body.chain.model_copy(update=elsewhere)})
    await kit.ask(broker, refused, tmp_path, changed)
    await broker.releases.release(body)


@lie("consent", "fewer signatures than parties, to a broker", "R7", "consent.count")
async def test_too_few_signatures(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"signatures": body.signatures[:-1]}))


@pytest.mark.parametrize("edit", after_signing("to a broker", MISSING))
async def test_a_draft_changed_after_signing(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, edit: Edit
) -> None:
    body = await scene.body()
    await kit.ask(broker, refused, tmp_path, about(scene, body, edit(body.agreement)))


@pytest.mark.parametrize(
    "change",
    [
        case("no status", {"status_mask": 0}, "an agreement that takes no TCB status", "R21", "agreement.statuses"),
        case(
            "revoked", {"status_mask": 1 << 1 | 1 << 7}, "an agreement that takes Revoked", "R21", "agreement.statuses"
        ),
        case("no host", {"operators": ()}, "an agreement without hosts", "R5 R21", "agreement.hosts"),
        case("nobody", {"operators": (ZERO_ADDRESS,)}, "an agreement that nobody hosts", "R5 R21", "agreement.hosts"),
        case("no anchor", {"anchors": ()}, "an agreement without trust anchors", "R4 R21", "agreement.count"),
        case("no program", {"measurements": ()}, "an agreement without programs", "R3 R21", "agreement.count"),
        case("no age", {"max_evidence_age": 0}, "an agreement with no age of evidence", "R2 R21", "agreement.evidence"),
    ],
)
async def test_an_empty_policy(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, change: dict[str, Any]
) -> None:
    """All parties signed it, too: an unset policy refuses, whoever left it unset."""
    body = await scene.body()
    empty = kit.tee(body.agreement, **change)
    changed = about(scene, body, empty, signatures=scene.signatures(empty))
    await kit.ask(broker, refused, tmp_path, changed)


# Activation, and contracts that consent


@lie("consent", "an agreement that all signed and nobody activated", "R7 R13", "agreement.inactive")
async def test_a_draft_that_was_never_activated(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    body, draft = await scene.body(), scene.agreement()
    await kit.ask(broker, refused, tmp_path, about(scene, body, draft, signatures=scene.signatures(draft)))


@lie("consent", "a draft that a party revoked, with its old signature", "R7 R13", "agreement.inactive")
async def test_a_revoked_draft(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body, draft = await scene.body(), scene.agreement()
    signatures = scene.signatures(draft)
    await scene.party(scene.world.owners[1], "revoke", scene.world.chain.agreement_id(draft))
    with pytest.raises(Reverted):
        await scene.activate(draft, signatures)
    await kit.ask(broker, refused, tmp_path, about(scene, body, draft, signatures=signatures))


@lie("consent", "empty signatures for an agreement that the chain never activated", "R7 R13", MISSING)
async def test_empty_signatures(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body, draft = await scene.body(), scene.agreement()
    await kit.ask(broker, refused, tmp_path, about(scene, body, draft, signatures=(b"", b"", b"")))


@lie("consent", "a wallet that says yes to everything, for an agreement that it never activated", "R7 R13", MISSING)
async def test_a_wallet_that_says_yes_now(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    """The wallet is the party, and would say yes if it were asked; what counts is what was recorded at activation."""
    wallet = Account.create().address
    await scene.rpc.call("anvil_setCode", wallet, kit.SAYS_YES)
    agreement = owned_by(scene.agreement(), wallet)
    signatures = (kit.junk_of(wallet), *scene.signatures(agreement)[1:])
    body = await scene.body(agreement, signatures=signatures)
    await broker.releases.release(body)
    await kit.ask(broker, refused, tmp_path, about(scene, body, owned_by(scene.agreement(), wallet)))


@lie("consent", "a party's account that it gave code which says yes, after the activation", "R7 R13", MISSING)
async def test_an_account_that_became_a_wallet(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    """EIP-7702, or a wallet deployed later: the chain recorded a signature, and a signature is what the broker wants."""
    body = await scene.body()
    await scene.rpc.call("anvil_setCode", scene.world.owners[1].address, kit.SAYS_YES)
    junk = (*body.signatures[:-1], kit.junk_of(scene.world.owners[1].address))
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"signatures": junk}))
    await broker.releases.release(body)


@lie("consent", "a wallet of its own as the owner of somebody's dataset", "R7 R10", "hpke.open")
async def test_a_wallet_that_says_yes_but_is_not_the_owner(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    """It consents to everything, on chain as well; the shares open for the true owner's agreements only."""
    wallet = Account.create().address
    await scene.rpc.call("anvil_setCode", wallet, kit.SAYS_YES)
    agreement = scene.agreement()
    stolen = (agreement.data[0].model_copy(update={"owner": wallet}), agreement.data[1])
    agreement = agreement.model_copy(update={"data": stolen})
    author, _, other = scene.signatures(agreement)
    body = await scene.body(agreement, signatures=(author, kit.junk_of(wallet), other))
    await kit.ask(broker, refused, tmp_path, body)


def owned_by(agreement: Agreement, owner: str) -> Agreement:
    return agreement.model_copy(update={"fn": agreement.fn.model_copy(update={"owner": owner})})


@lie("consent", "a registry that keeps the agreement on another oracle", "R7 R13", "agreement.contracts")
async def test_a_record_on_another_oracle(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    """No honest registry can: the id covers the oracle. A broker compares, for it reads the task from that contract."""
    body = await scene.body()
    await broker.releases.release(body)
    registry = scene.world.deployment.agreement_registry
    slot = keccak(body.chain.agreement_id(body.agreement) + RECORDS.to_bytes(32, "big"))
    word = bytes.fromhex((await scene.rpc.call("eth_getStorageAt", registry, "0x" + slot.hex(), "latest"))[2:])
    assert word[12:] == bytes.fromhex(scene.world.deployment.oracle[2:])
    await scene.rpc.call("anvil_setStorageAt", registry, "0x" + slot.hex(), "0x" + (word[:12] + b"\x0a" * 20).hex())
    await scene.mine()
    await kit.ask(broker, refused, tmp_path, body)


# Narrowing (R8)


@lie("consent", "an agreement that a party has suspended", "R8", "agreement.suspended")
async def test_a_suspended_agreement(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    agreement_id = body.chain.agreement_id(body.agreement)
    await scene.party(scene.world.owners[1], "suspend", agreement_id)
    await kit.ask(broker, refused, tmp_path, body)
    await scene.party(scene.world.owners[1], "resume", agreement_id)
    await broker.releases.release(body)


@lie("consent", "an agreement that a party has revoked", "R8", "agreement.revoked")
async def test_a_revoked_agreement(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    await scene.party(scene.world.owners[0], "revoke", body.chain.agreement_id(body.agreement))
    await kit.ask(broker, refused, tmp_path, body)


@pytest.mark.parametrize(
    "what",
    [
        case("measurement", "measurement", "a program that a party has dropped", "R8", "agreement.dropped"),
        case("platform", "platform", "a machine that a party has dropped", "R8", "agreement.dropped"),
        case("operator", "operator", "an operator that a party has dropped", "R8", "agreement.dropped"),
    ],
)
async def test_what_a_party_dropped(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, what: str
) -> None:
    body = await scene.body()
    verified = scene.verified(body.evidence)
    function, thing = {
        "measurement": ("dropMeasurement", verified.measurement),
        "platform": ("dropHost", verified.platform),
        "operator": ("dropHost", host_id(scene.world.operator.address)),
    }[what]
    await scene.party(scene.world.author, function, body.chain.agreement_id(body.agreement), thing)
    await kit.ask(broker, refused, tmp_path, body)
