"""How many lies were told and refused, by seam, in all processes of a run; a plugin of the whole test tree."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.adversary.lies import SEAMS

TOLD: Counter[str] = Counter()
REFUSED: Counter[str] = Counter()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes hands its counts to the one that started it (pytest-xdist)."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["lies"] = [dict(TOLD), dict(REFUSED)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Of pytest-xdist: a process ended. One that died has told nothing."""
    told, refused = getattr(node, "workeroutput", {}).get("lies", ({}, {}))
    TOLD.update(told)
    REFUSED.update(refused)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TOLD:
        return
    terminalreporter.section("host adversary suite")
    terminalreporter.write_line(f"{'seam':<12} {'cases':>6} {'refused':>8}")
    for seam in SEAMS:
        terminalreporter.write_line(f"{seam:<12} {TOLD[seam]:>6} {REFUSED[seam]:>8}")
    terminalreporter.write_line(f"{'all':<12} {TOLD.total():>6} {REFUSED.total():>8}")
