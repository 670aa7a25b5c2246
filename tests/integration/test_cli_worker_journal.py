"""`oracle worker tasks|show|retry|abandon|export`, beside a journal that its worker has open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from oracle.worker.journal import Journal
from oracle.worker.states import State
from tests.cli_kit import answer, oracle, refusal
from tests.journal_kit import block, ended, requested, state, task, word
from tests.postgres_kit import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, config: Path) -> Iterator[Journal]:
    """The running worker's, with three tasks."""
    settings = json.loads(config.read_text("utf-8"))
    if request.param == "sqlite":
        opened = Journal(config.parent / "worker.sqlite")
    else:
        found: PostgresServer = request.getfixturevalue("server")
        place = found.place()
        settings["journal"] = {"url": place.url.get_secret_value(), "name": place.name}
        config.write_text(json.dumps(settings), "utf-8")
        opened = Journal(place)
    opened.take_in([requested(n, 5) for n in (1, 2, 3)], block(5))
    opened.take_in([ended(3, 6)], block(6))
    opened.give_up(task(opened, 2), State.PARKED, "bug", "what \x1b[31m happened")
    yield opened
    opened.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "worker.yaml"
    settings = {
        "spool": "spool",
        "rpc": ["http://127.0.0.1:1"], "deployment": "d.json", "journal": "worker.sqlite", "enclave": {"socket": "e.sock"},
        "storage": {"read": ["file:///b"], "write": "file:///b"}, "brokers": {"0x" + "11" * 32: "http://127.0.0.1:2"},
        "wallet": {"keyFile": "k"}, "payee": "0x" + "22" * 20,
    }  # fmt: skip
    path.write_text(json.dumps(settings), "utf-8")
    return path


@pytest.mark.usefixtures("journal")
def test_tasks_lists_by_state_for_people_and_programs(config: Path) -> None:
    value = answer("worker", "tasks", "--config", config)
    assert value["counts"] == {"cancelled": 1, "parked": 1, "seen": 1}
    assert [row["state"] for row in value["tasks"]] == ["cancelled", "parked", "seen"]
    (only,) = answer("worker", "tasks", "--config", config, "--state", "parked")["tasks"]
    assert (only["id"], only["code"]) == ("0x" + word(2).hex(), "bug")
    shown = oracle("worker", "tasks", "--config", config)
    assert shown.code == 0
    assert "1 parked" in shown.stdout
    assert refusal("worker", "tasks", "--config", config, "--state", "none")["code"] == "task.state"


@pytest.mark.usefixtures("journal")
def test_show_says_all_and_nothing_moves_the_cursor(config: Path) -> None:
    value = answer("worker", "show", "0x" + word(2).hex(), "--config", config)
    assert (value["state"], value["code"], value["block"], value["receipt_owed"]) == ("parked", "bug", 5, False)
    assert "\x1b" not in oracle("worker", "show", word(2).hex(), "--config", config).stdout
    assert refusal("worker", "show", "00", "--config", config)["code"] == "task.ambiguous"
    assert refusal("worker", "show", "ff", "--config", config)["code"] == "task.unknown"


def test_retry_and_abandon_reach_the_worker_that_has_the_journal(config: Path, journal: Journal) -> None:
    assert answer("worker", "abandon", word(1).hex(), "--reason", "dear", "--config", config)["was"] == "seen"
    assert (state(journal, 1), task(journal, 1).reason) == (State.ABANDONED, "dear")
    assert answer("worker", "retry", "--all-parked", "--config", config) == {"retried": 1}
    assert answer("worker", "retry", word(1).hex(), "--config", config)["state"] == "seen"
    assert sorted(journal.due(0.0, 9)) == [word(1), word(2)]
    assert refusal("worker", "retry", word(3).hex(), "--config", config)["code"] == "task.over"
    assert oracle("worker", "retry", "--config", config).code == 2


@pytest.mark.usefixtures("journal")
def test_export_writes_one_object_a_line(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy.jsonl"
    told = answer("worker", "export", "--out", out, "--config", config)
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert told["lines"] == len(rows)
    assert {row["id"] for row in rows if row["table"] == "tasks"} == {"0x" + word(n).hex() for n in (1, 2, 3)}
    printed = oracle("worker", "export", "--config", config)
    assert printed.stdout.count("\n") == len(rows)


def test_a_journal_that_is_not_there_is_said_so(config: Path) -> None:
    assert refusal("worker", "tasks", "--config", config)["code"] == "journal.missing"
