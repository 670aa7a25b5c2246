"""The program digest: a changed byte, name, dependency or setting is another enclave."""

from __future__ import annotations

import ast
import hashlib
import platform
import re
import shutil
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest

from enclave_app.attesters.measure import (
    DEPENDENCIES,
    MeasureError,
    measure_program,
    package_root,
    resolved_distributions,
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "enclave_app"
    shutil.copytree(package_root(), root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_a_copy_elsewhere_measures_the_same_and_bytecode_does_not_count(package: Path) -> None:
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"bytecode")
    assert measure_program(package, {}) == measure_program(package_root(), {})


def test_one_changed_byte_of_a_file_changes_the_digest(package: Path) -> None:
    before = measure_program(package, {})
    file = package / "attesters" / "base.py"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    assert measure_program(package, {}) != before


@pytest.mark.parametrize("name", ["new.py", "data.txt", "protocol/table.bin"])
def test_an_added_file_changes_the_digest(package: Path, name: str) -> None:
    before = measure_program(package, {})
    (package / name).write_bytes(b"")
    assert measure_program(package, {}) != before


def test_a_renamed_file_changes_the_digest(package: Path) -> None:
    before = measure_program(package, {})
    (package / "py.typed").rename(package / "py.typed2")
    assert measure_program(package, {}) != before


def test_extra_settings_and_dependencies_change_the_digest(package: Path) -> None:
    digests = {
        measure_program(package, {}),
        measure_program(package, {"a": "bc"}),
        measure_program(package, {"ab": "c"}),
        measure_program(package, {}, dependencies=("cryptography",)),
        measure_program(package, {}, dependencies=("cryptography", "pydantic")),
    }
    assert len(digests) == 5


def test_a_new_version_or_a_changed_line_of_a_transitive_dependency_changes_the_digest(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(name: str, version: str, requires: str = "", code: str = "") -> None:
        info = tmp_path / "site" / f"{name}-1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / f"{name}.py").write_text(code)
        (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    install("measured_top", "1", 'Requires-Dist: measured.leaf>=1 ; python_version > "3"\n')
    install("measured_leaf", "1")
    before = measure_program(package, {}, dependencies=("measured-top",))
    install("measured_leaf", "1", code="changed = 1")
    changed = measure_program(package, {}, dependencies=("measured-top",))
    install("measured_leaf", "2")
    newer = measure_program(package, {}, dependencies=("measured-top",))
    assert len({before, changed, newer}) == 3


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_links_are_refused(package: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x = 1")
    (package / "linked").symlink_to(tmp_path / kind)
    with pytest.raises(MeasureError, match="not a regular file"):
        measure_program(package, {})


def test_what_is_no_regular_file_is_refused(package: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(package / "socket"))
    with pytest.raises(MeasureError, match="not a regular file"):
        measure_program(package, {})


def test_a_dependency_that_does_not_list_its_files_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlisted(metadata.PathDistribution):
        files = None

    installed = metadata.distribution("iniconfig")
    assert isinstance(installed, metadata.PathDistribution)
    monkeypatch.setattr(metadata, "distribution", lambda _: Unlisted(installed._path))
    with pytest.raises(MeasureError, match="does not list its files"):
        measure_program(package, {}, dependencies=("iniconfig",))


def test_a_dependency_that_is_not_installed_is_refused_by_name(package: Path) -> None:
    with pytest.raises(MeasureError, match="no-such-distribution"):
        measure_program(package, {}, dependencies=("no-such-distribution",))


def test_layout_is_the_documented_one(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_bytes(b"two")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "z.txt").write_bytes(b"one")

    def lp(text: str) -> bytes:
        return len(text.encode()).to_bytes(4, "big") + text.encode()

    installed = metadata.distribution("iniconfig")
    files = hashlib.sha256()
    for path in sorted(str(f) for f in installed.files or [] if str(f).startswith("iniconfig/") and f.suffix != ".pyc"):
        content = Path(str(installed.locate_file(path))).read_bytes()
        files.update(b"\x01" + lp(path) + hashlib.sha256(content).digest())
    expected = hashlib.sha256(
        hashlib.sha256(b"enclave-oracle/program/1").digest()
        + b"\x01" + lp("a/z.txt") + hashlib.sha256(b"one").digest()
        + b"\x01" + lp("b.py") + hashlib.sha256(b"two").digest()
        + b"\x02" + lp(platform.python_implementation()) + lp(platform.python_version())
        + b"\x03" + lp("iniconfig") + lp(metadata.version("iniconfig")) + files.digest()
        + b"\x04" + lp("k") + lp("v")
    ).digest()  # fmt: skip
    assert measure_program(tmp_path, {"k": "v"}, dependencies=("iniconfig",)) == expected


def test_requirements_are_followed_and_extras_only_where_asked() -> None:
    found = resolved_distributions(("aiohttp",))
    assert {"aiohttp", "yarl", "multidict", "idna"} <= found.keys()
    assert "pytest" not in resolved_distributions(DEPENDENCIES)


def test_every_third_party_import_of_the_enclave_is_measured() -> None:
    owners = metadata.packages_distributions()
    measured = resolved_distributions(DEPENDENCIES)
    missing: dict[str, str] = {}
    for file in package_root().rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - {"enclave_app", *sys.stdlib_module_names}:
                distributions = {re.sub(r"[-_.]+", "-", each).lower() for each in owners.get(top, [])}
                if not distributions & measured.keys():
                    missing[top] = str(file)
    assert not missing, f"add to DEPENDENCIES in attesters/measure.py: {missing}"
