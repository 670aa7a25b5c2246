"""What code in the sandbox can still do. Each attack runs as a job of its own, in a child locked down as for a real one."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.protocol.errors import Refused
from enclave_app.sandbox import seccomp
from enclave_app.sandbox.channel import ChildClosed, receive_answer
from enclave_app.sandbox.errors import SandboxError
from enclave_app.sandbox.host import JobCrashed, JobFailed, JobTimeout, Sandbox
from enclave_app.sandbox.lockdown import FIRST_UID, MIB, Allowance
from enclave_app.sandbox.memory import MemoryFile, map_read_only
from enclave_app.sandbox.zygote import Jobs
from tests import sandbox_kit

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALLOWANCE = Allowance(memory=256 * MIB, cpu_seconds=10, file_bytes=0)
STOLEN = Path("/tmp/enclave-stolen")  # noqa: S108
LIBC = ctypes.CDLL(None, use_errno=True)
SYSCALLS = {
    "socket": 41, "connect": 42, "fork": 57, "execve": 59, "kill": 62, "ptrace": 101, "open": 2, "openat": 257, "unlink": 87,
    "mount": 165, "setuid": 105, "prctl": 157, "process_vm_readv": 310, "io_uring_setup": 425, "bpf": 321, "memfd_create": 319,
    "unshare": 272, "shmget": 29, "mq_open": 240, "keyctl": 250, "userfaultfd": 323, "perf_event_open": 298, "pidfd_open": 434,
    "sendto": 44, "sendmsg": 46, "ioctl": 16, "clone": 56, "prlimit64": 302,
}  # fmt: skip


def attack(name: str, argument: str) -> str:
    if name == "syscall":
        ctypes.set_errno(0)
        result = LIBC.syscall(SYSCALLS[argument], 0, 0, 0, 0, 0)
        return f"{result} {ctypes.get_errno()}"
    if name == "python":
        actions: dict[str, Callable[[], object]] = {
            "socket": lambda: str(socket.socket()),
            "unix": lambda: str(socket.socket(socket.AF_UNIX)),
            "read": lambda: os.open("/etc/passwd", os.O_RDONLY),
            "write": lambda: os.open(STOLEN, os.O_WRONLY | os.O_CREAT, 0o666),
            "fork": os.fork,
            "execute": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
            "kill": lambda: os.kill(os.getppid(), signal.SIGTERM),
            "descriptors": lambda: list(Path("/proc/self/fd").iterdir()),
            "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
            "thread": lambda: threading.Thread(target=print).start(),
        }
        return type(actions[argument]()).__name__
    if name == "allocate":
        return str(len(bytearray(int(argument) * MIB)))
    if name == "spin":
        while True:
            pass
    if name == "sleep":
        time.sleep(60)
    if name == "abort":
        os.abort()
    if name == "exit":
        os._exit(int(argument))
    return "unknown"


def handle(job: dict[str, Any], descriptors: Sequence[int]) -> tuple[dict[str, Any], Sequence[bytes | memoryview]]:
    if job["name"] == "echo":
        return {"found": "ok"}, [b"x" * int(job["argument"])]
    if job["name"] == "inputs":
        return {"found": bytes(map_read_only(descriptors[0])).decode()}, ()
    if job["name"] == "overwrite":
        return {"found": str(os.write(descriptors[0], b"changed"))}, ()
    if job["name"] == "remember":
        # State that a later job must not see.
        seen = os.environ.get("SEEN", "nothing")
        os.environ["SEEN"] = "something"
        return {"found": seen}, ()
    if job["name"] == "refuse":
        raise Refused("test.refused", "refused")
    if job["name"] == "explode":
        raise RuntimeError("a value")
    try:
        return {"found": attack(job["name"], job["argument"])}, ()
    except (OSError, MemoryError, RuntimeError) as error:
        return {"found": f"{type(error).__name__}"}, ()


def jobs() -> Jobs:
    return Jobs({"test": handle}, lambda: None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_kit.ready(jobs) as found:
        yield found


async def run(
    sandbox: Sandbox,
    name: str,
    argument: str = "",
    *,
    allowance: Allowance = ALLOWANCE,
    seconds: float = 20,
    limit: int = 0,
    descriptors: Sequence[int] = (),
) -> str:
    job = {"kind": "test", "name": name, "argument": argument}
    answer, _ = await sandbox.run(job, descriptors, allowance, seconds=seconds, limit=limit)
    return str(answer["found"])


async def test_the_features_it_reports_hold_the_required_ones(sandbox: Sandbox) -> None:
    assert {"rlimits", "no-new-privs", "seccomp"} <= set(sandbox.features)


@pytest.mark.parametrize("name", SYSCALLS)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86-64's")
async def test_a_system_call_that_is_not_listed_fails(sandbox: Sandbox, name: str) -> None:
    assert await run(sandbox, "syscall", name) == "-1 1"


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("socket", "PermissionError"),
        ("unix", "PermissionError"),
        ("read", "PermissionError"),
        ("write", "PermissionError"),
        ("fork", "PermissionError"),
        ("execute", "PermissionError"),
        ("kill", "PermissionError"),
        ("descriptors", "PermissionError"),
        ("code", "PermissionError"),
        ("thread", "RuntimeError"),
    ],
)
async def test_code_cannot_reach_outside(sandbox: Sandbox, what: str, error: str) -> None:
    assert await run(sandbox, "python", what) == error
    assert not os.access(STOLEN, os.F_OK)


async def test_memory_is_limited(sandbox: Sandbox) -> None:
    assert await run(sandbox, "allocate", "64") == str(64 * MIB)
    assert await run(sandbox, "allocate", "512") == "MemoryError"


async def test_a_job_that_overstays_is_killed(sandbox: Sandbox) -> None:
    for name in ("spin", "sleep"):
        begun = time.monotonic()
        with pytest.raises(JobTimeout):
            await run(sandbox, name, seconds=0.5)
        assert time.monotonic() - begun < 5
    assert await run(sandbox, "echo", "0") == "ok"


async def test_processor_time_is_limited_too(sandbox: Sandbox) -> None:
    with pytest.raises(JobCrashed) as caught:
        await run(sandbox, "spin", allowance=Allowance(256 * MIB, 1, 0), seconds=30)
    assert "signal" in caught.value.message


async def test_a_crash_is_reported_and_the_next_job_runs(sandbox: Sandbox) -> None:
    with pytest.raises(JobCrashed) as caught:
        await run(sandbox, "abort")
    assert "signal" in caught.value.message
    assert await run(sandbox, "echo", "0") == "ok"


async def test_an_unexpected_error_says_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(JobCrashed) as caught:
        await run(sandbox, "explode")
    assert "a value" not in caught.value.message


async def test_a_refusal_keeps_its_code(sandbox: Sandbox) -> None:
    with pytest.raises(JobFailed) as caught:
        await run(sandbox, "refuse")
    assert (caught.value.kind, caught.value.code) == ("Refused", "test.refused")


async def test_more_output_than_allowed_is_not_read(sandbox: Sandbox) -> None:
    assert await run(sandbox, "echo", "1000", limit=1000) == "ok"
    with pytest.raises(JobCrashed):
        await run(sandbox, "echo", "1001", limit=1000)


@pytest.mark.parametrize(
    "said",
    [
        b'{"ok": true, "parts": [1e999]}',
        b'{"ok": true, "parts": [Infinity]}',
        b'{"ok": true, "parts": [72101108108111]}',
    ],
)
async def test_what_a_taken_over_child_says_goes_to_no_one(said: bytes) -> None:
    """Sizes that are no sizes are an answer out of form; and none is quoted, for the host reads the error's text (R6)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(len(said).to_bytes(4, "big") + said)
        with pytest.raises(ChildClosed) as caught:
            await receive_answer(ours, 1000)
    assert not any(character.isdigit() for character in caught.value.message)


