"""Files that others may have written: never read beyond what their kind can need."""

from __future__ import annotations

from pathlib import Path

from oracle.errors import Refused


def read_file(path: Path, most: int) -> bytes:
    """A file of at most `most` bytes. Raises Refused `file.read`, `file.size`; neither quotes what it holds."""
    try:
        with path.open("rb") as source:
            data = source.read(most + 1)
    except (OSError, ValueError) as error:
        # ValueError: a name with a NUL in it.
        found = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise Refused("file.read", f"cannot read {path}", found=found) from error
    if len(data) > most:
        raise Refused("file.size", f"{path} is too large", expected=f"at most {most} bytes")
    return data


def within(path: Path, name: str) -> Path:
    """The file `name` where `path` is a directory; else `path` itself, also where no file could have such a name."""
    try:
        return path / name if path.is_dir() else path
    except (OSError, ValueError):
        return path
