"""A function as the sandbox takes it: the same job and the same limits in the enclave and in a trial."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from enclave_app.protocol.bundle import Bundle
from enclave_app.protocol.structs import Limits
from enclave_app.sandbox.lockdown import MIB, Allowance

OVERHEAD: Final = 128 * MIB
"""What a child needs beside its data: the interpreter's and the libraries' own."""
_OUTPUT_COPIES: Final = 4
_STREAM_OVERHEAD: Final = MIB


def function_job(
    bundle: Bundle, params: bytes, as_of: int, limits: Limits, public: Collection[str] = ()
) -> dict[str, Any]:
    """The job that runs `bundle`'s entry; one descriptor of an Arrow IPC stream goes with it for each of its tables. `public`
    are the names of the outputs that it gives as ABI values (R17), all others as Arrow IPC streams."""
    header = bundle.header
    return {
        "kind": header.kind,
        "entry": bundle.entry_text(),
        "tables": [table.name for table in header.tables],
        "outputs": list(header.outputs),
        "public": [name for name in header.outputs if name in public],
        "domain": header.params.model_dump(mode="json", by_alias=True),
        "params": params.hex(),
        "asOf": as_of,
        "limits": limits.model_dump(mode="python", by_alias=False),
    }


def function_allowance(limits: Limits, input_bytes: int) -> Allowance:
    """What the function's child may use. It writes no file, not even in memory: outputs go through its socket."""
    memory = limits.memory_mib * MIB + _OUTPUT_COPIES * limits.output_bytes + input_bytes
    return Allowance(memory=OVERHEAD + memory, cpu_seconds=limits.time_seconds + 1, file_bytes=0)


def most_output(limits: Limits) -> int:
    """Bytes that the child may send: the agreed size of the columns, and what the stream format adds."""
    return limits.output_bytes + _STREAM_OVERHEAD
