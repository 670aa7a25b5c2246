"""Which tasks are worked on, and what is written down when one stops.

Tasks of other workers' turns come after ours, and those that were in hand when this process died, one at a time: the one that
kills it is then found by its number, and parked.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from oracle.errors import Permanent, Retryable
from oracle.logs import Log
from oracle.worker.attempts import Attempts, End, Wait
from oracle.worker.clock import ChainClock, Jumps
from oracle.worker.journal import JournalThread, Overtaken
from oracle.worker.pipeline import Pipeline
from oracle.worker.states import ENDED, OPEN, State
from oracle.worker.steps import Steps

LONGEST_SLEEP = 5.0
SUSPECT = 2
"""From this many beginnings without an end on, a task runs with no other suspect beside it."""
AHEAD = 8
"""How many times as many due tasks are looked at as can be worked on, to find those of our own turns."""


class Scheduler:
    """`await run()` until `stop()`; then `drain()`. `bugs` counts the tasks that were parked for one, `retries` the failed
    attempts, both by code."""

    def __init__(
        self,
        db: JournalThread,
        pipeline: Pipeline,
        attempts: Attempts,
        clock: ChainClock,
        *,
        in_flight: int,
        max_crashes: int,
        steps: Steps | None = None,
        jumps: Callable[[], float] | None = None,
    ) -> None:
        self._db, self._pipeline, self._attempts, self._clock = db, pipeline, attempts, clock
        self._in_flight, self._max_crashes = in_flight, max_crashes
        self._steps = steps or Steps()
        self._jumped = jumps or Jumps().look
        self._wake, self._stopping = asyncio.Event(), False
        self._replan = True
        self._suspects: dict[bytes, int] = {}
        self.running: dict[bytes, asyncio.Task[None]] = {}
        self.bugs: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.clock_jumps = 0
        self._log = Log("worker")

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def replan(self) -> None:
        """Tasks that were not ours may be now."""
        self._replan = True
        self.wake()

    def set_limits(self, *, in_flight: int, max_crashes: int) -> None:
        """What runs already goes on."""
        self._in_flight, self._max_crashes = in_flight, max_crashes
        self.wake()

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True
        self.wake()

    async def run(self) -> None:
        # What a crash left, and what a clock wrote that was ahead of today's.
        self._suspects = await self._db(self._db.journal.begun)
        await self._hasten()
        while not self._stopping:
            self._wake.clear()
            if jump := self._jumped():
                self.clock_jumps += 1
                self._log.warning("the host's clock jumped", seconds=round(jump, 1))
                await self._hasten()
            if self._replan:
                self._replan = False
                await self._db(self._db.journal.try_again, (State.SKIPPED,))
            for task_id in await self._next():
                self._start(task_id)
            await self._sleep_until_next()

    async def drain(self, seconds: float) -> int:
        """Let what runs finish, for at most `seconds`, and stop the rest where it stands; returns how many those were."""
        running = list(self.running.values())
        if not running:
            return 0
        self._log.info("draining", tasks=len(running), seconds=seconds)
        _, unfinished = await asyncio.wait(running, timeout=seconds)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        self._log.info("drained", unfinished=len(unfinished))
        return len(unfinished)

    async def stop_ended(self) -> None:
        """Stop computing tasks that the chain has ended meanwhile. One whose request a reorganisation took is left to run: it
        mostly comes back, and is not to be computed twice."""
        computing = [task_id for task_id in self._pipeline.computing if task_id in self.running]
        states = await self._db(self._db.journal.states, computing) if computing else {}
        for task_id, state in states.items():
            work = self.running.get(task_id)
            if state in ENDED and work is not None:
                self._log.info("the chain ended a task that runs; it is stopped", task=task_id.hex(), state=state.value)
                work.cancel()

    async def _next(self) -> list[bytes]:
        """What to begin now: our turns first, then oldest first."""
        free = self._in_flight - len(self.running)
        if free <= 0:
            return []
        due = await self._db(self._db.journal.due, time.time(), AHEAD * self._in_flight + len(self.running))
        waiting = [task_id for task_id in due if task_id not in self.running]
        waiting.sort(key=self._pipeline.turn_of)
        suspects = [task_id for task_id in waiting if self._is_suspect(task_id)]
        chosen = [task_id for task_id in waiting if not self._is_suspect(task_id)]
        if suspects and not any(self._is_suspect(task_id) for task_id in self.running):
            # The one that was in hand least often is the least likely to kill us, and so soonest out of suspicion.
            chosen.insert(0, min(suspects, key=lambda task_id: self._suspects[task_id]))
        return chosen[:free]

    def _is_suspect(self, task_id: bytes) -> bool:
        return self._suspects.get(task_id, 0) >= SUSPECT

    def _start(self, task_id: bytes) -> None:
        work = asyncio.create_task(self._work(task_id), name=f"task {task_id.hex()[:8]}")
        self.running[task_id] = work

        def over(_: asyncio.Task[None]) -> None:
            self.running.pop(task_id, None)
            self._wake.set()

        work.add_done_callback(over)

    async def _sleep_until_next(self) -> None:
        now = time.time()
        following = await self._db(self._db.journal.next_try, now)
        pause = LONGEST_SLEEP if following is None else min(LONGEST_SLEEP, max(0.0, following - now))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()

    async def _hasten(self) -> None:
        await self._db(self._db.journal.hasten, time.time() + self._attempts.longest)

    async def _work(self, task_id: bytes) -> None:
        log = self._log.bind(task=task_id.hex())
        try:
            await self._attempt(task_id, log)
        except Exception as error:
            # The journal itself does not take what has to be written: the task stays where it is.
            if isinstance(error, Retryable):
                log.warning("what became of a task cannot be written down", code=error.code, message=error.message)
            else:
                self.bugs[_code(error)] += 1
                log.error("what became of a task cannot be written down", error)
            await asyncio.sleep(self._attempts.backoff(3))

    async def _attempt(self, task_id: bytes, log: Log) -> None:
        times = await self._db(self._db.journal.begin, task_id)
        try:
            if times > self._max_crashes:
                raise Permanent("task.crashes", f"the worker died {times - 1} times while it worked on this task")
            with self._steps.task(task_id):
                await self._pipeline.work(task_id)
            self._forget(task_id)
        except Overtaken:
            await self._overtaken(task_id, log)
        except Permanent as error:
            if error.code == "task.crashes":
                await self._end(task_id, End(State.PARKED, error.code, error.message, bug=True), error, log)
            else:
                await self._judge(task_id, error, log)
        except Exception as error:
            await self._judge(task_id, error, log)
        finally:
            # Also when it was cancelled: only a death of the process leaves the note behind.
            await self._db(self._db.journal.pause, task_id)
            self._suspects.pop(task_id, None)

    async def _overtaken(self, task_id: bytes, log: Log) -> None:
        state = (await self._db(self._db.journal.states, [task_id])).get(task_id)
        if state is not State.ORPHANED:
            self._forget(task_id)
        log.info("the chain overtook the task", state=None if state is None else state.value)

    async def _judge(self, task_id: bytes, error: Exception, log: Log) -> None:
        task = await self._db(self._db.journal.task, task_id)
        if task is None:
            return
        verdict = self._attempts.judge(task_id, error, task.attempts)
        if isinstance(verdict, Wait):
            if verdict.counts:
                self.retries[verdict.code] += 1
            await self._db(
                self._db.journal.retry,
                task_id,
                time.time() + verdict.pause,
                verdict.code,
                verdict.message,
                counts=verdict.counts,
            )
            say = log.warning if verdict.counts else log.debug
            say("the task waits", code=verdict.code, message=verdict.message, seconds=round(verdict.pause, 2))
            return
        await self._end(task_id, verdict, error, log)

    async def _end(self, task_id: bytes, end: End, error: Exception, log: Log) -> None:
        if end.bug:
            self.bugs[end.code] += 1
            log.error("a bug: please report it; the task is parked", error)
        elif end.state is State.FAILED:
            log.error("the task failed here for good", error)
        self._forget(task_id)
        task = await self._db(self._db.journal.task, task_id)
        if task is None:
            return
        if task.state not in OPEN:
            # Only a receipt can be owed for it, which nothing ends but its writing.
            again = time.time() + self._attempts.longest
            await self._db(self._db.journal.retry, task_id, again, "receipt", end.reason)
            return
        try:
            if end.state is State.EXPIRED:
                # By the block that says so: should it be reorganised away, the task is open again.
                head = self._clock.head
                block = None if head is None or head.timestamp <= task.request.deadline else head.number
                await self._db(self._db.journal.ended, task, end.state, block)
            else:
                await self._db(self._db.journal.give_up, task, end.state, end.code, end.reason)
            log.info("the task is over here", state=end.state.value, code=end.code, reason=end.reason)
        except Overtaken:
            log.info("the chain overtook the task")

    def _forget(self, task_id: bytes) -> None:
        self._pipeline.forget(task_id)
        self._attempts.forget(task_id)


def _code(error: Exception) -> str:
    return error.code if isinstance(error, Permanent | Retryable) else type(error).__name__
