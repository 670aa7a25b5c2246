"""What an operator watches, as numbers: one table of metrics, on a registry of its own, in the form that Prometheus reads.

Every label that a stranger can choose is bounded: codes that are not in the list are counted as `other`. Label values that
are known beforehand exist from the start with 0, because `increase()` of a counter that was not there before is 0, so that
an alert would sleep through the first event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from oracle.attestation import TcbStatus
from oracle.errors import Bug
from oracle.worker.codes import OTHER, REASONS, known_code
from oracle.worker.states import State

PREFIX: Final = "oracle_worker_"
STATUSES: Final = {status: status.name.lower() for status in TcbStatus}
STEPS: Final = ("plan", "release", "run", "store", "settle", "receipt")
STEP_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""Seconds: from a plan in memory to a long function."""
DEPTH_BUCKETS: Final = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 64.0)
"""Blocks that a reorganisation took."""
PURPOSES: Final = ("settle", "register", "retire", "collateral", "gap", "other")
"""What a transaction is for."""
OUTCOMES: Final = ("asked", "given", "refused")
MAX_SERIES: Final = 512
"""Label sets of one metric that are kept; what comes above is dropped, and counted in `dropped_series_total`."""
ENDS: Final = (State.SETTLED, State.CANCELLED, State.EXPIRED, State.SKIPPED, State.FAILED, State.PARKED)

Labels = tuple[str, ...]
Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Entry:
    """One metric. `starts` are label values that exist from the start; `buckets` are a histogram's upper bounds."""

    kind: Kind
    about: str
    labels: Labels = ()
    starts: tuple[Labels, ...] = ()
    buckets: tuple[float, ...] = ()


def _gauge(about: str, *labels: str) -> Entry:
    return Entry("gauge", about, labels)


def _counter(about: str, **labels: Iterable[str]) -> Entry:
    """With at most one label, whose first values are given."""
    names = tuple(labels)
    starts = tuple((str(value),) for values in labels.values() for value in values) if names else ((),)
    return Entry("counter", about, names, starts)


