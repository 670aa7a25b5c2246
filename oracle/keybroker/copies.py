"""Files of a log on the disk: made durable, put right after a crash in the middle of closing one, and copied elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from oracle.errors import Refused
from oracle.keybroker.segments import closed_files, closed_name, index_name

CHUNK = 1 << 20


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """A file with these bytes on the disk; whatever a crash left there is replaced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def undo_half_rotation(path: Path) -> None:
    """A crash after a file was closed and before the next one's first entry was on the disk: it grows on."""
    closed = closed_files(path)
    if not closed or _has_a_line(path):
        return
    path.unlink(missing_ok=True)
    closed[-1][1].rename(path)
    sync_directory(path.parent)


def catch_up(path: Path, copy: Path) -> None:
    """Bring the copy of a log up to it. Raises Refused `log.shortened` where the copy has more: then the log lost its end
    (R13), and `log.copy` where the copy is of something else."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    undo_half_rotation(copy)
    closed, copied = dict(closed_files(path)), dict(closed_files(copy))
    for first, file in closed.items():
        target = closed_name(copy, first)
        if first in copied:
            if not _is_beginning(file, target) or file.stat().st_size != target.stat().st_size:
                raise _differs(target)
        elif not any(each > first for each in copied):
            # The copy still grew the file that the log has closed, or has nothing of it.
            if not _is_beginning(copy, file):
                raise _differs(copy)
            copy.unlink(missing_ok=True)
            copy_file(file, target)
        index = index_name(path, first)
        if index.exists():
            copy_file(index, index_name(copy, first))
    if max(copied, default=-1) > max(closed, default=-1):
        raise _longer(path, copy)
    if not path.exists():
        path.touch(0o600)
    if _is_beginning(copy, path):
        copy_file(path, copy)
    elif _is_beginning(path, copy):
        raise _longer(path, copy)
    else:
        raise _differs(copy)
    sync_directory(copy.parent)


def _has_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline(1 << 22).endswith(b"\n")
    except FileNotFoundError:
        return False


def _is_beginning(part: Path, whole: Path) -> bool:
    """Whether `whole` begins with `part`, or `part` is not there."""
    try:
        with part.open("rb") as one, whole.open("rb") as other:
            while chunk := one.read(CHUNK):
                if other.read(len(chunk)) != chunk:
                    return False
    except FileNotFoundError:
        return not part.exists()
    return True


def copy_file(source: Path, target: Path) -> None:
    """A durable copy: beside, then in its place, so that a crash leaves the one or the other."""
    beside = target.with_name(target.name + ".part")
    shutil.copyfile(source, beside)
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    beside.chmod(0o600)
    beside.replace(target)


def _longer(path: Path, copy: Path) -> Refused:
    return Refused(
        "log.shortened",
        f"the copy {copy} has more entries than the log {path}, whose end is gone",
        hint="Restore the log from the copy: oracle keybroker restore --log",
    )


def _differs(copy: Path) -> Refused:
    return Refused(
        "log.copy", f"{copy} is a copy of another log", hint="Give the copies of this log a folder of its own"
    )
