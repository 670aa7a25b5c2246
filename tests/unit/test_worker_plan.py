"""Whether a task is ours. Each negative changes one thing of a task that is."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.structs import Agreement, RegisteredIdentity, TaskRequest
from enclave_app.protocol.wire import Identity
from oracle.chain.deploy import Deployment
from oracle.chain.reader import IdentityRecord, Standing
from oracle.errors import Retryable
from oracle.worker.plan import DeadlinePassed, NotOurs, Plan, check_deadline, check_release_time, make_plan
from oracle.worker.register import Enrolled
from oracle.worker.rows import StoredAgreement, Task
from oracle.worker.states import State
from tests.worker_kit import TinyBroker, terms


def address(digit: str) -> str:
    return "0x" + digit * 40


DEPLOYMENT = Deployment(
    chain_id=31337,
    agreement_registry=address("1"),
    enclave_registry=address("2"),
    oracle=address("3"),
    streams=address("b"),
    audits=address("c"),
    verifiers={},
    collateral=address("a"),
    first_block=0,
)
TOKEN = "0x" + "7" * 40
NOW = int(time.time())
MEASUREMENT, ANCHOR, PLATFORM = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
OPERATOR, OTHER = address("5"), b"\x09" * 32
BROKERS = [TinyBroker() for _ in range(3)]
AGREEMENT = terms(DEPLOYMENT, address("4"), MEASUREMENT, ANCHOR, BROKERS, (b"\x04" * 32, b"\x05" * 32, b"\x06" * 32))
ENDPOINTS = tuple(broker.digest for broker in BROKERS)
ENROLLED = Enrolled(
    identity=Identity(
        signer=address("6"),
        sealing_key=b"key",
        tee=1,
        attester="software",
        measurement=MEASUREMENT,
        sandbox=(),
        simulated=True,
    ),
    anchor=ANCHOR,
    evidence=Evidence(
        tee=1,
        quote=b"quote",
        signer=address("6"),
        sealing_key=b"key",
        chain_id=31337,
        registry=address("2"),
        block_number=1,
        block_hash=ZERO32,
        operator=OPERATOR,
        operator_signature=b"",
    ),
    record=IdentityRecord(
        identity=RegisteredIdentity(
            measurement=MEASUREMENT,
            platform=PLATFORM,
            sealing_key=ZERO32,
            svn_digest=ZERO32,
            verifier=ZERO32,
            operator=OPERATOR,
            tee=1,
        ),
        standing=Standing(
            tcb_status=1,
            retired=False,
            earlier_status=0,
            evaluation=17,
            earlier_evaluation=0,
            changed_at=0,
            evidence_at=0,
            valid_until=1 << 40,
            block_number=1,
        ),
    ),
)


def request(**changes: Any) -> TaskRequest:
    fields: dict[str, Any] = {
        "agreement_id": b"\x07" * 32,
        "requester": address("8"),
        "nonce": b"\x08" * 32,
        "versions": (b"\x04" * 32,),
        "inputs_id": ZERO32,
        "input_shares": ZERO32,
        "params": b"{}",
        "result_key": b"\x0a" * 32,
        "spend": 0,
        "max_fee": 0,
        "as_of": 1,
        "deadline": int(time.time()) + 1000,
        "callback": ZERO_ADDRESS,
        "callback_gas": 0,
    }
    return TaskRequest(**{**fields, **changes})


def task(asked: TaskRequest) -> Task:
    return Task(b"\x0b" * 32, b"\x07" * 32, asked, "", State.SEEN, 0, 0.0, None, None, None, None, 10, b"\x0c" * 32)


def plan(
    agreement: Agreement = AGREEMENT,
    asked: TaskRequest | None = None,
    enrolled: Enrolled = ENROLLED,
    endpoints: tuple[bytes, ...] = ENDPOINTS,
    **limits: Any,
) -> Plan:
    stored = StoredAgreement(b"\x07" * 32, agreement, ())
    return make_plan(task(asked or request()), stored, enrolled, DEPLOYMENT, endpoints, NOW, **limits)


def tee(**changes: Any) -> Agreement:
    return AGREEMENT.model_copy(update={"tee": AGREEMENT.tee.model_copy(update=changes)})


def recorded(measurement: bytes = MEASUREMENT, **standing: Any) -> Enrolled:
    record = ENROLLED.record
    identity = record.identity.model_copy(update={"measurement": measurement})
    return replace(ENROLLED, record=IdentityRecord(identity, replace(record.standing, **standing)))


def priced(fee: int, failed_fee: int, bps: int = 0) -> Agreement:
    shares = {"to": (address("9"),), "bps": (bps,)} if bps else {"to": (), "bps": ()}
    price = AGREEMENT.price.model_copy(update={"fee": fee, "failed_fee": failed_fee, **shares})
    return AGREEMENT.model_copy(update={"price": price})


def test_a_task_that_pays_what_was_asked_for_is_planned() -> None:
    assert plan(priced(1000, 500), min_fee=500).agreement.price.fee == 1000
    assert plan(priced(1000, 1000, bps=5000), min_fee=500).agreement.price.fee == 1000
    assert plan(asked=request(callback_gas=100), max_callback_gas=100).request.callback_gas == 100


@pytest.mark.parametrize("agreement", [priced(499, 499), priced(1000, 499), priced(1000, 1000, bps=5010)])
def test_a_task_that_may_pay_less_than_was_asked_for_is_not_ours(agreement: Agreement) -> None:
    """Anyone can activate an agreement that names this worker's enclave; its settlements must not be at our cost."""
    with pytest.raises(NotOurs) as refused:
        plan(agreement, min_fee=500)
    assert refused.value.code == "plan.fee"


