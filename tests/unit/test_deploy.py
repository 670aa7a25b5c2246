"""The recipes under deploy/ fit the program that they start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from enclave_app.agreed import UNPROVEN, WITHOUT_OWN_CODE
from enclave_app.attesters.detect import HARDWARE
from enclave_app.attesters.factory import KINDS, SOFTWARE
from enclave_app.config import EnclaveConfig, read_config
from enclave_app.main import _arguments

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
README = (DEPLOY / "README.md").read_text()


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "dstack" / "docker-compose.yaml").read_text())
    return found


def manifest() -> dict[str, Any]:
    """As gramine-manifest would render it, with each expression's own text in its place."""
    text = (DEPLOY / "gramine" / "enclave.manifest.template").read_text()
    return tomllib.loads(re.sub(r"\{\{ (\S+) \}\}", lambda found: "/" + found[1], text))


def instructions(path: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, its continued lines joined."""
    lines = (DEPLOY / path).read_text().replace("\\\n", "").splitlines()
    return [(head, rest) for head, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")]


CONFIGURATIONS = {
    "gramine": (DEPLOY / "gramine" / "enclave.json").read_bytes(),
    "nitro": (DEPLOY / "nitro" / "enclave.json").read_bytes(),
    "dstack": compose()["configs"]["enclave"]["content"].encode(),
}
STARTS = {
    "gramine": manifest()["loader"]["argv"],
    "image": [
        word for name in ("ENTRYPOINT", "CMD") for word in json.loads(dict(instructions("image/Dockerfile"))[name])
    ],
    "nitro": (DEPLOY / "nitro" / "start.sh").read_text().rpartition("exec ")[2].split(),
}


@pytest.mark.parametrize("recipe", CONFIGURATIONS)
def test_a_configuration_is_one_that_the_enclave_takes(recipe: str) -> None:
    assert read_config(CONFIGURATIONS[recipe]) == EnclaveConfig(attester=recipe)


@pytest.mark.parametrize("recipe", STARTS)
def test_the_enclave_knows_the_arguments_it_is_started_with(recipe: str) -> None:
    python, module, name, *arguments = STARTS[recipe]
    assert (module, name) == ("-m", "enclave_app")
    assert python.startswith("python")
    options = _arguments(arguments)
    assert (options.config, options.platform) == ("/etc/enclave-oracle/enclave.json", None)


def test_the_image_installs_what_the_program_loads_and_nothing_else() -> None:
    made = subprocess.run(
        [sys.executable, str(DEPLOY / "image" / "requirements.py")], capture_output=True, text=True, check=True
    ).stdout
    assert made == (DEPLOY / "image" / "requirements.txt").read_text()


@pytest.mark.parametrize("path", ["image/Dockerfile", "nitro/Dockerfile"])
def test_an_image_has_no_base_but_a_named_one(path: str) -> None:
    found = instructions(path)
    assert [rest for head, rest in found if head == "FROM"] == [f"${{{found[0][1]}}}"]
    assert found[0][0] == "ARG"
    assert "=" not in found[0][1]


def test_what_a_dockerfile_copies_is_there() -> None:
    for path in ("image/Dockerfile", "nitro/Dockerfile"):
        for head, rest in instructions(path):
            if head == "COPY":
                assert (DEPLOY.parent / next(word for word in rest.split() if word[0] != "-")).exists(), rest


def test_the_compose_file_measures_all_that_counts() -> None:
    text = (DEPLOY / "dstack" / "docker-compose.yaml").read_text()
    assert "$" not in text
    services = compose()["services"]
    images = {service["image"] for service in services.values()}
    assert len(images) == 1
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", images.pop())
    assert not any(key in service for service in services.values() for key in ("environment", "env_file", "build"))


def test_only_the_enclave_meets_the_guest_agent() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if "dstack.sock" in str(service)] == ["enclave"]
    assert [name for name, service in services.items() if "ports" in service] == ["api"]


def test_the_manifest_reads_nothing_that_is_not_measured() -> None:
    text = (DEPLOY / "gramine" / "enclave.manifest.template").read_text()
    found = manifest()
    assert "insecure" not in text
    assert "passthrough" not in text
    assert "allowed_files" not in found["sgx"]
    assert (found["sgx"]["debug"], found["sgx"]["remote_attestation"]) == (False, "dcap")
    trusted = {uri.rstrip("/") for uri in found["sgx"]["trusted_files"]}
    assert {mount["uri"] for mount in found["fs"]["mounts"] if mount.get("type") != "tmpfs"} <= trusted


def test_the_start_script_is_a_script() -> None:
    subprocess.run(["sh", "-n", str(DEPLOY / "nitro" / "start.sh")], check=True)


def test_the_table_has_each_attester_and_its_functions() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line.startswith("|")
    ]
    table = {
        row[2].strip("`"): row[4] for row in rows if len(row) == 6 and row[2].startswith("`") and row[2] != "`attester`"
    }
    assert tuple(table) == (*HARDWARE, SOFTWARE)
    assert set(table) == set(KINDS)
    allowed = ", ".join(f"`{kind.name.lower()}`" for kind in sorted(WITHOUT_OWN_CODE))
    assert {kind for kind, cell in table.items() if cell == allowed} == UNPROVEN
    assert {cell for kind, cell in table.items() if kind not in UNPROVEN} == {"all kinds"}
