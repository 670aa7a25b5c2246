"""The table of states, read as the code reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oracle.errors import Bug
from oracle.worker.states import ENDED, GIVEN_UP, LEGAL, MOVES, OPEN, Mover, State, check_move


def reachable(start: State, movers: set[Mover]) -> set[State]:
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for source, target, by in LEGAL:
            if source is here and by in movers and target not in found:
                found.add(target)
                waiting.append(target)
    return found


def test_every_state_is_in_one_group_or_orphaned() -> None:
    assert sorted([*OPEN, *ENDED, *GIVEN_UP, State.ORPHANED]) == sorted(State)


def test_the_architecture_page_has_every_state_in_its_group() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text("utf-8")
    table = page.split("## A task's states in the journal")[1].split("## ")[0]
    groups = {"open": OPEN, "ended": ENDED, "given up": GIVEN_UP, "its request is on no chain": (State.ORPHANED,)}
    found = {
        name: group.strip()
        for names, group in re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert found == {state.value: group for group, states in groups.items() for state in states}


def test_every_state_can_be_reached_from_a_request() -> None:
    assert reachable(State.SEEN, set(Mover)) == set(State)


def test_no_move_is_listed_twice_and_none_stands_still() -> None:
    assert len(LEGAL) == len(MOVES)
    assert all(move.source is not move.target and move.why for move in MOVES)


@pytest.mark.parametrize("state", [*ENDED, *GIVEN_UP, State.ORPHANED])
def test_the_worker_never_moves_a_task_that_is_over(state: State) -> None:
    assert [move for move in MOVES if move.source is state and move.by is Mover.WORKER] == []


def test_the_worker_settles_only_what_is_stored() -> None:
    sources = {move.source for move in MOVES if move.target is State.SETTLED and move.by is Mover.WORKER}
    assert sources == {State.STORED, State.SETTLING}


@pytest.mark.parametrize("state", [state for state in State if state is not State.SETTLED])
def test_the_chain_has_the_last_word_from_every_state(state: State) -> None:
    check_move(state, State.SETTLED, Mover.CHAIN)


@pytest.mark.parametrize(
    ("source", "target", "by"),
    [
        (State.SEEN, State.STORED, Mover.WORKER),
        (State.SEEN, State.SETTLING, Mover.WORKER),
        (State.RAN, State.SETTLING, Mover.WORKER),
        (State.SETTLED, State.SEEN, Mover.WORKER),
        (State.PARKED, State.SEEN, Mover.WORKER),
        (State.SEEN, State.RAN, Mover.CHAIN),
        (State.SEEN, State.SETTLED, Mover.OPERATOR),
    ],
)
def test_an_illegal_move_is_a_bug(source: State, target: State, by: Mover) -> None:
    with pytest.raises(Bug) as raised:
        check_move(source, target, by)
    assert raised.value.code == "journal.move"
