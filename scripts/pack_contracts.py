"""Packs the contracts as the npm package `@enclave-oracle/contracts`: `dist/enclave-oracle-contracts-VERSION.tgz`.

The package's root is contracts/src, so that a user imports `@enclave-oracle/contracts/ComputeConsumer.sol`; beside it lie
`examples/`, `testing/`, `abi/` (oracle/abi), and README.md and package.json (contracts/npm). Nothing that depends on when or
where it was packed is in the bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
FOLDERS = (("src", ""), ("examples", "examples/"), ("testing", "testing/"))
_IMPORT = re.compile(r'(?<= from ")\.\./src/')
EPOCH = 499_162_500  # as npm writes into every package: 1985-10-26T08:15:00Z


class PackError(Exception):
    """What is to be packed does not go together."""


def content() -> dict[str, bytes]:
    """Path in the package → bytes, in the order of the paths. Raises PackError."""
    files: dict[str, bytes] = {}
    for folder, prefix in FOLDERS:
        for path in sorted((CONTRACTS / folder).rglob("*.sol")):
            name = prefix + path.relative_to(CONTRACTS / folder).as_posix()
            if name in files:
                raise PackError(f"two files would be {name}")
            files[name] = _IMPORT.sub("../", path.read_text()).encode()
    for path in sorted((ROOT / "oracle" / "abi").glob("*.json")):
        files[f"abi/{path.name}"] = path.read_bytes()
    for path in (CONTRACTS / "npm" / "README.md", CONTRACTS / "npm" / "package.json", ROOT / "LICENSE"):
        files[path.name] = path.read_bytes()
    check_version(files["package.json"])
    return dict(sorted(files.items()))


def check_version(manifest: bytes) -> None:
    found, expected = (json.loads(text)["version"] for text in (manifest, (ROOT / "package.json").read_text()))
    if found != expected:
        raise PackError(f"contracts/npm/package.json has version {found}; package.json has {expected}")


def archive(files: dict[str, bytes]) -> bytes:
    """As `npm pack` lays it out, without anything of this machine or this moment."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size, entry.mtime, entry.mode = len(data), EPOCH, 0o644
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), compresslevel=9, mtime=0)


def file_name(manifest: bytes) -> str:
    """As npm calls it."""
    package = json.loads(manifest)
    return f"{package['name'].removeprefix('@').replace('/', '-')}-{package['version']}.tgz"


def main() -> int:
    parser = argparse.ArgumentParser(description="Pack the contracts as an npm package.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder to write to")
    out: Path = parser.parse_args().out
    try:
        files = content()
    except PackError as error:
        print(f"pack-contracts: {error}", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    path = out / file_name(files["package.json"])
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(archive(files))
    partial.replace(path)
    print(f"{path}: {len(files)} files, {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
