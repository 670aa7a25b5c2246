"""What a function is: everything its bundle says, for whoever has to agree to it."""

from __future__ import annotations

from dataclasses import dataclass

from enclave_app.protocol.bundle import Bundle
from oracle.storage import Storage


@dataclass(frozen=True)
class FunctionDescription:
    """A function in plain values; digests in hex with 0x. `tables` give the columns' types, `params` their domains."""

    id: str
    name: str
    description: str
    kind: str
    deterministic: bool
    tables: dict[str, dict[str, str]]
    params: tuple[dict[str, object], ...]
    param_domain: str
    outputs: tuple[str, ...]
    files: dict[str, int]
    entry: str
    source: str


def inspect_function(bundle: Bundle) -> FunctionDescription:
    header = bundle.header
    return FunctionDescription(
        id="0x" + bundle.id.hex(),
        name=header.name,
        description=header.description,
        kind=header.kind,
        deterministic=header.deterministic,
        tables={table.name: {column.name: column.type for column in table.columns} for table in header.tables},
        params=tuple(param.model_dump(mode="json", by_alias=True) for param in header.params.params),
        param_domain="0x" + header.params.id.hex(),
        outputs=header.outputs,
        files={file.path: file.size for file in header.files},
        entry=header.entry,
        source=bundle.entry_text(),
    )


async def publish_function(bundle: Bundle, storage: Storage) -> tuple[bytes, bytes]:
    """Put the bundle and its parameter domain into storage; returns (functionId, paramDomain)."""
    return await storage.put(bundle.raw), await storage.put(bundle.header.params.canonical())
