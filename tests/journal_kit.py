"""A journal's world without a chain: blocks, logs and requests as short as they can be."""

from __future__ import annotations

import json
from pathlib import Path

from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.release import TaskRecord
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Chain, RegisteredIdentity, Result, TaskRequest
from oracle.chain.abi import Log
from oracle.chain.events import AgreementActivated, AgreementApproved, TaskEnded, TaskRequested
from oracle.chain.source import Block
from oracle.worker.journal import Journal
from oracle.worker.rows import Task
from oracle.worker.states import State

ADDRESS = "0x" + "11" * 20
AGREEMENT = b"\xaa" * 32
VECTORS = json.loads((Path(__file__).parent / "vectors" / "eip712.json").read_text("utf-8"))["cases"]
AGREED = Agreement(**next(case["value"] for case in VECTORS if case["type"] == "Agreement"))


def word(number: int, fork: int = 0) -> bytes:
    return bytes([fork]) + number.to_bytes(31, "big")


def block(number: int, fork: int = 0) -> Block:
    return Block(number, word(number, fork), word(number - 1, fork), 1_800_000_000 + number)


def log(number: int, index: int, fork: int = 0) -> Log:
    return Log(ADDRESS, (), b"", number, word(number, fork), word(1000 * number + index, fork), index)


def requested(task: int, number: int, fork: int = 0) -> TaskRequested:
    request = TaskRequest(
        agreement_id=AGREEMENT,
        requester=ADDRESS,
        nonce=word(task),
        versions=(),
        inputs_id=bytes(32),
        input_shares=bytes(32),
        params=b"{}",
        result_key=bytes(32),
        spend=0,
        max_fee=1 << 200,
        as_of=1,
        deadline=1 << 40,
        callback=ADDRESS,
        callback_gas=0,
    )
    return TaskRequested(word(task), AGREEMENT, request, "a hint with \x00 and ü", log(number, task, fork))


def ended(task: int, number: int, how: str = "TaskCancelled", fork: int = 0) -> TaskEnded:
    return TaskEnded(word(task), AGREEMENT, how, log(number, 500 + task, fork))


def approved(number: int) -> AgreementApproved:
    key = SigningKey.generate()
    return AgreementApproved(AGREEMENT, key.address, key.sign(AGREEMENT), log(number, 1))


def activated(number: int) -> AgreementActivated:
    return AgreementActivated(AGREEMENT, AGREED, tuple(b"" for _ in AGREED.parties()), log(number, 2))


def state(journal: Journal, task: int) -> State | None:
    found = journal.task(word(task))
    return None if found is None else found.state


def task(journal: Journal, number: int) -> Task:
    found = journal.task(word(number))
    assert found is not None
    return found


def record(event: TaskRequested) -> TaskRecord:
    """What an enclave might have signed for a request; nobody checks it here."""
    agreement_id, request = event.agreement_id, event.request
    return TaskRecord(
        chain=Chain(chain_id=1, agreement_registry=ADDRESS),
        agreement=AGREED,
        request=request,
        result=Result(
            agreement_id=agreement_id,
            task_id=event.task_id,
            outcome=1,
            outputs=(),
            payee=ADDRESS,
            anchor=bytes(32),
        ),
        signature=b"\x01",
        signer=ADDRESS,
        outputs=(),
        releases=(),
        evidence=Evidence(
            tee=1,
            quote=b"",
            signer=ADDRESS,
            sealing_key=b"",
            chain_id=1,
            registry=ADDRESS,
            block_number=0,
            block_hash=bytes(32),
            operator=ADDRESS,
            operator_signature=b"",
        ),
        consents=(),
        enclave=RegisteredIdentity(
            measurement=bytes(32),
            platform=bytes(32),
            sealing_key=bytes(32),
            svn_digest=bytes(32),
            verifier=bytes(32),
            operator=ADDRESS,
            tee=1,
        ),
    )
