"""Lies about results, told to the contract: whoever sends `fulfil` has the true result at hand, and changes one thing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from eth_account import Account

from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import Fulfilment, settlement
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Enclaves, Outcome, Price, Result
from oracle.chain.abi import load
from tests import broker_fixtures as fixtures
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Scene
from tests.output_kit import Finished, finished, settles, standing

THIEF = str(Account.create().address)
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
WRONG_TASK = "ComputeOracle_WrongTask"
NOBODY = "ComputeOracle_UnknownEnclave"
"""What a changed result is refused as: another key's address comes out of the old signature, and no enclave has it."""


scene, world = fixtures.scene, fixtures.world


@pytest.fixture
async def task(scene: Scene) -> Finished:
    """A task whose true result the contract takes: tried, and taken back."""
    task = await finished(scene)
    await settles(task)
    return task


def changed(**changes: Any) -> Callable[[Finished], Result]:
    return lambda task: task.result.model_copy(update=changes)


def out(**changes: Any) -> Callable[[Finished], Result]:
    return lambda task: task.make_result(**changes)


def _bit(digest: bytes) -> bytes:
    return bytes([digest[0] ^ 1]) + digest[1:]


# The enclave's signature is over the true result, and the host sends another one with it.


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(
            lambda task: task.make_result(digest=_bit(task.output.manifest.id)),
            marks=lie("results", "an output of another digest under the enclave's signature", "R17", NOBODY),
            id="digest",
        ),
        pytest.param(
            out(length=8192),
            marks=lie("results", "an output of another length under the enclave's signature", "R18", NOBODY),
            id="length",
        ),
        pytest.param(
            out(name="other"),
            marks=lie("results", "an output of another name under the enclave's signature", "R17", NOBODY),
            id="name",
        ),
        pytest.param(
            out(kind=2),
            marks=lie("results", "an output of another kind under the enclave's signature", "R17", NOBODY),
            id="kind",
        ),
        pytest.param(
            out(recipients_digest=recipients_digest([bytes([7]) * 32], bytes(32))),
            marks=lie("results", "another digest of recipients under the enclave's signature", "R15", NOBODY),
            id="recipients",
        ),
        pytest.param(
            changed(payee=THIEF),
            marks=lie("results", "its own payee, having seen the settlement before it was mined", "R20", NOBODY),
            id="payee",
        ),
        pytest.param(
            out(outcome=2),
            marks=lie("results", "a failure in place of the success that the enclave signed", "R19", NOBODY),
            id="failure",
        ),
    ],
)
async def test_a_changed_result_is_nobodys(
    task: Finished, refused: Refused, forge: Callable[[Finished], Result]
) -> None:
    forged = forge(task)
    assert forged != task.result
    refused.watch(standing(task, [THIEF]))
    async with refused():
        await task.fulfil(forged, task.sign(task.result))


@lie("results", "the outputs in another order than the enclave signed", "R17", NOBODY)
async def test_outputs_in_another_order_are_another_result(scene: Scene, refused: Refused) -> None:
    task = await finished(scene)
    (first,) = task.result.outputs
    signed = task.result.model_copy(update={"outputs": (first, first.model_copy(update={"name": "second"}))})
    await settles(task, signed)
    swapped = signed.model_copy(update={"outputs": signed.outputs[::-1]})
    refused.watch(standing(task))
    async with refused():
        await task.fulfil(swapped, task.sign(signed))


# The signature is good, and the result is not this task's.


@lie("results", "a failure with another task's request, whose requester would be paid back", "R19", WRONG_TASK)
async def test_a_failure_pays_nobody_else_back(task: Finished, refused: Refused) -> None:
    request = await task.scene.request(task.agreement, result_key=task.request.result_key)
    failure = task.make_result().model_copy(update={"outcome": Outcome.FAILED, "outputs": ()})
    refused.watch(standing(task))
    async with refused():
        await task.fulfil(failure, task.sign(failure), request=request)


@lie("results", "results under two agreements, settled as one's", "R7", "ComputeOracle_WrongAgreement")
async def test_a_result_of_another_agreement_is_not_settled_along(task: Finished, refused: Refused) -> None:
    other = await finished(task.scene)
    done = [
        Fulfilment(result=each.result, signature=each.sign(each.result), public_outputs=(), request=())
        for each in (task, other)
    ]
    call = load("ComputeOracle").call("fulfilMany", settlement(task.agreement), task.scene.world.identity, done)
    refused.watch(standing(task))
    refused.watch(standing(other))
    async with refused():
        await task.scene.transact(task.scene.world.requester, task.agreement.oracle, call)


@lie("results", "a result for a request that nobody made", "R9", "ComputeOracle_NotRequested")
async def test_a_request_that_nobody_made_cannot_be_settled(task: Finished, refused: Refused) -> None:
    request = task.request.model_copy(update={"nonce": secrets.token_bytes(32)})
    invented = Finished(task.scene, task.agreement, request, task.reader)
    refused.watch(standing(task))
    refused.watch(standing(invented))
    async with refused():
        await invented.fulfil(invented.result, invented.sign(invented.result))


