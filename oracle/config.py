"""Configuration of clients: one frozen object, read once at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from enclave_app.protocol.fields import Address, Bytes32
from oracle.addresses import read_address
from oracle.card import endpoints
from oracle.chain.deploy import Deployment
from oracle.errors import Refused
from oracle.yamlfile import YamlModel, read_yaml, validate_yaml


class ClientConfig(YamlModel):
    """Where the chain, the storage and the brokers are. `brokers` maps the digest of a broker's HPKE key to its URL.

    None of it is trusted: what these places answer is checked. A file may name folders as storage, and brokers by their
    cards; see `read_client_config`.
    """

    rpc: str
    deployment: Deployment
    storage: tuple[str, ...] = Field(min_length=1)
    brokers: dict[Bytes32, str]
    names: dict[str, Address] = Field(default_factory=dict)
    """Addresses that the user knows, by names of the user's own, for words on the screen."""
    keystore: Path | None = None
    password_file: Path | None = None
    result_key: Path | None = None


def read_client_config(path: Path) -> ClientConfig:
    """A client's YAML. `deployment` is a path, a storage without a scheme is a folder, and `brokers` may be a list of their
    cards, which say where they answer. `names` are addresses, or files that say one. Paths are relative to the file's own folder.

    Raises Refused `file.read`, `yaml.*`, `address`, and `config.card` for a card without a URL.
    """
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise Refused("yaml.shape", f"{path} is not a mapping of settings")
    base = path.absolute().parent
    if isinstance(value.get("deployment"), str):
        value["deployment"] = Deployment.read(base / value["deployment"])
    if isinstance(value.get("storage"), list):
        value["storage"] = [_storage(base, place) for place in value["storage"]]
    if isinstance(value.get("names"), dict):
        value["names"] = {name: read_address(str(said), base) for name, said in value["names"].items()}
    if "brokers" in value:
        value["brokers"] = endpoints(value["brokers"], base)
    for name in ("keystore", "passwordFile", "resultKey"):
        if isinstance(value.get(name), str):
            value[name] = base / value[name]
    return validate_yaml(ClientConfig, value)


def _storage(base: Path, place: Any) -> Any:
    return place if not isinstance(place, str) or "://" in place else (base / place).resolve().as_uri()
