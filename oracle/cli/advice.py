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
    "ComputeOracle_WrongPayment": "The agreed fee goes with the request, exactly, where it is in the chain's own coin",
    "ComputeOracle_FeeAboveMax": "The agreement's fee is above what the requester signed for",
    "ComputeOracle_BadAsOf": "A request is taken for an hour after it was made: sign a new one",
    "ComputeOracle_BadRequestSignature": "The requester did not sign this request, or it is a contract that says so",
    "ComputeOracle_TaskExists": "It was brought already: `oracle task watch` says how it stands",
    "ComputeOracle_WrongReceived": "This token takes a fee of its own, or does not pay: no task can be paid in it",
    "ComputeOracle_NoFailedCallback": "Its callback was made, or it has none; nothing is left to do",
    "ComputeOracle_CallbackFailedAgain": "The contract that asked refuses the answer; its owner has to look why",
    "ComputeOracle_NothingToDistribute": "The agreement's pool is empty",
    "ComputeOracle_NothingToWithdraw": "The contract holds nothing for this wallet",
    "ComputeOracle_WithdrawalFailed": "The receiver does not take the chain's coin",
    "AgreementRegistry_AlreadyActivated": "Nothing is left to do: it is in force; see `oracle agreement status`",
    "AgreementRegistry_NotActive": "It was never activated, is suspended, or has ended; see `oracle agreement status`",
    "AgreementRegistry_NotAParty": "Only a data owner or the function's owner may do this; is it the right wallet?",
    "AgreementRegistry_OutsideWindow": "The agreement is not valid at this time; see `oracle agreement status`",
    "AgreementRegistry_ActivationClosed": "The time in which it could be activated is over: draft and sign a new one",
    "AgreementRegistry_QuotaSpent": "All agreed requests were made; the parties would have to sign a new agreement",
    "AgreementRegistry_RequesterQuotaSpent": "This wallet has made all requests that the agreement gives it",
    "AgreementRegistry_RequesterNotAllowed": "The agreement does not list this wallet as a requester",
    "AgreementRegistry_WrongAdmission": "Other datasets or requesters than were agreed: is it the right agreement's file?",
    "AgreementRegistry_NoConsent": "A party has not signed yet: `oracle agreement show` says who",
    "AgreementRegistry_AlreadyRevoked": "This wallet has taken its consent back already",
    "AgreementRegistry_NotAudited": "Too few of the agreed auditors approved the function: `oracle function approve`",
    "AgreementRegistry_WrongAuditors": "The agreement's file has to hold the auditors that were agreed",
    "AgreementRegistry_UnknownPredecessor": "The agreement that it takes the place of was never active here",
    "AgreementRegistry_NoPartyOfPredecessor": "Only a party of the former agreement can have it replaced",
    "FunctionAudits_Withdrawn": "This approval was taken back; the auditor's own transaction can approve anew",
    "AgreementRegistry_RevokedBy": "A party took its consent back: draft and sign a new one",
}
"""By the error's name in the contracts' interfaces."""


def advice(code: str) -> str | None:
    return ADVICE.get(code.removeprefix("contract."))
