"""Registration and settlement against the real contracts, with an enclave key of the test's own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import Evidence, development_anchor
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.release import TaskRecord, recipients_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Confirmation, Out, Result, Retire, TaskRequest, TaskState
from oracle.attestation import Collateral, DevelopmentRoot
from oracle.chain.abi import load
from oracle.chain.rpc import as_int
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.errors import Reverted
from oracle.worker.enclave import Enclave
from oracle.worker.enrolment import Enrolment
from oracle.worker.plan import MIN_MAX_AGE
from oracle.worker.register import (
    DevelopmentAppraiser,
    Enrolled,
    anchor_of,
    register_enclave,
)
from oracle.worker.settle import Settler, Verdict, judge
from tests.worker_kit import FEE, World, world


def appraiser(place: World, **changes: Any) -> DevelopmentAppraiser:
    fields: dict[str, Any] = {
        "key": place.appraiser,
        "verifier": place.deployment.verifiers["development"],
        "chain_id": place.deployment.chain_id,
        "root": DevelopmentRoot(place.authority.root_der),
        "collateral": Collateral.from_json(json.dumps(place.authority.collateral())),
    }
    return DevelopmentAppraiser(**{**fields, **changes})


async def register(place: World, operator: SigningKey | None = None, **changes: Any) -> Enrolled:
    async with Enclave(place.enclave.socket) as enclave:
        return await register_enclave(
            enclave,
            Sender(place.rpc, place.wallet),
            SingleSource(place.rpc),
            place.deployment,
            appraiser(place, **changes),
            operator,
        )


def record(place: World, agreement: Agreement, task_id: bytes, request: TaskRequest, **changes: Any) -> TaskRecord:
    """A signed success, as an enclave would give it; `changes` are of the result, before it is signed."""
    term = agreement.outputs[0]
    fields: dict[str, Any] = {
        "agreement_id": request.agreement_id,
        "task_id": task_id,
        "outcome": 1,
        "outputs": (
            Out(
                name=term.name,
                kind=term.kind,
                recipients_digest=recipients_digest(term.recipients, request.result_key),
                length=4096,
                digest=b"\x01" * 32,
            ),
        ),
        "payee": place.payee,
        "anchor": development_anchor(place.deployment.chain_id, place.appraiser.address),
    }
    result = Result(**{**fields, **changes})
    signing = place.enclave.signing
    return TaskRecord(
        chain=place.chain,
        agreement=agreement,
        request=request,
        result=result,
        signature=signing.sign(result.typed_digest(place.chain.oracle_domain(agreement))),
        signer=signing.address,
        outputs=(),
        releases=(),
        evidence=Evidence(
            tee=1,
            quote=b"",
            signer=signing.address,
            sealing_key=b"",
            chain_id=place.deployment.chain_id,
            registry=place.deployment.enclave_registry,
            block_number=0,
            block_hash=ZERO32,
            operator=ZERO_ADDRESS,
            operator_signature=b"",
        ),
        consents=(),
        measurement=place.enclave.measurement,
    )


def settler(place: World) -> Settler:
    return Settler(Sender(place.rpc, place.wallet), place.deployment.oracle)


async def test_registration_puts_the_appraised_identity_on_chain(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        operator = SigningKey.generate()
        enrolled = await register(place, operator)
        registered = enrolled.record
        assert registered.measurement == place.enclave.measurement
        assert registered.sealing_key == place.enclave.sealing.public.digest
        assert (registered.operator, registered.tee, registered.tcb_status) == (operator.address, 1, 1)
        assert registered.block_number == enrolled.evidence.block_number
        anchor = await anchor_of(SingleSource(place.rpc), place.deployment.verifiers["development"])
        assert enrolled.anchor == anchor == development_anchor(place.deployment.chain_id, place.appraiser.address)


async def test_registering_again_renews_over_a_newer_block(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        first = await register(place)
        second = await register(place)
        assert second.record.block_number > first.record.block_number
        assert second.signer == first.signer


async def test_one_agreement_that_wants_young_evidence_is_no_standing_cost(tmp_path: Path) -> None:
    """Anyone can activate such an agreement: it is renewed for when a task of it comes, and not for ever after."""
    async with world(tmp_path) as place, Enclave(place.enclave.socket) as enclave:
        source = SingleSource(place.rpc)
        now = (await source.confirmed(Confirmation.LATEST)).timestamp
        enrolment = Enrolment(
            enclave,
            None,
            Sender(place.rpc, place.wallet),
            source,
            place.deployment,
            appraiser(place).anchor,
            appraiser(place),
            None,
            lambda: None,
            lambda: now,
        )

        async def sent() -> int:
            return as_int(await place.rpc.call("eth_getTransactionCount", place.wallet.address, "latest"))

        await enrolment.current(MIN_MAX_AGE)
        await place.rpc.call("evm_increaseTime", MIN_MAX_AGE)
        await place.rpc.call("anvil_mine", hex(1))
        now, before = (await source.confirmed(Confirmation.LATEST)).timestamp, await sent()
        watching = asyncio.create_task(enrolment.watch(0.01))
        await asyncio.sleep(0.5)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert await sent() == before
        await enrolment.current(MIN_MAX_AGE)
        assert await sent() == before + 1


async def test_a_signed_result_is_settled_and_the_payee_is_paid(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        await register(place)
        agreement = await place.agreement()
        await place.activate(agreement)
        task_id, request, _ = await place.request(agreement)
        signed = record(place, agreement, task_id, request)
        settling = settler(place)
        receipt = await settling.wait(await settling.send(signed), 10)
        assert receipt is not None
        assert receipt.ok
        settled = await place.on_chain(task_id)
        assert settled.state is TaskState.FULFILLED
        assert settled.result_digest == signed.result.typed_digest(place.chain.oracle_domain(agreement))[:31]


async def test_many_settlements_at_once_all_go_through(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        await register(place)
        agreement = await place.agreement()
        await place.activate(agreement)
        asked = [await place.request(agreement) for _ in range(12)]
        settling = settler(place)

        async def settle(task_id: bytes, request: TaskRequest) -> bool:
            sent = await settling.send(record(place, agreement, task_id, request))
            receipt = await settling.wait(sent, 10)
            return receipt is not None and receipt.ok

        assert all(await asyncio.gather(*(settle(task_id, request) for task_id, request, _ in asked)))


async def test_a_second_settlement_is_refused_before_sending_and_means_settled(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        await register(place)
        agreement = await place.agreement()
        await place.activate(agreement)
        task_id, request, _ = await place.request(agreement)
        signed = record(place, agreement, task_id, request)
        settling = settler(place)
        await settling.wait(await settling.send(signed), 10)
        sent = as_int(await place.rpc.call("eth_getTransactionCount", place.wallet.address, "latest"))
        with pytest.raises(Reverted) as raised:
            await settling.send(signed)
        assert judge(raised.value) is Verdict.SETTLED
        assert as_int(await place.rpc.call("eth_getTransactionCount", place.wallet.address, "latest")) == sent


@pytest.mark.parametrize(
    ("change", "name", "verdict"),
    [
        ("unregistered", "ComputeOracle_UnknownEnclave", Verdict.SIGNER_GONE),
        ("late", "ComputeOracle_DeadlinePassed", Verdict.EXPIRED),
        ("old", "ComputeOracle_EvidenceTooOld", Verdict.SIGNER_GONE),
        ("retired", "ComputeOracle_EnclaveRetired", Verdict.SIGNER_GONE),
        ("other signature", "ComputeOracle_UnknownEnclave", Verdict.SIGNER_GONE),
        ("other agreement", "ComputeOracle_WrongSettlement", Verdict.NEVER),
        ("no payee", "ComputeOracle_ZeroPayee", Verdict.NEVER),
    ],
)
async def test_each_refusal_of_the_contract_is_understood(
    tmp_path: Path, change: str, name: str, verdict: Verdict
) -> None:
    async with world(tmp_path) as place:
        agreement = await place.agreement()
        if change == "old":
            agreement = agreement.model_copy(update={"tee": agreement.tee.model_copy(update={"max_evidence_age": 600})})
        if change != "unregistered":
            await register(place)
        await place.activate(agreement)
        task_id, request, _ = await place.request(agreement)
        signed = record(place, agreement, task_id, request, **({"payee": ZERO_ADDRESS} if change == "no payee" else {}))
        if change in ("late", "old"):
            await place.rpc.call("evm_increaseTime", 3601 if change == "late" else 700)
            await place.rpc.call("anvil_mine", hex(1))
        elif change == "retired":
            await retire(place)
        elif change == "other signature":
            signed = signed.model_copy(update={"signature": SigningKey.generate().sign(b"\x01" * 32)})
        elif change == "other agreement":
            price = agreement.price.model_copy(update={"failed_fee": 1})
            signed = signed.model_copy(update={"agreement": agreement.model_copy(update={"price": price})})
        with pytest.raises(Reverted) as raised:
            await settler(place).simulate(signed)
        assert raised.value.name == name
        assert judge(raised.value) is verdict


async def retire(place: World) -> None:
    signing = place.enclave.signing
    domain = Domain(chain_id=place.deployment.chain_id, verifying_contract=place.deployment.enclave_registry)
    signature = signing.sign(Retire(signer=signing.address).typed_digest(domain))
    anchor = development_anchor(place.deployment.chain_id, place.appraiser.address)
    call = load("EnclaveRegistry").call("retire", anchor, signing.address, signature)
    await place.requester.transact(place.deployment.enclave_registry, call)


async def test_a_transaction_that_no_one_knows_is_no_receipt(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        assert await settler(place).wait(b"\x01" * 32, 0.05) is None


@pytest.mark.parametrize("callback_gas", [50_000, 1_000_000])
async def test_a_callback_gets_all_its_gas_and_cannot_block_the_settlement(tmp_path: Path, callback_gas: int) -> None:
    async with world(tmp_path) as place:
        await register(place)
        agreement = await place.agreement()
        await place.activate(agreement)
        # A contract at the requester's address whose every call runs in a circle: JUMPDEST PUSH1 0 JUMP.
        consumer = "0x" + "c0" * 20
        await place.rpc.call("anvil_setCode", consumer, "0x5b600056")
        await place.rpc.call("anvil_setBalance", consumer, hex(10**24))
        await place.rpc.call("anvil_impersonateAccount", consumer)
        template = await place.request(agreement)
        request = template[1].model_copy(
            update={"requester": to_checksum_address(consumer), "callback": to_checksum_address(consumer)}
        )
        request = request.model_copy(update={"callback_gas": callback_gas})
        call = load("ComputeOracle").call("request", request, [], "")
        transaction = {
            "from": consumer,
            "to": place.deployment.oracle,
            "data": "0x" + call.hex(),
            "value": hex(FEE),
            "gas": hex(500_000),
        }
        await place.rpc.call("eth_sendTransaction", transaction)
        task_id = request.typed_digest(place.chain.oracle_domain(agreement))
        settling = settler(place)
        receipt = await settling.wait(await settling.send(record(place, agreement, task_id, request)), 10)
        assert receipt is not None
        assert receipt.ok
        assert receipt.gas_used > callback_gas
        assert (await place.on_chain(task_id)).state is TaskState.FULFILLED
