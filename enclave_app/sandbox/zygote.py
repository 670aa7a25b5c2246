"""The zygote: forked before any key exists, it imports and warms what jobs need, and forks the children that run them (R6).

A few children are forked and primed ahead, while nothing runs: most of a small job's time goes into the pages that a new
process has to make its own. It talks with the enclave in datagrams of JSON, and passes on one socket per job without reading it.

    enclave → zygote  {"fork": job, "memory": …, "cpuSeconds": …, "fileBytes": …} and a socket, or {"kill": job}
    zygote → enclave  {"ready": features} once, then {"exit": job, "status": …} for each
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from enclave_app.protocol.errors import OracleError
from enclave_app.sandbox.channel import receive_job, send_answer
from enclave_app.sandbox.errors import SandboxError
from enclave_app.sandbox.lockdown import (
    Allowance,
    die_with_parent,
    forbid_dumps,
    load_libc,
    lock,
    separate_namespaces,
)

MAX_DATAGRAM: Final = 65_536
SPARES: Final = 2
"""Children kept ready: a task takes two, one to decode and one to compute."""
_IDLE_MS: Final = 20
PROBE: Final = Allowance(memory=1 << 28, cpu_seconds=10, file_bytes=0)


class Handler(Protocol):
    """Runs one job in its child: the job and its descriptors to an answer and its parts."""

    def __call__(
        self, job: dict[str, Any], descriptors: Sequence[int]
    ) -> tuple[dict[str, Any], Sequence[bytes | memoryview]]: ...


@dataclass(frozen=True)
class Jobs:
    """Handlers by the job's "kind", and what a child does before it is locked and given a job: touch what it will use."""

    handlers: Mapping[str, Handler]
    prime: Callable[[], None]


Warm = Callable[[], Jobs]
"""Imports and warms; runs in the zygote, so that the enclave's own process never loads what it does not need."""


def describe(status: int) -> str:
    """How a child ended, from its wait status. An exit's number is the child's to choose, and this text goes to the host."""
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an exit"


def run_zygote(control: socket.socket, warm: Warm) -> NoReturn:
    """The life of the zygote's process; never returns."""
    status = 1
    try:
        libc = load_libc()
        die_with_parent(libc)
        forbid_dumps(libc)
        _silence(control.fileno())
        features = separate_namespaces(libc)
        jobs = warm()
        # Objects made so far are never collected, so that a child does not copy their pages.
        gc.freeze()
        zygote = _Zygote(control, jobs)
        features += zygote.probe()
        control.send(json.dumps({"ready": features}).encode())
        zygote.serve()
        status = 0
    except OracleError as error:
        with contextlib.suppress(OSError):
            control.send(json.dumps({"failed": error.code, "message": error.message}).encode())
    except Exception as error:
        with contextlib.suppress(OSError):
            control.send(json.dumps({"failed": "sandbox.start", "message": type(error).__name__}).encode())
    finally:
        os._exit(status)


@dataclass(frozen=True)
class _Spare:
    pid: int
    slot: int
    control: socket.socket


class _Zygote:
    def __init__(self, control: socket.socket, jobs: Jobs) -> None:
        self._control, self._jobs = control, jobs
        self._children: dict[int, tuple[str, int]] = {}
        self._spares: list[_Spare] = []
        self._wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)

    def probe(self) -> list[str]:
        """Lock a child down as every job's will be; returns what it gave up. Raises SandboxError where it cannot."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                try:
                    found = " ".join(lock(load_libc(), 0, PROBE))
                except Exception as error:
                    found = f"!{error.code if isinstance(error, OracleError) else type(error).__name__}"
                os.write(writer, found.encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read().decode()
        _, status = os.waitpid(pid, 0)
        if not answer or answer.startswith("!"):
            raise SandboxError(
                "sandbox.unavailable",
                "this machine does not allow the sandbox",
                found=answer or f"a probe that ended by {describe(status)}",
                hint="The enclave needs seccomp filters, as Docker and Linux give them by default",
            )
        return answer.split()

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            idle = not self._children and len(self._spares) < SPARES
            ready = dict(poll.poll(_IDLE_MS if idle else None))
            if not ready:
                self._spares.append(self._spawn(prime=True))
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._command():
                return

    def _command(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, MAX_DATAGRAM, 1)
        if not data:
            return False
        command = json.loads(data)
        if "kill" in command:
            for pid, (job, _) in self._children.items():
                if job == command["kill"]:
                    # Not reaped yet, so the number is still its own.
                    os.kill(pid, signal.SIGKILL)
            return True
        spare = self._spares.pop(0) if self._spares else self._spawn(prime=False)
        self._children[spare.pid] = (command["fork"], spare.slot)
        with contextlib.suppress(OSError):
            # To a spare that died, this fails; the enclave then sees its job's socket closed.
            socket.send_fds(spare.control, [data], descriptors)
        spare.control.close()
        os.close(descriptors[0])
        return True

    def _spawn(self, prime: bool) -> _Spare:
        taken = {slot for _, slot in self._children.values()} | {spare.slot for spare in self._spares}
        slot = next(n for n in range(len(taken) + 1) if n not in taken)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            self._child(theirs.fileno(), slot, prime)
        theirs.close()
        return _Spare(pid, slot, ours)

    def _reap(self) -> None:
        while self._children or self._spares:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._spares = [spare for spare in self._spares if spare.pid != pid]
            if pid in self._children:
                job, _ = self._children.pop(pid)
                self._control.send(json.dumps({"exit": job, "status": status}).encode())

    def _child(self, descriptor: int, slot: int, prime: bool) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent(load_libc())
            orders = socket.socket(fileno=os.dup2(descriptor, 3, inheritable=False))
            os.closerange(4, 4096)
            if prime:
                self._jobs.prime()
            # The zygote's own words, which hold numbers only.
            data, descriptors, _, _ = socket.recv_fds(orders, MAX_DATAGRAM, 1)
            orders.close()
            command = json.loads(data)
            connection = socket.socket(fileno=descriptors[0])
            # Before the first foreign byte is read.
            lock(load_libc(), slot, Allowance(command["memory"], command["cpuSeconds"], command["fileBytes"]))
            while True:
                # The enclave says whether there is another one: who takes one job only is killed after it.
                job, descriptors = receive_job(connection)
                answer, parts = self._run(job, descriptors)
                send_answer(connection, answer, parts)
        except BaseException:
            # Nothing is printed: an exception's text may hold values. The enclave sees a child without an answer.
            os._exit(1)

    def _run(
        self, job: dict[str, Any], descriptors: Sequence[int]
    ) -> tuple[dict[str, Any], Sequence[bytes | memoryview]]:
        try:
            answer, parts = self._jobs.handlers[job["kind"]](job, descriptors)
            return {"ok": True, **answer}, parts
        except OracleError as error:
            return {"ok": False, "error": type(error).__name__, "code": error.code, "message": error.message}, ()


def _silence(keep: int) -> None:
    """Standard streams to nowhere: a C++ abort prints what it was at. All other descriptors but `keep` are closed."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    sys.stdin = sys.stdout = sys.stderr = open(os.devnull, "r+")  # noqa: SIM115, PTH123
    for low, high in ((3, keep), (keep + 1, 4096)):
        os.closerange(low, high)
