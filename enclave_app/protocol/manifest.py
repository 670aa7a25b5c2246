"""Manifests: what a sealed dataset is. The dataset id is the SHA-256 of the manifest's canonical bytes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, StrictInt, model_validator

from .canonical import Document, parse
from .digests import sha256
from .errors import Refused
from .fields import Bytes32, Label, Uint64

MAX_MANIFEST = 4 << 20
MAX_COLUMNS = 4096


class File(Document):
    """One ciphertext file: its digest is also its name in storage. `rows` is zero where it says nothing."""

    sha256: Bytes32
    size: Uint64
    rows: Uint64


class Column(Document):
    """A column, its Arrow type as pyarrow prints it, and the index of its key in `Manifest.keys`."""

    name: Label = Field(min_length=1, max_length=128)
    type: Label = Field(min_length=1, max_length=256)
    key: StrictInt = Field(ge=0, lt=MAX_COLUMNS + 1)


class Manifest(Document):
    """A sealed dataset (DESIGN section 3, R11, R17, R18).

    `parquet-aes-gcm-v1` is Parquet modular encryption: key 0 opens the footers, and each column names its own key. A
    `tink-aes256-gcm-hkdf-1mb` dataset is one file under key 0. `keys` are the commitments to the keys.
    """

    format: Literal["enclave-oracle/dataset"] = "enclave-oracle/dataset"
    v: Literal[1] = 1
    encryption: Literal["parquet-aes-gcm-v1", "tink-aes256-gcm-hkdf-1mb"]
    lineage: Bytes32
    files: tuple[File, ...] = Field(min_length=1, max_length=100_000)
    columns: tuple[Column, ...] = Field(max_length=MAX_COLUMNS)
    keys: tuple[Bytes32, ...] = Field(min_length=1, max_length=MAX_COLUMNS + 1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("two columns have one name")
        if any(column.key >= len(self.keys) for column in self.columns):
            raise ValueError("a column names a key that is not there")
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("two keys have one commitment")
        if self.encryption == "parquet-aes-gcm-v1":
            if not self.columns or any(column.key == 0 for column in self.columns):
                raise ValueError("a table needs columns, and key 0 is the footer's")
        elif self.columns or len(self.keys) != 1 or len(self.files) != 1:
            raise ValueError("a stream is one file under one key, without columns")
        return self

    @property
    def id(self) -> bytes:
        return sha256(self.canonical())

    def key_indexes(self, columns: tuple[str, ...]) -> tuple[int, ...]:
        """The keys that open `columns`, in order, the footer's first; refuses a column that is not there."""
        by_name = {column.name: column.key for column in self.columns}
        missing = [name for name in columns if name not in by_name]
        if missing:
            raise Refused("manifest.column", "the dataset has no such column", found=repr(missing[0][:128]))
        return tuple(sorted({0, *(by_name[name] for name in columns)}))


def read_manifest(data: bytes, expected: bytes) -> Manifest:
    """A manifest from untrusted bytes, by its dataset id (R18)."""
    found = sha256(data)
    if found != expected:
        raise Refused(
            "manifest.digest", "not the manifest that was asked for", found=found.hex(), expected=expected.hex()
        )
    return parse(Manifest, data, limit=MAX_MANIFEST)
