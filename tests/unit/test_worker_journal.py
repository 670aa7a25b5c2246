"""The journal: one transaction for events and cursor, once for each event, and back again on a reorganisation."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enclave_app.protocol.signing import SigningKey
from oracle.chain.events import AgreementActivated, AgreementApproved, Event, TaskEnded, TaskRequested
from oracle.chain.source import Block
from oracle.errors import Bug, Permanent
from oracle.worker.journal import Journal, JournalThread, Overtaken
from oracle.worker.schema import MIGRATIONS
from oracle.worker.states import OPEN, State
from tests.journal_kit import AGREED, AGREEMENT, block, ended, log, requested, state, task, word


def test_a_posted_signature_fills_the_place_that_the_activation_left_empty(journal: Journal) -> None:
    key = SigningKey.generate()
    agreement = AGREED.model_copy(update={"fn": AGREED.fn.model_copy(update={"owner": key.address}), "data": ()})
    signature, another = key.sign(AGREEMENT), SigningKey.generate().sign(AGREEMENT)

    def signatures() -> tuple[bytes, ...]:
        stored = journal.agreement(AGREEMENT)
        assert stored is not None
        return stored.signatures

    journal.take_in([AgreementApproved(AGREEMENT, key.address, signature, log(1, 1))], block(1))
    journal.take_in([AgreementActivated(AGREEMENT, agreement, (b"",), log(2, 1))], block(2))
    assert signatures() == (signature,)
    # What no key of the account's made is a contract's, or an endpoint's invention.
    journal.take_in([AgreementApproved(AGREEMENT, key.address, another, log(3, 1))], block(3))
    assert signatures() == (signature,)
    journal.rewind(0, word(0))
    journal.take_in([AgreementActivated(AGREEMENT, agreement, (b"",), log(2, 1, 1))], block(2, 1))
    assert signatures() == (b"",)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


def test_a_request_survives_a_restart_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    event = requested(1, 5)
    assert journal.take_in([event], block(5)) == 1
    journal.close()
    again = Journal(tmp_path / "j")
    found = task(again, 1)
    assert (found.request, found.uri, found.state, found.block_number) == (event.request, event.uri, State.SEEN, 5)
    assert again.cursor() == (5, word(5))
    again.close()


def test_an_event_that_comes_twice_counts_once(journal: Journal) -> None:
    journal.take_in([requested(1, 5), ended(1, 5)], block(5))
    assert journal.take_in([requested(1, 5), ended(1, 5)], block(6)) == 0
    assert state(journal, 1) is State.CANCELLED


def test_a_failure_in_the_middle_takes_events_and_cursor_back_together(journal: Journal) -> None:
    journal.take_in([], block(4))
    broken = requested(2, 5)
    object.__setattr__(broken.log, "index", "no number")
    with pytest.raises(sqlite3.Error):
        journal.take_in([requested(1, 5), broken], block(5))
    assert journal.cursor() == (4, word(4))
    assert journal.task(word(1)) is None


def test_a_reorganisation_orphans_a_request_and_the_new_chain_brings_it_back(journal: Journal) -> None:
    journal.take_in([], block(4))
    journal.take_in([requested(1, 5)], block(5))
    journal.rewind(4, word(4))
    assert state(journal, 1) is State.ORPHANED
    assert journal.due(1e12, 10) == []
    journal.take_in([requested(1, 6, fork=1)], block(6, fork=1))
    assert state(journal, 1) is State.SEEN
    assert task(journal, 1).block_number == 6


def test_a_reorganisation_that_takes_an_end_away_reopens_the_task(journal: Journal) -> None:
    journal.take_in([requested(1, 5)], block(5))
    journal.take_in([ended(1, 6)], block(6))
    journal.rewind(5, word(5))
    assert state(journal, 1) is State.SEEN
    assert journal.due(0.0, 10) == [word(1)]


def test_a_reorganisation_below_the_end_leaves_the_task_ended(journal: Journal) -> None:
    journal.take_in([requested(1, 5), ended(1, 5)], block(5))
    journal.take_in([], block(6))
    journal.rewind(5, word(5))
    assert state(journal, 1) is State.CANCELLED


def test_work_on_a_task_that_the_chain_moved_is_overtaken(journal: Journal) -> None:
    journal.take_in([requested(1, 5)], block(5))
    held = task(journal, 1)
    journal.take_in([ended(1, 6)], block(6))
    with pytest.raises(Overtaken):
        journal.give_up(held, State.FAILED, "code", "reason")
    assert state(journal, 1) is State.CANCELLED


def test_an_illegal_move_is_a_bug_and_changes_nothing(journal: Journal) -> None:
    journal.take_in([requested(1, 5)], block(5))
    with pytest.raises(Bug):
        journal.settling(task(journal, 1), bytes(32))
    assert state(journal, 1) is State.SEEN


def test_a_task_that_waits_is_due_at_its_time_and_attempts_are_counted(journal: Journal) -> None:
    journal.take_in([requested(1, 5)], block(5))
    journal.retry(word(1), 100.0, "broker.down", "why")
    journal.retry(word(1), 200.0, "task.delay", "why", counts=False)
    found = task(journal, 1)
    assert (found.attempts, found.next_try, found.code) == (1, 200.0, "task.delay")
    assert journal.due(199.0, 10) == []
    assert journal.due(200.0, 10) == [word(1)]
    assert journal.next_try(150.0) == 200.0


def test_what_was_given_up_can_be_tried_again(journal: Journal) -> None:
    journal.take_in([requested(1, 5), requested(2, 5)], block(5))
    journal.give_up(task(journal, 1), State.SKIPPED, "plan.kind", "why")
    journal.give_up(task(journal, 2), State.PARKED, "bug", "why")
    assert journal.try_again((State.SKIPPED,)) == 1
    assert (state(journal, 1), state(journal, 2)) == (State.SEEN, State.PARKED)


def test_a_second_worker_is_kept_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with pytest.raises(Permanent) as raised:
        Journal(tmp_path / "j")
    assert raised.value.code == "journal.locked"
    journal.close()
    Journal(tmp_path / "j").close()


def test_a_journal_of_a_later_release_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "j").close()
    with sqlite3.connect(tmp_path / "j") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(Permanent) as raised:
        Journal(tmp_path / "j")
    assert raised.value.code == "journal.newer"


class Chain(RuleBasedStateMachine):
    """A chain that grows and reorganises; after each step the journal's tasks are those of a journal that saw only the
    chain as it now stands."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.path = Path(self._temporary.name)
        self.journal = Journal(self.path / "j")
        self.blocks: list[tuple[Block, list[Event]]] = []
        self.fork = 0
        self.open: list[int] = []

    def teardown(self) -> None:
        self.journal.close()
        self._temporary.cleanup()

    @rule(new=st.sets(st.integers(1, 6), max_size=3), over=st.sets(st.integers(1, 6), max_size=2))
    def grow(self, new: set[int], over: set[int]) -> None:
        number = len(self.blocks) + 1
        known, closed = self._tasks()
        events: list[Event] = [requested(n, number, self.fork) for n in sorted(new - known)]
        events += [ended(n, number, "TaskExpired", self.fork) for n in sorted((over & known) - closed)]
        self.blocks.append((block(number, self.fork), events))
        self.journal.take_in(events, block(number, self.fork))

    @precondition(lambda self: len(self.blocks) > 1)
    @rule(data=st.data())
    def reorganise(self, data: st.DataObject) -> None:
        keep = data.draw(st.integers(1, len(self.blocks) - 1))
        del self.blocks[keep:]
        self.fork = (self.fork + 1) % 250
        head = self.blocks[-1][0]
        self.journal.rewind(head.number, head.hash)

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path / "j")

    def _tasks(self) -> tuple[set[int], set[int]]:
        events = [event for _, found in self.blocks for event in found]
        known = {int.from_bytes(e.task_id[1:], "big") for e in events if isinstance(e, TaskRequested)}
        closed = {int.from_bytes(e.task_id[1:], "big") for e in events if isinstance(e, TaskEnded)}
        return known, closed

    @invariant()
    def tasks_are_those_of_the_chain(self) -> None:
        known, closed = self._tasks()
        found = {int.from_bytes(t.id[1:], "big"): t.state for t in self.journal.tasks()}
        assert {n for n, s in found.items() if s in OPEN} == known - closed
        assert {n for n, s in found.items() if s is State.EXPIRED} == closed
        assert {n for n, s in found.items() if s is State.ORPHANED} == found.keys() - known


