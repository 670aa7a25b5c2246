"""A key broker, put together from its configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from enclave_app.protocol.canonical import Document
from enclave_app.protocol.fields import Address, Bytes32, Uint256
from oracle.card import BrokerCard
from oracle.collateral import CollateralSource, open_source
from oracle.keybroker.chains import Chains
from oracle.keybroker.config import KeyBrokerConfig, read_password
from oracle.keybroker.keys import LOG_FILE, BrokerKeys, load
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.limits import Limiter
from oracle.keybroker.metrics import BrokerMetrics
from oracle.keybroker.output import OutputReleaser
from oracle.keybroker.release import Releaser
from oracle.keybroker.terms import agreement_memory
from oracle.keybroker.trust import Trust, load_roots
from oracle.keybroker.watch import Watch


class InfoChain(Document):
    chain_id: Uint256
    agreement_registries: tuple[Address, ...]


class Info(Document):
    """GET /v1/info. `development` says in so many words that this broker takes simulated enclaves (R4)."""

    card: BrokerCard
    version: str
    chains: tuple[InfoChain, ...]
    anchors: tuple[Bytes32, ...]
    development: bool


@dataclass(frozen=True)
class KeyBroker:
    info: Info
    releases: Releaser
    outputs: OutputReleaser
    ledger: Ledger
    chains: Chains
    collateral: CollateralSource
    limiter: Limiter
    metrics: BrokerMetrics
    watch: Watch

    async def close(self) -> None:
        await self.ledger.close()
        await self.chains.close()


async def open_broker(config: KeyBrokerConfig, *, clock: Callable[[], float] = time.time) -> KeyBroker:
    """Load keys and roots, take the log, reach for no network yet. Raises Refused or Retryable."""
    roots = load_roots(config.anchors, tuple(chain.chain_id for chain in config.chains))
    keys = await asyncio.to_thread(_keys, config)
    version = _version()
    ledger = await Ledger.open(
        config.directory / LOG_FILE, keys.signing, keys.card.digest, version, clock, copies=config.log_copies
    )
    chains = Chains(config.chains, clock)
    collateral = open_source(config.collateral, roots, clock)
    trust = Trust(roots, collateral, clock)
    memory = agreement_memory()
    info = Info(
        card=keys.card,
        version=version,
        chains=tuple(
            InfoChain(chain_id=c.chain_id, agreement_registries=c.agreement_registries) for c in config.chains
        ),
        anchors=trust.roots,
        development=bool(config.anchors.development),
    )
    limiter, metrics = Limiter(config.limits, time.monotonic), BrokerMetrics()
    watch = Watch(chains, ledger, metrics, clock, config.watch)
    releases = Releaser(keys, chains, trust, ledger, memory, clock, limiter, metrics, watch.released)
    outputs = OutputReleaser(keys, chains, ledger, memory[0], limiter)
    return KeyBroker(info, releases, outputs, ledger, chains, collateral, limiter, metrics, watch)


def _keys(config: KeyBrokerConfig) -> BrokerKeys:
    return load(config.directory, read_password(config.password_file))


def _version() -> str:
    try:
        return metadata.version("enclave-oracle")
    except metadata.PackageNotFoundError:
        return "unknown"
