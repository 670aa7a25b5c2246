"""What the worker appraises its own enclave with: one root, and collateral under it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from oracle.attestation import INTEL_ROOT_DIGEST, AttestationError, DevelopmentRoot, ParsedQuote, intel_root
from oracle.attestation.anchors import MAX_ROOT
from oracle.collateral import CollateralSource, open_source
from oracle.collateral.outlook import Standing, choose, standing
from oracle.collateral.source import MISSING
from oracle.errors import Refused, Retryable
from oracle.files import read_file
from oracle.worker.config import AttestationConfig

T = TypeVar("T")
Attempt = Callable[[], Awaitable[T]]


@dataclass(frozen=True)
class Appraisal:
    """`root` is DER. The early evaluation is fetched as well, to see what is coming."""

    root: bytes
    collateral: CollateralSource

    def standings(self, parsed: ParsedQuote, now: int) -> tuple[Standing, ...]:
        """How the platform stands under each evaluation that is held, the highest first. Raises as `for_quote`."""
        return tuple(standing(parsed, each, self.root, now) for each in self.collateral.evaluations(parsed))

    def choice(self, parsed: ParsedQuote, registered: int | None, now: int) -> tuple[Standing, Standing | None] | None:
        """Under which evaluation to register, and an earlier one to show. Raises as `for_quote`."""
        return choose(self.standings(parsed, now), registered)

    def coming(self, parsed: ParsedQuote, now: int) -> Standing | None:
        """How the platform will stand under the evaluation that Intel has announced. Raises as `for_quote`."""
        early = self.collateral.coming(parsed)
        return None if early is None else standing(parsed, early, self.root, now)


def open_appraisal(config: AttestationConfig | None, chain_id: int) -> Appraisal | None:
    """None where the configuration has no collateral. Raises Refused `attestation.*`, `file.*`."""
    if config is None or config.collateral is None:
        return None
    try:
        der, digest = intel_root(), INTEL_ROOT_DIGEST
        if config.root is not None:
            root = DevelopmentRoot(read_file(config.root, MAX_ROOT))
            if root.digest != INTEL_ROOT_DIGEST:
                root.refuse_on_public_chain(chain_id)  # R4
            der, digest = root.der, root.digest
    except AttestationError as error:
        raise Refused(f"attestation.{error.code}", str(error)) from None
    return Appraisal(der, open_source(config.collateral, {digest: der}, time.time, ahead=True))


@asynccontextmanager
async def fetching(appraisal: Appraisal, patience: float) -> AsyncIterator[Callable[[Attempt[T]], Awaitable[T]]]:
    """For one act outside of a worker: collateral is fetched meanwhile, and the act is tried again until it is there, for
    `patience` seconds."""

    async def tried(act: Attempt[T]) -> T:
        deadline = time.monotonic() + patience
        while True:
            try:
                return await act()
            except Retryable as error:
                if error.code != MISSING or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)

    running = asyncio.create_task(appraisal.collateral.run(), name="collateral")
    try:
        yield tried
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
