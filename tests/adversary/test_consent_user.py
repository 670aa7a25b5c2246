"""Consent where a party reads, signs, merges or sends an agreement: files come from others, and are checked each time (R7)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import yaml

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.signing import SigningKey
from oracle.agreement.document import AgreementDocument, parse_document, write_document
from oracle.agreement.requesters import requester_proof
from oracle.agreement.sign import sign
from tests.adversary import desk_kit as kit
from tests.adversary.chain_kit import case as any_case
from tests.adversary.chain_kit import tee
from tests.adversary.desk_kit import Desk
from tests.adversary.forgeries import HOLLOW_TERMS, Edit, Forgery, after_signing, for_a_party, hollow
from tests.adversary.lies import Refused, lie
from tests.cli_kit import answer

desk, made = kit.desk, kit.made
case = partial(any_case, "consent")

SIGNER = "signature.signer"
ELSEWHERE = "agreement.chain"
OTHER = "0x" + "a9" * 20
STRANGER = SigningKey.generate()


@pytest.fixture
def signed(desk: Desk) -> AgreementDocument:
    """An agreement that both hospitals have signed, and the lab has not."""
    document = desk.case.draft().document
    for key in desk.case.keys[1:]:
        document = sign(document, key)
    assert sign(parse_document(document.canonical()), desk.case.keys[0]).missing() == ()
    return document


@pytest.mark.parametrize("edit", after_signing("to the next who signs", SIGNER))
async def test_a_draft_changed_after_signing(
    desk: Desk, refused: Refused, signed: AgreementDocument, edit: Edit
) -> None:
    changed = signed.model_copy(update={"agreement": edit(signed.agreement)})
    path = desk.received(changed)
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "sign", path, "--yes", *desk.as_lab)


@pytest.mark.parametrize(
    "forge", for_a_party("to the next who signs", SIGNER, malleated="signature.high_s", junk="signature.length")
)
async def test_a_forged_signature(desk: Desk, refused: Refused, signed: AgreementDocument, forge: Forgery) -> None:
    hospital = desk.case.keys[2]
    forged = forge(signed.chain, signed.agreement, hospital)
    signatures = {**signed.signatures, hospital.address: forged}
    path = desk.received(signed.model_copy(update={"signatures": signatures}))
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "sign", path, "--yes", *desk.as_lab)


def first_hospital_for_both(value: Any) -> None:
    first, second = value["signatures"]
    value["signatures"][second] = value["signatures"][first]


def stranger_signs(value: Any) -> None:
    value["signatures"][STRANGER.address] = "0x" + "11" * 65


def one_more_requester(value: Any) -> None:
    value["requesters"][STRANGER.address.lower()] = "1"


def one_requester_less(value: Any) -> None:
    value["requesters"].popitem()


def signed_both_ways(value: Any) -> None:
    first, _ = value["signatures"]
    value["contractSignatures"] = {first: "0x00"}


def endpoint_of_its_own(value: Any) -> None:
    value["endpoints"]["0x" + "55" * 32] = "https://broker.example"


@pytest.mark.parametrize(
    "change",
    [
        case("twice", first_hospital_for_both, "one party's signature for two parties", "R7", SIGNER),
        case("stranger", stranger_signs, "a signature by somebody who is no party", "R7", "document.invalid"),
        case("both", signed_both_ways, "an account's signature and a wallet's for one party", "R7", "document.invalid"),
        case("broker", endpoint_of_its_own, "the address of a broker that is not agreed", "R15", "document.invalid"),
        case("more", one_more_requester, "a requester who is not agreed, in the file", "R7", "access.requesters"),
        case("fewer", one_requester_less, "a file without an agreed requester", "R7", "access.requesters"),
    ],
)
async def test_a_forged_file(desk: Desk, refused: Refused, signed: AgreementDocument, change: Any) -> None:
    path = desk.forged(signed, change)
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "sign", path, "--yes", *desk.as_lab)


@lie("consent", "the signatures of another agreement, to merge", "R7", "document.other")
async def test_signatures_of_another_agreement(desk: Desk, refused: Refused, signed: AgreementDocument) -> None:
    mine, theirs = desk.base / "mine.json", desk.received(signed)
    write_document(mine, desk.case.draft().document)  # the same draft with another salt
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "merge", mine, theirs, "--out", desk.base / "merged.json")


@lie("consent", "an agreement to sign that names somebody else", "R7", "sign.party")
async def test_a_stranger_signs(desk: Desk, refused: Refused, signed: AgreementDocument) -> None:
    fn = signed.agreement.fn.model_copy(update={"owner": STRANGER.address})
    terms = signed.agreement.model_copy(update={"fn": fn})
    path = desk.received(signed.model_copy(update={"agreement": terms, "signatures": {}}))
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "sign", path, "--yes", *desk.as_lab)


@pytest.mark.parametrize(
    "elsewhere",
    [
        case("chain", {"chain_id": 1}, "an agreement of another chain, to send", "R7", ELSEWHERE),
        case("registry", {"agreement_registry": OTHER}, "an agreement of another registry, to send", "R7", ELSEWHERE),
    ],
)
async def test_an_agreement_of_elsewhere(
    desk: Desk, refused: Refused, signed: AgreementDocument, elsewhere: dict[str, Any]
) -> None:
    path = desk.received(sign(signed, desk.case.keys[0]))
    kit.configure(desk.base, desk.case, **elsewhere)
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "activate", path, *desk.as_lab)


@pytest.mark.parametrize(
    "words",
    [
        case("revoke", ("revoke", "--yes"), "another registry, to revoke an agreement in", "R7 R8", ELSEWHERE),
        case("approve", ("approve", "--yes"), "another registry, to approve an agreement in", "R7", ELSEWHERE),
        case("suspend", ("suspend",), "another registry, to suspend an agreement in", "R8", ELSEWHERE),
    ],
)
async def test_consent_taken_back_in_another_registry(
    desk: Desk, refused: Refused, signed: AgreementDocument, words: tuple[str, ...]
) -> None:
    """Any registry takes the revocation of a draft: its party would think that it had ended what goes on elsewhere."""
    path = desk.received(signed)
    kit.configure(desk.base, desk.case, agreement_registry=OTHER)
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", words[0], path, *words[1:], *desk.as_lab)


@pytest.mark.parametrize(
    "change",
    [
        case("no status", {"status_mask": 0}, "an agreement with no TCB status to sign", "R21", "agreement.statuses"),
        case("revoked", {"status_mask": 1 << 7}, "one that takes Revoked, to sign", "R21", "agreement.statuses"),
        case("no host", {"operators": ()}, "an agreement without hosts to sign", "R5 R21", "agreement.hosts"),
        case("nobody", {"operators": (ZERO_ADDRESS,)}, "nobody as a host, to sign", "R5 R21", "agreement.hosts"),
        case("no anchor", {"anchors": ()}, "an agreement without trust anchors to sign", "R4 R21", "agreement.count"),
        case("no program", {"measurements": ()}, "an agreement without programs to sign", "R3 R21", "agreement.count"),
        case("no age", {"max_evidence_age": 0}, "evidence of any age, to sign", "R2 R21", "agreement.evidence"),
    ],
)
async def test_an_empty_policy(desk: Desk, refused: Refused, change: dict[str, Any]) -> None:
    document = desk.case.draft().document
    path = desk.received(document.model_copy(update={"agreement": tee(document.agreement, **change)}))
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "sign", path, "--yes", *desk.as_lab)


@pytest.mark.parametrize("edit", hollow("to sign", HOLLOW_TERMS))
async def test_terms_that_do_not_stand(desk: Desk, refused: Refused, edit: Edit) -> None:
    document = desk.case.draft().document
    path = desk.received(document.model_copy(update={"agreement": edit(document.agreement), "endpoints": {}}))
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "sign", path, "--yes", *desk.as_lab)


@pytest.mark.parametrize(
    "command",
    [
        case("show", "show", "junk as a wallet's signature of a party", "R7", "unchecked"),
        case("merge", "merge", "junk as a wallet's signature of a party, to merge", "R7", "unchecked"),
    ],
)
async def test_a_signature_that_no_chain_has_seen(
    desk: Desk, refused: Refused, signed: AgreementDocument, command: str
) -> None:
    """A contract wallet's signature cannot be checked on paper; it is never counted among those that were."""
    lab = desk.case.keys[0]
    path = desk.received(signed.with_contract_signature(lab.address, b"as the wallet says"))
    words = {"show": ("show", path, *desk.as_lab), "merge": ("merge", path, "--out", desk.base / "merged.json")}
    shown = await asyncio.to_thread(answer, "agreement", *words[command])
    (where,) = [name for name in ("signed", "unchecked", "missing") if lab.address in shown[name]]
    refused.as_reason(where)


