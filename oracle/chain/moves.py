"""The life of a task and of an agreement: which moves there are, who makes them, and what they do with money.

The same tables as in IComputeOracle, IAgreementRegistry and docs/protocol.md; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

from enclave_app.protocol.structs import TaskState
from oracle.chain.reader import AgreementStatus
from oracle.errors import Refused


@dataclass(frozen=True)
class TaskMove:
    """A task that is in `state` and for which `by` calls `move` is in `to` afterwards. `money` says where its fee goes."""

    state: TaskState
    move: str
    by: str
    to: TaskState
    money: str


@dataclass(frozen=True)
class AgreementMove:
    """An agreement that has one of `states` and for which `by` calls `move` has one of `to` afterwards."""

    states: tuple[AgreementStatus, ...]
    move: str
    by: str
    to: tuple[AgreementStatus, ...]


TASK_MOVES = (
    TaskMove(
        TaskState.NONE,
        "request",
        "the requester, or anyone with its signature",
        TaskState.REQUESTED,
        "fee into escrow",
    ),
    TaskMove(
        TaskState.REQUESTED,
        "cancel",
        "the requester, not after block requestBlock + releaseDelay",
        TaskState.CANCELLED,
        "fee to the requester",
    ),
    TaskMove(
        TaskState.REQUESTED,
        "fulfil",
        "anyone, not after the deadline, with outcome 1",
        TaskState.FULFILLED,
        "shares to the agreement's pool, rest to the payee",
    ),
    TaskMove(
        TaskState.REQUESTED,
        "fulfil",
        "anyone, not after the deadline, with outcome 2",
        TaskState.FAILED,
        "`failedFee` to the payee, rest to the requester",
    ),
    TaskMove(
        TaskState.REQUESTED,
        "expire",
        "anyone, after the deadline",
        TaskState.EXPIRED,
        "`minFee` to the pool, rest to the requester",
    ),
)
STANDING = (AgreementStatus.ACTIVE, AgreementStatus.SUSPENDED)
AGREEMENT_MOVES = (
    AgreementMove((AgreementStatus.NONE,), "activate", "anyone with all the consents", (AgreementStatus.ACTIVE,)),
    AgreementMove(
        (AgreementStatus.NONE,),
        "revoke",
        "anyone, for itself: with the caller as a party it can never be activated",
        (AgreementStatus.NONE,),
    ),
    AgreementMove(STANDING, "suspend", "a party that did not", (AgreementStatus.SUSPENDED,)),
    AgreementMove(
        (AgreementStatus.SUSPENDED,), "resume", "a party that suspended; the last of them makes it Active", STANDING
    ),
    AgreementMove(STANDING, "revoke", "a party", (AgreementStatus.REVOKED,)),
    AgreementMove(
        STANDING,
        "supersede",
        "whoever activates another that names it, a party of this one among the other's",
        (AgreementStatus.SUPERSEDED,),
    ),
)
FINAL = frozenset(TaskState) - {move.state for move in TASK_MOVES}
"""What a task never leaves."""


def check_move(state: TaskState, move: str, to: TaskState) -> None:
    """Raises Refused `task.move` for a move that no task makes: what told of it is not our contract."""
    if not any((known.state, known.move, known.to) == (state, move, to) for known in TASK_MOVES):
        raise Refused("task.move", f"no task goes from {state.name} to {to.name} by {move}")
