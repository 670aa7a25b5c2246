"""Outputs into untrusted storage: ciphertext, manifest and share list by digest, and the task's record by name.

Outputs and record are written before the settlement: a recipient can only open a result that was settled (R17), and one that is
settled must not be missing. A public output is not written: the settlement publishes it, and nobody who reads storage is to be
first. The receipt follows the settlement. Every write gives the same bytes again when it is repeated.
"""

from __future__ import annotations

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.release import SignedShares, TaskRecord
from enclave_app.protocol.storage import receipt_name, record_name
from oracle.errors import Permanent, Retryable
from oracle.storage import Storage
from oracle.worker.enclave import Enclave


async def store_outputs(enclave: Enclave, storage: Storage, task_id: bytes, record: TaskRecord) -> None:
    """Raises Refused `manifest.digest` or Permanent `output.digest` where the enclave gave other bytes than it signed for,
    what the enclave says, and Retryable `storage.*`."""
    for output in record.outputs:
        await _store(enclave, storage, task_id, output)
    # R17: nobody reads a result before it is settled, a public one from the settlement.
    hidden = record.model_copy(update={"public_outputs": ()})
    await storage.put_named(record_name(task_id), hidden.canonical())


async def store_receipt(storage: Storage, task_id: bytes, receipt: bytes) -> None:
    """Raises Retryable, whatever the storage says: no settled task goes without its receipt for a fault of storage."""
    try:
        await storage.put_named(receipt_name(task_id), receipt)
    except Permanent as error:
        raise Retryable("receipt.storage", f"the receipt could not be stored: {error.message}") from error


async def _store(enclave: Enclave, storage: Storage, task_id: bytes, output: SignedShares) -> None:
    manifest = read_manifest(output.manifest, output.shares.output_id)
    for file in manifest.files:
        ciphertext = await enclave.file(task_id, file.sha256, file.size)
        if sha256(ciphertext) != file.sha256:
            raise Permanent("output.digest", "the enclave gave another file than its manifest names")
        await storage.put(ciphertext)
    await storage.put(output.manifest)
    await storage.put(output.share_list)
