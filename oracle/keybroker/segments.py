"""The files of a long log: `log.jsonl`, which grows, and those that were closed before it, each with an index of its releases.

A closed file is `log-<number of its first entry>.jsonl`. Beside it lies `….index`: for each (task, platform) that it released to,
16 bytes of SHA-256 and a count of 4 bytes, in order. The next file's first entry holds the digests of both, so an index counts
as much as the entries it stands for, and the entries may be archived: caps are counted without them, and without memory.
"""

from __future__ import annotations

import mmap
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from enclave_app.protocol.digests import sha256

SEGMENT_BYTES = 64 << 20
"""A file is closed at about this size: what a broker reads at its start, in seconds."""
_KEY, _COUNT = 16, 4
_ROW = _KEY + _COUNT


def closed_name(path: Path, first: int) -> Path:
    return path.with_name(f"{path.stem}-{first:012d}{path.suffix}")


def index_name(path: Path, first: int) -> Path:
    return closed_name(path, first).with_suffix(".index")


def closed_files(path: Path) -> list[tuple[int, Path]]:
    """Those of the log whose last file is `path`, in their order, with the number of each one's first entry."""
    pattern = re.compile(re.escape(path.stem) + r"-(\d{12})" + re.escape(path.suffix))
    found = ((pattern.fullmatch(each.name), each) for each in path.parent.glob(f"{path.stem}-*{path.suffix}"))
    return sorted((int(match[1]), each) for match, each in found if match)


def files_of(path: Path) -> list[Path]:
    """All files of a log, the one that grows last."""
    return [*(each for _, each in closed_files(path)), path]


def place_of(task_id: bytes, platform: bytes) -> bytes:
    return sha256(task_id + platform)[:_KEY]


def make_index(counts: Mapping[bytes, int]) -> bytes:
    return b"".join(place + count.to_bytes(_COUNT, "big") for place, count in sorted(counts.items()))


class Index:
    """How often each place was released to, in one closed file."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data

    @classmethod
    def mapped(cls, path: Path) -> Index:
        """From its file, which stays on the disk."""
        with path.open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            return cls(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    @property
    def digest(self) -> bytes:
        return sha256(bytes(self._data))

    def count(self, place: bytes) -> int:
        low, high = 0, len(self._data) // _ROW
        while low < high:
            middle = (low + high) // 2
            if self._data[middle * _ROW : middle * _ROW + _KEY] < place:
                low = middle + 1
            else:
                high = middle
        row = self._data[low * _ROW : (low + 1) * _ROW]
        return int.from_bytes(row[_KEY:], "big") if row[:_KEY] == place else 0


class Counts:
    """Releases by place: those of the file that grows in memory, those of closed files in their indexes."""

    def __init__(self, indexes: list[Index]) -> None:
        self._indexes, self.growing = indexes, Counter[bytes]()

    def __getitem__(self, place: bytes) -> int:
        return self.growing[place] + sum(index.count(place) for index in self._indexes)

    def close_file(self) -> bytes:
        """The index of what grew, which counts from now on as closed."""
        data = make_index(self.growing)
        self._indexes.append(Index(data))
        self.growing = Counter()
        return data

    def on_disk(self, number: int, path: Path) -> None:
        """The index is written: its bytes in memory are let go."""
        self._indexes[number] = Index.mapped(path)
