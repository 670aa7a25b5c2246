"""What `oracle worker top` shows: a worker's `/metrics`, read as anyone can read it, drawn for a terminal of any width.

What the page says is untrusted text: bounded, parsed, and shown as plain words.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from oracle.errors import Refused, Retryable
from oracle.worker.metrics import ENDS, PREFIX, STEPS
from oracle.worker.states import OPEN, State

MAX_PAGE: Final = 4 << 20
MAX_SAMPLES: Final = 20_000
DAY: Final = 86_400
WEI: Final = 10**18

Place = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Reading:
    """One look. `at` is unix seconds."""

    at: float
    values: Mapping[tuple[str, Place], float]

    def one(self, name: str, **labels: str) -> float | None:
        return self.values.get((name, tuple(sorted(labels.items()))))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums over the other labels."""
        found: dict[str, float] = {}
        for (each, place), value in self.values.items():
            if each == name and (key := dict(place).get(label)) is not None:
                found[key] = found.get(key, 0.0) + value
        return found

    def total(self, name: str) -> float:
        return sum(value for (each, _), value in self.values.items() if each == name)


class Page:
    """Where a worker serves its pages: `http://host:port`, `unix:` and a path, or a path."""

    def __init__(self, where: str, timeout: float = 5.0) -> None:
        path = where.removeprefix("unix:")
        self._socket = None if where.startswith(("http://", "https://")) else Path(path)
        self._url = where.rstrip("/") if self._socket is None else "http://worker"
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def read(self) -> Reading:
        """Raises Retryable `top.unreachable`, and Refused `top.page` for a page that is no worker's."""
        connector = None if self._socket is None else aiohttp.UnixConnector(str(self._socket))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session,
                session.get(f"{self._url}/metrics", allow_redirects=False) as answer,
            ):
                raw = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 16):
                    raw += chunk
                    if len(raw) > MAX_PAGE:
                        raise Refused("top.page", "the page is too long to be a worker's")
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Retryable(
                "top.unreachable",
                f"no worker answers there ({type(error).__name__})",
                hint="Is `health` in its configuration, and is this its `listen`?",
            ) from None
        if status != 200:
            raise Refused("top.page", "this is not a worker's page", found=f"HTTP status {status}")
        return read_page(bytes(raw), time.time())


def read_page(raw: bytes, at: float) -> Reading:
    values: dict[tuple[str, Place], float] = {}
    try:
        for family in text_string_to_metric_families(raw.decode()):
            for sample in family.samples:
                if sample.name.startswith(PREFIX):
                    place = tuple(sorted((key, value[:120]) for key, value in sample.labels.items()))
                    values[sample.name.removeprefix(PREFIX), place] = sample.value
                if len(values) > MAX_SAMPLES:
                    raise Refused("top.page", "the page has too many values to be a worker's")
    except (ValueError, KeyError, IndexError) as error:
        raise Refused("top.page", f"the page cannot be read ({type(error).__name__})") from None
    if not values:
        raise Refused("top.page", "the page has nothing of a worker in it")
    return Reading(at, values)


@dataclass(frozen=True)
class Summary:
    """What a look, and the one before it where there is one, come to. Times in seconds, amounts in wei."""

    version: str | None
    uptime: float | None
    following: bool
    registered: bool
    lag: float | None
    head: float | None
    tasks: Mapping[str, int]
    ended: Mapping[str, int]
    running: int
    per_second: float | None
    """Settled tasks a second since the look before."""
    steps: Mapping[str, tuple[int, float | None, float | None]]
    """How many, and the 50th and 95th percentile since the start, by step."""
    brokers: Mapping[str, bool]
    enclaves: int
    wallet: float | None
    registration_left: float | None
    collateral_left: float | None
    outbox: tuple[int, int]
    journal_bytes: float | None
    alerts: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__}
        shown["steps"] = {
            name: {"count": count, "p50": p50, "p95": p95} for name, (count, p50, p95) in self.steps.items()
        }
        shown["outbox"] = {"pending": self.outbox[0], "stuck": self.outbox[1]}
        shown["alerts"] = list(self.alerts)
        return shown


