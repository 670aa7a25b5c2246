"""Where a service that appraises evidence has its collateral from: files that its operator puts there, or Intel itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from oracle.attestation import AttestationError, Collateral, ParsedQuote
from oracle.collateral.cache import MAX_PLATFORMS, Cache, Files, evaluation_of
from oracle.collateral.check import check_collateral
from oracle.collateral.config import PcsConfig
from oracle.collateral.pcs import Feed, Pcs
from oracle.collateral.pieces import newest
from oracle.collateral.platform import Platform, certified_root, platform_of
from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.logs import Log

MISSING: Final = "collateral.missing"
FIRST_RETRY: Final = 5.0
PAUSE: Final = 30.0
"""Seconds between two answers about one platform, whoever hurries."""
LONGEST_SLEEP: Final = 60.0
WARN_DAYS: Final = 7
KEPT_EVALUATIONS: Final = 2
"""How many before the standard one are kept fresh; Intel offers about two years of them."""
DAY: Final = 86_400


class CollateralSource(Protocol):
    """`run` keeps it fresh until it is cancelled."""

    def for_quote(self, parsed: ParsedQuote) -> Collateral:
        """Raises Retryable `collateral.missing` and others, Refused `evidence.pck_chain`. Callable from any thread."""
        ...

    def evaluations(self, parsed: ParsedQuote) -> tuple[Collateral, ...]:
        """`for_quote` and every lower evaluation that is held, the highest first; some may have ended. Raises as that."""
        ...

    def coming(self, parsed: ParsedQuote) -> Collateral | None:
        """Collateral of a higher evaluation than `for_quote`'s, where Intel offers one. Raises as that."""
        ...

    def hurry(self, parsed: ParsedQuote) -> None:
        """Others have newer collateral: look for it soon."""
        ...

    async def run(self) -> None: ...


def open_source(
    where: Path | PcsConfig, roots: Mapping[bytes, bytes], clock: Callable[[], float], *, ahead: bool = False
) -> CollateralSource:
    """As configured: a path is files, anything else is fetched. `roots` are DER by digest; `ahead` as FetchedCollateral's."""
    return CollateralFiles(where) if isinstance(where, Path) else FetchedCollateral(where, roots, clock, ahead=ahead)


class CollateralFiles:
    """Collateral that somebody puts there: one file, or a folder with one for each TEE and FMSPC.

    A file that changes is read again, so fresh collateral needs no restart.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, Files()

    def for_quote(self, parsed: ParsedQuote) -> Collateral:
        path = self._path / f"{platform_of(parsed).name}.json" if self._path.is_dir() else self._path
        try:
            return self._files.read(path)
        except AttestationError as error:
            raise Retryable(f"collateral.{error.code}", "the collateral for this platform cannot be read") from None
        except (OSError, Refused):
            raise Retryable(MISSING, "there is no collateral for this platform", expected=path.name) from None

    def held(self) -> dict[str, Collateral | None]:
        """What can be read of it, by the file's name."""
        found: dict[str, Collateral | None] = {}
        for path in sorted(self._path.glob("*.json"))[:MAX_PLATFORMS] if self._path.is_dir() else [self._path]:
            with suppress(AttestationError, OSError, Refused):
                found[path.stem] = self._files.read(path)
        return found

    def evaluations(self, parsed: ParsedQuote) -> tuple[Collateral, ...]:
        return _up_to(self.for_quote(parsed), Cache(self._path), platform_of(parsed))

    def coming(self, parsed: ParsedQuote) -> Collateral | None:
        return _after(self.for_quote(parsed), Cache(self._path), platform_of(parsed))

    def hurry(self, parsed: ParsedQuote) -> None:
        """A file that changes is read at once, as it is."""

    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class _Wanted:
    """A platform that evidence came from. `due` and `fetched` are on the monotonic clock."""

    root: bytes
    due: float = 0.0
    failures: int = 0
    fetched: float = float("-inf")


