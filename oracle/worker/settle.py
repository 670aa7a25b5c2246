"""The settlement: simulate, send, wait, and know what each refusal of the contract means for the task."""

from __future__ import annotations

from enum import Enum, auto

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import Fulfilment, settlement
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.structs import Outcome, TaskState
from oracle.chain.abi import load
from oracle.chain.rpc import as_hex
from oracle.chain.sender import Receipt, Sender
from oracle.errors import Retryable, Reverted


class Verdict(Enum):
    """What a refusal of `fulfil` means."""

    SETTLED = auto()
    CANCELLED = auto()
    EXPIRED = auto()
    SIGNER_GONE = auto()
    """The result's signer is no longer good on chain; another one may be."""
    LATER = auto()
    NEVER = auto()


_BY_STATE = {
    TaskState.FULFILLED: Verdict.SETTLED,
    TaskState.FAILED: Verdict.SETTLED,
    TaskState.CANCELLED: Verdict.CANCELLED,
    TaskState.EXPIRED: Verdict.EXPIRED,
    # The request was reorganised away; the follower will say so.
    TaskState.NONE: Verdict.LATER,
}
_BY_NAME = {
    "ComputeOracle_DeadlinePassed": Verdict.EXPIRED,
    "ComputeOracle_NotEnoughGas": Verdict.LATER,
    "ComputeOracle_UnknownEnclave": Verdict.SIGNER_GONE,
    "ComputeOracle_EnclaveRetired": Verdict.SIGNER_GONE,
    "ComputeOracle_EnclaveExpired": Verdict.SIGNER_GONE,
    "ComputeOracle_EvidenceTooOld": Verdict.SIGNER_GONE,
    "ComputeOracle_TcbStatusNotAgreed": Verdict.SIGNER_GONE,
    "ComputeOracle_EvaluationTooLow": Verdict.SIGNER_GONE,
    "ComputeOracle_HostNotAgreed": Verdict.SIGNER_GONE,
    "ComputeOracle_MeasurementNotAgreed": Verdict.SIGNER_GONE,
    "EnclaveRegistry_WrongIdentity": Verdict.SIGNER_GONE,
}


def judge(refusal: Reverted) -> Verdict:
    """What to do about a refusal; one that is not known is final, so that no gas goes into a loop."""
    if refusal.name == "ComputeOracle_NotRequested":
        return _BY_STATE.get(TaskState(int(str(refusal.arguments["state"]))), Verdict.NEVER)
    return _BY_NAME.get(refusal.name, Verdict.NEVER)


class Settler:
    """Calls `fulfil` on one oracle. Safe to use for many tasks at once: nonces are the sender's."""

    def __init__(self, sender: Sender, oracle: str) -> None:
        self._sender, self._oracle, self._contract = sender, oracle, load("ComputeOracle")

    async def send(self, record: TaskRecord) -> bytes:
        """Simulate and send; the transaction's hash. Raises `Reverted` for a refusal, before anything is spent."""
        data = self._call(record)
        gas = await self._sender.estimate(self._oracle, data)
        # The contract wants the whole callbackGas to be left at the call, whatever the callback used in the simulation (R20).
        signed = await self._sender.submit(self._oracle, data, gas=gas + record.request.callback_gas)
        return signed.hash

    async def simulate(self, record: TaskRecord) -> None:
        """Raises `Reverted` for the reason why a settlement would be refused now."""
        await self._sender.estimate(self._oracle, self._call(record))

    async def wait(self, transaction_hash: bytes, patience: float) -> Receipt | None:
        """The receipt, or None for a transaction that no one knows any more."""
        try:
            return await self._sender.wait(transaction_hash, patience=patience)
        except Retryable as error:
            if error.code != "transaction.unmined":
                raise
            known = await self._sender.rpc.call("eth_getTransactionByHash", as_hex(transaction_hash))
            if known is not None:
                raise
            self._sender.forget_nonce()
            return None

    def _call(self, record: TaskRecord) -> bytes:
        return self._contract.call("fulfil", settlement(record.agreement), record.enclave, _fulfilment(record))


def _fulfilment(record: TaskRecord) -> Fulfilment:
    """The contract reads the request only where somebody is paid back, or called back."""
    told = record.result.outcome != Outcome.SUCCEEDED or record.request.callback != ZERO_ADDRESS
    return Fulfilment(
        result=record.result,
        signature=record.signature,
        public_outputs=(),
        request=(record.request,) if told else (),
    )