Chain.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestChain = Chain.TestCase


async def test_what_is_asked_at_once_is_done_in_order_and_each_caller_hears_of_its_own(tmp_path: Path) -> None:
    db, done = JournalThread(tmp_path / "journal.sqlite"), []

    def work(number: int) -> int:
        done.append(number)
        if number % 7 == 3:
            raise Overtaken
        return number

    answers = await asyncio.gather(*(db(work, number) for number in range(100)), return_exceptions=True)
    assert done == list(range(100))
    wrong = [n for n, answer in enumerate(answers) if answer != n and not isinstance(answer, Overtaken)]
    assert (wrong, sum(isinstance(answer, Overtaken) for answer in answers)) == ([], 14)
    assert await db(work, 8) == 8  # the thread had come to rest
    db.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await db(work, 1)


async def test_a_write_whose_caller_gave_up_is_done_all_the_same(tmp_path: Path) -> None:
    db, may_go, done = JournalThread(tmp_path / "journal.sqlite"), threading.Event(), []

    def work(number: int) -> None:
        may_go.wait(10)
        done.append(number)

    callers = [asyncio.create_task(db(work, number)) for number in range(3)]
    await asyncio.sleep(0)
    callers[1].cancel()
    await asyncio.sleep(0)
    may_go.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert (done, isinstance(outcomes[1], asyncio.CancelledError)) == ([0, 1, 2], True)
    db.close()
