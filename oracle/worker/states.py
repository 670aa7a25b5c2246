"""The life of a task in the journal, as a table: states, legal moves, who moves them.

    seen ── plan, release, run ──▶ ran ── store ──▶ stored ── send ──▶ settling ── receipt ──▶ settled

There is no state between `seen` and `ran`: a release answers a nonce that lives in the enclave's memory (R12), so it cannot
be resumed from a disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from oracle.errors import Bug


class State(StrEnum):
    SEEN = "seen"
    RAN = "ran"
    STORED = "stored"
    SETTLING = "settling"
    SETTLED = "settled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SKIPPED = "skipped"
    FAILED = "failed"
    PARKED = "parked"
    ABANDONED = "abandoned"
    ORPHANED = "orphaned"


class Mover(StrEnum):
    CHAIN = "chain"
    """The follower, on what logs say."""
    WORKER = "worker"
    """The pipeline, on what it did or found."""
    OPERATOR = "operator"
    """A person, or a start of the worker, which is one's doing."""


OPEN = (State.SEEN, State.RAN, State.STORED, State.SETTLING)
"""What the worker still has to do something about."""
ENDED = (State.SETTLED, State.CANCELLED, State.EXPIRED)
GIVEN_UP = (State.SKIPPED, State.FAILED, State.PARKED, State.ABANDONED)


@dataclass(frozen=True)
class Move:
    source: State
    target: State
    by: Mover
    why: str


def _moves(sources: tuple[State, ...], target: State, by: Mover, why: str) -> tuple[Move, ...]:
    return tuple(Move(source, target, by, why) for source in sources if source is not target)


MOVES: tuple[Move, ...] = (
    Move(State.SEEN, State.RAN, Mover.WORKER, "the enclave gave a signed result"),
    Move(State.RAN, State.STORED, Mover.WORKER, "outputs and record are in storage"),
    Move(State.STORED, State.SETTLING, Mover.WORKER, "the settlement was sent"),
    Move(State.SETTLING, State.STORED, Mover.WORKER, "the settlement was dropped, or reverted for a passing reason"),
    *_moves((State.STORED, State.SETTLING), State.SETTLED, Mover.WORKER, "the chain has a result"),
    Move(State.RAN, State.SEEN, Mover.WORKER, "the enclave that held the outputs is gone"),
    *_moves((State.STORED, State.SETTLING), State.SEEN, Mover.WORKER, "the result's signer is no longer registered"),
    *_moves((State.STORED, State.SETTLING), State.CANCELLED, Mover.WORKER, "the contract says so at settlement"),
    *_moves(OPEN, State.EXPIRED, Mover.WORKER, "the deadline has passed"),
    Move(State.SEEN, State.SKIPPED, Mover.WORKER, "the plan says it is not ours"),
    *_moves(OPEN, State.FAILED, Mover.WORKER, "a permanent error"),
    *_moves(OPEN, State.PARKED, Mover.WORKER, "a bug; a person has to look"),
    *_moves(tuple(State), State.SETTLED, Mover.CHAIN, "TaskFulfilled"),
    *_moves(tuple(State), State.CANCELLED, Mover.CHAIN, "TaskCancelled"),
    *_moves(tuple(State), State.EXPIRED, Mover.CHAIN, "TaskExpired"),
    *_moves(tuple(State), State.ORPHANED, Mover.CHAIN, "a reorganisation removed the request"),
    # What a task goes back to when a reorganisation takes its end away, or brings its request again (R14: the same task).
    *_moves((*ENDED, State.ORPHANED), State.SEEN, Mover.CHAIN, "reorganised; nothing was done yet"),
    *_moves((*ENDED, State.ORPHANED), State.RAN, Mover.CHAIN, "reorganised; there is a result"),
    *_moves((*ENDED, State.ORPHANED), State.STORED, Mover.CHAIN, "reorganised; outputs are stored"),
    *_moves((*OPEN, *GIVEN_UP), State.ABANDONED, Mover.OPERATOR, "not to be done here"),
    *_moves(GIVEN_UP, State.SEEN, Mover.OPERATOR, "try again"),
    *_moves(GIVEN_UP, State.RAN, Mover.OPERATOR, "try again from its result"),
    *_moves(GIVEN_UP, State.STORED, Mover.OPERATOR, "try again from its stored result"),
)

LEGAL = frozenset((move.source, move.target, move.by) for move in MOVES)


def check_move(source: State, target: State, by: Mover) -> None:
    """Raise `Bug` for a move that is not in the table."""
    if (source, target, by) not in LEGAL:
        raise Bug("journal.move", f"the {by} may not move a task from {source} to {target}")