def in_token(agreement: Agreement) -> Agreement:
    price = agreement.price.model_copy(update={"token": TOKEN})
    return agreement.model_copy(update={"price": price})


def test_a_fee_in_a_token_is_measured_in_that_token() -> None:
    limits: Any = {"min_fee": 500, "min_token_fees": {TOKEN: 7}}
    assert plan(in_token(priced(7, 7)), **limits).agreement.price.token == TOKEN
    assert plan(in_token(priced(0, 0))).agreement.price.token == TOKEN  # who asks for nothing takes anything
    with pytest.raises(NotOurs) as refused:
        plan(in_token(priced(6, 6)), **limits)
    assert refused.value.code == "plan.fee"
    with pytest.raises(NotOurs) as refused:
        plan(priced(499, 499), **limits)
    assert refused.value.code == "plan.fee"


def test_a_token_that_nobody_asked_for_is_no_pay() -> None:
    """Anyone can make a token that is worth nothing, and an agreement with a large fee in it."""
    with pytest.raises(NotOurs) as refused:
        plan(in_token(priced(10**18, 10**18)), min_fee=500, min_token_fees={address("8"): 1})
    assert refused.value.code == "plan.token"


def test_shares_are_rounded_as_the_contract_rounds_them() -> None:
    """All of an odd fee goes to two halves: nothing is left for the payee."""
    price = priced(3, 3).price.model_copy(update={"to": (address("8"), address("9")), "bps": (5000, 5000)})
    with pytest.raises(NotOurs) as refused:
        plan(AGREEMENT.model_copy(update={"price": price}), min_fee=1)
    assert refused.value.code == "plan.fee"


def test_a_callback_dearer_than_was_allowed_is_not_ours() -> None:
    with pytest.raises(NotOurs) as refused:
        plan(asked=request(callback_gas=101), max_callback_gas=100)
    assert refused.value.code == "plan.callback_gas"


