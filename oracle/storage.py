"""Untrusted storage for blobs and task records, over a base URI: `file:///dir`, `http(s)://host/path` or
`s3://bucket/prefix` (objects.py).

A blob lies at base URI + "/" + hex(SHA-256), so whoever serves it can withhold it but not change it. A task record lies
under a name; its reader checks every part of it.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import file_digest
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self
from urllib.parse import unquote, urlsplit

import aiohttp

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.errors import Permanent, Refused, Retryable
from enclave_app.protocol.storage import blob_name
from oracle.durable import CHUNK, sweep_temporaries, write_before, write_whole
from oracle.logs import Log

P = ParamSpec("P")

MAX_BLOB = 1 << 30
MIN_RATE = 64 << 10
"""Bytes a second that a server has to give on average: one that sends a byte a minute is as good as down."""
OBJECT_SCHEMES = frozenset({"s3"})
"""What is reached through fsspec: schemes that were tried, and no others that fsspec happens to know."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")


class Storage(ABC):
    """One base URI. Use it as an async context manager: `async with open_storage(uri) as storage`."""

    uri: str
    is_local = False
    """Whether a write goes to a disk of this machine."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def sweep(self) -> None:
        """Remove what writers that were killed left half written, where they leave anything."""
        return None

    async def put(self, data: bytes | bytearray) -> bytes:
        """Store a blob; returns its SHA-256, which is its name."""
        digest = sha256(data)
        await self._write(blob_name(digest), bytes(data))
        return digest

    async def put_named(self, name: str, data: bytes) -> None:
        """Store a record under a name of lower-case letters, digits and dashes, replacing an older one."""
        await self._write(_checked_name(name), data)

    async def put_together(self, blobs: Sequence[bytes], name: str, record: bytes) -> None:
        """Small blobs, and behind them the record that speaks of them, under its name."""
        await self._write_before([(blob_name(sha256(blob)), blob) for blob in blobs], _checked_name(name), record)

    async def get(self, digest: bytes, limit: int = MAX_BLOB) -> bytes:
        """The blob of that digest, of at most `limit` bytes.

        Raises Retryable `blob.missing`, Refused `blob.digest` where the storage answers with other bytes, `blob.size`.
        """
        data = await self._read(blob_name(digest), limit)
        if sha256(data) != digest:
            raise Refused(
                "blob.digest", "storage answered with other bytes", found=sha256(data).hex(), expected=digest.hex()
            )
        return data

    async def get_named(self, name: str, limit: int = MAX_BLOB) -> bytes:
        """A record by name; nothing about its content is checked here."""
        return await self._read(_checked_name(name), limit)

    async def put_file(self, path: Path) -> bytes:
        """Store a file as a blob without holding it in memory; returns its SHA-256."""
        digest = await asyncio.to_thread(_digest_of, path)
        await self._write_file(blob_name(digest), path)
        return digest

    async def _write_before(self, items: Sequence[tuple[str, bytes]], name: str, record: bytes) -> None:
        for each, data in items:
            await self._write(each, data)
        await self._write(name, record)

    @abstractmethod
    async def _write(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    async def _write_file(self, name: str, path: Path) -> None: ...

    @abstractmethod
    async def _read(self, name: str, limit: int) -> bytes: ...


class FileStorage(Storage):
    """A directory. A write goes to a temporary name, is synced and renamed, so that no reader sees half a blob, and one that
    was cut at any byte can be repeated."""

    is_local = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.uri = self.directory.as_uri()

    async def sweep(self) -> None:
        try:
            await asyncio.to_thread(sweep_temporaries, self.directory)
        except OSError as error:
            Log("storage").warning("storage cannot be swept", uri=self.uri, found=error.strerror)

    async def _write(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._writing, write_whole, self.directory / name, data)

    async def _write_before(self, items: Sequence[tuple[str, bytes]], name: str, record: bytes) -> None:
        targets = [(self.directory / each, data) for each, data in items]
        await asyncio.to_thread(self._writing, write_before, targets, self.directory / name, record)

    async def _write_file(self, name: str, path: Path) -> None:
        await asyncio.to_thread(self._writing, write_whole, self.directory / name, path)

    async def _read(self, name: str, limit: int) -> bytes:
        return await asyncio.to_thread(self._load, name, limit)

    def _writing(self, write: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            write(*args, **kwargs)
        except OSError as error:
            raise Retryable("storage.write", f"cannot write to {self.uri}", found=error.strerror) from error

    def _load(self, name: str, limit: int) -> bytes:
        try:
            with (self.directory / name).open("rb") as source:
                data = source.read(limit + 1)
        except FileNotFoundError:
            raise missing(self.uri, name) from None
        except OSError as error:
            raise Retryable("storage.read", f"cannot read from {self.uri}", found=error.strerror) from error
        if len(data) > limit:
            raise too_large(name, limit)
        return data


class HttpStorage(Storage):
    """A server that answers GET and takes PUT under its base URI."""

    def __init__(self, uri: str, *, timeout: float = 60.0) -> None:
        self.uri = uri.rstrip("/")
        self._seconds = timeout
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout, auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _write(self, name: str, data: bytes) -> None:
        await self._put(name, _pieces(data), len(data))

    async def _write_file(self, name: str, path: Path) -> None:
        await self._put(name, _chunks(path), size_of(path))

    async def _put(self, name: str, data: AsyncIterator[bytes], size: int) -> None:
        # With its length a server can tell a body that was cut from one that ended.
        headers = {aiohttp.hdrs.CONTENT_LENGTH: str(size)}
        try:
            async with self._open().put(
                f"{self.uri}/{name}", data=data, headers=headers, allow_redirects=False, timeout=self._patience(size)
            ) as answer:
                if answer.status not in (200, 201, 204):
                    raise http_error("write to", self.uri, answer.status)
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable("storage.http", f"cannot write to {self.uri}", found=type(error).__name__) from error

    def _patience(self, size: int) -> aiohttp.ClientTimeout:
        """No server holds a transfer for ever, and a large one may take its time."""
        return aiohttp.ClientTimeout(
            total=self._seconds + size / MIN_RATE, sock_connect=self._seconds, sock_read=self._seconds + size / MIN_RATE
        )

    async def _read(self, name: str, limit: int) -> bytes:
        data = bytearray()
        total = self._seconds + limit / MIN_RATE
        patience = aiohttp.ClientTimeout(total=total, sock_connect=self._seconds, sock_read=self._seconds)
        try:
            async with self._open().get(
                f"{self.uri}/{name}", headers={aiohttp.hdrs.ACCEPT_ENCODING: "identity"}, timeout=patience
            ) as answer:
                if answer.status == 404:
                    raise missing(self.uri, name)
                if answer.status != 200:
                    raise http_error("read from", self.uri, answer.status)
                async for chunk in answer.content.iter_chunked(CHUNK):
                    data += chunk
                    if len(data) > limit:
                        raise too_large(name, limit)
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable("storage.http", f"cannot read from {self.uri}", found=type(error).__name__) from error
        return bytes(data)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise Permanent("storage.closed", "this storage is not open", hint="Use `async with open_storage(uri)`")
        return self._session


def open_storage(uri: str) -> Storage:
    """The storage at a base URI; Refused `storage.uri` for any other, `storage.extra` where the package for it is missing."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    plain = not parts.query and not parts.fragment and "@" not in parts.netloc and "\x00" not in unquote(parts.path)
    if plain and parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FileStorage(Path(unquote(parts.path)))
    if plain and parts.scheme in ("http", "https") and host:
        return HttpStorage(uri)
    if parts.scheme in OBJECT_SCHEMES:
        # Imported where it is used: it takes a package that few need.
        from oracle.objects import open_objects

        return open_objects(uri)
    # A URI may hold a password before an @, or in its query, and no error shows one.
    shown = uri if plain else f"{parts.scheme}:…"
    raise Refused(
        "storage.uri",
        "not a storage URI",
        found=repr(shown[:200]),
        expected="file:///directory, http(s)://host/path or s3://bucket/prefix",
    )


