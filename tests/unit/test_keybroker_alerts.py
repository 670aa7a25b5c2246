"""The broker's alert rules, dashboard and page: each metric exists, each alert has its entry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from oracle.keybroker.metrics import BrokerMetrics

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"oracle_keybroker_\w+")


def rules() -> list[dict[str, Any]]:
    value = yaml.safe_load((ROOT / "deploy" / "prometheus" / "keybroker.rules.yml").read_text())
    return [rule for group in value["groups"] for rule in group["rules"]]


def names() -> set[str]:
    """Every sample's name that the broker may show."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {metric.name + end for metric in BrokerMetrics().registry.collect() for end in endings[metric.type]}


def expressions() -> dict[str, list[str]]:
    board = json.loads((ROOT / "deploy" / "grafana" / "keybroker.json").read_text())
    return {
        "rules": [rule["expr"] for rule in rules()],
        "dashboard": [target["expr"] for panel in board["panels"] for target in panel["targets"]],
    }


@pytest.mark.parametrize("where", ["rules", "dashboard"])
def test_what_is_asked_for_is_measured(where: str) -> None:
    asked = {name for expression in expressions()[where] for name in METRIC.findall(expression)}
    assert asked
    assert asked - names() == set()


def test_every_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    asked = " ".join(each for some in expressions().values() for each in some)
    unused = {m.name for m in BrokerMetrics().registry.collect() if m.name not in asked}
    assert unused <= {"oracle_keybroker_provider_head_block", "oracle_keybroker_log_entries"}


def test_every_alert_has_an_entry_in_the_page_and_no_other_has_one() -> None:
    page = (ROOT / "docs" / "operate-keybroker.md").read_text()
    alerts = [rule["alert"] for rule in rules()]
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == alerts
    assert [rule["annotations"]["runbook"] for rule in rules()] == [
        f"docs/operate-keybroker.md#{alert.lower()}" for alert in alerts
    ]
