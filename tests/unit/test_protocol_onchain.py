"""What the contracts keep of an agreement as digests: ours against the vectors, and theirs against viem."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol import onchain
from enclave_app.protocol.canonical import validate
from enclave_app.protocol.onchain import Admission, Auditors
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.structs import Agreement
from oracle.agreement.requesters import admission_of, requester_proof, requesters_root

TESTS = Path(__file__).parents[1]
VECTORS = json.loads((TESTS / "vectors" / "onchain.json").read_text("utf-8"))
SIGNED = json.loads((TESTS / "vectors" / "eip712.json").read_text("utf-8"))["cases"]
LISTED = VECTORS["requesters"]["listed"]
QUOTAS = {each["address"]: each["quota"] for each in LISTED}


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def named(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", VECTORS["agreements"], ids=named)
def test_an_agreement_reproduces_its_digests(case: dict[str, Any]) -> None:
    agreement = validate(Agreement, case["value"])
    assert agreement.abi_encode() == raw(case["abi"])
    assert agreement.tee.struct_hash() == raw(case["teeHash"])
    assert agreement.price.struct_hash() == raw(case["priceHash"])
    assert onchain.settlement_hash(agreement) == raw(case["settlementHash"])
    assert onchain.admission_hash(agreement) == raw(case["admissionHash"])
    assert validate(Auditors, case["auditors"]).digest == raw(case["auditorsDigest"]) == agreement.auditors
    shown = validate(Admission, case["admission"])
    assert shown.abi_encode() == raw(case["admissionAbi"])
    assert shown == admission_of(agreement, QUOTAS, LISTED[0]["address"])


def test_the_list_of_requesters_reproduces_its_tree() -> None:
    assert requesters_root(QUOTAS) == raw(VECTORS["requesters"]["root"])
    for each in LISTED:
        assert onchain.requester_leaf(each["address"], each["quota"]) == raw(each["leaf"])
        assert [*requester_proof(QUOTAS, each["address"])] == [raw(step) for step in each["proof"]]


@pytest.mark.parametrize("case", VECTORS["recipients"], ids=lambda case: len(case["recipients"]))
def test_recipients_reproduce_their_digest(case: dict[str, Any]) -> None:
    found = recipients_digest([raw(each) for each in case["recipients"]], raw(case["resultKey"]))
    assert found == raw(case["digest"])


def test_viem_computes_the_same_digests() -> None:
    program = shutil.which("node")
    assert program, "Node is part of the toolchain: run scripts/setup"
    done = subprocess.run(
        [program, "--test", "--test-reporter=tap", TESTS / "js" / "viem.test.mjs"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    digests = [line for line in done.stdout.splitlines() if line.startswith("ok ") and "struct hash" in line]
    assert len(digests) == len(SIGNED)
