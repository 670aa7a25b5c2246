"""What a sealed dataset is, and what anyone can see of it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.shares import ShareList


@dataclass(frozen=True)
class ColumnDescription:
    name: str
    type: str
    key: int


@dataclass(frozen=True)
class SharesDescription:
    """`id` is the sharesDigest that an agreement names; `brokers` are key digests, in order of x."""

    id: str
    threshold: int
    brokers: tuple[str, ...]


@dataclass(frozen=True)
class DatasetDescription:
    """A dataset in plain values, digests in hex with 0x, sizes in bytes; `public` says who-sees-what in words."""

    id: str
    lineage: str
    encryption: str
    rows: int
    size: int
    files: tuple[str, ...]
    columns: tuple[ColumnDescription, ...]
    keys: int
    shares: SharesDescription | None
    public: tuple[str, ...]


def inspect_dataset(manifest: Manifest, shares: ShareList | None = None) -> DatasetDescription:
    return DatasetDescription(
        id=_hex(manifest.id),
        lineage=_hex(manifest.lineage),
        encryption=manifest.encryption,
        rows=sum(file.rows for file in manifest.files),
        size=sum(file.size for file in manifest.files),
        files=tuple(_hex(file.sha256) for file in manifest.files),
        columns=tuple(ColumnDescription(c.name, c.type, c.key) for c in manifest.columns),
        keys=len(manifest.keys),
        shares=None
        if shares is None
        else SharesDescription(_hex(shares.id), shares.threshold, tuple(_hex(b.broker) for b in shares.brokers)),
        public=describe_public(manifest),
    )


def describe_public(manifest: Manifest) -> tuple[str, ...]:
    """What anyone who gets the manifest and the files learns without a key."""
    rows = ", ".join(str(file.rows) for file in manifest.files[:5]) + (", …" if len(manifest.files) > 5 else "")
    size = sum(file.size for file in manifest.files)
    return (
        *describe_schema([(column.name, column.type) for column in manifest.columns]),
        f"{len(manifest.files)} file(s) of {size} bytes in all, with {rows} row(s).",
        f"The lineage {_hex(manifest.lineage)}, which all versions of this data share.",
    )


def preview_public(schema: pa.Schema) -> tuple[str, ...]:
    """The same before sealing, for an owner to say yes or no to."""
    return (
        *describe_schema([(f.name, str(f.type)) for f in schema]),
        "How many rows each file has, and its size.",
        "Its lineage: a random number which all versions of this data share.",
    )


def describe_schema(columns: list[tuple[str, str]]) -> tuple[str, ...]:
    named = ", ".join(f"{name} ({kind})" for name, kind in columns)
    return (
        f"The names and types of {len(columns)} column(s): {named}.",
        "The length of every encrypted page: how well a stretch of a column compresses shows, its values do not.",
    )


def _hex(digest: bytes) -> str:
    return "0x" + digest.hex()