@asynccontextmanager
async def open_storages(uris: Sequence[str]) -> AsyncIterator[tuple[Storage, ...]]:
    """All of `uris`, opened together."""
    async with AsyncExitStack() as stack:
        yield tuple([await stack.enter_async_context(open_storage(uri)) for uri in uris])


async def get_from_any(storages: Sequence[Storage], digest: bytes, limit: int = MAX_BLOB) -> bytes:
    """A blob from the first storage that has the right bytes; raises the last storage's error where none does."""
    failure: Retryable | Permanent = Retryable("blob.missing", "no storage was given", hint="Name at least one")
    for storage in storages:
        try:
            return await storage.get(digest, limit)
        except (Retryable, Permanent) as error:
            failure = error
    raise failure


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Refused("storage.name", "not a storage name", found=repr(name[:80]), expected="letters, digits, dashes")
    return name


def _digest_of(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            return file_digest(source, "sha256").digest()
    except OSError as error:
        raise Refused("storage.file", "a file to store cannot be read", found=f"{path}: {error.strerror}") from error


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise Refused("storage.file", "a file to store cannot be read", found=f"{path}: {error.strerror}") from error


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    # One large write would hold the event loop.
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    source = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(source.read, CHUNK):
            yield chunk
    finally:
        source.close()


def missing(uri: str, name: str) -> Retryable:
    return Retryable("blob.missing", "storage does not have this blob", found=f"nothing at {uri}/{name}")


def too_large(name: str, limit: int) -> Refused:
    return Refused("blob.size", "a blob is larger than it may be", found=name, expected=f"at most {limit} bytes")


def http_error(action: str, uri: str, status: int) -> Retryable | Permanent:
    if status >= 500 or status in (408, 425, 429):
        return Retryable("storage.http", f"cannot {action} {uri} now", found=f"status {status}")
    return Permanent("storage.http", f"cannot {action} {uri}", found=f"status {status}")
