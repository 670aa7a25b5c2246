"""The host adversary suite's cases, counted in docs/threat-model.md and listed in docs/cases.md. `--write` renews both, `--check`
compares them.

Cases are what pytest collects; that each is refused is what running them shows: a case that is not refused fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.adversary.lies import SEAMS  # noqa: E402

PAGE = ROOT / "docs" / "threat-model.md"
LIST = ROOT / "docs" / "cases.md"
START, END = "<!-- cases: written by scripts/adversary.py -->", "<!-- end of cases -->"
HEAD = """\
# Cases of the host adversary suite

Written by `scripts/adversary.py` from `tests/adversary`. Each line completes "the host gives …", or whoever else lies there; what
was refused is named by its stable code, or by the contract's error. [threat-model.md](threat-model.md) says what it is about."""


def collect() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        lies = Path(folder) / "lies.json"
        command = [sys.executable, "-m", "pytest", "tests/adversary", "--collect-only", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run([*command, "--all", "--lies", str(lies)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"the cases cannot be collected:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        rows: list[dict[str, Any]] = json.loads(lies.read_text())
    return rows


def summary(cases: list[dict[str, Any]]) -> str:
    counts = Counter(case["seam"] for case in cases)
    lines = ["| seam | cases | refused |", "|---|---:|---:|"]
    lines += [f"| [{seam}](cases.md#{anchor(seam)}) | {counts[seam]} | {counts[seam]} |" for seam in SEAMS]
    return "\n".join([*lines, f"| **all** | **{len(cases)}** | **{len(cases)}** |"])


def listing(cases: list[dict[str, Any]]) -> str:
    lines = [HEAD]
    for seam in SEAMS:
        lines += ["", f"## {seam[0].upper()}{seam[1:]}", "| the lie | rules | refused as | test |", "|---|---|---|---|"]
        for case in cases:
            if case["seam"] == seam:
                test = case["test"].removeprefix("tests/adversary/").replace("|", "\\|")
                what = case["what"].replace("|", "\\|")
                lines.append(f"| {what} | {' '.join(case['rules'])} | `{case['reason']}` | `{test}` |")
    return "\n".join(lines) + "\n"


def anchor(seam: str) -> str:
    return seam.lower().replace(" ", "-")


def main() -> None:
    cases = collect()
    head, _, rest = PAGE.read_text().partition(START)
    _, found, tail = rest.partition(END)
    if not found:
        sys.exit(f"{PAGE.name} has no place for the summary")
    wanted = {PAGE: f"{head}{START}\n{summary(cases)}\n{END}{tail}", LIST: listing(cases)}
    if sys.argv[1:] == ["--write"]:
        for path, text in wanted.items():
            path.write_text(text)
    elif sys.argv[1:] != ["--check"]:
        sys.exit("expected --write or --check")
    else:
        stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        if stale:
            sys.exit(f"{' and '.join(stale)} do not fit tests/adversary; run scripts/adversary.py --write")


if __name__ == "__main__":
    main()