def test_a_task_that_fits_is_planned() -> None:
    made = plan()
    assert (made.agreement, made.enrolled, made.chain.chain_id) == (AGREEMENT, ENROLLED, 31337)


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("plan.contracts", {"agreement": AGREEMENT.model_copy(update={"oracle": address("9")})}),
        ("plan.contracts", {"agreement": AGREEMENT.model_copy(update={"enclave_registry": address("9")})}),
        ("plan.measurement", {"agreement": tee(measurements=(OTHER,))}),
        ("plan.anchor", {"agreement": tee(anchors=(OTHER,))}),
        ("plan.status", {"agreement": tee(status_mask=1 << 2)}),
        ("plan.evaluation", {"agreement": tee(eval_floor=18)}),
        ("plan.evidence_age", {"agreement": tee(max_evidence_age=119)}),
        ("plan.host", {"agreement": tee(any_host=False, operators=(address("9"),))}),
        ("plan.host", {"agreement": tee(any_host=False, platforms=(OTHER,))}),
        ("plan.brokers", {"endpoints": ENDPOINTS[:1]}),
        ("plan.measurement", {"enrolled": recorded(measurement=OTHER)}),
        ("plan.anchor", {"enrolled": replace(ENROLLED, anchor=OTHER)}),
        (
            "agreement.not_yet",
            {"agreement": AGREEMENT.model_copy(update={"fn": AGREEMENT.fn.model_copy(update={"sealed_id": OTHER})})},
        ),
        ("request.versions", {"asked": request(versions=(OTHER,))}),
    ],
)
def test_a_task_that_is_not_ours_says_why(code: str, changed: dict[str, Any]) -> None:
    with pytest.raises(NotOurs) as raised:
        plan(**changed)
    assert raised.value.code == code


def test_a_task_of_an_agreement_that_was_never_seen_is_not_ours() -> None:
    with pytest.raises(NotOurs) as raised:
        make_plan(task(request()), None, ENROLLED, DEPLOYMENT, ENDPOINTS, NOW)
    assert raised.value.code == "plan.agreement"


OUTDATED: dict[str, Any] = {
    "tcb_status": 5,
    "earlier_status": 1,
    "earlier_evaluation": 17,
    "evaluation": 18,
    "changed_at": NOW - 86400,
}


def test_an_outdated_platform_is_ours_within_the_agreements_grace() -> None:
    assert plan(tee(grace_days=1), enrolled=recorded(**OUTDATED)).enrolled.record.standing.tcb_status == 5


@pytest.mark.parametrize(
    ("terms", "standing"),
    [
        ({"grace_days": 0}, {}),
        ({"grace_days": 1}, {"changed_at": NOW - 86401}),
        ({"grace_days": 1}, {"earlier_status": 0}),
        ({"grace_days": 1}, {"earlier_status": 2}),
        ({"grace_days": 1, "eval_floor": 18}, {}),
    ],
)
def test_an_outdated_platform_out_of_its_grace_is_not_ours(terms: dict[str, Any], standing: dict[str, Any]) -> None:
    with pytest.raises(NotOurs) as raised:
        plan(tee(**terms), enrolled=recorded(**{**OUTDATED, **standing}))
    assert raised.value.code == "plan.status"


@pytest.mark.parametrize("hosts", [{"operators": (OPERATOR,)}, {"platforms": (PLATFORM,)}])
def test_a_host_that_the_agreement_names_by_operator_or_platform_is_ours(hosts: dict[str, Any]) -> None:
    assert plan(agreement=tee(any_host=False, **hosts)).agreement.tee.any_host is False


def test_as_many_brokers_as_the_threshold_are_enough() -> None:
    assert plan(endpoints=ENDPOINTS[1:]).agreement.keys.threshold == 2


def test_the_second_of_the_deadline_is_still_in_time() -> None:
    asked = request(deadline=100)
    check_deadline(asked, 100)
    with pytest.raises(DeadlinePassed):
        check_deadline(asked, 101)


@pytest.mark.parametrize(("delay", "first"), [(0, 10), (1, 12), (5, 16)])
def test_releases_are_asked_for_once_no_cancel_can_come(delay: int, first: int) -> None:
    """A cancel is taken up to block request + delay; without a delay there is none (IComputeOracle)."""
    agreement = AGREEMENT.model_copy(update={"keys": AGREEMENT.keys.model_copy(update={"release_delay": delay})})
    check_release_time(agreement, 10, first)
    with pytest.raises(Retryable) as raised:
        check_release_time(agreement, 10, first - 1)
    assert raised.value.code == "task.delay"
