"""What may be in a line of the log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from oracle import logs
from oracle.errors import Refused

SECRET = b"\x07secret, 32 bytes of a data key.\x07"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    text = io.StringIO()
    handler = logs.configure("a service", "INFO", text)
    yield text
    logging.getLogger(logs.ROOT).removeHandler(handler)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_bound_and_given_fields(stream: io.StringIO) -> None:
    logs.Log("worker").bind(task="ab").info("100% done\nreally", gas=5, parts=("a", 1))
    (line,) = lines(stream)
    assert line["event"] == "100% done\nreally"
    assert (line["task"], line["gas"], line["parts"]) == ("ab", 5, ["a", 1])
    assert (line["level"], line["service"], line["logger"]) == ("info", "a service", "oracle.worker")


def test_levels_below_the_configured_one_are_not_written(stream: io.StringIO) -> None:
    logs.Log("worker").debug("quiet")
    assert lines(stream) == []


def test_a_field_cannot_replace_what_every_line_has(stream: io.StringIO) -> None:
    logs.Log("worker").info("event", level="forged", time="forged")
    (line,) = lines(stream)
    assert line["level"] == "info"
    assert line["time"] != "forged"


@pytest.mark.parametrize("value", [SECRET, bytearray(SECRET), [SECRET], {"key": SECRET}, Refused("a", SECRET.decode())])
def test_values_that_may_hold_secrets_are_never_written(stream: io.StringIO, value: object) -> None:
    logs.Log("worker").info("event", value=value)
    text = stream.getvalue()
    assert SECRET.hex() not in text
    assert "secret" not in text


def test_of_a_strangers_error_only_type_and_place_are_written(stream: io.StringIO) -> None:
    try:
        raise ValueError(SECRET.decode())
    except ValueError as error:
        logs.Log("worker").error("failed", error)
    (line,) = lines(stream)
    assert "secret" not in stream.getvalue()
    described = line["error"]
    assert isinstance(described, dict)
    assert described["type"] == "ValueError"
    assert "test_worker_logs.py" in described["at"][0]


def test_our_own_errors_are_written_with_code_and_message(stream: io.StringIO) -> None:
    logs.Log("worker").error("failed", Refused("some.code", "said"))
    (line,) = lines(stream)
    assert isinstance(line["error"], dict)
    assert (line["error"]["code"], line["error"]["message"]) == ("some.code", "said")


def test_lines_inside_carry_the_fields_around_them_and_those_outside_do_not(stream: io.StringIO) -> None:
    with logs.fields(trace="ab", step="run"):
        logs.Log("worker").info("inside", step="mine")
    logs.Log("worker").info("outside")
    inside, outside = lines(stream)
    assert (inside["trace"], inside["step"]) == ("ab", "mine")
    assert "trace" not in outside


async def test_tasks_side_by_side_do_not_get_each_others_fields(stream: io.StringIO) -> None:
    async def work(name: str) -> None:
        with logs.fields(task=name):
            await asyncio.sleep(0)
            logs.Log("worker").info(name)

    await asyncio.gather(work("a"), work("b"))
    assert [line["task"] for line in lines(stream)] == [line["event"] for line in lines(stream)]


def warn(filtering: logs.FewerWarnings, created: float, level: int = logging.WARNING, **fields: object) -> int | None:
    """None for a line that is held back, else how many were before it."""
    record = logging.LogRecord("oracle.worker", level, "", 0, "waits", None, None)
    record.created, record.fields = created, fields
    return getattr(record, "unwritten", 0) if filtering.filter(record) else None


def test_warnings_of_one_kind_are_written_a_few_times_and_then_counted() -> None:
    filtering = logs.FewerWarnings(burst=2, period=60)
    said = [warn(filtering, at, code="a", task=at) for at in range(5)]
    assert said == [0, 0, None, None, None]
    assert warn(filtering, 5, code="b") == 0
    assert warn(filtering, 5, logging.ERROR, code="a") == 0
    assert warn(filtering, 61, code="a") == 3
    assert warn(filtering, 62, code="a") == 0


def test_a_clock_that_is_set_back_holds_no_warning_back_for_ever() -> None:
    filtering = logs.FewerWarnings(burst=1, period=60)
    assert warn(filtering, 1e9, code="a") == 0
    assert warn(filtering, 5, code="a") == 0


def test_kinds_of_warnings_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "KINDS", 2)
    filtering = logs.FewerWarnings(burst=1, period=60)
    assert [warn(filtering, 0, code=code) for code in "abca"] == [0, 0, 0, 0]
    assert warn(filtering, 0, code="a") is None
