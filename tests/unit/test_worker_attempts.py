"""Every error is one of three kinds, and each kind has one end."""

from __future__ import annotations

import pytest

from oracle.errors import Bug, Permanent, Refused, Retryable
from oracle.worker.attempts import Attempts, End, Wait
from oracle.worker.plan import DeadlinePassed, NotOurs, NotYet
from oracle.worker.states import State

TASK = b"\1" * 32


def attempts() -> Attempts:
    return Attempts(first=1.0, most=8.0, poll=0.25, max_runs=3)


@pytest.mark.parametrize(
    ("error", "state", "code", "bug"),
    [
        (DeadlinePassed("task.deadline", "late"), State.EXPIRED, "task.deadline", False),
        (NotOurs("plan.fee", "too little"), State.SKIPPED, "plan.fee", False),
        (Permanent("enclave.refused", "never"), State.FAILED, "enclave.refused", False),
        (Refused("request.spend", "broken rule"), State.FAILED, "request.spend", False),
        (Bug("journal.move", "wrong"), State.PARKED, "journal.move", True),
        (ValueError("a secret"), State.PARKED, "ValueError", True),
    ],
)
def test_an_error_that_another_try_does_not_mend_ends_the_task(
    error: Exception, state: State, code: str, bug: bool
) -> None:
    end = attempts().judge(TASK, error, 0)
    assert isinstance(end, End)
    assert (end.state, end.code, end.bug) == (state, code, bug)
    assert "secret" not in end.reason


def test_a_retryable_error_waits_longer_each_time_up_to_a_bound_with_jitter() -> None:
    judge = attempts()
    for number, longest in ((0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (10, 8.0), (10**9, 8.0)):
        pauses = {_wait(judge, number).pause for _ in range(50)}
        assert all(longest / 2 <= pause <= longest for pause in pauses)
        assert len(pauses) > 1
    assert judge.longest == 8.0


def _wait(judge: Attempts, number: int) -> Wait:
    wait = judge.judge(TASK, Retryable("storage.http", "down"), number)
    assert isinstance(wait, Wait)
    assert wait.counts
    return wait


def test_waiting_for_the_chain_or_for_ones_turn_is_no_failed_attempt() -> None:
    judge = attempts()
    assert judge.judge(TASK, NotYet("task.delay", "soon"), 7) == Wait(0.25, "task.delay", "soon", counts=False)
    turn = NotYet("task.turn", "later", seconds=12.0)
    assert judge.judge(TASK, turn, 7) == Wait(12.0, "task.turn", "later", counts=False)


def test_a_function_that_never_fits_is_parked_after_some_runs_and_counts_anew_once_it_is_over() -> None:
    judge = attempts()
    fault = Retryable("run.memory", "too much")
    assert [type(judge.judge(TASK, fault, n)) for n in range(3)] == [Wait, Wait, End]
    end = judge.judge(TASK, fault, 3)
    assert isinstance(end, End)
    assert (end.state, end.bug) == (State.PARKED, False)
    judge.forget(TASK)
    assert isinstance(judge.judge(TASK, fault, 0), Wait)
