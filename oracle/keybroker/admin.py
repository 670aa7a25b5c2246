"""For the operator alone: whether the broker lives, whether it can release, and what it counted. Listens apart from the public.

GET /healthz   200 while the process answers
GET /readyz    200 where every check holds, else 503; the checks by name, with what is wrong
GET /metrics   Prometheus' text format
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

from aiohttp import web

from oracle.collateral import collateral_ends
from oracle.keybroker.broker import KeyBroker
from oracle.keybroker.config import KeyBrokerConfig

STALE_LOOKS = 6
"""Looks at the chains that may be missing before the last one says nothing any more."""


class Admin:
    def __init__(self, broker: KeyBroker, config: KeyBrokerConfig) -> None:
        self._broker, self.config = broker, config
        self.draining = False

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        return app

    def problems(self) -> dict[str, str | None]:
        """Each check, and what is wrong where it does not hold."""
        found = dict(self._checks())
        for check, problem in found.items():
            self._broker.metrics.ready.labels(check).set(problem is None)
        return found

    def _checks(self) -> Iterator[tuple[str, str | None]]:
        broker, config = self._broker, self.config
        yield "serving", "the broker is stopping" if self.draining else None
        yield "log", None if broker.ledger.is_writable else "the log cannot be written (log.disk)"
        room = self._room()
        short = f"{room} bytes are left, less than {config.min_free_bytes}"
        yield "disk", short if room < config.min_free_bytes else None
        yield "collateral", self._collateral()
        for access in broker.chains.all():
            chain_id, limit = access.config.chain_id, access.config.max_block_age
            state = broker.watch.states.get(chain_id)
            problem = None
            if state is None or time.monotonic() - state.at > STALE_LOOKS * config.watch + 2 * access.config.timeout:
                problem = "the chain has not been looked at"
            elif not state.agreed:
                problem = f"the providers give no block that counts ({state.code})"
            elif limit != "skip" and state.age is not None and state.age > limit:
                problem = f"the confirmed block is {state.age} s old (chain.stale)"
            yield f"chain:{chain_id}", problem

    def _collateral(self) -> str | None:
        ends = collateral_ends(self._broker.collateral)
        for platform, end in ends.items():
            self._broker.metrics.collateral_end.labels(platform).set(end)
        ended = [platform for platform, end in ends.items() if end <= time.time()]
        # One kind of machine may be gone for good; where nothing is fresh, nothing can be released.
        return (
            f"the collateral has ended ({', '.join(sorted(ended)[:3])})" if ended and len(ended) == len(ends) else None
        )

    def _room(self) -> int:
        disk = os.statvfs(self.config.directory)
        room = disk.f_bavail * disk.f_frsize
        self._broker.metrics.disk_free.set(room)
        return room

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"ok": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        found = self.problems()
        ready = not any(found.values())
        checks = {check: problem or "ok" for check, problem in found.items()}
        return _json({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        metrics, ledger = self._broker.metrics, self._broker.ledger
        self.problems()
        metrics.log_bytes.set(ledger.size)
        metrics.log_entries.set(ledger.entries)
        metrics.log_writable.set(ledger.is_writable)
        return web.Response(body=metrics.page(), content_type="text/plain", charset="utf-8")


def _json(value: dict[str, object], status: int = 200) -> web.Response:
    # With a line's end, for whoever reads it in a terminal.
    return web.Response(text=json.dumps(value) + "\n", status=status, content_type="application/json")
