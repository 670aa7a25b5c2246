"""A client's configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from oracle.config import read_client_config
from oracle.errors import Refused
from oracle.keybroker import init
from tests.cli_kit import CHEAP

ADDRESS = "0x" + "a1" * 20
DEPLOYMENT = {
    "chainId": "31337",
    "agreementRegistry": ADDRESS,
    "enclaveRegistry": ADDRESS,
    "streams": ADDRESS,
    "audits": ADDRESS,
    "oracle": ADDRESS,
    "verifiers": {},
    "firstBlock": 0,
}


@pytest.fixture
def value(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "deployment.json").write_text(json.dumps(DEPLOYMENT))
    init(tmp_path / "net" / "broker", "a password", url="https://broker.example", cost=CHEAP)
    return {
        "rpc": "http://127.0.0.1:8545",
        "deployment": "../net/deployment.json",
        "storage": ["../net/storage", "https://storage.example/blobs"],
        "brokers": ["../net/broker/broker.json"],
        "names": {"institute": "institute.json", "operator": "0x" + "a2" * 20},
        "keystore": "wallet.json",
        "passwordFile": "password",
        "resultKey": "result-key.json",
    }


def write(tmp_path: Path, value: dict[str, Any]) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "institute.json").write_text(json.dumps({"address": ADDRESS}))
    path = tmp_path / "home" / "oracle.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def test_what_it_names_lies_where_the_file_says(tmp_path: Path, value: dict[str, Any]) -> None:
    config = read_client_config(write(tmp_path, value))
    card = json.loads((tmp_path / "net" / "broker" / "broker.json").read_text())
    assert config.brokers == {bytes.fromhex(card["digest"][2:]): "https://broker.example"}
    assert config.storage == ((tmp_path / "net" / "storage").as_uri(), "https://storage.example/blobs")
    assert config.keystore == tmp_path / "home" / "wallet.json"
    assert config.deployment.chain_id == 31337
    assert {name: address.lower() for name, address in config.names.items()} == {
        "institute": ADDRESS,
        "operator": "0x" + "a2" * 20,
    }


def test_brokers_can_be_written_out(tmp_path: Path, value: dict[str, Any]) -> None:
    digest = "0x" + "11" * 32
    config = read_client_config(write(tmp_path, {**value, "brokers": {digest: "https://elsewhere.example"}}))
    assert config.brokers == {bytes([0x11]) * 32: "https://elsewhere.example"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"brokers": ["../net/nobody.json"]}, "broker.card"),
        ({"brokers": ["../net/silent/broker.json"]}, "config.card"),
        ({"brokers": "../net/broker/broker.json"}, "yaml.invalid"),
        ({"storage": []}, "yaml.invalid"),
        ({"storage": [7]}, "yaml.invalid"),
        ({"names": {"institute": "0x12"}}, "address"),
        ({"names": {"institute": "nobody.json"}}, "file.read"),
        ({"surprise": 1}, "yaml.invalid"),
    ],
)
def test_one_wrong_setting_is_refused(tmp_path: Path, value: dict[str, Any], change: dict[str, Any], code: str) -> None:
    init(tmp_path / "net" / "silent", "a password", cost=CHEAP)
    with pytest.raises(Refused) as refused:
        read_client_config(write(tmp_path, {**value, **change}))
    assert refused.value.code == code
