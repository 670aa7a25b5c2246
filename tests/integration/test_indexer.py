"""An index knows from logs alone whatever the contracts' views say, after a long random walk; and each event is needed for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from eth_utils.address import to_checksum_address

from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.onchain import admission_hash, settlement_hash
from enclave_app.protocol.structs import ANYONE, TaskState
from oracle.chain.abi import Log, load
from oracle.chain.events import get_logs
from oracle.chain.index import Index, IndexedTask
from oracle.chain.reader import AgreementStatus
from oracle.errors import Refused
from tests.anvil_kit import anvil
from tests.hardhat_kit import hardhat
from tests.market_kit import PEOPLE, ROOT, Market
from tests.market_walk import Walk

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONTRACTS = ("AgreementRegistry", "ComputeOracle", "DatasetStreams", "FunctionAudits")
STEPS = 300
NODES = [pytest.param(anvil, id="anvil"), pytest.param(hardhat, id="hardhat", marks=pytest.mark.slow)]
Question = tuple[Any, ...]
"""A contract, a view of it, its arguments."""


@dataclass
class Walked:
    """A market after the walk: its logs, and what its views said at the end."""

    market: Market
    walk: Walk
    logs: list[Log]
    answers: dict[Question, Any] = field(default_factory=dict)

    def index(self, logs: list[Log]) -> Index:
        index = Index(self.market.deployment)
        for log in logs:
            index.apply(log)
        return index


@pytest.fixture(scope="module", params=NODES)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walked(url: str) -> AsyncIterator[Walked]:
    async with Market.open(url, seed=20) as market:
        walk = Walk(market)
        await walk.run(STEPS)
        await walk.finish()
        deployment = market.deployment
        logs = await get_logs(
            market.rpc, Index(deployment).addresses, deployment.first_block, (await market.head()).number
        )
        found = Walked(market, walk, logs)
        for question in questions(found, found.index(logs)):
            found.answers[question] = None
        for name in CONTRACTS:
            asked = [question for question in found.answers if question[0] == name]
            said = await market.views(name, address(market, name), *(question[1:] for question in asked))
            found.answers.update(zip(asked, map(plain, said), strict=True))
        yield found


def address(market: Market, name: str) -> str:
    at = market.deployment
    return dict(zip(CONTRACTS, (at.agreement_registry, at.oracle, at.streams, at.audits), strict=True))[name]


def plain(value: Any) -> Any:
    """Addresses checksummed."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return to_checksum_address(value) if isinstance(value, str) else value


def questions(walked: Walked, index: Index) -> Iterator[Question]:
    """Everything that the views can be asked about what was ever named."""
    market = walked.market
    accounts = [market.address(who) for who in (*PEOPLE, "caller")]
    agreements = [*index.agreements, *map(market.agreement_id, walked.walk.drafts)]
    for agreement_id in agreements:
        yield "AgreementRegistry", "status", agreement_id
        yield "AgreementRegistry", "agreement", agreement_id
        yield "ComputeOracle", "poolOf", agreement_id
        for number in range(3):
            yield "AgreementRegistry", "isDropped", agreement_id, bytes(31) + bytes([number])
        for account in accounts:
            for view in ("consentOf", "approvalOf", "isSuspendedBy", "isRevokedBy", "usedBy"):
                yield "AgreementRegistry", view, agreement_id, account
    for owner, lineage in index.budgets:
        yield "AgreementRegistry", "budgetSpent", owner, lineage
    for (owner, stream), found in index.streams.items():
        yield "DatasetStreams", "versionCount", owner, stream
        for number, (dataset, _) in enumerate(found.versions, start=1):
            yield "DatasetStreams", "version", owner, stream, number
            yield "DatasetStreams", "find", owner, stream, dataset
    for function in {function for function, _ in index.reports} | set(walked.walk.functions):
        yield "FunctionAudits", "reportOf", function, market.address("auditor")
    for task_id, task in index.tasks.items():
        yield "ComputeOracle", "task", task.request.agreement_id, task_id
    for token in (ZERO_ADDRESS, market.coin):
        for account in accounts:
            yield "ComputeOracle", "balanceOf", token, account


