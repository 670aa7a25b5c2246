"""What people do with the contracts, from deployment to withdrawal, on two EVMs: anvil's, and Hardhat's with --all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from eth_abi.abi import encode

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import Auditors, admission
from enclave_app.protocol.structs import ANYONE, Access, Audit, DatasetPolicy, PaymentKind, TaskState
from oracle.chain.deploy import missing, plan
from oracle.chain.reader import AgreementStatus, Consent
from oracle.errors import Reverted
from tests.anvil_kit import anvil
from tests.hardhat_kit import hardhat
from tests.market_kit import FEE, RICH, Market, compiled, tree

pytestmark = pytest.mark.asyncio(loop_scope="module")
SHARED = FEE * 5501 // 10_000
NODES = [pytest.param(anvil, id="anvil"), pytest.param(hardhat, id="hardhat", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=NODES)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(url: str) -> AsyncIterator[Market]:
    async with Market.open(url, seed=5) as found:
        yield found


async def state(market: Market, *of: object) -> TaskState:
    return TaskState((await market.task(*of))["state"])  # type: ignore[arg-type]


async def test_the_contracts_are_where_their_code_says(market: Market) -> None:
    contracts = plan(market.authority.root_der)
    assert not await missing(market.rpc, list(contracts.values()))
    assert market.deployment.oracle == contracts["ComputeOracle"].address


async def test_signatures_make_an_agreement_active(market: Market) -> None:
    agreement = await market.active()
    agreement_id = market.agreement_id(agreement)
    asked = [("status", agreement_id), *(("consentOf", agreement_id, party) for party in agreement.parties())]
    status, *consents = await market.views("AgreementRegistry", market.deployment.agreement_registry, *asked)
    assert (status, consents) == (AgreementStatus.ACTIVE, [Consent.ECDSA] * 3)


async def test_a_consent_by_transaction_and_one_on_its_way_count(market: Market) -> None:
    agreement = await market.agreement()
    agreement_id, (author, first, _) = market.agreement_id(agreement), market.signatures(agreement)
    await market.registry("second", "approve", agreement_id)
    await market.registry("relayer", "sign", agreement_id, market.address("first"), first)
    await market.activate(agreement, [author, b"", b""])
    asked = [("consentOf", agreement_id, party) for party in agreement.parties()]
    found = await market.views("AgreementRegistry", market.deployment.agreement_registry, *asked)
    assert found == [Consent.ECDSA, Consent.ECDSA, Consent.TRANSACTION]


async def test_a_fee_in_the_native_coin_goes_from_request_to_withdrawal(market: Market) -> None:
    agreement = await market.active(price=market.price(to=(market.address("author"),), bps=(5501,)))
    before = await market.balance(ZERO_ADDRESS, "payee")
    request = await market.request(agreement)
    assert (await market.task(agreement, request))["escrow"] == FEE
    made = await market.fulfil(agreement, request)
    kept = await market.task(agreement, request)
    digest = made.result.typed_digest(market.chain.oracle_domain(agreement))
    assert (kept["state"], kept["resultDigest"]) == (TaskState.FULFILLED, digest[:31])
    assert await market.balance(ZERO_ADDRESS, "payee") - before == FEE - SHARED
    assert await market.pool(agreement) == SHARED
    await market.distribute(agreement)
    assert await market.balance(ZERO_ADDRESS, "author") == SHARED
    held = await market.held(ZERO_ADDRESS)
    await market.oracle("author", "withdraw", ZERO_ADDRESS, market.address("author"))
    assert held - await market.held(ZERO_ADDRESS) == SHARED
    assert await market.balance(ZERO_ADDRESS, "author") == 0


@pytest.mark.parametrize("kind", [None, *PaymentKind], ids=["own", "allowance", "permit", "authorization"])
async def test_a_fee_in_a_token_comes_from_who_asks_however_it_is_allowed(
    market: Market, kind: PaymentKind | None
) -> None:
    agreement = await market.active(price=market.price(token=market.coin))
    (before,) = await market.views("Coin", market.coin, ("balanceOf", market.address("bob")))
    if kind is None:
        request = await market.request(agreement, "bob")
    else:
        if kind == PaymentKind.ALLOWANCE:
            allow = compiled("Coin").call("approve", market.deployment.oracle, FEE)
            await market.send("bob", market.coin, allow)
        request = await market.relay(agreement, "bob", kind)
    (after,) = await market.views("Coin", market.coin, ("balanceOf", market.address("bob")))
    assert before - after == FEE
    paid = await market.balance(market.coin, "payee")
    await market.fulfil(agreement, request)
    assert await market.balance(market.coin, "payee") - paid == FEE - SHARED


async def test_a_relayed_request_in_the_native_coin_is_paid_by_the_relayer(market: Market) -> None:
    agreement = await market.active()
    request = await market.relay(agreement, "bob", PaymentKind.ALLOWANCE)
    assert await state(market, agreement, request) == TaskState.REQUESTED
    assert request.requester == market.address("bob")


async def test_a_token_is_withdrawn(market: Market) -> None:
    agreement = await market.active(price=market.price(token=market.coin))
    await market.fulfil(agreement, await market.request(agreement))
    owed, held = await market.balance(market.coin, "payee"), await market.held(market.coin)
    await market.oracle("payee", "withdraw", market.coin, market.address("relayer"))
    assert held - await market.held(market.coin) == owed
    (found,) = await market.views("Coin", market.coin, ("balanceOf", market.address("relayer")))
    assert found == RICH + owed


async def test_many_are_settled_at_once_and_who_was_faster_spoils_nothing(market: Market) -> None:
    agreement = await market.active()
    requests = [await market.request(agreement) for _ in range(4)]
    made = [market.fulfilment(agreement, request, failed=n == 3) for n, request in enumerate(requests)]
    await market.fulfil(agreement, requests[1])
    await market.fulfil_many(agreement, made)
    found = [await state(market, agreement, request) for request in requests]
    assert found == [TaskState.FULFILLED] * 3 + [TaskState.FAILED]
    with pytest.raises(Reverted, match="NothingToSettle"):
        await market.fulfil_many(agreement, made)


async def test_one_signature_settles_a_batch(market: Market) -> None:
    agreement = await market.active()
    requests = [await market.request(agreement) for _ in range(10)]
    before = await market.balance(ZERO_ADDRESS, "payee")
    await market.fulfil_batch(agreement, requests)
    assert {await state(market, agreement, request) for request in requests} == {TaskState.FULFILLED}
    assert await market.balance(ZERO_ADDRESS, "payee") - before == 10 * (FEE - SHARED)


async def test_a_signed_failure_pays_the_agreed_part(market: Market) -> None:
    agreement = await market.active()
    request = await market.request(agreement, "bob")
    before = await market.balance(ZERO_ADDRESS, "bob")
    await market.fulfil(agreement, request, failed=True)
    assert await state(market, agreement, request) == TaskState.FAILED
    assert await market.balance(ZERO_ADDRESS, "bob") - before == FEE - FEE // 4


async def test_a_cancel_gives_fee_quota_and_budget_back_while_it_may(market: Market) -> None:
    agreement = await market.active(data=(market.dataset("people", "first", budget=7),))
    lineage = agreement.data[0].lineage
    request = await market.request(agreement, spend=7)
    asked = [("agreement", market.agreement_id(agreement)), ("budgetSpent", market.address("first"), lineage)]
    record, spent = await market.views("AgreementRegistry", market.deployment.agreement_registry, *asked)
    assert (record["used"], spent) == (1, 7)
    with pytest.raises(Reverted, match="BudgetSpent"):
        await market.request(agreement, spend=1)
    await market.cancel(agreement, request)
    record, spent = await market.views("AgreementRegistry", market.deployment.agreement_registry, *asked)
    assert (record["used"], spent) == (0, 0)
    assert await state(market, agreement, request) == TaskState.CANCELLED
    late = await market.request(agreement, spend=7)
    await market.mine(agreement.keys.release_delay)
    with pytest.raises(Reverted, match="CancelClosed"):
        await market.cancel(agreement, late)


async def test_a_task_that_nobody_settles_expires(market: Market) -> None:
    agreement = await market.active()
    request = await market.request(agreement, "bob")
    with pytest.raises(Reverted, match="DeadlineNotPassed"):
        await market.expire(agreement, request)
    await market.wait(3601)
    with pytest.raises(Reverted, match="DeadlinePassed"):
        await market.fulfil(agreement, request)
    before = await market.balance(ZERO_ADDRESS, "bob")
    await market.expire(agreement, request)
    assert await market.balance(ZERO_ADDRESS, "bob") - before == FEE - FEE // 10
    assert await market.pool(agreement) == FEE // 10


async def test_a_contract_asks_and_gets_a_public_answer(market: Market) -> None:
    agreement = await market.active(outputs=(market.output(public=True),))
    value = encode(["uint256"], [42])
    request = await market.request(agreement, "caller")
    await market.fulfil(agreement, request, public=[value])
    found = await market.views("Caller", market.caller, ("answered",), ("answer",))
    assert found == [market.task_id(agreement, request), value]


async def test_a_consumer_that_fails_blocks_nothing_and_can_be_called_again(market: Market) -> None:
    agreement = await market.active()
    request = await market.request(agreement, "caller")
    await market.send("relayer", market.caller, compiled("Caller").call("fail", True))
    made = await market.fulfil(agreement, request)
    kept = await market.task(agreement, request)
    assert (kept["state"], kept["callback"]) == (TaskState.FULFILLED, True)
    with pytest.raises(Reverted, match="CallbackFailedAgain"):
        await market.oracle("relayer", "retryCallback", request, made.result, [])
    await market.send("relayer", market.caller, compiled("Caller").call("fail", False))
    await market.oracle("relayer", "retryCallback", request, made.result, [])
    assert (await market.task(agreement, request))["callback"] is False
    assert await market.views("Caller", market.caller, ("answered",)) == [market.task_id(agreement, request)]


async def test_a_stream_s_latest_version_is_asked_for(market: Market) -> None:
    stream, old, new = market.bytes32(), market.bytes32(), market.bytes32()
    data = market.dataset(
        "daily", "first", id_or_stream=stream, shares_digest=bytes(32), policy=DatasetPolicy.LATEST, min_version=1
    )
    agreement = await market.active(data=(data,))
    for dataset in (old, new):
        await market.streams("first", "publish", stream, dataset, market.bytes32())
    with pytest.raises(Reverted, match="VersionNotTaken"):
        await market.request(agreement, versions=(old,))
    request = await market.request(agreement, versions=(new,))
    await market.fulfil(agreement, request)
    assert await state(market, agreement, request) == TaskState.FULFILLED


async def test_only_listed_requesters_ask_each_as_often_as_listed(market: Market) -> None:
    root, (mine, his) = tree([(market.address("alice"), 1), (market.address("bob"), 2)])
    agreement = await market.active(access=Access(requesters=root, quota=5, quota_per_requester=5))
    await market.request(agreement, quota=1, proof=mine)
    with pytest.raises(Reverted, match="RequesterQuotaSpent"):
        await market.request(agreement, quota=1, proof=mine)
    with pytest.raises(Reverted, match="RequesterNotAllowed"):
        await market.request(agreement, quota=2, proof=his)
    await market.request(agreement, "bob", quota=2, proof=his)


async def test_an_agreement_waits_for_its_auditors(market: Market) -> None:
    auditors = Auditors(accounts=(market.address("auditor"),), threshold=1)
    agreement = await market.agreement(auditors=auditors.digest)
    with pytest.raises(Reverted, match="NotAudited"):
        await market.activate(agreement, auditors=auditors)
    await market.audits("auditor", "approve", Audit(function_id=agreement.fn.id, report=market.bytes32()))
    await market.activate(agreement, auditors=auditors)


async def test_a_successor_ends_its_predecessor(market: Market) -> None:
    before = await market.active()
    after = await market.active(supersedes=market.agreement_id(before))
    asked = [("status", market.agreement_id(each)) for each in (before, after)]
    found = await market.views("AgreementRegistry", market.deployment.agreement_registry, *asked)
    assert found == [AgreementStatus.SUPERSEDED, AgreementStatus.ACTIVE]
    with pytest.raises(Reverted, match="NotActive"):
        await market.request(before)


async def test_suspension_stops_requests_and_no_settlement(market: Market) -> None:
    agreement = await market.active()
    request = await market.request(agreement)
    await market.registry("second", "suspend", market.agreement_id(agreement))
    with pytest.raises(Reverted, match="NotActive"):
        await market.request(agreement)
    await market.fulfil(agreement, request)
    assert await state(market, agreement, request) == TaskState.FULFILLED


async def test_anyone_and_a_list_are_different_terms(market: Market) -> None:
    agreement = await market.active()
    other, _ = tree([(market.address("alice"), 1), (market.address("bob"), 2)])
    request = await market.task_request(agreement)
    shown = admission(agreement).model_copy(update={"requesters": other})
    assert agreement.access.requesters == ANYONE
    with pytest.raises(Reverted, match="WrongAdmission"):
        await market.oracle("alice", "request", request, shown, "", value=FEE)
