"""The worker's configuration: one YAML file, read once. Relative paths are relative to the file, times in seconds.

rpc: ["http://127.0.0.1:8545"]                            # one that answers is used; or {url: …, requestsPerSecond: …}
rpcPolicy: {quorum: 1, maxLag: 16, subscribe: "ws://127.0.0.1:8545"}
deployment: deployment.json
journal: worker.sqlite                                    # or postgresql://…, or {url, name, passwordFile} of a server
enclave: {socket: enclave.sock, config: enclave.yaml}     # with `config` or `command`, the worker launches it
storage: {read: ["file:///srv/blobs"], write: "file:///srv/blobs"}
brokers: {"0x…32 bytes": "http://127.0.0.1:9001"}         # digest of a broker's HPKE key → where it listens; or cards
wallet: {keystore: wallet.json, passwordFile: wallet.password}
payee: "0x…20 bytes"
attestation: {root: root.der, collateral: collateral.json}
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, Field, model_validator

from enclave_app.protocol.fields import Address, Bytes32
from enclave_app.protocol.rules import MAX_CALLBACK_GAS
from oracle.card import endpoints
from oracle.collateral.config import PcsConfig
from oracle.worker.admission import cores, memory_mib
from oracle.worker.database import Place
from oracle.worker.fees import FeesConfig
from oracle.worker.retention import RETAIN_DAYS
from oracle.yamlfile import YamlModel, read_yaml, validate_yaml

M = TypeVar("M", bound=BaseModel)
MAX_LAG = 20
"""Blocks behind the head at which a worker is no longer ready, unless its configuration says another number."""
Url = Annotated[str, Field(pattern=r"^https?://")]
Listen = Annotated[str, Field(pattern=r"^(?:[0-9A-Za-z.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$")] | Path


class KeySource(YamlModel):
    """A keystore with the file of its password, or a file with the key in hex."""

    keystore: Path | None = None
    password_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.keystore is None) == (self.key_file is None):
            raise ValueError("give `keystore` with `passwordFile`, or `keyFile`, one of the two")
        if (self.keystore is None) != (self.password_file is None):
            raise ValueError("`keystore` and `passwordFile` go together")
        return self


class EnclaveConfig(YamlModel):
    """Where the enclave listens. `config` is an enclave_app configuration to launch it with, `command` any other way.

    `measurement` is what it has to be: one that an earlier start left behind and that is another is ended. It need not be said
    where `config` tells. `probeSeconds` is how long a launched enclave may be silent before it is ended and launched anew."""

    socket: Path
    config: Path | None = None
    command: tuple[str, ...] | None = None
    start_seconds: float = Field(default=30.0, gt=0)
    probe_seconds: float = Field(default=20.0, gt=0)
    measurement: Bytes32 | None = None

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

    def measured_config(self) -> Path | None:
        """The file whose digest is part of the enclave's measurement, where the command that launches it names one."""
        if self.config is not None or self.command is None or "enclave_app" not in self.command:
            return self.config
        after = self.command[self.command.index("enclave_app") :]
        at = after.index("--config") + 1 if "--config" in after else len(after)
        return Path(after[at]) if at < len(after) else None


class RpcEndpoint(YamlModel):
    """An endpoint with the requests a second that it allows."""

    url: Url
    requests_per_second: float = Field(gt=0, le=100_000)


class RpcPolicy(YamlModel):
    """`quorum` endpoints have to say the same of blocks, logs and receipts; one whose head is more than `maxLag` blocks behind
    the others' is left alone; `subscribe` is a WebSocket that tells of new heads, so that polling can be rare."""

    quorum: int = Field(default=1, ge=1, le=16)
    max_lag: int = Field(default=16, ge=1)
    subscribe: Annotated[str, Field(pattern=r"^wss?://")] | None = None


class StorageConfig(YamlModel):
    """Base URIs: those that the enclave and this worker read from, and the one that outputs are written to, which may also be
    `s3://bucket/prefix?endpoint=https://…&region=…`."""

    read: tuple[str, ...] = Field(min_length=1, max_length=16)
    write: str

    @model_validator(mode="after")
    def _enclaves_read_it(self) -> Self:
        if any(uri.startswith("s3:") for uri in self.read):
            raise ValueError(
                "enclaves read by file: or http(s):, so name an https URL of the bucket's objects in `read`"
            )
        return self


