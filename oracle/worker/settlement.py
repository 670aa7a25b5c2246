"""Settlements of many tasks: what is ready at the same time goes in one transaction, and nobody waits long for company.

Results of one agreement by one enclave can share a transaction, which saves the base cost and the enclave's checks. A member
that the contract refuses takes none of the others down: they go without it, and it is told alone why.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Final

from enclave_app.protocol.release import TaskRecord
from oracle.chain.events import TaskSettled, logs_of_receipt, read_event
from oracle.chain.sender import Receipt
from oracle.errors import Bug, OracleError, Retryable, Reverted
from oracle.logs import Log
from oracle.worker.journal import JournalThread, Overtaken
from oracle.worker.outbox import Outbox
from oracle.worker.rows import Task
from oracle.worker.settle import Part, Settler, group_of
from oracle.worker.states import State

SETTLE: Final = "settle"
MOST: Final = 64
"""Tasks that wait for one transaction; gas bounds it too."""


@dataclass(eq=False)
class _Member:
    task: Task
    record: TaskRecord
    sent: asyncio.Future[Task]


@dataclass
class _Group:
    """`busy_until` is the monotonic time up to which more of the same is expected."""

    members: list[_Member] = field(default_factory=list)
    worker: asyncio.Task[None] | None = None
    busy_until: float = 0.0


class Settlements:
    """Settles stored tasks on one oracle through the outbox. `window` in seconds is how long a task waits for company, where
    there was some lately; one that comes alone does not wait."""

    def __init__(self, outbox: Outbox, db: JournalThread, oracle: str, *, window: float = 0.05) -> None:
        self._outbox, self._db, self._window = outbox, db, window
        self._settler = Settler(outbox, oracle)
        self._groups: dict[tuple[bytes, bytes, str, bytes], _Group] = {}
        self._newest: tuple[tuple[bytes, bytes], frozenset[bytes]] = (b"", b""), frozenset()
        self._log = Log("worker.settlement")
        self.transactions = 0
        """How many were sent."""
        self.together = 0
        """How many tasks went in company."""

    async def send(self, task: Task) -> Task:
        """STORED → SETTLING, in the same database transaction as what settles it. Raises `Reverted` for a refusal, before
        anything is spent, Overtaken where the chain moved the task, and what `Outbox.submit` raises."""
        record = task.record
        if record is None:
            raise Bug("journal.record", f"a task in state {task.state} has no record")
        alive = await self._outbox.alive(SETTLE, [task.id])
        if task.id in alive and await self._may_settle(alive[task.id], task.id):
            # A reorganisation took the settlement's block, not the settlement.
            return await self._db(self._db.journal.settling, task, alive[task.id])
        group = self._groups.setdefault(group_of(record), _Group())
        member = _Member(task, record, asyncio.get_running_loop().create_future())
        group.members.append(member)
        if group.worker is None:
            group.worker = asyncio.create_task(self._serve(group), name="settlement")
        try:
            return await member.sent
        except asyncio.CancelledError:
            if member in group.members:
                group.members.remove(member)
            raise

    async def _may_settle(self, transaction_hash: bytes, task_id: bytes) -> bool:
        """False for a transaction that is mined and left the task out."""
        receipt = await self._outbox.receipt(transaction_hash)
        return receipt is None or self._settles(receipt, task_id)

    def _settles(self, receipt: Receipt, task_id: bytes) -> bool:
        """Many tasks ask about one transaction."""
        known, settled = self._newest
        if known != (receipt.transaction_hash, receipt.block_hash):
            settled = settled_by(receipt)
            self._newest = (receipt.transaction_hash, receipt.block_hash), settled
        return task_id in settled

    async def outcome(self, task: Task, patience: float) -> Receipt | None:
        """The receipt of the transaction that settled the task; None where what was sent did not, or never will.

        Raises Retryable while it is under way, and `Reverted` where there is no receipt and the contract says that the task
        is not to be settled any more: then it was, if by this transaction or by another worker's."""
        if task.settlement is None:
            raise Bug("journal.settlement", "a task is being settled by no transaction")
        try:
            receipt = await self._outbox.outcome(task.settlement, patience)
        except Retryable:
            if task.record is not None:
                await self.simulate(task.record)  # where the task is settled or over, this raises what says so
            raise
        return receipt if receipt is not None and receipt.ok and self._settles(receipt, task.id) else None

    async def simulate(self, record: TaskRecord) -> None:
        """Raises `Reverted` for the reason why a settlement would be refused now."""
        await self._settler.simulate(record)

    async def _serve(self, group: _Group) -> None:
        """One transaction after the other; what comes while one is prepared goes together in the next."""
        while group.members:
            if len(group.members) > 1 or time.monotonic() < group.busy_until:
                await asyncio.sleep(self._window)
            members, group.members = group.members[:MOST], group.members[MOST:]
            members = [each for each in members if not each.sent.done()]
            if len(members) > 1 or group.members:
                group.busy_until = time.monotonic() + 10 * self._window
            await self._settle(members)
        group.worker = None
        now = time.monotonic()
        for known in [key for key, each in self._groups.items() if each.worker is None and each.busy_until <= now]:
            del self._groups[known]

    async def _settle(self, members: list[_Member]) -> None:
        """Every member is answered, whatever happens."""
        if not members:
            return
        try:
            if len(members) == 1:
                parts: tuple[Part, ...] = (await self._settler.prepare(members[0].record),)
            else:
                parts = await self._settler.prepare_many([each.record for each in members])
                if not parts:
                    await self._one_by_one(members)
                    return
            for part in parts:
                ids = {record.result.task_id for record in part.records}
                await self._submit(part, [each for each in members if each.task.id in ids])
        except Reverted as refusal:
            if len(members) == 1:
                _fail(members, refusal)
                return
            # Halves find one bad member in a few simulations.
            self._log.info("a common settlement is refused; it is split", tasks=len(members), reason=refusal.name)
            half = len(members) // 2
            await self._settle(members[:half])
            await self._settle(members[half:])
        except (OracleError, Overtaken) as error:
            _fail(members, error)
        except asyncio.CancelledError:
            for member in members:
                member.sent.cancel()
            raise
        except Exception as error:
            _fail(members, error)

    async def _one_by_one(self, members: list[_Member]) -> None:
        for member in members:
            await self._settle([member])

    async def _submit(self, part: Part, members: list[_Member]) -> None:
        members = [each for each in members if not each.sent.done()]
        if not members:
            return
        moved: list[bytes] = []

        def along(transaction_hash: bytes) -> None:
            moved[:] = self._db.journal.settling_together([each.task for each in members], transaction_hash)

        signed = await self._outbox.submit(
            self._settler.oracle,
            part.call,
            gas=part.gas,
            purpose=SETTLE,
            keys=[each.task.id for each in members],
            along=along,
        )
        self.transactions += 1
        self.together += len(members) if len(members) > 1 else 0
        for member in members:
            if member.sent.done():
                continue
            if member.task.id in moved:
                member.sent.set_result(_settling(member.task, signed.hash))
            else:
                member.sent.set_exception(Overtaken())


def settled_by(receipt: Receipt) -> frozenset[bytes]:
    """The tasks that the transaction settled: the contract leaves out those that others settled, or that are late."""
    events = (read_event(log) for log in logs_of_receipt(receipt.raw))
    return frozenset(event.task_id for event in events if isinstance(event, TaskSettled))


def _settling(task: Task, transaction_hash: bytes) -> Task:
    return replace(task, state=State.SETTLING, settlement=transaction_hash)


def _fail(members: list[_Member], error: Exception) -> None:
    for member in members:
        if not member.sent.done():
            member.sent.set_exception(error)
