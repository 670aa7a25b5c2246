"""Files that are there whole or not at all, also after a crash: written under a temporary name, synced, renamed, and the
directory synced (rename(2), fsync(2)).

A writer holds a lock (flock(2)) on its temporary file, which ends with the process. So what a killed one left behind can be told
from what another writes at this moment.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")


def write_whole(target: Path, content: bytes | Path) -> None:
    """Replace `target` by these bytes, or by those of another file. Raises OSError, and then `target` is as it was."""
    _write(target, content)
    sync_directory(target.parent)


def write_before(targets: Sequence[tuple[Path, bytes]], last: Path, content: bytes) -> None:
    """Replace files of one directory, and `last` only when the others survive a crash of the machine. Raises OSError."""
    for target, data in targets:
        _write(target, data)
    if targets:
        sync_directory(last.parent)
    write_whole(last, content)


def _write(target: Path, content: bytes | Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, output = _create(target)
    try:
        with output:
            if isinstance(content, bytes):
                output.write(content)
            else:
                with content.open("rb") as source:
                    while chunk := source.read(CHUNK):
                        output.write(chunk)
            output.flush()
            os.fsync(output.fileno())
            temporary.replace(target)
    except BaseException:
        # Nothing may hide what went wrong; a sweep takes what cannot be removed now.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_directory(directory: Path) -> None:
    """Make names in a directory survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_temporaries(directory: Path) -> int:
    """Remove what killed writers left in a directory, and nothing that a living one writes; returns how many files."""
    removed = 0
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                removed += _remove_abandoned(Path(entry.path))
    return removed


def _create(target: Path) -> tuple[Path, BinaryIO]:
    while True:
        temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}"
        output = temporary.open("xb")
        # Some network file systems have no locks: there nothing is swept either.
        with suppress(OSError):
            fcntl.flock(output, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, output
        # A sweep came between creating and locking.
        output.close()


def _remove_abandoned(path: Path) -> bool:
    try:
        # Opened for writing, which an exclusive lock takes on NFS.
        with path.open("r+b") as found:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True
