"""The whole story by commands alone, on a devnet that a command started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli_kit import answer, oracle

SPEC = """
name: radius
description: Mean radius by diagnosis
kind: sql
entry: query.sql
tables: {clinic: {patient: int64, malignant: bool}, imaging: {patient: int64, radius: double}}
params: [{name: smallest, type: integer, min: 1, max: 100}]
outputs: [result]
"""
QUERY = """
SELECT malignant, avg(radius) AS radius FROM clinic JOIN imaging USING (patient)
GROUP BY malignant HAVING count(*) >= $smallest ORDER BY malignant
"""
TABLES = {
    "clinic": ("hospital-a", "patient,malignant\n1,true\n2,false\n3,true\n4,false\n"),
    "imaging": ("hospital-b", "patient,radius\n1,17.5\n2,11.5\n3,18.5\n4,12.5\n"),
}


@dataclass(frozen=True)
class Running:
    """What `oracle devnet --json` printed, and a directory to work in."""

    said: dict[str, Any]
    base: Path

    @property
    def home(self) -> Path:
        return Path(self.said["directory"])

    def address(self, who: str) -> str:
        return next(str(a["address"]) for a in self.said["accounts"] if a["name"] == who)

    def as_(self, who: str) -> tuple[object, ...]:
        return ("--config", self.home / f"{who}.yaml")


@pytest.fixture
def devnet(tmp_path: Path) -> Iterator[Running]:
    command = [sys.executable, "-m", "oracle", "devnet", "--dir", str(tmp_path / "devnet"), "--json"]
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env={**os.environ})
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline() or b'{"error": "it printed nothing"}')
        assert "error" not in said, said
        (tmp_path / "work").mkdir()
        yield Running(said, tmp_path / "work")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(60)
        finally:
            process.kill()
            process.stdout.close()
    assert status == 0


def prepare(devnet: Running) -> Path:
    """Seal, share, publish, pack, draft; the agreement's file."""
    base = devnet.base
    brokers = [devnet.home / "brokers" / str(n) / "broker.json" for n in range(1, 1 + len(devnet.said["brokers"]))]
    named = [word for card in brokers for word in ("--broker", card)]
    for name, (owner, text) in TABLES.items():
        (base / f"{name}.csv").write_text(text)
        keys = ("--keys", base / f"{name}.keys", "--yes")
        answer("dataset", "seal", base / f"{name}.csv", "--out", base / name, "--dangerous-plaintext-keys", *keys)
        words = ("--owner", devnet.address(owner), "--threshold", 2, *keys, *devnet.as_(owner))
        answer("dataset", "share", base / name, *named, *words)
        answer("dataset", "publish", base / name, *devnet.as_(owner))
    (base / "function.yaml").write_text(SPEC)
    (base / "query.sql").write_text(QUERY)
    answer("function", "pack", base, "--out", base / "f.eofb")
    answer("function", "publish", base / "f.eofb", *devnet.as_("institute"))
    config = devnet.home / "worker" / "enclave.json"
    (base / "measurement.json").write_text(json.dumps(answer("enclave", "measure", "--config", config)))
    (enclave,) = answer("enclave", "list", *devnet.as_("requester"))["enclaves"]
    draft = {
        "parties": {name: devnet.address(name) for name in ("hospital-a", "hospital-b", "institute", "operator")},
        "function": {
            "bundle": "f.eofb",
            "owner": "institute",
            "limits": {"memory": "512 MiB", "time": "30 s", "outputBytes": "1 MiB", "outputRows": 1000},
        },
        "data": [
            {"name": name, "owner": owner, "manifest": name, "shares": f"{name}/shares.json", "columns": "all"}
            for name, (owner, _) in TABLES.items()
        ],
        "enclaves": {
            "measurements": ["measurement.json"],
            "anchors": [enclave["anchor"], str(devnet.home / "platform" / "root.der")],
            "statuses": ["UP_TO_DATE"],
            "evaluationFloor": 1,
            "maxEvidenceAge": "24 h",
            "hosts": ["operator"],
        },
        "brokers": {
            "threshold": 2,
            "confirmation": {"latest": 0},
            "list": [
                {"key": str(card), "signer": said["signer"]}
                for card, said in zip(brokers, devnet.said["brokers"], strict=True)
            ],
        },
        "outputs": [{"name": "result", "recipients": ["requester"], "owners": ["institute"]}],
        "access": {"requesters": [devnet.address("requester")], "quota": 10},
        "price": {"fee": "0.01 ether"},
        "validity": {"until": "30 days"},
    }
    (base / "draft.yaml").write_text(yaml.safe_dump(draft))
    answer("agreement", "draft", base / "draft.yaml", "--out", base / "a.json", *devnet.as_("institute"))
    return base / "a.json"


@pytest.mark.slow
def test_two_hospitals_get_an_answer(devnet: Running) -> None:
    document = prepare(devnet)
    for who in ("institute", "hospital-a", "hospital-b"):
        ran = oracle("agreement", "sign", document, *devnet.as_(who), given="y\n")
        assert (ran.code, "SIMULATED" in ran.stderr) == (0, True)
    answer("agreement", "activate", document, *devnet.as_("institute"))
    as_requester = devnet.as_("requester")
    asked = answer("task", "request", document, "--param", "smallest=2", "--wait", "--patience", 60, *as_requester)
    assert asked["state"] == "fulfilled"
    opened = answer("task", "result", asked["task_id"], *as_requester)
    assert opened["rows"] == [{"malignant": False, "radius": 12.0}, {"malignant": True, "radius": 18.0}]
    log = answer("keybroker", "log", "show", devnet.home / "brokers" / "1", "--task", asked["task_id"])
    assert "released" in [entry["event"]["kind"] for entry in log["entries"]]
    assert answer("keybroker", "log", "verify", devnet.home / "brokers" / "1")["ok"] is True
    renewed = answer("enclave", "register", "--config", devnet.home / "worker" / "worker.yaml")
    assert (renewed["signer"], renewed["simulated"]) == (opened["signer"], True)
    assert answer("withdraw", *devnet.as_("operator"))["amount_wei"] == str(10**16)
