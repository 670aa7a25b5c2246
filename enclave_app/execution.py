"""One run: ciphertext into memory, decoded in one sandboxed child, computed on in another (R6), which may serve the next task
of the same agreement over the same tables (warm.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from enclave_app.agreed import Materials
from enclave_app.config import EnclaveConfig
from enclave_app.decoded import DecodedTables
from enclave_app.fetch import Storage, together
from enclave_app.function_job import OVERHEAD, function_allowance, function_job, most_output
from enclave_app.protocol.bundle import InputTable
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.errors import Refused, Retryable
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.structs import Limits
from enclave_app.protocol.wire import TaskBody
from enclave_app.release import KeyId
from enclave_app.sandbox.host import JobCrashed, JobFailed, Sandbox
from enclave_app.sandbox.lockdown import MIB, Allowance
from enclave_app.sandbox.memory import MemoryFile
from enclave_app.warm import MOST_OUTPUT_BYTES, Kept, WarmChildren

# What a child says is untrusted: whatever took it over would write values into an error's text. So only these codes
# leave, each with a text of ours.
_TABLE_REASONS: Final = {
    "table.algorithm": "a dataset's file is encrypted with another algorithm than AES_GCM_V1",
    "table.column_name": "a dataset has a column name that cannot be mapped to a key",
    "table.decrypt": "a dataset's file does not open with its keys",
    "table.encryption": "a dataset is not a table",
    "table.footer": "a dataset's file is not a Parquet file with an encrypted footer",
    "table.key": "a dataset's data key does not open with its column's key",
    "table.key_released": "a dataset's file needs a key that was not released",
    "table.plaintext": "a dataset's column is not encrypted with its own key",
    "table.rows": "a dataset's file has another number of rows than its manifest says",
    "table.schema": "a dataset's file has other columns than its manifest says",
    "table.shared_key": "two columns of a dataset share one key",
}
_HOST_REASONS: Final = {
    "run.memory": "the function ran out of memory",
    "run.failed": "the function's runtime failed",
}


class FunctionError(Exception):
    """The function failed as it would on any machine; why is not for the host to know (R19)."""


class Executor:
    """Runs functions; holds no task, but what decoding its tables took (decoded.py), and children that have them open."""

    def __init__(self, sandbox: Sandbox, storage: Storage, config: EnclaveConfig) -> None:
        self._sandbox, self._storage, self._config = sandbox, storage, config
        self._decoded = DecodedTables(config.max_decoded_bytes)
        self._warm = WarmChildren(sandbox, config.max_memory_mib * MIB, config.max_decoded_bytes)

    async def run(self, body: TaskBody, materials: Materials, keys: dict[KeyId, bytes]) -> list[bytearray]:
        """The plaintext of each output, in order; ABI values where it is public.

        Raises FunctionError for what ends the task, Retryable for what the host can cause, Refused where a dataset is
        not what its own manifest says.
        """
        terms = {term.name: position for position, term in enumerate(body.agreement.data)}
        inputs = materials.bundle.header.tables
        positions = [terms[table.name] for table in inputs]
        decoding = _decode_job(materials, positions, keys, inputs)
        limits, request = body.agreement.fn.limits, body.request
        public = [output.name for output in body.agreement.outputs if output.is_public]
        job = function_job(materials.bundle, request.params, request.as_of, limits, public)
        name = _name_of(decoding, job)
        if (known := self._warm.idle(name)) is not None:
            again = {"kind": "again", "params": job["params"], "asOf": job["asOf"]}
            with suppress(JobCrashed), self._warm.lent(name, known):  # anyone may have ended it: then a new one is made
                return await self._compute(materials, limits, known, again, ())
        with ExitStack() as stack:
            tables = self._decoded.get(decoding, stack)
            if tables is None:
                tables = await self._tables(stack, body.storage, materials, positions, decoding)
                self._decoded.keep(decoding, tables)
            size = sum(table.size for table in tables)
            made = await self._warm.new(function_allowance(limits, size), size)
            with self._warm.lent(name, made):
                return await self._compute(materials, limits, made, job, [table.fd for table in tables])

    async def _tables(
        self,
        stack: ExitStack,
        bases: Sequence[str],
        materials: Materials,
        positions: Sequence[int],
        job: dict[str, Any],
    ) -> list[MemoryFile]:
        fetched = await together(self._fetch(stack, bases, materials.manifests[position]) for position in positions)
        tables = [stack.enter_context(MemoryFile("table")) for _ in positions]
        if positions:
            await self._decode(job, fetched, tables)
        for ciphertext, table in zip(fetched, tables, strict=True):
            ciphertext.close()
            # From here on a read-only mapping is all that anyone can make of it.
            table.seal()
        return tables

    async def _fetch(self, stack: ExitStack, bases: Sequence[str], manifest: Manifest) -> MemoryFile:
        target = stack.enter_context(MemoryFile("ciphertext", sum(file.size for file in manifest.files)))
        offset, reads = 0, []
        for file in manifest.files:
            reads.append(self._storage.file(bases, file.sha256, file.size, target, offset))
            offset += file.size
        for start in range(0, len(reads), 8):
            await together(reads[start : start + 8])
        target.seal()
        return target

    async def _decode(
        self, job: dict[str, Any], ciphertexts: Sequence[MemoryFile], tables: Sequence[MemoryFile]
    ) -> None:
        memory = self._config.max_memory_mib * MIB
        allowance = Allowance(
            memory=OVERHEAD + memory + sum(c.size for c in ciphertexts),
            cpu_seconds=self._config.max_time_seconds,
            file_bytes=memory,
        )
        descriptors = [d.fd for pair in zip(ciphertexts, tables, strict=True) for d in pair]
        try:
            await self._sandbox.run(
                job,
                descriptors,
                allowance,
                seconds=self._config.max_time_seconds,
                limit=0,
            )
        except JobFailed as error:
            if error.kind == "Refused" and error.code in _TABLE_REASONS:
                raise Refused(error.code, _TABLE_REASONS[error.code]) from None
            raise JobCrashed("run.crashed", "a dataset's decoding failed", hint="Run it again") from None

    async def _compute(
        self, materials: Materials, limits: Limits, kept: Kept, job: dict[str, Any], descriptors: Sequence[int]
    ) -> list[bytearray]:
        try:
            _, parts = await kept.child.run(job, descriptors, seconds=limits.time_seconds, limit=most_output(limits))
        except JobFailed as error:
            if error.kind == "FunctionFailed":
                raise FunctionError from None  # R19: found on any machine, so it ends the task
            if error.kind == "HostFault" and error.code in _HOST_REASONS:
                # R19: this machine's own trouble ends no task.
                raise Retryable(error.code, _HOST_REASONS[error.code], hint="Run it again") from None
            raise JobCrashed("run.crashed", "a function's process failed", hint="Run it again") from None
        if len(parts) != len(materials.bundle.header.outputs):
            raise JobCrashed("run.crashed", "a function's process gave another number of outputs")
        kept.again = sum(map(len, parts)) <= MOST_OUTPUT_BYTES
        return parts


def _name_of(decoding: Mapping[str, Any], job: Mapping[str, Any]) -> bytes:
    """Of a function over its tables: all that its child was told, and the keys that the tables were opened with (R12)."""
    asked = {name: value for name, value in job.items() if name not in ("params", "asOf")}
    return sha256(json.dumps([decoding, asked], sort_keys=True, separators=(",", ":")).encode())


def _decode_job(
    materials: Materials, positions: Sequence[int], keys: dict[KeyId, bytes], inputs: Sequence[InputTable]
) -> dict[str, Any]:
    datasets = []
    for position, table in zip(positions, inputs, strict=True):
        manifest, columns = materials.manifests[position], tuple(column.name for column in table.columns)
        # Only what this function reads, of what the agreement releases.
        needed = manifest.key_indexes(columns)
        datasets.append(
            {
                "manifest": json.loads(manifest.canonical()),
                "wanted": columns,
                "keys": {str(index): keys[position, index].hex() for index in needed},
            }
        )
    return {"kind": "decode", "datasets": datasets}