class FetchedCollateral:
    """Collateral from Intel's service or a PCCS (R13), through a folder that outlives a restart of either side.

    Only what a configured root certified is fetched, so a stranger cannot make this ask for anything. What is new to it is
    fetched behind the caller's back, who is told to come again. `ahead` is for whoever registers: the early evaluation as
    well, and those before the standard one that are held, as long as Intel offers them.
    """

    def __init__(
        self, config: PcsConfig, roots: Mapping[bytes, bytes], clock: Callable[[], float], *, ahead: bool = False
    ) -> None:
        self.config, self.cache = config, Cache(config.cache)
        self._roots, self._clock = dict(roots), clock
        self._ahead = ahead
        self._wanted: OrderedDict[Platform, _Wanted] = OrderedDict()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._log = Log("collateral")

    def for_quote(self, parsed: ParsedQuote) -> Collateral:
        platform = self._want(parsed)
        held = self.cache.get(platform, self.config.update)
        if held is None:
            self._hurry(platform)
            raise Retryable(MISSING, "the collateral of this platform is being fetched", found=platform.name)
        return held

    def evaluations(self, parsed: ParsedQuote) -> tuple[Collateral, ...]:
        return _up_to(self.for_quote(parsed), self.cache, platform_of(parsed))

    def coming(self, parsed: ParsedQuote) -> Collateral | None:
        return _after(self.for_quote(parsed), self.cache, platform_of(parsed))

    def hurry(self, parsed: ParsedQuote) -> None:
        self._hurry(self._want(parsed))

    async def run(self) -> None:
        """Fetch what is wanted, and again every `refresh` seconds; never raises for a service that fails."""
        self._loop = asyncio.get_running_loop()
        for platform in await asyncio.to_thread(self.cache.platforms):
            root = self._root_held(platform)
            if root is not None:
                self._remember(platform, root)
        async with Pcs(self.config) as pcs:
            while True:
                self._wake.clear()
                for platform, wanted in self._due():
                    await self._refresh(pcs, platform, wanted)
                await self._sleep()

    async def fetch(self, pcs: Pcs, platform: Platform, root: bytes) -> None:
        """Fetch, check and keep. Raises what `Pcs`, `check_collateral` and `Cache.put` do."""
        await self._fetch(pcs, platform, root, self.config.update)
        if not self._ahead:
            return
        standard = self.cache.get(platform, self.config.update)
        numbers = [] if standard is None else [evaluation_of(each) for each in self.cache.evaluations(platform)]
        earlier = [each for each in numbers if standard is not None and each < evaluation_of(standard)]
        feeds: list[Feed] = [*earlier[:KEPT_EVALUATIONS]]
        if self.config.update != "early":
            feeds.append("early")
        for feed in feeds:
            try:
                await self._fetch(pcs, platform, root, feed)
            except Permanent as error:
                self._log.debug("an evaluation was not fetched", platform=platform.name, feed=feed, code=error.code)

    async def _fetch(self, pcs: Pcs, platform: Platform, root: bytes, feed: Feed) -> None:
        fetched = await pcs.collateral(platform, feed)
        rolled_back = await asyncio.to_thread(keep, self.cache, platform, feed, fetched, root, int(self._clock()))
        if rolled_back:
            self._log.warning(
                "the service sent older collateral than is held, which stays",
                platform=platform.name,
                pieces=list(rolled_back),
            )

    async def _refresh(self, pcs: Pcs, platform: Platform, wanted: _Wanted) -> None:
        log = self._log.bind(platform=platform.name)
        try:
            await self.fetch(pcs, platform, wanted.root)
        except OracleError as error:
            pause = min(FIRST_RETRY * 2.0 ** min(wanted.failures, 30), float(self.config.refresh))
            wanted.failures += 1
            wanted.due = time.monotonic() + pause
            left = self._days_left(platform)
            say = log.error if left is None or left < WARN_DAYS else log.warning
            say("collateral was not fetched", code=error.code, message=error.message, days_left=left, seconds=pause)
            return
        wanted.failures, wanted.fetched = 0, time.monotonic()
        wanted.due = wanted.fetched + self.config.refresh
        log.info("collateral fetched", days_left=self._days_left(platform))

    def _days_left(self, platform: Platform) -> float | None:
        held = self.cache.get(platform, self.config.update)
        try:
            return None if held is None else round((held.window().end - self._clock()) / DAY, 1)
        except AttestationError:
            return None

    def _want(self, parsed: ParsedQuote) -> Platform:
        platform, root = platform_of(parsed), certified_root(parsed, self._roots)
        if root is None:
            raise Refused("evidence.pck_chain", "no configured root certified the platform of this quote")
        self._remember(platform, root)
        return platform

    def _hurry(self, platform: Platform) -> None:
        with self._lock:
            wanted = self._wanted.get(platform)
            if wanted is None or wanted.failures or time.monotonic() < wanted.fetched + PAUSE:
                return
            wanted.due = 0.0
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def _remember(self, platform: Platform, root: bytes) -> None:
        with self._lock:
            self._wanted.setdefault(platform, _Wanted(root))
            self._wanted.move_to_end(platform)
            while len(self._wanted) > MAX_PLATFORMS:
                self._wanted.popitem(last=False)

    def _root_held(self, platform: Platform) -> bytes | None:
        """The configured root under which what is held still stands; dates aside, which fetching mends."""
        held = self.cache.get(platform, self.config.update)
        for root in self._roots.values():
            try:
                if held is not None:
                    check_collateral(held, platform, root, held.window().start)
                    return root
            except OracleError:
                continue
        return None

    def _due(self) -> list[tuple[Platform, _Wanted]]:
        now = time.monotonic()
        with self._lock:
            return [(platform, wanted) for platform, wanted in self._wanted.items() if wanted.due <= now]

    async def _sleep(self) -> None:
        with self._lock:
            next_due = min((wanted.due for wanted in self._wanted.values()), default=float("inf"))
        pause = min(LONGEST_SLEEP, max(0.0, next_due - time.monotonic()))
        # Not `wait_for`, which loses a cancellation that comes together with the wake (Python 3.11).
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()


