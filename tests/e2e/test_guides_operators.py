"""The operators' and the auditor's guides: followed word for word, and what they say about files held against the program."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from enclave_app.config import EnclaveConfig
from enclave_app.protocol.canonical import dump
from oracle.devnet.network import ENCLAVE_CONFIG
from oracle.devnet.processes import free_port
from oracle.keybroker.config import Anchors, KeyBrokerConfig, Listen, read_config
from oracle.worker.config import WorkerConfig
from tests.e2e.guide import GUIDES, fields, follow

ADDRESS, DIGEST = "0x" + "11" * 20, "0x" + "22" * 32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worker-operator", "broker-operator", "auditor"])
async def test_a_reader_gets_through_the_guide(name: str, tmp_path: Path) -> None:
    named = [port for port in ("8545", "7460", "7461") if port in page(name)]
    await follow(name, tmp_path, seconds=900, replace={port: str(free_port()) for port in named})


def test_the_workers_file_has_every_field_and_its_default(tmp_path: Path) -> None:
    text = block("worker-operator", "worker/worker.yaml")
    assert missing(text, WorkerConfig) == []
    text = re.sub(r"^brokers: .*$", f"brokers: {{'{DIGEST}': 'http://127.0.0.1:1'}}", text, flags=re.MULTILINE)
    (tmp_path / "worker.yaml").write_text(text.replace("CLONE", str(tmp_path)).replace("PAYEE", f"'{ADDRESS}'"))
    config = WorkerConfig.read(tmp_path / "worker.yaml")
    assert differing(config, {"operator", "attestation", "gauges", "health"}) == []
    assert config.enclave.start_seconds == type(config.enclave).model_fields["start_seconds"].default


def test_the_enclaves_file_is_what_the_devnets_agreements_were_made_for() -> None:
    said = json.loads(block("worker-operator", "worker/enclave.txt"))
    assert set(said) == {field.alias for field in EnclaveConfig.model_fields.values()}
    assert dump(said) == dump(ENCLAVE_CONFIG)


def test_the_brokers_file_has_every_field_and_its_default(tmp_path: Path) -> None:
    text = block("broker-operator", "broker/broker.yaml")
    assert missing(text, KeyBrokerConfig) == []
    (tmp_path / "broker.yaml").write_text(text.replace("REGISTRY", ADDRESS))
    config = read_config(tmp_path / "broker.yaml")
    assert differing(config, {"anchors", "admin", "log_copies"}) == []
    assert differing(config.limits, set()) == []
    assert differing(config.chains[0], {"dangerous_single_rpc", "max_block_age"}) == []
    assert config.listen == Listen()


def test_the_brokers_file_for_a_real_chain_skips_nothing(tmp_path: Path) -> None:
    text = block("broker-operator", "broker/production.yaml")
    (tmp_path / "broker.yaml").write_text(text)
    config = read_config(tmp_path / "broker.yaml")
    assert (config.anchors, config.chains[0].votes, config.chains[0].max_block_age) == (Anchors(), 2, 3600)
    assert not re.search("dangerous|skip", text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("worker-operator", "worker/enclave-oracle-worker.service"),
        ("broker-operator", "broker/enclave-oracle-broker.service"),
    ],
)
def test_systemd_understands_a_unit(name: str, file: str, tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "oracle"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    unit = tmp_path / Path(file).name
    unit.write_text(block(name, file).replace("/opt/enclave-oracle", str(tmp_path)))
    ran = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert unit.name not in ran.stderr, ran.stderr  # what is misspelt is only warned of


def page(name: str) -> str:
    return (GUIDES / f"{name}.md").read_text()


def block(name: str, file: str) -> str:
    """A file that a guide has its reader write."""
    found = re.search(rf"<!-- file: {re.escape(file)} -->\n```\w+\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def missing(yaml: str, model: type[BaseModel]) -> list[str]:
    """The fields that a commented file does not mention, as `name:`."""
    return [name for name in fields(model) if not re.search(rf"(^|[\s#{{]){name}:", yaml, re.MULTILINE)]


def differing(config: BaseModel, but: set[str]) -> list[str]:
    """The fields whose value is not their default, which the guide says it is."""
    found = type(config).model_fields.items()
    named = {n: f.default for n, f in found if n not in but and f.default is not PydanticUndefined}
    return [name for name, default in named.items() if getattr(config, name) != default]
