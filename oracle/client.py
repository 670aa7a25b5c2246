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
from enclave_app.protocol.onchain import ALLOWANCE, NO_AUDITORS, Auditors
from enclave_app.protocol.params import ParamDomain, read_domain
from enclave_app.protocol.release import OutputAnswer, TaskRecord
from enclave_app.protocol.rules import check_agreement, check_request
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.storage import receipt_name, record_name
from enclave_app.protocol.structs import Agreement, Audit, Chain, Confirmation, PaymentKind, TaskRequest
from oracle import money
from oracle.agreement.document import AgreementDocument
from oracle.agreement.requesters import admission_of
from oracle.asking import Asking, SignedRequest, check_signature
from oracle.chain.abi import load as load_contract
from oracle.chain.enclaves import RegisteredEnclave, registered_enclaves
from oracle.chain.events import (
    NARROWING,
    AgreementActivated,
    AgreementApproved,
    AgreementNarrowed,
    TaskRequested,
    get_logs,
    read_event,
    topic,
)
from oracle.chain.reader import AgreementReader, AgreementRecord, OracleReader
from oracle.chain.rpc import Rpc, as_bytes
from oracle.chain.sender import Receipt, Sender, SignedTransaction, account_of
from oracle.chain.source import Block, Call, SingleSource
from oracle.config import ClientConfig
from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.payment import Token, approval, choose
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

    async def post(self, agreement_id: bytes, party: str, signature: bytes) -> Receipt:
        """Keep a party's signature on chain, for an activation that does not bring it. Anyone may."""
        return await self.transact("AgreementRegistry", "sign", agreement_id, party, signature)

    async def posted(self, agreement_id: bytes) -> dict[str, bytes]:
        """The ECDSA signatures that were posted by transactions of their own, by account, each checked."""
        found = {}
        for log in await self.logs_about(self.config.deployment.agreement_registry, "AgreementApproved", agreement_id):
            event = read_event(log)
            if isinstance(event, AgreementApproved) and event.signed():
                found[event.account] = event.signature
        return found

    async def approve_function(self, audit: Audit) -> Receipt:
        """Vouch for a function by a transaction of this wallet's, as an auditor."""
        return await self.transact("FunctionAudits", "approve", audit)

    async def withdraw_approval(self, function_id: bytes) -> Receipt:
        """Take this wallet's approval of a function back. Agreements that are active stay so."""
        return await self.transact("FunctionAudits", "withdraw", function_id)

    async def approvals(self, function_id: bytes, auditors: Sequence[str]) -> dict[str, bytes]:
        """The digest of each auditor's report about a function, of those who approved it."""
        contract, head = load_contract("FunctionAudits"), await self.head()
        calls = [Call(self.config.deployment.audits, contract.call("reportOf", function_id, a)) for a in auditors]
        reports = [contract.result("reportOf", data) for data in await self.source.calls(calls, head)]
        return {auditor: report for auditor, report in zip(auditors, reports, strict=True) if any(report)}

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

        A fee in a token is paid as `oracle.payment.choose` says: `Task.paid` tells how. It may take an approval first, which is a
        transaction of its own, for exactly the fee.
        """
        asking = await self.prepare(under, params, seconds=seconds, requesters=requesters)
        how, data = "value", asking.call()
        if asking.fee is not None:
            token = Token(self.source, asking.fee.token, await self.head())
            paying = await choose(token, asking.fee, self.wallet_key, self.chain.chain_id)
            for amount in paying.approvals:
                approved = await self.sender.transact(asking.fee.token, approval(asking.fee.oracle, amount))
                if not approved.ok:
                    raise Permanent("payment.approval", "the token did not take the approval", found=asking.fee.token)
            how = paying.how
            if paying.payment.kind != PaymentKind.ALLOWANCE:
                data = asking.call_for(paying.payment, b"")
        signed = await self.sender.submit(asking.agreement.oracle, data, value=asking.value)
        return await self._asked(asking, signed, wait, how)

    async def prepare(
        self,
        under: AgreementDocument | bytes,
        params: Mapping[str, Any] | None = None,
        *,
        seconds: int = DEFAULT_DEADLINE,
        requesters: Mapping[str, int] | None = None,
        requester: str | None = None,
        result_key: bytes | None = None,
    ) -> Asking:
        """A request as `request` would send it, by this wallet or for `requester`; raises as that. `result_key` is the digest of
        another key than this client's."""
        agreement_id = under if isinstance(under, bytes) else under.id
        requesters = requesters or ({} if isinstance(under, bytes) else under.requesters)
        agreement = (await self.agreement(agreement_id)).agreement
        self._check_contracts(agreement)
        given = dump(dict(params or {}))
        (await self.parameters(agreement)).read(given)
        as_of, deadline = _times((await self.head()).timestamp, int(time.time()), seconds)
        requester = requester or self.sender.address
        request = TaskRequest(
            agreement_id=agreement_id,
            requester=requester,
            nonce=secrets.token_bytes(32),
            versions=tuple(data.id_or_stream for data in agreement.data),
            inputs_id=ZERO32,
            input_shares=ZERO32,
            params=given,
            result_key=result_key or self._result_key_for(agreement),
            spend=0,
            max_fee=agreement.price.fee,
            as_of=as_of,
            deadline=deadline,
            callback=ZERO_ADDRESS,
            callback_gas=0,
        )
        task_id = request.typed_digest(self.chain.oracle_domain(agreement))
        return Asking(agreement, request, admission_of(agreement, requesters, requester), task_id)

    async def sign_request(
        self,
        under: AgreementDocument | bytes,
        params: Mapping[str, Any] | None = None,
        *,
        seconds: int = DEFAULT_DEADLINE,
        requesters: Mapping[str, int] | None = None,
        contract: str | None = None,
    ) -> SignedRequest:
        """A request that anyone can relay: no transaction and no gas of the requester. A relayer has an hour to bring it.

        `contract` is a contract wallet that asks: then the file waits for its signature over the task's id. Raises as `request`,
        and Refused `payment.unsigned` where the token has to be approved by a transaction.
        """
        asking = await self.prepare(under, params, seconds=seconds, requesters=requesters, requester=contract)
        payment, signature = ALLOWANCE, b""
        if contract is None:
            signature = self.wallet_key.sign(asking.task_id)
            if asking.fee is not None:
                token = Token(self.source, asking.fee.token, await self.head())
                chosen = await choose(token, asking.fee, self.wallet_key, self.chain.chain_id, signed_only=True)
                payment = chosen.payment
        return SignedRequest(
            chain_id=self.chain.chain_id,
            oracle=asking.agreement.oracle,
            request=asking.request,
            admission=asking.admission,
            payment=payment,
            signature=signature,
        )

    async def check_relay(self, document: SignedRequest) -> Asking:
        """What a relayer looks at before it pays: raises Refused for what another chain, agreement or signer made of it."""
        known = (self.chain.chain_id, self.config.deployment.oracle)
        if (document.chain_id, document.oracle) != known:
            raise Refused(
                "relay.chain",
                "the request is for another chain or oracle than is configured",
                found=(document.chain_id, document.oracle),
                expected=known,
            )
        request = document.request
        agreement = (await self.agreement(request.agreement_id)).agreement
        self._check_contracts(agreement)
        check_request(agreement, request)
        (await self.parameters(agreement)).read(request.params)
        task_id = request.typed_digest(self.chain.oracle_domain(agreement))
        code = await self.rpc.call("eth_getCode", request.requester, "latest")
        check_signature(document, task_id, bool(as_bytes(code)))
        return Asking(agreement, request, document.admission, task_id)

    async def relay(self, document: SignedRequest, *, pay_fee: bool = False, wait: bool = True) -> Task:
        """Bring a request that somebody else signed; this wallet pays the gas.

        A fee in the chain's own coin is this wallet's too, and what comes back of it is the requester's: Refused `relay.fee`
        without `pay_fee`. Raises as `check_relay`, and `Reverted` for what the contract refuses, before anything is spent.
        """
        asking = await self.check_relay(document)
        if asking.value and not pay_fee:
            raise Refused(
                "relay.fee",
                "whoever brings this request pays its fee, and what comes back of it goes to the requester",
                found=f"{asking.value} wei",
                hint="Say --pay-fee, if that is meant",
            )
        data = asking.call_for(document.payment, document.signature)
        signed = await self.sender.submit(asking.agreement.oracle, data, value=asking.value)
        return await self._asked(asking, signed, wait, PaymentKind(document.payment.kind).name.lower())

    async def _asked(self, asking: Asking, signed: SignedTransaction, wait: bool, how: str) -> Task:
        task = Task(self, asking.task_id, asking.agreement, asking.request)
        task.paid = how
        if wait:
            task.receipt = await self.sender.wait(signed.hash)
            if not task.receipt.ok:
                raise Permanent("task.request", "the request was mined but reverted: somebody was faster")
        return task

    def _result_key_for(self, agreement: Agreement) -> bytes:
        """R15: a key where an output is for whoever asks; nobody needs one where all is public, or for others."""
        if self.result_key is not None:
            return self.result_key.public.digest
        if any(ZERO32 in output.recipients for output in agreement.outputs):
            raise Permanent("client.result_key", "no key to open the result with", hint="Give Client a result_key")
        return ZERO32

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
    def wallet_key(self) -> SigningKey:
        if self.wallet is None:
            raise Permanent("client.wallet", "this needs a wallet", hint="Give a keystore and its password file")
        return self.wallet

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
