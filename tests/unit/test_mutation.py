"""The mutation script on a sample with one check that a test catches and one that none does; and what it finds here."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.mutation import excused, python_checks, python_run, solidity_checks, solidity_operators
from tests.mutation.model import RULES, Mutant, rules_in
from tests.mutation.report import Report
from tests.mutation.structure import NOT_BUILT, STRUCTURE

ROOT = Path(__file__).resolve().parents[2]
GUARD = '''
"""A room (R1)."""


def admit(age: int, name: str) -> str:
    """R7: who may come in."""
    if age < 18 or not name:
        raise ValueError("refused")
    return name


def _check_door(key: bytes) -> None:
    if not 8 <= len(key) <= 16:
        raise ValueError("door.key")


def enter(key: bytes) -> None:
    """R11."""
    _check_door(key)


def tidy(things: int) -> None:
    if things > 3:
        raise ValueError("too many")
'''
TESTS = """
import pytest
from enclave_app.guard import admit, enter, tidy


def test_what_names_no_rule_stays():
    with pytest.raises(ValueError):
        tidy(4)


def test_the_young_stay_outside():
    with pytest.raises(ValueError):
        admit(17, "a")


def test_who_has_a_name_comes_in():
    assert admit(18, "a") == "a"


@pytest.mark.parametrize("key", [b"short", b"much too long a key"])
def test_a_key_has_its_length(key):
    with pytest.raises(ValueError):
        enter(key)
"""
SOLIDITY = """// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title A door (R5)
contract Door {
    error Door_Shut(uint256 hour);

    function enter(uint256 hour) external pure {
        if (hour < 8 || hour > (10 + 8)) revert Door_Shut(hour);
        _named("hour", hour);
    }

    function _named(bytes32, uint256 value) private pure {
        // never at noon (R9)
        if (value == 12) {
            revert Door_Shut(value);
        }
    }
}
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample")
    files = {"enclave_app/guard.py": GUARD, "enclave_app/__init__.py": "", "tests/test_guard.py": TESTS}
    for name, text in {**files, "pyproject.toml": ""}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def test_a_caught_check_names_its_test_and_an_uncaught_one_survives(sample: Path, tmp_path: Path) -> None:
    mutants, switched = python_checks.find(sample)
    workers = python_run.Workers(tmp_path, switched, 1, sample)
    seen = python_run.record(workers, mutants, "", keep=False)
    assert all(each.good for each in seen)
    outcomes = python_run.run(workers, mutants, seen)
    name = "enclave_app/guard.py: "
    assert {m.name: (outcomes[m.number].caught or "").partition("::")[2] for m in mutants} == {
        f"{name}admit: ValueError": "test_the_young_stay_outside",
        f"{name}admit: ValueError (2)": "",
        f"{name}_check_door: door.key": "test_a_key_has_its_length[short]",
        f"{name}_check_door: door.key (2)": "test_a_key_has_its_length[much too long a key]",
        f"{name}enter: _check_door": "test_a_key_has_its_length[short]",
    }
    report = Report(mutants, {m.number: "t" for m in mutants if outcomes[m.number].caught}, {})
    assert [m.text for m in report.survivors] == ["not name"]
    assert not report.good
    assert report.complaints() == [f"SURVIVED {name}admit: ValueError (2): not name (R7; line 7)"]


def test_checks_are_found_with_the_rules_that_they_name(sample: Path) -> None:
    mutants, _ = python_checks.find(sample)
    assert [(m.function, m.text, m.rules) for m in mutants] == [
        ("admit", "age < 18", ("R7",)),
        ("admit", "not name", ("R7",)),
        ("_check_door", "not 8 <= len(key)", ("R11",)),
        ("_check_door", "not len(key) <= 16", ("R11",)),
        ("enter", "_check_door(key)", ("R11",)),
    ]
    unnamed, _ = python_checks.find(sample, unnamed=True)
    assert [m.function for m in unnamed] == ["tidy"]


