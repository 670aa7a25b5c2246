"""The Python mutants: the tests once to see where each check refuses, then each check dropped in tests where it does.

Where a check never refuses, dropping it changes nothing: no test can catch it, and none is run.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mutation import scratch, solidity_checks
from tests.mutation.model import Mutant

SKIPPED = (
    "tests/e2e/",
    "tests/property/",
    "tests/unit/test_import_arrows.py",
    "tests/unit/test_mutation.py",
    "tests/unit/test_structure.py",
)
"""What is slow and refuses by chance, if at all, and what reads sources: a check has to have a test that is about it."""
_FILE_SECONDS = 6.0
"""What a file's world costs, roughly: for sharing work out."""


@dataclass
class Seen:
    """One test of the plain run. `setup` and `call` are the names of the checks that refused there."""

    test: str
    good: bool
    seconds: float
    setup: list[str]
    call: list[str]
    reason: str | None

    @property
    def file(self) -> str:
        return self.test.partition("::")[0]

    @property
    def is_lie(self) -> bool:
        return self.test.startswith("tests/adversary/")


@dataclass
class Outcome:
    """`caught` is the test that fails without the check."""

    caught: str | None = None
    why: str = ""
    tried: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


_PACKAGE = "enclave_app/__init__.py"


def _inside(root: Path, replaced: Mapping[str, str], switch: Path) -> dict[str, str]:
    """The switch within the measured package: an enclave runs no start-up hook and loads nothing unmeasured."""
    text = replaced.get(_PACKAGE) or (root / _PACKAGE).read_text()
    return {
        _PACKAGE: f"{text}\nfrom enclave_app import mutation_switch\nmutation_switch.install({str(switch)!r})\n",
        "enclave_app/mutation_switch.py": Path(__file__).with_name("switch.py").read_text(),
    }


class PythonError(Exception):
    """pytest did not run in a scratch copy."""


class Workers:
    """Scratch copies, each with its switch, that run pytest at the same time. Methods raise PythonError."""

    def __init__(self, place: Path, replaced: Mapping[str, str], count: int, root: Path = scratch.ROOT) -> None:
        self.place, self.root = place, root
        self._pythons: list[tuple[Path, Path]] = []
        self._failed: list[str] = []
        for index in range(count):
            copy, switch = place / f"python-{index}", place / f"switch-{index}" / "board"
            switch.parent.mkdir(parents=True, exist_ok=True)
            switch.write_bytes(bytes(1 << 14))
            for noted in switch.parent.glob("anvil-*"):
                noted.unlink()
            scratch.make(copy, {**replaced, **_inside(root, replaced, switch)}, root)
            self._pythons.append((scratch.make_venv(copy, switch, solidity_checks.COINBASE), copy))

    def run(
        self, shares: Sequence[Sequence[str]], option: str, plans: Sequence[Path], name: str
    ) -> list[dict[str, Any]]:
        """pytest with the plugin over each worker's share of the tests; the lines that it wrote."""
        outs = [self.place / f"{name}-{index}.jsonl" for index in range(len(shares))]
        threads = []
        for index, (tests, out) in enumerate(zip(shares, outs, strict=True)):
            out.unlink(missing_ok=True)
            if tests:
                # One word each: pytest looks for its root among words that are paths.
                arguments = [f"{option}={plans[index] if plans else out}", f"--mutants-out={out}"]
                log = self.place / f"{name}-{index}.log"
                threads.append(threading.Thread(target=self._pytest, args=(index, [*arguments, *tests], log)))
        self._failed.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise PythonError(f"pytest stopped: {'; '.join(self._failed)}")
        return [json.loads(line) for out in outs if out.exists() for line in out.read_text().splitlines()]

    def _pytest(self, index: int, arguments: Sequence[str], log: Path) -> None:
        python, copy = self._pythons[index]
        command = [str(python), "-m", "pytest", "-q", "-p", "tests.mutation.plugin", "-p", "no:cacheprovider"]
        with log.open("w") as file:
            ran = subprocess.run([*command, *arguments], cwd=copy, stdout=file, stderr=file, env=scratch.environment())
        if ran.returncode not in (0, 1):  # all passed, or some failed
            self._failed.append(f"exit status {ran.returncode}, see {log}")

    @property
    def count(self) -> int:
        return len(self._pythons)


