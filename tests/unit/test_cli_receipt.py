"""`oracle receipt`: what it exits with, what it prints, and what it takes for an expectation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enclave_app.protocol.errors import Refused
from oracle.agreement.document import AgreementDocument, write_document
from oracle.cli.receipt import read_parties
from oracle.receipt import LINKS
from tests.cli_kit import Ran, answer, oracle, refusal
from tests.receipt_kit import Story, make_story

STORY: Story = make_story()
ID = "0x" + STORY.record.result.agreement_id.hex()
PARTIES = STORY.record.agreement.parties()


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    path = tmp_path / "receipt.json"
    path.write_bytes(STORY.receipt)
    return path


def verdict(*arguments: object) -> tuple[int, dict[str, object]]:
    ran: Ran = oracle("receipt", "verify", *arguments, "--json")
    assert ran.stdout.count("\n") == 1, ran.stdout
    value: dict[str, object] = json.loads(ran.stdout)
    return ran.code, value


def test_an_expected_simulated_receipt_is_authentic_with_the_flag(receipt: Path) -> None:
    code, said = verdict(receipt, "--agreement", ID, "--allow-simulated")
    assert code == 0
    assert list(said) == [
        "verdict", "simulated", "agreement_id", "task_id", "outcome", "failed", "reason", "links"
    ]  # fmt: skip
    assert (said["verdict"], said["simulated"], said["outcome"]) == ("authentic", True, "succeeded")
    assert (said["failed"], said["reason"]) == (None, None)
    assert said["agreement_id"] == ID
    links = said["links"]
    assert isinstance(links, list)
    assert [link["name"] for link in links] == ["format", *LINKS]
    assert all(set(link) == {"name", "ok", "detail"} and link["ok"] for link in links)


def test_without_the_flag_a_simulation_exits_1(receipt: Path) -> None:
    code, said = verdict(receipt, "--agreement", ID)
    assert (code, said["verdict"], said["failed"], said["reason"]) == (1, "refused", "assurance", "receipt.simulated")


def test_without_an_expectation_it_is_not_authenticated_and_exits_1(receipt: Path) -> None:
    code, said = verdict(receipt, "--allow-simulated")
    assert (code, said["verdict"]) == (1, "consistent, not authenticated")


def test_consistency_can_be_all_that_is_asked_for(receipt: Path) -> None:
    code, said = verdict(receipt, "--allow-simulated", "--consistency-only")
    assert (code, said["verdict"]) == (0, "consistent, not authenticated")
    code, said = verdict(receipt, "--consistency-only")
    assert (code, said["reason"]) == (1, "receipt.simulated")


def test_another_agreement_exits_1_and_names_the_link(receipt: Path) -> None:
    code, said = verdict(receipt, "--agreement", "0x" + "11" * 32, "--allow-simulated")
    assert (code, said["failed"], said["reason"]) == (1, "agreement", "agreement.unexpected")


def test_an_agreement_of_another_registry_than_the_trusted_one_exits_1(receipt: Path) -> None:
    options = (receipt, "--agreement", ID, "--allow-simulated", "--registry")
    code, said = verdict(*options, "0x" + "99" * 20)
    assert (code, said["failed"], said["reason"]) == (1, "agreement", "agreement.registry")
    assert verdict(*options, STORY.record.chain.agreement_registry)[0] == 0


def test_the_agreements_own_file_is_an_expectation(receipt: Path, tmp_path: Path) -> None:
    document = AgreementDocument(chain=STORY.record.chain, agreement=STORY.record.agreement)
    write_document(tmp_path / "agreement.json", document)
    assert verdict(receipt, "--agreement", tmp_path / "agreement.json", "--allow-simulated")[0] == 0


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(PARTIES),
        json.dumps([party.lower() for party in reversed(PARTIES)]),
        "\n".join(f"- {party}" for party in PARTIES),
        "\n".join(f"party-{n}: {party}" for n, party in enumerate(PARTIES)),
        "parties:\n" + "\n".join(f"  party-{n}: '{party}'" for n, party in enumerate(PARTIES)),
        json.dumps({"parties": PARTIES}),
    ],
)
def test_the_parties_are_an_expectation_however_they_are_listed(receipt: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "parties").write_text(text)
    assert verdict(receipt, "--parties", tmp_path / "parties", "--allow-simulated")[0] == 0


def test_other_parties_exit_1(receipt: Path, tmp_path: Path) -> None:
    (tmp_path / "parties").write_text(json.dumps(PARTIES[:-1]))
    code, said = verdict(receipt, "--parties", tmp_path / "parties", "--allow-simulated")
    assert (code, said["reason"]) == (1, "agreement.parties")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[]", "parties.format"),
        ("7", "parties.format"),
        ("[7]", "parties.format"),
        ("parties: 0x11", "parties.format"),
        pytest.param(json.dumps([PARTIES[0]] * 2), "parties.duplicate", id="twice"),
        ("[0x11]", "address"),
        ("{", "yaml.syntax"),
    ],
)
def test_a_file_that_lists_no_addresses_is_refused(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "parties").write_text(text)
    with pytest.raises(Refused) as refused:
        read_parties(tmp_path / "parties")
    assert refused.value.code == code


@pytest.mark.parametrize(
    "options",
    [
        ("--agreement", ID, "--parties", "parties"),
        ("--agreement", ID, "--consistency-only"),
        ("--parties", "parties", "--consistency-only"),
    ],
)
def test_two_expectations_are_a_wrong_command_line(receipt: Path, options: tuple[str, ...]) -> None:
    assert oracle("receipt", "verify", receipt, *options).code == 2


def test_an_agreement_that_is_neither_file_nor_id_is_refused(receipt: Path) -> None:
    assert refusal("receipt", "verify", receipt, "--agreement", "0x11")["code"] == "digest.length"


def test_a_file_that_is_no_receipt_fails_at_the_format(tmp_path: Path) -> None:
    (tmp_path / "no").write_bytes(b"\xff\x00 no receipt")
    code, said = verdict(tmp_path / "no", "--agreement", ID)
    assert (code, said["failed"], said["simulated"]) == (1, "format", True)
    assert refusal("receipt", "verify", tmp_path / "nothing")["code"] == "file.read"
    assert refusal("receipt", "show", tmp_path / "no")["code"] == "json.syntax"


def test_people_see_a_line_for_each_link_and_what_it_is_worth(receipt: Path) -> None:
    ran = oracle("receipt", "verify", receipt, "--agreement", ID, "--allow-simulated")
    assert ran.code == 0
    assert ran.stdout.count("✓") == len(LINKS) + 1
    assert "AUTHENTIC (SIMULATED)" in ran.stdout
    assert "SIMULATED" in ran.stderr


def test_people_see_which_link_fails_first(receipt: Path) -> None:
    ran = oracle("receipt", "verify", receipt, "--agreement", ID)
    assert ran.code == 1
    assert ran.stdout.count("✗") == 1
    assert "the link “assurance” fails (receipt.simulated)" in ran.stdout


def test_show_says_what_a_receipt_claims_and_that_it_was_not_checked(receipt: Path) -> None:
    said = answer("receipt", "show", receipt)
    assert said["assurance"] == "SIMULATED"
    assert said["agreement_id"] == ID
    assert said["outcome"] == "succeeded"
    assert "nothing of it was checked" in oracle("receipt", "show", receipt).stderr
