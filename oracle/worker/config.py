"""The worker's configuration: one YAML file, read once. Relative paths are relative to the file.

    rpc: ["http://127.0.0.1:8545"]
    deployment: deployment.json
    journal: worker.sqlite
    enclave: {socket: enclave.sock, config: enclave.yaml}     # with `config` or `command`, the worker launches it
    storage: {read: ["file:///srv/blobs"], write: "file:///srv/blobs"}
    brokers: {"0x…32 bytes": "http://127.0.0.1:9001"}         # digest of a broker's HPKE key → where it listens
    wallet: {keystore: wallet.json, password_file: wallet.password}
    payee: "0x…20 bytes"
    attestation: {root: root.der, collateral: collateral.json}
    development: {appraiser: {key_file: appraiser.key}}       # development chains only (R4)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from enclave_app.protocol.canonical import validate
from enclave_app.protocol.fields import Address, Bytes32
from oracle.errors import Refused


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="after")
    @classmethod
    def _beside_the_file(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, Path) and isinstance(info.context, dict):
            return Path(info.context["directory"]) / value
        return value


class KeySource(_Section):
    """A keystore with the file of its password, or a file with the key in hex."""

    keystore: Path | None = None
    password_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.keystore is None) == (self.key_file is None):
            raise ValueError("give `keystore` (with `password_file`) or `key_file`, one of the two")
        if (self.keystore is None) != (self.password_file is None):
            raise ValueError("`keystore` and `password_file` go together")
        return self


class EnclaveConfig(_Section):
    """Where the enclave listens. `config` is an enclave_app configuration to launch it with, `command` any other way."""

    socket: Path
    config: Path | None = None
    command: tuple[str, ...] | None = None
    start_seconds: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _one_launch(self) -> Self:
        if self.config is not None and self.command is not None:
            raise ValueError("give `config` or `command`, not both")
        return self

    def launch(self) -> tuple[str, ...] | None:
        """The command that starts the enclave, or None when someone else starts it."""
        if self.config is not None:
            program = (sys.executable, "-m", "enclave_app")
            return (*program, "--config", str(self.config), "--socket", str(self.socket))
        return self.command


class StorageConfig(_Section):
    """Base URIs: those that the enclave and this worker read from, and the one that outputs are written to."""

    read: tuple[str, ...] = Field(min_length=1, max_length=16)
    write: str


class AttestationConfig(_Section):
    """What this worker appraises its own enclave's evidence with: a root certificate (DER; Intel's when left out) and
    collateral (QuoteCollateralV3 JSON)."""

    root: Path | None = None
    collateral: Path


class DevelopmentConfig(_Section):
    """The key of a DevelopmentVerifier's appraiser. Whoever holds it can register anything there (R4)."""

    appraiser: KeySource
    verifier: str = "development"


class WorkerConfig(_Section):
    """Times in seconds. `concurrency` bounds the tasks worked on at once. Without `development` the enclave has to be
    registered by `oracle enclave register`; `verifier` names the deployment's verifier under whose anchor it is."""

    rpc: tuple[str, ...] = Field(min_length=1)
    deployment: Path
    journal: Path
    enclave: EnclaveConfig
    storage: StorageConfig
    brokers: dict[Bytes32, str]
    wallet: KeySource
    payee: Address
    operator: KeySource | None = None
    attestation: AttestationConfig | None = None
    development: DevelopmentConfig | None = None
    verifier: str = "development"
    concurrency: int = Field(default=4, ge=1, le=256)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    poll: float = Field(default=0.25, gt=0)
    release_timeout: float = Field(default=20.0, gt=0)
    release_grace: float = Field(default=0.05, ge=0)
    retry_first: float = Field(default=0.5, gt=0)
    retry_most: float = Field(default=30.0, gt=0)
    drain: float = Field(default=30.0, ge=0)
    receipt_patience: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _appraisable(self) -> Self:
        if self.development is not None and self.attestation is None:
            raise ValueError("`development` needs `attestation`, with which the evidence is appraised")
        return self

    @classmethod
    def read(cls, path: Path) -> WorkerConfig:
        """Raises Refused `config.read` or `document.invalid`, naming fields and never quoting values."""
        try:
            value = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise Refused("config.read", f"cannot read the configuration {path} ({type(error).__name__})") from None
        return validate(cls, value, context={"directory": path.absolute().parent})
