"""What `oracle task` says and does once a task is settled, where no broker has to be asked: public outputs, and callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from enclave_app.protocol.abi_output import encode_row
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.structs import Agreement, TaskRequest
from oracle.keys import create_wallet
from tests.anvil_kit import anvil
from tests.cli_kit import CHEAP, answer, oracle, refusal
from tests.market_kit import RICH, Market, compiled

T = TypeVar("T")
COLUMNS = ("int64", "string")
CONTENT = encode_row(COLUMNS, [-712, "malignant"])
TYPED = tuple(word for each in COLUMNS for word in ("--column", each))


@dataclass(frozen=True)
class Square:
    """A market, and a stranger to it who has a wallet. Commands bring their own loop, so the market's runs between them."""

    market: Market
    runner: asyncio.Runner
    base: Path

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(main)

    def task(self, command: str, task_id: str, *words: object) -> tuple[object, ...]:
        return ("task", command, task_id, *words, "--config", self.base / "oracle.yaml")

    def public(self) -> Agreement:
        return self.run(self.market.active(outputs=(self.market.output(public=True),)))

    def id(self, agreement: Agreement, request: TaskRequest) -> str:
        return "0x" + self.market.task_id(agreement, request).hex()


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Square]:
    base = tmp_path_factory.mktemp("square")
    with anvil() as url, asyncio.Runner() as runner:
        opened = Market.open(url, seed=8)
        market = runner.run(opened.__aenter__())
        try:
            (base / "pw").write_text("correct horse\n")
            stranger = create_wallet(base / "stranger.wallet", lambda: "correct horse", n=CHEAP)
            runner.run(market.rpc.call("hardhat_setBalance", stranger, hex(RICH)))
            (base / "deployment.json").write_bytes(market.deployment.canonical())
            config = {
                "rpc": url,
                "deployment": "deployment.json",
                "storage": [(base / "storage").as_uri()],
                "brokers": {},
                "keystore": "stranger.wallet",
                "passwordFile": "pw",
            }
            (base / "oracle.yaml").write_text(yaml.safe_dump(config))
            yield Square(market, runner, base)
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def published(square: Square) -> str:
    """A task whose public output is CONTENT."""
    agreement = square.public()
    request = square.run(square.market.request(agreement))
    square.run(square.market.fulfil(agreement, request, public=[CONTENT]))
    return square.id(agreement, request)


def test_a_public_output_is_read_from_the_chain_by_anyone(square: Square, published: str) -> None:
    """With no result key, no broker and an empty storage."""
    said = {"task_id": published, "public": True, "digest": "0x" + sha256(CONTENT).hex(), "data": "0x" + CONTENT.hex()}
    assert answer(*square.task("result", published)) == said
    typed = {**said, "values": ["-712", "malignant"]}
    assert answer(*square.task("result", published, *TYPED)) == typed
    assert answer(*square.task("result", published, *TYPED, "--output", "answer")) == typed
    shown = oracle(*square.task("result", published, *TYPED))
    assert (shown.code, "malignant" in shown.stdout) == (0, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--column", "int64"), "abi.decode"),
        (("--column", "uint64", "--column", "string"), "abi.value"),
        (("--column", "double", "--column", "string"), "abi.type"),
        (("--out", "row.csv"), "task.public_output"),
    ],
)
def test_a_public_output_is_shown_as_what_it_is_only(
    square: Square, published: str, tmp_path: Path, words: tuple[str, ...], code: str
) -> None:
    given = tuple(tmp_path / word if word.endswith(".csv") else word for word in words)
    assert refusal(*square.task("result", published, *given))["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_failed_has_no_public_output(square: Square) -> None:
    agreement = square.public()
    request = square.run(square.market.request(agreement))
    task_id = square.id(agreement, request)
    waiting = refusal(*square.task("result", task_id, "--patience", "0.1"))
    assert (waiting["code"], waiting["retry"]) == ("task.pending", True)
    square.run(square.market.fulfil(agreement, request, failed=True))
    assert refusal(*square.task("result", task_id))["code"] == "task.failed"


@pytest.mark.parametrize("public", [True, False], ids=["public", "sealed"])
def test_a_callback_that_failed_is_made_again_by_a_stranger_once(square: Square, public: bool) -> None:
    market = square.market
    agreement = square.public() if public else square.run(market.active())
    request = square.run(market.request(agreement, "caller"))
    task_id = square.id(agreement, request)
    assert refusal(*square.task("retry-callback", task_id))["code"] == "task.pending"
    square.run(market.send("relayer", market.caller, compiled("Caller").call("fail", True)))
    square.run(market.fulfil(agreement, request, public=[CONTENT] if public else []))
    again = refusal(*square.task("retry-callback", task_id))
    assert again["code"] == "contract.ComputeOracle_CallbackFailedAgain"
    square.run(market.send("relayer", market.caller, compiled("Caller").call("fail", False)))
    assert square.run(market.task(agreement, request))["callback"] is True
    made = answer(*square.task("retry-callback", task_id))
    assert (made["task_id"], made["state"]) == (task_id, "fulfilled")
    assert square.run(market.task(agreement, request))["callback"] is False
    answered, heard = square.run(market.views("Caller", market.caller, ("answered",), ("answer",)))
    assert "0x" + answered.hex() == task_id
    assert not public or heard == CONTENT
    assert refusal(*square.task("retry-callback", task_id))["code"] == "contract.ComputeOracle_NoFailedCallback"
