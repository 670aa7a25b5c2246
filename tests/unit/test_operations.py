"""Alert rules, their tests, the dashboard and the page for operators say the same, and name only what exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from oracle.cli.app import app
from oracle.worker.dashboard import read_page, summarise
from oracle.worker.metrics import METRICS, Metrics, full_names
from oracle.worker.reload import RELOADABLE, yaml_name

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/worker.rules.yml"
CASES = ROOT / "deploy/prometheus/worker.test.yml"
BOARD = ROOT / "deploy/grafana/worker.json"
PAGE = ROOT / "docs/operate.md"
NAME = re.compile(r"\boracle_worker_[a-z0-9_]+")


def rules() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[str]:
    return [str(rule["alert"]) for rule in rules()]


def expressions() -> list[str]:
    board = json.loads(BOARD.read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def names(texts: list[str]) -> set[str]:
    return {name for text in texts for name in NAME.findall(text)}


def test_rules_and_dashboard_name_only_metrics_that_the_worker_has() -> None:
    assert names([str(rule["expr"]) for rule in rules()]) - full_names() == set()
    assert names(expressions()) - full_names() == set()


def test_every_metric_of_the_worker_is_in_the_dashboard() -> None:
    assert full_names() - names(expressions()) == set()


def test_labels_in_the_rules_are_those_of_their_metrics() -> None:
    for rule in rules():
        for name, label in re.findall(r"oracle_worker_([a-z0-9_]+)\{([a-z]+)=", str(rule["expr"])):
            entry = METRICS.get(name) or METRICS[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert label in (*entry.labels, "le"), rule["alert"]


def test_each_alert_has_a_severity_a_summary_and_an_entry_in_the_page() -> None:
    anchors = re.findall(r"^### (OracleWorker\w+)$", PAGE.read_text(), re.MULTILINE)
    assert anchors == alerts()
    for rule in rules():
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
        noted = rule["annotations"]
        assert isinstance(noted, dict)
        assert noted["summary"]
        assert noted["runbook_url"] == f"docs/operate.md#{str(rule['alert']).lower()}"


def test_each_entry_says_what_it_means_what_is_likely_and_what_to_do() -> None:
    for entry in PAGE.read_text().split("\n### ")[1:]:
        assert re.findall(r"^(Meaning|Likely|To do): \S", entry, re.MULTILINE) == ["Meaning", "Likely", "To do"], entry


def test_each_alert_has_a_case_that_is_silent_before_and_fires_after() -> None:
    cases = {case["name"]: case for case in yaml.safe_load(CASES.read_text())["tests"]}
    assert sorted(cases) == sorted(alerts())
    for name, case in cases.items():
        before, after = case["promql_expr_test"]
        assert name in before["expr"], name
        assert (before["exp_samples"], len(after["exp_samples"])) == ([], 1)


def test_promtool_finds_that_each_alert_fires_when_it_should() -> None:
    promtool = shutil.which("promtool", path=f"{ROOT / '.tools/bin'}:{os.environ.get('PATH', '')}")
    if promtool is None:
        assert os.environ.get("CI") != "true", "scripts/setup could not get promtool, and here it must"
        pytest.skip("promtool is missing: scripts/setup gets it where it may use apt")
    for command in (("check", "rules", *sorted(RULES.parent.glob("*.rules.yml"))), ("test", "rules", CASES)):
        ran = subprocess.run([promtool, *map(str, command)], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_that_top_shows_is_one_of_the_rules() -> None:
    metrics = Metrics()
    for name in ("following", "registered", "journal_writable", "collateral_available", "enclave_up"):
        metrics.set(name, 0)
    for name in ("loops_failing", "agreements_below_threshold", "outbox_stuck", "rpc_wrong_chain"):
        metrics.set(name, 1)
    for name in ("config_reload_failed", "tcb_coming_down", "registration_valid_until"):
        metrics.set(name, 1)
    metrics.set("tasks", 1, state="parked")
    metrics.set("broker_up", 0, broker="ab")
    metrics.count("bugs_total", where="task")
    shown = summarise(read_page(metrics.text().encode(), 1e9)).alerts
    assert len(shown) == 15
    assert set(shown) <= set(alerts())


def test_the_page_names_the_fields_that_a_reload_takes() -> None:
    text = " ".join(PAGE.read_text().split())
    said = re.search(r"These fields may change while it runs: (.*?)\. ", text)
    assert said is not None
    assert re.findall(r"`(\w+)`", said[1]) == [yaml_name(name) for name in RELOADABLE]


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("oracle ")]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_each_command_of_the_page_is_one(line: str) -> None:
    words = shlex.split(line)[1:]
    # Typer brings its own click, whose classes have no public name.
    command: Any = typer.main.get_command(app)
    context: Any = command.context_class(command, info_name="oracle")
    while hasattr(command, "get_command"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command, context = found, found.context_class(found, parent=context)
    if words != ["--help"]:
        command.make_context("oracle", words)
