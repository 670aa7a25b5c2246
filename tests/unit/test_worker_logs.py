"""What may be in a line of the log."""

from __future__ import annotations

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