METRICS: Final[Mapping[str, Entry]] = {
    # The process.
    "info": _gauge("1; the label says which release this is", "version"),
    "started_at": _gauge("unix seconds at which this process began"),
    "loops_failing": _gauge("loops that died several times in a row by a bug"),
    "bugs_total": _counter(
        "bugs since this process began, by where they showed", where=("task", "loop", "health", "reload")
    ),
    "clock_jumps_total": _counter("jumps of the host's clock that were noticed"),
    "config_reloads_total": _counter(
        "reloads of the configuration, by what became of them", outcome=("applied", "refused")
    ),
    "config_reload_failed": _gauge("1 while the newest reload was refused, so that the file is not what is in force"),
    "dropped_series_total": _counter("values that were not kept because a metric had too many label sets"),
    # The chain.
    "head_block": _gauge("number of the newest block that was seen"),
    "clock_ahead_seconds": _gauge("the host's clock less the newest block's time, when that block was first seen"),
    "cursor_block": _gauge("number of the last block whose events are all in the journal"),
    "lag_blocks": _gauge("blocks between the two"),
    "progress_at": _gauge("unix seconds at which the head or the cursor last moved"),
    "following": _gauge("1 while the chain can be asked and the journal keeps up with it"),
    "reorg_depth_blocks": Entry(
        "histogram", "blocks that each reorganisation took back", starts=((),), buckets=DEPTH_BUCKETS
    ),
    "rpc_errors_total": Entry("counter", "failed calls, by endpoint and code", ("endpoint", "code")),
    "rpc_endpoint_up": _gauge("1 while an RPC endpoint is used, 0 while it is left alone", "endpoint"),
    "rpc_endpoint_lag_blocks": _gauge("blocks that an RPC endpoint is behind the best one", "endpoint"),
    "rpc_wrong_chain": _gauge("RPC endpoints that serve another chain"),
    # Tasks. What is counted over the worker's whole life comes from the journal, so a restart does not reset it.
    "tasks": _gauge("tasks in the journal by state", "state"),
    "tasks_running": _gauge("tasks that are worked on now"),
    "tasks_ended_total": _counter("tasks that ended here, by how, since the journal began", state=ENDS),
    "step_seconds": Entry(
        "histogram",
        "time of each step of a task that succeeded; waits for a release delay or a turn are not in it",
        ("step",),
        tuple((step,) for step in STEPS),
        STEP_BUCKETS,
    ),
    "retries_total": _counter("failed attempts by code", code=REASONS),
    "refusals_total": _counter("releases that key brokers did not give, by the code that they said", code=REASONS),
    "releases_total": Entry("counter", "questions to key brokers, by broker and outcome", ("broker", "outcome")),
    "broker_up": _gauge("1 while a key broker's last answer was one, 0 while it does not answer", "broker"),
    "brokers_configured": _gauge("key brokers in the configuration"),
    "agreements_below_threshold": _gauge("agreements that too few of the configured key brokers answer for"),
    # Money.
    "earned_total": _counter("what settled results pay the payee, in the token's smallest unit", token=("native",)),
    "gas_spent_wei_total": _counter("wei paid for gas, by what for, since the journal began", purpose=PURPOSES),
    "wallet_balance_wei": _gauge("what the wallet holds for gas"),
    "outbox_pending": _gauge("transactions that were sent and are not final"),
    "outbox_stuck": _gauge("of these, those that wait for longer than they should"),
    "outbox_replaced_total": _counter("transactions that were sent again with higher fees"),
    # The journal.
    "journal_bytes": _gauge("size of the journal on disk"),
    "journal_read_at": _gauge("unix seconds at which the figures of the journal were read"),
    "journal_writable": _gauge("1 while the journal takes writes"),
    # The enclave.
    "enclave_up": _gauge("enclaves that answer"),
    "enclave_restarts_total": _counter("times that an enclave was found to be another one, or was started anew"),
    "registered": _gauge("1 while the enclave is registered, and not retired or revoked"),
    "registration_valid_until": _gauge("unix seconds until which the registration counts"),
    "registration_evidence_at": _gauge("unix seconds of the registration or its last renewal"),
    "registration_evaluation": _gauge("TCB evaluation number that the platform was judged under"),
    "registration_tcb_status": _gauge("1 for the TCB status that the registration has", "status"),
    "registration_grace_from": _gauge(
        "unix seconds from which agreements count their grace; absent without an earlier status"
    ),
    "collateral_ends": _gauge("unix seconds at which a piece of the collateral in use ends", "piece"),
    "collateral_evaluation": _gauge("TCB evaluation number of the collateral in use"),
    "collateral_available": _gauge("1 while there is collateral under which the enclave can be registered or renewed"),
    "coming_evaluation": _gauge("TCB evaluation number that Intel has announced; absent where there is none"),
    "coming_tcb_status": _gauge("1 for the TCB status that the platform will have under it", "status"),
    "tcb_coming_down": _gauge("1 while the announced evaluation ranks this platform lower than today's"),
}
"""Every metric, without its prefix. Times are in unix seconds; a gauge that is not known is not shown."""


@dataclass
class _Histogram:
    counts: list[int]
    total: float = 0.0


