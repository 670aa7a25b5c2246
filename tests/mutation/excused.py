"""Mutants that no test can catch, each with the reason. A name that is no mutant's, or that a test catches, is an error."""

from __future__ import annotations

EXCUSED: dict[str, str] = {
    "AgreementRegistry.sol: _partiesOf: constant 1: list = new address[](a.data.length + 1);": "its count is set later",
    "AgreementRegistry.sol: _limitOf: comparison: admission.quota < perRequester": "of two that are equal either is the smaller",
    "AgreementTerms.sol: _text: comparison: length < 32": "no field's name has 32 bytes",
    "AgreementTerms.sol: _text: constant 32: while (length < 32 && field[length] != 0) ++length;": "no field's name has 32 bytes",
    "ComputeOracle.sol: fulfilMany: ComputeOracle_NothingToSettle": "`_close` says the same of none",
    "ComputeOracle.sol: cancel: credit: _credit(token, r.requester, slot.escrow())": "`cancel` lets nobody but the requester in",
    "ComputeOracle.sol: _checkGas: comparison: available < needed": "one unit of gas, less than what follows takes",
    "Payments.sol: pull: comparison: left < before": "of a balance that did not move zero is left, and zero more came",
    "TaskSlot.sol: requested: constant CALLBACK: (calledBack ? CALLBACK : 0) | uint256(TaskState.REQUESTED) |": "REQUESTED is 1",
}
