"""Configuration of clients: one frozen object, read once at the edge."""

from __future__ import annotations

from pathlib import Path
from pydantic import Field, field_validator

from enclave_app.protocol.canonical import Document
from oracle.chain.deploy import Deployment
from oracle.errors import Refused
from oracle.yamlfile import read_yaml, validate_yaml


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

    @field_validator("brokers")
    @classmethod
    def _plain_digests(cls, brokers: dict[str, str]) -> dict[str, str]:
        return {digest.removeprefix("0x").lower(): url for digest, url in brokers.items()}


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
    return validate_yaml(ClientConfig, value)
