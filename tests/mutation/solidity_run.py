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
_CORE_FLAGS = ("--fail-fast", "--no-match-path", "{node_modules/**,contracts/test/dcap/*}")
"""No small change of the core reaches the tests of attestation, and its first failure is enough."""
_NEAR = {
    "AgreementRegistry": "Activate,Approve,Narrow,Supersede,Spend,Budget,Requesters,Streams,Sign",
    "AgreementTerms": "Terms,Activate,Audits",
    "ComputeOracle": "Fulfil,FulfilBatch,PublicOutputs",
    "ComputeOracle.request": "Request",
    "ComputeOracle.requestFor": "RequestFor",
    "ComputeOracle.cancel": "Cancel",
    "ComputeOracle.expire": "Expire",
    "ComputeOracle.fulfilMany": "FulfilMany",
    "ComputeOracle.fulfilBatch": "FulfilBatch",
    "ComputeOracle.retryCallback": "RetryCallback",
    "ComputeOracle.distribute": "Distribute",
    "ComputeOracle.withdraw": "Withdraw",
    "ComputeOracle._request": "Request,Cancel,Callback",
    "ComputeOracle._requested": "Cancel,Expire",
    "ComputeOracle._checkRequest": "Request",
    "ComputeOracle._checkSame": "FulfilMany",
    "ComputeOracle._settleBatch": "FulfilBatch",
    "ComputeOracle._checkRequestOf": "Callback,Fulfil",
    "ComputeOracle._callBack": "Callback,RetryCallback",
    "ComputeOracle._checkGas": "Callback,Attacks,AttacksFromWithin",
    "DatasetStreams": "Streams",
    "FunctionAudits": "Audits",
    "EnclavePolicy": "Fulfil",
    "Payments": "Payments,RequestFor,Withdraw",
    "TaskSlot": "Request,Cancel,Fulfil,Expire,Callback,Moves",
    "ComputeConsumer": "Consumer",
    "EnclaveRegistry": "Register,Retire,Challenge",
    "AttestedVerifier": "AttestedVerifier",
    "Signatures": "Signatures,SmartAccounts",
    "DcapCollateral": "dcap/Collateral",
    "RevocationList": "dcap/Collateral",
    "X509": "dcap/Primitives,dcap/Collateral",
    "Der": "dcap/Primitives,dcap/Collateral",
    "P256": "dcap/Primitives",
    "IntelJson": "dcap/IntelJson",
    "TcbLevels": "dcap/Levels",
    "PckExtension": "dcap/Primitives,dcap/Collateral",
    "DcapQuote": "dcap/Quote",
    "DcapVerifier": "dcap/Quote",
}
"""The tests nearest to a contract, or to one of its functions: most changes fail there, in a second."""
_SHORT = {"FOUNDRY_FUZZ_RUNS": "16", "FOUNDRY_INVARIANT_RUNS": "2", "FOUNDRY_INVARIANT_DEPTH": "16"}
_PROFILE = {"FOUNDRY_PROFILE": "quick"}
_TIMEOUT = 900


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
    failed = _failures(place, 0, _SHORT)
    if failed:
        raise SolidityError(f"the switched contracts fail with every check in place: {', '.join(failed)}")


def bytecode(place: Path) -> dict[str, str]:
    """oracle/abi/*.json with the switched code, by path: for a chain that tests in Python run. What is deployed is compared
    with it, so the code on chain and the places of its immutables go along."""
    result = {}
    for path in sorted((scratch.ROOT / "oracle/abi").glob("*.json")):
        shipped = json.loads(path.read_text())
        built = place / ".tools/quick/out" / f"{path.stem}.sol" / path.name
        if shipped["bytecode"] and built.exists():
            artifact = json.loads(built.read_text())
            deployed = artifact["deployedBytecode"]
            places = (place for found in deployed.get("immutableReferences", {}).values() for place in found)
            shipped["bytecode"] = artifact["bytecode"]["object"]
            shipped["deployedBytecode"] = deployed["object"]
            shipped["immutables"] = sorted([place["start"], place["length"]] for place in places)
            result[f"oracle/abi/{path.name}"] = json.dumps(shipped)
    return result


def run(place: Path, mutants: Sequence[Mutant], workers: int) -> dict[int, Caught]:
    """Whichever test fails, by mutant's number. Fuzzing is short at first, and longer before one survives."""
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip((m.number for m in mutants), pool.map(lambda m: _try(place, m), mutants), strict=True))


def _try(place: Path, mutant: Mutant) -> Caught:
    longer = {"FOUNDRY_FUZZ_RUNS": "64", "FOUNDRY_INVARIANT_RUNS": "4", "FOUNDRY_INVARIANT_DEPTH": "64"}
    near = _near(mutant)
    runs: list[tuple[dict[str, str], Sequence[str]]] = [
        *([] if near is None else [(_SHORT, near)]),
        (_SHORT, _ALL_FLAGS),
        # The invariants' usual run takes minutes, and each mutant that nothing else catches would wait for it.
        ({"FOUNDRY_INVARIANT_RUNS": "20"}, _ALL_FLAGS),
    ]
    if mutant.language == "Core" and near is not None:
        runs = [(_SHORT, ("--fail-fast", *near)), (longer, _CORE_FLAGS)]
    try:
        failed = next((found for run in runs if (found := _failures(place, mutant.number, *run))), [])
    except (SolidityError, subprocess.TimeoutExpired) as error:
        return Caught(None, str(error)[-300:])
    return Caught(min(failed, key=_preference)) if failed else Caught(None)


def _near(mutant: Mutant) -> Sequence[str] | None:
    contract = Path(mutant.file).stem
    tests = _NEAR.get(f"{contract}.{mutant.function}", _NEAR.get(contract))
    if tests is None:
        return None
    return "--match-path", f"contracts/test/{{{tests}}}.t.sol" if "," in tests else f"contracts/test/{tests}.t.sol"


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
