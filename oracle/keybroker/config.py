"""A broker's configuration: one frozen object, read from YAML once, at the edge. What is not set refuses (R21)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from enclave_app.protocol.fields import Address
from enclave_app.protocol.release import MAX_BODY
from enclave_app.protocol.structs import Confirmation
from oracle.collateral.config import PcsConfig, under
from oracle.errors import Refused
from oracle.passwords import password_file
from oracle.yamlfile import YamlModel, read_yaml, validate_yaml

Rate = Annotated[float, Field(gt=0, le=100_000)]


class Listen(YamlModel):
    """Where to serve. With `unix` set, host and port are not used. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = Field(default=7460, ge=0, le=65535)
    unix: Path | None = None

    def under(self, base: Path) -> Listen:
        return self if self.unix is None else self.model_copy(update={"unix": base / self.unix})


class Minimum(YamlModel):
    """The least confirmed block that this broker takes, whatever an agreement says."""

    rule: Literal["latest", "safe", "finalized"]
    blocks: int = Field(default=0, ge=0, le=10_000)

    @property
    def confirmation(self) -> Confirmation:
        return Confirmation[self.rule.upper()]


class ServedChain(YamlModel):
    """A chain this broker serves, and whom it asks about it (R13).

    `quorum` endpoints must agree (default: all of them). `max_block_age` in seconds bounds how old the confirmed block may
    be by the broker's clock, so that an endpoint that is cut off cannot hide a revocation.
    """

    chain_id: int = Field(ge=1)
    agreement_registries: tuple[Address, ...] = Field(min_length=1)
    rpc: tuple[str, ...] = Field(min_length=1, max_length=16)
    quorum: int | None = None
    dangerous_single_rpc: bool = False
    max_block_age: Annotated[int, Field(ge=1)] | Literal["skip"] = 3600
    minimum: Minimum | None = None
    timeout: float = Field(default=10.0, gt=0, le=120)

    @model_validator(mode="after")
    def _believable(self) -> Self:
        if len({_endpoint(url) for url in self.rpc}) != len(self.rpc):
            raise ValueError("an RPC endpoint is listed twice, and would be counted twice")
        if not 1 <= self.votes <= len(self.rpc):
            raise ValueError("quorum must be between 1 and the number of RPC endpoints")
        if self.votes == 1 and not self.dangerous_single_rpc:
            raise ValueError(
                "one RPC endpoint would be believed alone (R13); list several, or write dangerousSingleRpc: true"
            )
        if self.votes > 1 and 2 * self.votes <= len(self.rpc):
            raise ValueError("quorum must be more than half of the RPC endpoints, or two answers could both have it")
        return self

    @property
    def votes(self) -> int:
        return len(self.rpc) if self.quorum is None else self.quorum


class Anchors(YamlModel):
    """Roots under which this broker appraises evidence itself (R4): each maker's pinned ones. `development` are DER files of
    one devnet's roots."""

    intel: bool = True
    amd: bool = False
    aws: bool = False
    development: tuple[Path, ...] = ()
    dangerous_development_roots: bool = False

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.intel or self.amd or self.aws or self.development):
            raise ValueError("no trust anchor is set (R21)")
        if self.development and not self.dangerous_development_roots:
            raise ValueError(
                "a development root vouches for simulated enclaves; write dangerousDevelopmentRoots: true to mean it"
            )
        return self


class RateLimits(YamlModel):
    """Requests per second with their burst: for each client address (an IPv6 /64), for all together, for the enclaves of one
    platform and for the data of one owner. Unix sockets have no addresses.

    `body_bytes` bounds all request bodies that are being read or worked on; one client address gets a fourth of them.
    """

    per_client: Rate = 50
    per_client_burst: Rate = 200
    overall: Rate = 500
    overall_burst: Rate = 1000
    per_platform: Rate = 50
    per_platform_burst: Rate = 200
    per_owner: Rate = 200
    per_owner_burst: Rate = 800
    concurrent: int = Field(default=32, ge=1, le=1024)
    body_bytes: int = Field(default=128 << 20, ge=1024, le=1 << 40)


