"""What is said before a signature: every term, and the dangerous ones loudly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enclave_app.protocol.errors import Refused
from oracle.agreement.document import AgreementDocument
from oracle.agreement.draft import Deployment
from oracle.agreement.explain import Line, Severity, explain
from oracle.agreement.sign import sign


def said(lines: tuple[Line, ...], topic: str) -> str:
    return "\n".join(line.text for line in lines if line.topic == topic)


def worst(lines: tuple[Line, ...], topic: str, word: str) -> Severity:
    return next(line.severity for line in lines if line.topic == topic and word in line.text)


def changed(document: AgreementDocument, part: str, **changes: object) -> AgreementDocument:
    terms = document.agreement
    inner = getattr(terms, part).model_copy(update=changes)
    return document.model_copy(update={"agreement": terms.model_copy(update={part: inner})})


def test_a_strict_agreement_has_no_danger_in_it(case: Any) -> None:
    draft = case.draft()
    lines = explain(draft.document, bundle=draft.bundle, manifests=draft.manifests)
    assert {line.severity for line in lines} == {Severity.INFO, Severity.NOTICE}


def test_it_says_who_may_run_what_on_which_columns(case: Any) -> None:
    draft = case.draft()
    lab, hospital_a, _ = (key.address for key in case.keys)
    names = {lab: "the lab", hospital_a: "Hospital A"}
    lines = explain(draft.document, bundle=draft.bundle, manifests=draft.manifests, names=names)
    assert "SELECT malignant, avg(radius)" in said(lines, "function")
    assert "smallest_group, integer from 5 to 100" in said(lines, "function")
    assert "512 MiB" in said(lines, "function")
    assert "“clinic” of Hospital A" in said(lines, "data")
    assert "patient, malignant" in said(lines, "data")
    assert "cannot read: age" in said(lines, "data")
    assert f"the lab ({lab})" in said(lines, "access")
    assert "10 time(s) in all, 5 by any one" in said(lines, "access")


def test_it_says_what_it_costs_and_until_when(case: Any) -> None:
    lines = explain(case.draft().document)
    assert "0.01 ether, 30% of it to" in said(lines, "price")
    assert "12.5% of it" in said(lines, "price")
    assert "0.000000001 ether" in said(lines, "price")
    assert "2026-09-21 14:08:20 UTC until 2026-12-20 14:13:20 UTC" in said(lines, "validity")


def test_it_says_that_enough_brokers_need_no_enclave(case: Any) -> None:
    lines = explain(case.draft().document)
    assert "ANY 2 OF THEM TOGETHER CAN OPEN THE DATA WITHOUT ANY ENCLAVE" in said(lines, "brokers")
    assert "1 may be down" in said(lines, "brokers")
    assert "final on the chain" in said(lines, "brokers")


def test_a_single_broker_is_a_danger(case: Any) -> None:
    document = changed(case.draft().document, "keys", threshold=1)
    assert worst(explain(document), "brokers", "WITHOUT ANY ENCLAVE") is Severity.DANGER


def test_any_host_is_loud(case: Any) -> None:
    document = changed(case.draft().document, "tee", any_host=True, operators=())
    assert worst(explain(document), "enclaves", "ANY HOST (anyHost)") is Severity.DANGER
    assert "ANY HOST" not in said(explain(case.draft().document), "enclaves")


def test_a_development_anchor_is_loud_and_says_simulated(case: Any) -> None:
    draft = case.draft().document
    document = changed(draft, "tee", anchors=(*draft.agreement.tee.anchors, b"\xde" * 32))
    assert worst(explain(document), "enclaves", "SIMULATED") is Severity.DANGER
    assert "SIMULATED" not in said(explain(draft), "enclaves")


def test_a_verifier_that_is_believed_is_named_with_its_program(case: Any) -> None:
    case.set("enclaves.anchors", ["aws via 0x" + "e5" * 32 + " under intel"])
    lines = explain(case.draft().document)
    assert "AWS (Nitro Enclaves) enclaves count as real on chain on the word of the enclave 0xe5e5" in said(
        lines, "enclaves"
    )
    assert worst(lines, "enclaves", "0xe5e5") is Severity.NOTICE
    assert "SIMULATED" not in said(lines, "enclaves")


def test_a_simulated_verifier_is_as_loud_as_any_development_anchor(case: Any) -> None:
    case.set("enclaves.anchors", ["aws via 0x" + "e5" * 32 + " under 0x" + "de" * 32])
    lines = explain(case.draft().document)
    assert worst(lines, "enclaves", "0xe5e5") is Severity.DANGER
    assert worst(lines, "enclaves", "SIMULATED") is Severity.DANGER


@pytest.mark.parametrize(("days", "severity"), [(30, Severity.NOTICE), (365, Severity.WARNING)])
def test_a_grace_is_said_and_a_long_one_loudly(case: Any, days: int, severity: Severity) -> None:
    assert "without the fix" not in said(explain(case.draft().document), "enclaves")
    case.set("enclaves.graceDays", days)
    assert worst(explain(case.draft().document), "enclaves", f"{days} day(s) without the fix") is severity


def test_a_public_output_is_loud(case: Any) -> None:
    assert "PUBLIC" not in said(explain(case.draft().document), "output")
    case.set("outputs.0", {"name": "result", "recipients": "public", "owners": ["lab"]})
    lines = explain(case.draft().document)
    assert worst(lines, "output", "FOR EVERYONE AND FOR EVER") is Severity.DANGER
    assert worst(lines, "output", "hosts the enclave knows it before") is Severity.DANGER
    assert "padded" not in said(lines, "output")


def test_anyone_as_requester_is_a_warning(case: Any) -> None:
    case.set("access.requesters", "anyone")
    assert worst(explain(case.draft().document), "access", "ANYONE") is Severity.WARNING


def test_a_list_of_requesters_that_is_not_at_hand_is_a_warning(case: Any) -> None:
    document = case.draft().document.model_copy(update={"requesters": {}})
    assert worst(explain(document), "access", "THE LIST IS NOT HERE") is Severity.WARNING


def test_lax_firmware_is_a_warning(case: Any) -> None:
    case.set("enclaves.statuses", ["UP_TO_DATE", "OUT_OF_DATE"])
    assert worst(explain(case.draft().document), "enclaves", "known weaknesses") is Severity.WARNING


def test_columns_that_nothing_reads_are_a_warning(case: Any) -> None:
    case.set("data.0.columns", "all")
    draft = case.draft()
    lines = explain(draft.document, bundle=draft.bundle)
    assert worst(lines, "data", "does not read: age") is Severity.WARNING


def test_a_function_that_was_not_read_is_a_warning(case: Any) -> None:
    assert worst(explain(case.draft().document), "function", "read it before you sign") is Severity.WARNING


def test_a_request_that_can_still_be_undone_is_named(case: Any) -> None:
    case.set("brokers.confirmation", {"latest": 2})
    assert worst(explain(case.draft().document), "brokers", "COULD STILL BE UNDONE") is Severity.NOTICE


def test_another_function_or_manifest_is_refused(case: Any) -> None:
    draft, other = case.draft(), case.draft()
    swapped = {"clinic": draft.manifests["imaging"]}
    with pytest.raises(Refused) as refused:
        explain(draft.document, manifests=swapped)
    assert refused.value.code == "explain.manifest"
    with pytest.raises(Refused) as refused:
        explain(draft.document, manifests={**draft.manifests, "clinics": draft.manifests["clinic"]})
    assert refused.value.code == "explain.manifest"
    changed_fn = changed(other.document, "fn", id=b"\x01" * 32)
    with pytest.raises(Refused) as refused:
        explain(changed_fn, bundle=draft.bundle)
    assert refused.value.code == "explain.bundle"


def test_the_contracts_that_brokers_believe_are_named(case: Any) -> None:
    document = case.draft().document
    for address in (document.agreement.oracle, document.agreement.enclave_registry):
        assert worst(explain(document), "chain", address) is Severity.NOTICE


@pytest.mark.parametrize("part", ["oracle", "enclave_registry", "chain"])
def test_contracts_that_are_not_ours_are_loud(case: Any, part: str) -> None:
    """A contract of the drafter's own could say of any task that it is paid for, within its quota and settled."""
    document = case.draft().document
    ours = Deployment(document.chain, document.agreement.oracle, document.agreement.enclave_registry)
    assert worst(explain(document, deployment=ours), "chain", document.agreement.oracle) is Severity.INFO
    other = document.chain.model_copy(update={"agreement_registry": "0x" + "EE" * 20})
    changes: dict[str, Any] = {part: other if part == "chain" else "0x" + "EE" * 20}
    theirs = replace(ours, **changes)
    assert worst(explain(document, deployment=theirs), "chain", "NOT THE CONTRACTS") is Severity.DANGER


def test_who_signed_is_shown_and_unchecked_signatures_are_marked(case: Any) -> None:
    lab, hospital_a, hospital_b = case.keys
    document = sign(case.draft().document, lab).with_contract_signature(hospital_a.address, b"\x01")
    text = said(explain(document), "signatures")
    assert f"{lab.address} has signed (checked)" in text
    assert f"{hospital_a.address} is a contract wallet; its signature is UNCHECKED" in text
    assert f"{hospital_b.address} has not signed" in text


def test_texts_of_others_cannot_move_the_cursor_or_turn_the_direction(case: Any) -> None:
    document = case.draft().document.model_copy(update={"notes": "safe\x1b[2J\u202eesrever"})
    notes = said(explain(document), "notes")
    assert "\x1b" not in notes
    assert "\u202e" not in notes
    assert "safe" in notes
