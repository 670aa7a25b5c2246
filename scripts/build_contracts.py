"""Compiles the contracts and writes what the Python package ships: `oracle/abi/<Contract>.json`.

Each file holds `contractName`, `kind`, `source` (its file), `abi`, `bytecode` (creation code, null where nothing can be
deployed), `deployedBytecode` (what that leaves on chain, with zeros for the immutables), `immutables` ([start, length] of
each place that has one, in bytes) and `compiler`. Interfaces, deployable contracts, and libraries that declare errors or
events are written; abstract contracts are not. `--check` writes nothing and fails when the files differ from the sources.

The compiler sees only the shipped sources, never the tests, and always all of them: via-IR output may depend on what is
compiled together, so an incremental build could give other bytes than a fresh one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("contracts/src", "contracts/examples")
ABI = ROOT / "oracle" / "abi"
OUT = ROOT / "contracts" / "out" / "release"
STAMP = OUT / ".inputs"
MAX_CODE = 24_576  # bytes of a deployed contract (EIP-170)


class BuildError(Exception):
    """The contracts do not compile, or cannot be shipped."""


def inputs_digest() -> str:
    """Digest of everything the compiler's output depends on."""
    digest = hashlib.sha256()
    files = [path for source in SOURCES for path in sorted((ROOT / source).rglob("*.sol"))]
    for path in [*files, ROOT / "foundry.toml", ROOT / "package-lock.json", Path(__file__)]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def compile_sources() -> None:
    """Runs forge over all shipped sources, unless its output for these inputs is there already."""
    wanted = inputs_digest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    STAMP.unlink(missing_ok=True)
    present = [source for source in SOURCES if (ROOT / source).is_dir()]
    cache = ["--out", str(OUT), "--cache-path", str(ROOT / "contracts" / "cache" / "release")]
    built = subprocess.run(["forge", "build", "--force", "--ast", *cache, *present], cwd=ROOT, capture_output=True)
    if built.returncode:
        raise BuildError(f"forge build failed:\n{built.stdout.decode()}{built.stderr.decode()}")
    OUT.mkdir(parents=True, exist_ok=True)
    STAMP.write_text(wanted)


def declarations(ast: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in ast["nodes"] if node["nodeType"] == "ContractDefinition"}


def shipped(artifact: dict[str, Any]) -> dict[str, Any] | None:
    """What the package ships of one forge artifact, or None where nothing is to be shipped."""
    metadata = artifact.get("metadata")
    if not metadata:
        return None  # a file with structures only
    [(source, name)] = metadata["settings"]["compilationTarget"].items()
    if not source.startswith(tuple(f"{folder}/" for folder in SOURCES)):
        return None
    node = declarations(artifact["ast"])[name]
    kind = node["contractKind"]
    if node["abstract"] or (kind == "library" and not artifact["abi"]):
        return None
    if artifact["bytecode"].get("linkReferences"):
        raise BuildError(f"{name} links to an external library; expected internal functions only, found: {source}")
    size = len(artifact["deployedBytecode"]["object"].removeprefix("0x")) // 2
    if size > MAX_CODE:
        raise BuildError(f"{name} has {size} bytes of code; expected at most {MAX_CODE} (EIP-170)")
    settings = metadata["settings"]
    return {
        "contractName": name,
        "kind": kind,
        "abi": artifact["abi"],
        "bytecode": artifact["bytecode"]["object"] if kind == "contract" else None,
        "deployedBytecode": artifact["deployedBytecode"]["object"] if kind == "contract" else None,
        "immutables": immutables(artifact["deployedBytecode"]),
        "source": source,
        "compiler": {
            "version": metadata["compiler"]["version"],
            "evmVersion": settings["evmVersion"],
            "optimizerRuns": settings["optimizer"]["runs"],
            "viaIR": settings.get("viaIR", False),
        },
    }


def immutables(deployed: dict[str, Any]) -> list[list[int]]:
    places = (place for found in deployed.get("immutableReferences", {}).values() for place in found)
    return sorted([place["start"], place["length"]] for place in places)


def artifacts() -> dict[str, str]:
    """File name → content, for every contract that is shipped."""
    files: dict[str, str] = {}
    for path in sorted(OUT.glob("*.sol/*.json")):
        found = shipped(json.loads(path.read_text()))
        if found is None:
            continue
        name = f"{found['contractName']}.json"
        if name in files:
            raise BuildError(f"two contracts are called {found['contractName']}; expected unique names")
        files[name] = json.dumps(found, indent=1, sort_keys=True) + "\n"
    return files


def differences(files: dict[str, str]) -> list[str]:
    present = {path.name: path.read_text() for path in ABI.glob("*.json")}
    lines = [f"missing: {name}" for name in sorted(files.keys() - present.keys())]
    lines += [f"no longer in the sources: {name}" for name in sorted(present.keys() - files.keys())]
    lines += [f"differs: {name}" for name in sorted(files.keys() & present.keys()) if files[name] != present[name]]
    return lines


def write(files: dict[str, str]) -> None:
    ABI.mkdir(parents=True, exist_ok=True)
    for path in ABI.glob("*.json"):
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        partial = ABI / f".{name}.partial"
        partial.write_text(content)
        partial.replace(ABI / name)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the contracts into oracle/abi/*.json.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when oracle/abi differs from the sources"
    )
    check = parser.parse_args().check
    try:
        compile_sources()
        files = artifacts()
    except BuildError as error:
        print(f"build-contracts: {error}", file=sys.stderr)
        return 1
    changed = differences(files)
    if check and changed:
        print("oracle/abi differs from the contracts; run scripts/build-contracts and commit:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in changed), file=sys.stderr)
        return 1
    if not check:
        write(files)
    print(f"oracle/abi: {len(files)} contracts, {'up to date' if check or not changed else f'{len(changed)} changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