class Metrics(Collector):
    """Set by the worker's loops, read by whoever shows them; both on the event loop's thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._values: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        for name, entry in METRICS.items():
            if entry.kind == "histogram":
                self._histograms[name] = {start: _Histogram([0] * (len(entry.buckets) + 1)) for start in entry.starts}
            else:
                self._values[name] = dict.fromkeys(entry.starts, 0.0)
        self.registry.register(self)

    # Gauges.

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """None takes the gauge away."""
        place = _place(name, "gauge", labels)
        if value is None:
            self._values[name].pop(place, None)
        else:
            self._put(name, place, float(value))

    def set_only(self, name: str, values: Mapping[str, float], label: str) -> None:
        """One value for each label value, and none for others that were there."""
        places = {_place(name, "gauge", {label: each}): float(value) for each, value in values.items()}
        self._values[name] = {}
        for place, value in places.items():
            self._put(name, place, value)

    # Counters.

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """One more event. A code that is not known counts as `other`."""
        place = _place(name, "counter", labels)
        self._put(name, place, self._values[name].get(place, 0.0) + amount)

    def total(self, name: str, value: float, **labels: str) -> None:
        """A counter that somebody else keeps. It never falls: what pruning or a restart forgot has still happened."""
        place = _place(name, "counter", labels)
        self._put(name, place, max(float(value), self._values[name].get(place, 0.0)))

    def totals(self, name: str, values: Mapping[str, float], label: str) -> None:
        """The same for each label value; what is not known is summed up as `other`."""
        summed: dict[str, float] = {}
        for each, value in values.items():
            (place,) = _place(name, "counter", {label: each})
            summed[place] = summed.get(place, 0.0) + value
        for each, value in summed.items():
            self.total(name, value, **{label: each})

    # Histograms.

    def observe(self, name: str, value: float, **labels: str) -> None:
        place, entry = _place(name, "histogram", labels), METRICS[name]
        histogram = self._histograms[name].get(place)
        if histogram is None:
            raise Bug("metrics.label", "a histogram's labels are fixed", found=str(place))
        at = next((index for index, bound in enumerate(entry.buckets) if value <= bound), len(entry.buckets))
        histogram.counts[at] += 1
        histogram.total += value

    # Reading.

    def get(self, name: str, **labels: str) -> float | None:
        """A gauge's or counter's value; of a histogram, how many values it has."""
        entry = METRICS[name]
        place = _place(name, entry.kind, labels)
        if entry.kind == "histogram":
            histogram = self._histograms[name].get(place)
            return None if histogram is None else float(sum(histogram.counts))
        return self._values[name].get(place)

    def text(self) -> str:
        """Prometheus' text form, version 0.0.4."""
        return generate_latest(self.registry).decode()

    def collect(self) -> Iterator[Metric]:
        for name, entry in METRICS.items():
            full = PREFIX + name
            if entry.kind == "histogram":
                yield self._histogram(full, name, entry)
                continue
            values = self._values[name]
            if not values:
                continue
            family: Metric
            if entry.kind == "gauge":
                gauges = family = GaugeMetricFamily(full, entry.about, labels=entry.labels)
                for place, value in sorted(values.items()):
                    gauges.add_metric(place, value)
            else:
                counters = family = CounterMetricFamily(full, entry.about, labels=entry.labels)
                for place, value in sorted(values.items()):
                    counters.add_metric(place, value)
            yield family

    def _histogram(self, full: str, name: str, entry: Entry) -> Metric:
        family = HistogramMetricFamily(full, entry.about, labels=entry.labels)
        bounds = [*map(str, entry.buckets), "+Inf"]
        for place, histogram in sorted(self._histograms[name].items()):
            running, buckets = 0, []
            for bound, count in zip(bounds, histogram.counts, strict=True):
                running += count
                buckets.append((bound, float(running)))
            family.add_metric(place, buckets, histogram.total)
        return family

    def _put(self, name: str, place: Labels, value: float) -> None:
        values = self._values[name]
        if place not in values and len(values) >= MAX_SERIES:
            self._values["dropped_series_total"][()] += 1
            return
        values[place] = value


def full_names() -> set[str]:
    """Every name under which a sample is shown."""
    names = set()
    for name, entry in METRICS.items():
        endings = ("_bucket", "_sum", "_count") if entry.kind == "histogram" else ("",)
        names |= {PREFIX + name + ending for ending in endings}
    return names


def _place(name: str, kind: Kind, labels: Mapping[str, str]) -> Labels:
    entry = METRICS.get(name)
    if entry is None or entry.kind != kind:
        raise Bug("metrics.name", f"a {kind} that is not in the list", found=name)
    if set(labels) != set(entry.labels):
        raise Bug("metrics.labels", f"{name} has other labels", found=sorted(labels), expected=sorted(entry.labels))
    return tuple(_bounded(label, labels[label]) for label in entry.labels)


def _bounded(label: str, value: str) -> str:
    if label == "code":
        return known_code(value)
    if label == "purpose":
        return value if value in PURPOSES else OTHER
    return value[:120]
