"""What a process gives up before it sees foreign bytes. Sources: unshare(2), prctl(2), setrlimit(2), landlock(7).

Required: resource limits, no_new_privs, no core dumps, the system call filter. Where kernel and container allow it,
also: namespaces of its own (once, in the zygote: a namespace costs more than a task), an unprivileged user, Landlock.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enclave_app.sandbox import seccomp
from enclave_app.sandbox.errors import SandboxError

_CLONE_NEWUSER: Final = 0x10000000
_NAMESPACES: Final = {
    "network-namespace": 0x40000000,
    "ipc-namespace": 0x08000000,
    "uts-namespace": 0x04000000,
    "mount-namespace": 0x00020000,
}
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_SIGKILL: Final = 9

# landlock(7); the numbers are the same on every machine.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_FS_BY_ABI: Final = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
_LANDLOCK_NET: Final = 0x3
_LANDLOCK_SCOPES: Final = 0x3

FIRST_UID: Final = 0x6E0000
"""Users that no machine has: one for each child alive, so that none may signal or trace another."""
MIB: Final = 1 << 20
PAGE: Final = resource.getpagesize()


@dataclass(frozen=True)
class Allowance:
    """What one child may use: bytes of memory, CPU seconds, and bytes that it may write to memory files."""

    memory: int
    cpu_seconds: int
    file_bytes: int


def load_libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def forbid_dumps(libc: ctypes.CDLL) -> None:
    """No core dump, and no reading of this process by others of its user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(libc, _PR_SET_DUMPABLE, 0)


def die_with_parent(libc: ctypes.CDLL) -> None:
    _prctl(libc, _PR_SET_PDEATHSIG, _SIGKILL)


def separate_namespaces(libc: ctypes.CDLL) -> list[str]:
    """Leave the host's network, IPC, host name and mount table; returns which of them were left."""
    flags = 0
    for flag in _NAMESPACES.values():
        flags |= flag
    if os.geteuid() != 0 and libc.unshare(_CLONE_NEWUSER | flags) == 0:
        return [*_NAMESPACES]
    return [name for name, flag in _NAMESPACES.items() if libc.unshare(flag) == 0]


def lock(libc: ctypes.CDLL, slot: int, allowance: Allowance) -> list[str]:
    """Give up everything that a computation does not need, for good; returns what was given up. Raises SandboxError."""
    features = ["rlimits", "no-new-privs", "seccomp"]
    os.setsid()
    if _drop_user(FIRST_UID + slot):
        features.append("unprivileged-user")
    die_with_parent(libc)
    forbid_dumps(libc)
    _limit(resource.RLIMIT_AS, _address_space() + allowance.memory)
    _limit(resource.RLIMIT_CPU, allowance.cpu_seconds)
    _limit(resource.RLIMIT_FSIZE, allowance.file_bytes)
    _limit(resource.RLIMIT_NOFILE, 64)
    _limit(resource.RLIMIT_NPROC, 1)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    if _landlock(libc):
        features.append("landlock")
    seccomp.install(libc, writable_files=allowance.file_bytes > 0)
    return features


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * PAGE


def _drop_user(uid: int) -> bool:
    if os.geteuid() != 0:
        return False
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:
        # A container whose user namespace does not map this user: the filter and no_new_privs remain.
        return False
    return True


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0):
        raise SandboxError("sandbox.prctl", "the kernel refuses a prctl", found=f"{option}: {ctypes.get_errno()}")


def _landlock(libc: ctypes.CDLL) -> bool:
    """A ruleset without rules: no file, no port, no signal and no abstract socket outside (behind the filter)."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    attributes = struct.pack("<Q", _LANDLOCK_FS_BY_ABI[min(version, 5)])
    if version >= 4:
        attributes += struct.pack("<Q", _LANDLOCK_NET)
    if version >= 6:
        attributes += struct.pack("<Q", _LANDLOCK_SCOPES)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        return bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)
