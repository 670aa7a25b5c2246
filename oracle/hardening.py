"""What a process that holds keys does first: no core dump, and no other process of its user may read its memory."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Keys live in memory; a core file would put them on disk. On Linux it also keeps debuggers and /proc/PID/mem out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
