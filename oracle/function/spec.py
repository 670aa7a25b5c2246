"""`function.yaml`: what a function reads, takes and makes, beside its source text.

name: tumour-size-by-diagnosis
description: Mean tumour measurements of both hospitals' cases, by diagnosis
kind: sql
entry: query.sql
tables:
  clinic: {patient: int64, malignant: bool}
params:
  - {name: smallest_group, type: integer, min: 5, max: 100}
outputs: [result]
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from enclave_app.protocol.bundle import Bundle, BundleFile, BundleHeader, InputColumn, InputTable, pack
from enclave_app.protocol.canonical import validate
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.params import ParamDomain
from oracle.dataset.types import EXPECTED, parse_type
from oracle.yamlfile import YamlModel, read_yaml, validate_yaml

MAX_SOURCE = 1 << 20
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
_HINTS = {
    "tables": "tables: {name: {column: type}}, or {name: [columns]} with a manifest",
    "outputs": "outputs: [result]",
}


class FunctionSpec(YamlModel):
    """A table maps columns to Arrow types as pyarrow prints them; it is a list where a manifest gives the types."""

    name: str = Field(min_length=1, max_length=128)
    description: str = Field(default="", max_length=4000)
    kind: Literal["sql"]
    entry: Annotated[str, StringConstraints(pattern=_NAME)]
    deterministic: bool = True
    tables: dict[str, dict[str, str] | tuple[str, ...]] = Field(min_length=1, max_length=16)
    params: list[dict[str, Any]] = Field(default_factory=list, max_length=64)
    outputs: tuple[str, ...] = Field(min_length=1, max_length=16)


def read_spec(path: Path) -> FunctionSpec:
    return validate_yaml(FunctionSpec, read_yaml(path), _HINTS)


def pack_function(spec: FunctionSpec, source: str, manifests: Mapping[str, Manifest] | None = None) -> Bundle:
    """A bundle, with a fresh salt. `manifests`, by table name, give or check the types of the columns it reads.

    Raises Refused `function.table`, `function.column`, `function.type`, `function.source`, `document.invalid`.
    """
    if not source.strip() or len(source.encode()) > MAX_SOURCE:
        raise Refused(
            "function.source", "a function's source is empty or too long", expected=f"1 to {MAX_SOURCE} bytes"
        )
    known = manifests or {}
    stray = [name for name in known if name not in spec.tables]
    if stray:
        raise Refused(
            "function.table", "a manifest is given for a table that the function does not read", found=stray[0]
        )
    tables = tuple(_table(name, columns, known.get(name)) for name, columns in spec.tables.items())
    params = validate(ParamDomain, {"params": spec.params})
    header = validate(
        BundleHeader,
        {
            "kind": spec.kind,
            "name": spec.name,
            "description": spec.description,
            "entry": spec.entry,
            "deterministic": spec.deterministic,
            "tables": tables,
            "params": params,
            "outputs": spec.outputs,
            "files": (BundleFile(path=spec.entry, size=0, sha256=bytes(32)),),
            "salt": secrets.token_bytes(32),
        },
    )
    return pack(header, {spec.entry: source.encode()})


def pack_directory(path: Path, manifests: Mapping[str, Manifest] | None = None) -> Bundle:
    """A bundle from `function.yaml` (a file, or the directory that holds it) and the entry file beside it."""
    file = path / "function.yaml" if path.is_dir() else path
    spec = read_spec(file)
    entry = file.parent / spec.entry
    try:
        with entry.open("rb") as source:
            text = source.read(MAX_SOURCE + 1).decode("utf-8")
    except OSError as error:
        raise Refused("file.read", f"cannot read {entry}", found=error.strerror) from error
    except UnicodeDecodeError:
        raise Refused("function.source", f"{entry} is not UTF-8 text") from None
    return pack_function(spec, text, manifests)


def _table(name: str, columns: dict[str, str] | tuple[str, ...], manifest: Manifest | None) -> InputTable:
    types = {} if manifest is None else {column.name: column.type for column in manifest.columns}
    wanted = columns if isinstance(columns, dict) else dict.fromkeys(columns, "")
    if not wanted:
        raise Refused("function.table", f"tables.{name}: names no columns")
    listed = []
    for column, written in wanted.items():
        if manifest is not None and column not in types:
            raise Refused(
                "function.column", f"tables.{name}: the dataset has no column {column!r}", expected=list(types)
            )
        kind = types.get(column, written)
        if not kind:
            raise Refused(
                "function.type", f"tables.{name}.{column}: has no type", hint="Write it, or give the manifest"
            )
        if written and kind != written:
            raise Refused(
                "function.type", f"tables.{name}.{column}: the dataset has another type", found=kind, expected=written
            )
        if parse_type(kind) is None:
            raise Refused(
                "function.type", f"tables.{name}.{column}: not a column type", found=repr(kind[:80]), expected=EXPECTED
            )
        listed.append(InputColumn(name=column, type=kind))
    return validate(InputTable, {"name": name, "columns": tuple(listed)})
