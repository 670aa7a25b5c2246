"""What a task may use, read from untrusted storage and checked against the agreement before anything is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from enclave_app.config import EnclaveConfig
from enclave_app.fetch import Storage, together
from enclave_app.protocol.bundle import MAX_BUNDLE, Bundle, read_bundle
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import PUBLIC_KEY_BYTES, PublicKey
from enclave_app.protocol.manifest import MAX_MANIFEST, Manifest, read_manifest
from enclave_app.protocol.params import ParamDomain, read_domain
from enclave_app.protocol.rules import check_agreement, check_request
from enclave_app.protocol.shares import MAX_SHARE_LIST, ShareList, read_share_list
from enclave_app.protocol.structs import Agreement, FunctionKind
from enclave_app.protocol.wire import TaskBody

MAX_DOMAIN: Final = 1 << 20
MOST_KNOWN: Final = 16
MOST_KNOWN_BYTES: Final = 16 << 20
"""Agreements whose documents are kept as they were read, and what these may have together as they came."""
_KINDS: Final = {"sql": FunctionKind.SQL}

UNPROVEN: Final = frozenset({"gramine", "occlum"})
"""Attesters of library OSes, whose processes share one trust domain with the quote interface (R6)."""
WITHOUT_OWN_CODE: Final = frozenset({FunctionKind.SQL, FunctionKind.WASM})
"""What runs there all the same: such a function reaches nothing but what its engine gives it."""


@dataclass(frozen=True)
class Materials:
    """The documents that an agreement names by digest. Lists are in the agreement's order; `size` is theirs together, in
    bytes as they came."""

    bundle: Bundle
    domain: ParamDomain
    manifests: tuple[Manifest, ...]
    share_lists: tuple[ShareList, ...]
    brokers: tuple[PublicKey, ...]
    size: int = 0

    def released_keys(self, agreement: Agreement) -> tuple[tuple[int, int], ...]:
        """(dataset index, key index) of every key that the agreement releases, in order (R10, R16)."""
        return tuple(
            (position, index)
            for position, (term, manifest) in enumerate(zip(agreement.data, self.manifests, strict=True))
            for index in manifest.key_indexes(term.columns)
        )


def check_task(body: TaskBody, measurement: bytes, attester: str, config: EnclaveConfig) -> None:
    """R7: refuse a task that is not of its agreement, not for this enclave, or above this enclave's ceilings."""
    agreement, request = body.agreement, body.request
    check_apart(agreement.fn.kind, attester)
    check_agreement(agreement)
    check_request(agreement, request)
    # Recomputed, never taken from the host: a task under another text of the agreement is another task.
    agreement_id = body.chain.agreement_id(agreement)
    if request.agreement_id != agreement_id:
        raise Refused(
            "task.agreement",
            "a request is for another agreement",
            found=request.agreement_id.hex(),
            expected=agreement_id.hex(),
        )
    if measurement not in agreement.tee.measurements:
        raise Refused("task.measurement", "the agreement does not name this enclave (R3)", found=measurement.hex())
    if body.anchor not in agreement.tee.anchors:
        raise Refused("task.anchor", "the agreement does not name this trust anchor (R4)", found=body.anchor.hex())
    if body.payee == ZERO_ADDRESS:
        raise Refused("task.payee", "the payee is the zero address (R20)")
    limits = agreement.fn.limits
    for label, found, most in (
        ("memory in MiB", limits.memory_mib, config.max_memory_mib),
        ("time in seconds", limits.time_seconds, config.max_time_seconds),
        ("output in bytes", limits.output_bytes, config.max_output_bytes),
        ("padding in bytes", max(output.size_class for output in agreement.outputs), config.max_output_bytes),
    ):
        if found > most:
            raise Refused("task.limits", f"this enclave allows a function less {label}", found=found, expected=most)


def check_apart(kind: int, attester: str) -> None:
    """R6: refuse a function that an enclave with this kind of attester could not keep from the quote interface."""
    if attester in UNPROVEN and kind not in WITHOUT_OWN_CODE:
        raise Refused(
            "task.sandbox",
            f"under {attester} nothing keeps a function of this kind from the quote interface (R6)",
            found=kind,
            expected=" or ".join(f"{each.value} ({each.name.lower()})" for each in sorted(WITHOUT_OWN_CODE)),
        )


