"""A directory whose files are functions: a small FUSE server, so that code under test makes real system calls.

Stands in for pseudo-files and devices that answer differently each time they are asked. Source: include/uapi/linux/fuse.h
and fuse(4). It needs /dev/fuse and the right to mount, which a container's root has here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import pytest


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    MKDIR = 9
    RMDIR = 11
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    IOCTL = 39
    BATCH_FORGET = 42


_NO_REPLY: Final = {Op.FORGET, Op.BATCH_FORGET}
_DIRECT_IO: Final = 1
_MAX_WRITE: Final = 1 << 16
_DETACH: Final = 2


@dataclass(frozen=True)
class Memory:
    """Of the thread that called: what the pointers in an ioctl's argument lead to, as a driver follows them."""

    thread: int

    def read(self, address: int, size: int) -> bytes:
        with self._open() as memory:
            return os.pread(memory, size, address)

    def write(self, address: int, data: bytes) -> None:
        with self._open() as memory:
            os.pwrite(memory, data, address)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        memory = os.open(f"/proc/{self.thread}/mem", os.O_RDWR)
        try:
            yield memory
        finally:
            os.close(memory)


class Node:
    """What is at a path. A method that raises OSError gives its errno to the caller."""

    mode = 0

    def ioctl(self, command: int, argument: bytes, caller: Memory) -> bytes:
        raise OSError(errno.ENOTTY, "no such ioctl")


class File(Node):
    """`read` gives the content as of an open; `write` gets what was written, when the file is closed.

    With `forgets_offset`, each read starts at the beginning. A write takes no more than `takes` bytes at a time.
    """

    forgets_offset = False
    takes = 1 << 20

    def __init__(
        self,
        read: Callable[[], bytes] | None = None,
        write: Callable[[bytes], None] | None = None,
        *,
        most: int = 1 << 20,
    ) -> None:
        self.read, self.write, self.most = read, write, most
        self.mode = stat.S_IFREG | (0o400 if read else 0) | (0o200 if write else 0)


class Directory(Node):
    mode = stat.S_IFDIR | 0o700

    def __init__(self, entries: dict[str, Node] | None = None) -> None:
        self.entries: dict[str, Node] = dict(entries or {})

    def make(self, name: str) -> Node:
        raise OSError(errno.EPERM, "no directory may be made here")

    def removed(self, name: str) -> None:
        """After rmdir of the entry `name`, which need not be empty."""


def tree(paths: dict[str, Node]) -> Directory:
    """Nodes by their paths, with the directories above them."""
    root = Directory()
    for path, node in paths.items():
        *above, name = path.strip("/").split("/")
        place = root
        for part in above:
            below = place.entries.setdefault(part, Directory())
            assert isinstance(below, Directory)
            place = below
        place.entries[name] = node
    return root


