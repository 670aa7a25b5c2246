"""Function bundles: one byte string that holds a function. The function id is its SHA-256 (R17b).

"EOFB" ‖ 0x01 ‖ header length (4, big-endian) ‖ header (canonical JSON) ‖ the files, in the header's order, without gaps
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from .canonical import Document, parse
from .digests import sha256
from .errors import Refused
from .fields import Bytes32, Flag, Label, Uint64
from .params import ParamDomain

MAGIC = b"EOFB\x01"
MAX_BUNDLE = 64 << 20
MAX_HEADER = 1 << 20
_IDENTIFIER = r"^[a-z_][a-z0-9_]{0,62}$"


class BundleFile(Document):
    path: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
    size: Uint64
    sha256: Bytes32


class InputColumn(Document):
    name: Label = Field(min_length=1, max_length=128)
    type: Label = Field(min_length=1, max_length=256)


class InputTable(Document):
    """A table the function reads, by the name that the agreement's dataset term has, and the columns it needs."""

    name: str = Field(pattern=_IDENTIFIER)
    columns: tuple[InputColumn, ...] = Field(min_length=1, max_length=4096)


class BundleHeader(Document):
    """`salt` is 32 random bytes, so that the id of a private function tells nothing (R17b)."""

    format: Literal["enclave-oracle/function"] = "enclave-oracle/function"
    v: Literal[1] = 1
    kind: Literal["sql", "python", "onnx", "paddle", "wasm"]
    name: Label = Field(min_length=1, max_length=128)
    description: str = Field(max_length=4000)
    entry: str = Field(min_length=1, max_length=128)
    deterministic: Flag
    tables: tuple[InputTable, ...] = Field(max_length=16)
    params: ParamDomain
    outputs: tuple[str, ...] = Field(min_length=1, max_length=16)
    files: tuple[BundleFile, ...] = Field(min_length=1, max_length=1000)
    salt: Bytes32

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for label, names in (
            ("table", [t.name for t in self.tables]),
            ("file", [f.path for f in self.files]),
            ("output", list(self.outputs)),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"two {label}s have one name")
        if self.entry not in [f.path for f in self.files]:
            raise ValueError("the entry is not among the files")
        return self


class Bundle:
    """A parsed bundle: `header`, `files` by path, `id`."""

    def __init__(self, header: BundleHeader, files: Mapping[str, bytes], raw: bytes) -> None:
        self.header, self.files, self.raw, self.id = header, dict(files), raw, sha256(raw)

    def entry_text(self) -> str:
        try:
            return self.files[self.header.entry].decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("bundle.entry", "a function's entry file is not UTF-8 text") from None


def pack(header: BundleHeader, files: Mapping[str, bytes]) -> Bundle:
    """A bundle from its parts; sizes and digests in the header are computed here."""
    listed = tuple(BundleFile(path=p, size=len(files[p]), sha256=sha256(files[p])) for p in sorted(files))
    complete = BundleHeader.model_validate({**header.model_dump(), "files": [f.model_dump() for f in listed]})
    head = complete.canonical()
    raw = MAGIC + len(head).to_bytes(4, "big") + head + b"".join(files[f.path] for f in listed)
    return Bundle(complete, files, raw)


def read_bundle(raw: bytes, expected: bytes | None) -> Bundle:
    """A bundle from untrusted bytes; with `expected`, only the function of that id."""
    # The agreement names code by its digest (R7), and the digest covers the salt (R17b).
    if expected is not None and sha256(raw) != expected:
        raise Refused("bundle.digest", "not the agreed function", found=sha256(raw).hex(), expected=expected.hex())
    if raw[: len(MAGIC)] != MAGIC or len(raw) < len(MAGIC) + 4:
        raise Refused("bundle.format", "not a function bundle of this version")
    start = len(MAGIC) + 4
    length = int.from_bytes(raw[len(MAGIC) : start], "big")
    if length > MAX_HEADER or start + length > len(raw):
        raise Refused("bundle.format", "a function bundle is cut short or has too large a header")
    header = parse(BundleHeader, raw[start : start + length], limit=MAX_HEADER)
    files, position = {}, start + length
    for entry in header.files:
        content = raw[position : position + entry.size]
        if len(content) != entry.size or sha256(content) != entry.sha256:
            raise Refused("bundle.file", "a file of a function bundle is not what its header says", found=entry.path)
        files[entry.path] = content
        position += entry.size
    if position != len(raw):
        raise Refused("bundle.trailing", "a function bundle has bytes after its files", found=len(raw) - position)
    return Bundle(header, files, raw)
