"""The enclave's process, where it is ours to launch: started, taken over, watched, and ended with all its children."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from oracle.errors import Retryable
from oracle.logs import Log
from oracle.worker.enclave import Enclave
from oracle.worker.procfs import Pid, family, listener, running

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
CALM = 60.0
"""Seconds that an enclave has to live for its earlier ends to be forgotten."""
TOO_OFTEN = 5
"""Ends in a row from which a crash loop is called one."""
MEASURE_SECONDS = 60.0


class EnclaveProcess:
    """The enclave as a process of ours, restarted by whoever watches `is_running`. It gets no environment of ours.

    One that a crashed worker left behind is taken over, not replaced: its identity is registered, and it may still hold
    outputs. One that does not answer, or is not what would be launched now (another program, another configuration), is ended
    first, with all its children. `config` is the enclave's configuration, where its measurement can be computed from it.
    `starts` counts launches, `ends_in_a_row` the ends that came soon after one.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        path: Path,
        start_seconds: float,
        *,
        config: Path | None = None,
        measurement: bytes | None = None,
        probe_seconds: float = 20.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command, self._socket, self._start_seconds = command, path, start_seconds
        self._config, self._measurement, self._probe_seconds = config, measurement, probe_seconds
        self._monotonic = monotonic
        self._process: asyncio.subprocess.Process | None = None
        self._pid: Pid | None = None
        self._launched_at = 0.0
        self._not_before = 0.0
        self.starts = 0
        self.ends_in_a_row = 0
        self._log = Log("worker.enclave", socket=str(path))

    @property
    def pid(self) -> int | None:
        return None if self._pid is None else self._pid.number

    @property
    def is_crash_looping(self) -> bool:
        return self.ends_in_a_row >= TOO_OFTEN

    def is_running(self) -> bool:
        return self._pid is not None and self._pid.is_alive()

    async def start(self) -> None:
        """Take over or launch, and wait until the socket answers. Raises Retryable `enclave.start` when it does not, and
        `enclave.backoff` while one that ended again and again has to wait."""
        if await self._took_over():
            return
        self._note_end()
        wait = self._not_before - self._monotonic()
        if wait > 0:
            raise Retryable("enclave.backoff", f"the enclave ended {self.ends_in_a_row} times; it waits {wait:.1f} s")
        await self._launch()

    async def stop(self, seconds: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after `seconds`, and SIGKILL at once for what it leaves behind."""
        pid = self._pid
        if pid is None:
            return
        everyone = family(pid)
        pid.send(signal.SIGTERM)
        await self._gone([pid], seconds)
        await self._end(pid, everyone)
        self.ends_in_a_row = 0

    async def kill(self) -> None:
        """SIGKILL for it and all its children: it hangs, so there is nothing to ask it."""
        if self._pid is not None:
            await self._end(self._pid, [])

    async def _took_over(self) -> bool:
        self._pid = None if not self.is_running() else self._pid
        found = listener(self._socket)
        if found is not None and await self._is_ours():
            if found != self._pid:
                self._log.warning("an enclave of an earlier start listens; taking it over", pid=found.number)
            self._pid, self._launched_at = found, self._monotonic()
            await self._end_others(found)
            return True
        if found is not None:
            self._log.warning("an enclave listens that does not answer or is another; ending it", pid=found.number)
            await self._end(found, [])
            if found.is_alive():
                raise Retryable(
                    "enclave.foreign",
                    "another program listens on the enclave's socket, and this worker may not end it",
                    found=found.number,
                )
        await self._end_others(None)
        return False

    async def _is_ours(self) -> bool:
        """Whether who listens answers, and is what we would launch."""
        async with Enclave(self._socket) as enclave:
            try:
                identity = await enclave.identity(self._probe_seconds)
            except Retryable:
                return False
        expected = self._measurement if self._measurement is not None else await self._measured()
        return expected is None or identity.measurement == expected

    async def _measured(self) -> bytes | None:
        """What the program and its configuration measure now; None where that cannot be known before a launch."""
        if self._config is None:
            return None
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "enclave_app.measure", "--config", str(self._config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return None
        text = said.decode("ascii", "replace").strip()
        return bytes.fromhex(text[2:]) if process.returncode == 0 and len(text) == 66 else None

    async def _launch(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath},
            # A Ctrl-C in a terminal goes to the whole group, and a drain needs the enclave alive.
            start_new_session=True,
        )
        self._pid, self._launched_at = Pid.of(process.pid), self._monotonic()
        self.starts += 1
        while self._monotonic() - self._launched_at < self._start_seconds:
            if process.returncode is not None:
                found = f"status {process.returncode}"
                self._note_end()
                raise Retryable("enclave.start", "the enclave's process ended at once", found=found)
            if listener(self._socket) is not None and await self._answers():
                self._log.info("enclave launched", pid=process.pid)
                return
            await asyncio.sleep(0.05)
        await self.kill()
        self._note_end()
        raise Retryable("enclave.start", f"the enclave did not answer within {self._start_seconds:.0f} s")

    async def _answers(self) -> bool:
        async with Enclave(self._socket) as enclave:
            try:
                await enclave.identity(self._probe_seconds)
            except Retryable:
                return False
            return True

    def _note_end(self) -> None:
        """An enclave of ours ended by itself: the next start waits the longer, the oftener that came soon after a launch."""
        if self._launched_at == 0.0:
            return
        lived, self._launched_at = self._monotonic() - self._launched_at, 0.0
        self.ends_in_a_row = 1 if lived >= CALM else self.ends_in_a_row + 1
        # The first comes back at once.
        pause = 0.0 if self.ends_in_a_row == 1 else FIRST_PAUSE * 2.0 ** min(self.ends_in_a_row - 2, 30)
        self._not_before = self._monotonic() + min(LONGEST_PAUSE, pause)
        if self.is_crash_looping:
            self._log.error("the enclave ends again and again", times=self.ends_in_a_row, lived=round(lived, 1))

    async def _end_others(self, kept: Pid | None) -> None:
        """A worker that was killed while it launched leaves one that does not listen yet, and would take the socket away."""
        if "--socket" not in self._command:
            return
        # What the second process of the enclave keeps of its command (enclave_app/launch.py): the options.
        options = self._command[next(n for n, word in enumerate(self._command) if word.startswith("--")) :]
        spared = set() if kept is None else set(family(kept))
        for pid in running(options):
            if pid not in spared and pid.is_alive():
                self._log.warning("an enclave of an earlier start is left over; ending it", pid=pid.number)
                await self._end(pid, [])

    async def _end(self, pid: Pid, known: list[Pid]) -> None:
        ended = [each for each in {*known, *family(pid)} if each.number != os.getpid()]
        for each in ended:
            each.send(signal.SIGKILL)
        await self._gone(ended, 5.0)
        if self._process is not None and self._process.pid == pid.number:
            await self._process.wait()
        self._socket.unlink(missing_ok=True)

    async def _gone(self, pids: list[Pid], seconds: float) -> None:
        deadline = self._monotonic() + seconds
        # Not all are children of ours, so there is nothing to wait on.
        while any(pid.is_alive() for pid in pids) and self._monotonic() < deadline:  # noqa: ASYNC110 (no event tells)
            await asyncio.sleep(0.02)