def collateral_ends(source: CollateralSource) -> dict[str, int]:
    """When what is held of each kind of platform ends, in unix seconds, by the kind's name; what cannot be read is left out."""
    held: dict[str, Collateral | None] = {}
    if isinstance(source, FetchedCollateral):
        held = {each.name: source.cache.get(each, source.config.update) for each in source.cache.platforms()}
    elif isinstance(source, CollateralFiles):
        held = source.held()
    ends = {}
    for name, collateral in held.items():
        with suppress(AttestationError):
            if collateral is not None:
                ends[name] = collateral.window().end
    return ends


def _up_to(current: Collateral, cache: Cache, platform: Platform) -> tuple[Collateral, ...]:
    number = evaluation_of(current)
    return current, *(each for each in cache.evaluations(platform) if evaluation_of(each) < number)


def _after(current: Collateral, cache: Cache, platform: Platform) -> Collateral | None:
    early = cache.get(platform, "early")
    return early if early is not None and evaluation_of(early) > evaluation_of(current) else None


def keep(cache: Cache, platform: Platform, feed: Feed, fetched: Collateral, root: bytes, now: int) -> tuple[str, ...]:
    """Check what was fetched and put it into the cache, but for pieces that are older than what is there: their names.

    Raises what `check_collateral` and `Cache.put` raise.
    """
    check_collateral(fetched, platform, root, now)
    if isinstance(feed, int) and feed != evaluation_of(fetched):
        raise Refused(
            "collateral.evaluation",
            "the service answers with another evaluation than it was asked for",
            found=evaluation_of(fetched),
            expected=feed,
        )
    held = cache.get(platform, feed)
    rolled_back: tuple[str, ...] = ()
    if held is not None:
        try:
            check_collateral(held, platform, root, held.window().start)
            fetched, rolled_back = newest(held, fetched, now)
        except OracleError:
            rolled_back = ()  # what is held is no good, so it cannot be rolled back
    cache.put(platform, feed, fetched)
    return rolled_back
