"""The metrics' text form (exposition format 0.0.4), and what keeps their number bounded."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from oracle.errors import Bug
from oracle.worker.codes import OTHER, REASONS
from oracle.worker.metrics import MAX_SERIES, METRICS, PREFIX, STEPS, Metrics, full_names


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_each_gauge_that_is_set_stands_there_once_with_its_help() -> None:
    metrics = Metrics()
    metrics.set("registered", 1)
    metrics.set("registered", 0)
    odd = 'a "quoted"\\name\n'
    metrics.set_only("collateral_ends", {"TCB info": 1_790_000_000, odd: 1.5}, "piece")
    found = samples(metrics)
    assert found["registered", ()] == 0
    assert found["collateral_ends", (("piece", "TCB info"),)] == 1_790_000_000
    assert found["collateral_ends", (("piece", odd),)] == 1.5
    assert f"# HELP {PREFIX}registered {METRICS['registered'].about}\n" in metrics.text()
    assert f"# TYPE {PREFIX}registered gauge\n" in metrics.text()


def test_what_is_no_more_is_not_shown() -> None:
    metrics = Metrics()
    metrics.set("coming_evaluation", 18)
    metrics.set_only("coming_tcb_status", {"out_of_date": 1}, "status")
    metrics.set("coming_evaluation", None)
    metrics.set_only("coming_tcb_status", {"up_to_date": 1}, "status")
    assert "coming_evaluation" not in metrics.text()
    assert metrics.get("coming_tcb_status", status="out_of_date") is None
    assert metrics.get("coming_tcb_status", status="up_to_date") == 1


def test_a_gauge_nobody_set_is_absent_rather_than_zero() -> None:
    assert not [name for name, _ in samples(Metrics()) if METRICS.get(name) and METRICS[name].kind == "gauge"]


@pytest.mark.parametrize(
    "name", [name for name, entry in METRICS.items() if entry.kind != "gauge" and len(entry.labels) < 2]
)
def test_counters_and_histograms_are_there_from_the_start_so_that_alerts_see_the_first_event(name: str) -> None:
    ending = "_count" if METRICS[name].kind == "histogram" else ""
    found = [value for (sample, _), value in samples(Metrics()).items() if sample == name + ending]
    assert found
    assert set(found) == {0}


@pytest.mark.parametrize("name", ["another", "retries_total"])
def test_a_gauge_that_is_not_listed_is_a_bug(name: str) -> None:
    with pytest.raises(Bug):
        Metrics().set(name, 1)


def test_labels_that_are_not_in_the_list_are_a_bug() -> None:
    with pytest.raises(Bug):
        Metrics().count("retries_total", codes="rpc.timeout")


def test_codes_of_strangers_are_counted_as_other() -> None:
    metrics = Metrics()
    for number in range(10_000):
        metrics.count("refusals_total", code=f"made.up_{number}")
    metrics.count("refusals_total", code="broker.rate")
    found = {labels: value for (name, labels), value in samples(metrics).items() if name == "refusals_total"}
    assert len(found) == len(REASONS)
    assert found[(("code", OTHER),)] == 10_000
    assert found[(("code", "broker.rate"),)] == 1


def test_a_metric_keeps_a_bounded_number_of_label_sets_and_says_what_it_dropped() -> None:
    metrics = Metrics()
    for number in range(MAX_SERIES + 7):
        metrics.set("broker_up", 1, broker=f"{number:08x}")
    assert sum(1 for name, _ in samples(metrics) if name == "broker_up") == MAX_SERIES
    assert metrics.get("dropped_series_total") == 7


def test_a_total_never_falls() -> None:
    metrics = Metrics()
    metrics.total("tasks_ended_total", 5, state="settled")
    metrics.total("tasks_ended_total", 3, state="settled")
    assert metrics.get("tasks_ended_total", state="settled") == 5


def test_a_histogram_counts_each_value_in_every_bucket_at_or_above_it() -> None:
    metrics = Metrics()
    for seconds in (0.005, 0.2, 2000):
        metrics.observe("step_seconds", seconds, step="run")
    found = samples(metrics)

    def bucket(bound: str) -> float:
        return found["step_seconds_bucket", (("le", bound), ("step", "run"))]

    assert [bucket("0.005"), bucket("0.1"), bucket("0.25"), bucket("900.0"), bucket("+Inf")] == [1, 1, 2, 2, 3]
    assert found["step_seconds_sum", (("step", "run"),)] == 2000.205
    assert metrics.get("step_seconds", step="run") == 3
    assert metrics.get("step_seconds", step=STEPS[0]) == 0
    with pytest.raises(Bug):
        metrics.observe("step_seconds", 1, step="another")


def test_every_name_that_is_shown_is_in_the_list_of_names() -> None:
    metrics = Metrics()
    for name, entry in METRICS.items():
        if entry.kind == "gauge":
            metrics.set(name, 1, **dict.fromkeys(entry.labels, "x"))
        elif entry.kind == "counter":
            metrics.count(name, 1, **dict.fromkeys(entry.labels, "x"))
    assert {PREFIX + name for name, _ in samples(metrics)} == full_names()
