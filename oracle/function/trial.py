"""Trying a function on sample rows, under the limits and in the sandbox that the enclave itself uses."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from enclave_app.protocol.abi_output import Value, decode_row, solidity_types
from enclave_app.protocol.bundle import Bundle, InputTable
from enclave_app.protocol.canonical import dump, load
from enclave_app.protocol.errors import Bug, Permanent, Refused, Retryable
from enclave_app.protocol.structs import Limits
from oracle.arrow import read_table
from oracle.dataset.sources import open_source
from oracle.dataset.types import parse_type
from oracle.function.diagnose import explain_sql_error

START_SECONDS = 60
"""What the sandbox may take to start, beyond the function's own time."""


@dataclass(frozen=True)
class PublicRow:
    """A public output (R17): `columns` maps names to their types, `solidity` are the same in Solidity, `values` the row, `data`
    the bytes that a contract gets."""

    columns: dict[str, str]
    solidity: tuple[str, ...]
    values: tuple[Value, ...]
    data: bytes


async def try_function(
    bundle: Bundle,
    samples: Mapping[str, pa.Table | Path],
    *,
    params: Mapping[str, Any] | None = None,
    limits: Limits,
    as_of: int,
) -> dict[str, pa.Table]:
    """The function's outputs on `samples` (by table name); `as_of` in unix seconds stands for the request's.

    `params` are JSON values as a request gives them. Raises Refused `trial.*` and `params.*` for what is given wrong,
    Permanent with the function's own code where it would fail in the enclave too, Retryable where the machine failed.
    """
    _, parts = await _try(bundle, samples, params, limits, as_of, public=False)
    return {name: read_table(part, most_rows=limits.output_rows) for name, part in parts.items()}


async def try_public(
    bundle: Bundle,
    samples: Mapping[str, pa.Table | Path],
    *,
    params: Mapping[str, Any] | None = None,
    limits: Limits,
    as_of: int,
) -> dict[str, PublicRow]:
    """As `try_function`, with outputs as they are where an agreement makes them public: one row each, as ABI values.

    Raises Permanent `output.…` for what is none.
    """
    answer, parts = await _try(bundle, samples, params, limits, as_of, public=True)
    rows = {}
    for name, data in parts.items():
        columns = dict(answer["columns"][name])
        types = tuple(columns.values())
        rows[name] = PublicRow(columns, solidity_types(types), decode_row(types, data), data)
    return rows


async def _try(
    bundle: Bundle,
    samples: Mapping[str, pa.Table | Path],
    params: Mapping[str, Any] | None,
    limits: Limits,
    as_of: int,
    *,
    public: bool,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    given = dump(dict(params or {}))
    values = bundle.header.params.read(given)
    stray = set(samples) ^ {table.name for table in bundle.header.tables}
    if stray:
        raise Refused(
            "trial.tables",
            "the samples are not the tables that the function reads",
            found=sorted(samples),
            expected=[table.name for table in bundle.header.tables],
        )
    tables = [await asyncio.to_thread(_stream, table, samples[table.name]) for table in bundle.header.tables]
    head = dump(
        {
            "bundle": len(bundle.raw),
            "params": len(given),
            "tables": [len(table) for table in tables],
            "asOf": as_of,
            "limits": limits.model_dump(mode="json", by_alias=True),
            "public": public,
        }
    )
    data = b"".join([len(head).to_bytes(4, "big"), head, bundle.raw, given, *tables])
    answer, parts = _read_answer(await _call(data, limits.time_seconds + START_SECONDS))
    if answer.get("ok") is not True:
        code, message = str(answer.get("code")), str(answer.get("message"))
        if code == "sql.failed" and (said := await asyncio.to_thread(explain_sql_error, bundle, values)):
            message = f"{message}: {said}"
        raise {"function": Permanent, "host": Retryable}.get(str(answer.get("kind")), Refused)(code, message)
    return answer, dict(zip(bundle.header.outputs, parts, strict=True))


async def _call(data: bytes, seconds: float) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "enclave_app.trial",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(data)
    except TimeoutError:
        raise Retryable("trial.time", "the trial did not end in time", expected=f"at most {seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = err.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1][:300]
        raise Bug("trial.crashed", "the trial's process failed", found=last or f"exit {process.returncode}")
    return out


def _read_answer(out: bytes) -> tuple[dict[str, Any], list[bytes]]:
    end = 4 + int.from_bytes(out[:4], "big")
    answer = load(out[4:end], canonical=False)
    parts, position = [], end
    for size in answer["parts"]:
        parts.append(out[position : position + size])
        position += size
    return answer, parts


def _stream(declared: InputTable, sample: pa.Table | Path) -> bytes:
    """The declared columns of a sample, cast to the declared types, as one Arrow IPC stream."""
    opened = open_source(sample)
    table = pa.Table.from_batches(opened.batches, opened.schema)
    missing = [column.name for column in declared.columns if column.name not in table.column_names]
    if missing:
        raise Refused("trial.columns", f"the sample of {declared.name} has no column {missing[0]!r}")
    schema = pa.schema([(column.name, parse_type(column.type)) for column in declared.columns])
    try:
        # A CSV's types are guessed from its text, so a sample is brought to the declared ones where that loses nothing.
        table = table.select(schema.names).cast(schema)
    except pa.ArrowException:
        raise Refused("trial.types", f"the sample of {declared.name} does not convert to the declared types") from None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
