"""What each refusal of the contract means for a task."""

from __future__ import annotations

import pytest

from enclave_app.protocol.structs import TaskState
from oracle.chain.abi import load
from oracle.errors import Reverted
from oracle.worker import settle
from oracle.worker.settle import Verdict, judge


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        (TaskState.NONE, Verdict.LATER),
        (TaskState.FULFILLED, Verdict.SETTLED),
        (TaskState.FAILED, Verdict.SETTLED),
        (TaskState.CANCELLED, Verdict.CANCELLED),
        (TaskState.EXPIRED, Verdict.EXPIRED),
    ],
)
def test_not_requested_is_judged_by_the_state_it_names(state: TaskState, verdict: Verdict) -> None:
    refusal = Reverted("ComputeOracle_NotRequested", {"taskId": bytes(32), "state": int(state)})
    assert judge(refusal) is verdict


def test_every_refusal_that_is_listed_exists_in_the_contract() -> None:
    declared = {error["name"] for name in ("ComputeOracle", "EnclaveRegistry") for error in load(name)._errors.values()}
    assert set(settle._BY_NAME) <= declared


def test_every_refusal_of_the_contract_is_judged_or_is_of_another_function() -> None:
    declared = {error["name"] for error in load("ComputeOracle")._errors.values()}
    judged = {"ComputeOracle_NotRequested", "ComputeOracle_NothingToSettle", *settle._BY_NAME}
    assert declared - judged == settle.NOT_OF_A_SETTLEMENT
    assert not judged & settle.NOT_OF_A_SETTLEMENT


def test_what_settles_nothing_is_looked_at_again() -> None:
    assert judge(Reverted("ComputeOracle_NothingToSettle", {})) is Verdict.LATER


@pytest.mark.parametrize("name", ["ComputeOracle_BadSignature", "ComputeOracle_WrongSettlement", "Unknown"])
def test_a_refusal_that_time_does_not_mend_is_final(name: str) -> None:
    assert judge(Reverted(name, {})) is Verdict.NEVER
