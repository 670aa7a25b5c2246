"""The enclaves of this worker, and which of them a task goes to: one whose measurement its agreement names.

Two beside each other are an upgrade: old agreements end on the old measurement while new ones use the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from enclave_app.protocol.release import TaskRecord
from oracle.errors import Retryable
from oracle.logs import Log
from oracle.worker.enclave import Enclave
from oracle.worker.enrolment import Enrolment
from oracle.worker.plan import NotOurs
from oracle.worker.process import EnclaveProcess
from oracle.worker.register import Enrolled

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Host:
    """An enclave, its process where that is ours, and what keeps it registered."""

    enclave: Enclave
    process: EnclaveProcess | None
    enrolment: Enrolment

    @property
    def signer(self) -> str | None:
        known = self.enrolment.known
        return None if known is None else known.signer


class Hosts:
    def __init__(self, hosts: Sequence[Host]) -> None:
        self.all = tuple(hosts)

    async def choose(self, suits: Callable[[Enrolled], T]) -> tuple[Host, T]:
        """The first enclave for which `suits` does not raise NotOurs, and what it returned.

        Raises Retryable while one that may suit is down, and else the NotOurs of the last one that was asked."""
        down: Retryable | None = None
        refusal: NotOurs | None = None
        for host in self.all:
            try:
                return host, suits(await host.enrolment.current())
            except NotOurs as error:
                refusal = error
            except Retryable as error:
                down = error
        if refusal is None or (down is not None and len(self.all) > 1):
            raise down or Retryable("enclave.none", "no enclave is configured")
        raise refusal

    async def holder(self, record: TaskRecord) -> Host | None:
        """The enclave that made a result, and still has its outputs unless it forgot them; None where it is gone for good.

        Raises Retryable while one that may be it does not say."""
        down: Retryable | None = None
        for host in self.all:
            known = host.enrolment.known
            if known is not None and known.record.identity.measurement != record.enclave.measurement:
                continue
            try:
                enrolled = await host.enrolment.current(record.agreement.tee.max_evidence_age)
            except Retryable as error:
                down = error
                continue
            if enrolled.signer == record.signer:
                return host
        if down is not None:
            raise down
        return None

    def of(self, signer: str) -> Host | None:
        """Whose enclave has this signer now."""
        return next((host for host in self.all if host.signer == signer), None)

    async def ready(self) -> Enrolled:
        """The first that is registered. Raises the last one's Retryable while none is."""
        answers = await asyncio.gather(*(host.enrolment.current() for host in self.all), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, Enrolled):
                return answer
            if not isinstance(answer, Retryable):
                raise answer
        raise [answer for answer in answers if isinstance(answer, Retryable)][-1]

    def mistrust(self) -> None:
        """The chain may have lost registrations."""
        for host in self.all:
            host.enrolment.mistrust()

    async def start(self, log: Log) -> None:
        """Launch those that are ours; what does not start now is started by its watch."""
        answers = await asyncio.gather(
            *(host.process.start() for host in self.all if host.process is not None), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, Retryable):
                log.warning("an enclave does not start yet", code=answer.code, message=answer.message)
            elif isinstance(answer, BaseException):
                raise answer

    async def stop(self) -> None:
        """End those that are ours, and all that they started."""
        await asyncio.gather(*(host.process.stop() for host in self.all if host.process is not None))