def said(walked: Walked, index: Index, question: Question) -> Any:
    """What the index says that a view says."""
    _, view, *args = question
    known: dict[str, Callable[..., Any]] = {
        "status": lambda i: index.agreements[i].status if i in index.agreements else AgreementStatus.NONE,
        "agreement": lambda i: record(index, i),
        "poolOf": lambda i: index.agreements[i].pool if i in index.agreements else 0,
        "isDropped": lambda i, what: i in index.agreements and what in index.agreements[i].dropped,
        "consentOf": lambda i, who: index.consents[i, who],
        "approvalOf": lambda i, who: index.approvals[i, who],
        "isSuspendedBy": lambda i, who: i in index.agreements and who in index.agreements[i].suspended_by,
        "isRevokedBy": lambda i, who: (i, who) in index.revoked_by,
        "usedBy": lambda i, who: used_by(walked, index, i, who),
        "budgetSpent": lambda owner, lineage: index.budgets[owner, lineage],
        "versionCount": lambda owner, stream: len(index.streams[owner, stream].versions),
        "version": lambda owner, stream, number: version(index, owner, stream, number),
        "find": lambda owner, stream, dataset: find(index, owner, stream, dataset),
        "reportOf": lambda function, auditor: index.reports.get((function, auditor), ZERO32),
        "task": lambda _, task_id: task(index, index.tasks[task_id]),
        "balanceOf": lambda token, account: index.balances[token, account],
    }
    return known[view](*args)


def record(index: Index, agreement_id: bytes) -> dict[str, Any]:
    """IAgreementRegistry.Record."""
    if agreement_id not in index.agreements:
        numbers = (
            "notBefore",
            "notAfter",
            "suspensions",
            "status",
            "releaseDelay",
            "quotaPerRequester",
            "quota",
            "used",
            "fee",
        )
        return {
            **dict.fromkeys(numbers, 0),
            **dict.fromkeys(("oracle", "token"), ZERO_ADDRESS),
            **dict.fromkeys(("admissionHash", "settlementHash"), ZERO32),
        }
    found = index.agreements[agreement_id]
    terms = found.agreement
    return {
        "oracle": terms.oracle,
        "notBefore": terms.not_before,
        "notAfter": terms.not_after,
        "suspensions": len(found.suspended_by),
        "status": found.stored,
        "token": terms.price.token,
        "releaseDelay": terms.keys.release_delay,
        "quotaPerRequester": terms.access.quota_per_requester,
        "quota": terms.access.quota,
        "used": found.used,
        "fee": terms.price.fee,
        "admissionHash": admission_hash(terms),
        "settlementHash": settlement_hash(terms),
    }


def used_by(walked: Walked, index: Index, agreement_id: bytes, who: str) -> int:
    """The registry counts where a requester's own limit is below the quota; its leaf is not in the logs."""
    if agreement_id not in index.agreements:
        return 0
    found = index.agreements[agreement_id]
    access, limit = found.agreement.access, found.agreement.access.quota_per_requester
    if access.requesters != ANYONE:
        entry = next(e for e in walked.walk.entries if e.agreement == found.agreement)
        names = {walked.market.address(name): quota for name, (quota, _) in entry.leaves.items()}
        limit = min(limit, names.get(who, 0))
    return found.requested[who] if limit < access.quota else 0


def version(index: Index, owner: str, stream: bytes, number: int) -> dict[str, Any]:
    found = index.streams[owner, stream]
    dataset, shares = found.versions[number - 1]
    return {"datasetId": dataset, "shares": shares, "withdrawn": number in found.withdrawn}


