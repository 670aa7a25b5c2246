"""Files and devices that may block, or answer without end: one call at a time, each bounded in time and in bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from enclave_app.attesters.base import EvidenceError, PlatformError, PlatformTimeout

SECONDS: Final = 60.0
"""For one piece of evidence: a quoting enclave takes milliseconds, an SNP host may make its guests wait for seconds."""

FILE_SYSTEM: Final = Path("/")

T = TypeVar("T")


class Device:
    """Runs blocking calls in a thread. One that overstays cannot be stopped: nothing else is asked until it has ended."""

    def __init__(self, name: str, seconds: float = SECONDS) -> None:
        self._name, self._seconds = name, seconds
        self._lock = asyncio.Lock()
        self._ended = threading.Event()
        self._ended.set()

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; an OSError becomes PlatformError. Raises PlatformTimeout."""
        async with self._lock:
            if not self._ended.is_set():
                raise PlatformTimeout(f"{self._name} still has not answered an earlier request; restart the enclave")
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[T] = loop.create_future()

            def settle(result: T | None, error: BaseException | None) -> None:
                if answer.done():
                    return
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(result)  # type: ignore[arg-type] # of `work`, which raised nothing

            def run() -> None:
                result: T | None = None
                error: BaseException | None = None
                try:
                    result = work()
                except OSError as raised:
                    error = PlatformError(f"{self._name} refuses: {raised}")
                except BaseException as raised:
                    error = raised
                self._ended.set()
                # Nobody waits any more where the loop is closed.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(settle, result, error)

            # A daemon: what hangs in a driver must not keep the process from ending.
            self._ended.clear()
            threading.Thread(target=run, name=f"attester {self._name}", daemon=True).start()
            try:
                async with asyncio.timeout(self._seconds):
                    return await answer
            except TimeoutError:
                raise PlatformTimeout(f"{self._name} gave no evidence within {self._seconds:g} s") from None


class Hardware:
    """What the attesters of hardware share. `root` stands for the file system: another than "/" holds a stand-in."""

    def __init__(self, kind: str, tee: int, path: Path, root: Path, seconds: float) -> None:
        self.kind, self.tee, self.simulated = kind, tee, root != FILE_SYSTEM
        self.path = under(root, path)
        self._device = Device(str(self.path), seconds)

    async def endorsements(self) -> tuple[bytes, ...]:
        return ()


def under(root: Path, path: Path) -> Path:
    """The absolute `path` with `root` in the file system's place."""
    return root / path.relative_to(FILE_SYSTEM)


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor, closed at the end; a close that fails raises, since some files take effect only then."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)


def read_file(path: Path, limit: int) -> bytes:
    """All of a pseudo-file. Raises OSError, and EvidenceError where it holds more than `limit` bytes."""
    found = bytearray()
    with opened(path, os.O_RDONLY) as descriptor:
        while part := os.read(descriptor, limit + 1 - len(found)):
            found += part
            if len(found) > limit:
                raise EvidenceError(f"{path} holds more than {limit} bytes")
    return bytes(found)


def write_file(path: Path, data: bytes) -> None:
    """All of `data` in one write: pseudo-files take nothing in parts. Raises OSError, and EvidenceError."""
    with opened(path, os.O_WRONLY) as descriptor:
        written = os.write(descriptor, data)
    if written != len(data):
        raise EvidenceError(f"{path} took {written} bytes, expected {len(data)}")
