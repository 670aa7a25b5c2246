"""Object storage through fsspec: `s3://bucket/prefix?endpoint=https://…&region=…`, of Amazon or any that speaks its protocol.

Credentials come from where the provider's own tools have them (environment, profile, instance role), never from the URI. An
object is there whole or not at all, so a cut upload leaves nothing that a reader sees; parts of a large one that a killed
process left are for the bucket's life-cycle rule (AbortIncompleteMultipartUpload). Errors name what failed by its type and its
S3 code only: messages of a provider may quote what was signed.

Enclaves read by http(s) or file: give them an https URL under which the bucket's objects are served.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from enclave_app.protocol.errors import Permanent, Refused, Retryable
from oracle.durable import CHUNK
from oracle.storage import MIN_RATE, Storage, missing, size_of, too_large

try:
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
    from s3fs import S3FileSystem
except ImportError as error:
    raise Refused(
        "storage.extra", "s3:// needs a package that is not installed", hint="Install `enclave-oracle[s3]`"
    ) from error

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
FAULTS = (OSError, ValueError, LookupError, BotoCoreError, ClientError, aiohttp.ClientError)
"""What s3fs, botocore and aiohttp raise for what a server, a network or a configuration does."""


class ObjectStorage(Storage):
    """A prefix in a bucket. Every call is tried once: who calls knows how long to go on."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None, region: str | None, timeout: float) -> None:
        self._base = "/".join(part for part in (bucket, prefix.strip("/")) if part)
        self.uri = f"s3://{self._base}"
        self._endpoint, self._region, self._seconds = endpoint, region, timeout
        self._files: S3FileSystem | None = None

    async def __aenter__(self) -> Self:
        self._files = S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            use_listings_cache=False,
            endpoint_url=self._endpoint,
            client_kwargs={"region_name": self._region} if self._region else {},
            config_kwargs={
                "connect_timeout": self._seconds,
                "read_timeout": self._seconds,
                "retries": {"total_max_attempts": 1},
            },
        )
        self._files.retries = 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files, self._files = self._files, None
        if files is not None and files._s3 is not None:
            await files._s3.close()

    async def _write(self, name: str, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._patience(len(data))):
                await self._open()._pipe_file(f"{self._base}/{name}", data)
        except FAULTS as error:
            raise self._fault("write to", error) from error

    async def _write_file(self, name: str, path: Path) -> None:
        size = size_of(path)
        try:
            async with asyncio.timeout(self._patience(size)):
                await self._open()._put_file(str(path), f"{self._base}/{name}")
        except FAULTS as error:
            raise self._fault("write to", error) from error

    async def _read(self, name: str, limit: int) -> bytes:
        data = bytearray()
        try:
            async with asyncio.timeout(self._patience(limit)):
                source = await self._open().open_async(f"{self._base}/{name}", "rb")
                while chunk := await source.read(CHUNK):
                    data += chunk
                    if len(data) > limit:
                        source.r.close()
                        raise too_large(name, limit)
        except FileNotFoundError:
            raise missing(self.uri, name) from None
        except FAULTS as error:
            raise self._fault("read from", error) from error
        return bytes(data)

    def _patience(self, size: int) -> float:
        return self._seconds + size / MIN_RATE

    def _open(self) -> S3FileSystem:
        if self._files is None:
            raise Permanent("storage.closed", "this storage is not open", hint="Use `async with open_storage(uri)`")
        return self._files

    def _fault(self, action: str, error: BaseException) -> Retryable | Permanent:
        """Permanent for what the same call will meet again until somebody changes something."""
        hint = None
        kind: type[Retryable] | type[Permanent] = Retryable
        if isinstance(error, FileNotFoundError | PermissionError | ParamValidationError) or (
            isinstance(error, ValueError) and not isinstance(error, UnicodeError)
        ):
            kind, hint = Permanent, "Do bucket and credentials fit?"
        return kind("storage.object", f"cannot {action} {self.uri}", found=_name_of(error), hint=hint)


def open_objects(uri: str, *, timeout: float = 60.0) -> ObjectStorage:
    """Raises Refused `storage.uri`, which shows no more of the URI than bucket and prefix."""
    try:
        parts = urlsplit(uri)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=2)
        given = dict(options)
        endpoint = given.pop("endpoint", None)
        plain = len(options) == len(given) + (endpoint is not None) and given.keys() <= {"region"}
        plain = plain and not parts.fragment and _BUCKET.fullmatch(parts.netloc) is not None
        prefix = unquote(parts.path)
        plain = plain and prefix.isprintable() and not any(part in (".", "..") for part in prefix.split("/"))
        plain = plain and (endpoint is None or _is_endpoint(endpoint))
    except ValueError:
        raise _not_one(None) from None
    if not plain:
        raise _not_one(parts.netloc if _BUCKET.fullmatch(parts.netloc) else None)
    return ObjectStorage(parts.netloc, prefix, endpoint=endpoint, region=given.get("region"), timeout=timeout)


def _is_endpoint(value: str) -> bool:
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and not parts.query


def _not_one(bucket: str | None) -> Refused:
    return Refused(
        "storage.uri",
        "not a storage URI of an object store",
        found=f"s3://{bucket}…" if bucket else None,
        expected="s3://bucket/prefix, with ?endpoint=https://host and &region=name where needed, and no credentials",
    )


def _name_of(error: BaseException) -> str:
    for each in (error, error.__cause__):
        if isinstance(each, ClientError):
            code = str(each.response.get("Error", {}).get("Code", ""))
            if _CODE.fullmatch(code):
                return f"{type(error).__name__} ({code})"
    return type(error).__name__
