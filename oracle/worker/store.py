"""Outputs into untrusted storage: ciphertext, manifest and share list by digest, and the task's record by name.

Outputs and record are written before the settlement: a recipient can only open a result that was settled (R17), and one that is
settled must not be missing. A public output is not written: the settlement publishes it, and nobody who reads storage is to be
first. The receipt follows the settlement. Every write gives the same bytes again when it is repeated.

A result waits for its storage, whatever that says (R19): the ciphertext is spooled, so that neither a storage that is down for
hours nor an enclave that ends meanwhile has anything computed again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.storage import receipt_name, record_name
from enclave_app.protocol.wire import INLINE
from oracle.errors import Permanent, Retryable
from oracle.storage import Storage
from oracle.worker.enclave import Enclave
from oracle.worker.spool import Spool


class OutputsGone(Retryable):
    """Neither the spool nor an enclave has the outputs: only a run makes them again, the same ones (R16)."""


class OutputStore:
    """Outputs of this worker on their way from the enclave to storage."""

    def __init__(self, storage: Storage, spool: Spool) -> None:
        self._storage, self.spool = storage, spool
        self._sent: dict[bytes, set[bytes]] = {}
        self._held: dict[bytes, dict[bytes, bytes]] = {}

    def hold(self, task_id: bytes, files: Sequence[bytes]) -> None:
        """Ciphertext that came with the result, until it is stored. It counts by its digest only."""
        if files:
            self._held[task_id] = {sha256(each): each for each in files}

    def is_spooled(self, task_id: bytes, record: TaskRecord) -> bool:
        """Whether storing needs no enclave any more. Raises OutputsGone where a manifest is not the one that was signed for."""
        return self.spool.has(task_id, [digest for digest, _ in _files(record)])

    async def store(self, enclave: Enclave | None, task_id: bytes, record: TaskRecord) -> None:
        """Raises OutputsGone where `enclave` and spool do not have what was signed, Retryable `enclave.*`, and Retryable
        whatever storage says. What storage acknowledged to this process is not sent again: nobody else's word, and no look at
        what is there, is relied on."""
        if not self._storage.is_local:
            # Before the first upload, which may take hours to succeed.
            await self._spool(enclave, task_id, record)
        try:
            await self._upload(enclave, task_id, record)
        except OutputsGone:
            raise
        except Retryable:
            # On the same machine an upload is as quick as the spool, which is then for what fails only.
            await self._spool(enclave, task_id, record)
            raise

    async def _spool(self, enclave: Enclave | None, task_id: bytes, record: TaskRecord) -> None:
        for digest, size in _files(record):
            if not self.spool.has(task_id, (digest,)):
                await self.spool.keep(task_id, digest, await self._fetch(enclave, task_id, digest, size))

    async def _upload(self, enclave: Enclave | None, task_id: bytes, record: TaskRecord) -> None:
        sent, small = self._sent.setdefault(task_id, set()), list[bytes]()
        for digest, size in _files(record):
            if digest not in sent:
                kept = await self.spool.get(task_id, digest)
                data = kept if kept is not None else await self._fetch(enclave, task_id, digest, size)
                if len(data) <= INLINE:
                    small.append(data)
                    continue
                await _waiting(self._storage.put(data))
                sent.add(digest)
        blobs = [*small, *(blob for output in record.outputs for blob in (output.manifest, output.share_list))]
        # R17: nobody reads a result before it is settled, a public one from the settlement.
        hidden = record.model_copy(update={"public_outputs": ()})
        await _waiting(self._storage.put_together(blobs, record_name(task_id), hidden.canonical()))

    async def store_receipt(self, task_id: bytes, receipt: bytes) -> None:
        """Raises Retryable, whatever storage says: no settled task goes without its receipt for a fault of storage."""
        await _waiting(self._storage.put_named(receipt_name(task_id), receipt))

    def holds(self, task_id: bytes) -> bool:
        """Whether there is something to drop."""
        return task_id in self._sent or task_id in self._held or task_id in self.spool.tasks()

    async def drop(self, task_id: bytes) -> None:
        """The task is stored, or over."""
        self._sent.pop(task_id, None)
        self._held.pop(task_id, None)
        await self.spool.drop(task_id)

    async def _fetch(self, enclave: Enclave | None, task_id: bytes, digest: bytes, size: int) -> bytes:
        held = self._held.get(task_id, {}).get(digest)
        return held if held is not None else await _fetch(enclave, task_id, digest, size)


def _files(record: TaskRecord) -> list[tuple[bytes, int]]:
    """Digest and length of each ciphertext file of a result."""
    try:
        manifests = [read_manifest(output.manifest, output.shares.output_id) for output in record.outputs]
    except Permanent as error:
        raise OutputsGone(
            error.code, f"the enclave gave another manifest than it signed for: {error.message}"
        ) from error
    return [(file.sha256, file.size) for manifest in manifests for file in manifest.files]


async def _fetch(enclave: Enclave | None, task_id: bytes, digest: bytes, size: int) -> bytes:
    if enclave is None:
        raise OutputsGone("store.enclave_gone", "the enclave ended before its outputs were kept")
    try:
        data = await enclave.file(task_id, digest, size)
    except Permanent as error:
        raise OutputsGone("store.outputs", f"the enclave does not hand out an output: {error.message}") from error
    if sha256(data) != digest:
        raise OutputsGone("output.digest", "the enclave gave another file than its manifest names")
    return data


async def _waiting(writing: Awaitable[object]) -> None:
    """R19: what storage refuses today, an operator can mend."""
    try:
        await writing
    except Permanent as error:
        raise Retryable(error.code, f"the result waits for its storage: {error.message}") from error
