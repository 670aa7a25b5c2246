"""Errors about a file name the file: a parser knows bytes only, and a command often reads several files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enclave_app.protocol.errors import Refused


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put `path` in front of what is refused inside, unless the message names it already; the code stays."""
    try:
        yield
    except Refused as error:
        if str(path) in error.message:
            raise
        raise Refused(error.code, f"{path}: {error.message}") from None