def find(index: Index, owner: str, stream: bytes, dataset: bytes) -> tuple[int, int]:
    found = index.streams[owner, stream]
    number = [each for each, _ in found.versions].index(dataset) + 1
    return 0 if number in found.withdrawn else number, found.latest


def task(index: Index, found: IndexedTask) -> dict[str, Any]:
    """IComputeOracle.Task."""
    standing = found.state == TaskState.REQUESTED
    terms = index.agreements[found.request.agreement_id].agreement
    delay = terms.keys.release_delay
    return {
        "state": found.state,
        "requestBlock": found.request_block if standing else 0,
        "deadline": found.request.deadline if standing else 0,
        "cancelUntil": found.request_block + delay if standing and delay else 0,
        "escrow": terms.price.fee if standing else 0,
        "resultDigest": found.digest[:31] or bytes(31),
        "callback": found.callback,
    }


def wrong(walked: Walked, index: Index) -> list[tuple[Question, Any, Any]]:
    """Where the index and the views differ: question, index, view."""
    found = ((question, said(walked, index, question), answer) for question, answer in walked.answers.items())
    return [each for each in found if each[1] != each[2]]


def name_of(log: Log) -> str:
    found = [load(name).event(log) for name in CONTRACTS]
    return next(event[0] for event in found if event is not None)


async def test_the_walk_goes_everywhere(walked: Walked) -> None:
    events = set()
    for name in CONTRACTS:
        abi = json.loads((ROOT / "oracle" / "abi" / f"{name}.json").read_text())["abi"]
        events |= {entry["name"] for entry in abi if entry["type"] == "event"}
    seen = Counter(map(name_of, walked.logs))
    # Public outputs say nothing of the state; the domain never changes.
    assert events - set(seen) == {"EIP712DomainChanged", "PublicOutputs"}, walked.walk.refused
    assert set(walked.walk.made) == walked.walk.names
    index = walked.index(walked.logs)
    assert {found.state for found in index.tasks.values()} == set(TaskState) - {TaskState.NONE}
    assert {found.status for found in index.agreements.values()} == set(AgreementStatus) - {AgreementStatus.NONE}


async def test_logs_alone_say_what_every_view_says(walked: Walked) -> None:
    assert wrong(walked, walked.index(walked.logs)) == []
    assert len(walked.answers) > 1000


async def test_the_oracle_holds_what_logs_say_that_it_owes(walked: Walked) -> None:
    index = walked.index(walked.logs)
    for token in (ZERO_ADDRESS, walked.market.coin):
        balances = sum(amount for (of, _), amount in index.balances.items() if of == token)
        ours = {i: found for i, found in index.agreements.items() if found.agreement.price.token == token}
        pools = sum(found.pool for found in ours.values())
        standing = [task.request.agreement_id for task in index.tasks.values() if task.state == TaskState.REQUESTED]
        escrow = sum(ours[i].agreement.price.fee for i in standing if i in ours)
        assert await walked.market.held(token) == balances + pools + escrow
        assert min(index.balances.values()) >= 0


async def test_every_kind_of_event_is_needed(walked: Walked) -> None:
    for name in {name_of(log) for log in walked.logs}:
        places = [n for n, log in enumerate(walked.logs) if name_of(log) == name]
        assert any(missed(walked, walked.logs[:n] + walked.logs[n + 1 :]) for n in reversed(places)), name


def missed(walked: Walked, logs: list[Log]) -> bool:
    """Whether the index notices that logs are missing, or says something else than the views."""
    try:
        return bool(wrong(walked, walked.index(logs)))
    except (Refused, LookupError):
        return True


async def test_logs_of_others_are_passed_over(walked: Walked) -> None:
    index = walked.index(walked.logs)
    before = len(index.tasks)
    log = next(log for log in walked.logs if name_of(log) == "TaskRequested")
    index.apply(Log(**{**log.__dict__, "address": walked.market.coin}))
    assert len(index.tasks) == before
    with pytest.raises(Refused) as caught:
        index.apply(log)
    assert caught.value.code == "task.move"
