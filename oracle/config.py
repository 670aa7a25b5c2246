"""Configuration of clients: one frozen object, read once at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from enclave_app.protocol.canonical import Document, validate
from oracle.chain.deploy import Deployment
from oracle.errors import Refused

MAX_CONFIG = 1 << 20


class ClientConfig(Document):
    """Where the chain, the storage and the brokers are. `brokers` maps a broker's HPKE key digest (hex) to its URL.

    None of it is trusted: what these places answer is checked.
    """

    rpc: str
    deployment: Deployment
    storage: tuple[str, ...] = Field(min_length=1)
    brokers: dict[str, str]
    keystore: Path | None = None
    password_file: Path | None = None
    result_key: Path | None = None


def read_yaml(path: Path) -> Any:
    """A YAML file as plain values; refuses what is too large or no YAML."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused("config.read", f"{path} cannot be read", found=error.strerror) from None
    if len(data) > MAX_CONFIG:
        raise Refused("config.size", f"{path} is too large", found=len(data), expected=f"at most {MAX_CONFIG} bytes")
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise Refused("config.yaml", f"{path} is not YAML") from None


def read_client_config(path: Path) -> ClientConfig:
    """A client's YAML. `deployment` may be a path; paths are relative to the file's own folder."""
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise Refused("config.shape", f"{path} is not a mapping of settings")
    base = path.parent
    if isinstance(value.get("deployment"), str):
        value["deployment"] = Deployment.read(base / value["deployment"]).model_dump(mode="json", by_alias=True)
    for name in ("keystore", "passwordFile", "resultKey"):
        if isinstance(value.get(name), str):
            value[name] = base / value[name]
    return validate(ClientConfig, value)
