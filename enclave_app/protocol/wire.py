"""Host ↔ enclave messages: JSON over HTTP on a Unix socket. What comes from the host is untrusted input.

GET  /v1/identity                      → Identity
POST /v1/evidence       EvidenceBody   → EvidenceAnswer
POST /v1/retire         RetireBody     → RetireAnswer

Of an enclave that runs tasks:

POST /v1/tasks          TaskBody       → TaskStarted
POST /v1/tasks/ID/run   RunBody        → TaskDone
GET  /v1/tasks/ID/files/DIGEST         → a ciphertext file of an output
DELETE /v1/tasks/ID                    → forget the task, and stop it where it runs
POST /v1/batches        BatchBody      → BatchAnswer

Of one that vouches for others' evidence:

POST /v1/appraise       AppraisalBody  → AppraisalAnswer
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .canonical import Document
from .evidence import MAX_ENDORSEMENTS
from .fields import Address, Bytes, Bytes32, Flag, Uint8, Uint64, Uint256
from .release import ReleaseAnswer, SignedRelease, SignedShares
from .structs import Agreement, Batch, Chain, Result, TaskRequest, VerifierStatement

MAX_QUOTE = 64 << 10
MAX_BATCH = 1024
"""Tasks in a batch: about as many as one transaction settles."""
MAX_OVER = 256
"""Tasks that one start lets go of."""
INLINE = 16 << 10
"""Bytes of an output's ciphertext that come with the result itself."""
MAX_CRL = 256 << 10
"""Bytes of a maker's list, which is read before its signature can be checked."""


class Identity(Document):
    """Who the enclave says it is; only evidence proves it. `attester` is the kind that mints its evidence."""

    v: Literal[1] = 1
    signer: Address
    sealing_key: Bytes
    tee: Uint8
    attester: str
    measurement: Bytes32
    sandbox: tuple[str, ...]
    simulated: Flag


class EvidenceBody(Document):
    chain_id: Uint256
    registry: Address
    block_hash: Bytes32
    operator: Address


class EvidenceAnswer(Document):
    """`endorsements` are those of `Evidence`."""

    quote: Bytes
    proof_of_possession: Bytes
    endorsements: tuple[Bytes, ...] = Field(default=(), max_length=MAX_ENDORSEMENTS)


class RetireBody(Document):
    """The registry that is to hear that this enclave will sign nothing more that counts."""

    chain_id: Uint256
    registry: Address


class RetireAnswer(Document):
    """The signer's signature over `Retire`."""

    signature: Bytes


class AppraisalBody(Document):
    """Evidence to vouch for at the registry of that chain. `endorsements` are those of `Evidence`, `crl` is the maker's list
    of what it revoked, `now` in unix seconds: the registry holds it against its block's time (R14)."""

    chain_id: Uint256
    registry: Address
    tee: Uint8
    quote: Bytes = Field(max_length=MAX_QUOTE)
    endorsements: tuple[Bytes, ...] = Field(default=(), max_length=MAX_ENDORSEMENTS)
    crl: Bytes | None = Field(default=None, max_length=MAX_CRL)
    now: Uint64


class AppraisalAnswer(Document):
    """`signature` is by the enclave's `signer`, in the registry's domain."""

    statement: VerifierStatement
    signature: Bytes


class TaskBody(Document):
    """Start a task. `storage` are base URIs under which blobs lie by the hex of their SHA-256; `over` are earlier tasks to
    forget, so that none of them needs a message of its own."""

    chain: Chain
    agreement: Agreement
    request: TaskRequest
    payee: Address
    anchor: Bytes32
    storage: tuple[str, ...] = Field(min_length=1, max_length=16)
    over: tuple[Bytes32, ...] = Field(default=(), max_length=MAX_OVER)


class TaskStarted(Document):
    """One signed release request per broker of the agreement, in its order, all with one fresh nonce (R12)."""

    task_id: Bytes32
    releases: tuple[SignedRelease, ...]


class RunBody(Document):
    """The brokers' answers. Those that are wrong are left out and blamed; `t` good ones are enough (R11)."""

    answers: tuple[ReleaseAnswer, ...] = Field(max_length=16)


class Blame(Document):
    broker: Bytes32
    code: str


class TaskDone(Document):
    """A signed result. `outputs` are the sealed ones, `public_outputs` the content of those without recipients, in their order;
    a signed failure has neither (R19). `files` are those ciphertext files of the outputs that are small, so that nobody has to
    ask for them; `enclave_ms` is what the run took, in ms."""

    result: Result
    signature: Bytes
    outputs: tuple[SignedShares, ...]
    blamed: tuple[Blame, ...]
    used: tuple[Bytes32, ...]
    enclave_ms: Uint64
    public_outputs: tuple[Bytes, ...] = Field(default=(), max_length=16)
    files: tuple[Bytes, ...] = Field(default=(), max_length=16)


class BatchBody(Document):
    """Tasks that ran here and are not forgotten, in the order in which they are to be settled, each once."""

    tasks: tuple[Bytes32, ...] = Field(min_length=1, max_length=MAX_BATCH)


class BatchAnswer(Document):
    """`signature` is by the enclave's `signer`, over the batch's digest in the oracle's domain."""

    batch: Batch
    signature: Bytes
