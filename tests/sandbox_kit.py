"""A sandbox for tests, whose zygote is forked where one thread runs, as the enclave's is; pytest's own process has many."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from enclave_app.sandbox.host import Sandbox
from enclave_app.sandbox.zygote import Jobs, run_zygote


def start(jobs: Callable[[], Jobs]) -> Sandbox:
    """A sandbox that runs what a function of a module gives; still to be waited for with `ready`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.set_inheritable(True)
        arguments = [sys.executable, "-m", "tests.sandbox_kit", jobs.__module__, jobs.__name__, str(theirs.fileno())]
        return Sandbox(ours, os.posix_spawn(sys.executable, arguments, os.environ))


@asynccontextmanager
async def ready(jobs: Callable[[], Jobs]) -> AsyncIterator[Sandbox]:
    """One that takes jobs, closed at the end."""
    found = start(jobs)
    try:
        found.ready()
        found.attach(lambda: None)
        yield found
    finally:
        found.close()


if __name__ == "__main__":
    module, name, descriptor = sys.argv[1:]
    run_zygote(socket.socket(fileno=int(descriptor)), getattr(importlib.import_module(module), name))
