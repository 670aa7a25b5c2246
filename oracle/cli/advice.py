"""What a person can do about a contract's refusal, which by itself says only a name and numbers."""

from __future__ import annotations

from typing import Final

ADVICE: Final = {
    "ComputeOracle_NotRequested": "The task has ended already, or was never requested: `oracle task watch` says which",
    "ComputeOracle_CancelClosed": "The agreement's release delay is over, or it has none: a request can then not be cancelled",
    "ComputeOracle_DeadlineNotPassed": "The task can still be answered; its fee comes back only after the deadline",
    "ComputeOracle_DeadlinePassed": "The task's deadline is over; `oracle task expire` returns the fee",
    "ComputeOracle_BadDeadline": "Give --seconds between 1 and 30 days",
    "ComputeOracle_NotRequester": "Only whoever asked may do this",
    "AgreementRegistry_AlreadyActivated": "Nothing is left to do: it is in force; see `oracle agreement status`",
    "AgreementRegistry_NotActive": "It was never activated, or is suspended or revoked; see `oracle agreement status`",
    "AgreementRegistry_NotAParty": "Only a data owner or the function's owner may do this; is it the right wallet?",
    "AgreementRegistry_OutsideWindow": "The agreement is not valid at this time; see `oracle agreement status`",
    "AgreementRegistry_ActivationClosed": "The time in which it could be activated is over: draft and sign a new one",
    "AgreementRegistry_QuotaSpent": "All agreed requests were made; the parties would have to sign a new agreement",
    "AgreementRegistry_RequesterQuotaSpent": "This wallet has made all requests that the agreement gives it",
    "AgreementRegistry_RequesterNotAllowed": "The agreement does not list this wallet as a requester",
    "AgreementRegistry_RevokedBy": "A party took its consent back: draft and sign a new one",
}
"""By the error's name in the contracts' interfaces."""


def advice(code: str) -> str | None:
    return ADVICE.get(code.removeprefix("contract."))
