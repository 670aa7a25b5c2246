"""The jobs that run in sandboxed children: decode a dataset, run an SQL function. Imported by the zygote only."""

from __future__ import annotations

import datetime
import secrets
import sys
from collections.abc import Callable, Sequence
from io import FileIO
from typing import Any, Final

# pyarrow and DuckDB take numpy and pandas when they are there; then a process has more threads, and the enclave more
# code that no measurement names.
for _absent in ("numpy", "pandas"):
    sys.modules.setdefault(_absent, None)  # type: ignore[arg-type]

import pyarrow as pa  # noqa: E402

from enclave_app import tables  # noqa: E402
from enclave_app.protocol import pme  # noqa: E402
from enclave_app.protocol.abi_output import MAX_PUBLIC_BYTES  # noqa: E402
from enclave_app.protocol.canonical import validate  # noqa: E402
from enclave_app.protocol.digests import commitment  # noqa: E402
from enclave_app.protocol.manifest import Column, File, Manifest  # noqa: E402
from enclave_app.protocol.params import ParamDomain  # noqa: E402
from enclave_app.runtimes.arrow_output import encode_public, encode_table  # noqa: E402
from enclave_app.runtimes.base import FunctionFailed, FunctionSource, HostFault, RunLimits  # noqa: E402
from enclave_app.runtimes.sql import SqlRuntime  # noqa: E402
from enclave_app.sandbox.memory import MemoryFile, map_read_only  # noqa: E402
from enclave_app.sandbox.zygote import Jobs  # noqa: E402

Answer = tuple[dict[str, Any], Sequence[bytes | memoryview]]

DECODE: Final = "decode"
SQL: Final = "sql"
AGAIN: Final = "again"


def decode(job: dict[str, Any], descriptors: Sequence[int]) -> Answer:
    """{"datasets": [{"manifest", "wanted": [columns], "keys": {index: hex}}]}; two descriptors for each dataset, its
    ciphertext and the file for its table.

    One child for all of a task's datasets, because a child costs more than decoding a small table does.
    """
    rows = []
    for position, dataset in enumerate(job["datasets"]):
        manifest = tables.manifest_of(dataset["manifest"])
        keys = {int(index): bytes.fromhex(key) for index, key in dataset["keys"].items()}
        ciphertext, target = descriptors[2 * position : 2 * position + 2]
        with FileIO(target, "w") as sink:
            rows.append(tables.decode_dataset(manifest, dataset["wanted"], keys, map_read_only(ciphertext), sink))
    return {"rows": rows}, ()


class SqlJob:
    """{"entry", "tables", "outputs", "public": [outputs], "domain", "params": hex, "asOf", "limits"}; one descriptor per
    table, in order. The answer has the columns of public outputs, for a trial to show.

    `again` takes {"params", "asOf"}, and answers the function that the child has open.
    """

    def __init__(self, runtime: SqlRuntime) -> None:
        self._runtime = runtime
        self._opened: tuple[ParamDomain, FunctionSource, Sequence[str], RunLimits] | None = None

    def __call__(self, job: dict[str, Any], descriptors: Sequence[int]) -> Answer:
        domain = validate(ParamDomain, job["domain"])
        params = domain.read(bytes.fromhex(job["params"]))
        source = FunctionSource(job["entry"], tuple(job["tables"]), tuple(params), tuple(job["outputs"]))
        inputs = {
            name: tables.read_stream(map_read_only(descriptor))
            for name, descriptor in zip(source.tables, descriptors, strict=True)
        }
        limits = RunLimits(**job["limits"])
        self._runtime.open(source, inputs, limits)
        self._opened = domain, source, job["public"], limits
        return self.again(job, ())

    def again(self, job: dict[str, Any], descriptors: Sequence[int]) -> Answer:
        if self._opened is None:
            raise HostFault("run.failed", "this process has no function open")
        domain, source, names, limits = self._opened
        found = self._runtime.answer(domain.read(bytes.fromhex(job["params"])), job["asOf"])
        public = {name: encode_public(found[name]) for name in names}
        # What was agreed (R7), and what one transaction carries: a result that nobody can settle is none.
        if sum(map(len, public.values())) > min(limits.output_bytes, MAX_PUBLIC_BYTES):
            raise FunctionFailed(
                "output.limit", "the function's public output is larger than agreed, or than can be settled"
            )
        columns = {name: [[field.name, str(field.type)] for field in found[name].schema] for name in public}
        return {"columns": columns}, [
            public[name] if name in public else encode_table(found[name]) for name in source.outputs
        ]


def warm() -> Jobs:
    """The handlers, each run once on made-up rows, so that no child pays for first use or needs a file later."""
    pa.set_memory_pool(pa.system_memory_pool())
    runtime = SqlRuntime()
    rehearse = _rehearsal(runtime)
    rehearse()
    sql = SqlJob(runtime)
    return Jobs({DECODE: decode, SQL: sql, AGAIN: sql.again}, rehearse)


def _rehearsal(runtime: SqlRuntime) -> Callable[[], None]:
    """A task in small, over made-up rows under made-up keys: what it touches, the next task will touch."""
    table = pa.table(
        {"id": [1, 2, 3], "x": [0.5, None, 1.5], "d": [datetime.date(2020, 1, 1)] * 3, "t": ["a", "b", "c"]}
    )
    columns = tuple(Column(name=f.name, type=str(f.type), key=i) for i, f in enumerate(table.schema, 1))
    keys = {index: secrets.token_bytes(32) for index in range(len(columns) + 1)}
    data = pme.encrypt_table(table, list(keys.values()), columns)
    manifest = Manifest(
        encryption="parquet-aes-gcm-v1",
        lineage=bytes(32),
        files=(File(sha256=bytes(32), size=len(data), rows=table.num_rows),),
        columns=columns,
        keys=tuple(commitment(key) for key in keys.values()),
    )

    def rehearse() -> None:
        with MemoryFile("rehearsal") as target:
            with FileIO(target.fd, "w", closefd=False) as sink:
                tables.decode_dataset(manifest, table.column_names, keys, memoryview(data), sink)
            runtime.warm(tables.read_stream(map_read_only(target.fd)))

    return rehearse
