"""The npm package of the contracts, as somebody else's project uses it: unpacked beside OpenZeppelin's, compiled, tested."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPENZEPPELIN = ROOT / "node_modules" / "@openzeppelin" / "contracts"
BUILD_SECONDS = 300
_FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_IMPORT = re.compile(r'^(?:import\s|}).*?"([^"]+)";$', re.MULTILINE)
_CONTRACT = re.compile(r"^(?:abstract contract|contract|interface|library) (\w+)", re.MULTILINE)


def pack(out: Path) -> Path:
    subprocess.run([sys.executable, ROOT / "scripts" / "pack_contracts.py", "--out", out], check=True, timeout=60)
    [archive] = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def package(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed in a project's node_modules, with its peer."""
    modules = tmp_path_factory.mktemp("project") / "node_modules"
    (modules / "unpacked").mkdir(parents=True)
    # Python 3.11's `extractall` has no filter before 3.11.4, and later ones warn without.
    subprocess.run(["tar", "-xzf", archive, "-C", modules / "unpacked"], check=True)
    installed = modules / "@enclave-oracle" / "contracts"
    installed.parent.mkdir()
    (modules / "unpacked" / "package").rename(installed)
    shutil.copytree(OPENZEPPELIN, modules / "@openzeppelin" / "contracts", ignore=shutil.ignore_patterns("build"))
    return installed


def sources(package: Path) -> dict[str, str]:
    return {path.relative_to(package).as_posix(): path.read_text() for path in sorted(package.rglob("*.sol"))}


def test_the_same_sources_make_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    again = pack(tmp_path)
    assert again.name == archive.name
    assert again.read_bytes() == archive.read_bytes()


def test_an_archive_tells_nothing_of_the_machine(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        entries = tar.getmembers()
    assert {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime, entry.mode) for entry in entries} == {
        (0, 0, "", "", 499_162_500, 0o644)
    }
    assert all(entry.isfile() and entry.name.startswith("package/") for entry in entries)


def test_its_manifest_is_of_this_version_and_names_its_peer(package: Path) -> None:
    manifest = json.loads((package / "package.json").read_text())
    assert manifest["version"] == json.loads((ROOT / "package.json").read_text())["version"]
    assert manifest["license"] == "Apache-2.0"
    peer = json.loads((OPENZEPPELIN / "package.json").read_text())["version"]
    assert manifest["peerDependencies"] == {"@openzeppelin/contracts": f"^{peer}"}


def test_every_import_is_there(package: Path) -> None:
    files = sources(package)
    for name, text in files.items():
        for found in _IMPORT.findall(text):
            if found.startswith("@"):
                assert (package.parents[1] / found).is_file(), f"{name}: {found}"
            else:
                assert posixpath.normpath(posixpath.join(posixpath.dirname(name), found)) in files, f"{name}: {found}"


def test_every_abi_is_of_a_contract_that_is_there(package: Path) -> None:
    declared = {name for text in sources(package).values() for name in _CONTRACT.findall(text)}
    abis = sorted((package / "abi").glob("*.json"))
    assert {"ComputeOracle", "IComputeOracle", "IComputeConsumer"} <= {path.stem for path in abis}
    for path in abis:
        assert json.loads(path.read_text())["contractName"] == path.stem
        assert path.stem in declared


def test_its_readme_gets_a_foundry_user_to_a_tested_consumer(package: Path) -> None:
    project = package.parents[2]
    files = dict(_FILE.findall((package / "README.md").read_text()))
    assert sorted(files) == ["foundry.toml", "src/Thermometer.sol", "test/Thermometer.t.sol"]
    for name, text in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    # Whoever imports an example compiles it.
    examples = sorted(path.name for path in (package / "examples").iterdir())
    assert {"CreditLine.sol", "StatisticsDao.sol"} <= set(examples)
    (project / "src" / "Examples.sol").write_text(
        "".join(f'import "@enclave-oracle/contracts/examples/{name}";\n' for name in examples)
    )
    # The compiler that is here already, instead of one that forge would download.
    environment = os.environ | {"FOUNDRY_SOLC": str(ROOT / "scripts" / "solc"), "FOUNDRY_OFFLINE": "true"}
    environment.pop("FOUNDRY_PROFILE", None)
    tested = subprocess.run(
        [ROOT / "node_modules" / ".bin" / "forge", "test"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 tests passed, 0 failed" in tested.stdout
