"""Tells enclaves which tasks they may forget, without anyone waiting for it. What gets lost on the way costs nothing: an enclave
lets go of its oldest tasks where it has no room for more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from enclave_app.protocol.wire import MAX_OVER
from oracle.errors import OracleError
from oracle.logs import Log
from oracle.worker.enclave import Enclave

SECONDS = 5.0
"""How long an enclave is asked; one that hangs is ended by others."""
PAUSE = 1.0
"""How long a task that is over waits for the next one's start, which takes its name along."""


class LettingGo:
    def __init__(self) -> None:
        self._over: dict[Enclave, list[bytes]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._log = Log("worker.task")

    def at_once(self, enclave: Enclave, task_id: bytes) -> None:
        """Have a task stopped where it runs."""
        self.begin(self._forget(enclave, task_id))

    def later(self, enclave: Enclave, task_id: bytes) -> None:
        """Have a task forgotten that is over: with the next one that starts there, or after a while by itself."""
        if enclave in self._over:
            self._over[enclave].append(task_id)
            return
        self._over[enclave] = [task_id]
        self.begin(self._remind(enclave))

    def with_next(self, enclave: Enclave) -> tuple[bytes, ...]:
        """Those that the next start tells of. Whoever takes them tells the enclave, or nobody does."""
        over = self._over.get(enclave, [])
        taken = tuple(over[:MAX_OVER])
        del over[:MAX_OVER]
        return taken

    async def close(self) -> None:
        """Wait for all that was begun, and tell what is still to be told."""
        self._closing.set()
        await asyncio.gather(*self._work, return_exceptions=True)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Other work of the kind that nobody waits for but `close`."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _remind(self, enclave: Enclave) -> None:
        """Tell of each that no start took along for a while."""
        while over := self._over[enclave]:
            known = set(over)
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await self._closing.wait()
            # Taken before anything is awaited: a start may take along what is left, meanwhile.
            due = [each for each in over if each in known or self._closing.is_set()]
            over[:] = [each for each in over if each not in due]
            await asyncio.gather(*(self._forget(enclave, task_id) for task_id in due))
        del self._over[enclave]

    async def _forget(self, enclave: Enclave, task_id: bytes) -> None:
        try:
            await enclave.forget(task_id, SECONDS)
        except OracleError as error:
            self._log.debug("the enclave did not forget a task", task=task_id.hex(), code=error.code)
