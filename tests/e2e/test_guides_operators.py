"""The operators' and the auditor's guides, followed word for word."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from oracle.devnet.processes import free_port
from oracle.keybroker.config import Anchors, KeyBrokerConfig, Listen, read_config
from oracle.worker.config import WorkerConfig
from tests.e2e.guide import follow


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models(part)


def names(model: type[BaseModel]) -> Iterator[str]:
    """What a model's file may say, by the names in the file."""
    for field in model.model_fields.values():
        assert field.alias is not None
        yield field.alias
        for inner in models(field.annotation):
            yield from names(inner)


def missing(yaml: str, model: type[BaseModel]) -> list[str]:
    """The fields that a commented file does not mention, as `name:`."""
    return [name for name in names(model) if not re.search(rf"(^|[\s#{{]){name}:", yaml, re.MULTILINE)]


def differing(config: BaseModel, but: set[str]) -> list[str]:
    """The fields whose value is not their default, which the guide says it is."""
    fields = type(config).model_fields.items()
    named = {n: f.default for n, f in fields if n not in but and f.default is not PydanticUndefined}
    return [name for name, default in named.items() if getattr(config, name) != default]


@pytest.mark.slow
async def test_a_worker_operator_gets_through_the_guide(tmp_path: Path) -> None:
    await follow("worker-operator", tmp_path, seconds=600)
    path = tmp_path / "worker" / "worker.yaml"
    assert missing(path.read_text(), WorkerConfig) == []
    assert differing(WorkerConfig.read(path), {"operator", "attestation", "development"}) == []
    check_unit(tmp_path / "worker" / "enclave-oracle-worker.service", tmp_path)


def check_unit(unit: Path, clone: Path) -> None:
    """What systemd thinks of a unit, with this clone in the place that it names."""
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        return
    here = clone / f"checked-{unit.name}"
    here.write_text(unit.read_text().replace("/opt/enclave-oracle", str(clone)))
    ran = subprocess.run([analyse, "verify", str(here)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert here.name not in ran.stderr, ran.stderr


@pytest.mark.slow
async def test_a_broker_operator_gets_through_the_guide(tmp_path: Path) -> None:
    await follow("broker-operator", tmp_path, seconds=600, replace={"7460": str(free_port())})
    path = tmp_path / "broker" / "broker.yaml"
    assert missing(path.read_text(), KeyBrokerConfig) == []
    development = read_config(path)
    assert differing(development, {"anchors", "listen"}) == []
    assert differing(development.listen, {"port"}) == []
    assert differing(development.limits, set()) == []
    assert differing(development.chains[0], {"dangerous_single_rpc", "max_block_age"}) == []
    assert (Listen().port, Listen().host) == (7460, "127.0.0.1")
    production = read_config(tmp_path / "broker" / "production.yaml")
    assert (production.anchors, production.chains[0].votes, production.chains[0].max_block_age) == (Anchors(), 2, 3600)
    assert not re.search(r"dangerous|skip", (tmp_path / "broker" / "production.yaml").read_text())
    check_unit(tmp_path / "broker" / "enclave-oracle-broker.service", tmp_path)