def record(workers: Workers, mutants: Sequence[Mutant], sources: str, keep: bool) -> list[Seen]:
    """Every test once with all checks in place. What ran before with the same sources and test file is not run again."""
    store = workers.place / "record.json"
    known: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {"sources": "", "files": {}}
    if known["sources"] != sources and not keep:
        known["files"] = {}
    files = {
        path.relative_to(workers.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((workers.root / "tests").rglob("test_*.py"))
    }
    wanted = [
        name
        for name, digest in files.items()
        if not name.startswith(SKIPPED)
        and (
            known["files"].get(name, {}).get("d") != digest or not all(s["good"] for s in known["files"][name]["seen"])
        )
    ]
    times = {name: sum(s["seconds"] for s in said["seen"]) for name, said in known["files"].items()}
    shares = _share(
        {name: times.get(name, (workers.root / name).stat().st_size / 1000) for name in wanted}, workers.count
    )
    names = {mutant.number: mutant.name for mutant in mutants}
    lines = workers.run(shares, "--mutants-record", (), "record")
    for name in wanted:
        said = [line for line in lines if line["test"].startswith(f"{name}::")]
        for line in said:
            for phase in ("setup", "call"):
                line[phase] = [names[number] for number in line[phase] if number in names]
        known["files"][name] = {"d": files[name], "seen": said}
    known["sources"] = sources
    store.write_text(json.dumps(known))
    keys = ("test", "good", "seconds", "setup", "call", "reason")
    return [
        Seen(**{key: line[key] for key in keys})
        for name in files
        if name in known["files"] and not name.startswith(SKIPPED)
        for line in known["files"][name]["seen"]
    ]


def run(workers: Workers, mutants: Sequence[Mutant], seen: Sequence[Seen]) -> dict[int, Outcome]:
    """Each mutant in one test after the other in which its check refuses, the adversary suite's and quick ones first."""
    outcomes = {mutant.number: Outcome() for mutant in mutants}
    left = {mutant.number: candidates(mutant, seen) for mutant in mutants}
    for turn in range(1000):
        take = 1 if turn < 2 else 4 ** (turn - 1)
        plan: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        for number, tests in left.items():
            for test, cold in tests[:take]:
                plan[test].append((number, cold))
            left[number] = tests[take:]
        if not plan:
            break
        for said in _try(workers, plan, seen, first=False):
            outcome = outcomes[said["number"]]
            outcome.tried.append(said["test"])
            if said["outcome"] == "failed" and outcome.caught is None:
                outcome.caught, outcome.why = said["test"], said["why"]
                left[said["number"]] = []
            elif said["outcome"] not in ("failed", "passed"):
                outcome.errors.append(f"{said['outcome']} in {said['test']}")
    return outcomes


def candidates(mutant: Mutant, seen: Iterable[Seen]) -> list[tuple[str, bool]]:
    """The tests in which its check refuses, each with whether its world has to be made anew for that ("cold").

    The adversary suite goes first; of each test function one case before the next one's second, for they are much alike;
    and quick ones first, in whole seconds, so that the choice does not change with every run.
    """
    found = [s for s in seen if s.good and (mutant.name in s.call or mutant.name in s.setup)]
    found.sort(key=lambda s: round(s.seconds))
    turn: Counter[str] = Counter()
    order = []
    for each in found:
        function = each.test.partition("[")[0]
        cold = mutant.name not in each.call
        order.append((cold, not each.is_lie, turn[function], each.test))
        turn[function] += 1
    # Stable in what is alike: `sorted` by all but the name.
    return [(test, cold) for cold, _, _, test in sorted(order, key=lambda place: place[:3])]


def cases(
    workers: Workers, mutants: Sequence[Mutant], seen: Sequence[Seen], credited: Iterable[str]
) -> tuple[dict[str, str], list[str], list[str]]:
    """For each case of the adversary suite that caught nothing yet: a check whose removal it fails by; those that fail
    by none; and those of which that is not known, since they did not run."""
    numbers = {mutant.name: mutant for mutant in mutants}
    have = set(credited)
    open_cases = [s for s in seen if s.is_lie and s.good and s.test not in have]
    plan: dict[str, list[tuple[int, bool]]] = {}
    for case in open_cases:
        fired = [numbers[name] for name in case.call if name in numbers]
        contract = [m for m in mutants if m.language == "Solidity" and m.code.split(" ")[0] == case.reason]
        fired.sort(key=lambda m: m.code != case.reason)
        plan[case.test] = [(m.number, False) for m in (*fired, *contract)]
    by_number = {mutant.number: mutant.name for mutant in mutants}
    lines = _try(workers, plan, seen, first=True)
    found = {said["test"]: by_number[said["number"]] for said in lines if said["outcome"] == "failed"}
    known = {said["test"] for said in lines if said["outcome"] == "passed"}
    left = [case.test for case in open_cases if case.test not in found]
    lost = [test for test in left if plan[test] and test not in known]
    return found, [test for test in left if test not in lost], lost


def _try(
    workers: Workers, plan: Mapping[str, Sequence[tuple[int, bool]]], seen: Iterable[Seen], first: bool
) -> list[dict[str, Any]]:
    seconds = {s.test: s.seconds for s in seen}
    costs: dict[str, float] = defaultdict(lambda: _FILE_SECONDS)
    for test, tries in plan.items():
        costs[test.partition("::")[0]] += seconds[test] * (1 + 2 * len(tries))
    shares = _share(costs, workers.count)
    plans = []
    chosen = []
    for index, files in enumerate(shares):
        path = workers.place / f"plan-{index}.json"
        mine = {
            test: {"tries": tries, "first": first} for test, tries in plan.items() if test.partition("::")[0] in files
        }
        path.write_text(json.dumps(mine))
        plans.append(path)
        chosen.append(files)
    return workers.run(chosen, "--mutants-try", plans, f"try-{time.monotonic_ns()}")


def _share(costs: Mapping[str, float], count: int) -> list[list[str]]:
    shares: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for name, cost in sorted(costs.items(), key=lambda each: -each[1]):
        index = loads.index(min(loads))
        shares[index].append(name)
        loads[index] += cost
    return shares
