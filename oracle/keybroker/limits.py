"""Rate limits: a token bucket for each network and one for all, for each platform, and for each owner of data.

What a stranger sends costs the stranger's own tokens: an owner's are taken only for what holds by every rule, a platform's only
for what its evidence proves. So nobody uses up what others need by asking in their name.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

from oracle.errors import Retryable
from oracle.keybroker.config import RateLimits

TABLE = 10_000
"""Networks, platforms and owners that are remembered; who was forgotten begins with a full bucket."""
RESERVE = 0.25
"""What of the tokens of all is kept for networks that have asked little."""
IPV6_NETWORK = 64


class TooMany(Retryable):
    """Too many requests. The next one can be taken in `seconds`, a whole number of at least one."""

    def __init__(self, message: str, by: str, seconds: float) -> None:
        self.by, self.seconds = by, max(1, math.ceil(seconds))
        super().__init__("broker.rate", message, hint=f"Come again in {self.seconds} s")


class Bucket:
    """`rate` tokens a second, `burst` at most."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._tokens, self._at = rate, burst, burst, now

    def wait(self, now: float, kept: float = 0.0) -> float:
        """Seconds until there is a token above the `kept` ones; 0 where there is."""
        self._tokens = min(self._burst, self._tokens + self._rate * max(0.0, now - self._at))
        self._at = max(self._at, now)
        return max(0.0, (1 + kept - self._tokens) / self._rate)

    def take(self) -> None:
        self._tokens -= 1

    @property
    def is_half_full(self) -> bool:
        return self._tokens >= self._burst / 2


class Table:
    """A bucket for each name; the ones not used for longest are forgotten first."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, name: str, now: float) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(self._rate, self._burst, now)
        self._buckets.move_to_end(name)
        while len(self._buckets) > TABLE:
            self._buckets.popitem(last=False)
        return bucket


class Limiter:
    """`clock` is monotonic, in seconds."""

    def __init__(self, limits: RateLimits, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.set(limits)

    def set(self, limits: RateLimits) -> None:
        """Other limits from now on; everybody begins with full buckets."""
        self._reserve = RESERVE * limits.overall_burst
        self._all = Bucket(limits.overall, limits.overall_burst, self._clock())
        self._networks = Table(limits.per_client, limits.per_client_burst)
        self._platforms = Table(limits.per_platform, limits.per_platform_burst)
        self._owners = Table(limits.per_owner, limits.per_owner_burst)

    def check(self, client: str | None) -> None:
        """Before anything of a request is read. None is a client without an address. Raises TooMany."""
        now = self._clock()
        mine = None if client is None else self._networks.bucket(network_of(client), now)
        if mine is not None and (seconds := mine.wait(now)):
            raise TooMany("too many requests from this network", "network", seconds)
        # The reserve is for those who ask little, so that a few who ask much cannot starve them.
        kept = 0.0 if mine is None or mine.is_half_full else self._reserve
        if seconds := self._all.wait(now, kept):
            raise TooMany("the broker has too many requests", "overall", seconds)
        self._all.take()
        if mine is not None:
            mine.take()

    def platform(self, platform: bytes) -> None:
        """Once its evidence holds. Raises TooMany."""
        now = self._clock()
        bucket = self._platforms.bucket(platform.hex(), now)
        if seconds := bucket.wait(now):
            raise TooMany("too many requests from enclaves of this platform", "platform", seconds)
        bucket.take()

    def owners(self, owners: Sequence[str], what: str) -> None:
        """Once everything about a request for these owners' data holds: one token of each, or none. Raises TooMany.

        `what` keeps the readers of outputs apart from the tasks.
        """
        now = self._clock()
        buckets = [self._owners.bucket(f"{what} {owner}", now) for owner in dict.fromkeys(owners)]
        if seconds := max((bucket.wait(now) for bucket in buckets), default=0.0):
            raise TooMany("too many requests for this owner's data", "owner", seconds)
        for bucket in buckets:
            bucket.take()


def network_of(client: str) -> str:
    """Whose tokens an address uses: one host has a whole /64 of IPv6 addresses."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_NETWORK), strict=False))
    return str(address)
