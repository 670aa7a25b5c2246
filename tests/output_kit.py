"""What tests of settlements and of sealed outputs share: a task whose enclave has made an output, on the world of broker_kit."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.output import SealedOutput, TaskSecret, seal_output
from enclave_app.protocol.release import OutputBody, ReleaseBody, recipients_digest
from enclave_app.protocol.shares import OutputBinding, ShareList, make_share_list, random_coefficients
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    Agreement,
    Enclaves,
    Out,
    OutputShares,
    Price,
    RegisteredIdentity,
    Result,
    TaskRequest,
    TaskState,
)
from oracle.chain.reader import AgreementReader, OracleReader, TaskOnChain
from oracle.chain.sender import Receipt
from oracle.keybroker import read_log
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.log import OutputReleased, Released
from tests.broker_kit import Scene, fulfil_call

NAME = "summary"
PLAINTEXT = b"mean radius 14.1"


class Finished:
    """A task whose enclave made an output, and can settle it. The reader holds the request's result key."""

    def __init__(
        self, scene: Scene, agreement: Agreement, request: TaskRequest, reader: SealingKey, plaintext: bytes = PLAINTEXT
    ) -> None:
        self.scene, self.agreement, self.request, self.reader = scene, agreement, request, reader
        self.chain = scene.world.chain
        self.domain = self.chain.oracle_domain(agreement)
        self.agreement_id, self.task_id = self.chain.agreement_id(agreement), request.typed_digest(self.domain)
        secret = TaskSecret([secrets.token_bytes(32)], self.agreement_id, self.task_id)
        self.output = seal_output(secret, NAME, plaintext, 4096, 2)
        self.shares = self.share_list(self.output)
        self.result = self.make_result()

    def share_list(self, output: SealedOutput, threshold: int = 2) -> ShareList:
        binding = OutputBinding(
            chain_id=self.chain.chain_id,
            oracle=self.agreement.oracle,
            agreement_id=self.agreement_id,
            task_id=self.task_id,
            output=output.manifest.id,
        )
        public = [card.public_key() for card in self.scene.world.brokers]
        coefficients = random_coefficients(threshold)
        return make_share_list(output.manifest.id, [output.key], threshold, public, binding, coefficients)

    def make_result(self, outcome: int = 1, **changes: Any) -> Result:
        """The result that the enclave would sign; `changes` are of its one output."""
        out = {
            "name": NAME,
            "kind": 1,
            "recipients_digest": recipients_digest(self.agreement.outputs[0].recipients, self.request.result_key),
            "length": self.output.length,
            "digest": self.output.manifest.id,
        }
        return Result(
            agreement_id=self.agreement_id,
            task_id=self.task_id,
            outcome=outcome,
            outputs=(Out(**{**out, **changes}),) if outcome == 1 else (),
            payee=self.scene.world.operator.address,
            anchor=self.scene.anchor,
        )

    def sign(self, result: Result, signer: SigningKey | None = None) -> bytes:
        return (signer or self.scene.world.enclave.signer).sign(result.typed_digest(self.domain))

    async def fulfil(
        self,
        result: Result,
        signature: bytes,
        *,
        request: TaskRequest | None = None,
        tee: Enclaves | None = None,
        price: Price | None = None,
        enclave: RegisteredIdentity | None = None,
    ) -> Receipt:
        """What anyone can send. Raises `Reverted` before it is sent."""
        tee, price = tee or self.agreement.tee, price or self.agreement.price
        enclave = enclave or self.scene.world.identity
        agreement = self.agreement.model_copy(update={"tee": tee, "price": price})
        call = fulfil_call(agreement, request or self.request, result, enclave, signature)
        return await self.scene.transact(self.scene.world.requester, self.agreement.oracle, call)

    async def settle(self, result: Result | None = None) -> Receipt:
        result = result or self.result
        return await self.fulfil(result, self.sign(result))

    async def on_chain(self) -> TaskOnChain:
        return await OracleReader(self.scene.source, self.agreement.oracle).task(
            self.agreement_id, self.task_id, await self.scene.head()
        )

    async def quota_used(self) -> int:
        registry = AgreementReader(self.scene.source, self.chain.agreement_registry)
        return (await registry.record(self.agreement_id, await self.scene.head())).used

    async def release_body(self) -> ReleaseBody:
        """What the worker asked broker 0 with, for the keys that the enclave ran with."""
        return ReleaseBody(
            chain=self.chain,
            agreement=self.agreement,
            signatures=self.scene.signatures(self.agreement),
            request=self.request,
            manifests=tuple(s.manifest.canonical() for s in self.scene.world.sealed),
            share_lists=tuple(s.shares.canonical() for s in self.scene.world.sealed),
            release=self.scene.ask(self.agreement, self.request),
            evidence=await self.scene.evidence(),
        )

    def statement(self, signer: SigningKey | None = None, **changes: Any) -> dict[str, Any]:
        said = {
            "agreement_id": self.agreement_id,
            "task_id": self.task_id,
            "output_id": self.output.manifest.id,
            "shares": self.shares.id,
        }
        shares = OutputShares(**{**said, **changes})
        signature = (signer or self.scene.world.enclave.signer).sign(shares.typed_digest(self.domain))
        return {"shares": shares, "shares_signature": signature}

    def body(self, **changes: Any) -> OutputBody:
        return OutputBody(
            **{
                "chain": self.chain,
                "agreement": self.agreement,
                "request": self.request,
                "result": self.result,
                "output": 0,
                "manifest": self.output.manifest.canonical(),
                "share_list": self.shares.canonical(),
                **self.statement(),
                "enclave": self.scene.world.identity,
                "recipient": self.reader.public.wire,
                **changes,
            }
        )