class KnownMaterials:
    """What agreements name, read once for many tasks. An agreement's id commits to every digest in it, so the same id is
    the same documents, whoever stores them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: OrderedDict[bytes, Materials] = OrderedDict()

    async def of(self, body: TaskBody) -> Materials:
        """For a task that `check_task` let pass. Raises as `fetch_materials`."""
        agreement_id = body.request.agreement_id
        found = self._known.get(agreement_id)
        if found is None:
            found = await fetch_materials(body, self._storage)
            self._known[agreement_id] = found
        else:
            self._storage.check_bases(body.storage)
        self._known.move_to_end(agreement_id)
        size = sum(each.size for each in self._known.values())
        while len(self._known) > MOST_KNOWN or (size > MOST_KNOWN_BYTES and self._known):
            size -= self._known.popitem(last=False)[1].size
        return found


async def fetch_materials(body: TaskBody, storage: Storage) -> Materials:
    """Everything the agreement names, by digest, at once. Raises MissingBlob, and `Refused` for what does not fit."""
    agreement, bases = body.agreement, body.storage
    storage.check_bases(bases)
    documents = [
        (agreement.fn.id, MAX_BUNDLE),
        (agreement.param_domain, MAX_DOMAIN),
        *((term.id_or_stream, MAX_MANIFEST) for term in agreement.data),
        *((term.shares_digest, MAX_SHARE_LIST) for term in agreement.data),
        *((broker.hpke_key, PUBLIC_KEY_BYTES) for broker in agreement.keys.brokers),
    ]
    bundle, domain, *rest = await together(storage.document(bases, digest, most) for digest, most in documents)
    count = len(agreement.data)
    manifests, lists, brokers = rest[:count], rest[count : 2 * count], rest[2 * count :]
    materials = Materials(
        bundle=read_bundle(bundle, agreement.fn.id),
        domain=read_domain(domain, agreement.param_domain),
        manifests=tuple(read_manifest(m, d.id_or_stream) for m, d in zip(manifests, agreement.data, strict=True)),
        share_lists=tuple(
            read_share_list(s, d.id_or_stream, d.shares_digest) for s, d in zip(lists, agreement.data, strict=True)
        ),
        brokers=tuple(PublicKey(b) for b in brokers),
        size=len(bundle) + len(domain) + sum(map(len, rest)),
    )
    check_materials(agreement, materials)
    return materials


def check_materials(agreement: Agreement, materials: Materials) -> None:
    """R7: refuse documents that each are what was agreed, and together are not one task."""
    header = materials.bundle.header
    if _KINDS.get(header.kind) != agreement.fn.kind or header.deterministic != agreement.fn.deterministic:
        raise Refused("task.function", "the function is of another kind than agreed", found=header.kind)
    if header.outputs != tuple(output.name for output in agreement.outputs):
        raise Refused("task.outputs", "the function has other outputs than agreed", found=", ".join(header.outputs))
    for term, manifest, shares in zip(agreement.data, materials.manifests, materials.share_lists, strict=True):
        if manifest.lineage != term.lineage:
            raise Refused("task.lineage", f"dataset {term.name} has another lineage than agreed")
        _check_shares(agreement, term.name, manifest, shares)
        manifest.key_indexes(term.columns)
    _check_tables(agreement, materials)


def _check_shares(agreement: Agreement, name: str, manifest: Manifest, shares: ShareList) -> None:
    """R10: the share list is for the agreement's threshold and brokers, in its order, and for all keys of the dataset."""
    if shares.threshold != agreement.keys.threshold:
        raise Refused(
            "task.threshold",
            f"the shares of dataset {name} have another threshold than agreed",
            found=shares.threshold,
            expected=agreement.keys.threshold,
        )
    if [entry.broker for entry in shares.brokers] != [broker.hpke_key for broker in agreement.keys.brokers]:
        raise Refused("task.brokers", f"the shares of dataset {name} are for other brokers than agreed")
    if shares.key_count != len(manifest.keys):
        raise Refused("task.shares", f"the shares of dataset {name} are of another number of keys than it has")


def _check_tables(agreement: Agreement, materials: Materials) -> None:
    terms = {term.name: (term, manifest) for term, manifest in zip(agreement.data, materials.manifests, strict=True)}
    for table in materials.bundle.header.tables:
        if table.name not in terms:
            raise Refused("task.table", "the function reads a table that the agreement does not name", found=table.name)
        term, manifest = terms[table.name]
        types = {column.name: column.type for column in manifest.columns}
        for column in table.columns:
            if column.name not in term.columns:
                raise Refused(
                    "task.column",
                    "the function reads a column that the agreement does not release",
                    found=f"{table.name}.{column.name}"[:200],
                )
            if types[column.name] != column.type:
                raise Refused(
                    "task.type",
                    f"column {table.name}.{column.name} has another type than the function expects"[:300],
                    found=types[column.name],
                    expected=column.type,
                )


def input_size(manifests: Sequence[Manifest]) -> int:
    return sum(file.size for manifest in manifests for file in manifest.files)
