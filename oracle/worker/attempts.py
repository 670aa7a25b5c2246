"""What becomes of each error that stopped a task: wait and try again, or an end that a person can see.

Retryable   the task waits with back-off and jitter, kept in the journal, until its deadline
Permanent   the task is skipped, expired or failed, with its code
others      a bug: reported and parked for a person; never a crash loop
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass

from oracle.errors import OracleError, Permanent, Retryable
from oracle.logs import describe
from oracle.worker.plan import DeadlinePassed, NotOurs, NotYet
from oracle.worker.states import State

RUN_FAULTS = "run."
"""What codes of a run begin with that ran out of time or memory, or whose sandbox died: the host's matter, never signed (R19)."""


@dataclass(frozen=True)
class Wait:
    """Try again in `pause` seconds. `counts` says whether this was a failed attempt, and not a wait for the chain."""

    pause: float
    code: str
    message: str
    counts: bool


@dataclass(frozen=True)
class End:
    """The task is over here. `bug` says that somebody should be told."""

    state: State
    code: str
    reason: str
    bug: bool = False


class Attempts:
    """`first` and `most` bound the back-off, `poll` is the pace of blocks; all in seconds. `max_runs` is how often a task may
    fail in the enclave before it is parked: each run costs up to the agreed time."""

    def __init__(self, *, first: float, most: float, poll: float, max_runs: int) -> None:
        self._first, self._most, self._poll, self._max_runs = first, most, poll, max_runs
        self._runs: Counter[bytes] = Counter()

    @property
    def longest(self) -> float:
        """No task is ever told to wait longer for its next attempt."""
        return self._most

    def judge(self, task_id: bytes, error: Exception, attempts: int) -> Wait | End:
        """What to do about `error`, after `attempts` failed ones before it."""
        if isinstance(error, NotYet):
            return Wait(self._poll if error.seconds is None else error.seconds, error.code, error.message, counts=False)
        if isinstance(error, Retryable):
            if error.code.startswith(RUN_FAULTS):
                self._runs[task_id] += 1
                if self._runs[task_id] >= self._max_runs:
                    return End(State.PARKED, error.code, f"given up after {self._max_runs} runs: {error.message}")
            return Wait(self.backoff(attempts), error.code, error.message, counts=True)
        if isinstance(error, DeadlinePassed):
            return End(State.EXPIRED, error.code, error.message)
        if isinstance(error, NotOurs):
            return End(State.SKIPPED, error.code, error.message)
        if isinstance(error, Permanent):
            return End(State.FAILED, error.code, error.message)
        code = error.code if isinstance(error, OracleError) else type(error).__name__
        reason = error.message if isinstance(error, OracleError) else str(describe(error)["at"])
        return End(State.PARKED, code, reason, bug=True)

    def backoff(self, attempts: int) -> float:
        """Seconds: twice as long each time, up to `most`, and by chance between half of it and all."""
        longest = min(self._most, self._first * 2.0 ** min(attempts, 30))
        return longest * (0.5 + secrets.randbelow(1000) / 2000)

    def forget(self, task_id: bytes) -> None:
        """The task is over."""
        self._runs.pop(task_id, None)
