"""What the contracts say, typed, at one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from eth_utils.address import to_checksum_address

from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.structs import RegisteredIdentity, TaskState
from oracle.chain.abi import load
from oracle.chain.source import Block, Call, Source
from oracle.errors import Refused

E = TypeVar("E", bound=IntEnum)


class AgreementStatus(IntEnum):
    """IAgreementRegistry.Status; `SUSPENDED` is computed by the contract's `status`."""

    NONE = 0
    ACTIVE = 1
    SUSPENDED = 2
    REVOKED = 3
    SUPERSEDED = 4


class Consent(IntEnum):
    """How a party consented, as the registry recorded it at activation."""

    NONE = 0
    ECDSA = 1
    ERC1271 = 2
    TRANSACTION = 3


@dataclass(frozen=True)
class AgreementRecord:
    """What activation keeps (IAgreementRegistry.Record). Times in unix seconds, fee in the token's smallest unit; the zero
    address as `token` is the native coin. The hashes are those of `enclave_app.protocol.onchain`."""

    oracle: str
    status: AgreementStatus
    not_before: int
    not_after: int
    release_delay: int
    quota: int
    used: int
    quota_per_requester: int
    token: str
    fee: int
    admission_hash: bytes
    settlement_hash: bytes


@dataclass(frozen=True)
class Standing:
    """How a registered enclave stands (IEnclaveRegistry.Standing). Times in unix seconds, `valid_until` included."""

    tcb_status: int
    retired: bool
    earlier_status: int
    evaluation: int
    earlier_evaluation: int
    changed_at: int
    evidence_at: int
    valid_until: int
    block_number: int

    @classmethod
    def from_abi(cls, raw: Mapping[str, Any]) -> Standing:
        return cls(
            tcb_status=raw["tcbStatus"],
            retired=raw["retired"],
            earlier_status=raw["earlierStatus"],
            evaluation=raw["evaluation"],
            earlier_evaluation=raw["earlierEvaluation"],
            changed_at=raw["changedAt"],
            evidence_at=raw["evidenceAt"],
            valid_until=raw["validUntil"],
            block_number=raw["blockNumber"],
        )


@dataclass(frozen=True)
class EnclaveRecord:
    """What the registry keeps of an enclave: the digest of what it is (RegisteredIdentity), and its standing."""

    digest: bytes
    standing: Standing


@dataclass(frozen=True)
class IdentityRecord:
    """A registration whole: put together by whoever knows the parts behind the digest."""

    identity: RegisteredIdentity
    standing: Standing


@dataclass(frozen=True)
class TaskOnChain:
    """IComputeOracle.Task. `escrow` in the token's smallest unit. `result_digest` holds 31 bytes once settled, and `callback`
    then says whether the callback failed, so that it can be made again."""

    state: TaskState
    request_block: int
    deadline: int
    cancel_until: int
    escrow: int
    result_digest: bytes
    callback: bool

    def settled_with(self, digest: bytes) -> bool:
        """Whether the contract keeps this result's digest."""
        return len(self.result_digest) == 31 and self.result_digest == digest[:31]


class AgreementReader:
    """Reads an AgreementRegistry."""

    def __init__(self, source: Source, address: str) -> None:
        self.source, self.address = source, address
        self._contract = load("AgreementRegistry")

    async def record(self, agreement_id: bytes, at: Block) -> AgreementRecord:
        raw, status = await self._read([("agreement", agreement_id), ("status", agreement_id)], at)
        return AgreementRecord(
            oracle=_address(raw["oracle"]),
            status=_member(AgreementStatus, status),
            not_before=raw["notBefore"],
            not_after=raw["notAfter"],
            release_delay=raw["releaseDelay"],
            quota=raw["quota"],
            used=raw["used"],
            quota_per_requester=raw["quotaPerRequester"],
            token=_address(raw["token"]),
            fee=raw["fee"],
            admission_hash=raw["admissionHash"],
            settlement_hash=raw["settlementHash"],
        )

    async def consents(self, agreement_id: bytes, parties: Sequence[str], at: Block) -> tuple[Consent, ...]:
        answers = await self._read([("consentOf", agreement_id, party) for party in parties], at)
        return tuple(_member(Consent, answer) for answer in answers)

    async def dropped(self, agreement_id: bytes, things: Sequence[bytes], at: Block) -> tuple[bool, ...]:
        """Whether each measurement, operator (as 32 bytes) or platform id was dropped (R8)."""
        return tuple(await self._read([("isDropped", agreement_id, thing) for thing in things], at))

    async def _read(self, calls: Sequence[tuple[Any, ...]], at: Block) -> list[Any]:
        return await _read(self.source, self._contract.name, self.address, calls, at)


class EnclaveReader:
    """Reads an EnclaveRegistry."""

    def __init__(self, source: Source, address: str) -> None:
        self.source, self.address = source, address

    async def record(self, anchor: bytes, signer: str, at: Block) -> EnclaveRecord | None:
        (raw,) = await _read(self.source, "EnclaveRegistry", self.address, [("record", anchor, signer)], at)
        digest, standing = raw
        return None if digest == ZERO32 else EnclaveRecord(digest, Standing.from_abi(standing))


class OracleReader:
    """Reads a ComputeOracle."""

    def __init__(self, source: Source, address: str) -> None:
        self.source, self.address = source, address

    async def task(self, agreement_id: bytes, task_id: bytes, at: Block) -> TaskOnChain:
        (raw,) = await _read(self.source, "ComputeOracle", self.address, [("task", agreement_id, task_id)], at)
        return TaskOnChain(
            state=_member(TaskState, raw["state"]),
            request_block=raw["requestBlock"],
            deadline=raw["deadline"],
            cancel_until=raw["cancelUntil"],
            escrow=raw["escrow"],
            result_digest=raw["resultDigest"],
            callback=raw["callback"],
        )

    async def balance(self, account: str, at: Block, token: str = ZERO_ADDRESS) -> int:
        """What `account` can withdraw of a token, by default in wei."""
        (raw,) = await _read(self.source, "ComputeOracle", self.address, [("balanceOf", token, account)], at)
        return int(raw)

    async def pools(self, agreement_ids: Sequence[bytes], at: Block) -> tuple[int, ...]:
        """What waits in each agreement's pool for `distribute`."""
        calls = [("poolOf", agreement_id) for agreement_id in agreement_ids]
        return tuple(await _read(self.source, "ComputeOracle", self.address, calls, at))


def host_id(operator: str) -> bytes:
    """An operator as the 32-byte host id that `dropHost` takes."""
    return bytes(12) + bytes.fromhex(operator[2:])


async def _read(source: Source, name: str, address: str, calls: Sequence[tuple[Any, ...]], at: Block) -> list[Any]:
    contract = load(name)
    data = await source.calls([Call(address, contract.call(*call)) for call in calls], at)
    return [contract.result(call[0], answer) for call, answer in zip(calls, data, strict=True)]


def _member(kind: type[E], number: int) -> E:
    """What an attacker's contract at an agreed address answers need not be a number that ours knows."""
    if number not in [member.value for member in kind]:
        raise Refused("chain.enum", f"a contract answers with an unknown {kind.__name__}", found=number)
    return kind(number)


def _address(value: str) -> str:
    return str(to_checksum_address(value))
