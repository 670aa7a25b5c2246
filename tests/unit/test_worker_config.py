"""The worker's configuration file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from oracle.errors import Refused
from oracle.keybroker import init as init_broker
from oracle.worker.config import HostConfig, WorkerConfig, read_host
from tests.cli_kit import CHEAP

GOOD: dict[str, Any] = {
    "rpc": ["http://127.0.0.1:1"],
    "deployment": "deployment.json",
    "journal": "sub/worker.sqlite",
    "enclave": {"socket": "e.sock", "config": "/etc/enclave.yaml"},
    "storage": {"read": ["file:///b"], "write": "file:///b"},
    "brokers": {"0x" + "11" * 32: "http://127.0.0.1:2"},
    "wallet": {"keystore": "w.json", "passwordFile": "w.password"},
    "payee": "0x" + "22" * 20,
    "attestation": {"collateral": "c.json"},
}


def read(tmp_path: Path, value: object) -> WorkerConfig:
    path = tmp_path / "worker.yaml"
    path.write_text(yaml.safe_dump(value))
    return WorkerConfig.read(path)


def test_relative_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.journal == tmp_path / "sub/worker.sqlite"
    assert config.wallet.keystore == tmp_path / "w.json"
    assert config.attestation is not None
    assert config.attestation.collateral == tmp_path / "c.json"
    assert config.enclave.config == Path("/etc/enclave.yaml")
    assert config.brokers == {b"\x11" * 32: "http://127.0.0.1:2"}


def test_brokers_may_be_their_cards(tmp_path: Path) -> None:
    card = init_broker(tmp_path / "broker", "a password", url="http://127.0.0.1:2", cost=CHEAP)
    assert read(tmp_path, {**GOOD, "brokers": ["broker/broker.json"]}).brokers == {card.digest: "http://127.0.0.1:2"}
    init_broker(tmp_path / "silent", "a password", cost=CHEAP)
    with pytest.raises(Refused) as refused:
        read(tmp_path, {**GOOD, "brokers": ["silent/broker.json"]})
    assert refused.value.code == "config.card"


def test_an_enclave_configuration_becomes_the_command_that_launches_it(tmp_path: Path) -> None:
    launch = read(tmp_path, GOOD).enclave.launch()
    socket = str(tmp_path / "e.sock")
    assert launch == (sys.executable, "-m", "enclave_app", "--config", "/etc/enclave.yaml", "--socket", socket)
    assert read(tmp_path, {**GOOD, "enclave": {"socket": "e.sock"}}).enclave.launch() is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"rpc": []}, "rpc"),
        ({"brokers": {}}, "brokers"),
        ({"brokers": {"0x11": "http://127.0.0.1:2"}}, "brokers"),
        ({"payee": "0x22"}, "payee"),
        ({"concurrency": 0}, "concurrency"),
        ({"wallet": {"keystore": "w.json"}}, "wallet"),
        ({"wallet": {"keystore": "w.json", "passwordFile": "p", "keyFile": "k"}}, "wallet"),
        ({"enclave": {"socket": "e", "config": "c", "command": ["x"]}}, "enclave"),
        ({"attestation": {"root": "r.der"}}, "attestation"),
        ({"attestation": {"collateral": "c.json", "vouchedBy": "v.sock"}}, "attestation"),
        ({"attestation": {"collateral": "c.json", "crl": "c.crl"}}, "attestation"),
        ({"attestation": {"collateral": "c.json", "endorsements": "certificates"}}, "attestation"),
        ({"privateKey": "0x1234567890"}, "privateKey"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_quoted(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    with pytest.raises(Refused) as raised:
        read(tmp_path, {**GOOD, **change})
    assert where in raised.value.message
    assert "0x1234567890" not in raised.value.message


def test_results_wait_beside_the_journals_file_or_where_the_file_says(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).spool_directory() == tmp_path / "sub/worker.sqlite.spool"
    assert read(tmp_path, {**GOOD, "spool": "waiting"}).spool_directory() == tmp_path / "waiting"
    on_a_server = {**GOOD, "journal": "postgresql://host/database"}
    with pytest.raises(Refused, match="`spool` names the folder"):
        read(tmp_path, on_a_server)
    assert read(tmp_path, {**on_a_server, "spool": "waiting"}).spool_directory() == tmp_path / "waiting"


def test_a_verifier_enclave_is_behind_a_socket_or_a_url(tmp_path: Path) -> None:
    found = []
    for where in ("v.sock", "https://verifier.example"):
        attestation = read(tmp_path, {**GOOD, "attestation": {"vouchedBy": where, "crl": "c.crl"}}).attestation
        assert attestation is not None
        assert attestation.crl == tmp_path / "c.crl"
        found.append(attestation.vouched_by)
    assert found == [tmp_path / "v.sock", "https://verifier.example"]


def test_a_host_that_runs_no_worker_needs_less(tmp_path: Path) -> None:
    path = tmp_path / "host.yaml"
    less = {name: GOOD[name] for name in ("rpc", "deployment", "enclave", "wallet", "attestation")}
    path.write_text(yaml.safe_dump(less))
    host = read_host(path)
    assert type(host) is HostConfig
    assert host.deployment == tmp_path / "deployment.json"
    path.write_text(yaml.safe_dump({**less, "payee": GOOD["payee"]}))
    with pytest.raises(Refused, match="payee"):
        read_host(path)
    read(tmp_path, GOOD)
    assert type(read_host(tmp_path / "worker.yaml")) is WorkerConfig
