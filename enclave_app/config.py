"""What the enclave is launched with: one canonical JSON document, whose digest is part of the measurement (R3).

Nothing else that matters for safety reaches the enclave: it reads no environment and refuses unknown arguments.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.fields import Bytes32, Uint8

MAX_CONFIG = 65_536


Roots = Annotated[tuple[Bytes32, ...], Field(min_length=1, max_length=16)]
"""SHA-256 of the root certificates (DER) that count: a maker's, or a development root's (R4)."""


class Svns(Document):
    """The least version of each component with which a processor is up to date."""

    bootloader: Uint8
    tee: Uint8
    snp: Uint8
    microcode: Uint8


class TurinSvns(Svns):
    fmc: Uint8


class MinTcb(Document):
    """By processor line; null for a line that is not vouched for."""

    milan: Svns | None
    genoa: Svns | None
    turin: TurinSvns | None


class SnpPolicy(Document):
    """`vmpl` are the privilege levels that may ask, `keys` the kinds of endorsement key that count. `crl` is the list of what
    AMD revoked, `aliasCheck` the firmware's own check for aliased memory. The guest's policy is part of its measurement.
    """

    roots: Roots
    min_tcb: MinTcb
    vmpl: tuple[Annotated[Uint8, Field(le=3)], ...] = Field(min_length=1, max_length=4)
    keys: tuple[Literal["VCEK", "VLEK"], ...] = Field(min_length=1, max_length=2)
    crl: Literal["require", "skip"]
    alias_check: Literal["require", "skip"]


class NitroPolicy(Document):
    roots: Roots


class VerifierPolicy(Document):
    """What a verifier enclave vouches for; nothing of a kind that is null. Every field has to be written (R21)."""

    snp: SnpPolicy | None
    nitro: NitroPolicy | None

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.snp is None and self.nitro is None:
            raise ValueError("give `snp`, `nitro` or both")
        return self


class EnclaveConfig(Document):
    """An enclave either runs tasks or vouches for others' evidence under `verifier`, never both.

    Ceilings that hold whatever an agreement says. Memory in MiB, time in seconds, sizes in bytes.

    `max_input_bytes` bounds a task's ciphertext, `max_kept_bytes` what the started tasks hold (their documents, and the
    sealed outputs that wait to be collected), `max_tasks` the tasks that are started and not forgotten, `max_running`
    those that run at one time, `max_decoded_bytes` the small tables that are kept decoded for the next task with the same
    keys (none where it is 0).
    """

    format: Literal["enclave-oracle/enclave"] = "enclave-oracle/enclave"
    v: Literal[1] = 1
    attester: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    role: Literal["tasks", "verifier"] = "tasks"
    verifier: VerifierPolicy | None = None
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
    max_decoded_bytes: int = Field(default=64 << 20, ge=0, le=1 << 40)
    fetch_seconds: int = Field(default=120, ge=1, le=86_400)

    @model_validator(mode="after")
    def _policy_of_a_verifier(self) -> Self:
        if (self.role == "verifier") != (self.verifier is not None):
            raise ValueError("the role `verifier` and a policy `verifier` go together")
        return self


def read_config(data: bytes) -> EnclaveConfig:
    """Raises `Refused` for anything that is not exactly one canonical configuration."""
    return parse(EnclaveConfig, data, limit=MAX_CONFIG)
