"""The dashboard: what it makes of a worker's page, at every width, and of a page that is no worker's."""

from __future__ import annotations

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from oracle.errors import Refused
from oracle.worker import dashboard
from oracle.worker.dashboard import draw, quantile, read_page, summarise
from oracle.worker.metrics import STEP_BUCKETS, Metrics

NOW = 1_800_000_000.0


def healthy() -> Metrics:
    metrics = Metrics()
    for name in ("following", "registered", "enclave_up", "journal_writable", "collateral_available"):
        metrics.set(name, 1)
    metrics.set("info", 1, version="0.1.0")
    metrics.set("lag_blocks", 3)
    metrics.set("registration_valid_until", NOW + 6 * 86_400)
    metrics.set("collateral_ends", NOW + 20 * 86_400, piece="TCB info")
    metrics.set("collateral_ends", NOW + 9 * 86_400, piece="CRL")
    metrics.set("broker_up", 1, broker="ab" * 8)
    metrics.set_only("tasks", {"seen": 4, "settled": 7}, "state")
    metrics.total("tasks_ended_total", 7, state="settled")
    for seconds in (0.02, 0.03, 0.2):
        metrics.observe("step_seconds", seconds, step="run")
    return metrics


def drawn(metrics: Metrics, width: int) -> str:
    out = io.StringIO()
    summary = summarise(read_page(metrics.text().encode(), NOW))
    Console(file=out, width=width, color_system=None).print(draw(summary, "http://127.0.0.1:9464"))
    return out.getvalue()


def test_a_page_becomes_figures() -> None:
    summary = summarise(read_page(healthy().text().encode(), NOW))
    assert (summary.version, summary.lag, summary.following) == ("0.1.0", 3, True)
    assert summary.tasks == {"seen": 4, "settled": 7}
    assert summary.ended["settled"] == 7
    assert summary.collateral_left == 9 * 86_400
    assert summary.steps["run"][0] == 3
    assert summary.steps["plan"] == (0, None, None)
    assert summary.alerts == ()
    assert json.loads(json.dumps(summary.as_json()))["steps"]["run"]["count"] == 3


def test_the_rate_is_what_was_settled_between_two_looks() -> None:
    metrics = healthy()
    before = read_page(metrics.text().encode(), NOW)
    metrics.total("tasks_ended_total", 27, state="settled")
    assert summarise(read_page(metrics.text().encode(), NOW + 4), before).per_second == 5
    assert summarise(before, before).per_second is None


@pytest.mark.parametrize(
    ("name", "value", "labels", "alert"),
    [
        ("following", 0, {}, "OracleWorkerNotFollowing"),
        ("registered", 0, {}, "OracleWorkerNotRegistered"),
        ("tasks", 1, {"state": "parked"}, "OracleWorkerTasksParked"),
        ("broker_up", 0, {"broker": "cd" * 8}, "OracleWorkerBrokerDown"),
        ("agreements_below_threshold", 2, {}, "OracleWorkerBrokersBelowThreshold"),
        ("config_reload_failed", 1, {}, "OracleWorkerReloadFailed"),
        ("registration_valid_until", NOW + 60, {}, "OracleWorkerRegistrationEnds"),
        ("journal_writable", 0, {}, "OracleWorkerJournalStuck"),
    ],
)
def test_what_needs_a_person_is_said_by_its_alerts_name(
    name: str, value: float, labels: dict[str, str], alert: str
) -> None:
    metrics = healthy()
    metrics.set(name, value, **labels)
    assert summarise(read_page(metrics.text().encode(), NOW)).alerts == (alert,)
    assert alert in drawn(metrics, 80)


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_it_fits_a_terminal_of_any_width(width: int) -> None:
    lines = drawn(healthy(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("running") for line in lines)
    assert any(line.startswith("run ") for line in lines)


def test_a_worker_that_has_just_begun_is_shown_with_what_is_not_known_yet() -> None:
    assert "? blocks behind" in drawn(Metrics(), 80)


@pytest.mark.parametrize("page", [b"<html>", b"", b"\xff", b"other_metric 1\n", b"oracle_worker_x{ 1\n"])
def test_a_page_that_is_no_workers_is_refused(page: bytes) -> None:
    with pytest.raises(Refused):
        read_page(page, NOW)


def test_a_page_of_endless_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "MAX_SAMPLES", 50)
    page = "".join(f'oracle_worker_broker_up{{broker="{n}"}} 1\n' for n in range(60))
    with pytest.raises(Refused):
        read_page(page.encode(), NOW)


def test_text_of_a_stranger_is_shown_as_it_is_and_is_no_markup() -> None:
    metrics = healthy()
    metrics.set("broker_up", 0, broker="[red]x[/]")
    assert "[red]x[/" in drawn(metrics, 80)


@given(st.lists(st.floats(0.001, 800), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
def test_a_quantile_lies_in_the_bucket_that_holds_it(values: list[float], share: float) -> None:
    metrics = Metrics()
    for value in values:
        metrics.observe("step_seconds", value, step="run")
    _, p50, p95 = summarise(read_page(metrics.text().encode(), NOW)).steps["run"]
    found = p50 if share == 0.5 else p95
    assert found is not None
    bounds = [0.0, *STEP_BUCKETS]
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    low = max(bound for bound in bounds if bound < exact)
    high = min(bound for bound in bounds if bound >= exact)
    assert low <= found <= high


def test_a_quantile_of_nothing_is_nothing() -> None:
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {1.0: 0, math.inf: 0}) is None
    assert quantile(0.95, {1.0: 0, math.inf: 5}) == 1.0
