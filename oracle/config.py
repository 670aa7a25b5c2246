"""Configuration of clients: one frozen object, read once at the edge."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from enclave_app.protocol.fields import Bytes32
from oracle.chain.deploy import Deployment
from oracle.errors import Refused
from oracle.yamlfile import YamlModel, read_yaml, validate_yaml


class ClientConfig(YamlModel):
    """Where the chain, the storage and the brokers are. `brokers` maps the digest of a broker's HPKE key to its URL.

    None of it is trusted: what these places answer is checked.
    """

    rpc: str
    deployment: Deployment
    storage: tuple[str, ...] = Field(min_length=1)
    brokers: dict[Bytes32, str]
    keystore: Path | None = None
    password_file: Path | None = None
    result_key: Path | None = None


def read_client_config(path: Path) -> ClientConfig:
    """A client's YAML. `deployment` is a path; paths are relative to the file's own folder."""
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise Refused("yaml.shape", f"{path} is not a mapping of settings")
    base = path.absolute().parent
    if isinstance(value.get("deployment"), str):
        value["deployment"] = Deployment.read(base / value["deployment"])
    for name in ("keystore", "passwordFile", "resultKey"):
        if isinstance(value.get(name), str):
            value[name] = base / value[name]
    return validate_yaml(ClientConfig, value)
