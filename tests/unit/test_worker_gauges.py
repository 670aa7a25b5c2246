"""The gauges' text form: what Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

import re

import pytest

from oracle.errors import Bug
from oracle.worker.gauges import HELP, PREFIX, Gauges

LINE = re.compile(
    r"[a-z_]+(?:\{[a-z]+=\"(?:[^\"\\\n]|\\.)*\"(?:,[a-z]+=\"(?:[^\"\\\n]|\\.)*\")*\})? (?:-?[0-9.]+|[+-]Inf)"
)


def test_each_gauge_that_is_set_stands_there_once_with_its_help() -> None:
    gauges = Gauges()
    gauges.set("registered", 1)
    gauges.set("registered", 0)
    gauges.set_only("collateral_ends", {"TCB info": 1_790_000_000, 'a "quoted"\\name\n': 1.5}, "piece")
    lines = gauges.text().splitlines()
    assert f"{PREFIX}registered 0" in lines
    assert f'{PREFIX}collateral_ends{{piece="TCB info"}} 1790000000' in lines
    assert f'{PREFIX}collateral_ends{{piece="a \\"quoted\\"\\\\name\\n"}} 1.5' in lines
    assert [line for line in lines if line.startswith("# HELP")] == [
        f"# HELP {PREFIX}{name} {HELP[name]}" for name in ("registered", "collateral_ends")
    ]
    assert all(LINE.fullmatch(line) for line in lines if not line.startswith("#"))


def test_what_is_no_more_is_not_shown() -> None:
    gauges = Gauges()
    gauges.set("coming_evaluation", 18)
    gauges.set_only("coming_tcb_status", {"out_of_date": 1}, "status")
    gauges.set("coming_evaluation", None)
    gauges.set_only("coming_tcb_status", {"up_to_date": 1}, "status")
    assert "coming_evaluation" not in gauges.text()
    assert gauges.get("coming_tcb_status", status="out_of_date") is None
    assert gauges.get("coming_tcb_status", status="up_to_date") == 1


def test_a_gauge_that_is_not_listed_is_a_bug() -> None:
    with pytest.raises(Bug):
        Gauges().set("another", 1)
