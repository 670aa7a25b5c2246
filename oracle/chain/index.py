"""All state of the contracts from their logs alone, as an indexer keeps it: no call, no clock, no file.

    index = Index(deployment)
    for log in logs:  # of `index.addresses`, from `deployment.first_block`, in chain order
        index.apply(log)

Agreements of another oracle than the deployment's are kept as far as the registry tells of them: what that oracle spends of their
quota it tells in logs of its own. `requested` counts a requester's tasks whether or not the registry does (`usedBy` is zero where
a requester's own limit is not below the quota).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eth_utils.address import to_checksum_address

from enclave_app.protocol.structs import Agreement, Chain, Outcome, TaskRequest, TaskState
from oracle.chain.abi import Log, load
from oracle.chain.deploy import Deployment
from oracle.chain.moves import check_move
from oracle.chain.reader import AgreementStatus, Consent
from oracle.errors import Refused

BPS = 10_000


@dataclass
class IndexedAgreement:
    """`used` counts tasks requested and not cancelled, `requested` the same by requester; `pool` is in the price's token."""

    agreement: Agreement
    stored: AgreementStatus = AgreementStatus.ACTIVE
    used: int = 0
    requested: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    suspended_by: set[str] = field(default_factory=set)
    dropped: set[bytes] = field(default_factory=set)
    pool: int = 0

    @property
    def status(self) -> AgreementStatus:
        suspended = self.stored is AgreementStatus.ACTIVE and self.suspended_by
        return AgreementStatus.SUSPENDED if suspended else self.stored


@dataclass
class IndexedTask:
    """`callback`: to be made while requested; one that failed once settled. `digest` is the result's, once settled."""

    request: TaskRequest
    state: TaskState
    request_block: int
    callback: bool
    digest: bytes = b""


@dataclass
class IndexedStream:
    """Versions count from 1: (dataset id, shares digest)."""

    versions: list[tuple[bytes, bytes]] = field(default_factory=list)
    withdrawn: set[int] = field(default_factory=set)

    @property
    def latest(self) -> int:
        """The newest version that is left; 0 for none."""
        return max(set(range(1, len(self.versions) + 1)) - self.withdrawn, default=0)


