"""Registration and settlement against the real contracts, with an enclave key of the test's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from eth_utils.address import to_checksum_address

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import admission
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Confirmation, Retire, TaskRequest, TaskState, TcbStatus
from oracle.chain.abi import load
from oracle.chain.enclaves import registered_enclaves
from oracle.chain.reader import EnclaveReader, EnclaveRecord
from oracle.chain.rpc import as_int
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.errors import Retryable, Reverted
from oracle.worker.enclave import Enclave
from oracle.worker.enrolment import Enrolment
from oracle.worker.plan import MIN_MAX_AGE
from oracle.worker.process import EnclaveProcess
from oracle.worker.register import IdentityChanged
from oracle.worker.settle import Verdict, judge
from tests.settle_kit import record, register, registrar, settler
from tests.worker_kit import FEE, World, world


async def test_registration_puts_the_appraised_identity_on_chain(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        operator = SigningKey.generate()
        enrolled = await register(place, operator)
        assert enrolled.anchor == sha256(place.authority.root_der)
        assert enrolled.record.identity == place.enclave.registered.model_copy(update={"operator": operator.address})
        standing = enrolled.record.standing
        assert (standing.tcb_status, standing.evaluation) == (TcbStatus.UP_TO_DATE, 17)
        assert standing.block_number == enrolled.evidence.block_number
        source = SingleSource(place.rpc)
        reader = EnclaveReader(source, place.deployment.enclave_registry)
        found = await reader.record(enrolled.anchor, enrolled.signer, await source.confirmed(Confirmation.LATEST))
        assert found == EnclaveRecord(enrolled.record.identity.digest, standing)


async def test_registering_again_renews_over_a_newer_block(tmp_path: Path) -> None:
    async with world(tmp_path) as place:
        first = await register(place)
        second = await register(place)
        assert second.record.standing.block_number > first.record.standing.block_number
        assert second.signer == first.signer


async def test_one_agreement_that_wants_young_evidence_is_no_standing_cost(tmp_path: Path) -> None:
    """Anyone can activate such an agreement: it is renewed for when a task of it comes, and not for ever after."""
    async with world(tmp_path) as place, Enclave(place.enclave.socket) as enclave:
        source = SingleSource(place.rpc)
        now = (await source.confirmed(Confirmation.LATEST)).timestamp
        sender = Sender(place.rpc, place.wallet)
        made = registrar(place, sender)
        enrolment = Enrolment(enclave, None, sender, source, place.deployment, made, None, lambda: None, lambda: now)

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


async def test_an_enclave_that_changed_machines_cannot_renew(tmp_path: Path) -> None:
    """R1: it is another identity, and starts again with new keys; nobody pays to learn that from the contract."""
    async with world(tmp_path) as place:
        await register(place)
        place.enclave.move(place.authority)
        sent = as_int(await place.rpc.call("eth_getTransactionCount", place.wallet.address, "latest"))
        with pytest.raises(IdentityChanged):
            await register(place)
        assert as_int(await place.rpc.call("eth_getTransactionCount", place.wallet.address, "latest")) == sent
        await place.enclave.restart()
        assert (await register(place)).signer == place.enclave.signing.address


async def test_a_worker_starts_an_enclave_again_that_changed_machines(tmp_path: Path) -> None:
    async with world(tmp_path) as place, Enclave(place.enclave.socket) as enclave:
        source, sender = SingleSource(place.rpc), Sender(place.rpc, place.wallet)
        changes: list[str] = []

        class Process(EnclaveProcess):
            """Its program is the tiny enclave."""

            async def stop(self, seconds: float = 5.0) -> None:
                changes.append("stopped")

            async def start(self) -> None:
                await place.enclave.restart()

        enrolment = Enrolment(
            enclave,
            Process((), place.enclave.socket, 1.0),
            sender,
            source,
            place.deployment,
            registrar(place, sender),
            None,
            lambda: changes.append("changed"),
            lambda: 0,
        )
        first = (await enrolment.current()).signer
        place.enclave.move(place.authority)
        enrolment.doubt()
        head = (await source.confirmed(Confirmation.LATEST)).timestamp
        enrolment._chain_time = lambda: head + MIN_MAX_AGE  # old enough to be looked at again
        second = await enrolment.current(MIN_MAX_AGE)
        assert first != second.signer == place.enclave.signing.address
        assert second.record.identity == place.enclave.registered
        assert changes == ["stopped", "changed"]


async def test_an_identity_that_is_retired_counts_no_more_and_another_takes_its_place(tmp_path: Path) -> None:
    async with world(tmp_path) as place, Enclave(place.enclave.socket) as enclave:
        source, sender = SingleSource(place.rpc), Sender(place.rpc, place.wallet)

        class Process(EnclaveProcess):
            """Its program is the tiny enclave."""

            async def stop(self, seconds: float = 5.0) -> None:
                pass

            async def start(self) -> None:
                await place.enclave.restart()

        async def now_valid() -> set[str]:
            head = await source.confirmed(Confirmation.LATEST)
            return {each.signer for each in await registered_enclaves(source, place.deployment, head) if each.valid}

        process, made = Process((), place.enclave.socket, 1.0), registrar(place, sender)
        enrolment = Enrolment(enclave, process, sender, source, place.deployment, made, None, lambda: None, lambda: 0)
        first = (await enrolment.current()).signer
        assert await now_valid() == {first}
        assert await enrolment.retire()
        assert await now_valid() == set()
        assert not await enrolment.retire()
        second = (await enrolment.current()).signer
        assert first != second
        assert await now_valid() == {second}


async def test_a_registration_by_others_is_found_in_the_registrys_log(tmp_path: Path) -> None:
    async with world(tmp_path) as place, Enclave(place.enclave.socket) as enclave:
        source, sender = SingleSource(place.rpc), Sender(place.rpc, place.wallet)
        enrolment = Enrolment(enclave, None, sender, source, place.deployment, None, None, lambda: None, lambda: 0)
        with pytest.raises(Retryable) as raised:
            await enrolment.current()
        assert raised.value.code == "enclave.unregistered"
        theirs = await register(place)
        mine = await enrolment.current()
        assert (mine.record, mine.anchor) == (theirs.record, theirs.anchor)


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
        ("other enclave", "EnclaveRegistry_WrongIdentity", Verdict.SIGNER_GONE),
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
        elif change == "other enclave":
            other = signed.enclave.model_copy(update={"platform": b"\x01" * 32})
            signed = signed.model_copy(update={"enclave": other})
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
    anchor = sha256(place.authority.root_der)
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
        call = load("ComputeOracle").call("request", request, admission(agreement), "")
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
