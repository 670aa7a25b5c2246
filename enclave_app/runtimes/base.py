"""What every runtime takes and gives, and the two ways in which it may not give it (R19)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import pyarrow as pa

from enclave_app.protocol.errors import Permanent, Retryable

ParamValue = int | str | bool | Decimal | datetime.date
"""A public parameter's value, as `ParamDomain.read` gives it."""


class FunctionFailed(Permanent):
    """The function cannot give its outputs, and would not on any machine: this ends the task with a signed failure."""


class HostFault(Retryable):
    """Something that the host can cause (memory, time, a crash, a missing file): never ends a task."""


@dataclass(frozen=True)
class RunLimits:
    """`memory_mib` in MiB, `time_seconds` of wall clock, `output_bytes` and `output_rows` over all outputs together."""

    memory_mib: int
    time_seconds: int
    output_bytes: int
    output_rows: int


@dataclass(frozen=True)
class FunctionSource:
    """`entry` is the source text, `tables` the inputs it declared, `params` the names of its parameters, `outputs` the
    names of what it makes, in order."""

    entry: str
    tables: tuple[str, ...]
    params: tuple[str, ...]
    outputs: tuple[str, ...]


class Runtime(Protocol):
    def run(
        self,
        source: FunctionSource,
        inputs: Mapping[str, pa.Table],
        params: Mapping[str, ParamValue],
        as_of: int,
        limits: RunLimits,
    ) -> dict[str, pa.Table]:
        """One Arrow table per output name. `as_of` in unix seconds is the only clock there is (R14).

        Raises FunctionFailed or HostFault; neither message holds anything of the data.
        """
        ...
