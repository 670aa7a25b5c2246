"""The Python API for data owners, requesters and dApps: what the CLI does, typed and async.

async with connect("oracle.yaml") as client:
    task = await client.request(read_agreement("agreement.json"), {"min_age": 40})
    table = await task.result()          # a pyarrow.Table, opened here and nowhere else
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from enclave_app.protocol import release
from enclave_app.protocol.bundle import read_bundle
from enclave_app.protocol.canonical import dump, load, parse, validate
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.onchain import NO_AUDITORS, Auditors
from enclave_app.protocol.params import ParamDomain, read_domain
from enclave_app.protocol.release import OutputAnswer, TaskRecord
from enclave_app.protocol.rules import check_agreement
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.storage import receipt_name, record_name
from enclave_app.protocol.structs import Agreement, Chain, Confirmation, TaskRequest
from oracle import money
from oracle.agreement.document import AgreementDocument
from oracle.agreement.requesters import admission_of
from oracle.chain.abi import load as load_contract
from oracle.chain.enclaves import RegisteredEnclave, registered_enclaves
from oracle.chain.events import (
    NARROWING,
    AgreementActivated,
    AgreementNarrowed,
    TaskRequested,
    get_logs,
    read_event,
    topic,
)
from oracle.chain.reader import AgreementReader, AgreementRecord, OracleReader
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Receipt, Sender, account_of
from oracle.chain.source import Block, SingleSource
from oracle.config import ClientConfig
from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.receipt import MAX_RECEIPT, read_receipt
from oracle.storage import Storage, get_from_any, open_storage
from oracle.task import Task

DEFAULT_DEADLINE = 3600
MAX_RECORD = 64 << 20
MAX_ANSWER = 1 << 20
IDLE_CHAIN = 600
"""A head so many seconds behind this machine's clock is taken for a chain that makes blocks only when asked."""
CLOCK_MARGIN = 60
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two looks into storage."""


@dataclass(frozen=True)
class ActiveAgreement:
    """An activated agreement as the chain's log tells it: its terms, signatures, and where it became active."""

    id: bytes
    agreement: Agreement
    signatures: tuple[bytes, ...]
    block_number: int


