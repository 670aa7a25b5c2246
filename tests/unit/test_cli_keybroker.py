"""`oracle keybroker`: init and the log; serving is the broker's own integration tests'."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from oracle.keybroker import init, read_password
from oracle.keybroker.keys import load
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.log import Recovered
from tests.cli_kit import CHEAP, answer, oracle, refusal


@pytest.fixture
async def broker(tmp_path: Path) -> Path:
    """A broker's directory with a log of three entries."""
    directory = tmp_path / "broker"
    card = init(directory, "correct horse", cost=CHEAP)
    ledger = await Ledger.open(
        directory / "log.jsonl", load(directory, "correct horse").signing, card.digest, "1", time.time
    )
    for size in (1, 2):
        await ledger.append(Recovered(cut_bytes=size, cut_digest=bytes(32)))
    await ledger.close()
    return directory


def test_a_new_broker_has_a_card(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("correct horse\n")
    words = ("--url", "http://127.0.0.1:7460", "--password-file", tmp_path / "pw")
    made = answer("keybroker", "init", tmp_path / "b", *words)
    assert load(tmp_path / "b", "correct horse").card.signer == made["signer"]
    assert answer("keys", "show", made["card"])["digest"] == made["digest"]
    assert refusal("keybroker", "init", tmp_path / "b", *words)["code"] == "broker.exists"


def test_the_service_reads_a_password_file_as_init_did(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("correct horse\nmade by me on a Monday\n")
    answer("keybroker", "init", tmp_path / "b", "--password-file", tmp_path / "pw")
    assert load(tmp_path / "b", read_password(tmp_path / "pw")).card.url is None


def test_a_whole_log_verifies(broker: Path) -> None:
    found = answer("keybroker", "log", "verify", broker)
    assert (found["ok"], found["entries"]) == (True, 3)
    assert answer("keybroker", "log", "show", broker)["entries"][-1]["digest"] == found["head"]


def test_people_see_the_entries(broker: Path) -> None:
    ran = oracle("keybroker", "log", "show", broker)
    assert ran.code == 0
    assert ran.stdout.count("recovered") == 2


def test_a_changed_entry_fails_with_its_line(broker: Path) -> None:
    log = broker / "log.jsonl"
    log.write_text(log.read_text().replace('"cutBytes":1', '"cutBytes":9'))
    error = refusal("keybroker", "log", "verify", broker)
    assert error["code"].startswith("signature.")
    assert "line 2" in error["message"]


def test_a_shortened_log_fails_against_the_head_that_was_kept(broker: Path) -> None:
    head = answer("keybroker", "log", "verify", broker)["head"]
    log = broker / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert answer("keybroker", "log", "verify", broker)["ok"] is True
    assert refusal("keybroker", "log", "verify", broker, "--head", head)["code"] == "log.shortened"


def test_another_brokers_log_fails(broker: Path) -> None:
    error = refusal("keybroker", "log", "verify", broker / "log.jsonl", "--signer", "0x" + "12" * 20)
    assert error["code"] == "signature.signer"


def test_a_task_without_releases_has_no_entries(broker: Path) -> None:
    assert answer("keybroker", "log", "show", broker, "--task", "0x" + "00" * 32) == {"entries": []}


def test_serving_without_a_usable_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text("directory: broker\n")
    assert refusal("keybroker", "serve", "--config", tmp_path / "broker.yaml")["code"].endswith(".invalid")
