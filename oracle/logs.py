"""Structured logs: one JSON object a line, on the standard library's logging.

Nothing of a value is written unless its caller made text or a number of it: bytes are shown by their length only, and of
an exception that is not ours only its type and where it was raised, because messages of strangers may quote what they were
given. So no secret and no plaintext byte reaches a log by accident.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

from enclave_app.protocol.errors import OracleError

ROOT = "oracle"
MAX_TEXT = 2000
BURST = 30
"""Warnings of one kind that are written within `PERIOD` seconds; the next one after it says how many were not."""
PERIOD = 60.0
KINDS = 1024
"""Kinds of warnings that are told apart."""

_around: ContextVar[tuple[tuple[str, object], ...]] = ContextVar("fields", default=())


@contextmanager
def fields(**more: object) -> Iterator[None]:
    """Every line that is written inside carries these, in this task of asyncio and those that it starts."""
    token = _around.set((*_around.get(), *more.items()))
    try:
        yield
    finally:
        _around.reset(token)


class JsonFormatter(logging.Formatter):
    """`time` in UTC (ISO 8601, milliseconds), `level`, `service`, `logger`, `event`, then the caller's fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": _shown(record.getMessage()),
        }
        for key, value in getattr(record, "fields", {}).items():
            line.setdefault(key, _shown(value))
        if unwritten := getattr(record, "unwritten", 0):
            line["unwritten"] = unwritten
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"))


class Log:
    """A logger whose lines carry fields: `log.info("task settled", task=task_id.hex())`."""

    def __init__(self, name: str, **fields: object) -> None:
        self._logger, self._fields = logging.getLogger(f"{ROOT}.{name}"), fields
        self._name = name

    def bind(self, **fields: object) -> Log:
        """The same logger with more fields on every line."""
        return Log(self._name, **{**self._fields, **fields})

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, error: BaseException | None = None, **fields: object) -> None:
        self._write(logging.ERROR, event, fields, error)

    def _write(self, level: int, event: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            # As an argument, so that a % in `event` is never taken for a format.
            shown = {**self._fields, **dict(_around.get()), **fields}
            self._logger.log(level, "%s", event, extra={"fields": shown}, exc_info=error)


class FewerWarnings(logging.Filter):
    """Holds back warnings that say the same of another moment or task: thousands of tasks that wait for one broker are one
    piece of news. Same logger, event and code are one kind. Errors and bugs always pass."""

    def __init__(self, burst: int = BURST, period: float = PERIOD) -> None:
        super().__init__()
        self._burst, self._period = burst, period
        self._seen: OrderedDict[tuple[str, str, object], tuple[float, int, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        kind = (record.name, record.getMessage(), str(getattr(record, "fields", {}).get("code")))
        began, written, held = self._seen.pop(kind, (record.created, 0, 0))
        if not 0 <= record.created - began < self._period:
            record.unwritten = held
            began, written, held = record.created, 0, 0
        passes = written < self._burst
        self._seen[kind] = (began, written + 1, 0) if passes else (began, written, held + 1)
        if len(self._seen) > KINDS:
            self._seen.popitem(last=False)
        return passes


def configure(
    service: str, level: str = "INFO", stream: TextIO | None = None, part: str | None = None
) -> logging.Handler:
    """Write the lines of this package, or of one `part` of it, to `stream` (standard error unless given); returns the
    handler, for removal.

    Only this package's loggers: libraries' debug lines quote the requests they send.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    handler.addFilter(FewerWarnings())
    logger = logging.getLogger(ROOT if part is None else f"{ROOT}.{part}")
    logger.setLevel(level.upper())
    logger.propagate = False
    logger.addHandler(handler)
    return handler


def set_level(level: str) -> None:
    """Of all that `configure` set up for the whole package."""
    logging.getLogger(ROOT).setLevel(level.upper())


def describe(error: BaseException) -> dict[str, object]:
    """What may be logged about an error: ours with their message, others by type and place only."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    described: dict[str, object] = {
        "type": type(error).__name__,
        "at": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, OracleError):
        described |= {"code": error.code, "message": _shown(error.message)}
    return described


def _shown(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _shown(item) for key, item in value.items()}
    return f"<{type(value).__name__}>"