def test_checks_of_a_contract_are_found_and_get_a_switch(tmp_path: Path) -> None:
    (tmp_path / "contracts/src").mkdir(parents=True)
    (tmp_path / "contracts/src/Door.sol").write_text(SOLIDITY)
    mutants, switched = solidity_checks.find(tmp_path)
    assert [(m.function, m.text, m.rules) for m in mutants] == [
        ("enter", "hour < 8", ("R5",)),
        ("enter", "hour > (10 + 8)", ("R5",)),
        ("enter", '_named("hour", hour)', ("R5",)),
        ("_named", "value == 12", ("R9",)),
    ]
    text = switched["contracts/src/Door.sol"]
    assert "if ((mutantOff(1) && (hour < 8)) || (mutantOff(2) && (hour > (10 + 8)))) revert" in text
    assert '{ if (mutantOff(3)) _named("hour", hour); }' in text
    assert "external view" in text


CORE = """// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

contract Payments {
    uint256 private constant MOST = 8;
    mapping(address account => uint256) public paid;

    event Paid(address to);

    function pay(address to, uint256 amount) external {
        if (amount <= MOST && to != address(0)) {
            paid[to] += amount;
            _credit(msg.sender, to, amount);
        } else emit Paid(to);
        for (uint256 i; i < amount; ++i) {}
    }

    function _credit(address, address, uint256) private {}
}
"""


def test_small_changes_of_the_core_are_found_and_get_a_switch(tmp_path: Path) -> None:
    (tmp_path / "contracts/src").mkdir(parents=True)
    (tmp_path / "contracts/src/Payments.sol").write_text(CORE)
    mutants, switched = solidity_checks.find(tmp_path)
    assert [(m.language, m.code, m.text) for m in mutants] == [
        ("Core", "comparison", "amount <= MOST"),
        ("Core", "comparison", "to != address(0)"),
        ("Core", "constant MOST", "if (amount <= MOST && to != address(0)) {"),
        ("Core", "credit", "_credit(msg.sender, to, amount)"),
        ("Core", "write", "paid[to] += amount;"),
        ("Core", "event", "emit Paid(to);"),
    ]
    text = switched["contracts/src/Payments.sol"]
    assert "if ((amount) + mutantOne(1) <= (MOST + mutantOne(3)) && (mutantOn(2) != (to != address(0))))" in text
    assert "{ if (mutantOff(5)) { paid[to] += amount; } }" in text
    assert "_credit(msg.sender, (mutantOn(4) ? msg.sender : to), amount);" in text
    assert "else { if (mutantOff(6)) { emit Paid(to); } }" in text
    assert "for (uint256 i; i < amount; ++i)" in text


def test_the_checks_of_this_program_are_found() -> None:
    found = {mutant.name: mutant for mutant in every_mutant()}
    assert len(found) > 500
    assert found["oracle/keybroker/checks.py: check_standing: agreement.revoked"].rules == ("R8",)
    assert found["enclave_app/agreed.py: check_task: task.measurement"].rules == ("R3",)
    assert found["enclave_app/protocol/shares.py: check_share: shares.wrong"].rules == ("R11",)
    assert found["ComputeOracle.sol: cancel: ComputeOracle_CancelClosed"].rules == ("R9",)
    assert found["EnclavePolicy.sol: check: ComputeOracle_HostNotAgreed"].rules == ("R5",)
    assert found["AgreementTerms.sol: check: _nonZero salt"].rules == ("R21",)
    core = [mutant for mutant in found.values() if mutant.language == "Core"]
    assert {mutant.file.rpartition("/")[2].removesuffix(".sol") for mutant in core} == set(solidity_operators.CORE)
    assert len(core) > 300


def test_every_rule_has_a_check_or_a_test_of_its_structure_or_is_not_built() -> None:
    checked = {rule for mutant in every_mutant() for rule in mutant.rules}
    assert {*RULES, "R7b", "R17b"} - checked - set(STRUCTURE) - set(NOT_BUILT) == set()


def test_the_tests_of_structure_exist() -> None:
    for test in (test for tests in STRUCTURE.values() for test in tests):
        file, _, name = test.partition("::")
        assert f"{name}(" in (ROOT / file).read_text(), test


def test_excuses_are_for_checks_that_are_there() -> None:
    assert set(excused.EXCUSED) - {mutant.name for mutant in every_mutant()} == set()


def test_a_range_of_rules_names_those_between() -> None:
    assert rules_in("R2 to R4, R7b (R17)") == ("R2", "R3", "R4", "R7b", "R17")
    assert rules_in("R0, R22, R7c, PR8") == ()


@cache
def every_mutant() -> list[Mutant]:
    return python_checks.find(ROOT)[0] + solidity_checks.find(ROOT)[0]
