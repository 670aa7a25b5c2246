"""The journal against a model: the chain, the worker and an operator move tasks, it is pruned and it crashes, in any order."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from oracle.chain.events import Event
from oracle.errors import Bug, Refused
from oracle.worker import desk
from oracle.worker.database import Server, SqliteDatabase
from oracle.worker.journal import Journal, Overtaken
from oracle.worker.postgres import PostgresDatabase
from oracle.worker.retention import prune, totals
from oracle.worker.rows import Task
from oracle.worker.states import ENDED, GIVEN_UP, OPEN, Mover, State, check_move
from tests.journal_kit import block, ended, record, requested, word
from tests.postgres_kit import PostgresServer, postgres_server

TASKS = st.integers(1, 6)
FAR = float(1 << 42)
"""Beyond every deadline of journal_kit's requests."""


@dataclass
class Known:
    """A task as it should be."""

    state: State
    block: int
    result: bool = False
    stored: bool = False
    ended_block: int | None = None

    def resumes_at(self) -> State:
        return State.STORED if self.stored else State.RAN if self.result else State.SEEN


Act = Callable[[Journal, Task, int], object]
ACTS: dict[str, tuple[State, Act]] = {
    "ran": (State.RAN, lambda j, t, head: j.ran(t, record(requested(number(t.id), 1)), b"receipt")),
    "stored": (State.STORED, lambda j, t, head: j.stored(t)),
    "settling": (State.SETTLING, lambda j, t, head: j.settling(t, word(head))),
    "settled": (State.SETTLED, lambda j, t, head: j.ended(t, State.SETTLED, head)),
    "expired": (State.EXPIRED, lambda j, t, head: j.ended(t, State.EXPIRED)),
    "start over": (State.SEEN, lambda j, t, head: j.start_over(t)),
    "park": (State.PARKED, lambda j, t, head: j.give_up(t, State.PARKED, "bug", "why")),
    "skip": (State.SKIPPED, lambda j, t, head: j.give_up(t, State.SKIPPED, "plan", "why")),
    "fail": (State.FAILED, lambda j, t, head: j.give_up(t, State.FAILED, "code", "why")),
}


def number(task_id: bytes) -> int:
    return int.from_bytes(task_id[1:], "big")


def legal(source: State, target: State) -> bool:
    try:
        check_move(source, target, Mover.WORKER)
    except Bug:
        return False
    return True


