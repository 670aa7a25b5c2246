"""Key release: what enclave, broker and recipient say to each other (R12, R13, R17), and the checks both ends share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, StrictInt

from . import signing
from .canonical import Document
from .digests import hash_abi, sha256
from .errors import Refused
from .evidence import Evidence
from .fields import Address, Bytes, Flag
from .hpke import SUITE_IDS, PublicKey, SealingKey
from .shamir import KEY_BYTES
from .shares import key_ids_digest
from .structs import (
    Agreement,
    Chain,
    OutputShares,
    RegisteredIdentity,
    ReleaseRequest,
    ReleaseStatement,
    Result,
    TaskRequest,
)

ANSWER_VERSION = 1
MAX_BODY = 32 << 20
_ENTRY = 4 + KEY_BYTES


class SignedRelease(Document):
    request: ReleaseRequest
    signature: Bytes


class ReleaseBody(Document):
    """POST /v1/release, host to broker. All of it is untrusted; `signatures` align with the agreement's parties, and are
    empty for a party whose consent the chain recorded. Manifests and share lists are canonical bytes, one per dataset."""

    v: Literal[1] = 1
    chain: Chain
    agreement: Agreement
    signatures: tuple[Bytes, ...] = Field(max_length=32)
    request: TaskRequest
    manifests: tuple[Bytes, ...] = Field(max_length=16)
    share_lists: tuple[Bytes, ...] = Field(max_length=16)
    release: SignedRelease
    evidence: Evidence


class ReleaseAnswer(Document):
    """A broker's answer: a signed statement and the shares, sealed to the enclave's sealing key."""

    v: Literal[1] = 1
    statement: ReleaseStatement
    signature: Bytes
    sealed: Bytes


class OutputBody(Document):
    """POST /v1/output, anyone to broker (R17): re-seal my share of a settled output's key to the agreed recipient.

    `enclave` is what the enclave that signed the share list is registered as: the registry keeps its digest only.
    """

    v: Literal[1] = 1
    chain: Chain
    agreement: Agreement
    request: TaskRequest
    result: Result
    output: StrictInt = Field(ge=0, lt=16)
    manifest: Bytes
    share_list: Bytes
    shares: OutputShares
    shares_signature: Bytes
    enclave: RegisteredIdentity
    recipient: Bytes


class OutputAnswer(Document):
    v: Literal[1] = 1
    sealed: Bytes


class ErrorBody(Document):
    """What a service of ours answers with a status of 400 or above. `retry` says that the same call may succeed later."""

    code: str = Field(max_length=100)
    message: str = Field(max_length=2000)
    retry: Flag


def answer_info(
    chain: Chain, agreement: Agreement, request: ReleaseRequest, datasets: Sequence[bytes], signer: str
) -> bytes:
    """H("release-answer", suite, chain, oracle, agreementId, taskId, datasetIds, signer, broker, nonce)."""
    return hash_abi(
        "release-answer",
        [
            "uint16",
            "uint16",
            "uint16",
            "uint256",
            "address",
            "bytes32",
            "bytes32",
            "bytes32[]",
            "address",
            "bytes32",
            "bytes32",
        ],
        [
            *SUITE_IDS,
            chain.chain_id,
            agreement.oracle,
            request.agreement_id,
            request.task_id,
            list(datasets),
            signer,
            request.broker,
            request.nonce,
        ],
    )


def pack_answer(x: int, shares: Mapping[tuple[int, int], bytes]) -> bytes:
    """1 ‖ x ‖ count (2) ‖ count × (dataset index (2) ‖ key index (2) ‖ share (32)), ordered, big-endian."""
    body = b"".join(d.to_bytes(2, "big") + k.to_bytes(2, "big") + shares[d, k] for d, k in sorted(shares))
    return bytes([ANSWER_VERSION, x]) + len(shares).to_bytes(2, "big") + body


def unpack_answer(plaintext: bytes) -> tuple[int, dict[tuple[int, int], bytes]]:
    """The inverse of `pack_answer`: x and the shares by (dataset index, key index)."""
    if len(plaintext) < 4 or plaintext[0] != ANSWER_VERSION:
        raise Refused("release.answer", "not a release answer of this version")
    count = int.from_bytes(plaintext[2:4], "big")
    if len(plaintext) != 4 + count * _ENTRY:
        raise Refused("release.answer", "a release answer has the wrong length", found=len(plaintext))
    shares = {}
    for start in range(4, len(plaintext), _ENTRY):
        entry = plaintext[start : start + _ENTRY]
        shares[int.from_bytes(entry[:2], "big"), int.from_bytes(entry[2:4], "big")] = entry[4:]
    if len(shares) != count or list(shares) != sorted(shares):
        raise Refused("release.answer", "a release answer names a key twice, or its keys out of order")
    return plaintext[1], shares


def open_answer(
    answer: ReleaseAnswer,
    *,
    chain: Chain,
    agreement: Agreement,
    request: ReleaseRequest,
    datasets: Sequence[bytes],
    signer: str,
    broker_signer: str,
    key: SealingKey,
) -> tuple[int, dict[tuple[int, int], bytes]]:
    """The enclave's side: check the broker's statement (R13) field by field against what was asked (R12), then
    open the shares."""
    statement = answer.statement
    asked = {
        "agreement_id": request.agreement_id,
        "task_id": request.task_id,
        "signer": signer,
        "nonce": request.nonce,
        "broker": request.broker,
        "answer": sha256(answer.sealed),
    }
    for name, expected in asked.items():
        if getattr(statement, name) != expected:
            raise Refused("release.statement", f"a broker's statement has another {name} than was asked for")
    signing.check(
        statement.typed_digest(chain.oracle_domain(agreement)), answer.signature, broker_signer, "a release statement"
    )
    x, shares = unpack_answer(key.open(answer.sealed, answer_info(chain, agreement, request, datasets, signer)))
    # Receipts keep the statement and not the answer, so this is the only place where the two are compared.
    if statement.keys != key_ids_digest(shares):
        raise Refused("release.statement", "a broker's statement names other keys than it sealed")
    return x, shares


def output_info(chain: Chain, agreement: Agreement, shares: OutputShares, broker: bytes, recipient: bytes) -> bytes:
    """H("output-answer", suite, chain, oracle, agreementId, taskId, output, broker, recipient key digest)."""
    return hash_abi(
        "output-answer",
        ["uint16", "uint16", "uint16", "uint256", "address", "bytes32", "bytes32", "bytes32", "bytes32", "bytes32"],
        [
            *SUITE_IDS,
            chain.chain_id,
            agreement.oracle,
            shares.agreement_id,
            shares.task_id,
            shares.output_id,
            broker,
            recipient,
        ],
    )


def seal_output_share(
    chain: Chain, agreement: Agreement, shares: OutputShares, broker: bytes, recipient: PublicKey, x: int, share: bytes
) -> bytes:
    return recipient.seal(
        pack_answer(x, {(0, 0): share}), output_info(chain, agreement, shares, broker, recipient.digest)
    )


def open_output_share(
    sealed: bytes, chain: Chain, agreement: Agreement, shares: OutputShares, broker: bytes, key: SealingKey
) -> tuple[int, bytes]:
    x, found = unpack_answer(key.open(sealed, output_info(chain, agreement, shares, broker, key.public.digest)))
    if set(found) != {(0, 0)}:
        raise Refused("release.answer", "an output answer holds another key than the output's")
    return x, found[0, 0]


def recipient_digests(recipients: Sequence[bytes], result_key: bytes) -> tuple[bytes, ...]:
    """An output's recipients with the zero entry replaced by the request's result key (R15)."""
    return tuple(r if any(r) else result_key for r in recipients)


def recipients_digest(recipients: Sequence[bytes], result_key: bytes) -> bytes:
    """What `Out.recipientsDigest` holds: H("recipients", bytes32[])."""
    return hash_abi("recipients", ["bytes32[]"], [list(recipient_digests(recipients, result_key))])


class SignedShares(Document):
    """An output's share list and `signer`'s word for it."""

    output: StrictInt = Field(ge=0, lt=16)
    manifest: Bytes
    share_list: Bytes
    shares: OutputShares
    signature: Bytes


class TaskRecord(Document):
    """What a worker leaves in storage under `storage.record_name`: all that recipients need, each part checked by them.

    `enclave` is what `signer` is registered as: settlements and brokers want the parts. `public_outputs` are empty in storage:
    they are published by the settlement.
    """

    v: Literal[1] = 1
    chain: Chain
    agreement: Agreement
    request: TaskRequest
    result: Result
    signature: Bytes
    signer: Address
    outputs: tuple[SignedShares, ...] = Field(max_length=16)
    releases: tuple[ReleaseAnswer, ...] = Field(max_length=16)
    evidence: Evidence
    consents: tuple[Bytes, ...] = Field(max_length=32)
    enclave: RegisteredIdentity
    public_outputs: tuple[Bytes, ...] = Field(default=(), max_length=16)
