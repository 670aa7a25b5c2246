"""The system calls that sandboxed code keeps: a classic BPF filter that allows a list and fails all else with EPERM.

Sources: https://docs.kernel.org/userspace-api/seccomp_filter.html and linux/{seccomp,filter,audit}.h. x86-64 and arm64.
What is left can compute, use its own memory and the descriptors it already has. It cannot open, connect, execute, fork,
signal, trace, or make memory executable.
"""

from __future__ import annotations

import ctypes
import platform
import struct
from typing import Final

from enclave_app.sandbox.errors import SandboxError

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2

_LD_ABS: Final = 0x20
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06

_ALLOW: Final = 0x7FFF0000
_ERRNO_EPERM: Final = 0x00050001
_ERRNO_ENOSYS: Final = 0x00050026
_KILL_PROCESS: Final = 0x80000000

_NR, _ARCH, _ARG1_LOW, _ARG2_LOW, _ARG3_LOW = 0, 4, 24, 32, 40
_X32_BIT: Final = 0x40000000
_PROT_EXEC: Final = 4
_AT_EMPTY_PATH: Final = 0x1000
_FCNTL_ALLOWED: Final = (1, 3, 1030)
"""F_GETFD, F_GETFL, F_DUPFD_CLOEXEC."""

_X86_64: Final = (
    0xC000003E,
    {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13,
        "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "sched_yield": 24,
        "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "recvfrom": 45, "recvmsg": 47, "exit": 60,
        "getrusage": 98, "gettid": 186, "futex": 202, "sched_getaffinity": 204, "clock_gettime": 228,
        "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "getrandom": 318, "restart_syscall": 219,
    },
    {"mmap": 9, "mprotect": 10},
    {"fcntl": 72},
    {"newfstatat": 262},
    {"clone3": 435, "rseq": 334, "membarrier": 324},
)  # fmt: skip
_AARCH64: Final = (
    0xC00000B7,
    {
        "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "munmap": 215, "brk": 214,
        "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "pread64": 67, "readv": 65, "writev": 66,
        "sched_yield": 124, "mremap": 216, "madvise": 233, "nanosleep": 101, "getpid": 172, "recvfrom": 207,
        "recvmsg": 212, "exit": 93, "getrusage": 165, "gettid": 178, "futex": 98, "sched_getaffinity": 123,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94, "getrandom": 278,
        "restart_syscall": 128,
    },
    {"mmap": 222, "mprotect": 226},
    {"fcntl": 25},
    {"newfstatat": 79},
    {"clone3": 435, "rseq": 293, "membarrier": 283},
)  # fmt: skip
_MACHINES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def build(machine: str, writable_files: bool) -> bytes:
    """The filter's instructions; `writable_files` adds ftruncate, for a child that fills a memory file it was given."""
    if machine not in _MACHINES:
        raise SandboxError("sandbox.machine", "no system call filter for this machine", found=machine)
    audit, plain, executable, control, status, missing = _MACHINES[machine]
    numbers = [*plain.values(), *([_ftruncate(machine)] if writable_files else [])]
    body: list[tuple[int, int, int, int]] = [
        (_LD_ABS, 0, 0, _ARCH),
        (_JEQ, 1, 0, audit),
        (_RET, 0, 0, _KILL_PROCESS),
        (_LD_ABS, 0, 0, _NR),
        # The x32 numbers reach the same calls by another table.
        (_JGE, 0, 1, _X32_BIT),
        (_RET, 0, 0, _KILL_PROCESS),
    ]
    for number in numbers:
        body += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ALLOW)]
    for number in executable.values():
        body += [
            (_JEQ, 0, 4, number),
            (_LD_ABS, 0, 0, _ARG2_LOW),
            (_JSET, 0, 1, _PROT_EXEC),
            (_RET, 0, 0, _ERRNO_EPERM),
            (_RET, 0, 0, _ALLOW),
        ]
    for number in control.values():
        body += [(_JEQ, 0, 2 + 2 * len(_FCNTL_ALLOWED), number), (_LD_ABS, 0, 0, _ARG1_LOW)]
        for command in _FCNTL_ALLOWED:
            body += [(_JEQ, 0, 1, command), (_RET, 0, 0, _ALLOW)]
        body += [(_RET, 0, 0, _ERRNO_EPERM)]
    for number in status.values():
        # How the C library asks about a descriptor; about a path it asks without the flag.
        body += [
            (_JEQ, 0, 4, number),
            (_LD_ABS, 0, 0, _ARG3_LOW),
            (_JEQ, 0, 1, _AT_EMPTY_PATH),
            (_RET, 0, 0, _ALLOW),
            (_RET, 0, 0, _ERRNO_EPERM),
        ]
    for number in missing.values():
        # As on an older kernel, so that the C library takes its other way instead of failing.
        body += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ERRNO_ENOSYS)]
    body.append((_RET, 0, 0, _ERRNO_EPERM))
    return b"".join(struct.pack("<HBBI", code, yes, no, value) for code, yes, no, value in body)


def install(libc: ctypes.CDLL, writable_files: bool) -> None:
    """Put the filter on this process for good; no_new_privs must be set. Raises SandboxError."""
    code = build(platform.machine(), writable_files)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise SandboxError("sandbox.seccomp", "the kernel refuses a system call filter", found=ctypes.get_errno())


def _ftruncate(machine: str) -> int:
    return {"x86_64": 77, "aarch64": 46}[machine]
