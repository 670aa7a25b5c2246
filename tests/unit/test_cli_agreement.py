"""`oracle agreement`, the part that needs no chain: draft, show, sign, merge."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from enclave_app.protocol.hpke import SealingKey
from oracle.agreement.document import read_document
from oracle.keys import create_wallet, write_public_key
from tests.cli_kit import CHEAP, answer, oracle, refusal

SPEC = """
name: ages
kind: sql
entry: query.sql
tables: {people: {sex: string, age: int64}}
outputs: [result]
"""
OPERATOR = "0x" + "44" * 20


@dataclass(frozen=True)
class Case:
    """A draft with all that it names, in one directory; wallets `lab` and `hospital` have the password in `pw`."""

    base: Path
    draft: dict[str, Any]

    @property
    def yaml(self) -> Path:
        path = self.base / "draft.yaml"
        path.write_text(yaml.safe_dump(self.draft))
        return path

    @property
    def document(self) -> Path:
        path = self.base / "agreement.json"
        if not path.exists():
            answer("agreement", "draft", self.yaml, "--out", path)
        return path

    def signing(self, who: str, document: Path | None = None) -> tuple[object, ...]:
        keys = ("--keystore", self.base / who, "--password-file", self.base / "pw")
        return ("agreement", "sign", document or self.document, *keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Case:
    base = tmp_path_factory.mktemp("case")
    (base / "pw").write_text("correct horse\n")
    parties = {
        name: create_wallet(base / name, lambda: "correct horse", n=CHEAP) for name in ("lab", "hospital", "other")
    }
    (base / "function.yaml").write_text(SPEC)
    (base / "query.sql").write_text("SELECT sex, avg(age) AS age FROM people GROUP BY sex")
    answer("function", "pack", base, "--out", base / "f.eofb")
    (base / "people.csv").write_text("sex,age\nf,30\nm,20\n")
    keys = ("--keys", base / "keys", "--dangerous-plaintext-keys", "--yes")
    sealed = answer("dataset", "seal", base / "people.csv", "--out", base / "people", *keys)
    for number in range(3):
        write_public_key(base / f"broker{number}", SealingKey.generate().public)
    draft = {
        "chain": {
            "id": 31337,
            "agreementRegistry": "0x" + "a1" * 20,
            "oracle": "0x" + "a2" * 20,
            "enclaveRegistry": "0x" + "a3" * 20,
        },
        "parties": {name: parties[name] for name in ("lab", "hospital")},
        "function": {
            "bundle": "f.eofb",
            "owner": "lab",
            "limits": {"memory": "512 MiB", "time": "30 s", "outputBytes": "1 MiB", "outputRows": 1000},
        },
        "data": [
            {
                "name": "people",
                "owner": "hospital",
                "manifest": "people",
                "shares": sealed["dataset_id"],
                "columns": ["sex", "age"],
            }
        ],
        "enclaves": {
            "measurements": ["0x" + "e1" * 32],
            "anchors": ["intel"],
            "statuses": ["UP_TO_DATE"],
            "evaluationFloor": 17,
            "maxEvidenceAge": "24 h",
            "hosts": [OPERATOR],
        },
        "brokers": {
            "threshold": 2,
            "confirmation": "finalized",
            "list": [{"key": f"broker{n}", "signer": "0x" + f"b{n}" * 20} for n in range(3)],
        },
        "outputs": [{"name": "result", "recipients": ["requester"], "owners": ["lab"]}],
        "access": {"requesters": ["lab"], "quota": 10},
        "price": "free",
        "validity": {"until": "90 days"},
    }
    return Case(base, draft)


@pytest.fixture
def case(made: Case, tmp_path: Path) -> Case:
    shutil.copytree(made.base, tmp_path / "case")
    return Case(tmp_path / "case", yaml.safe_load(yaml.safe_dump(made.draft)))


def test_a_draft_becomes_an_agreement_that_nobody_signed(case: Case) -> None:
    drafted = answer("agreement", "draft", case.yaml, "--out", case.base / "a.json")
    document = read_document(case.base / "a.json")
    assert drafted["agreement_id"] == "0x" + document.id.hex()
    assert drafted["missing"] == drafted["parties"] == list(document.agreement.parties())
    assert {"severity", "topic", "text"} == set(drafted["lines"][0])


def test_a_draft_without_hosts_is_refused_in_words(case: Case) -> None:
    del case.draft["enclaves"]["hosts"]
    error = refusal("agreement", "draft", case.yaml, "--out", case.base / "a.json")
    assert error["code"] == "yaml.invalid"
    assert "anyHost: true" in error["message"]
    assert not (case.base / "a.json").exists()


def test_show_reads_a_file_in_plain_words(case: Case) -> None:
    ran = oracle(
        "agreement",
        "show",
        case.document,
        "--function",
        case.base / "f.eofb",
        "--manifest",
        f"people={case.base}/people",
    )
    assert ran.code == 0
    assert "SELECT sex, avg(age)" in ran.stdout
    assert "has 2 rows" in ran.stdout.replace("\n", " ")
    shown = answer("agreement", "show", case.document)
    assert shown["terms"]["data"][0]["columns"] == ["sex", "age"]


def test_addresses_are_called_what_the_reader_calls_them(case: Case) -> None:
    document = case.document
    parties = answer("agreement", "show", document)["parties"]
    deployment = dict.fromkeys(
        ("agreementRegistry", "enclaveRegistry", "oracle", "streams", "audits"), "0x" + "a1" * 20
    )
    deployment_file = {"chainId": "31337", "verifiers": {}, "firstBlock": 0, **deployment}
    (case.base / "deployment.json").write_text(json.dumps(deployment_file))
    config = {
        "rpc": "http://127.0.0.1:1",
        "deployment": "deployment.json",
        "storage": ["storage"],
        "brokers": {},
        "names": {"the lab": parties[0]},
    }
    (case.base / "oracle.yaml").write_text(yaml.safe_dump(config))
    lines = answer("agreement", "show", document, "--config", case.base / "oracle.yaml")["lines"]
    assert f"It belongs to the lab ({parties[0]})." in lines[0]["text"]


def test_show_refuses_another_function_than_the_agreed_one(case: Case) -> None:
    document = case.document
    answer("function", "pack", case.base, "--out", case.base / "other.eofb")
    error = refusal("agreement", "show", document, "--function", case.base / "other.eofb")
    assert error["code"] == "bundle.digest"


def test_signing_explains_first_and_takes_no_for_an_answer(case: Case) -> None:
    before = case.document.read_bytes()
    ran = oracle(*case.signing("hospital"), given="n\n")
    assert ran.code == 1
    assert ran.stderr.index("people") < ran.stderr.index("Sign it?")
    assert "YOU (0x" in ran.stderr
    assert "confirm.declined" in ran.stderr
    assert case.document.read_bytes() == before


def test_what_the_rules_refuse_is_not_even_explained(case: Case) -> None:
    document = json.loads(case.document.read_text())
    document["agreement"]["tee"]["anchors"] = []
    path = case.base / "hollow.json"
    path.write_text(json.dumps(document))
    ran = oracle(*case.signing("lab", path), given="y\n")
    assert ran.code == 1
    assert "agreement.count" in ran.stdout + ran.stderr
    assert "Sign it?" not in ran.stdout + ran.stderr


def test_both_parties_sign_one_file(case: Case) -> None:
    first = answer(*case.signing("hospital"), "--yes")
    assert len(first["signed"]) == len(first["missing"]) == 1
    assert oracle(*case.signing("lab"), given="y\n").code == 0
    assert read_document(case.document).missing() == ()


def test_copies_that_were_signed_apart_are_merged(case: Case) -> None:
    for who in ("hospital", "lab"):
        answer(*case.signing(who), "--yes", "--out", case.base / f"by-{who}")
    merged = answer("agreement", "merge", case.base / "by-hospital", case.base / "by-lab", "--out", case.base / "all")
    assert merged["missing"] == []
    assert read_document(case.base / "all").missing() == ()


def test_different_agreements_are_not_merged(case: Case) -> None:
    answer("agreement", "draft", case.yaml, "--out", case.base / "second")
    error = refusal("agreement", "merge", case.document, case.base / "second", "--out", case.base / "all")
    assert error["code"] == "document.other"


def test_a_stranger_cannot_sign(case: Case) -> None:
    assert refusal(*case.signing("other"), "--yes")["code"] == "sign.party"


def test_a_wrong_password_does_not_sign(case: Case) -> None:
    (case.base / "pw").write_text("wrong\n")
    assert refusal(*case.signing("lab"), "--yes")["code"] == "keystore.password"
    assert read_document(case.document).signatures == {}


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("enclaves", "anyHost", True, "ANY"),
        ("enclaves", "anchors", ["0x" + "dd" * 32], "SIMULATED"),
    ],
)
def test_what_gives_protection_away_is_said_loudly(case: Case, part: str, name: str, value: object, words: str) -> None:
    quiet = oracle(*case.signing("lab"), given="n\n").stderr
    case.draft[part][name] = value
    if name == "anyHost":
        del case.draft["enclaves"]["hosts"]
    answer("agreement", "draft", case.yaml, "--out", case.base / "risky.json")
    loud = oracle(*case.signing("lab", case.base / "risky.json"), given="n\n").stderr
    assert "\n!! " not in quiet
    shouted = " ".join(loud[loud.index("\n!! ") :].split())
    assert words in shouted


def test_a_changed_agreement_keeps_no_signature(case: Case) -> None:
    answer(*case.signing("lab"), "--yes")
    text = case.document.read_text()
    case.document.write_text(text.replace('"quota":"10"', '"quota":"11"'))
    assert case.document.read_text() != text
    assert refusal("agreement", "show", case.document)["code"] == "signature.signer"