async def test_a_child_cannot_speak_through_its_exit_status(sandbox: Sandbox) -> None:
    with pytest.raises(JobCrashed) as caught:
        await run(sandbox, "exit", "77")
    assert "77" not in caught.value.message


async def test_sealed_inputs_can_be_read_and_not_changed(sandbox: Sandbox) -> None:
    with MemoryFile("input") as file:
        file.write_at(b"original", 0)
        file.seal()
        allowance = Allowance(256 * MIB, 10, 4096)
        assert await run(sandbox, "inputs", descriptors=[file.fd]) == "original"
        with pytest.raises(JobCrashed):
            await run(sandbox, "overwrite", descriptors=[file.fd], allowance=allowance)
        assert os.pread(file.fd, 100, 0) == b"original"


async def test_a_child_without_leave_writes_no_memory_file_either(sandbox: Sandbox) -> None:
    with MemoryFile("target", 8) as file:
        with pytest.raises(JobCrashed):
            await run(sandbox, "overwrite", descriptors=[file.fd])
        assert os.pread(file.fd, 100, 0) == bytes(8)


async def test_nothing_passes_from_one_job_to_the_next(sandbox: Sandbox) -> None:
    assert {await run(sandbox, "remember") for _ in range(4)} == {"nothing"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
async def test_jobs_run_as_users_of_their_own(sandbox: Sandbox) -> None:
    jobs = [asyncio.ensure_future(run(sandbox, "sleep", seconds=1.5)) for _ in range(2)]
    await asyncio.sleep(1)
    owners = [(path / "environ").stat().st_uid for path in children(sandbox.pid)]
    users = [int(status(path)["Uid"].split()[0]) for path in children(sandbox.pid)]
    assert len([uid for uid in users if uid >= FIRST_UID]) == len({uid for uid in users if uid >= FIRST_UID}) >= 2
    # Not dumpable: /proc shows them as root's, and gives nothing away to their own user.
    assert set(owners) == {0}
    for found in await asyncio.gather(*jobs, return_exceptions=True):
        assert isinstance(found, JobTimeout)


def status(process: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())


def children(pid: int) -> list[Path]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if int(status(path)["PPid"]) == pid:
                    found.append(path)
            except OSError:
                continue
    return found


async def test_many_jobs_at_once(sandbox: Sandbox) -> None:
    assert await asyncio.gather(*(run(sandbox, "echo", "0") for _ in range(20))) == ["ok"] * 20


async def test_an_enclave_whose_zygote_dies_is_told() -> None:
    ended = asyncio.Event()
    sandbox = sandbox_kit.start(jobs)
    sandbox.ready()
    sandbox.attach(ended.set)
    os.kill(sandbox.pid, signal.SIGKILL)
    await asyncio.wait_for(ended.wait(), 5)
    sandbox.close()


def broken() -> Jobs:
    raise SandboxError("test.broken", "cannot warm")


def crashing() -> Jobs:
    raise ValueError("a value")


@pytest.mark.parametrize(("warm", "code"), [(broken, "test.broken"), (crashing, "sandbox.start")])
async def test_a_sandbox_that_cannot_start_is_refused(warm: Callable[[], Jobs], code: str) -> None:
    sandbox = sandbox_kit.start(warm)
    with pytest.raises(SandboxError) as caught:
        sandbox.ready()
    assert caught.value.code == code
    assert "a value" not in caught.value.message
    sandbox.close()


async def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(SandboxError):
        seccomp.build("riscv64", False)
    for machine in ("x86_64", "aarch64"):
        assert len(seccomp.build(machine, True)) % 8 == 0
