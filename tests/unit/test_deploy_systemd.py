"""The systemd units that ship."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
BREAKS_SANDBOX = {
    "CapabilityBoundingSet",
    "MemoryDenyWriteExecute",
    "PrivateUsers",
    "RestrictNamespaces",
    "SystemCallFilter",
}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_every_line_of_a_unit(unit: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed here")
    there = tmp_path / unit.name
    there.write_text(re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", unit.read_text("utf-8"), flags=re.MULTILINE))
    told = subprocess.run(
        [program, "verify", "--man=no", str(there)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("name", ["oracle-enclave", "oracle-worker"])
def test_nothing_is_taken_from_the_enclave_that_its_sandbox_needs(name: str) -> None:
    (unit,) = [each for each in UNITS if each.stem == name]
    options = {line.partition("=")[0] for line in unit.read_text("utf-8").splitlines() if not line.startswith("#")}
    assert "NoNewPrivileges" in options
    assert not options & BREAKS_SANDBOX
