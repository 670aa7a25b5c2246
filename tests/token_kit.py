"""The tokens and the wallet of tests/data/tokens.sol, compiled by the compiler that is here."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path

from eth_utils.address import to_checksum_address

from oracle.chain.abi import Contract
from oracle.chain.sender import Sender

ROOT = Path(__file__).resolve().parents[1]
FILE = "tests/data/tokens.sol"


@cache
def contracts() -> dict[str, Contract]:
    given = {
        "language": "Solidity",
        "sources": _sources(),
        "settings": {
            "evmVersion": "osaka",
            "outputSelection": {FILE: {"*": ["abi", "evm.bytecode.object"]}},
        },
    }
    ran = subprocess.run(
        [ROOT / "scripts/solc", "--standard-json"], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    said = json.loads(ran.stdout)
    assert "contracts" in said, said.get("errors")
    return {
        name: Contract(name, {"abi": found["abi"], "bytecode": found["evm"]["bytecode"]["object"]})
        for name, found in said["contracts"][FILE].items()
    }


async def create(sender: Sender, name: str, *args: object) -> str:
    receipt = await sender.transact(None, contracts()[name].deployment(*args))
    assert receipt.ok
    return str(to_checksum_address(receipt.contract_address or ""))


def _sources() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    missing = [FILE]
    while missing:
        name = missing.pop()
        if name in found:
            continue
        path = ROOT / ("node_modules" if name.startswith("@") else "") / name
        text = path.read_text("utf-8")
        found[name] = {"content": text}
        for imported in re.findall(r'^import[^"]*"([^"]+)"', text, re.MULTILINE):
            near = (Path(name).parent / imported) if imported.startswith(".") else Path(imported)
            parts: list[str] = []
            for part in near.parts:
                if part == "..":
                    parts.pop()
                else:
                    parts.append(part)
            missing.append("/".join(parts))
    return found
