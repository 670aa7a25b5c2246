"""What shows that a contract was made of its source: the compiler's input, and what of each contract explorers ask for."""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oracle.chain.abi import load
from oracle.chain.deploy import Planned
from oracle.errors import Refused
from oracle.files import read_file

FOLDERS = ("contracts/src", "contracts/examples")
"""All that is compiled together: what the compiler makes of one contract may depend on what else it sees."""
MAX_SOURCE = 1 << 20
_IMPORT = re.compile(r'^\s*import\s[^;"]*"([^"]+)";', re.MULTILINE)


def standard_input(root: Path) -> dict[str, Any]:
    """The compiler's standard-JSON input for the shipped contracts, from a checkout in which scripts/setup ran.

    Raises Refused `sources.missing`, `file.*`.
    """
    if not (root / "foundry.toml").is_file():
        raise Refused(
            "sources.missing", "no checkout of the repository is there", found=str(root), hint="Give --sources"
        )
    profile = tomllib.loads(read_file(root / "foundry.toml", MAX_SOURCE).decode())["profile"]["default"]
    remappings: list[str] = profile["remappings"]
    return {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sorted(_sources(root, remappings))},
        "settings": {
            "remappings": remappings,
            "optimizer": {"enabled": profile["optimizer"], "runs": profile["optimizer_runs"]},
            "viaIR": profile["via_ir"],
            "evmVersion": profile["evm_version"],
            "metadata": {"bytecodeHash": profile["bytecode_hash"], "appendCBOR": profile["cbor_metadata"]},
            "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
        },
    }


def constructor_arguments(contracts: dict[str, Planned]) -> dict[str, dict[str, str]]:
    """By contract: its address, its name as explorers write it, its compiler, and its constructor's arguments in hex."""
    return {
        name: {
            "address": planned.address,
            "contract": f"{load(name).source}:{name}",
            "compiler": f"v{load(name).compiler}",
            "constructorArguments": planned.arguments.hex(),
        }
        for name, planned in contracts.items()
    }


def _sources(root: Path, remappings: list[str]) -> Iterator[tuple[str, str]]:
    waiting = [path.relative_to(root).as_posix() for folder in FOLDERS for path in (root / folder).rglob("*.sol")]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        if not (root / name).is_file():
            raise Refused("sources.missing", f"{name} is not there", hint="Run scripts/setup")
        text = read_file(root / name, MAX_SOURCE).decode()
        yield name, text
        for target in imports(name, text, remappings):
            if target not in seen:
                seen.add(target)
                waiting.append(target)


def imports(name: str, text: str, remappings: list[str]) -> list[str]:
    """The names of what the source `name` imports."""
    return [_resolve(name, imported, remappings) for imported in _IMPORT.findall(text)]


def _resolve(importer: str, imported: str, remappings: list[str]) -> str:
    if imported.startswith("."):
        return posixpath.normpath(posixpath.join(posixpath.dirname(importer), imported))
    for prefix, _, target in (remapping.partition("=") for remapping in remappings):
        if imported.startswith(prefix):
            return target + imported[len(prefix) :]
    return imported
