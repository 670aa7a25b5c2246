"""What `oracle contracts verification` writes is what the shipped bytecode was made of, byte by byte."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from oracle.chain.abi import load
from oracle.chain.create2 import create2_address
from oracle.chain.deploy import SALT
from oracle.chain.verification import FOLDERS
from tests.cli_kit import answer, refusal

ROOT = Path(__file__).resolve().parents[2]
MADE_BY_ANOTHER = "AgreementTerms"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("verification")
    told = answer("contracts", "verification", "--sources", ROOT, "--out", out)
    assert (told["input"], told["contracts"]) == (str(out / "input.json"), str(out / "contracts.json"))
    return out


def compiled(written: Path, *names: str) -> dict[str, dict[str, str]]:
    """The written input through the compiler, asked for some of the contracts only."""
    given = json.loads((written / "input.json").read_text())
    wanted: dict[str, Any] = {}
    for name in names:
        wanted[load(name).source] = {name: ["evm.bytecode.object", "evm.deployedBytecode.object"]}
    given["settings"]["outputSelection"] = wanted
    ran = subprocess.run(
        [ROOT / "scripts" / "solc", "--standard-json"],
        input=json.dumps(given).encode(),
        capture_output=True,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert not [error for error in answer.get("errors", []) if error["severity"] == "error"]
    return {
        name: {kind: code["object"] for kind, code in made["evm"].items()}
        for contracts in answer["contracts"].values()
        for name, made in contracts.items()
    }


def check(written: Path, *names: str) -> None:
    arguments = json.loads((written / "contracts.json").read_text())
    found = compiled(written, *names)
    assert set(found) == set(names)
    for name in names:
        contract, told = load(name), arguments[name]
        assert found[name] == {"bytecode": contract.bytecode.hex(), "deployedBytecode": contract.runtime.hex()}
        init_code = bytes.fromhex(found[name]["bytecode"] + told["constructorArguments"])
        if name != MADE_BY_ANOTHER:
            assert create2_address(SALT, init_code) == told["address"]


def test_the_smallest_contract_compiles_to_what_is_shipped(written: Path) -> None:
    check(written, "DatasetStreams")


@pytest.mark.slow
def test_every_contract_compiles_to_what_is_shipped(written: Path) -> None:
    check(written, *json.loads((written / "contracts.json").read_text()))


def test_another_source_is_another_contract(written: Path, tmp_path: Path) -> None:
    given = json.loads((written / "input.json").read_text())
    source = given["sources"]["contracts/src/DatasetStreams.sol"]
    source["content"] = source["content"].replace("versions[latest - 1].withdrawn", "versions[latest - 2].withdrawn")
    (tmp_path / "input.json").write_text(json.dumps(given))
    found = compiled(tmp_path, "DatasetStreams")["DatasetStreams"]
    assert found["bytecode"] != load("DatasetStreams").bytecode.hex()


def test_the_input_names_every_source_relative_to_the_repository(written: Path) -> None:
    sources = json.loads((written / "input.json").read_text())["sources"]
    own = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.sol")}
    assert own <= set(sources)
    assert all(name.startswith("node_modules/@openzeppelin/") for name in set(sources) - own)
    for name, source in sources.items():
        assert keccak(text=source["content"]) == keccak((ROOT / name).read_bytes())


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    given = ("contracts", "verification", "--out", tmp_path / "out")
    assert refusal(*given, "--sources", tmp_path)["code"] == "sources.missing"
    assert not (tmp_path / "out").exists()
