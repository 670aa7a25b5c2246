"""Publishing: everything public of a dataset goes into storage; never its keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.shares import ShareList
from enclave_app.protocol.storage import blob_name
from oracle.storage import Storage


async def publish_dataset(
    manifest: Manifest,
    blobs: Path,
    storage: Storage,
    *,
    shares: ShareList | None = None,
    brokers: Sequence[PublicKey] = (),
) -> tuple[bytes, ...]:
    """Put the ciphertext files, then the share list and the brokers' public keys, the manifest last.

    So whoever finds the manifest finds all of it. Returns the digests stored. Refused `blob.digest` for a changed file,
    before the manifest is there.
    """
    if shares is not None and shares.dataset != manifest.id:
        raise Refused("shares.dataset", "a share list is for another dataset", found=shares.dataset.hex())
    stored = []
    for file in manifest.files:
        path = blobs / blob_name(file.sha256)
        digest = await storage.put_file(path)
        if digest != file.sha256:
            raise Refused("blob.digest", f"{path} holds other bytes", found=digest.hex(), expected=file.sha256.hex())
        stored.append(digest)
    for broker in brokers:
        stored.append(await storage.put(broker.wire))
    if shares is not None:
        stored.append(await storage.put(shares.canonical()))
    stored.append(await storage.put(manifest.canonical()))
    return tuple(stored)
