"""The contracts' mutants: one build that holds them all, and forge's tests once for each."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutation import scratch, solidity_checks
from tests.mutation.model import Mutant

_FLAGS = ("--deny", "never", "--code-size-limit", "1000000", "--json")
_ALL_FLAGS = ("--no-match-path", "node_modules/**")
_CORE_FLAGS = ("--no-match-path", "{node_modules,contracts/test/dcap}/**", "--fail-fast")
"""No small change of the core reaches the tests of attestation, and its first failure is enough."""
_PROFILE = {"FOUNDRY_PROFILE": "quick", "FOUNDRY_INVARIANT_RUNS": "20"}
"""The invariants' usual run takes minutes, and each mutant that nothing else catches would wait for it."""
_TIMEOUT = 300


class SolidityError(Exception):
    """The switched contracts do not build, or their tests fail with every check in place."""


@dataclass(frozen=True)
class Caught:
    """`test` is the one that fails; None where all pass, or where `error` says why nothing is known."""

    test: str | None
    error: str = ""


def prepare(place: Path, switched: Mapping[str, str]) -> None:
    """Build the switched contracts with their tests. Raises SolidityError."""
    replaced = dict(switched)
    for folder in ("contracts/test", "contracts/examples", "contracts/testing"):
        for path in sorted((scratch.ROOT / folder).rglob("*.sol")):
            replaced[path.relative_to(scratch.ROOT).as_posix()] = solidity_checks.as_view(path.read_text())
    scratch.make(place, replaced)
    built = subprocess.run(
        ["forge", "build", "--deny", "never"], cwd=place, capture_output=True, text=True, env={**os.environ, **_PROFILE}
    )
    if built.returncode:
        raise SolidityError(f"the switched contracts do not build:\n{built.stdout[-3000:]}{built.stderr[-3000:]}")
    failed = _failures(place, 0, {})
    if failed:
        raise SolidityError(f"the switched contracts fail with every check in place: {', '.join(failed)}")


def bytecode(place: Path) -> dict[str, str]:
    """oracle/abi/*.json with the switched creation code, by path: for a chain that tests in Python run."""
    result = {}
    for path in sorted((scratch.ROOT / "oracle/abi").glob("*.json")):
        shipped = json.loads(path.read_text())
        built = place / ".tools/quick/out" / f"{path.stem}.sol" / path.name
        if shipped["bytecode"] and built.exists():
            shipped["bytecode"] = json.loads(built.read_text())["bytecode"]["object"]
            result[f"oracle/abi/{path.name}"] = json.dumps(shipped)
    return result


def run(place: Path, mutants: Sequence[Mutant], workers: int) -> dict[int, Caught]:
    """Whichever test fails, by mutant's number. Fuzzing is short at first, and as long as ever before one survives."""
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip((m.number for m in mutants), pool.map(lambda m: _try(place, m), mutants), strict=True))


def _try(place: Path, mutant: Mutant) -> Caught:
    short = {"FOUNDRY_FUZZ_RUNS": "16", "FOUNDRY_INVARIANT_RUNS": "2", "FOUNDRY_INVARIANT_DEPTH": "16"}
    try:
        flags = _CORE_FLAGS if mutant.language == "Core" else _ALL_FLAGS
        failed = _failures(place, mutant.number, short, flags) or _failures(place, mutant.number, {}, flags)
    except (SolidityError, subprocess.TimeoutExpired) as error:
        return Caught(None, str(error)[-300:])
    return Caught(min(failed, key=_preference)) if failed else Caught(None)


def _preference(test: str) -> tuple[bool, str]:
    """A named case before a fuzzed one."""
    return "::testFuzz" in test or "::invariant" in test or "::statefulFuzz" in test, test


def _failures(place: Path, number: int, environment: Mapping[str, str], flags: Sequence[str] = _ALL_FLAGS) -> list[str]:
    """About one forge in four hundred hangs, whatever it tests, where the next does not."""
    try:
        return _run_forge(place, number, environment, flags)
    except subprocess.TimeoutExpired:
        return _run_forge(place, number, environment, flags)


def _run_forge(place: Path, number: int, environment: Mapping[str, str], flags: Sequence[str]) -> list[str]:
    coinbase = f"0x{solidity_checks.COINBASE + number if number else 0:040x}"
    ran = subprocess.run(
        ["forge", "test", *_FLAGS, *flags, "--block-coinbase", coinbase],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={
            **os.environ,
            **_PROFILE,
            **environment,
            "FOUNDRY_FUZZ_FAILURE_PERSIST_DIR": f"{place}/contracts/cache/fuzz-{number}",
        },
    )
    try:
        suites = json.loads(ran.stdout)
    except json.JSONDecodeError:
        raise SolidityError(f"forge gave no results: {ran.stdout[-500:]}{ran.stderr[-500:]}") from None
    return [
        f"{suite.split(':')[0]}::{name.partition('(')[0]}"
        for suite, said in sorted(suites.items())
        for name, result in sorted(said["test_results"].items())
        if result["status"] == "Failure"
    ]
