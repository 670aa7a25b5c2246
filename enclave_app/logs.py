"""Structured logs: one JSON object a line on standard error. They leave the enclave, so they hold digests, codes and
counts, and never a key, a share, a parameter or a value."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any, TextIO


class Log:
    """Writes `{"event": …, …fields}`; bytes are written as hex."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr

    def __call__(self, event: str, **fields: Any) -> None:
        record = {"event": event, **{k: "0x" + v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}}
        self._stream.write(json.dumps(record, default=str) + "\n")
        self._stream.flush()

    def unexpected(self, event: str, error: BaseException, **fields: Any) -> None:
        """A defect of ours: where it happened and its kind, without its text, which may quote a value."""
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{frame.name}:{frame.lineno}" for frame in frames][-8:]
        self(event, error=type(error).__name__, where=where, **fields)
