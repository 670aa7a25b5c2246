"""MRENCLAVE of the software enclave: the digest of the program that runs, so that a changed line is another enclave.

    python -m enclave_app.attesters.measure [PACKAGE_ROOT]      prints it as hex, without launching anything

The digest is SHA-256 over TAG = SHA-256("enclave-oracle/program/1") and then these records, where lp(x) is the
UTF-8 of x behind its length in 4 bytes, big-endian:

    0x01 ‖ lp(path) ‖ SHA-256(content)      each file below the package root, path relative and with "/"
    0x02 ‖ lp(implementation) ‖ lp(version) the Python that runs, e.g. "CPython", "3.11.7"
    0x03 ‖ lp(name) ‖ lp(version) ‖ files   each distribution it loads, name normalised as in PEP 503; files is the
                                            SHA-256 over 0x01 records as above of what it installed as code or data
    0x04 ‖ lp(key) ‖ lp(value)              each entry of `extra`

What an installer writes about itself (`*.dist-info`) and scripts outside the library folder are not a distribution's
files here. The standard library is counted by its version only.

Files, distributions and `extra` are each sorted by the bytes of path, name and key. Bytecode (`*.pyc`, `*.pyo`,
`__pycache__`) is not counted: `enclave_app.launch` keeps Python from loading any. Distributions are DEPENDENCIES and what
they require, transitively; a requirement with an environment marker counts when it is installed, one of an extra only where
that extra is asked for.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from enclave_app.attesters.base import AttesterError

TAG: Final = hashlib.sha256(b"enclave-oracle/program/1").digest()

DEPENDENCIES: Final = (
    "aiohttp",
    "coincurve",
    "cryptography",
    "duckdb",
    "eth-abi",
    "eth-hash",
    "eth-keys",
    "eth-utils",
    "pyarrow",
    "pycryptodome",
    "pydantic",
)
"""Every distribution that `enclave_app` imports; a test compares this list with the imports."""

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?([^;]*)(?:;(.*))?", re.DOTALL)
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


class MeasureError(AttesterError):
    """The program cannot be measured: a file that is not regular, or a dependency that is not installed."""


def measure_program(package_root: Path, extra: Mapping[str, str], dependencies: Iterable[str] = DEPENDENCIES) -> bytes:
    """32 bytes, as laid out at the top of this module. Raises MeasureError."""
    digest = hashlib.sha256(TAG)
    for path, content_digest in _files(package_root):
        digest.update(b"\x01" + _lp(path) + content_digest)
    digest.update(b"\x02" + _lp(platform.python_implementation()) + _lp(platform.python_version()))
    for name, version in sorted(resolved_distributions(dependencies).items()):
        digest.update(b"\x03" + _lp(name) + _lp(version) + _distribution_files(name))
    for key in sorted(extra, key=str.encode):
        digest.update(b"\x04" + _lp(key) + _lp(extra[key]))
    return digest.digest()


def package_root() -> Path:
    """The directory of the `enclave_app` package that this code belongs to."""
    return Path(__file__).resolve().parent.parent


def measured_files(package_root: Path, dependencies: Iterable[str] = DEPENDENCIES) -> frozenset[str]:
    """The absolute paths of all files whose content `measure_program` counts. Raises MeasureError."""
    own = (package_root / path for path, _ in _files(package_root))
    installed = (place for name in resolved_distributions(dependencies) for _, place in _installed_files(name))
    return frozenset(os.path.abspath(place) for place in (*own, *installed))  # noqa: PTH100 - it resolves no links


def resolved_distributions(names: Iterable[str]) -> dict[str, str]:
    """Normalised name → version of `names` and all they require. Raises MeasureError for one not installed."""
    found: dict[str, str] = {}
    visited: set[tuple[str, str]] = set()
    pending: list[tuple[str, str, bool]] = [(name, "", True) for name in names]
    while pending:
        name, extra, required = pending.pop()
        key = (_normalised(name), extra)
        if key in visited:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError as cause:
            if not required:
                continue
            raise MeasureError(f"the enclave needs {name}, which is not installed; install it and measure again") from (
                cause
            )
        visited.add(key)
        found[key[0]] = distribution.version
        for requirement in distribution.requires or ():
            pending.extend(_requested(requirement, extra))
    return found


def _distribution_files(name: str) -> bytes:
    """The digest of a distribution's files, so that a changed line in a dependency is another enclave too."""
    digest = hashlib.sha256()
    for path, place in _installed_files(name):
        try:
            with place.open("rb") as content:
                digest.update(b"\x01" + _lp(path) + hashlib.file_digest(content, "sha256").digest())
        except OSError as error:
            raise MeasureError(
                f"cannot read {path} of {name} while measuring: {error.strerror}; reinstall it"
            ) from error
    return digest.digest()


def _installed_files(name: str) -> list[tuple[str, Path]]:
    distribution = metadata.distribution(name)
    # R3: what cannot be listed cannot be measured.
    if distribution.files is None:
        raise MeasureError(f"{name} does not list its files; install it from a wheel and measure again")
    found: list[tuple[str, Path]] = []
    for entry in sorted(distribution.files, key=lambda each: each.as_posix().encode()):
        path = entry.as_posix()
        outside = path.startswith("..") or ".dist-info/" in path or "__pycache__/" in path
        if not outside and not path.endswith((".pyc", ".pyo")):
            found.append((path, Path(str(distribution.locate_file(entry)))))
    return found


def _requested(requirement: str, extra: str) -> list[tuple[str, str, bool]]:
    match = _REQUIREMENT.match(requirement)
    if match is None:
        raise MeasureError(f"cannot read the requirement {requirement!r} of an installed distribution; reinstall it")
    name, extras, _, marker = match.groups()
    conditions = {_normalised(each) for each in _EXTRA.findall(marker or "")}
    if conditions and _normalised(extra) not in conditions:
        return []
    asked = [each.strip() for each in (extras or "").split(",") if each.strip()]
    return [(name, each, marker is None) for each in ("", *asked)]


def _files(root: Path) -> list[tuple[str, bytes]]:
    if not root.is_dir():
        raise MeasureError(f"{root} is not a directory; give the root of the enclave_app package")
    found: list[tuple[str, bytes]] = []
    for directory, subdirectories, names in os.walk(root, onerror=_raise):
        subdirectories[:] = [each for each in subdirectories if each != "__pycache__"]
        for name in (*names, *(s for s in subdirectories if (Path(directory) / s).is_symlink())):
            if name.endswith((".pyc", ".pyo")):
                continue
            path = Path(directory) / name
            if path.is_symlink() or not path.is_file():
                # What a link points to can change without a change below the root (R3).
                raise MeasureError(f"{path} is not a regular file; the measured package holds regular files only")
            found.append((path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).digest()))
    return sorted(found, key=lambda each: each[0].encode())


def _raise(error: OSError) -> None:
    raise MeasureError(f"cannot read {error.filename} while measuring: {error.strerror}") from error


def _lp(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "big") + data


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else package_root()
    print(measure_program(root, {}).hex())
