"""A process that holds keys leaves no core file."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import ctypes, resource
from oracle.hardening import forbid_dumps
forbid_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_core_dumps_and_debuggers_are_kept_out() -> None:
    ran = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["(0,", "0)", "0"]