class AttestationConfig(YamlModel):
    """What this worker appraises and registers its own enclave with, and shows it with in receipts: a root certificate (DER;
    Intel's when left out) and collateral: where it is fetched from, or a file of QuoteCollateralV3 JSON, or a folder of
    `sgx-<fmspc>.json` and `tdx-<fmspc>.json`, read again when they change. Without it others have to register the enclave,
    and there are no receipts.

    For SEV-SNP and Nitro, `vouchedBy` in its place: the socket or the URL of a verifier enclave. `root` is then a development
    root (AMD's and AWS's own when left out), `endorsements` a folder with ek.der, ask.der and ark.der, for what the host does
    not hand to its guest, and `crl` what AMD revoked (DER), read anew each time."""

    root: Path | None = None
    collateral: PcsConfig | Path | None = None
    vouched_by: Url | Path | None = None
    endorsements: Path | None = None
    crl: Path | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.collateral is None) == (self.vouched_by is None):
            raise ValueError("give `collateral` or `vouchedBy`, one of the two")
        if self.vouched_by is None and (self.endorsements is not None or self.crl is not None):
            raise ValueError("`endorsements` and `crl` go with `vouchedBy`")
        return self


class HealthConfig(YamlModel):
    """Where `/healthz`, `/readyz` and `/metrics` are served: `host:port`, or the path of a Unix socket. `maxLagBlocks` is how
    far behind the chain's head the journal may be for the worker to call itself ready."""

    listen: Listen
    max_lag_blocks: int = Field(default=MAX_LAG, ge=0)


class TracingConfig(YamlModel):
    """Where OpenTelemetry traces go (OTLP over HTTP), and which share of the tasks is traced. Wants the extra `otel`."""

    endpoint: Url
    share: float = Field(default=1.0, ge=0, le=1)


class HostConfig(YamlModel):
    """What it takes to keep one enclave registered: all that the host of a verifier enclave needs."""

    rpc: tuple[RpcEndpoint | str, ...] = Field(min_length=1, max_length=16)
    rpc_policy: RpcPolicy = RpcPolicy()
    deployment: Path
    enclave: EnclaveConfig
    wallet: KeySource
    operator: KeySource | None = None
    attestation: AttestationConfig | None = None

    @model_validator(mode="after")
    def _enough_endpoints(self) -> Self:
        if self.rpc_policy.quorum > len(self.rpc):
            raise ValueError("`rpcPolicy.quorum` is larger than the number of endpoints in `rpc`")
        return self

    def endpoints(self) -> list[tuple[str, float | None]]:
        """URLs with the requests a second that each allows."""
        return [(e, None) if isinstance(e, str) else (e.url, e.requests_per_second) for e in self.rpc]


