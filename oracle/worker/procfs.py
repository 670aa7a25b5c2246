"""Which processes belong to an enclave, from Linux' /proc (proc(5)). A process id alone may be another's by the time it is
used, so each goes with the moment at which its process began."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Pid:
    """A process: its id, and when it began (clock ticks since boot), which no later process with the same id shares."""

    number: int
    born: int

    @classmethod
    def of(cls, number: int) -> Pid | None:
        """None where there is no such process, or only what is left of one that ended."""
        stat = _stat(number)
        return None if stat is None else cls(number, stat.born)

    def is_alive(self) -> bool:
        return Pid.of(self.number) == self

    def send(self, number: signal.Signals) -> None:
        """Nothing happens where it is gone."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.number, number)


@dataclass(frozen=True)
class _Stat:
    parent: int
    session: int
    born: int


def listener(path: Path) -> Pid | None:
    """The process that listens on a Unix socket (unix(7), SO_PEERCRED), alive or stopped; None where nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        # Where its backlog is full, a connection would wait for a listener that hangs.
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    return Pid.of(struct.unpack("3i", raw)[0])


def family(leader: Pid) -> list[Pid]:
    """`leader`, its session and all who descend from them, also where the leader itself is gone: it began the session, whose
    number nobody else gets while members are left."""
    stats = {number: stat for number in _numbers() if (stat := _stat(number)) is not None}
    now = stats.get(leader.number)
    if now is not None and now.born != leader.born:
        return []
    found = {number for number, stat in stats.items() if leader.number in (number, stat.session)}
    grown = True
    while grown:
        children = {number for number, stat in stats.items() if stat.parent in found}
        grown = not children <= found
        found |= children
    return [Pid(number, stats[number].born) for number in sorted(found)]


def running(arguments: Sequence[str]) -> list[Pid]:
    """Processes of this user whose command line ends with these `arguments`, ourselves left out."""
    wanted = [os.fsencode(argument) for argument in arguments]
    found = []
    for number in _numbers():
        if number == os.getpid() or not wanted:
            continue
        with contextlib.suppress(OSError):
            if (_PROC / str(number)).stat().st_uid != os.getuid():
                continue
            words = (_PROC / str(number) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            pid = Pid.of(number)
            if words[-len(wanted) :] == wanted and pid is not None:
                found.append(pid)
    return found


def _numbers() -> Iterator[int]:
    for entry in os.listdir(_PROC):  # noqa: PTH208 (thousands of names, no Path for each)
        if entry.isdigit():
            yield int(entry)


def _stat(number: int) -> _Stat | None:
    try:
        raw = (_PROC / str(number) / "stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in brackets, which may hold anything.
    state, parent, _group, session, *rest = raw.rpartition(b")")[2].split()
    if state in (b"Z", b"X"):
        return None
    return _Stat(int(parent), int(session), int(rest[15]))