def summarise(now: Reading, before: Reading | None = None) -> Summary:
    info = next((dict(place).get("version") for name, place in now.values if name == "info"), None)
    started, valid = now.one("started_at"), now.one("registration_valid_until")
    ends = now.by("collateral_ends", "piece")
    settled = now.one("tasks_ended_total", state=State.SETTLED)
    earlier = None if before is None else before.one("tasks_ended_total", state=State.SETTLED)
    passed = 0.0 if before is None else now.at - before.at
    per_second = None if settled is None or earlier is None or passed <= 0 else max(0.0, settled - earlier) / passed
    return Summary(
        version=info,
        uptime=None if started is None else max(0.0, now.at - started),
        following=now.one("following") == 1,
        registered=now.one("registered") == 1,
        lag=now.one("lag_blocks"),
        head=now.one("head_block"),
        tasks={state: int(n) for state, n in now.by("tasks", "state").items()},
        ended={state: int(n) for state, n in now.by("tasks_ended_total", "state").items()},
        running=int(now.one("tasks_running") or 0),
        per_second=per_second,
        steps={step: _percentiles(now, step) for step in STEPS},
        brokers={broker: up == 1 for broker, up in now.by("broker_up", "broker").items()},
        enclaves=int(now.one("enclave_up") or 0),
        wallet=now.one("wallet_balance_wei"),
        registration_left=None if valid is None else valid - now.at,
        collateral_left=min(ends.values()) - now.at if ends else None,
        outbox=(int(now.one("outbox_pending") or 0), int(now.one("outbox_stuck") or 0)),
        journal_bytes=now.one("journal_bytes"),
        alerts=tuple(_alerts(now)),
    )


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """As Prometheus' histogram_quantile: `buckets` are cumulative counts by upper bound. None where nothing was counted."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]] > 0:
        return None
    rank, below, low = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return low
            inside = buckets[bound] - below
            return bound if inside <= 0 else low + (bound - low) * (rank - below) / inside
        below, low = buckets[bound], bound
    return low


def _percentiles(now: Reading, step: str) -> tuple[int, float | None, float | None]:
    buckets = {}
    for (name, place), value in now.values.items():
        labels = dict(place)
        if name == "step_seconds_bucket" and labels.get("step") == step:
            buckets[float(labels.get("le", "nan"))] = value
    return int(now.one("step_seconds_count", step=step) or 0), quantile(0.5, buckets), quantile(0.95, buckets)


def _alerts(now: Reading) -> list[str]:
    """What needs a person now, in the words of docs/operate.md."""
    valid = now.one("registration_valid_until")
    found = {
        "NotFollowing": now.one("following") == 0,
        "NotRegistered": now.one("registered") == 0,
        "RegistrationEnds": valid is not None and valid - now.at < DAY / 2,
        "TasksParked": (now.one("tasks", state=State.PARKED) or 0) > 0,
        "Bug": now.total("bugs_total") > 0,
        "LoopFailing": (now.one("loops_failing") or 0) > 0,
        "BrokersBelowThreshold": (now.one("agreements_below_threshold") or 0) > 0,
        "BrokerDown": 0 in now.by("broker_up", "broker").values(),
        "TransactionStuck": (now.one("outbox_stuck") or 0) > 0,
        "JournalStuck": now.one("journal_writable") == 0,
        "WrongChain": (now.one("rpc_wrong_chain") or 0) > 0,
        "ReloadFailed": now.one("config_reload_failed") == 1,
        "TcbComingDown": now.one("tcb_coming_down") == 1,
        "CollateralMissing": now.one("collateral_available") == 0,
        "EnclaveDown": now.one("enclave_up") == 0,
    }
    return [f"OracleWorker{name}" for name, firing in found.items() if firing]


# How it looks.


def draw(summary: Summary, where: str) -> RenderableType:
    """Blocks below each other, none wider than it needs to be: an 80-column terminal, or half of one."""
    title = Text(f"worker {summary.version or ''} at {where}", style="bold", overflow="ellipsis", no_wrap=True)
    alerts = (
        Text("\n".join(f"!! {name}" for name in summary.alerts), style="bold red")
        if summary.alerts
        else Text("no alerts", style="green")
    )
    return Group(title, _facts(summary), Text(), _tasks(summary), Text(), _steps(summary), Text(), alerts)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(columns), header_style="dim")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", overflow="ellipsis")
    return table


def _facts(summary: Summary) -> Table:
    table = _table()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    down = [name for name, up in summary.brokers.items() if not up]
    brokers = f"{len(summary.brokers) - len(down)} of {len(summary.brokers)} up"
    rows = {
        "chain": f"{'following' if summary.following else 'NOT FOLLOWING'}, {_number(summary.lag)} blocks behind",
        "enclave": f"{summary.enclaves} up, {'registered' if summary.registered else 'NOT REGISTERED'}",
        "ends in": f"registration {_days(summary.registration_left)}, collateral {_days(summary.collateral_left)}",
        "brokers": brokers + (f", down: {', '.join(name[:8] for name in down)}" if down else ""),
        "wallet": "?" if summary.wallet is None else f"{summary.wallet / WEI:.6f}",
        "sent": f"{summary.outbox[0]} pending, {summary.outbox[1]} stuck",
        "journal": "?" if summary.journal_bytes is None else f"{summary.journal_bytes / (1 << 20):.1f} MiB",
        "up for": _days(summary.uptime),
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _tasks(summary: Summary) -> Table:
    table = _table("tasks", "now", "ended")
    for state in (*OPEN, *ENDS):
        ended = summary.ended.get(state)
        table.add_row(state.value, _number(summary.tasks.get(state)), "" if ended is None else str(ended))
    rate = "" if summary.per_second is None else f"{summary.per_second:.2f}/s"
    table.add_row("running", str(summary.running), rate)
    return table


def _steps(summary: Summary) -> Table:
    table = _table("step", "times", "p50", "p95")
    for name, (count, p50, p95) in summary.steps.items():
        table.add_row(name, str(count), _seconds(p50), _seconds(p95))
    return table


def _number(value: float | None) -> str:
    return "?" if value is None else str(int(value))


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _days(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 0:
        return "ENDED"
    return f"{seconds / DAY:.1f} days" if seconds >= DAY else f"{seconds / 3600:.1f} h"


async def look_twice(page: Page, seconds: float) -> Summary:
    """Two looks, so that there is a rate."""
    before = await page.read()
    await asyncio.sleep(seconds)
    return summarise(await page.read(), before)
