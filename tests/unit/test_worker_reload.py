"""What a reload of the configuration takes, and that it takes all of it or nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from oracle.errors import Refused
from oracle.logs import ROOT
from oracle.worker.config import WorkerConfig
from oracle.worker.metrics import Metrics
from oracle.worker.reload import RELOADABLE, Reloader, check_change

FIELDS: dict[str, Any] = {
    "rpc": ["http://127.0.0.1:1"],
    "deployment": "deployment.json",
    "journal": "worker.sqlite",
    "enclave": {"socket": "enclave.sock"},
    "storage": {"read": ["file:///srv"], "write": "file:///srv"},
    "brokers": {"0x" + "11" * 32: "http://127.0.0.1:2"},
    "wallet": {"keyFile": "wallet.key"},
    "payee": "0x" + "22" * 20,
}
CHANGES: dict[str, Any] = {
    "rpc": ["http://127.0.0.1:3"],
    "brokers": {"0x" + "33" * 32: "http://127.0.0.1:4"},
    "logLevel": "DEBUG",
    "minTokenFees": {"0x" + "44" * 20: 5},
    "maxCallbackGas": 5,
}


def write(directory: Path, **changes: Any) -> Path:
    path = directory / "worker.yaml"
    path.write_text(yaml.safe_dump({**FIELDS, **changes}))
    return path


class Desk:
    def __init__(self, directory: Path) -> None:
        self.metrics, self.taken = Metrics(), list[WorkerConfig]()
        path = write(directory)
        self.reloader = Reloader(path, WorkerConfig.read(path), self.taken.append, self.metrics)

    def failed(self) -> float | None:
        return self.metrics.get("config_reload_failed")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("name", RELOADABLE)
def test_each_field_that_may_change_is_taken(name: str, desk: Desk, tmp_path: Path) -> None:
    alias = WorkerConfig.model_fields[name].alias or name
    change = CHANGES.get(alias, 77)
    write(tmp_path, **{alias: change})
    level = logging.getLogger(ROOT).level
    try:
        assert desk.reloader.reload()
    finally:
        logging.getLogger(ROOT).setLevel(level)
    (taken,) = desk.taken
    changed = [each for each in WorkerConfig.model_fields if getattr(taken, each) != getattr(read(tmp_path), each)]
    assert changed == [name]
    assert (desk.metrics.get("config_reloads_total", outcome="applied"), desk.failed()) == (1, 0)


def read(directory: Path) -> WorkerConfig:
    return WorkerConfig.read(write(directory))


def test_a_new_log_level_counts_at_once(desk: Desk, tmp_path: Path) -> None:
    level = logging.getLogger(ROOT).level
    try:
        write(tmp_path, logLevel="ERROR")
        assert desk.reloader.reload()
        assert logging.getLogger(ROOT).level == logging.ERROR
    finally:
        logging.getLogger(ROOT).setLevel(level)


@pytest.mark.parametrize(
    "change",
    [
        {"journal": "other.sqlite"},
        {"payee": "0x" + "55" * 20},
        {"wallet": {"keyFile": "other.key"}},
        {"enclave": {"socket": "other.sock"}},
        {"storage": {"read": ["file:///other"], "write": "file:///srv"}},
        {"health": {"listen": "127.0.0.1:1"}},
    ],
)
def test_what_only_a_restart_can_change_is_named_and_nothing_else_of_the_file_is_taken(
    change: dict[str, Any], desk: Desk, tmp_path: Path
) -> None:
    path = write(tmp_path, minFee=5, **change)
    with pytest.raises(Refused, match=next(iter(change))) as refusal:
        check_change(desk.reloader.running, WorkerConfig.read(path))
    assert "minFee" not in str(refusal.value)
    assert not desk.reloader.reload()
    assert desk.taken == []
    assert desk.reloader.running.min_fee == 0
    assert (desk.metrics.get("config_reloads_total", outcome="refused"), desk.failed()) == (1, 1)


@pytest.mark.parametrize("text", ["rpc: [", "rpc: 5", "", "unknown: 1"])
def test_a_broken_file_leaves_the_old_one_in_force_until_it_is_mended(text: str, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "worker.yaml").write_text(text)
    assert not desk.reloader.reload()
    assert (desk.taken, desk.failed()) == ([], 1)
    write(tmp_path, minFee=5)
    assert desk.reloader.reload()
    assert (desk.taken[-1].min_fee, desk.failed()) == (5, 0)


def test_a_file_that_is_gone_is_refused(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "worker.yaml").unlink()
    assert not desk.reloader.reload()
    assert desk.failed() == 1
