"""`oracle doctor`: what this machine has and lacks."""

from __future__ import annotations

import typer

from oracle.cli.common import Json
from oracle.cli.screen import Screen, grid

MARKS = {"ok": "ok", "missing": "MISSING", "absent": "–"}


def doctor(as_json: Json = False) -> None:
    """Say what this machine has and lacks, and how to get what is missing. Fails where the basics are missing."""
    from oracle.doctor import examine

    screen = Screen(as_json)
    with screen.busy("looking around"):
        report = examine()
    rows = [(MARKS[c.state], c.name, c.found, c.purpose) for c in report.checks]
    remedies = [(c.name, c.remedy) for c in report.checks if c.remedy is not None]
    tables = [
        grid(("", "what", "found", "needed for"), rows),
        grid(
            ("", "attester", "because"), [("ok" if a.usable else "–", a.attester, a.reason) for a in report.attesters]
        ),
    ]
    if remedies:
        tables.append(grid(("to get", "do"), remedies))
    screen.answer(
        {
            "ok": report.ok,
            "attester": report.attester,
            "simulated": report.simulated,
            "note": report.note,
            "attesters": report.attesters,
            "checks": report.checks,
        },
        *tables,
    )
    screen.say(f"Attester: {report.attester}. {report.note}")
    if not report.ok:
        raise typer.Exit(1)