@lie("results", "the same result a second time", "R20", "ComputeOracle_NotRequested")
async def test_a_replayed_settlement_pays_nobody_twice(task: Finished, refused: Refused) -> None:
    await task.settle()
    refused.watch(standing(task))
    async with refused():
        await task.settle()


@lie("results", "a second, different result of a task that is settled", "R16", "ComputeOracle_NotRequested")
async def test_a_different_second_result_cannot_be_settled(task: Finished, refused: Refused) -> None:
    await task.settle()
    resampled = task.make_result(digest=secrets.token_bytes(32))
    refused.watch(standing(task))
    async with refused():
        await task.settle(resampled)


@lie("results", "a result once the deadline has passed", "R14", "ComputeOracle_DeadlinePassed")
async def test_a_late_result_settles_nothing(task: Finished, refused: Refused) -> None:
    await task.scene.rpc.call("evm_increaseTime", 3601)
    await task.scene.mine()
    refused.watch(standing(task))
    async with refused():
        await task.settle()


# What no enclave of this version signs, though it be signed: the contract does not rest on that.


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(
            lambda task: task.make_result(outcome=2).model_copy(update={"outputs": task.result.outputs}),
            marks=lie("results", "a failure that has outputs", "R19", "ComputeOracle_WrongOutputs"),
            id="failed with outputs",
        ),
        pytest.param(
            changed(outputs=()),
            marks=lie("results", "a success without outputs", "R17", "ComputeOracle_WrongOutputs"),
            id="succeeded without outputs",
        ),
        pytest.param(
            changed(outcome=3),
            marks=lie("results", "an outcome that is neither success nor failure", "R19", "ComputeOracle_BadOutcome"),
            id="outcome",
        ),
        pytest.param(
            changed(payee=ZERO_ADDRESS),
            marks=lie("results", "nobody as the payee", "R20", "ComputeOracle_ZeroPayee"),
            id="payee",
        ),
    ],
)
async def test_a_result_out_of_form_settles_nothing(
    task: Finished, refused: Refused, forge: Callable[[Finished], Result]
) -> None:
    refused.watch(standing(task))
    async with refused():
        await task.settle(forge(task))


# Who signed it, and for where.


def _of_key(task: Finished) -> bytes:
    return task.sign(task.result, SigningKey.generate())


def _for(**domain: Any) -> Callable[[Finished], bytes]:
    def sign(task: Finished) -> bytes:
        where = Domain(**{"chain_id": task.chain.chain_id, "verifying_contract": task.agreement.oracle, **domain})
        return task.scene.world.enclave.signer.sign(task.result.typed_digest(where))

    return sign


def _other_half(task: Finished) -> bytes:
    signature = task.sign(task.result)
    s = _ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


@pytest.mark.parametrize(
    "sign",
    [
        pytest.param(
            _of_key, marks=lie("results", "a result that a key of the host's own signed", "R2", NOBODY), id="key"
        ),
        pytest.param(
            _for(chain_id=1),
            marks=lie("results", "a result that the enclave signed for another chain", "R2", NOBODY),
            id="chain",
        ),
        pytest.param(
            _for(verifying_contract=THIEF),
            marks=lie("results", "a result that the enclave signed for another oracle contract", "R7", NOBODY),
            id="contract",
        ),
        pytest.param(
            _other_half,
            marks=lie(
                "results", "the enclave's signature in its other, malleable form", "R2", "ComputeOracle_BadSignature"
            ),
            id="high s",
        ),
    ],
)
async def test_a_signature_of_another_counts_for_nothing(
    task: Finished, refused: Refused, sign: Callable[[Finished], bytes]
) -> None:
    refused.watch(standing(task))
    async with refused():
        await task.fulfil(task.result, sign(task))


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(
            lambda task: {"tee": task.agreement.tee.model_copy(update={"any_host": True, "operators": ()})},
            marks=lie("results", "other terms for enclaves than were agreed", "R7", "ComputeOracle_WrongSettlement"),
            id="tee",
        ),
        pytest.param(
            lambda task: {"price": task.agreement.price.model_copy(update={"to": (THIEF,), "bps": (10_000,)})},
            marks=lie("results", "another price and payees than were agreed", "R7", "ComputeOracle_WrongSettlement"),
            id="price",
        ),
    ],
)
async def test_other_terms_than_agreed_settle_nothing(
    task: Finished, refused: Refused, terms: Callable[[Finished], dict[str, Enclaves | Price]]
) -> None:
    given: dict[str, Any] = terms(task)
    refused.watch(standing(task, [THIEF]))
    async with refused():
        await task.fulfil(task.result, task.sign(task.result), **given)
