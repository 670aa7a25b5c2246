"""What a broker counts and measures, for Prometheus; names and bounds of the labels are here and nowhere else.

No label is a stranger's to choose: codes are this program's own and bounded in number, providers are named by their place in
the configuration.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MAX_CODES = 150
OTHER = "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class BrokerMetrics:
    """On a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "oracle_keybroker_"
        self.releases = self._counter(name + "releases", "Releases whose entry was logged")
        self.repeats = self._counter(name + "repeats", "Releases that were asked for again and got the logged answer")
        self.outputs = self._counter(name + "outputs", "Outputs' shares that went to recipients")
        self._refusals = self._counter(
            name + "refusals", "Requests that got no answer, by what and why", "what", "code"
        )
        self.limited = self._counter(name + "rate_limited", "Requests that came too fast, by whose tokens", "by")
        self.seconds = Histogram(
            name + "request_seconds", "How long requests took", ["what"], buckets=SECONDS, registry=self.registry
        )
        self.step_seconds = Histogram(
            name + "release_step_seconds",
            "Where releases spent their time",
            ["step"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.cap_used = Histogram(
            name + "cap_used_ratio",
            "What of its cap a task had used at a platform, at each release",
            buckets=(0.25, 0.5, 0.75, 0.99, 1.0),
            registry=self.registry,
        )
        self.log_bytes = self._gauge(name + "log_bytes", "Bytes of the log, all its files")
        self.log_entries = self._gauge(name + "log_entries", "Entries of the log")
        self.log_writable = self._gauge(name + "log_writable", "1 where the log takes entries")
        self.disk_free = self._gauge(name + "disk_free_bytes", "Room on the log's disk")
        self.provider_up = self._gauge(name + "provider_up", "1 where a provider answers", "chain", "provider")
        self.provider_head = self._gauge(name + "provider_head_block", "A provider's newest block", "chain", "provider")
        self.provider_lag = self._gauge(
            name + "provider_lag_blocks", "Blocks by which a provider is behind the highest", "chain", "provider"
        )
        self.chain_agreed = self._gauge(name + "chain_agreed", "1 where the providers agree on a block", "chain")
        self.chain_age = self._gauge(name + "chain_block_age_seconds", "Age of the agreed confirmed block", "chain")
        self.disagreements = self._counter(
            name + "chain_disagreements", "Reads on which the providers did not agree", "chain"
        )
        self.forks = self._counter(name + "release_forks", "Releases over a block that the chain dropped", "chain")
        self.collateral_end = self._gauge(
            name + "collateral_end_seconds", "Unix time at which collateral ends, by platform kind", "platform"
        )
        self.ready = self._gauge(name + "ready", "1 where /readyz says so", "check")
        self._codes: set[tuple[str, str]] = set()

    def refused(self, what: str, code: str) -> None:
        """Count a refusal; beyond `MAX_CODES` pairs they have one name."""
        if (what, code) not in self._codes:
            if len(self._codes) >= MAX_CODES:
                code = OTHER
            self._codes.add((what, code))
        self._refusals.labels(what=what, code=code).inc()

    def page(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)
