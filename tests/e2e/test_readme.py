"""The README's walkthrough, run as it is written."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from oracle.devnet import Devnet

README = Path(__file__).parents[2] / "README.md"


WALKTHROUGH, PYTHON = "<!-- walkthrough -->\n```sh", "```python"


def snippet(start: str) -> str:
    found = re.search(start + r"\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
async def test_the_walkthrough_gives_the_answer(tmp_path: Path) -> None:
    async with Devnet.open(tmp_path / "net"):
        (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
        script = f"set -eu\ncd {shlex.quote(str(tmp_path))}\n{snippet(WALKTHROUGH)}"
        script += f"\ncd ../..\n.venv/bin/python - <<'END'\n{snippet(PYTHON)}END\n"
        environment = {"PATH": os.defpath, "HOME": str(tmp_path), "COLUMNS": "120"}
        ran = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert re.search(r"yes\s+2\s+18\.0", ran.stdout), ran.stdout[-2000:]
    assert re.search(r"no\s+2\s+12\.5", ran.stdout), ran.stdout[-2000:]
    assert "[{'malignant': False, 'cases': 2, 'radius': 12.5}" in ran.stdout, ran.stdout[-2000:]
    assert "AUTHENTIC (SIMULATED)" in ran.stdout, ran.stdout[-4000:]
