"""Blobs from untrusted storage: tried at each base URI, bounded in size, and taken only if the digest is right."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import aiohttp

from enclave_app.logs import Log
from enclave_app.protocol.errors import Refused, Retryable
from enclave_app.protocol.storage import blob_name
from enclave_app.sandbox.memory import MemoryFile

CHUNK: Final = 1 << 20
CACHE_BYTES: Final = 64 << 20

T = TypeVar("T")


async def together(reads: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them at once, in order; the first failure cancels the rest and is raised as it is."""
    running = [asyncio.ensure_future(read) for read in reads]
    try:
        return await asyncio.gather(*running)
    except BaseException:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise


class MissingBlob(Retryable):
    """No base gave the blob. The host owns the storage, so this never ends a task (R19)."""


class _WrongBlobError(Exception):
    """A base gave other bytes than the digest's."""


class Storage:
    """Reads blobs. Documents are kept in memory by digest, which is safe: the digest is what was checked."""

    def __init__(self, session: aiohttp.ClientSession, schemes: Sequence[str], log: Log) -> None:
        self._session, self._schemes, self._log = session, frozenset(schemes), log
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached = 0

    def check_bases(self, bases: Sequence[str]) -> None:
        """Refuse a base URI of a scheme that the configuration does not allow."""
        for base in bases:
            try:
                parts = urlsplit(base)
            except ValueError:
                raise Refused("storage.uri", "not a storage URI") from None
            if parts.scheme not in self._schemes or (parts.scheme == "file" and parts.netloc not in ("", "localhost")):
                raise Refused(
                    "storage.scheme",
                    "a storage URI has a scheme that this enclave does not read",
                    found=parts.scheme[:20],
                    expected=", ".join(sorted(self._schemes)),
                )

    async def document(self, bases: Sequence[str], digest: bytes, limit: int) -> bytes:
        """A whole blob of at most `limit` bytes. Raises MissingBlob."""
        cached = self._cache.get(digest)
        if cached is not None:
            self._cache.move_to_end(digest)
            return cached

        async def read(base: str) -> bytes:
            data = bytearray()
            async with aclosing(self._chunks(base, digest)) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > limit:
                        raise _WrongBlobError
            if hashlib.sha256(data).digest() != digest:
                raise _WrongBlobError
            return bytes(data)

        data = await self._first(bases, digest, read)
        self._remember(digest, data)
        return data

    async def file(self, bases: Sequence[str], digest: bytes, size: int, target: MemoryFile, offset: int) -> None:
        """A blob of exactly `size` bytes and an agreed digest (R7), written to memory at `offset`. Raises MissingBlob."""

        async def read(base: str) -> None:
            hasher, position = hashlib.sha256(), 0
            async with aclosing(self._chunks(base, digest)) as chunks:
                async for chunk in chunks:
                    if position + len(chunk) > size:
                        raise _WrongBlobError
                    hasher.update(chunk)
                    target.write_at(chunk, offset + position)
                    position += len(chunk)
            if position != size or hasher.digest() != digest:
                raise _WrongBlobError

        await self._first(bases, digest, read)

    async def _first(self, bases: Sequence[str], digest: bytes, read: Callable[[str], Awaitable[T]]) -> T:
        wrong = 0
        for number, base in enumerate(bases):
            try:
                return await read(base)
            except _WrongBlobError:
                wrong += 1
                self._log("blob.digest", blob=digest, base=number)
            except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                self._log("blob.missing", blob=digest, base=number, error=type(error).__name__)
        raise MissingBlob(
            "blob.digest" if wrong else "blob.missing",
            f"no storage has blob {blob_name(digest)}" + (f", and {wrong} gave other bytes" if wrong else ""),
            hint="Put the blob back and run again",
        )

    async def _chunks(self, base: str, digest: bytes) -> AsyncGenerator[bytes, None]:
        uri = f"{base.rstrip('/')}/{blob_name(digest)}"
        if urlsplit(uri).scheme == "file":
            descriptor = await asyncio.to_thread(_open_regular, unquote(urlsplit(uri).path))
            try:
                while chunk := await asyncio.to_thread(os.read, descriptor, CHUNK):
                    yield chunk
            finally:
                os.close(descriptor)
        else:
            # No redirects: where a blob lies is the request's to say.
            async with self._session.get(uri, allow_redirects=False) as response:
                if response.status != 200:
                    raise aiohttp.ClientError
                async for chunk in response.content.iter_chunked(CHUNK):
                    yield chunk

    def _remember(self, digest: bytes, data: bytes) -> None:
        self._cache[digest] = data
        self._cached += len(data)
        while self._cached > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= len(dropped)


def _open_regular(path: str) -> int:
    """A pipe or a device would block a reader for ever, so only regular files are opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor
