"""Manifests and share lists for release requests, from untrusted storage, kept in memory: every task of an agreement names
the same ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from oracle.errors import Permanent, Retryable
from oracle.storage import Storage, get_from_any

MAX_KEPT = 64 << 20
MAX_BLOB = 8 << 20
TOO_LARGE = "blob.too_large"


class BlobCache:
    """Blobs by digest, the least recently used dropped first beyond `MAX_KEPT` bytes."""

    def __init__(self, storages: Sequence[Storage]) -> None:
        self._storages = tuple(storages)
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0

    async def get(self, digest: bytes) -> bytes:
        """Raises Retryable `blob.missing`, `blob.unusable` where a storage has other bytes under the digest, or
        `blob.too_large`: that is the host's doing, and ends no task (R19)."""
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest]
        try:
            blob = await get_from_any(self._storages, digest, MAX_BLOB)
        except Permanent as error:
            code = TOO_LARGE if error.code == "blob.size" else "blob.unusable"
            raise Retryable(code, error.message) from None
        if digest not in self._kept:
            self._kept[digest] = blob
            self._size += len(blob)
        while self._size > MAX_KEPT:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)
        return blob