class WorkerConfig(HostConfig):
    """`enclaves` in the place of `enclave`: several beside each other, an old measurement and a new one; a task goes to one
    that its agreement names. `concurrency` bounds the tasks that are in the enclaves at once (by default one a core),
    `memoryMib` the sum of what their agreements let them use (by default three quarters of the machine's or the cgroup's),
    and `inFlight` those that are worked on at all, most of which wait for a broker, a disk or a block. `maxRuns` is how
    often a task may run out of time or memory before it is parked, `maxCrashes` how often the worker may die over it.
    `turnSeconds` is what each worker waits for those before it (by default the agreed time limit and 15), `operators` which
    of the registered ones count (by default all). `retireOnStop` has the registry told of each enclave that ends with the
    worker: others need not wait for its turns then, but each stop costs a transaction, and what it signed and did not
    settle is done again. `releaseHedge` is how long the first `t` brokers have before the others are asked as well,
    `releaseGrace` how long to wait for more of them once enough have answered, `drain` how long a stop waits for what runs.
    `minFee` in wei is the least that a task must pay the payee, failure included, and `maxCallbackGas` the most that its
    callback may use: both are what protects the wallet from agreements of strangers. `retainDays` is how long the journal
    keeps what is over. `fees` is in oracle/worker/fees.py; `settleWindow` is how long a result waits for others to be
    settled with, where there were some lately. `gauges` is a file that is written each minute, for Prometheus' node
    exporter. `spool` is the folder of sealed outputs that storage does not have yet, beside the journal's file when left out."""

    journal: Place
    storage: StorageConfig
    brokers: dict[Bytes32, str] = Field(min_length=1)
    payee: Address
    retain_days: float = Field(default=RETAIN_DAYS, ge=0)
    gauges: Path | None = None
    health: HealthConfig | None = None
    tracing: TracingConfig | None = None
    spool: Path | None = None
    enclaves: tuple[EnclaveConfig, ...] = Field(default=(), max_length=8)
    concurrency: int = Field(default_factory=cores, ge=1, le=256)
    memory_mib: int = Field(default_factory=memory_mib, ge=1)
    retire_on_stop: bool = False
    in_flight: int = Field(default=32, ge=1, le=4096)
    max_runs: int = Field(default=4, ge=1)
    max_crashes: int = Field(default=10, ge=1)
    turn_seconds: float | None = Field(default=None, ge=0)
    operators: tuple[Address, ...] = Field(default=(), max_length=256)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    poll: float = Field(default=0.25, gt=0)
    release_timeout: float = Field(default=20.0, gt=0)
    release_grace: float = Field(default=0.05, ge=0)
    release_hedge: float = Field(default=0.5, ge=0)
    retry_first: float = Field(default=0.5, gt=0)
    retry_most: float = Field(default=30.0, gt=0)
    drain: float = Field(default=30.0, ge=0)
    receipt_patience: float = Field(default=120.0, gt=0)
    settle_window: float = Field(default=0.05, ge=0, le=60)
    fees: FeesConfig = Field(default_factory=FeesConfig)
    min_fee: int = Field(default=0, ge=0, lt=1 << 128)
    min_token_fees: dict[Address, Annotated[int, Field(ge=0, lt=1 << 128)]] = Field(default_factory=dict)
    max_callback_gas: int = Field(default=MAX_CALLBACK_GAS, ge=0, le=MAX_CALLBACK_GAS)

    @model_validator(mode="before")
    @classmethod
    def _first_enclave(cls, value: object) -> object:
        if isinstance(value, dict) and "enclaves" in value:
            if "enclave" in value:
                raise ValueError("give `enclave` or `enclaves`, not both")
            if isinstance(value["enclaves"], list | tuple) and value["enclaves"]:
                return {**value, "enclave": value["enclaves"][0]}
        return value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        sockets = [each.socket for each in self.every_enclave()]
        if len(set(sockets)) != len(sockets):
            raise ValueError("each of `enclaves` needs a socket of its own")
        if self.spool is None and not isinstance(self.journal, Path):
            raise ValueError("with a journal on a server, `spool` names the folder of outputs that wait for storage")
        return self

    def spool_directory(self) -> Path:
        """Where sealed outputs wait for storage."""
        return self.spool or Path(f"{self.journal}.spool")

    def every_enclave(self) -> tuple[EnclaveConfig, ...]:
        """Those that this worker uses; the first is `enclave`."""
        return self.enclaves or (self.enclave,)

    @classmethod
    def read(cls, path: Path) -> WorkerConfig:
        """`brokers` may be a list of their cards, which say where they answer. Raises Refused `file.read`, `yaml.*`, whose
        message names the wrong places and never quotes a value, and what `oracle.card.endpoints` raises."""
        value, base = read_yaml(path), path.absolute().parent
        if isinstance(value, dict) and "brokers" in value:
            value["brokers"] = endpoints(value["brokers"], base)
        return _beside(validate_yaml(cls, value), base)


def read_host(path: Path) -> HostConfig:
    """A worker's configuration, or one with no more than HostConfig's fields. Raises as `WorkerConfig.read`."""
    value = read_yaml(path)
    if isinstance(value, dict) and "journal" in value:
        return WorkerConfig.read(path)
    return _beside(validate_yaml(HostConfig, value), path.absolute().parent)


def _beside(model: M, directory: Path) -> M:
    """The same with every relative path taken from `directory`."""
    changes: dict[str, object] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Path):
            changes[name] = directory / value
        elif isinstance(value, BaseModel):
            changes[name] = _beside(value, directory)
        elif isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value):
            changes[name] = tuple(_beside(each, directory) for each in value)
    return model.model_copy(update=changes)
