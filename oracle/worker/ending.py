"""How a task ends: its result is offered to the contract, and it has ended once the followed chain says so."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.structs import Confirmation, TaskState
from oracle.chain.reader import OracleReader
from oracle.chain.source import Block, SingleSource
from oracle.errors import Bug, Retryable, Reverted
from oracle.logs import Log
from oracle.worker.hosts import Hosts
from oracle.worker.journal import JournalThread, Overtaken
from oracle.worker.rows import Task
from oracle.worker.settle import LATE, Verdict, judge
from oracle.worker.settlement import Settlements
from oracle.worker.states import ENDED, State
from oracle.worker.store import OutputStore

FOLLOWED_SECONDS = 1.0
"""How often a task that waits for a block looks by itself: blocks without news of ours are told to nobody."""
ENDS = {
    TaskState.FULFILLED: State.SETTLED,
    TaskState.FAILED: State.SETTLED,
    TaskState.CANCELLED: State.CANCELLED,
    TaskState.EXPIRED: State.EXPIRED,
}
RENEWABLE = ("ComputeOracle_EnclaveExpired", "ComputeOracle_EvidenceTooOld", "ComputeOracle_UnknownEnclave")
"""Refusals that a renewal of the same signer's registration mends."""


class Ending:
    """`oracle` is the address of the ComputeOracle."""

    def __init__(
        self,
        db: JournalThread,
        source: SingleSource,
        oracle: str,
        hosts: Hosts,
        settler: Settlements,
        outputs: OutputStore,
    ) -> None:
        self._db, self._journal = db, db.journal
        self._source, self._oracle, self._hosts = source, oracle, hosts
        self._settler, self._outputs = settler, outputs
        self._news = asyncio.Event()

    async def settle(self, task: Task, patience: float, log: Log) -> Task:
        """The signed result to the contract, which pays the payee in it (R20). `patience` in seconds is how long an attempt
        waits for its transaction, and then for the block to be followed."""
        record = recorded(task)
        try:
            if task.state is State.STORED:
                task = await self._settler.send(task)
            receipt = await self._settler.outcome(task, patience)
            if receipt is not None:
                task = await self._over(task, receipt.block_number, patience)
                log.info(
                    "task settled",
                    outcome=record.result.outcome,
                    transaction=receipt.transaction_hash.hex(),
                    block=receipt.block_number,
                    gas=receipt.gas_used,
                )
                return task
            task = await self._db(self._journal.stored, task)
            await self._settler.simulate(record)  # says why it was refused, if it still would be
            raise Retryable("settle.lost", "the settlement was dropped, or refused for a reason that has passed")
        except Reverted as refusal:
            return await self._refused(task, record, refusal, patience, log)

    def heard(self) -> None:
        """The chain was followed further, or rewound."""
        self._news.set()
        self._news = asyncio.Event()

    async def _over(self, task: Task, block_number: int, patience: float) -> Task:
        """The task as it is once the chain was followed up to the block that ends it.

        An end is the follower's word, because rewinds take it back; a receipt may be of a block that is gone by now. Where
        its log was not read, the contract's own state counts, at the block where the journal stands. Raises Retryable
        `chain.behind`, `settle.lost`, and Overtaken for another end than SETTLED."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    news = self._news
                    state, cursor = await self._db(self._journal.standing, task.id)
                    if state is State.SETTLED:
                        return replace(task, state=state)
                    if state is not task.state:
                        raise Overtaken
                    if cursor is not None and cursor[0] >= block_number:
                        block = await self._source.block(cursor[0])
                        if block is not None and block.hash == cursor[1]:
                            return await self._ended_at(task, block)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(FOLLOWED_SECONDS):
                            await news.wait()
        except TimeoutError:
            raise Retryable("chain.behind", "the block of the settlement is not followed yet") from None

    async def _ended_at(self, task: Task, block: Block) -> Task:
        """What the contract says of a task at a block that was followed without news of it."""
        on_chain = await OracleReader(self._source, self._oracle).task(task.agreement_id, task.id, block)
        end = ENDS.get(on_chain.state)
        if end is None:
            raise Retryable("settle.lost", "the chain that is followed does not hold the settlement")
        task = await self._db(self._journal.ended, task, end, block.number, block.hash)
        if end is not State.SETTLED:
            raise Overtaken
        return task

    async def write_receipt(self, task: Task, log: Log) -> None:
        """What a stranger can check, into storage, once the chain holds this worker's result and no other's."""
        receipt = await self._db(self._journal.receipt, task.id)
        if receipt is None:
            return
        record = recorded(task)
        head = await self._source.confirmed(Confirmation.LATEST)
        on_chain = await OracleReader(self._source, self._oracle).task(record.result.agreement_id, task.id, head)
        if on_chain.state not in (TaskState.FULFILLED, TaskState.FAILED):
            raise Retryable("receipt.early", "the chain does not have the settlement at its head", found=on_chain.state)
        ours = on_chain.settled_with(record.result.typed_digest(record.chain.oracle_domain(record.agreement)))
        if ours:
            await self._outputs.store_receipt(task.id, receipt)
        await self._db(self._journal.receipt_done, task.id)
        log.info("receipt written" if ours else "no receipt: the chain took another's result")

    async def _refused(self, task: Task, record: TaskRecord, refusal: Reverted, patience: float, log: Log) -> Task:
        verdict = judge(refusal)
        if refusal.name == LATE:
            task = await self._db(self._journal.ended, task, State.EXPIRED)
        elif verdict in (Verdict.SETTLED, Verdict.CANCELLED, Verdict.EXPIRED):
            # Said of the head; what is followed may be some blocks behind.
            head = await self._source.confirmed(Confirmation.LATEST)
            task = await self._over(task, head.number, patience)
        if task.state in ENDED:
            log.info("the task has ended on chain", state=task.state.value, reason=refusal.name)
            return task
        if verdict is Verdict.SIGNER_GONE:
            # What the contract says of a registration is newer than what was read of it.
            self._hosts.mistrust()
            if await self._hosts.holder(record) is None or refusal.name not in RENEWABLE:
                await self._db(self._journal.start_over, task)
        if verdict is Verdict.NEVER:
            raise refusal
        raise Retryable(refusal.code, f"the settlement has to wait: {refusal.message}")


def recorded(task: Task) -> TaskRecord:
    """What ran; raises Bug for a task that did not."""
    if task.record is None:
        raise Bug("journal.record", f"a task in state {task.state} has no record")
    return task.record
