"""The recorded evidence in `tests/data/attestation`: cases as its MANIFEST.json lists them, and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enclave_app.appraise.snp import SnpEndorsements
from oracle.attestation import Collateral

DATA = Path(__file__).parent / "data" / "attestation"
MANIFEST: dict[str, Any] = json.loads((DATA / "MANIFEST.json").read_text())

Case = dict[str, Any]


def cases(*tees: str) -> list[Case]:
    return [case for case in MANIFEST["cases"] if case["tee"] in tees]


def case(name: str) -> Case:
    (found,) = (case for case in MANIFEST["cases"] if case["name"] == name)
    return dict(found)


def runs(*tees: str) -> list[tuple[Case, Case]]:
    """(case, one time at which it gives something)"""
    return [(case, run) for case in cases(*tees) for run in case["verify"]]


def named(runs: list[tuple[Case, Case]]) -> list[str]:
    return [f"{case['name']}@{run.get('now', run.get('ek_file', 'any-time'))}" for case, run in runs]


def evidence_file(case: Case) -> Path:
    file = case["files"]["report"] if case["tee"] == "snp" else case.get("doc") or case["quote"]
    return DATA / str(file["file"])


def evidence(case: Case) -> bytes:
    return evidence_file(case).read_bytes()


def collateral_file(name: str) -> Path:
    return DATA / "collateral" / f"{name}.json"


def collateral(name: str) -> Collateral:
    return Collateral.from_json(collateral_file(name).read_text())


def endorsements(case: Case, ek: str = "ek.der") -> SnpEndorsements:
    folder = evidence_file(case).parent
    return SnpEndorsements(*((folder / name).read_bytes() for name in (ek, "ask.der", "ark.der")))
