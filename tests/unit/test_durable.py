"""Files that are there whole or not at all, and what killed writers leave."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from oracle import durable
from oracle.durable import sweep_temporaries, write_whole

WRITER = """
import sys, time
from pathlib import Path
from oracle import durable
real = durable.os.fsync
def held(descriptor):
    print("writing", flush=True)
    time.sleep(60)
durable.os.fsync = held
durable.write_whole(Path(sys.argv[1]), b"new" * 100_000)
"""
LIMITED = """
import resource, signal, sys
from pathlib import Path
from oracle.durable import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), b"new" * 1000)
except OSError as error:
    print(error.errno)
"""


@pytest.fixture
def writer(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that is about to sync what it wrote over `target`."""
    (tmp_path / "target").write_bytes(b"old")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "target")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def names(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "target", b"old")
    write_whole(tmp_path / "deep" / "target", b"new")
    assert (tmp_path / "deep" / "target").read_bytes() == b"new"
    assert names(tmp_path / "deep") == ["target"]


def test_what_a_killed_writer_left_is_swept_and_the_old_file_stands(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    end(writer)
    assert len(names(tmp_path)) == 2
    assert sweep_temporaries(tmp_path) == 1
    assert names(tmp_path) == ["target"]
    assert (tmp_path / "target").read_bytes() == b"old"


def test_a_living_writers_file_is_not_swept(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    try:
        assert sweep_temporaries(tmp_path) == 0
        assert len(names(tmp_path)) == 2
    finally:
        end(writer)


def test_a_write_that_meets_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    told = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "target")], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) > 0
    assert names(tmp_path) == ["target"]
    assert (tmp_path / "target").read_bytes() == b"old"


def test_a_writer_whose_new_file_was_swept_makes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock
    swept: list[Path] = []

    def sweeps_first(file: BinaryIO, operation: int) -> None:
        if not swept:
            for each in tmp_path.iterdir():
                each.unlink()
                swept.append(each)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", sweeps_first)
    write_whole(tmp_path / "target", b"new")
    assert len(swept) == 1
    assert (tmp_path / "target").read_bytes() == b"new"


def test_other_hidden_files_are_left_alone(tmp_path: Path) -> None:
    for name in (".keep", ".name.123", "name.0123456789abcdef"):
        (tmp_path / name).write_bytes(b"")
    assert sweep_temporaries(tmp_path) == 0
    assert sweep_temporaries(tmp_path / "missing") == 0


def test_the_last_file_is_there_only_when_the_others_have_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = durable.sync_directory, Path.replace

    def synced(directory: Path) -> None:
        done.append("directory")
        sync(directory)

    def replaced(self: Path, target: Path) -> Path:
        done.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(durable, "sync_directory", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    durable.write_before([(tmp_path / "a", b"1"), (tmp_path / "b", b"2")], tmp_path / "last", b"3")
    assert done == ["a", "b", "directory", "last", "directory"]
    assert [(tmp_path / name).read_bytes() for name in ("a", "b", "last")] == [b"1", b"2", b"3"]
    (tmp_path / "away").mkdir()
    with pytest.raises(IsADirectoryError):
        durable.write_before([(tmp_path / "away", b"4")], tmp_path / "last", b"5")
    assert (tmp_path / "last").read_bytes() == b"3"
    assert not list(tmp_path.glob(".*"))
