"""Files that exist in memory only (memfd_create(2)): how ciphertext and tables pass between processes."""

from __future__ import annotations

import fcntl
import mmap
import os
from types import TracebackType
from typing import Final, Self

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class MemoryFile:
    """An anonymous file in memory; `fd` is its descriptor. Close it, or use it as a context manager."""

    def __init__(self, name: str, size: int = 0) -> None:
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        if size:
            os.ftruncate(self.fd, size)

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            view, offset = view[written:], offset + written

    def seal(self) -> None:
        """From here on no process can change it, whoever holds a descriptor."""
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def again(self) -> MemoryFile:
        """The same file by another descriptor, which outlives this one."""
        other = MemoryFile.__new__(MemoryFile)
        other.fd = fcntl.fcntl(self.fd, fcntl.F_DUPFD_CLOEXEC, 0)
        return other

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def map_read_only(descriptor: int) -> memoryview:
    """A descriptor's whole content, mapped, never copied; empty for an empty file."""
    size = os.fstat(descriptor).st_size
    # Private, because kernels before 6.7 refuse a shared mapping of a sealed file, be it for reading only.
    return memoryview(mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ)) if size else memoryview(b"")
