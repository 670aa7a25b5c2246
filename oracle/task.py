"""One request: wait for it, and open its result with shares of t brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from enclave_app.protocol import output, release, shares, signing
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.onchain import Admission, pricing
from enclave_app.protocol.release import OutputBody, SignedShares, recipients_digest
from enclave_app.protocol.structs import (
    ANYONE,
    Agreement,
    Confirmation,
    Outcome,
    RegisteredIdentity,
    Result,
    TaskRequest,
    TaskState,
)
from oracle.agreement.outputs import check_public
from oracle.agreement.requesters import admission_of
from oracle.arrow import read_table
from oracle.chain.abi import request_arguments
from oracle.chain.events import PublicOutputs, TaskBatched, TaskSettled, read_event
from oracle.chain.reader import TaskOnChain
from oracle.chain.rpc import as_bytes, as_hex
from oracle.chain.sender import Receipt
from oracle.errors import OracleError, Permanent, Refused, Retryable

if TYPE_CHECKING:
    import pyarrow as pa

    from oracle.client import Client

FAILED = "the function failed: invalid parameters or a deterministic error (R19)"
POLL = 0.05
RELEASE_PATIENCE = 10.0
RECEIPT_PATIENCE = 30.0
FINALITY_PATIENCE = 1800.0
"""Seconds that brokers may take to see a settlement as confirmed: at the latest block, or past the chain's finality."""


