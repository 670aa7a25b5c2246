"""Which lines and branches of contracts/src the forge tests reach, against contracts/test/uncovered.txt.

Each line of that file is `FILE: KIND: SOURCE: REASON`, such as `Der.sol: branch: if (a) revert B();: no input gets here`: KIND is
line or branch, SOURCE the line of the source without its indentation. What is named and reached, or not there, is an error, too.
Forge has no counters in assembly, which is left out. It compiles with hardly any optimisation here (`--ir-minimum`), so gas is
not that of what ships.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".tools" / "coverage"
REPORT = PLACE / "lcov.info"
NAMED = ROOT / "contracts" / "test" / "uncovered.txt"
SOURCES = "contracts/src/"
KINDS = ("line", "branch")


@dataclass
class File:
    """`missed` holds what was not reached, as uncovered.txt names it; a branch once for each way it did not go."""

    path: str
    found: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/coverage", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="read the last run's report")
    if not parser.parse_args().keep:
        run()
    files = read(REPORT.read_text())
    missed = Counter(name for file in files for name in file.missed)
    named = named_reasons(NAMED.read_text()) if NAMED.exists() else {}
    complaints = [f"NOT REACHED {name} ({count} times)" for name, count in missed.items() if name not in named]
    complaints += [f"NAMED, YET REACHED {name}" for name in named if name not in missed]
    print(f"{'':<28} {'lines':>14} {'branches':>14}")
    for file in files:
        print(f"{Path(file.path).name:<28} " + " ".join(f"{share(file, kind):>14}" for kind in KINDS))
    total = File("total", sum_of(files, "found"), sum_of(files, "reached"))
    print(f"{'total':<28} " + " ".join(f"{share(total, kind):>14}" for kind in KINDS))
    print(f"{len(missed)} named in {NAMED.relative_to(ROOT)}" if not complaints else "\n".join(complaints))
    return 1 if complaints else 0


def run() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    REPORT.unlink(missing_ok=True)
    few = {"FOUNDRY_FUZZ_RUNS": "32", "FOUNDRY_INVARIANT_RUNS": "4", "FOUNDRY_INVARIANT_DEPTH": "64"}
    own = {"FOUNDRY_OUT": str(PLACE / "out"), "FOUNDRY_CACHE_PATH": str(PLACE / "cache")}
    ran = subprocess.run(
        [
            "forge",
            "coverage",
            "--ir-minimum",
            "--report=lcov",
            f"--report-file={REPORT}",
            "--no-match-coverage=^(contracts/(test|testing|examples)|node_modules)/",
            "--no-match-path=node_modules/**",
            # What is shipped is measured there, not what is compiled for coverage.
            "--no-match-contract=^GasTest$",
            "--deny=never",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **few, **own},
    )
    (PLACE / "log").write_text(ran.stdout + ran.stderr)
    failed = re.findall(r"^\[FAIL.*", ran.stdout, re.MULTILINE)
    if failed or not REPORT.exists():
        tail = "\n".join(failed) or ran.stdout[-2000:] + ran.stderr[-2000:]
        raise SystemExit(f"coverage: forge coverage failed ({PLACE / 'log'}):\n{tail}")


def read(text: str) -> list[File]:
    files = []
    for record in text.split("end_of_record"):
        path = re.search(r"^SF:(.*)$", record, re.MULTILINE)
        if path is None or not path[1].startswith(SOURCES) or "/interfaces/" in path[1]:
            continue
        lines = (ROOT / path[1]).read_text().split("\n")
        file, inside = File(path[1]), in_assembly(lines)
        for number, hits in re.findall(r"^DA:(\d+),(\d+)", record, re.MULTILINE):
            if int(number) not in inside:
                count(file, "line", lines[int(number) - 1], hits != "0")
        for number, hits in re.findall(r"^BRDA:(\d+),\d+,\d+,(-|\d+)", record, re.MULTILINE):
            if int(number) not in inside:
                count(file, "branch", lines[int(number) - 1], hits not in ("-", "0"))
        files.append(file)
    return sorted(files, key=lambda file: file.path)


def in_assembly(lines: list[str]) -> set[int]:
    """Numbers of the lines that forge has no counters in, whatever it says of them."""
    inside, depth = set(), 0
    for number, line in enumerate(lines, 1):
        starts = depth == 0 and re.search(r"\bassembly [^{]*\{", line)
        if depth and not starts:
            inside.add(number)
        if depth or starts:
            depth += line.count("{") - line.count("}")
    return inside


def count(file: File, kind: str, source: str, reached: bool) -> None:
    file.found[kind] += 1
    file.reached[kind] += reached
    if not reached:
        file.missed.append(f"{Path(file.path).name}: {kind}: {source.strip()}")


def named_reasons(text: str) -> dict[str, str]:
    """Reasons by what they are for. Raises SystemExit for a line without one."""
    found = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        name, _, reason = line.rpartition(": ")
        if not re.match(r"\w+\.sol: (line|branch): .", name) or not reason:
            raise SystemExit(
                f"coverage: {NAMED.relative_to(ROOT)}: expected FILE: KIND: SOURCE: REASON, found {line!r}"
            )
        found[name] = reason
    return found


def share(file: File, kind: str) -> str:
    return f"{file.reached[kind]} of {file.found[kind]}"


def sum_of(files: list[File], attribute: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for file in files:
        total.update(getattr(file, attribute))
    return total


if __name__ == "__main__":
    sys.exit(main())
