"""Who begins a task where several workers could: an order that each of them finds alone, from the chain.

No coordinator and no claim. The order is by hash of (task, block of the request, contender); each contender waits its place
in it times a window before it starts, and does not start what is settled by then. So a worker that is down costs its tasks a
window, and the next one takes them. Outputs are deterministic (R16) and the first valid result wins: where two workers
disagree about who is there, a task is computed twice, and nothing else happens.

The block's hash is in it so that a requester cannot choose who gets a task, by trying nonces.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.structs import Agreement, Confirmation, RegisteredIdentity
from oracle.chain.deploy import Deployment
from oracle.chain.enclaves import RegisteredEnclave, registered_enclaves
from oracle.chain.source import SingleSource
from oracle.errors import Retryable
from oracle.logs import Log
from oracle.worker.plan import takes

TAG = b"enclave-oracle/rendezvous/1"
MOST = 32
"""Contenders that have a turn of their own; all after them share the last one."""
SETTLING = 15
"""Seconds beyond the agreed time limit that a window leaves for the settlement to be seen."""
REFRESH = 2.0
"""Seconds for which what the registry says is good enough: who is missing from it computes a task twice at worst."""
SHARE = 20
"""A registry that takes long to read is read less often: this many times as long lies between two readings."""


def contender(identity: RegisteredIdentity) -> bytes:
    """Who has a turn: the operator who signed for the host (R5), or the platform where nobody did. Each boot of an enclave is
    a new signer (R1), so that a worker that restarts often would have many turns by its signers, and most of them dead."""
    if identity.operator != ZERO_ADDRESS:
        return bytes.fromhex(identity.operator[2:])
    return identity.platform


def order(task_id: bytes, block_hash: bytes, contenders: Iterable[bytes]) -> tuple[bytes, ...]:
    """The same for whoever names the same contenders, in whatever order; each comes first equally often."""
    return tuple(sorted(set(contenders), key=lambda each: _weight(task_id, block_hash, each)))


def place(task_id: bytes, block_hash: bytes, contenders: Iterable[bytes], ours: bytes) -> int:
    """How many come before `ours`, at most MOST. Whoever is not among them comes after all."""
    ranked = order(task_id, block_hash, contenders)
    return min(ranked.index(ours) if ours in ranked else len(ranked), MOST)


def window(agreement: Agreement, configured: float | None, left: float, contenders: int) -> float:
    """Seconds of a turn: as configured, or the agreed time limit and what a settlement takes; less where not everyone would have
    a turn in the `left` seconds until the deadline."""
    agreed = float(agreement.fn.limits.time_seconds + SETTLING) if configured is None else configured
    return max(0.0, min(agreed, left / (min(contenders, MOST) + 1)))


@dataclass(frozen=True)
class Turn:
    """`place` among the contenders, and `seconds` until our turn; 0.0 when it has come."""

    place: int
    seconds: float


class Rendezvous:
    """`operators` are the only contenders that count, where the configuration names some; `seconds` is its `turnSeconds`."""

    def __init__(
        self,
        source: SingleSource,
        deployment: Deployment,
        *,
        operators: Sequence[str] = (),
        seconds: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._deployment, self._seconds = source, deployment, seconds
        self._operators = frozenset(bytes.fromhex(operator[2:]) for operator in operators)
        self._monotonic, self._lock = monotonic, asyncio.Lock()
        self._registered: tuple[RegisteredEnclave, ...] = ()
        self._fresh_until: float | None = None
        self._since: dict[bytes, float] = {}
        self._log = Log("worker.rendezvous")

    async def turn(
        self, task_id: bytes, block_hash: bytes, agreement: Agreement, ours: RegisteredIdentity, now: int, deadline: int
    ) -> Turn:
        """When to begin a task that could be released now; the waiting counts from the first time this is asked. `now` and
        `deadline` are the chain's time. Where the registry cannot be read, what was read before counts."""
        since = self._since.setdefault(task_id, self._monotonic())
        contenders = await self.contenders(agreement, now)
        mine = contender(ours)
        if len(contenders | {mine}) == 1:
            return Turn(0, 0.0)
        before = place(task_id, block_hash, contenders, mine)
        passed = self._monotonic() - since
        turn = window(agreement, self._seconds, deadline - now + passed, len(contenders))
        return Turn(before, max(0.0, before * turn - passed))

    async def contenders(self, agreement: Agreement, now: int) -> frozenset[bytes]:
        """Those with a live registration that the agreement takes."""
        await self._refresh()
        found = frozenset(
            contender(each.record.identity)
            for each in self._registered
            if each.valid and takes(agreement.tee, each.anchor, each.record, now)
        )
        return found & self._operators if self._operators else found

    def forget(self, task_id: bytes) -> None:
        """The task is over."""
        self._since.pop(task_id, None)

    async def _refresh(self) -> None:
        async with self._lock:
            began = self._monotonic()
            if self._fresh_until is not None and began < self._fresh_until:
                return
            try:
                head = await self._source.confirmed(Confirmation.LATEST)
                self._registered = await registered_enclaves(self._source, self._deployment, head)
            except Retryable as error:
                self._log.warning("the registry cannot be read now", code=error.code, message=error.message)
            now = self._monotonic()
            self._fresh_until = now + max(REFRESH, SHARE * (now - began))


def _weight(task_id: bytes, block_hash: bytes, each: bytes) -> bytes:
    # Every part but the last has a fixed length.
    return hashlib.sha256(TAG + task_id + block_hash + each).digest()