class Client:
    """Everything a party or a requester does. `wallet` pays and signs; `result_key` opens results."""

    def __init__(
        self, config: ClientConfig, *, wallet: SigningKey | None = None, result_key: SealingKey | None = None
    ) -> None:
        self.config, self.wallet, self.result_key = config, wallet, result_key
        self.chain = Chain(chain_id=config.deployment.chain_id, agreement_registry=config.deployment.agreement_registry)
        self.rpc = Rpc(config.rpc)
        self.source = SingleSource(self.rpc)
        self.agreements = AgreementReader(self.source, config.deployment.agreement_registry)
        self.oracle = OracleReader(self.source, config.deployment.oracle)
        self._sender = Sender(self.rpc, account_of(wallet)) if wallet is not None else None
        self._stack = AsyncExitStack()
        self._storages: tuple[Storage, ...] = ()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _open(self) -> None:
        chain_id = await self.source.chain_id()
        if chain_id != self.config.deployment.chain_id:
            raise Refused(
                "chain.id",
                "the RPC endpoint serves another chain than the deployment file names",
                found=chain_id,
                expected=self.config.deployment.chain_id,
            )
        self._http = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        )
        opened = [await self._stack.enter_async_context(open_storage(uri)) for uri in self.config.storage]
        self._storages = tuple(opened)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        await self.rpc.close()

    # --- agreements ---------------------------------------------------------------------------------------------------

    async def activate(
        self, agreement: Agreement, signatures: Sequence[bytes], auditors: Auditors | None = None
    ) -> tuple[bytes, Receipt]:
        """Activate with one signature per party, in `agreement.parties()` order, and the agreed auditors, where there are any;
        returns the agreement id. An empty signature stands for a party that consented on chain, or is this wallet."""
        check_agreement(agreement)
        receipt = await self.transact(
            "AgreementRegistry", "activate", agreement, list(signatures), auditors or NO_AUDITORS
        )
        return self.chain.agreement_id(agreement), receipt

    async def suspend(self, agreement_id: bytes) -> Receipt:
        return await self.transact("AgreementRegistry", "suspend", agreement_id)

    async def resume(self, agreement_id: bytes) -> Receipt:
        return await self.transact("AgreementRegistry", "resume", agreement_id)

    async def revoke(self, agreement_id: bytes) -> Receipt:
        return await self.transact("AgreementRegistry", "revoke", agreement_id)

    async def approve(self, agreement_id: bytes) -> Receipt:
        """Consent by a transaction of one's own, for accounts that cannot sign off chain."""
        return await self.transact("AgreementRegistry", "approve", agreement_id)

    async def drop_measurement(self, agreement_id: bytes, measurement: bytes) -> Receipt:
        return await self.transact("AgreementRegistry", "dropMeasurement", agreement_id, measurement)

    async def drop_host(self, agreement_id: bytes, host: bytes) -> Receipt:
        return await self.transact("AgreementRegistry", "dropHost", agreement_id, host)

    async def agreement(self, agreement_id: bytes) -> ActiveAgreement:
        """An activated agreement, from the chain's log, its id recomputed."""
        for log in await self.logs_about(self.config.deployment.agreement_registry, "AgreementActivated", agreement_id):
            event = read_event(log)
            if isinstance(event, AgreementActivated) and self.chain.agreement_id(event.agreement) == agreement_id:
                return ActiveAgreement(agreement_id, event.agreement, event.signatures, log.block_number)
        raise Retryable("agreement.unknown", f"the chain knows no active agreement 0x{agreement_id.hex()}")

    async def parameters(self, agreement: Agreement) -> ParamDomain:
        """Which parameters a request may give, from storage, checked against the agreement."""
        try:
            return read_domain(await self.blob(agreement.param_domain), agreement.param_domain)
        except Retryable:
            # Whoever stored the function stored its domain with it.
            return read_bundle(await self.blob(agreement.fn.id), agreement.fn.id).header.params

    async def enclaves(self) -> tuple[RegisteredEnclave, ...]:
        """Every enclave that was ever registered here, as it stands now, oldest registration first."""
        return await registered_enclaves(self.source, self.config.deployment, await self.head())

    async def balance(self, token: str = ZERO_ADDRESS) -> int:
        """What this wallet can withdraw from the oracle contract, in wei or a token's smallest unit, with its shares of pools
        that wait to be distributed."""
        return await money.owed(self, self.sender.address, token)

    async def agreement_status(self, agreement_id: bytes) -> AgreementRecord:
        return await self.agreements.record(agreement_id, await self.head())

    async def narrowings(self, agreement_id: bytes) -> tuple[AgreementNarrowed, ...]:
        """Every suspension, resumption, revocation and drop of an agreement, oldest first (R8)."""
        found = []
        for log in await self.logs_about(self.config.deployment.agreement_registry, NARROWING, agreement_id):
            event = read_event(log)
            if isinstance(event, AgreementNarrowed):
                found.append(event)
        return tuple(found)

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def request(
        self,
        under: AgreementDocument | bytes,
        params: Mapping[str, Any] | None = None,
        *,
        seconds: int = DEFAULT_DEADLINE,
        requesters: Mapping[str, int] | None = None,
        wait: bool = True,
    ) -> Task:
        """Ask for a computation under an agreement, given as its file says it or by its id, and pay its fee. `requesters` is
        the agreed list with quotas, where the agreement has one and its file is not given.

        The result will be sealed to `result_key`. With `wait`, returns once the request is mined. Parameters outside the
        agreed domain are refused here, before they cost anything: Refused `params.*`; and so is an agreement on other
        contracts than the deployment's: Refused `agreement.contracts`.
        """
        if self.result_key is None:
            raise Permanent("client.result_key", "no key to open the result with", hint="Give Client a result_key")
        agreement_id = under if isinstance(under, bytes) else under.id
        requesters = requesters or ({} if isinstance(under, bytes) else under.requesters)
        agreement = (await self.agreement(agreement_id)).agreement
        self._check_contracts(agreement)
        given = dump(dict(params or {}))
        (await self.parameters(agreement)).read(given)
        as_of, deadline = _times((await self.head()).timestamp, int(time.time()), seconds)
        admission = admission_of(agreement, requesters, self.sender.address)
        request = TaskRequest(
            agreement_id=agreement_id,
            requester=self.sender.address,
            nonce=secrets.token_bytes(32),
            versions=tuple(data.id_or_stream for data in agreement.data),
            inputs_id=ZERO32,
            input_shares=ZERO32,
            params=given,
            result_key=self.result_key.public.digest,
            spend=0,
            max_fee=agreement.price.fee,
            as_of=as_of,
            deadline=deadline,
            callback=ZERO_ADDRESS,
            callback_gas=0,
        )
        contract = load_contract("ComputeOracle")
        data = contract.call("request", request, admission, "")
        value = agreement.price.fee if agreement.price.token == ZERO_ADDRESS else 0
        signed = await self.sender.submit(agreement.oracle, data, value=value)
        task = Task(self, request.typed_digest(self.chain.oracle_domain(agreement)), agreement, request)
        task.requesters = requesters
        if wait:
            task.receipt = await self.sender.wait(signed.hash)
            if not task.receipt.ok:
                raise Permanent("task.request", "the request was mined but reverted: somebody was faster")
        return task

    async def task(self, task_id: bytes) -> Task:
        """A task that is already on the chain."""
        for log in await self.logs_about(self.config.deployment.oracle, "TaskRequested", task_id):
            event = read_event(log)
            if isinstance(event, TaskRequested):
                active = await self.agreement(event.agreement_id)
                if event.request.typed_digest(self.chain.oracle_domain(active.agreement)) == task_id:
                    return Task(self, task_id, active.agreement, event.request)
        raise Retryable("task.unknown", f"the chain knows no task 0x{task_id.hex()}")

    async def tasks(self, agreement_id: bytes) -> tuple[Task, ...]:
        """Every task that was ever requested under an agreement, oldest first, each id recomputed."""
        agreement = (await self.agreement(agreement_id)).agreement
        domain, found = self.chain.oracle_domain(agreement), []
        for log in await self.logs_about(agreement.oracle, "TaskRequested", None, agreement_id):
            event = read_event(log)
            if isinstance(event, TaskRequested) and event.request.typed_digest(domain) == event.task_id:
                found.append(Task(self, event.task_id, agreement, event.request))
        return tuple(found)

    async def withdraw(self, token: str = ZERO_ADDRESS) -> Receipt:
        """Collect what the oracle contract holds for this wallet in one token; pools with a share of it are distributed first."""
        await money.hand_out(self, token)
        return await self.withdraw_balance(token)

    async def withdraw_balance(self, token: str = ZERO_ADDRESS) -> Receipt:
        """The same without looking at pools."""
        return await self.transact("ComputeOracle", "withdraw", token, self.sender.address)

    def _check_contracts(self, agreement: Agreement) -> None:
        """R7: whoever activates an agreement chooses its contracts; the fee must go to no other than the one we know."""
        known = self.config.deployment
        if (agreement.oracle, agreement.enclave_registry) != (known.oracle, known.enclave_registry):
            raise Refused(
                "agreement.contracts",
                "the agreement is on other contracts than the deployment file names",
                found=f"oracle {agreement.oracle}, enclave registry {agreement.enclave_registry}",
                expected=f"{known.oracle}, {known.enclave_registry}",
            )

    # --- plumbing -----------------------------------------------------------------------------------------------------

    @property
    def sender(self) -> Sender:
        if self._sender is None:
            raise Permanent("client.wallet", "this needs a wallet", hint="Give a keystore and its password file")
        return self._sender

    async def head(self) -> Block:
        return await self.source.confirmed(Confirmation.LATEST)

    async def blob(self, digest: bytes) -> bytes:
        return await get_from_any(self._storages, digest)

    async def record(self, task_id: bytes) -> TaskRecord:
        """What the worker left for a task: untrusted, for the caller to check."""
        failure: OracleError = Retryable("storage.none", "no storage is configured")
        for storage in self._storages:
            try:
                return parse(TaskRecord, await storage.get_named(record_name(task_id), MAX_RECORD), limit=MAX_RECORD)
            except OracleError as error:
                failure = error
        raise failure

    async def receipt(self, task_id: bytes, *, patience: float = 0.0) -> bytes:
        """The receipt that the worker left for a settled task: untrusted, for `oracle.receipt.verify_receipt` to check.

        It comes a moment after the settlement; waits up to `patience` seconds. Raises Retryable where no storage has it,
        Refused `receipt.task` for one of another task, and what `read_receipt` says.
        """
        limit, pause = time.monotonic() + patience, FIRST_PAUSE
        while True:
            try:
                return await self._stored_receipt(task_id)
            except Retryable:
                if time.monotonic() + pause > limit:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _stored_receipt(self, task_id: bytes) -> bytes:
        failure: OracleError = Retryable("storage.none", "no storage is configured")
        for storage in self._storages:
            try:
                data = await storage.get_named(receipt_name(task_id), MAX_RECEIPT)
                if read_receipt(data).task_id == task_id:
                    return data
                raise Refused("receipt.task", "storage has a receipt of another task under this one's name")
            except OracleError as error:
                failure = error
        raise failure

    async def post_output(self, url: str, body: bytes) -> OutputAnswer:
        """One broker's answer to an output release; raises its refusal."""
        if self._http is None:
            raise Permanent("client.closed", "this client is not open", hint="Use `async with Client(...)`")
        try:
            async with self._http.post(
                f"{url.rstrip('/')}/v1/output",
                data=body,
                headers={"content-type": "application/json"},
                allow_redirects=False,
            ) as response:
                data = b""
                # One read gives what has come so far, which may be the first packet only.
                while not response.content.at_eof() and len(data) <= MAX_ANSWER:
                    data += await response.content.read(MAX_ANSWER + 1 - len(data))
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Retryable("broker.unreachable", f"{url} cannot be reached ({type(error).__name__})") from None
        if status != 200:
            error_body = validate(release.ErrorBody, load(data, limit=MAX_ANSWER, canonical=False))
            kind = Retryable if error_body.retry else Refused
            raise kind(error_body.code, f"{url}: {error_body.message}")
        return validate(OutputAnswer, load(data, limit=MAX_ANSWER, canonical=False))

    async def transact(self, contract: str, function: str, *args: Any) -> Receipt:
        deployment = self.config.deployment
        addresses = {
            "AgreementRegistry": deployment.agreement_registry,
            "ComputeOracle": deployment.oracle,
            "FunctionAudits": deployment.audits,
        }
        receipt = await self.sender.transact(addresses[contract], load_contract(contract).call(function, *args))
        if not receipt.ok:
            raise Permanent("transaction.reverted", f"{function} was mined but reverted: the state changed meanwhile")
        return receipt

    async def logs_about(self, address: str, event: str | Sequence[str], *topics: bytes | None) -> list[Any]:
        """Logs of an event, or of several, whose indexed fields are `topics`, in their order; None stands for any."""
        head = await self.head()
        names = (event,) if isinstance(event, str) else event
        wanted = [[topic(name) for name in names], *(None if value is None else [value] for value in topics)]
        return await get_logs(self.rpc, [address], self.config.deployment.first_block, head.number, wanted)


def _times(head: int, now: int, seconds: int) -> tuple[int, int]:
    """`asOf` and deadline of a request. Blocks say the time; but where none came for long, as on a development chain that
    nobody used, the last one's time is older than the contract takes, and the next one's will be near `now`."""
    as_of = head if now - head < IDLE_CHAIN else now - CLOCK_MARGIN
    return as_of, max(head, now) + seconds
