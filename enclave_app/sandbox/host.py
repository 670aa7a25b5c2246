"""The enclave's side of the sandbox: start the zygote, run a job, kill what overstays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from enclave_app.protocol.errors import Bug, Permanent, Retryable
from enclave_app.sandbox.channel import ChildClosed, receive_answer, send_job
from enclave_app.sandbox.errors import SandboxError
from enclave_app.sandbox.lockdown import Allowance
from enclave_app.sandbox.zygote import MAX_DATAGRAM, Warm, describe, run_zygote

START_SECONDS: Final = 60
_EXIT_SECONDS: Final = 2.0


class JobTimeout(Retryable):
    """A job ran longer than it may. The host has the clock and the processor, so this never ends a task (R19)."""


class JobCrashed(Retryable):
    """A job's process died without an answer: out of memory, out of processor time, or aborted."""


class JobFailed(Permanent):
    """What a job refused itself; `kind` is the name of its error."""

    def __init__(self, kind: str, code: str, message: str) -> None:
        super().__init__(code, message)
        self.kind = kind


class Child:
    """A locked process that runs one job after the other, until one fails or `close` kills it."""

    def __init__(self, connection: socket.socket, exited: asyncio.Future[int], kill: Callable[[], None]) -> None:
        self._connection, self._exited, self._kill = connection, exited, kill

    @property
    def is_alive(self) -> bool:
        return not self._exited.done()

    async def run(
        self, job: dict[str, Any], descriptors: Sequence[int], *, seconds: float, limit: int
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """The job's answer and at most `limit` bytes of parts.

        Raises JobTimeout, JobCrashed, and JobFailed for what the job itself refused; after any of them, close it.
        """
        try:
            async with asyncio.timeout(seconds):
                await send_job(self._connection, job, descriptors)
                answer, parts = await receive_answer(self._connection, limit)
        except TimeoutError:
            raise JobTimeout(
                "run.time", "a task ran longer than agreed", expected=f"at most {seconds:g} s", hint="Run it again"
            ) from None
        except ChildClosed as error:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._exited), _EXIT_SECONDS)
            status = self._exited.result() if self._exited.done() else None
            raise JobCrashed("run.crashed", error.message, found=_describe(status), hint="Run it again") from None
        if answer.get("ok") is True:
            return answer, parts
        raise JobFailed(str(answer.get("error")), str(answer.get("code")), str(answer.get("message")))

    def close(self) -> None:
        """Kill it, whether or not it answered."""
        self._connection.close()
        if not self._exited.done():
            self._kill()


class Sandbox:
    """A running zygote. Made by `fork`, before any key; then `ready`, and from then on `run`."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control, self.pid = control, pid
        self._names = itertools.count(1)
        self._exits: dict[str, asyncio.Future[int]] = {}
        self._ended: asyncio.Event | None = None
        self.features: tuple[str, ...] = ()

    @classmethod
    def fork(cls, warm: Warm) -> Sandbox:
        """Fork the zygote. Call it with one thread running and before any key exists (R6)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            run_zygote(theirs, warm)
        theirs.close()
        return cls(ours, pid)

    def ready(self) -> None:
        """Wait until the zygote is warm and has proved its lockdown. Raises SandboxError."""
        self._control.settimeout(START_SECONDS)
        try:
            message = json.loads(self._control.recv(MAX_DATAGRAM) or b"{}")
        except OSError:
            raise SandboxError("sandbox.start", "the sandbox did not start in time") from None
        if "ready" not in message:
            raise SandboxError(message.get("failed", "sandbox.start"), message.get("message", "the sandbox died"))
        self.features = tuple(message["ready"])
        self._control.setblocking(False)

    def attach(self, ended: Callable[[], None]) -> None:
        """Listen to the zygote on the running loop; `ended` is called when it is gone.

        Nothing can mend that: keys exist by then, so no other may be forked (R6).
        """
        asyncio.get_running_loop().add_reader(self._control, self._listen, ended)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    async def run(
        self, job: dict[str, Any], descriptors: Sequence[int], allowance: Allowance, *, seconds: float, limit: int
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """One job in a child of its own, of which nothing outlives the answer. Returns and raises as `Child.run`."""
        child = await self.start(allowance)
        try:
            return await child.run(job, descriptors, seconds=seconds, limit=limit)
        finally:
            child.close()

    async def start(self, allowance: Allowance) -> Child:
        """A child that waits for its first job. Whoever starts it closes it."""
        name = str(next(self._names))
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._exits[name] = exited
        child = Child(ours, exited, lambda: self._kill(name))
        try:
            with theirs:
                await self._fork(name, theirs, allowance)
        except BaseException:
            child.close()
            raise
        return child

    async def _fork(self, name: str, connection: socket.socket, allowance: Allowance) -> None:
        command = {
            "fork": name,
            "memory": allowance.memory,
            "cpuSeconds": allowance.cpu_seconds,
            "fileBytes": allowance.file_bytes,
        }
        while True:
            try:
                socket.send_fds(self._control, [json.dumps(command).encode()], [connection.fileno()])
            except BlockingIOError:
                await asyncio.sleep(0.001)
            except OSError:
                raise Bug("sandbox.gone", "the sandbox is gone") from None
            else:
                return

    def _kill(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._control.send(json.dumps({"kill": name}).encode())

    def _listen(self, ended: Callable[[], None]) -> None:
        try:
            data = self._control.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            ended()
            return
        message = json.loads(data)
        future = self._exits.pop(message["exit"], None)
        if future is not None and not future.done():
            future.set_result(int(message["status"]))


def _describe(status: int | None) -> str:
    return "a process that did not end" if status is None else describe(status)
