"""Rate limits: a token bucket for each client and one for all (R17: outputs have no other limit)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from oracle.errors import Retryable
from oracle.keybroker.config import RateLimits

CLIENTS = 10_000


class Bucket:
    """`rate` tokens a second, `burst` at most."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._tokens, self._at = rate, burst, burst, now

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + self._rate * max(0.0, now - self._at))
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Limiter:
    """`clock` is monotonic, in seconds."""

    def __init__(self, limits: RateLimits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._all = Bucket(limits.overall, limits.overall_burst, clock())
        self._clients: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, client: str | None) -> None:
        """Raises Retryable when `client`, or all clients together, ask too fast. None is a client without an address."""
        now = self._clock()
        if client is not None and not self._bucket(client, now).take(now):
            raise Retryable("broker.rate", "too many requests from this address")
        if not self._all.take(now):
            raise Retryable("broker.rate", "the broker has too many requests")

    def _bucket(self, client: str, now: float) -> Bucket:
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = Bucket(self._limits.per_client, self._limits.per_client_burst, now)
        self._clients.move_to_end(client)
        while len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        return bucket