class KeyBrokerConfig(YamlModel):
    """`collateral` is where it is fetched from; or one QuoteCollateralV3 JSON file, or a folder of `sgx-<fmspc>.json` and
    `tdx-<fmspc>.json`, which somebody else keeps fresh. `log_copies` are folders, best on other disks, that have each log
    entry before its answer leaves. `admin` serves metrics and readiness, apart from the public `listen`; `watch` in seconds is
    how often the chains are looked at for it; `min_free_bytes` is how much room the log's disk must have."""

    directory: Path
    password_file: Path
    chains: tuple[ServedChain, ...] = Field(min_length=1)
    anchors: Anchors = Anchors()
    collateral: PcsConfig | Path
    listen: Listen = Listen()
    admin: Listen | None = None
    limits: RateLimits = RateLimits()
    log_copies: tuple[Path, ...] = Field(default=(), max_length=4)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    min_free_bytes: int = Field(default=256 << 20, ge=0)
    watch: float = Field(default=5.0, gt=0, le=3600)
    max_body: int = Field(default=MAX_BODY, ge=1024, le=MAX_BODY)

    @field_validator("chains")
    @classmethod
    def _once(cls, chains: tuple[ServedChain, ...]) -> tuple[ServedChain, ...]:
        if len({c.chain_id for c in chains}) != len(chains):
            raise ValueError("a chain is listed twice")
        return chains

    def under(self, base: Path) -> KeyBrokerConfig:
        """The same with relative paths taken from `base`."""
        anchors = self.anchors.model_copy(update={"development": tuple(base / p for p in self.anchors.development)})
        return self.model_copy(
            update={
                "directory": base / self.directory,
                "password_file": base / self.password_file,
                "collateral": under(base, self.collateral),
                "anchors": anchors,
                "listen": self.listen.under(base),
                "admin": None if self.admin is None else self.admin.under(base),
                "log_copies": tuple(base / each for each in self.log_copies),
            }
        )


RELOADED = frozenset({"limits", "chains", "log_level", "min_free_bytes"})


def check_reload(running: KeyBrokerConfig, new: KeyBrokerConfig) -> None:
    """What a running broker can take over: limits, log level, disk room, and whom it asks about the same chains.

    Raises Refused `config.restart`, naming the rest.
    """
    names = type(running).model_fields
    changed = [name for name in names if name not in RELOADED and getattr(running, name) != getattr(new, name)]
    if running.limits.concurrent != new.limits.concurrent or running.limits.body_bytes != new.limits.body_bytes:
        changed.append("limits (concurrent, bodyBytes)")
    if [(c.chain_id, c.agreement_registries) for c in running.chains] != [
        (c.chain_id, c.agreement_registries) for c in new.chains
    ]:
        changed.append("chains (chainId, agreementRegistries)")
    if changed:
        raise Refused("config.restart", f"these change by a restart only: {', '.join(changed)}")


def read_config(path: Path) -> KeyBrokerConfig:
    """From a YAML file; relative paths in it are relative to the file. Raises Refused `file.read`, `yaml.*`."""
    return validate_yaml(KeyBrokerConfig, read_yaml(path)).under(path.absolute().parent)


def read_password(path: Path) -> str:
    """A password from the first line of a file, as `oracle keybroker init` took it. Raises Refused `config.password`."""
    try:
        password = password_file(path)()
    except Refused as refusal:
        raise Refused("config.password", f"the password file cannot be read: {refusal.message}") from None
    if not password:
        raise Refused("config.password", f"the password file {path} is empty")
    return password


def _endpoint(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an RPC endpoint is an http:// or https:// URL")
    return parts.netloc.lower(), parts.path.rstrip("/") + "?" + parts.query