class Index:
    """Accounts are checksummed; amounts are in a token's smallest unit, and the native coin's token is the zero address."""

    def __init__(self, deployment: Deployment) -> None:
        self._contracts = {
            deployment.agreement_registry: load("AgreementRegistry"),
            deployment.oracle: load("ComputeOracle"),
            deployment.streams: load("DatasetStreams"),
            deployment.audits: load("FunctionAudits"),
        }
        self.addresses = tuple(self._contracts)
        self._chain = Chain(chain_id=deployment.chain_id, agreement_registry=deployment.agreement_registry)
        self.agreements: dict[bytes, IndexedAgreement] = {}
        self.tasks: dict[bytes, IndexedTask] = {}
        self.streams: defaultdict[tuple[str, bytes], IndexedStream] = defaultdict(IndexedStream)
        self.reports: dict[tuple[bytes, str], bytes] = {}
        """By (function, auditor), of approvals that stand."""
        self.consents: defaultdict[tuple[bytes, str], Consent] = defaultdict(lambda: Consent.NONE)
        self.approvals: defaultdict[tuple[bytes, str], Consent] = defaultdict(lambda: Consent.NONE)
        self.revoked_by: set[tuple[bytes, str]] = set()
        self.budgets: defaultdict[tuple[str, bytes], int] = defaultdict(int)
        """Spent, by (owner, lineage)."""
        self.balances: defaultdict[tuple[str, str], int] = defaultdict(int)
        """By (token, account)."""
        self._in_batch: list[bytes] = []

    def apply(self, log: Log) -> None:
        """The next log. Logs of other contracts, and events that say nothing of this state, are passed over.

        Raises Refused `task.move`, `index.agreement`, `index.unknown` for logs that our contracts do not write in that order: some are missing.
        """
        contract = self._contracts.get(log.address)
        found = None if contract is None else contract.event(log)
        if found is None:
            return
        name, fields = found
        step = _STEPS.get(name)
        if step is not None:
            step(self, _Fields(fields), log)

    # AgreementRegistry

    def _agreement_activated(self, of: _Fields, log: Log) -> None:
        agreement = Agreement.from_abi(of["agreement"])
        if self._chain.agreement_id(agreement) != of["agreementId"]:
            raise Refused(
                "index.agreement", "a log's agreement is not the one of its id", found=of["agreementId"].hex()
            )
        self.agreements[of["agreementId"]] = IndexedAgreement(agreement)

    def _consent_recorded(self, of: _Fields, log: Log) -> None:
        self.consents[of["agreementId"], of.account("party")] = Consent(of["kind"])

    def _agreement_approved(self, of: _Fields, log: Log) -> None:
        self.approvals[of["agreementId"], of.account("account")] = Consent(of["kind"])

    def _agreement_suspended(self, of: _Fields, log: Log) -> None:
        self._agreement(of).suspended_by.add(of.account("party"))

    def _agreement_resumed(self, of: _Fields, log: Log) -> None:
        self._agreement(of).suspended_by.remove(of.account("party"))

    def _agreement_revoked(self, of: _Fields, log: Log) -> None:
        self.revoked_by.add((of["agreementId"], of.account("party")))
        if of["agreementId"] in self.agreements:  # else it keeps a draft from becoming one
            self._agreement(of).stored = AgreementStatus.REVOKED

    def _agreement_superseded(self, of: _Fields, log: Log) -> None:
        self._agreement(of).stored = AgreementStatus.SUPERSEDED

    def _measurement_dropped(self, of: _Fields, log: Log) -> None:
        self._agreement(of).dropped.add(of["measurement"])

    def _host_dropped(self, of: _Fields, log: Log) -> None:
        self._agreement(of).dropped.add(of["host"])

    def _budget_moved(self, of: _Fields, log: Log) -> None:
        self.budgets[of.account("owner"), of["lineage"]] = of["spent"]

    # DatasetStreams and FunctionAudits

    def _version_published(self, of: _Fields, log: Log) -> None:
        stream = self.streams[of.account("owner"), of["stream"]]
        stream.versions.append((of["datasetId"], of["shares"]))
        if len(stream.versions) != of["number"]:
            raise Refused("index.unknown", "a version of a stream is missing", found=of["number"])

    def _version_withdrawn(self, of: _Fields, log: Log) -> None:
        self.streams[of.account("owner"), of["stream"]].withdrawn.add(of["number"])

    def _function_approved(self, of: _Fields, log: Log) -> None:
        self.reports[of["functionId"], of.account("auditor")] = of["report"]

    def _approval_withdrawn(self, of: _Fields, log: Log) -> None:
        self.reports.pop((of["functionId"], of.account("auditor")), None)

    # ComputeOracle: tasks

    def _task_requested(self, of: _Fields, log: Log) -> None:
        request, agreement = TaskRequest.from_abi(of["request"]), self._agreement(of)
        check_move(self._state(of["taskId"]), "request", TaskState.REQUESTED)
        calls_back = int(request.callback, 16) != 0
        self.tasks[of["taskId"]] = IndexedTask(request, TaskState.REQUESTED, log.block_number, calls_back)
        agreement.used += 1
        agreement.requested[request.requester] += 1

    def _task_cancelled(self, of: _Fields, log: Log) -> None:
        task, agreement = self._end(of["taskId"], "cancel", TaskState.CANCELLED)
        agreement.used -= 1
        agreement.requested[task.request.requester] -= 1
        self._credit(agreement, task.request.requester, agreement.agreement.price.fee)

    def _task_expired(self, of: _Fields, log: Log) -> None:
        task, agreement = self._end(of["taskId"], "expire", TaskState.EXPIRED)
        price = agreement.agreement.price
        agreement.pool += price.min_fee
        self._credit(agreement, task.request.requester, price.fee - price.min_fee)

    def _task_fulfilled(self, of: _Fields, log: Log) -> None:
        payee = str(to_checksum_address(of["result"]["payee"]))
        if of["result"]["outcome"] == Outcome.SUCCEEDED:
            self._fulfilled(of["taskId"], of["resultDigest"], payee)
            return
        task, agreement = self._end(of["taskId"], "fulfil", TaskState.FAILED, of["resultDigest"])
        price = agreement.agreement.price
        self._credit(agreement, payee, price.failed_fee)
        self._credit(agreement, task.request.requester, price.fee - price.failed_fee)

    def _task_fulfilled_in_batch(self, of: _Fields, log: Log) -> None:
        self._in_batch.append(of["taskId"])
        self._end(of["taskId"], "fulfil", TaskState.FULFILLED, of["resultDigest"])

    def _batch_fulfilled(self, of: _Fields, log: Log) -> None:
        if len(self._in_batch) != of["count"]:
            raise Refused(
                "index.unknown", "tasks of a batch are missing", found=len(self._in_batch), expected=of["count"]
            )
        for task_id in self._in_batch:
            self._share(self._agreement_of(task_id), of.account("payee"))
        self._in_batch = []

    def _callback_failed(self, of: _Fields, log: Log) -> None:
        self._task(of["taskId"]).callback = True

    def _callback_delivered(self, of: _Fields, log: Log) -> None:
        self._task(of["taskId"]).callback = False

    # ComputeOracle: money

    def _distributed(self, of: _Fields, log: Log) -> None:
        agreement = self._agreement(of)
        price = agreement.agreement.price
        shares = [agreement.pool * bps // sum(price.bps) for bps in price.bps]
        if sum(shares) != of["amount"]:
            raise Refused("index.unknown", "a pool held something else", found=of["amount"], expected=sum(shares))
        for account, share in zip(price.to, shares, strict=True):
            self._credit(agreement, account, share)
        agreement.pool -= of["amount"]

    def _withdrawn(self, of: _Fields, log: Log) -> None:
        self.balances[of.account("token"), of.account("account")] -= of["amount"]

    # Inside

    def _fulfilled(self, task_id: bytes, digest: bytes, payee: str) -> None:
        _, agreement = self._end(task_id, "fulfil", TaskState.FULFILLED, digest)
        self._share(agreement, payee)

    def _share(self, agreement: IndexedAgreement, payee: str) -> None:
        price = agreement.agreement.price
        shared = price.fee * sum(price.bps) // BPS
        agreement.pool += shared
        self._credit(agreement, payee, price.fee - shared)

    def _credit(self, agreement: IndexedAgreement, account: str, amount: int) -> None:
        self.balances[agreement.agreement.price.token, account] += amount

    def _end(
        self, task_id: bytes, move: str, to: TaskState, digest: bytes = b""
    ) -> tuple[IndexedTask, IndexedAgreement]:
        check_move(self._state(task_id), move, to)
        task = self._task(task_id)
        task.state, task.digest, task.callback = to, digest, False
        return task, self._agreement_of(task_id)

    def _state(self, task_id: bytes) -> TaskState:
        return self.tasks[task_id].state if task_id in self.tasks else TaskState.NONE

    def _task(self, task_id: bytes) -> IndexedTask:
        if task_id not in self.tasks:
            raise Refused("index.unknown", "a task was never requested", found="0x" + task_id.hex())
        return self.tasks[task_id]

    def _agreement_of(self, task_id: bytes) -> IndexedAgreement:
        return self.agreements[self._task(task_id).request.agreement_id]

    def _agreement(self, of: _Fields) -> IndexedAgreement:
        agreement_id = of["agreementId"]
        if agreement_id not in self.agreements:
            raise Refused("index.unknown", "an agreement was never activated", found="0x" + agreement_id.hex())
        return self.agreements[agreement_id]


class _Fields:
    """An event's fields."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def account(self, name: str) -> str:
        return str(to_checksum_address(self._fields[name]))


_STEPS: dict[str, Callable[[Index, _Fields, Log], None]] = {
    "AgreementActivated": Index._agreement_activated,
    "ConsentRecorded": Index._consent_recorded,
    "AgreementApproved": Index._agreement_approved,
    "AgreementSuspended": Index._agreement_suspended,
    "AgreementResumed": Index._agreement_resumed,
    "AgreementRevoked": Index._agreement_revoked,
    "AgreementSuperseded": Index._agreement_superseded,
    "MeasurementDropped": Index._measurement_dropped,
    "HostDropped": Index._host_dropped,
    "BudgetMoved": Index._budget_moved,
    "VersionPublished": Index._version_published,
    "VersionWithdrawn": Index._version_withdrawn,
    "FunctionApproved": Index._function_approved,
    "ApprovalWithdrawn": Index._approval_withdrawn,
    "TaskRequested": Index._task_requested,
    "TaskCancelled": Index._task_cancelled,
    "TaskExpired": Index._task_expired,
    "TaskFulfilled": Index._task_fulfilled,
    "TaskFulfilledInBatch": Index._task_fulfilled_in_batch,
    "BatchFulfilled": Index._batch_fulfilled,
    "CallbackFailed": Index._callback_failed,
    "CallbackDelivered": Index._callback_delivered,
    "Distributed": Index._distributed,
    "Withdrawn": Index._withdrawn,
}
