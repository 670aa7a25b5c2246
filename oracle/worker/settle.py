"""The settlement: simulate, send, wait, and know what each refusal of the contract means for the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import Fulfilment, settlement
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.structs import Batch, Outcome, TaskState
from oracle.chain.abi import load
from oracle.chain.fees import TRANSACTION_GAS
from oracle.chain.rpc import as_hex
from oracle.chain.sender import Receipt, Sender
from oracle.errors import Bug, Refused, Retryable, Reverted

GAS_FIRST: Final = 1_000_000
GAS_PER_TASK: Final = 60_000
GAS_PER_BYTE: Final = 60
"""More than a settlement takes: for base and identity, for a task's storage, and for each byte that tells of it, which is
calldata, memory, a digest's input and part of an event."""


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
LATE: Final = "ComputeOracle_DeadlinePassed"
_BY_NAME = {
    LATE: Verdict.EXPIRED,
    "ComputeOracle_NotEnoughGas": Verdict.LATER,
    # A callback was under way in the block that was simulated on.
    "ReentrancyGuardReentrantCall": Verdict.LATER,
    "ComputeOracle_UnknownEnclave": Verdict.SIGNER_GONE,
    "ComputeOracle_EnclaveRetired": Verdict.SIGNER_GONE,
    "ComputeOracle_EnclaveExpired": Verdict.SIGNER_GONE,
    "ComputeOracle_EvidenceTooOld": Verdict.SIGNER_GONE,
    "ComputeOracle_TcbStatusNotAgreed": Verdict.SIGNER_GONE,
    "ComputeOracle_EvaluationTooLow": Verdict.SIGNER_GONE,
    "ComputeOracle_HostNotAgreed": Verdict.SIGNER_GONE,
    "ComputeOracle_MeasurementNotAgreed": Verdict.SIGNER_GONE,
    "EnclaveRegistry_WrongIdentity": Verdict.SIGNER_GONE,
    # What is wrong with the result or with how it is shown: no time and no other block mends it.
    "ComputeOracle_AnchorNotAgreed": Verdict.NEVER,
    "ComputeOracle_BadOutcome": Verdict.NEVER,
    "ComputeOracle_BadSignature": Verdict.NEVER,
    "ComputeOracle_CallsBack": Verdict.NEVER,
    "ComputeOracle_RequestMissing": Verdict.NEVER,
    "ComputeOracle_WrongAgreement": Verdict.NEVER,
    "ComputeOracle_WrongBatch": Verdict.NEVER,
    "ComputeOracle_WrongOutputs": Verdict.NEVER,
    "ComputeOracle_WrongPublicOutput": Verdict.NEVER,
    "ComputeOracle_WrongPublicOutputCount": Verdict.NEVER,
    "ComputeOracle_WrongSettlement": Verdict.NEVER,
    "ComputeOracle_WrongTask": Verdict.NEVER,
    "ComputeOracle_ZeroPayee": Verdict.NEVER,
    # The token of the agreement refuses the payee or someone else who is paid at once: nothing that a retry mends.
    "SafeERC20FailedOperation": Verdict.NEVER,
}
"""Every refusal that `fulfil` and its like can give, but for NotRequested, which says a state, and NothingToSettle, after
which each task is asked about alone."""
NOT_OF_A_SETTLEMENT: Final = frozenset({
    "ComputeOracle_BadAsOf",
    "ComputeOracle_BadCallback",
    "ComputeOracle_BadCallbackGas",
    "ComputeOracle_BadDeadline",
    "ComputeOracle_BadPaymentKind",
    "ComputeOracle_BadRequestSignature",
    "ComputeOracle_CallbackFailedAgain",
    "ComputeOracle_CancelClosed",
    "ComputeOracle_DeadlineNotPassed",
    "ComputeOracle_FeeAboveMax",
    "ComputeOracle_NoFailedCallback",
    "ComputeOracle_NotAContract",
    "ComputeOracle_NotRequester",
    "ComputeOracle_NotYetSupported",
    "ComputeOracle_NothingToDistribute",
    "ComputeOracle_NothingToWithdraw",
    "ComputeOracle_ParamsTooLong",
    "ComputeOracle_TaskExists",
    "ComputeOracle_UriTooLong",
    "ComputeOracle_WithdrawalFailed",
    "ComputeOracle_WrongPayment",
    "ComputeOracle_WrongReceived",
    "ComputeOracle_WrongResult",
    "InvalidShortString",
    "StringTooLong",
})  # fmt: skip
"""Refusals of the contract's other functions."""


def judge(refusal: Reverted) -> Verdict:
    """What to do about a refusal; one that is not known is final, so that no gas goes into a loop."""
    if refusal.name == "ComputeOracle_NotRequested":
        return _BY_STATE.get(TaskState(int(str(refusal.arguments["state"]))), Verdict.NEVER)
    if refusal.name == "ComputeOracle_NothingToSettle":
        return Verdict.LATER
    return _BY_NAME.get(refusal.name, Verdict.NEVER)


@dataclass(frozen=True)
class Sent:
    """A transaction, and the tasks that it settles where nobody settled them before."""

    hash: bytes
    tasks: tuple[bytes, ...]


@dataclass(frozen=True)
class Part:
    """What fits one transaction to `oracle`: `call` needs `gas`. It was simulated."""

    records: tuple[TaskRecord, ...]
    call: bytes
    gas: int


