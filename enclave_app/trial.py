"""`python -m enclave_app.trial`: one function on sample rows, in the sandbox of the enclave; no keys, no attestation.

For authors of functions, who want to see what the enclave would do. On standard input:

    length (4, big-endian) ‖ JSON {"bundle", "params": sizes in bytes; "tables": [sizes]; "asOf"; "limits": Limits;
    "public": whether its outputs are to be} ‖ the bundle ‖ the params ‖ one Arrow IPC stream per table, in its order

On standard output: length ‖ JSON {"ok": true, "parts": [sizes], "columns": {public output: [[name, type]]}} ‖ one Arrow
IPC stream per output, or its ABI values where it is public; or
{"ok": false, "kind": "function" | "host" | "refused", "code", "message", "parts": []}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, Any, Final

from enclave_app.function_job import function_allowance, function_job, most_output
from enclave_app.protocol.bundle import read_bundle
from enclave_app.protocol.canonical import load, validate
from enclave_app.protocol.errors import Bug, OracleError, Refused, Retryable
from enclave_app.protocol.structs import FunctionKind, Limits
from enclave_app.sandbox.host import JobFailed, Sandbox
from enclave_app.sandbox.memory import MemoryFile
from enclave_app.sandbox.zygote import Jobs

MAX_HEAD: Final = 1 << 20


def main() -> int:
    # First of all, while there is one thread: the child that runs the function never sees what is read below.
    sandbox = Sandbox.fork(_warm)
    try:
        sandbox.ready()
        answer, parts = asyncio.run(_run(sandbox, sys.stdin.buffer))
    except OracleError as error:
        answer, parts = {"ok": False, "kind": _kind(error), "code": error.code, "message": error.message}, []
    head = json.dumps({**answer, "parts": [len(part) for part in parts]}).encode()
    for piece in (len(head).to_bytes(4, "big"), head, *parts):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


async def _run(sandbox: Sandbox, source: IO[bytes]) -> tuple[dict[str, Any], Sequence[bytes | bytearray]]:
    head = load(_exactly(source, min(int.from_bytes(_exactly(source, 4), "big"), MAX_HEAD)), canonical=False)
    limits = validate(Limits, head["limits"])
    bundle = read_bundle(_exactly(source, head["bundle"]), None)
    params = _exactly(source, head["params"])
    header = bundle.header
    if FunctionKind[header.kind.upper()] is not FunctionKind.SQL:
        raise Refused("function.kind", "this version runs only SQL functions", found=header.kind)
    header.params.read(params)
    job = function_job(bundle, params, head["asOf"], limits, header.outputs if head["public"] else ())
    sandbox.attach(lambda: None)
    with ExitStack() as stack:
        descriptors = []
        for size in head["tables"]:
            file = stack.enter_context(MemoryFile("sample", size))
            file.write_at(_exactly(source, size), 0)
            file.seal()
            descriptors.append(file.fd)
        allowance = function_allowance(limits, sum(head["tables"]))
        answer, parts = await sandbox.run(
            job, descriptors, allowance, seconds=limits.time_seconds, limit=most_output(limits)
        )
    return {"ok": True, "columns": answer["columns"]}, parts


def _warm() -> Jobs:
    from enclave_app.sandbox import jobs  # only the zygote may load what parses foreign bytes

    return jobs.warm()


def _kind(error: OracleError) -> str:
    # By name: the runtimes' own module loads pyarrow, which belongs into the sandboxed process only.
    if isinstance(error, JobFailed):
        return {"FunctionFailed": "function", "HostFault": "host"}.get(error.kind, "refused")
    return "host" if isinstance(error, Retryable | Bug) else "refused"


def _exactly(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise Refused("trial.input", "the trial's input is cut short", found=len(data), expected=size)
    return data


if __name__ == "__main__":
    sys.exit(main())
