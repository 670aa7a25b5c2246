"""Consent that is given on chain step by step: posted signatures, auditors, an agreement in the place of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from oracle.agreement.document import read_document, write_document
from tests import town_kit
from tests.cli_kit import answer, refusal
from tests.town_kit import Town

town = town_kit.town


def drafted(town: Town, name: str, **changes: Any) -> Path:
    draft, document = town.base / f"{name}.draft", town.base / f"{name}.json"
    draft.write_text(yaml.safe_dump({**town.draft(), **changes}))
    answer("agreement", "draft", draft, "--out", document, *town.as_("lab"))
    return document


def test_signatures_are_posted_one_by_one_and_an_activation_brings_them_all(town: Town) -> None:
    document = drafted(town, "posted")
    bare = read_document(document)
    for who in ("lab", "hospital"):
        write_document(document, bare)
        answer("agreement", "sign", document, "--yes", *town.as_(who))
        # Anyone may bring it.
        assert answer("agreement", "post", document, *town.as_("stranger"))["posted"] == [town.addresses[who]]
    write_document(document, bare)
    made = answer("agreement", "activate", document, *town.as_("stranger"))
    assert made["status"] == "active"
    # So brokers and receipts find each signature in the activation's event (R13).
    shown = answer("agreement", "show", made["agreement_id"], *town.as_("stranger"))
    assert shown["signed"] == list(bare.agreement.parties())


def test_there_is_nothing_to_post_without_a_signature(town: Town) -> None:
    document = drafted(town, "unposted")
    assert refusal("agreement", "post", document, *town.as_("lab"))["code"] == "agreement.unsigned"


def test_an_agreement_waits_for_its_auditors(town: Town) -> None:
    auditor = town.addresses["stranger"]
    document = town.signed("audited", auditors={"accounts": [auditor], "threshold": 1})
    function, report = town.base / "f.eofb", town.base / "report.txt"
    report.write_text("It groups, and counts.")
    refused = refusal("agreement", "activate", document, *town.as_("lab"))
    assert refused["code"] == "contract.AgreementRegistry_NotAudited"
    assert "oracle function approve" in refused["message"]
    made = answer("function", "approve", function, "--report", report, "--yes", *town.as_("stranger"))
    said = answer("function", "audits", function, "--auditor", auditor, *town.as_("lab"))
    assert said["approved"] == {auditor: made["report"]}
    assert answer("agreement", "activate", document, *town.as_("lab"))["status"] == "active"
    answer("function", "withdraw-approval", function, *town.as_("stranger"))
    after = answer("function", "audits", made["function_id"], "--auditor", auditor, *town.as_("lab"))
    assert after["not_approved"] == [auditor]
    assert answer("agreement", "status", document, *town.as_("lab"))["status"] == "active"


def test_a_file_without_the_agreed_auditors_is_not_activated(town: Town) -> None:
    auditors = {"accounts": [town.addresses["stranger"]], "threshold": 1}
    document = town.signed("no-auditors", auditors=auditors)
    write_document(document, read_document(document).model_copy(update={"auditors": None}))
    refused = refusal("agreement", "activate", document, *town.as_("lab"))
    assert refused["code"] == "contract.AgreementRegistry_WrongAuditors"


def test_a_new_agreement_takes_the_place_of_a_former_one(town: Town) -> None:
    former, former_id = town.active("former")
    _, new_id = town.active("later", supersedes=former.name)
    status = answer("agreement", "status", former_id, *town.as_("lab"))
    assert status["status"] == "superseded"
    assert status["narrowed"] == [{"how": "superseded by", "what": new_id, "party": ""}]
    refused = refusal("task", "request", former, "--param", "smallest_group=2", *town.as_("lab"))
    assert refused["code"] == "contract.AgreementRegistry_NotActive"


def test_a_requesters_own_quota_is_in_the_file(town: Town) -> None:
    access = {"requesters": {"lab": 1, town.addresses["stranger"]: 5}, "quota": 10}
    document, _ = town.active("quotas", access=access)
    words = ("task", "request", document, "--param", "smallest_group=2")
    first = answer(*words, *town.as_("lab"))
    assert refusal(*words, *town.as_("lab"))["code"] == "contract.AgreementRegistry_RequesterQuotaSpent"
    answer(*words, *town.as_("stranger"))
    # A cancellation gives it back, and needs no list: what was shown is in the request's transaction.
    answer("task", "cancel", first["task_id"], *town.as_("lab"))
    answer(*words, *town.as_("lab"))