@contextlib.contextmanager
def mounted(root: Directory, at: Path) -> Iterator[Path]:
    """`root` as the directory `at`, until the end. Skips the test where this process may not mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"needs /dev/fuse: {error}")
    try:
        options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other".encode()
        if libc.mount(b"stand-in", os.fsencode(at), b"fuse", 0, options):
            pytest.skip(f"needs the right to mount: {os.strerror(ctypes.get_errno())}")
        server = _Server(device, root)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield at
        finally:
            libc.umount2(os.fsencode(at), _DETACH)
            thread.join(10)
        # A defect of the stand-in must not pass for a refusal of what it stands for.
        assert not server.defects, server.defects
    finally:
        os.close(device)


class _Server:
    def __init__(self, device: int, root: Directory) -> None:
        self._device = device
        self._nodes: dict[int, Node] = {1: root}
        self._numbers: dict[int, int] = {id(root): 1}
        self._open: dict[int, tuple[File, bytes, bytearray]] = {}
        self._handle = 0
        self.defects: list[BaseException] = []

    def serve(self) -> None:
        while True:
            try:
                message = os.read(self._device, _MAX_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.EBADF):
                    return
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue
                raise
            operation, unique, number, pid = struct.unpack_from("<4xIQQ8xI", message)
            if operation in _NO_REPLY:
                continue
            try:
                answer, failure = self._answer(operation, number, pid, message[40:]), 0
            except OSError as error:
                answer, failure = b"", -(error.errno or errno.EIO)
            except Exception as error:
                self.defects.append(error)
                answer, failure = b"", -errno.EIO
            # The caller may have given up, or the directory be unmounted.
            with contextlib.suppress(OSError):
                os.write(self._device, struct.pack("<IiQ", 16 + len(answer), failure, unique) + answer)

    def _answer(self, operation: int, number: int, pid: int, body: bytes) -> bytes:
        node = self._nodes.get(number)
        match operation:
            case Op.INIT:
                flags = struct.pack("<IIIIHHIIHHI", 7, 31, 0, 0, 16, 12, _MAX_WRITE, 1, 0, 0, 0)
                return flags.ljust(64, b"\0")
            case Op.LOOKUP:
                return self._entry(self._below(node, body))
            case Op.GETATTR:
                assert node is not None
                return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
            case Op.MKDIR:
                assert isinstance(node, Directory)
                name = os.fsdecode(body[8:-1])
                if name in node.entries:
                    raise FileExistsError(errno.EEXIST, name)
                node.entries[name] = node.make(name)
                return self._entry(node.entries[name])
            case Op.RMDIR:
                assert isinstance(node, Directory)
                self._below(node, body)
                del node.entries[os.fsdecode(body[:-1])]
                node.removed(os.fsdecode(body[:-1]))
                return b""
            case Op.OPEN:
                return self._opened(node, struct.unpack_from("<I", body)[0])
            case Op.READ:
                handle, offset, size = struct.unpack_from("<QQI", body)
                file, content, _ = self._open[handle]
                start = 0 if file.forgets_offset else offset
                return content[start : start + size]
            case Op.WRITE:
                handle, _, size = struct.unpack_from("<QQI", body)
                file, _, written = self._open[handle]
                if len(written) + size > file.most:
                    raise OSError(errno.EFBIG, "too large")
                size = min(size, file.takes)
                written += body[40 : 40 + size]
                return struct.pack("<II", size, 0)
            case Op.FLUSH:  # the close waits for it
                file, _, written = self._open[struct.unpack_from("<Q", body)[0]]
                if written and file.write is not None:
                    file.write(bytes(written))
                    written.clear()
                return b""
            case Op.RELEASE:
                del self._open[struct.unpack_from("<Q", body)[0]]
                return b""
            case Op.IOCTL:
                assert node is not None
                command, size = struct.unpack_from("<12xI8xI", body)
                return struct.pack("<iIII", 0, 0, 0, 0) + node.ioctl(command, body[32 : 32 + size], Memory(pid))
            case Op.OPENDIR:
                return bytes(16)
            case Op.RELEASEDIR:
                return b""
            case _:
                raise OSError(errno.ENOSYS, "not served")

    def _opened(self, node: Node | None, flags: int) -> bytes:
        self._handle += 1
        if isinstance(node, File):
            content = b"" if flags & os.O_ACCMODE == os.O_WRONLY or node.read is None else node.read()
            self._open[self._handle] = (node, content, bytearray())
        else:
            raise OSError(errno.EISDIR, "a directory")
        return struct.pack("<QII", self._handle, _DIRECT_IO, 0)

    def _below(self, node: Node | None, name: bytes) -> Node:
        if not isinstance(node, Directory) or (found := node.entries.get(os.fsdecode(name[:-1]))) is None:
            raise FileNotFoundError(errno.ENOENT, "no such entry")
        return found

    def _entry(self, node: Node) -> bytes:
        number = self._number(node)
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + self._attributes(node)

    def _number(self, node: Node) -> int:
        number = self._numbers.setdefault(id(node), len(self._numbers) + 1)
        self._nodes[number] = node
        return number

    def _attributes(self, node: Node) -> bytes:
        owner = (os.getuid(), os.getgid())
        return struct.pack("<6Q10I", self._number(node), 0, 0, 0, 0, 0, 0, 0, 0, node.mode, 1, *owner, 0, 4096, 0)
