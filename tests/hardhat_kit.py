"""Hardhat's node, a second EVM. scripts/hardhat installs it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.anvil_kit import free_port

PLACE = Path(__file__).resolve().parent.parent / ".tools" / "hardhat"


@contextmanager
def hardhat() -> Iterator[str]:
    """Its node on a free port; its URL."""
    program = PLACE / "node_modules" / "hardhat" / "dist" / "src" / "cli.js"
    assert program.is_file(), "Hardhat is missing; run scripts/hardhat"
    port = free_port()
    process = subprocess.Popen(
        [PLACE / "bin" / "node", program, "node", "--hostname", "127.0.0.1", "--port", str(port)],
        cwd=PLACE,
        env={**os.environ, "HARDHAT_DISABLE_TELEMETRY_PROMPT": "true", "CI": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "Hardhat's node ended"
                assert time.monotonic() < deadline, "Hardhat's node does not answer"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