class Settler:
    """Settles on one oracle, with at most `transaction_gas` in a transaction of several tasks. Safe to use for many tasks at
    once: nonces are the sender's."""

    def __init__(self, sender: Sender, oracle: str, transaction_gas: int = TRANSACTION_GAS) -> None:
        self._sender, self.oracle, self._contract = sender, oracle, load("ComputeOracle")
        self._most = transaction_gas

    async def send(self, record: TaskRecord) -> bytes:
        """Simulate and send; the transaction's hash. Raises `Reverted` for a refusal, before anything is spent."""
        return (await self._send(await self.prepare(record))).hash

    async def prepare(self, record: TaskRecord) -> Part:
        """Simulated, to be sent. Raises `Reverted`."""
        data = self._call(record)
        gas = await self._sender.estimate(self.oracle, data)
        # The contract wants the whole callbackGas to be left at the call, whatever the callback used in the simulation (R20).
        return Part((record,), data, min(gas + record.request.callback_gas, TRANSACTION_GAS))

    async def send_many(self, records: Sequence[TaskRecord]) -> tuple[Sent, ...]:
        """Settle tasks of one agreement that one enclave ran, in as few transactions as gas allows.

        All are simulated before the first is sent. The contract leaves out tasks that somebody settled before, or that are
        late; what would settle none is not sent. Raises Refused `settle.mixed`, and `Reverted` for any other refusal, before
        anything is spent.
        """
        return tuple([await self._send(part) for part in await self.prepare_many(records)])

    async def prepare_many(self, records: Sequence[TaskRecord]) -> tuple[Part, ...]:
        """What `send_many` sends. Raises as that."""
        if len({group_of(record) for record in records}) > 1:
            raise Refused("settle.mixed", "results of several agreements or enclaves are not settled together")
        ready = [await self._simulated(part) for part in _parts(records, self._most)]
        return tuple(part for part in ready if part is not None)

    async def send_batch(self, records: Sequence[TaskRecord], batch: Batch, signature: bytes) -> Sent | None:
        """Settle these tasks by the enclave's one signature; None where the contract would leave all of them out.

        Raises Refused `settle.batch` where it is not a batch of these results in this order, and `settle.gas` where it is too
        large for one transaction: nobody can split it, so the enclave has to sign smaller ones. `Reverted` as `send_many`.
        """
        domain = records[0].chain.oracle_domain(records[0].agreement)
        results = [(r.result.task_id, r.result.typed_digest(domain)) for r in records]
        if list(zip(batch.tasks, batch.results, strict=False)) != results or len(batch.tasks) != len(batch.results):
            raise Refused("settle.batch", "the enclave signed a batch of other results than it was asked for")
        call = self._contract.call(
            "fulfilBatch", settlement(records[0].agreement), records[0].enclave, batch, signature
        )
        gas = await self._estimate(call)
        if gas is None:
            return None
        if gas > self._most:
            raise Refused("settle.gas", "a batch needs more gas than a transaction may have", found=gas)
        return await self._send(Part(tuple(records), call, gas))

    async def _simulated(self, records: Sequence[TaskRecord]) -> Part | None:
        """None where nothing of it would be settled."""
        first = records[0]
        fulfilments = [_fulfilment(record) for record in records]
        call = self._contract.call("fulfilMany", settlement(first.agreement), first.enclave, fulfilments)
        gas = await self._estimate(call)
        if gas is None:
            return None
        gas += sum(record.request.callback_gas for record in records)
        if gas > self._most:
            raise Bug(
                "settle.gas", "tasks that should have fit do not fit one transaction", found=gas, expected=self._most
            )
        return Part(tuple(records), call, gas)

    async def _estimate(self, call: bytes) -> int | None:
        """None where nothing would be settled."""
        try:
            return await self._sender.estimate(self.oracle, call)
        except Reverted as refusal:
            if refusal.name == "ComputeOracle_NothingToSettle":
                return None
            raise

    async def _send(self, part: Part) -> Sent:
        signed = await self._sender.submit(self.oracle, part.call, gas=part.gas)
        return Sent(signed.hash, tuple(record.result.task_id for record in part.records))

    async def simulate(self, record: TaskRecord) -> None:
        """Raises `Reverted` for the reason why a settlement would be refused now."""
        await self._sender.estimate(self.oracle, self._call(record))

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


def group_of(record: TaskRecord) -> tuple[bytes, bytes, str, bytes]:
    """What results have in common that one transaction can settle."""
    return (record.result.agreement_id, record.result.anchor, record.signer, record.enclave.digest)


def _parts(records: Sequence[TaskRecord], most: int) -> list[list[TaskRecord]]:
    """In order, as many together as surely fit: a node does not estimate what is above the cap."""
    parts: list[list[TaskRecord]] = []
    room = 0
    for record in records:
        told = len(_fulfilment(record).abi_encode())
        needed = GAS_PER_TASK + GAS_PER_BYTE * told + 2 * record.request.callback_gas
        if needed > room:
            parts.append([])
            room = most - GAS_FIRST
        parts[-1].append(record)
        room -= needed
    return parts


def _fulfilment(record: TaskRecord) -> Fulfilment:
    """The contract reads the request only where somebody is paid back, or called back."""
    told = record.result.outcome != Outcome.SUCCEEDED or record.request.callback != ZERO_ADDRESS
    return Fulfilment(
        result=record.result,
        signature=record.signature,
        public_outputs=record.public_outputs,
        request=(record.request,) if told else (),
    )
