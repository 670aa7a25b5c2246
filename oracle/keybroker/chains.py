"""The chains a broker serves, and reading one of them at one confirmed block that its endpoints agree on (R9, R13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from enclave_app.protocol.structs import Chain, Confirmation, KeyRelease
from oracle.chain.rpc import Rpc
from oracle.chain.source import Block, QuorumSource, SingleSource, Source
from oracle.errors import Permanent, Refused, Retryable
from oracle.keybroker.config import ServedChain


class ChainAccess:
    """One served chain."""

    def __init__(self, config: ServedChain, clock: Callable[[], float]) -> None:
        self.config, self._clock = config, clock
        self._rpcs = [Rpc(url, timeout=config.timeout) for url in config.rpc]
        self.singles = tuple(SingleSource(rpc) for rpc in self._rpcs)
        self.source: Source = self.singles[0] if len(self.singles) == 1 else QuorumSource(self.singles, config.votes)
        self._known_chain = False

    async def confirmed(self, keys: KeyRelease) -> Block:
        """The block at which everything is read: confirmed as the agreement says, and not less than this broker wants."""
        if not self._known_chain:
            await self._check_chain()
        rules = [(Confirmation(keys.confirmation), keys.confirm_blocks)]
        if self.config.minimum is not None:
            rules.append((self.config.minimum.confirmation, self.config.minimum.blocks))
        blocks = [await self.source.confirmed(rule, depth) for rule, depth in rules]
        block = min(blocks, key=lambda b: b.number)
        limit = self.config.max_block_age
        age = int(self._clock()) - block.timestamp
        if limit != "skip" and age > limit:
            # An endpoint that is stuck, or held back, would hide a suspension (R8).
            raise Retryable(
                "chain.stale", "the confirmed block is too old", found=f"{age} s", expected=f"at most {limit} s"
            )
        return block

    async def least_confirmed(self) -> Block:
        """The newest block on which the providers agree, as far as this broker's own minimum lets it count."""
        if not self._known_chain:
            await self._check_chain()
        minimum = self.config.minimum
        if minimum is None:
            return await self.source.confirmed(Confirmation.LATEST)
        return await self.source.confirmed(minimum.confirmation, minimum.blocks)

    async def _check_chain(self) -> None:
        found = await self.source.chain_id()
        if found != self.config.chain_id:
            raise Permanent(
                "chain.wrong",
                "the configured RPC endpoints serve another chain",
                found=found,
                expected=self.config.chain_id,
            )
        self._known_chain = True

    async def close(self) -> None:
        await asyncio.gather(*(rpc.close() for rpc in self._rpcs))


class Chains:
    def __init__(self, configs: Sequence[ServedChain], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_id = {config.chain_id: ChainAccess(config, clock) for config in configs}
        self._closing: set[asyncio.Task[None]] = set()

    def all(self) -> tuple[ChainAccess, ...]:
        return tuple(self._by_id.values())

    def set(self, configs: Sequence[ServedChain]) -> None:
        """Other providers for the same chains; what is being read of the old ones may end."""
        for config in configs:
            old = self._by_id[config.chain_id]
            if old.config != config:
                self._by_id[config.chain_id] = ChainAccess(config, self._clock)
                closing = asyncio.create_task(_close_later(old))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    def served(self, chain: Chain) -> ChainAccess:
        """Refuses a chain or an agreement registry that the configuration does not list (R21)."""
        access = self._by_id.get(chain.chain_id)
        if access is None or chain.agreement_registry not in access.config.agreement_registries:
            raise Refused(
                "chain.not_served",
                "this broker does not serve this chain and agreement registry",
                found=f"{chain.agreement_registry} on chain {chain.chain_id}",
            )
        return access

    async def close(self) -> None:
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await asyncio.gather(*(access.close() for access in self._by_id.values()))


async def _close_later(access: ChainAccess) -> None:
    try:
        # As long as one release may read: a few reads one after the other.
        await asyncio.sleep(4 * access.config.timeout)
    finally:
        await access.close()