class Task:
    """One request: wait for it, and open its result."""

    def __init__(self, client: Client, task_id: bytes, agreement: Agreement, request: TaskRequest) -> None:
        self.client, self.id, self.agreement, self.request = client, task_id, agreement, request
        self.receipt: Receipt | None = None
        self.paid = ""
        """How this client paid for it: `value`, `allowance`, `permit`, `authorization` or `approval`."""
        self.requesters: Mapping[str, int] | None = None
        """The agreed list, where it is known: a cancellation shows the requester's place in it again."""

    async def state(self) -> TaskOnChain:
        return await self.client.oracle.task(self.request.agreement_id, self.id, await self.client.head())

    async def wait(self, *, patience: float | None = None) -> TaskState:
        """Until the task has ended (or `patience` seconds passed); returns its final state."""
        limit = None if patience is None else time.monotonic() + patience
        while True:
            state = (await self.state()).state
            if state not in (TaskState.NONE, TaskState.REQUESTED):
                return state
            if limit is not None and time.monotonic() > limit:
                raise Retryable("task.pending", f"task 0x{self.id.hex()} has not ended yet")
            head = await self.client.head()
            if state == TaskState.REQUESTED and head.timestamp > self.request.deadline:
                raise Permanent(
                    "task.late",
                    "the task's deadline passed without a result",
                    hint="`oracle task expire` returns the fee",
                )
            await asyncio.sleep(POLL)

    async def cancel(self) -> Receipt:
        """Take the request back, within the agreement's release delay (R9)."""
        admission = await self._shown() if self.requesters is None else self._admission(self.requesters)
        return await self.client.transact("ComputeOracle", "cancel", self.request, admission)

    def _admission(self, requesters: Mapping[str, int]) -> Admission:
        return admission_of(self.agreement, requesters, self.request.requester)

    async def _shown(self) -> Admission:
        """What the request showed to be let in: it is in its transaction. What an RPC endpoint makes up the contract refuses."""
        if self.agreement.access.requesters == ANYONE:
            return self._admission({})
        for log in await self.client.logs_about(self.agreement.oracle, "TaskRequested", self.id):
            sent = await self.client.rpc.call("eth_getTransactionByHash", as_hex(log.transaction_hash))
            if isinstance(sent, dict):
                shown = request_arguments(as_bytes(sent.get("input")))
                if shown is not None:
                    return Admission.from_abi(shown)
        # Somebody else's contract called: the list has to be given.
        return self._admission({})

    async def expire(self) -> Receipt:
        """After the deadline: get the fee back, less the agreement's minimum fee. Anyone may."""
        return await self.client.transact("ComputeOracle", "expire", self.request, pricing(self.agreement))

    async def retry_callback(self) -> Receipt:
        """Make a callback that failed again, with as much gas as it takes now. Anyone may."""
        settled = await self.settlement()
        outputs = await self.public_outputs(settled.result)
        return await self.client.transact("ComputeOracle", "retryCallback", self.request, settled.result, list(outputs))

    async def settlement(self) -> TaskSettled:
        """The result as the contract accepted it, its digest and signature checked against the chain's state (R17).

        A batch's results are not in its transaction: then the result is the one that the worker left in storage.
        """
        on_chain = await self.state()
        if on_chain.state not in (TaskState.FULFILLED, TaskState.FAILED):
            raise Retryable("task.pending", f"task 0x{self.id.hex()} is {on_chain.state.name.lower()}")
        for log in await self.client.logs_about(
            self.agreement.oracle, ("TaskFulfilled", "TaskFulfilledInBatch"), self.id
        ):
            event = read_event(log)
            if isinstance(event, TaskBatched):
                event = await self._batched(event)
            if isinstance(event, TaskSettled):
                return self._checked(event, on_chain)
        raise Retryable("task.no_log", "the settlement's log is not there yet")

    async def _batched(self, event: TaskBatched) -> TaskSettled:
        record = await self.client.record(self.id)
        return TaskSettled(
            task_id=self.id,
            agreement_id=self.request.agreement_id,
            signer=record.signer,
            result_digest=event.result_digest,
            result=record.result,
            signature=record.signature,
            log=event.log,
        )

    def _checked(self, event: TaskSettled, on_chain: TaskOnChain) -> TaskSettled:
        outputs, agreed = event.result.outputs, self.agreement.outputs
        if on_chain.state == TaskState.FULFILLED and [o.name for o in outputs] != [o.name for o in agreed]:
            raise Refused("task.outputs", "the result has other outputs than the agreement")
        digest = event.result.typed_digest(self.client.chain.oracle_domain(self.agreement))
        if not on_chain.settled_with(digest):
            raise Refused("task.result_digest", "the result is not the one the contract keeps")
        signing.check(digest, event.signature, event.signer, "the result")
        return event

    async def public_outputs(self, result: Result) -> tuple[bytes, ...]:
        """The content of the outputs without recipients, in their order, each with the digest that was settled."""
        nobody = recipients_digest((), ZERO32)
        digests = [out.digest for out in result.outputs if out.recipients_digest == nobody]
        if not digests:
            return ()
        for log in await self.client.logs_about(self.agreement.oracle, "PublicOutputs", self.id):
            event = read_event(log)
            if isinstance(event, PublicOutputs):
                if [sha256(content) for content in event.outputs] != digests:
                    raise Refused("task.public_outputs", "the log's public outputs are not those that were settled")
                return event.outputs
        raise Retryable("task.no_log", "the log of the public outputs is not there yet")

    async def fetch_receipt(self, *, patience: float = RECEIPT_PATIENCE) -> bytes:
        """The task's receipt, which its worker writes once it has seen the settlement; waits up to `patience` seconds."""
        return await self.client.receipt(self.id, patience=patience)

    async def result(self, name: str | None = None, *, patience: float | None = None) -> pa.Table:
        """The named output (the only one, by default) as a table: waits, gathers t broker shares, opens, checks.

        `patience` in seconds bounds the whole wait. Brokers release once they see the settlement at a block that the
        agreement calls confirmed, so `finalized` takes the chain's finality after the task has ended. Raises Refused
        `task.public_output` for a public output, of which no broker has a share.
        """
        index = self._output_index(name)
        if self.agreement.outputs[index].is_public:
            raise Refused(
                "task.public_output",
                "a public output is not sealed",
                hint="Read it with public_output(), from the chain",
            )
        limit = None if patience is None else time.monotonic() + patience
        await self.wait(patience=patience)
        settled = await self.settlement()
        if settled.result.outcome != Outcome.SUCCEEDED:
            raise Permanent("task.failed", FAILED)
        if limit is None:
            quick = self.agreement.keys.confirmation == Confirmation.LATEST
            limit = time.monotonic() + (RELEASE_PATIENCE if quick else FINALITY_PATIENCE)
        plaintext = await self._open_when_released(settled, index, limit)
        return read_table(plaintext, most_rows=self.agreement.fn.limits.output_rows)

    async def public_output(self, name: str | None = None, *, patience: float | None = None) -> bytes:
        """The content of the named public output (the only output, by default), which the settlement published: one row, which
        `enclave_app.protocol.abi_output.decode_row` reads. Raises Refused `task.sealed_output` for one that is sealed."""
        index, agreed = self._output_index(name), self.agreement.outputs
        if not agreed[index].is_public:
            raise Refused("task.sealed_output", "the output is sealed", hint="Open it with result()")
        await self.wait(patience=patience)
        settled = await self.settlement()
        if settled.result.outcome != Outcome.SUCCEEDED:
            raise Permanent("task.failed", FAILED)
        out, contents = settled.result.outputs[index], await self.public_outputs(settled.result)
        content = next((each for each in contents if sha256(each) == out.digest), b"")
        check_public(agreed[index], out, content)
        return content

    async def _open_when_released(self, settled: TaskSettled, index: int, limit: float) -> bytes:
        pause = POLL
        while True:
            try:
                record = await self.client.record(self.id)
                signed = next((s for s in record.outputs if s.output == index), None)
                if signed is None:
                    raise Retryable("task.record", "storage holds no shares for this output yet")
                return await self._open(settled, index, signed, record.enclave)
            except Retryable:
                if time.monotonic() + pause > limit:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)

    async def _open(self, settled: TaskSettled, index: int, signed: SignedShares, enclave: RegisteredIdentity) -> bytes:
        key_pair = self.client.result_key
        if key_pair is None:
            raise Permanent("client.result_key", "no key to open the result with")
        chain, out = self.client.chain, settled.result.outputs[index]
        manifest = read_manifest(signed.manifest, out.digest)
        listed = shares.read_share_list(signed.share_list, manifest.id, signed.shares.shares)
        if (signed.shares.agreement_id, signed.shares.task_id) != (settled.agreement_id, self.id):
            raise Refused("task.record", "the shares in storage are for another task")
        body = OutputBody(
            chain=chain,
            agreement=self.agreement,
            request=self.request,
            result=settled.result,
            output=index,
            manifest=signed.manifest,
            share_list=signed.share_list,
            shares=signed.shares,
            shares_signature=signed.signature,
            enclave=enclave,
            recipient=key_pair.public.wire,
        ).canonical()
        good = await self._gather_shares(listed, signed, body, key_pair)
        key = shares.recover_key(good, self.agreement.keys.threshold, manifest.keys[0])
        ciphertext = await self.client.blob(manifest.files[0].sha256)
        return output.open_output(manifest, ciphertext, key, settled.agreement_id, self.id, out.name)

    async def _gather_shares(
        self, listed: shares.ShareList, signed: SignedShares, body: bytes, key_pair: SealingKey
    ) -> dict[int, bytes]:
        """The first t good shares (R11); a broker that is down, slow or wrong is passed over while others suffice."""
        chain, threshold = self.client.chain, self.agreement.keys.threshold

        async def ask(broker: bytes) -> tuple[int, bytes]:
            url = self.client.config.brokers.get(broker)
            if url is None:
                raise Permanent("broker.endpoint", f"no endpoint is configured for broker {broker.hex()[:16]}…")
            answer = await self.client.post_output(url, body)
            x, share = release.open_output_share(answer.sealed, chain, self.agreement, signed.shares, broker, key_pair)
            if x != listed.position(broker):
                raise Refused("shares.wrong", "a broker answered with another's share")
            shares.check_share(listed, x, 0, share)
            return x, share

        pending = {asyncio.create_task(ask(entry.broker)) for entry in listed.brokers}
        good: dict[int, bytes] = {}
        faults: list[OracleError] = []
        try:
            while pending and len(good) < threshold:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    try:
                        x, share = finished.result()
                    except OracleError as error:
                        faults.append(error)
                    else:
                        good[x] = share
        finally:
            for rest in pending:
                rest.cancel()
        if len(good) < threshold:
            reasons = "; ".join(str(fault) for fault in faults[:3])
            kind = Retryable if any(isinstance(f, Retryable) for f in faults) else Refused
            raise kind("output.shares", f"{len(good)} of the {threshold} brokers needed answered: {reasons}")
        return good

    def _output_index(self, name: str | None) -> int:
        names = [o.name for o in self.agreement.outputs]
        if name is None and len(names) == 1:
            return 0
        if name is None or name not in names:
            raise Refused("task.output", "the task has no such output", found=name, expected=" or ".join(names))
        return names.index(name)
