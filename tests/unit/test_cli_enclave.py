"""`oracle enclave` and `oracle worker`, the parts that need no chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enclave_app.attesters.software import SoftwareEnclave
from enclave_app.config import EnclaveConfig
from tests.cli_kit import answer, oracle, refusal


def test_the_measurement_is_the_one_that_evidence_will_carry(tmp_path: Path) -> None:
    path = tmp_path / "enclave.json"
    path.write_bytes(EnclaveConfig(attester="software").canonical())
    measured = answer("enclave", "measure", "--config", path)["measurement"]
    assert measured == "0x" + SoftwareEnclave.of_program(path.read_bytes()).measurement.hex()


def test_another_configuration_is_another_enclave(tmp_path: Path) -> None:
    for name, running in (("a", 2), ("b", 1)):
        config = EnclaveConfig(attester="software", max_running=running)
        (tmp_path / name).write_bytes(config.canonical())
    first, second = (answer("enclave", "measure", "--config", tmp_path / name) for name in ("a", "b"))
    assert first != second


def test_a_configuration_that_no_enclave_takes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "enclave.json").write_text("{}")
    error = refusal("enclave", "measure", "--config", tmp_path / "enclave.json")
    assert error["code"] == "enclave.measure"
    assert "EnclaveConfig" in error["message"]


@pytest.mark.parametrize("words", [("enclave", "register"), ("enclave", "vouch"), ("worker", "run")])
def test_a_worker_configuration_is_needed(words: tuple[str, ...], tmp_path: Path) -> None:
    assert oracle(*words).code == 2
    assert refusal(*words, "--config", tmp_path / "none.yaml")["code"] == "file.read"


def host(tmp_path: Path, attestation: dict[str, str]) -> Path:
    path = tmp_path / "host.yaml"
    value = {
        "rpc": ["http://127.0.0.1:1"],
        "deployment": "deployment.json",
        "enclave": {"socket": "e.sock"},
        "wallet": {"keyFile": "key"},
        "attestation": attestation,
    }
    path.write_text(json.dumps(value))
    return path


def test_somebody_has_to_be_asked_to_vouch(tmp_path: Path) -> None:
    assert refusal("enclave", "vouch", "--config", host(tmp_path, {"collateral": "c.json"}))["code"] == "vouch.by"


@pytest.mark.parametrize("option", ["--root", "--crl", "--endorsements"])
def test_files_beside_a_configured_verifier_are_the_configurations(tmp_path: Path, option: str) -> None:
    config = host(tmp_path, {"vouchedBy": "v.sock"})
    assert refusal("enclave", "vouch", option, tmp_path / "f", "--config", config)["code"] == "vouch.by"
