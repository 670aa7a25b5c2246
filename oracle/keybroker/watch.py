"""Looking at the chains beside the requests: how far each provider is, whether they agree, and what became of released blocks.

A release is never undone, so one over a block that the chain dropped can only be noticed (`release.fork`): in the log, in the
metrics, and by whoever reads them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from enclave_app.protocol.structs import Confirmation, ReleaseStatement
from oracle.chain.source import Block, SingleSource
from oracle.errors import OracleError
from oracle.keybroker.chains import ChainAccess, Chains
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.log import Vanished
from oracle.keybroker.metrics import BrokerMetrics
from oracle.logs import Log

WATCHED = 1024
"""Blocks with releases that are looked at again, over all chains; the oldest are let go."""
AT_ONCE = 32
SETTLED_DEPTH = 256
"""A block this far below the head is looked at no more, where nothing is final for so long."""


@dataclass(frozen=True)
class ChainState:
    """How a chain stood at `at` (monotonic seconds). `age` in seconds of the confirmed block, None where there is none."""

    at: float
    agreed: bool
    age: int | None
    code: str | None = None


class Watch:
    def __init__(
        self, chains: Chains, ledger: Ledger, metrics: BrokerMetrics, clock: Callable[[], float], interval: float
    ) -> None:
        self._chains, self._ledger, self._metrics = chains, ledger, metrics
        self._clock, self._interval = clock, interval
        self._released = OrderedDict(ledger.released_on)
        self._log = Log("keybroker.watch")
        self.states: dict[int, ChainState] = {}

    def released(self, chain_id: int, statement: ReleaseStatement) -> None:
        """A release to watch the block of."""
        place = chain_id, statement.block_number, statement.block_hash
        self._released.setdefault(place, []).append(statement.task_id)
        while len(self._released) > WATCHED:
            self._released.popitem(last=False)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Once, at all chains; what it finds wrong is counted and said, never raised."""
        for access in self._chains.all():
            chain_id = access.config.chain_id
            await self._providers(access)
            before = self.states.get(chain_id)
            state = await self._state(access)
            self.states[chain_id] = state
            if not state.agreed and (before is None or before.code != state.code):
                self._log.warning("the providers give no block that counts", chain=chain_id, code=state.code)
            await self._released_blocks(access)

    async def _providers(self, access: ChainAccess) -> None:
        chain = str(access.config.chain_id)
        heads = await asyncio.gather(*(_head(single) for single in access.singles))
        highest = max((head.number for head in heads if head is not None), default=0)
        for number, head in enumerate(heads):
            provider = str(number)
            self._metrics.provider_up.labels(chain, provider).set(head is not None)
            if head is not None:
                self._metrics.provider_head.labels(chain, provider).set(head.number)
                self._metrics.provider_lag.labels(chain, provider).set(highest - head.number)

    async def _state(self, access: ChainAccess) -> ChainState:
        chain, code, age = str(access.config.chain_id), None, None
        try:
            block = await access.least_confirmed()
            age = max(0, int(self._clock()) - block.timestamp)
            self._metrics.chain_age.labels(chain).set(age)
        except OracleError as error:
            code = error.code
            if code == "chain.disagree":
                self._metrics.disagreements.labels(chain).inc()
        self._metrics.chain_agreed.labels(chain).set(code is None)
        return ChainState(time.monotonic(), code is None, age, code)

    async def _released_blocks(self, access: ChainAccess) -> None:
        chain_id = access.config.chain_id
        mine = [place for place in self._released if place[0] == chain_id][:AT_ONCE]
        if not mine:
            return
        try:
            head = await access.source.confirmed(Confirmation.LATEST)
            final = await access.source.confirmed(Confirmation.FINALIZED)
            for place in mine:
                _, number, block_hash = place
                block = await access.source.block(number)
                # A head below the release's block is a provider that lags, or a fork that grows yet.
                if block is None and number > head.number:
                    self._released.move_to_end(place)
                elif block is None or block.hash != block_hash:
                    await self._vanished(place)
                elif number <= final.number or number + SETTLED_DEPTH < head.number:
                    del self._released[place]
                else:
                    self._released.move_to_end(place)
        except OracleError as error:
            self._log.debug("released blocks could not be looked at", chain=chain_id, code=error.code)

    async def _vanished(self, place: tuple[int, int, bytes]) -> None:
        chain_id, number, block_hash = place
        for task_id in self._released.pop(place):
            self._metrics.forks.labels(str(chain_id)).inc()
            self._log.warning(
                "the chain dropped the block of a release",
                code="release.fork",
                chain=chain_id,
                task=task_id.hex(),
                block=number,
                hash=block_hash.hex(),
            )
            await self._ledger.append(Vanished(task_id=task_id, block_number=number, block_hash=block_hash))


async def _head(single: SingleSource) -> Block | None:
    try:
        return await single.confirmed(Confirmation.LATEST)
    except OracleError:
        return None