@lie("consent", "junk in a party's name, to keep it from signing", "R7", "signed")
async def test_a_party_signs_over_junk(desk: Desk, refused: Refused, signed: AgreementDocument) -> None:
    lab = desk.case.keys[0]
    path = desk.received(signed.with_contract_signature(lab.address, b"as the wallet says"))
    shown = await asyncio.to_thread(answer, "agreement", "sign", path, "--yes", *desk.as_lab)
    (where,) = [name for name in ("signed", "unchecked", "missing") if lab.address in shown[name]]
    refused.as_reason(where)


@lie("consent", "a requester who is not on the list, with the list", "R7", "access.requester")
async def test_a_requester_who_is_not_listed(desk: Desk, refused: Refused, signed: AgreementDocument) -> None:
    requester_proof(signed.requesters, next(iter(signed.requesters)))
    refused.watch(desk.files)
    async with refused():
        requester_proof(signed.requesters, STRANGER.address)


@lie("consent", "a draft that can no longer be activated", "R7", "draft.validity")
async def test_a_draft_whose_time_is_over(desk: Desk, refused: Refused) -> None:
    draft = {**desk.case.value, "validity": {"until": "90 days", "activateBefore": "2020-01-01"}}
    path = desk.case.base / "late.yaml"  # beside the files that it names
    path.write_text(yaml.safe_dump(draft))
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "draft", path, "--out", desk.base / "agreement.json")
