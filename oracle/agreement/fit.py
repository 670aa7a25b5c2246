"""Whether an agreement's parts fit each other: share lists, released columns, and what the function reads and makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enclave_app.protocol.bundle import Bundle
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.shares import ShareList
from enclave_app.protocol.structs import Agreement


def check_columns(manifest: Manifest, columns: Sequence[str], at: str) -> None:
    known = [column.name for column in manifest.columns]
    for name in columns:
        if name not in known:
            raise Refused("draft.columns", f"{at}: the dataset has no column {name[:80]!r}", expected=", ".join(known))


def check_shares(agreement: Agreement, name: str, shares: ShareList) -> None:
    """Refuse a share list for other brokers, in another order, or with another threshold than the agreement's (R10)."""
    brokers = tuple(broker.hpke_key for broker in agreement.keys.brokers)
    if tuple(entry.broker for entry in shares.brokers) != brokers or shares.threshold != agreement.keys.threshold:
        raise Refused(
            "draft.shares",
            f"the share list of {name} is for other brokers, another order of them, or another threshold",
            found=f"{shares.threshold} of {[entry.broker.hex()[:8] for entry in shares.brokers]}",
            expected=f"{agreement.keys.threshold} of {[broker.hex()[:8] for broker in brokers]}",
            hint="Run `oracle dataset share` again for the agreement's brokers",
        )


def check_function(bundle: Bundle, agreement: Agreement, manifests: Mapping[str, Manifest]) -> None:
    """Refuse a function that reads what the agreement does not release, or makes other outputs than it names.

    Types are compared for the datasets whose manifests are at hand.
    """
    header = bundle.header
    terms = {term.name: term for term in agreement.data}
    for table in header.tables:
        term = terms.get(table.name)
        if term is None:
            raise Refused(
                "draft.tables", f"the function reads a table {table.name!r} that is not in data", found=list(terms)
            )
        missing = [column.name for column in table.columns if column.name not in term.columns]
        if missing:
            raise Refused(
                "draft.tables", f"the function reads columns of {table.name!r} that are not released", found=missing
            )
        if table.name in manifests:
            types = {column.name: column.type for column in manifests[table.name].columns}
            for column in table.columns:
                if types[column.name] != column.type:
                    raise Refused(
                        "draft.tables",
                        f"column {column.name!r} of {table.name!r} has another type than the function expects",
                        found=types[column.name],
                        expected=column.type,
                    )
    unread = [name for name in terms if name not in {table.name for table in header.tables}]
    if unread:
        raise Refused(
            "draft.tables", f"the function does not read {unread[0]!r}", hint="Release no dataset that is not needed"
        )
    if tuple(output.name for output in agreement.outputs) != header.outputs:
        raise Refused(
            "draft.outputs",
            "outputs: are not those that the function makes",
            found=[output.name for output in agreement.outputs],
            expected=list(header.outputs),
        )


def unneeded_columns(bundle: Bundle, agreement: Agreement) -> dict[str, tuple[str, ...]]:
    """Columns that the agreement releases and the function does not read, by dataset."""
    read = {table.name: {column.name for column in table.columns} for table in bundle.header.tables}
    extra = {
        term.name: tuple(c for c in term.columns if c not in read.get(term.name, set())) for term in agreement.data
    }
    return {name: columns for name, columns in extra.items() if columns}
