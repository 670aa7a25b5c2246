"""Sealing: a table becomes Parquet files encrypted column by column, a manifest that names them, and a secret key file.

out/blobs/<hex>    the ciphertext files and the manifest, each named by its SHA-256; may be handed to anyone
out/manifest.json  the manifest again, under a name for people
out/keys.json      SECRET, 0600; may be put elsewhere
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from enclave_app.protocol import pme
from enclave_app.protocol.digests import commitment, sha256
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import MAX_MANIFEST, Column, File, Manifest, read_manifest
from enclave_app.protocol.storage import blob_name
from oracle.dataset.keyfile import DatasetKeys, check_protection, write_keys
from oracle.dataset.sources import Table, open_source
from oracle.files import read_file, within
from oracle.naming import naming
from oracle.passwords import SCRYPT_N, Password

ROW_GROUP_ROWS = 122_880
"""DuckDB's own vector group, so that a scan hands over whole groups."""
FILE_BYTES = 128 << 20
"""Plaintext Arrow bytes a file: what sealing and opening hold in memory at once."""
MANIFEST_NAME = "manifest.json"
KEYS_NAME = "keys.json"
BLOBS_NAME = "blobs"


@dataclass(frozen=True)
class Sealed:
    """A dataset sealed into `directory`."""

    directory: Path
    manifest: Manifest
    keys: DatasetKeys
    keys_path: Path

    @property
    def blobs(self) -> Path:
        return self.directory / BLOBS_NAME


def seal(
    source: pa.Table | Path | Sequence[Path],
    directory: Path,
    *,
    password: Password | None = None,
    dangerous_plaintext_keys: bool = False,
    keys_path: Path | None = None,
    lineage: bytes | None = None,
    file_bytes: int = FILE_BYTES,
    row_group_rows: int = ROW_GROUP_ROWS,
    scrypt_n: int = SCRYPT_N,
    progress: Callable[[int], None] | None = None,
) -> Sealed:
    """Seal a table into a directory that holds no dataset yet.

    `lineage` is 32 bytes; give a former version's, so that budgets carry over, or none for new data. Memory stays
    near twice `file_bytes`. `progress` is told of each batch of rows that was read. Raises Refused `seal.exists`,
    `dataset.*`, `keys.protection`.
    """
    check_protection(password, dangerous_plaintext_keys)
    keys_path = keys_path or directory / KEYS_NAME
    for path in (directory / MANIFEST_NAME, directory / BLOBS_NAME):
        if path.exists():
            raise Refused("seal.exists", f"{path} is already there", hint="Seal into a new directory")
    if keys_path.exists():
        raise Refused("seal.exists", f"{keys_path} is already there", hint="Name a new file for the keys")
    # Budgets belong to (owner, lineage): R9.
    if lineage is not None and len(lineage) != 32:
        raise Refused("dataset.lineage", "a lineage has the wrong length", found=len(lineage), expected="32 bytes")
    table = open_source(source)
    if progress is not None:
        table = Table(table.schema, _counted(table.batches, progress))
    columns = tuple(Column(name=f.name, type=str(f.type), key=i) for i, f in enumerate(table.schema, start=1))
    keys = tuple(secrets.token_bytes(32) for _ in range(len(columns) + 1))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".sealing-", dir=directory) as temporary:
            blobs = Path(temporary) / BLOBS_NAME
            blobs.mkdir()
            manifest = _write_blobs(blobs, table, keys, columns, lineage, file_bytes, row_group_rows)
            owned = DatasetKeys(manifest.id, keys)
            # The keys go first: a dataset without its keys would be one that nobody can open.
            write_keys(keys_path, owned, password, dangerous_plaintext_keys=dangerous_plaintext_keys, n=scrypt_n)
            blobs.rename(directory / BLOBS_NAME)
        (directory / MANIFEST_NAME).write_bytes(manifest.canonical())
    except OSError as error:
        raise Refused("seal.write", f"cannot write into {directory}", found=error.strerror) from error
    return Sealed(directory, manifest, owned, keys_path)


def _write_blobs(
    blobs: Path,
    table: Table,
    keys: tuple[bytes, ...],
    columns: tuple[Column, ...],
    lineage: bytes | None,
    file_bytes: int,
    row_group_rows: int,
) -> Manifest:
    files = tuple(
        _write_blob(blobs, pme.encrypt_table(part, keys, columns, row_group_size=row_group_rows), part.num_rows)
        for part in _parts(table.batches, table.schema, file_bytes)
    )
    if not files:
        raise Refused("dataset.empty", "a table without rows cannot be sealed")
    manifest = Manifest(
        encryption="parquet-aes-gcm-v1",
        lineage=secrets.token_bytes(32) if lineage is None else lineage,
        files=files,
        columns=columns,
        keys=tuple(commitment(key) for key in keys),
    )
    if len(manifest.canonical()) > MAX_MANIFEST:
        raise Refused("dataset.manifest", "a dataset has too many files for one manifest", hint="Use larger files")
    _write_blob(blobs, manifest.canonical(), 0)
    return manifest


def load_manifest(path: Path, expected: bytes | None = None) -> Manifest:
    """A manifest from a file, or from `manifest.json` in a directory; with `expected`, only the dataset of that id."""
    path = within(path, MANIFEST_NAME)
    data = read_file(path, MAX_MANIFEST)
    with naming(path):
        return read_manifest(data, sha256(data) if expected is None else expected)


def _parts(batches: Iterator[pa.RecordBatch], schema: pa.Schema, file_bytes: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if batch.num_rows:
            held.append(batch)
            size += batch.nbytes
        if size >= file_bytes:
            yield pa.Table.from_batches(held, schema)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held, schema)


def _counted(batches: Iterator[pa.RecordBatch], progress: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        progress(batch.num_rows)


def _write_blob(directory: Path, data: bytes, rows: int) -> File:
    digest = sha256(data)
    (directory / blob_name(digest)).write_bytes(data)
    return File(sha256=digest, size=len(data), rows=rows)
