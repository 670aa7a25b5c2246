"""The life of a task and of an agreement is one table, told three times: in Python, in the contracts' interfaces, in the docs."""

from __future__ import annotations

import json
import re
from enum import IntEnum
from pathlib import Path

import pytest

from enclave_app.protocol.structs import TaskState
from oracle.chain.moves import AGREEMENT_MOVES, FINAL, TASK_MOVES, check_move
from oracle.chain.reader import AgreementStatus
from oracle.errors import Refused

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "contracts" / "src"
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text("utf-8")
TASK_TABLE = [[m.state.name.title(), m.move, m.by, m.to.name.title(), m.money] for m in TASK_MOVES]


def names(states: tuple[AgreementStatus, ...]) -> str:
    return ", ".join(state.name.title() for state in states)


AGREEMENT_TABLE = [[names(m.states), m.move, m.by, names(m.to)] for m in AGREEMENT_MOVES]


def table(text: str, prefix: str) -> list[list[str]]:
    """The one table of a text, without its head; `prefix` is before each of its lines."""
    lines = [line.removeprefix(prefix).strip() for line in text.splitlines() if line.startswith(f"{prefix}|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert set("".join(rows[1])) == {"-"}
    return rows[2:]


def section(title: str) -> str:
    (found,) = re.findall(rf"^### {title}\n(.*?)(?=^#)", PROTOCOL, re.DOTALL | re.MULTILINE)
    return str(found)


def interface(name: str) -> str:
    """What an interface says of itself, above its declaration."""
    return (CONTRACTS / "interfaces" / f"{name}.sol").read_text("utf-8").partition(f"\ninterface {name}")[0]


def functions(contract: str) -> set[str]:
    abi = json.loads((ROOT / "oracle" / "abi" / f"{contract}.json").read_text())["abi"]
    return {entry["name"] for entry in abi if entry["type"] == "function"}


def test_a_task_s_life_is_told_the_same_everywhere() -> None:
    assert table(interface("IComputeOracle"), "/// ") == TASK_TABLE
    assert table(section("Task life"), "") == TASK_TABLE


def test_an_agreement_s_life_is_told_the_same_everywhere() -> None:
    assert table(interface("IAgreementRegistry"), "/// ") == AGREEMENT_TABLE
    assert table(section("Agreement life"), "") == AGREEMENT_TABLE


@pytest.mark.parametrize(
    ("title", "pattern", "kind"),
    [("Task life", r"(\w+) \((\d)\)", TaskState), ("Agreement life", r"(\w+) (\d)[,;]", AgreementStatus)],
)
def test_the_docs_number_the_states(title: str, pattern: str, kind: type[IntEnum]) -> None:
    told = re.findall(pattern, section(title))
    assert told == [(state.name.title(), str(state.value)) for state in kind]


def test_the_contracts_number_the_states() -> None:
    library = (
        (CONTRACTS / "libraries" / "Constants.sol").read_text().partition("library TaskState {")[2].partition("}")[0]
    )
    assert re.findall(r"(\w+) = (\d);", library) == [(state.name, str(state.value)) for state in TaskState]
    enum = (
        (CONTRACTS / "interfaces" / "IAgreementRegistry.sol")
        .read_text()
        .partition("enum Status {")[2]
        .partition("}")[0]
    )
    assert re.findall(r"\w+", enum) == [status.name.title() for status in AgreementStatus]


def test_moves_are_functions_of_the_contracts() -> None:
    assert {m.move for m in TASK_MOVES} <= functions("ComputeOracle")
    assert {m.move for m in AGREEMENT_MOVES} - {"supersede"} <= functions("AgreementRegistry")


def test_nothing_leaves_a_final_state() -> None:
    assert {TaskState.FULFILLED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED} == FINAL
    assert {s for m in AGREEMENT_MOVES for s in m.states} == set(AgreementStatus) - {
        AgreementStatus.REVOKED,
        AgreementStatus.SUPERSEDED,
    }


def test_every_other_move_of_a_task_is_refused() -> None:
    legal = {(m.state, m.move, m.to) for m in TASK_MOVES}
    for state in TaskState:
        for move in ("request", "cancel", "fulfil", "expire"):
            for to in TaskState:
                if (state, move, to) in legal:
                    check_move(state, move, to)
                else:
                    with pytest.raises(Refused) as caught:
                        check_move(state, move, to)
                    assert caught.value.code == "task.move"
