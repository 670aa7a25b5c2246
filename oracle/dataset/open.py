"""The owner opens its own sealed dataset, to see that what it hands out is what it meant to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from enclave_app.protocol import pme
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.storage import blob_name
from oracle.dataset.keyfile import DatasetKeys


def open_dataset(manifest: Manifest, keys: DatasetKeys, blobs: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a sealed dataset, of all columns or of `columns`, in the manifest's order.

    Raises Refused `keys.dataset`, `blob.digest` for a changed file, `blob.missing`, `table.rows`, `table.schema`.
    """
    keys.check(manifest)
    wanted = [c for c in manifest.columns if columns is None or c.name in columns]
    released = manifest.key_indexes(tuple(columns if columns is not None else [c.name for c in manifest.columns]))
    schema = [(column.name, column.type) for column in wanted]
    parts = []
    for file in manifest.files:
        data = _read_blob(blobs, file.sha256, file.size)
        try:
            opened = pme.open_file(data, pme.ColumnKeys({index: keys.keys[index] for index in released}))
            part = opened.read(columns=[column.name for column in wanted], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise Refused("table.open", "a sealed table does not open", found=type(error).__name__) from None
        if part.num_rows != file.rows:
            raise Refused("table.rows", "a sealed file has other rows than its manifest says", found=part.num_rows)
        if [(field.name, str(field.type)) for field in part.schema] != schema:
            raise Refused("table.schema", "a sealed file has other columns than its manifest says")
        parts.append(part)
    return pa.concat_tables(parts)


def _read_blob(blobs: Path, digest: bytes, size: int) -> bytes:
    path = blobs / blob_name(digest)
    try:
        with path.open("rb") as source:
            data = source.read(size + 1)
    except OSError as error:
        raise Refused("blob.missing", f"cannot read {path}", found=error.strerror) from error
    if sha256(data) != digest:
        raise Refused("blob.digest", f"{path} holds other bytes", found=sha256(data).hex(), expected=digest.hex())
    return data