async def finished(
    scene: Scene, *, plaintext: bytes = PLAINTEXT, request: dict[str, Any] | None = None, **changes: Any
) -> Finished:
    """Requested, computed, not settled yet. `request` changes the request, `changes` the agreement."""
    agreement = scene.agreement(**changes)
    await scene.activate(agreement)
    reader = SealingKey.generate()
    made = await scene.request(agreement, **{"result_key": reader.public.digest, **(request or {})})
    return Finished(scene, agreement, made, reader, plaintext)


async def settles(task: Finished, result: Result | None = None) -> None:
    """That the contract takes the result: tried, and taken back."""
    before = await task.scene.rpc.call("evm_snapshot")
    await task.settle(result)
    settled = await task.on_chain()
    assert (settled.state, settled.escrow) == (TaskState.FULFILLED, 0)
    await task.scene.rpc.call("evm_revert", before)
    assert (await task.on_chain()).state is TaskState.REQUESTED


def outputs_logged(directory: Path) -> list[OutputReleased]:
    """Of the broker whose directory this is."""
    return [event for event in _released(directory) if isinstance(event, OutputReleased)]


def releases_logged(directory: Path) -> list[Released]:
    return [event for event in _released(directory) if isinstance(event, Released)]


def _released(directory: Path) -> list[Released | OutputReleased]:
    if not (directory / LOG_FILE).exists():
        return []
    events = [entry.event for entry in read_log(directory / LOG_FILE)]
    return [event for event in events if isinstance(event, Released | OutputReleased)]


def released_by(*directories: Path) -> Callable[[], Awaitable[object]]:
    """A footprint: all that these brokers ever gave away, which they log before they answer."""

    async def footprint() -> object:
        return [_released(directory) for directory in directories]

    return footprint


def standing(task: Finished, accounts: Sequence[str] = ()) -> Callable[[], Awaitable[object]]:
    """A footprint: the task's state on chain, the quota used, and what everyone concerned could withdraw."""
    world = task.scene.world
    concerned = [world.operator.address, world.requester.address, *(o.address for o in world.owners), *accounts]

    async def footprint() -> object:
        scene, head = task.scene, await task.scene.head()
        oracle = OracleReader(scene.source, task.agreement.oracle)
        balances = [await oracle.balance(account, head) for account in concerned]
        return await oracle.task(task.agreement_id, task.task_id, head), await task.quota_used(), balances

    return footprint