class Life(RuleBasedStateMachine):
    place: Callable[[Path], Server | Path]

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.where = type(self).place(Path(self._temporary.name))
        self.journal = Journal(self.where)
        self.blocks: list[tuple[int, list[Event]]] = []
        """For each block its fork and its events."""
        self.floor, self.fork = 0, 0
        self.model: dict[int, Known] = {}
        self.on_chain: dict[int, int] = {}
        self.over: dict[int, int] = {}
        """Tasks that the chain has, and has ended, by block."""
        self.forgotten: Counter[str] = Counter()
        self.held: Task | None = None

    def teardown(self) -> None:
        self.journal.close()
        self._temporary.cleanup()

    # The chain.

    @rule(new=st.sets(TASKS, max_size=3), over=st.sets(TASKS, max_size=2), twice=st.booleans())
    def grow(self, new: set[int], over: set[int], twice: bool) -> None:
        at = len(self.blocks) + 1
        fresh = sorted(new - self.on_chain.keys())
        closed = sorted((over & self.on_chain.keys()) - self.over.keys())
        events: list[Event] = [requested(n, at, self.fork) for n in fresh]
        events += [ended(n, at, "TaskExpired", self.fork) for n in closed]
        assert self.journal.take_in([*events, *(events if twice else [])], block(at, self.fork)) == len(events)
        self.blocks.append((self.fork, events))
        for n in fresh:
            self.on_chain[n] = at
            known = self.model.setdefault(n, Known(State.SEEN, at))
            known.block = at
            if known.state is State.ORPHANED:
                known.state, known.ended_block = known.resumes_at(), None
        for n in closed:
            self.over[n] = at
            if n in self.model:
                self.model[n].state, self.model[n].ended_block = State.EXPIRED, at

    @precondition(lambda self: len(self.blocks) > max(1, self.floor))
    @rule(data=st.data())
    def reorganise(self, data: st.DataObject) -> None:
        keep = data.draw(st.integers(max(1, self.floor), len(self.blocks) - 1))
        del self.blocks[keep:]
        self.journal.rewind(keep, word(keep, self.blocks[-1][0]))
        self.fork = (self.fork + 1) % 250
        self.on_chain = {n: at for n, at in self.on_chain.items() if at <= keep}
        self.over = {n: at for n, at in self.over.items() if at <= keep}
        for known in self.model.values():
            if known.block > keep:
                if known.state is not State.ABANDONED:
                    known.state, known.ended_block = State.ORPHANED, None
            elif known.ended_block is not None and known.ended_block > keep:
                known.state, known.ended_block = known.resumes_at(), None

    # The worker.

    @rule(n=TASKS, act=st.sampled_from(sorted(ACTS)))
    def work(self, n: int, act: str) -> None:
        found = self.journal.task(word(n))
        if found is not None:
            self._do(found, act)

    @rule(n=TASKS)
    def take_up(self, n: int) -> None:
        self.held = self.journal.task(word(n))

    @precondition(lambda self: self.held is not None)
    @rule(act=st.sampled_from(sorted(ACTS)))
    def come_late(self, act: str) -> None:
        assert self.held is not None
        self._do(self.held, act)

    def _do(self, held: Task, act: str) -> None:
        target, do = ACTS[act]
        known, head = self.model.get(number(held.id)), len(self.blocks)
        if not legal(held.state, target):
            with pytest.raises(Bug):
                do(self.journal, held, head)
        elif known is None or known.state is not held.state:
            with pytest.raises(Overtaken):
                do(self.journal, held, head)
        else:
            do(self.journal, held, head)
            known.state = target
            if act == "ran":
                known.result, known.stored = True, False
            elif act == "stored":
                known.stored = True
            elif act == "start over":
                known.result = known.stored = False
            elif act == "settled":
                known.ended_block = head

    @rule(n=TASKS)
    def wait(self, n: int) -> None:
        self.journal.retry(word(n), time.time() + 1000, "down", "why")

    # The operator, the clock, and the machine.

    @rule(n=TASKS, again=st.booleans())
    def operate(self, n: int, again: bool) -> None:
        known, beside = self.model.get(n), Journal(self.where, owner=False)
        try:
            if known is None or known.state in ENDED or known.state is State.ORPHANED:
                with pytest.raises(Refused):
                    desk.retry(beside, word(n)) if again else desk.abandon(beside, word(n), "why")
            elif again:
                target = known.resumes_at() if known.state in GIVEN_UP else known.state
                assert desk.retry(beside, word(n)) is target
                known.state = target
            else:
                assert desk.abandon(beside, word(n), "why") is known.state
                known.state = State.ABANDONED
        finally:
            beside.close()

    @rule(below=st.integers(0, 3))
    def forget(self, below: int) -> None:
        self.floor = max(self.floor, len(self.blocks) - below)
        gone = [
            n
            for n, known in self.model.items()
            if known.state not in OPEN and known.block <= self.floor and (known.ended_block or 0) <= self.floor
            and not self._owes(n)
        ]  # fmt: skip
        assert prune(self.journal.db, now=time.time(), before=FAR, below=self.floor) == len(gone)
        for n in gone:
            self.forgotten[self.model.pop(n).state.value] += 1

    @rule(n=TASKS)
    def deliver(self, n: int) -> None:
        self.journal.receipt_done(word(n))

    def _owes(self, n: int) -> bool:
        return self.journal.receipt(word(n)) is not None

    @rule(torn=st.booleans())
    def crash(self, torn: bool) -> None:
        """The process is gone in the middle of a transaction; what it had not committed is, too."""
        db = self.journal.db
        if torn:
            db.execute("BEGIN")
            db.execute("UPDATE tasks SET state = 'settled'")
            db.execute("UPDATE cursor SET number = 1000")
            db.execute("DELETE FROM events")
        assert isinstance(db, SqliteDatabase | PostgresDatabase)
        self.journal.close()
        self.journal = Journal(self.where)

    @invariant()
    def cursor_and_events_agree(self) -> None:
        head = len(self.blocks)
        if head:
            assert self.journal.cursor() == (head, word(head, self.blocks[-1][0]))
        kept = self.journal.db.execute("SELECT transaction_hash, block_number FROM events").fetchall()
        expected = [(e.log.transaction_hash, e.log.block_number) for _, events in self.blocks for e in events]
        assert sorted((row["transaction_hash"], row["block_number"]) for row in kept) == sorted(expected)

    @invariant()
    def nothing_is_lost_and_nothing_doubled(self) -> None:
        rows = self.journal.db.execute("SELECT id, state, record, stored, ended_block, block_number FROM tasks")
        found = {
            number(row["id"]): Known(
                State(row["state"]),
                row["block_number"],
                row["record"] is not None,
                bool(row["stored"]),
                row["ended_block"],
            )
            for row in rows
        }
        assert found == self.model
        assert totals(self.journal.db).get("ended", {}) == dict(self.forgotten)
        owed = {n for n in self.model if self._owes(n)}
        due = {number(task_id) for task_id in self.journal.due(FAR, 100)}
        assert due == {n for n, k in self.model.items() if k.state in OPEN or (k.state is State.SETTLED and n in owed)}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as found:
        yield found


def test_a_file_is_as_the_model_says() -> None:
    class InFile(Life):
        place = staticmethod(lambda directory: directory / "j")

    run_state_machine_as_test(InFile, settings=_settings(30))


def test_a_server_is_as_the_model_says(server: PostgresServer) -> None:
    class OnServer(Life):
        place = staticmethod(lambda directory: server.place())

    run_state_machine_as_test(OnServer, settings=_settings(4))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
