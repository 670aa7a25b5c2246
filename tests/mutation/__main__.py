"""scripts/mutants: every check that names a rule, dropped one at a time, and the test that catches it."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutation import python_checks, python_run, scratch, solidity_checks, solidity_run
from tests.mutation.excused import EXCUSED
from tests.mutation.model import Mutant
from tests.mutation.report import Report

PLACE = scratch.ROOT / ".tools" / "mutants"
DOCUMENT = scratch.ROOT / "docs" / "mutants.md"
STARTED = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutants", allow_abbrev=False, description=__doc__)
    parser.add_argument("--python", action="store_true", help="only checks of Python")
    parser.add_argument("--solidity", action="store_true", help="only checks of the contracts")
    parser.add_argument(
        "--core", action="store_true", help="only small changes of the contracts that hold money and consent"
    )
    parser.add_argument("--only", metavar="TEXT", help="only checks with TEXT in their name, or of rule TEXT")
    parser.add_argument("--list", action="store_true", help="print the checks and run nothing")
    parser.add_argument("--unnamed", action="store_true", help="print the checks of Python that name no rule")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--write", action="store_true", help="write docs/mutants.md; needs all checks")
    parser.add_argument("--keep", action="store_true", help="believe what tests did before the sources changed")
    parser.add_argument("--clean", action="store_true", help="begin from nothing")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    options = parser.parse_args(arguments)
    if options.unnamed:
        print("\n".join(_listed(python_checks.find(scratch.ROOT, unnamed=True)[0])))
        return 0
    in_python, python_sources = python_checks.find(scratch.ROOT)
    in_solidity, solidity_sources = solidity_checks.find(scratch.ROOT)
    everything = [*in_python, *in_solidity]
    strange = set(EXCUSED) - {mutant.name for mutant in everything}
    if strange:
        parser.error(f"tests/mutation/excused.py names what is no check: {', '.join(sorted(strange))}")
    chosen = [mutant for mutant in everything if _is_wanted(mutant, options)]
    if options.list:
        print("\n".join(_listed(chosen)))
        return 0
    if options.write and len(chosen) != len(everything):
        parser.error("--write needs all checks: give no choice with it")
    if options.clean:
        shutil.rmtree(PLACE, ignore_errors=True)
    report = _run(everything, chosen, python_sources, solidity_sources, options)
    if options.json:
        rows = [
            {**vars(m), "caught": report.caught.get(m.number), "error": report.errors.get(m.number)} for m in chosen
        ]
        print(json.dumps({"mutants": rows, "cases": dict(report.cases), "alone": list(report.cases_alone)}, indent=1))
    else:
        print("\n".join([*report.complaints(), *report.lines(), f"took {time.monotonic() - STARTED:.0f} s"]))
    if options.write:
        DOCUMENT.write_text(report.document())
    return 0 if report.good else 1


def _run(
    everything: Sequence[Mutant],
    chosen: Sequence[Mutant],
    python_sources: dict[str, str],
    solidity_sources: dict[str, str],
    options: argparse.Namespace,
) -> Report:
    """The contracts beside Python, since compiling them keeps one core busy for minutes; then the suite's other cases."""
    caught: dict[int, str] = {}
    errors: dict[int, str] = {}
    in_solidity = [mutant for mutant in chosen if mutant.language != "Python"]
    in_python = [mutant for mutant in chosen if mutant.language == "Python"]
    whole = len(chosen) == len(everything)
    contracts = PLACE / "solidity"
    seen: list[python_run.Seen] = []
    with ThreadPoolExecutor(1) as beside:
        aside = beside.submit(_try_contracts, contracts, in_solidity, solidity_sources, options.jobs)
        if in_python:
            workers = python_run.Workers(PLACE, python_sources, options.jobs)
            seen = python_run.record(workers, everything, _digest(everything, python_sources), options.keep)
            unusable = [s.test for s in seen if not s.good]
            say(f"{len(seen)} tests ran with all checks in place; {len(unusable)} do not pass in a switched copy")
            for test in unusable:
                say(f"not used: {test}")
            for number, outcome in python_run.run(workers, in_python, seen).items():
                if outcome.caught:
                    caught[number] = outcome.caught
                elif outcome.errors:
                    errors[number] = "; ".join(outcome.errors)[:500]
            say(f"{len(in_python)} checks of Python were dropped")
        for number, found in aside.result().items():
            if found.test:
                caught[number] = found.test
            elif found.error:
                errors[number] = found.error
    if not whole:
        return Report(chosen, caught, errors)
    names = {mutant.number: mutant.name for mutant in everything}
    cases = {caught[m.number]: names[m.number] for m in in_python if caught.get(m.number, "").startswith("tests/adv")}
    workers = python_run.Workers(PLACE, {**python_sources, **solidity_run.bytecode(contracts)}, options.jobs)
    more, alone, lost = python_run.cases(workers, everything, seen, cases)
    say(f"{len(more) + len(alone)} cases of the adversary suite that had caught nothing were tried")
    return Report(chosen, caught, errors, {**cases, **more}, alone, lost)


def _try_contracts(
    place: Path, mutants: Sequence[Mutant], sources: dict[str, str], jobs: int
) -> dict[int, solidity_run.Caught]:
    if not mutants:
        return {}
    solidity_run.prepare(place, sources)
    say("the switched contracts are built, and pass their tests")
    found = solidity_run.run(place, mutants, jobs)
    say(f"{len(mutants)} checks of the contracts were dropped")
    return found


def say(text: str) -> None:
    print(f"  {time.monotonic() - STARTED:6.0f} s  {text}", file=sys.stderr, flush=True)


def _is_wanted(mutant: Mutant, options: argparse.Namespace) -> bool:
    wanted = {"Python": options.python, "Solidity": options.solidity, "Core": options.core}
    if any(wanted.values()) and not wanted[mutant.language]:
        return False
    return not options.only or options.only in mutant.name or options.only in mutant.rules


def _listed(mutants: Sequence[Mutant]) -> list[str]:
    return [f"{m.name}  [{m.file}:{m.line}]  {' '.join(m.rules)}  {m.text}" for m in mutants]


def _digest(mutants: Sequence[Mutant], switched: dict[str, str]) -> str:
    """Of the switched sources and what the tests share."""
    digest = hashlib.sha256(repr([(m.number, m.name) for m in mutants]).encode())
    for name in sorted(switched):
        digest.update(f"{name}\0{switched[name]}\0".encode())
    for path in sorted((scratch.ROOT / "tests").rglob("*.py")):
        if not path.name.startswith("test_") and path.parent.name != "mutation":
            digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
