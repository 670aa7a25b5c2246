"""What the chain has to have recorded of a receipt, one thing changed at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import admission_hash, settlement_hash
from enclave_app.protocol.structs import Outcome, TaskState
from oracle.agreement.terms import check_request_terms
from oracle.chain.reader import AgreementRecord, AgreementStatus, EnclaveRecord, Standing, TaskOnChain
from oracle.chain.source import Block
from oracle.errors import OracleError
from oracle.receipt import CHAIN_LINKS, Receipt, read_receipt
from oracle.receipt.onchain import ChainView
from tests.receipt_kit import make_story

STORY = make_story()
RECEIPT = read_receipt(STORY.receipt)
DIGEST = RECEIPT.result.typed_digest(RECEIPT.chain.oracle_domain(RECEIPT.agreement))
TASK = TaskOnChain(TaskState.FULFILLED, 1, 2, 0, 0, DIGEST[:31], False)
AGREED = AgreementRecord(
    oracle=RECEIPT.agreement.oracle,
    status=AgreementStatus.ACTIVE, not_before=0, not_after=1, release_delay=0, quota=1, used=1, quota_per_requester=1,
    token=ZERO_ADDRESS, fee=0,
    admission_hash=admission_hash(RECEIPT.agreement), settlement_hash=settlement_hash(RECEIPT.agreement),
)  # fmt: skip
STANDING = Standing(
    tcb_status=1, retired=True, earlier_status=0, evaluation=17, earlier_evaluation=0, changed_at=0, evidence_at=0,
    valid_until=0, block_number=0,
)  # fmt: skip
ENCLAVE = EnclaveRecord(STORY.record.enclave.digest, STANDING)
BOUND = Block(5, RECEIPT.evidence.block_hash, b"", 1000)
READ = Block(7, b"\x07" * 32, b"", 1000 + RECEIPT.agreement.tee.max_evidence_age)
VIEW = ChainView(AGREED, TASK, ENCLAVE, STORY.record.enclave, BOUND, (READ, READ))


def failure(view: ChainView, receipt: Receipt = RECEIPT) -> tuple[str, str] | None:
    """The first link that fails, and its code."""
    terms = check_request_terms(receipt.chain, receipt.agreement, receipt.agreement_id, receipt.request)
    for name, link in CHAIN_LINKS.items():
        try:
            link(receipt, terms, view)
        except OracleError as error:
            return name, error.code
    return None


def test_what_was_recorded_so_passes_also_when_the_enclave_is_long_retired() -> None:
    assert failure(VIEW) is None


@pytest.mark.parametrize("status", [AgreementStatus.SUSPENDED, AgreementStatus.REVOKED, AgreementStatus.SUPERSEDED])
def test_narrowing_takes_no_receipt_back(status: AgreementStatus) -> None:
    assert failure(replace(VIEW, agreement=replace(AGREED, status=status))) is None


@pytest.mark.parametrize(
    ("changes", "link", "code"),
    [
        ({"agreement": replace(AGREED, status=AgreementStatus.NONE)}, "activation", "agreement.inactive"),
        ({"agreement": replace(AGREED, oracle="0x" + "99" * 20)}, "activation", "agreement.contracts"),
        ({"agreement": replace(AGREED, settlement_hash=b"\1" * 32)}, "activation", "agreement.contracts"),
        ({"agreement": replace(AGREED, admission_hash=b"\1" * 32)}, "activation", "agreement.admission"),
        ({"task": replace(TASK, state=TaskState.REQUESTED)}, "settlement", "settled.state"),
        ({"task": replace(TASK, state=TaskState.FAILED)}, "settlement", "settled.state"),
        ({"task": replace(TASK, result_digest=b"\1" * 31)}, "settlement", "settled.result"),
        ({"task": replace(TASK, result_digest=DIGEST[:30])}, "settlement", "settled.result"),
        ({"enclave": None}, "registration", "registered.unknown"),
        ({"enclave": replace(ENCLAVE, digest=b"\1" * 32)}, "registration", "registered.identity"),
        ({"evidence_block": None}, "blocks", "blocks.evidence"),
        ({"release_blocks": (READ, None)}, "blocks", "blocks.release"),
        ({"release_blocks": (READ, replace(READ, hash=b"\1" * 32))}, "blocks", "blocks.release"),
        ({"release_blocks": (READ, replace(READ, timestamp=READ.timestamp + 1))}, "blocks", "blocks.age"),
    ],
)
def test_what_was_recorded_otherwise_is_refused_by_its_link(changes: dict[str, Any], link: str, code: str) -> None:
    assert failure(replace(VIEW, **changes)) == (link, code)


def test_a_failure_has_to_be_settled_as_one() -> None:
    story = make_story(outcome=Outcome.FAILED)
    receipt = read_receipt(story.receipt)
    digest = receipt.result.typed_digest(receipt.chain.oracle_domain(receipt.agreement))
    view = replace(VIEW, task=replace(TASK, state=TaskState.FAILED, result_digest=digest[:31]))
    agreed = replace(
        AGREED,
        admission_hash=admission_hash(receipt.agreement),
        settlement_hash=settlement_hash(receipt.agreement),
    )
    same = replace(ENCLAVE, digest=story.record.enclave.digest)
    assert failure(replace(view, agreement=agreed, enclave=same, identity=story.record.enclave), receipt) is None
