"""Consent at AgreementRegistry: each case activates, narrows or widens without the right to, and is right but for this.

Anyone may send an activation, so the host does; the signatures alone decide (R7, R8).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement
from tests.adversary import chain_kit as kit
from tests.adversary.forgeries import Edit, Forgery, after_signing, for_a_party, hollow
from tests.adversary.lies import Refused, lie
from tests.broker_kit import OPEN, Scene, World

scene, world = kit.scene, kit.world
case = partial(kit.case, "consent")

SAYS_NO = "0x63ffffffff60e01b60005260206000f3"
"""A contract that answers every question with what ERC-1271 calls a no."""
REVERTS = "0x60006000fd"
BAD = "AgreementRegistry_BadSignature"
NONE = "AgreementRegistry_NoConsent"
NOT_ACTIVE = "AgreementRegistry_NotActive"


@pytest.fixture
async def draft(scene: Scene, refused: Refused) -> Agreement:
    """An agreement that all have signed, and that nobody has activated; it could be."""
    draft = scene.agreement()
    before = await scene.rpc.call("evm_snapshot")
    await scene.activate(draft)
    await scene.rpc.call("evm_revert", before)
    watch(scene, refused, draft)
    return draft


@pytest.fixture
async def active(scene: Scene, refused: Refused) -> Agreement:
    agreement = scene.agreement()
    await scene.activate(agreement)
    watch(scene, refused, agreement)
    return agreement


def watch(scene: Scene, refused: Refused, agreement: Agreement) -> None:
    refused.watch(kit.standing(scene, scene.world.chain.agreement_id(agreement)))
    refused.watch(kit.consents(scene, agreement))


# Activation (R7)


@pytest.mark.parametrize(
    "party",
    [
        case("function", 0, "an activation that the function's owner did not sign", "R7", NONE),
        case("first", 1, "an activation that the first data owner did not sign", "R7", NONE),
        case("last", 2, "an activation that the last data owner did not sign", "R7", NONE),
    ],
)
async def test_one_signature_missing(scene: Scene, refused: Refused, draft: Agreement, party: int) -> None:
    signatures = [b"" if i == party else each for i, each in enumerate(scene.signatures(draft))]
    async with refused():
        await scene.activate(draft, signatures)


@lie("consent", "its own approval in place of a party's", "R7", NONE)
async def test_an_approval_by_somebody_else(scene: Scene, refused: Refused, draft: Agreement) -> None:
    await scene.party(scene.world.requester, "approve", scene.world.chain.agreement_id(draft))
    async with refused():
        await scene.activate(draft, (*scene.signatures(draft)[:-1], b""))


@lie("consent", "one party's signature for two parties", "R7", BAD)
async def test_one_signature_twice(scene: Scene, refused: Refused, draft: Agreement) -> None:
    author, first, _ = scene.signatures(draft)
    async with refused():
        await scene.activate(draft, (author, first, first))


@lie("consent", "fewer signatures than parties", "R7", "AgreementRegistry_WrongSignatureCount")
async def test_too_few_signatures(scene: Scene, refused: Refused, draft: Agreement) -> None:
    async with refused():
        await scene.activate(draft, scene.signatures(draft)[:-1])


@pytest.mark.parametrize("forge", for_a_party("to the registry", BAD))
async def test_a_forged_signature(scene: Scene, refused: Refused, draft: Agreement, forge: Forgery) -> None:
    forged = forge(scene.world.chain, draft, SigningKey(bytes(scene.world.owners[1].key)))
    async with refused():
        await scene.activate(draft, (*scene.signatures(draft)[:-1], forged))


@pytest.mark.parametrize("edit", after_signing("to the registry", BAD))
async def test_a_draft_changed_after_signing(scene: Scene, refused: Refused, draft: Agreement, edit: Edit) -> None:
    changed = edit(draft)
    watch(scene, refused, changed)
    async with refused():
        await scene.activate(changed, scene.signatures(draft))


@lie("consent", "a draft that a party has revoked", "R7", "AgreementRegistry_RevokedBy")
async def test_a_revoked_draft(scene: Scene, refused: Refused, draft: Agreement) -> None:
    await scene.party(scene.world.owners[1], "revoke", scene.world.chain.agreement_id(draft))
    async with refused():
        await scene.activate(draft)


@lie("consent", "a draft that a party approved and then revoked", "R7", "AgreementRegistry_RevokedBy")
async def test_an_approval_taken_back(scene: Scene, refused: Refused, draft: Agreement) -> None:
    agreement_id = scene.world.chain.agreement_id(draft)
    await scene.party(scene.world.owners[1], "approve", agreement_id)
    await scene.party(scene.world.owners[1], "revoke", agreement_id)
    async with refused():
        await scene.activate(draft, (*scene.signatures(draft)[:-1], b""))


@pytest.mark.parametrize(
    "field",
    [
        case("late", "activate_before", "a draft after `activateBefore`", "R7", "AgreementRegistry_ActivationClosed"),
        case("over", "not_after", "a draft whose time is over", "R7", "AgreementRegistry_BadWindow"),
    ],
)
async def test_an_activation_too_late(scene: Scene, refused: Refused, field: str) -> None:
    now = (await scene.head()).timestamp
    draft = scene.agreement(**{field: now + 60})
    signatures = scene.signatures(draft)
    await scene.rpc.call("evm_setNextBlockTimestamp", now + 61)
    await scene.mine()
    watch(scene, refused, draft)
    async with refused():
        await scene.activate(draft, signatures)


@lie("consent", "a revoked agreement, activated anew", "R8", "AgreementRegistry_AlreadyActivated")
async def test_a_revoked_agreement_revived(scene: Scene, refused: Refused, active: Agreement) -> None:
    await scene.party(scene.world.owners[0], "revoke", scene.world.chain.agreement_id(active))
    async with refused():
        await scene.activate(active)


@lie("consent", "an approval of what the same party revoked", "R7", "AgreementRegistry_AlreadyRevoked")
async def test_an_approval_after_a_revocation(scene: Scene, refused: Refused, draft: Agreement) -> None:
    agreement_id = scene.world.chain.agreement_id(draft)
    await scene.party(scene.world.owners[1], "revoke", agreement_id)
    async with refused():
        await scene.party(scene.world.owners[1], "approve", agreement_id)


# Wallets that are contracts (ERC-1271, EIP-7702)


@pytest.mark.parametrize(
    "code",
    [
        case("none", "0x", "a wallet that is not deployed", "R7", BAD),
        case("no", SAYS_NO, "a signature that its wallet denies", "R7", BAD),
        case("reverts", REVERTS, "a signature that its wallet cannot read", "R7", BAD),
    ],
)
async def test_a_wallet_that_does_not_say_yes(scene: Scene, refused: Refused, code: str) -> None:
    wallet = Account.create().address
    await scene.rpc.call("anvil_setCode", wallet, code)
    draft = owned_by(scene.agreement(), wallet)
    signatures = (b"as the wallet says", *scene.signatures(draft)[1:])
    watch(scene, refused, draft)
    async with refused():
        await scene.activate(draft, signatures)
    await scene.rpc.call("anvil_setCode", wallet, kit.SAYS_YES)
    await scene.activate(draft, signatures)


@lie("consent", "a wallet that says yes to everything and is no party", "R7", BAD)
async def test_a_wallet_that_is_not_the_party(scene: Scene, refused: Refused, draft: Agreement) -> None:
    wallet = Account.create().address
    await scene.rpc.call("anvil_setCode", wallet, kit.SAYS_YES)
    async with refused():
        await scene.activate(draft, (*scene.signatures(draft)[:-1], kit.junk_of(wallet)))


@lie("consent", "junk for an account that delegates to code (EIP-7702)", "R7 R13", BAD)
async def test_a_delegated_account(scene: Scene, refused: Refused, draft: Agreement) -> None:
    """Its key signs, as before; code that answers no ERC-1271 question is no consent."""
    party = scene.world.owners[1].address
    await scene.rpc.call("anvil_setCode", party, "0xef0100" + scene.world.deployment.oracle[2:])
    async with refused():
        await scene.activate(draft, (*scene.signatures(draft)[:-1], kit.junk_of(party)))
    await scene.activate(draft)


def owned_by(agreement: Agreement, owner: str) -> Agreement:
    return agreement.model_copy(update={"fn": agreement.fn.model_copy(update={"owner": owner})})


# Policies that say nothing (R21)


@pytest.mark.parametrize(
    "change",
    [
        case("no status", {"status_mask": 0}, "no TCB status, signed by all", "R21", "AgreementRegistry_BadStatusMask"),
        case(
            "revoked", {"status_mask": 1 << 7}, "Revoked as a TCB status", "R3 R21", "AgreementRegistry_BadStatusMask"
        ),
        case("no host", {"operators": ()}, "no host, signed by all", "R5 R21", "AgreementRegistry_BadHosts"),
        case("both", {"any_host": True}, "any host beside a list of hosts", "R5", "AgreementRegistry_BadHosts"),
        case("nobody", {"operators": (ZERO_ADDRESS,)}, "nobody as a host", "R5", "AgreementRegistry_Zero"),
        case(
            "zero", {"operators": (), "platforms": (bytes(32),)}, "no machine as a host", "R5", "AgreementRegistry_Zero"
        ),
        case("no anchor", {"anchors": ()}, "no trust anchor, signed by all", "R4 R21", "AgreementRegistry_BadCount"),
        case("no program", {"measurements": ()}, "no program, signed by all", "R3 R21", "AgreementRegistry_BadCount"),
        case("no age", {"max_evidence_age": 0}, "no age of evidence", "R2 R21", "AgreementRegistry_OutOfRange"),
        case("no floor", {"eval_floor": 0}, "no evaluation floor", "R3 R21", "AgreementRegistry_OutOfRange"),
    ],
)
async def test_an_empty_policy(scene: Scene, refused: Refused, change: dict[str, Any]) -> None:
    draft = kit.tee(scene.agreement(), **change)
    watch(scene, refused, draft)
    async with refused():
        await scene.activate(draft)


@pytest.mark.parametrize(
    "edit",
    hollow(
        "to the registry",
        {
            "broker": "AgreementRegistry_Duplicate",
            "shares": "AgreementRegistry_SharesExceedFee",
            "name": "AgreementRegistry_Zero",
            "feature": "AgreementRegistry_Conflict",
            "threshold": "AgreementRegistry_OutOfRange",
            "quota": "AgreementRegistry_OutOfRange",
        },
    ),
)
async def test_terms_that_do_not_stand(scene: Scene, refused: Refused, edit: Edit) -> None:
    draft = edit(scene.agreement())
    watch(scene, refused, draft)
    async with refused():
        await scene.activate(draft)


@pytest.mark.parametrize(
    "name",
    [
        case("oracle", "oracle", "an oracle that is no contract", "R7 R21", "AgreementRegistry_NotAContract"),
        case("registry", "enclave_registry", "no enclave registry", "R7 R21", "AgreementRegistry_NotAContract"),
    ],
)
async def test_an_agreement_on_no_contract(scene: Scene, refused: Refused, name: str) -> None:
    draft = scene.agreement(**{name: Account.create().address})
    watch(scene, refused, draft)
    async with refused():
        await scene.activate(draft)


# Narrowing and widening (R8): nobody widens alone, and no stranger does either


def stranger(world: World) -> LocalAccount:
    return world.requester


def co_owner(world: World) -> LocalAccount:
    return world.owners[0]


@pytest.mark.parametrize(
    "move",
    [
        case("suspend", ("suspend",), "a stranger's suspension", "R8", "AgreementRegistry_NotAParty"),
        case("revoke", ("revoke",), "a stranger's revocation", "R8", "AgreementRegistry_NotAParty"),
        case(
            "program",
            ("dropMeasurement", bytes(32)),
            "a program that a stranger drops",
            "R8",
            "AgreementRegistry_NotAParty",
        ),
        case("host", ("dropHost", bytes(32)), "a host that a stranger drops", "R8", "AgreementRegistry_NotAParty"),
        case(
            "spend",
            ("spend", ZERO_ADDRESS, [], 0, OPEN),
            "quota spent by no oracle",
            "R9",
            "AgreementRegistry_NotOracle",
        ),
        case(
            "unspend",
            ("unspend", ZERO_ADDRESS, [], 0, OPEN),
            "quota given back by no oracle",
            "R9",
            "AgreementRegistry_NotOracle",
        ),
    ],
)
async def test_a_move_by_a_stranger(scene: Scene, refused: Refused, active: Agreement, move: tuple[Any, ...]) -> None:
    function, *rest = move
    async with refused():
        await scene.party(scene.world.requester, function, scene.world.chain.agreement_id(active), *rest)


@pytest.mark.parametrize(
    "who",
    [
        case("stranger", stranger, "a stranger's end of a suspension", "R8", "AgreementRegistry_NotAParty"),
        case("co-owner", co_owner, "a co-owner's end of another's suspension", "R8", "AgreementRegistry_NotSuspended"),
    ],
)
async def test_resuming_for_another(scene: Scene, refused: Refused, active: Agreement, who: Any) -> None:
    agreement_id = scene.world.chain.agreement_id(active)
    await scene.party(scene.world.owners[1], "suspend", agreement_id)
    async with refused():
        await scene.party(who(scene.world), "resume", agreement_id)


@lie("consent", "one party's suspension, counted twice", "R8", "AgreementRegistry_AlreadySuspended")
async def test_suspending_twice(scene: Scene, refused: Refused, active: Agreement) -> None:
    """It would outlast the party's own end of it."""
    agreement_id = scene.world.chain.agreement_id(active)
    await scene.party(scene.world.owners[0], "suspend", agreement_id)
    async with refused():
        await scene.party(scene.world.owners[0], "suspend", agreement_id)


@lie("consent", "one party's end of its suspension, twice, against another's", "R8", "AgreementRegistry_NotSuspended")
async def test_resuming_twice(scene: Scene, refused: Refused, active: Agreement) -> None:
    agreement_id = scene.world.chain.agreement_id(active)
    for owner in scene.world.owners:
        await scene.party(owner, "suspend", agreement_id)
    await scene.party(scene.world.owners[0], "resume", agreement_id)
    async with refused():
        await scene.party(scene.world.owners[0], "resume", agreement_id)


@lie("consent", "an end of a revocation", "R8", NOT_ACTIVE)
async def test_resuming_a_revoked_agreement(scene: Scene, refused: Refused, active: Agreement) -> None:
    agreement_id = scene.world.chain.agreement_id(active)
    await scene.party(scene.world.owners[0], "suspend", agreement_id)
    await scene.party(scene.world.owners[1], "revoke", agreement_id)
    async with refused():
        await scene.party(scene.world.owners[0], "resume", agreement_id)
