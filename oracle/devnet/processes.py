"""Child processes of a devnet: started with a log file each, ended by their own ids, never outliving this process."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oracle.errors import Permanent, Retryable

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A TCP port that is free on the loopback address right now: two devnets never share one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    # A devnet that is killed must not leave servers behind.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Process:
    """One child. Its output goes to `log`; `stop` asks politely, then insists."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise Permanent("devnet.not_started", f"{self.name} is not running")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self._child = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self.environment},
                preexec_fn=_die_with_parent,
            )

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        if self._child is None:
            raise Permanent("devnet.not_started", f"{self.name} is not running")
        return await self._child.wait()

    async def stop(self, patience: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `patience` seconds."""
        if self._child is None or self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.terminate()
        try:
            async with asyncio.timeout(patience):
                await self._child.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()

    def check(self) -> None:
        """Raise, with the end of its log, where the child has ended by itself."""
        if self._child is not None and self._child.returncode is not None:
            raise Permanent(
                "devnet.process",
                f"{self.name} ended with status {self._child.returncode}",
                hint=f"Its log ends with: {self.tail()}",
            )

    def tail(self, size: int = 1500) -> str:
        try:
            return self.log.read_bytes()[-size:].decode("utf-8", "replace").strip()
        except OSError:
            return "(no log)"


async def until(
    what: str, ready: Callable[[], Awaitable[bool]], processes: Sequence[Process], patience: float = 30.0
) -> None:
    """Poll `ready` until it holds; a child that died ends the wait at once."""
    try:
        async with asyncio.timeout(patience):
            while not await ready():
                for process in processes:
                    process.check()
                await asyncio.sleep(0.03)
    except TimeoutError:
        ends = "; ".join(f"{p.name}: {p.tail(300)}" for p in processes)
        raise Retryable("devnet.slow", f"{what} was not ready within {patience:.0f} s", hint=ends) from None
