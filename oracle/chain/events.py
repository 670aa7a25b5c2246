"""Events as typed values: what workers, clients and indexers learn from logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_utils.address import to_checksum_address

from enclave_app.protocol import signing
from enclave_app.protocol.structs import Agreement, Result, TaskRequest
from oracle.chain.abi import CORE, Log, load
from oracle.chain.rpc import Rpc, as_bytes, as_hex, as_int
from oracle.errors import Refused


@dataclass(frozen=True)
class AgreementActivated:
    agreement_id: bytes
    agreement: Agreement
    signatures: tuple[bytes, ...]
    log: Log


@dataclass(frozen=True)
class AgreementApproved:
    """A consent ahead of the activation. `signature` is empty for the account's own transaction."""

    agreement_id: bytes
    account: str
    signature: bytes
    log: Log

    def signed(self) -> bool:
        """Whether the account's own key made the signature. A contract's is nothing that can be checked off chain (R7)."""
        try:
            return signing.recover(self.agreement_id, self.signature) == self.account
        except Refused:
            return False


@dataclass(frozen=True)
class TaskRequested:
    task_id: bytes
    agreement_id: bytes
    request: TaskRequest
    uri: str
    log: Log


@dataclass(frozen=True)
class TaskSettled:
    """`TaskFulfilled` on chain: the task succeeded or failed, as `result.outcome` says."""

    task_id: bytes
    agreement_id: bytes
    signer: str
    result_digest: bytes
    result: Result
    signature: bytes
    log: Log


@dataclass(frozen=True)
class TaskBatched:
    """`TaskFulfilledInBatch`: the task succeeded; the chain keeps the result's digest, and workers the result."""

    task_id: bytes
    result_digest: bytes
    log: Log


@dataclass(frozen=True)
class PublicOutputs:
    """What the outputs without recipients are, in their order."""

    task_id: bytes
    outputs: tuple[bytes, ...]
    log: Log


@dataclass(frozen=True)
class TaskEnded:
    """`TaskCancelled` or `TaskExpired`."""

    task_id: bytes
    agreement_id: bytes
    how: str
    log: Log


@dataclass(frozen=True)
class AgreementNarrowed:
    """`AgreementSuspended`, `Resumed`, `Revoked`, `Superseded`, `MeasurementDropped` or `HostDropped`. `what` is what was
    dropped, or the agreement that took its place: then `party` is empty."""

    agreement_id: bytes
    how: str
    party: str
    what: bytes | None
    log: Log


Event = (
    AgreementActivated
    | AgreementApproved
    | TaskRequested
    | TaskSettled
    | TaskBatched
    | PublicOutputs
    | TaskEnded
    | AgreementNarrowed
)
NARROWING = (
    "AgreementSuspended",
    "AgreementResumed",
    "AgreementRevoked",
    "AgreementSuperseded",
    "MeasurementDropped",
    "HostDropped",
)


def read_event(log: Log) -> Event | None:
    """The typed event of a log of our contracts, or None for other events of theirs."""
    for name in ("ComputeOracle", "AgreementRegistry"):
        found = load(name).event(log)
        if found is not None:
            return _typed(*found, log)
    return None


def _typed(name: str, fields: dict[str, Any], log: Log) -> Event | None:
    if name == "AgreementActivated":
        agreement = Agreement.from_abi(fields["agreement"])
        return AgreementActivated(fields["agreementId"], agreement, fields["signatures"], log)
    if name == "AgreementApproved":
        account = str(to_checksum_address(fields["account"]))
        return AgreementApproved(fields["agreementId"], account, fields["signature"], log)
    if name == "TaskRequested":
        request = TaskRequest.from_abi(fields["request"])
        return TaskRequested(fields["taskId"], fields["agreementId"], request, fields["uri"], log)
    if name == "TaskFulfilled":
        return TaskSettled(
            task_id=fields["taskId"],
            agreement_id=fields["agreementId"],
            signer=str(to_checksum_address(fields["signer"])),
            result_digest=fields["resultDigest"],
            result=Result.from_abi(fields["result"]),
            signature=fields["signature"],
            log=log,
        )
    if name == "TaskFulfilledInBatch":
        return TaskBatched(fields["taskId"], fields["resultDigest"], log)
    if name == "PublicOutputs":
        return PublicOutputs(fields["taskId"], fields["outputs"], log)
    if name in ("TaskCancelled", "TaskExpired"):
        return TaskEnded(fields["taskId"], fields["agreementId"], name, log)
    if name in NARROWING:
        what = fields.get("measurement", fields.get("host", fields.get("by")))
        party = str(to_checksum_address(fields["party"])) if "party" in fields else ""
        return AgreementNarrowed(fields["agreementId"], name, party, what, log)
    return None


def topic(name: str) -> bytes:
    """The topic of an event of the core contracts."""
    for contract in CORE:
        try:
            return load(contract).topic(name)
        except KeyError:
            continue
    raise KeyError(name)


async def get_logs(
    rpc: Rpc, addresses: Sequence[str], first: int, last: int, topics: Sequence[Sequence[bytes] | None] = ()
) -> list[Log]:
    """The logs of `addresses` in blocks first..last, in chain order."""
    wanted = [None if ts is None else [as_hex(t) for t in ts] for ts in topics]
    answer = await rpc.call(
        "eth_getLogs",
        {"address": list(addresses), "fromBlock": hex(first), "toBlock": hex(last), "topics": wanted},
    )
    return _logs(answer)


async def get_logs_of(
    rpc: Rpc, addresses: Sequence[str], block_hash: bytes, topics: Sequence[Sequence[bytes] | None] = ()
) -> list[Log]:
    """The logs of `addresses` in one block, in order (EIP-234)."""
    wanted = [None if ts is None else [as_hex(t) for t in ts] for ts in topics]
    question = {"address": list(addresses), "blockHash": as_hex(block_hash), "topics": wanted}
    return [log for log in _logs(await rpc.call("eth_getLogs", question)) if log.block_hash == block_hash]


def logs_of_receipt(receipt: dict[str, Any]) -> list[Log]:
    return _logs(receipt.get("logs"))


def _logs(answer: Any) -> list[Log]:
    if not isinstance(answer, list):
        raise Refused("rpc.logs", "an RPC answer holds no logs where they belong")
    return sorted((_log(item) for item in answer), key=lambda log: (log.block_number, log.index))


def _log(item: Any) -> Log:
    if not isinstance(item, dict) or not isinstance(item.get("topics"), list):
        raise Refused("rpc.logs", "an RPC answer holds something that is no log")
    return Log(
        address=str(to_checksum_address(as_bytes(item.get("address"), 20))),
        topics=tuple(as_bytes(t, 32) for t in item["topics"]),
        data=as_bytes(item.get("data")),
        block_number=as_int(item.get("blockNumber")),
        block_hash=as_bytes(item.get("blockHash"), 32),
        transaction_hash=as_bytes(item.get("transactionHash"), 32),
        index=as_int(item.get("logIndex")),
    )
