"""Checks, without the network, that the lock files fit what the project declares; `scripts/lock` makes them.

A lock starts with a digest of the declarations it was resolved from, so a changed dependency with an old lock is found.
No lock may name a host: which registry serves the packages is the machine's own setting.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHON_LOCKS = ("requirements.lock", "requirements-slither.lock")


def declared() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)
    project = data["project"]
    return {
        "python": project["requires-python"],
        "requirements.lock": [
            *project["dependencies"],
            *(line for extra in project["optional-dependencies"].values() for line in extra),
        ],
        "requirements-slither.lock": data["dependency-groups"]["slither"],
    }


def header(lock: str) -> str:
    """The first line of a lock file."""
    wanted = declared()
    digest = hashlib.sha256(json.dumps([wanted["python"], wanted[lock]]).encode()).hexdigest()
    return f"# Made by scripts/lock from the dependencies in pyproject.toml with the digest {digest}"


def pins(lock: str) -> list[Requirement]:
    lines = re.findall(r"^[A-Za-z0-9][^\\#\n]*", (ROOT / lock).read_text(), re.MULTILINE)
    return [Requirement(line.strip()) for line in lines]


def python_lock_faults(lock: str) -> list[str]:
    if (ROOT / lock).read_text().split("\n", 1)[0] != header(lock):
        return [f"{lock} was made from other dependencies than pyproject.toml declares; run scripts/lock"]
    locked: dict[str, list[Requirement]] = {}
    for pin in pins(lock):
        locked.setdefault(canonicalize_name(pin.name), []).append(pin)
    faults = []
    for line in declared()[lock]:
        wanted = Requirement(line)
        if wanted.name == "enclave-oracle":
            continue
        found = locked.get(canonicalize_name(wanted.name), [])
        versions = [spec.version for pin in found for spec in pin.specifier]
        if not versions or not all(version in wanted.specifier for version in versions):
            faults.append(f"{lock}: expected {wanted}, found {versions or 'nothing'}; run scripts/lock")
    return faults


def npm_lock_faults() -> list[str]:
    package = json.loads((ROOT / "package.json").read_text())
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"][""]
    return [
        f"package-lock.json: {field} differ from package.json; run scripts/lock"
        for field in ("dependencies", "devDependencies")
        if package.get(field, {}) != locked.get(field, {})
    ]


def host_faults() -> list[str]:
    """Locks with an address in them. npm's `funding` links say whom to thank, not where to fetch."""
    faults = [
        f"{lock}: names a host: {found}"
        for lock in PYTHON_LOCKS
        for found in re.findall(r"\S*://\S*|^--\S+.*|.* @ .*", (ROOT / lock).read_text(), re.MULTILINE)
    ]
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    faults += [f"package-lock.json: {name} has `resolved`" for name, entry in packages.items() if "resolved" in entry]
    return faults


def main() -> int:
    if sys.argv[1:2] == ["header"]:
        print(header(sys.argv[2]))
        return 0
    faults = [fault for lock in PYTHON_LOCKS for fault in python_lock_faults(lock)] + npm_lock_faults() + host_faults()
    print("\n".join(faults) or "the locks fit")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
