"""What the enclave is launched with: one canonical JSON document, whose digest is part of the measurement (R3).

Nothing else that matters for safety reaches the enclave: it reads no environment and refuses unknown arguments.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from enclave_app.protocol.canonical import Document, parse

MAX_CONFIG = 65_536


class EnclaveConfig(Document):
    """Ceilings that hold whatever an agreement says. Memory in MiB, time in seconds, sizes in bytes.

    `max_input_bytes` bounds a task's ciphertext, `max_kept_bytes` what the started tasks hold (their documents, and the
    sealed outputs that wait to be collected), `max_tasks` the tasks that are started and not forgotten, `max_running`
    those that run at one time.
    """

    format: Literal["enclave-oracle/enclave"] = "enclave-oracle/enclave"
    v: Literal[1] = 1
    attester: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    storage_schemes: tuple[Literal["file", "http", "https"], ...] = Field(
        default=("file", "http", "https"), min_length=1
    )
    max_memory_mib: int = Field(default=4096, ge=16, le=1 << 20)
    max_time_seconds: int = Field(default=600, ge=1, le=86_400)
    max_output_bytes: int = Field(default=256 << 20, ge=1024, le=1 << 40)
    max_input_bytes: int = Field(default=4 << 30, ge=1024, le=1 << 42)
    max_kept_bytes: int = Field(default=1 << 30, ge=1024, le=1 << 42)
    max_tasks: int = Field(default=256, ge=1, le=65_536)
    max_running: int = Field(default=2, ge=1, le=256)
    fetch_seconds: int = Field(default=120, ge=1, le=86_400)


def read_config(data: bytes) -> EnclaveConfig:
    """Raises `Refused` for anything that is not exactly one canonical configuration."""
    return parse(EnclaveConfig, data, limit=MAX_CONFIG)
