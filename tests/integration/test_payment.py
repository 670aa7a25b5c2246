"""Fees in tokens, requests that others bring, and what a quote says: with real contracts and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.onchain import NO_AUDITORS
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import PaymentKind, TaskState
from oracle.agreement.document import read_document
from oracle.asking import Asking, parse_signed_request
from oracle.chain.abi import load
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Sender, account_of
from oracle.client import Client
from oracle.config import read_client_config
from oracle.errors import OracleError
from oracle.keys import load_hpke_key, load_wallet
from oracle.money import hand_out
from oracle.payment import TOKEN, Token, approval, choose
from oracle.quote import MEASURED, quote
from tests import token_kit, town_kit
from tests.cli_kit import answer, refusal
from tests.town_kit import Town

town = town_kit.town
PRICE = 2_500_000
PARAMS = {"smallest_group": 2}


@dataclass(frozen=True)
class Bank:
    """A token of each kind, all of it the lab's, and an active agreement that is paid in it."""

    town: Town
    tokens: dict[str, str]
    documents: dict[str, Path]


async def deploy_tokens(town: Town) -> dict[str, str]:
    rpc = Rpc(town.url)
    try:
        key = SigningKey.generate()
        await rpc.call("anvil_setBalance", key.address, hex(10**20))
        sender, holder = Sender(rpc, account_of(key)), town.addresses["lab"]
        made = {name: await token_kit.create(sender, name, holder) for name in ("Plain", "Permits", "Authorizes")}
        return {**made, "Posing": await token_kit.create(sender, "Posing", holder, made["Permits"])}
    finally:
        await rpc.close()


@pytest.fixture(scope="module")
def bank(town: Town) -> Bank:
    tokens, documents = asyncio.run(deploy_tokens(town)), {}
    for name, token in tokens.items():
        price = {"token": {"address": token, "symbol": "TUSD", "decimals": 6}, "fee": "2.5 TUSD", "minFee": "1 TUSD"}
        documents[name], _ = town.active(name, price={**price, "shares": {"hospital": "40%"}})
    return Bank(town, tokens, documents)


@asynccontextmanager
async def client_of(town: Town, who: str) -> AsyncIterator[Client]:
    base = town.base
    wallet = load_wallet(base / f"{who}.wallet", lambda: "correct horse")
    key = load_hpke_key(base / "result.key", lambda: "correct horse")
    async with Client(read_client_config(base / f"{who}.yaml"), wallet=wallet, result_key=key) as client:
        yield client


async def held(client: Client, token: str, account: str) -> int:
    return await Token(client.source, token, await client.head()).balance(account)


@pytest.mark.parametrize(
    ("name", "how"), [("Plain", "approval"), ("Permits", "permit"), ("Authorizes", "authorization")]
)
async def test_a_fee_in_a_token_is_paid_by_what_the_token_knows(bank: Bank, name: str, how: str) -> None:
    token = bank.tokens[name]
    async with client_of(bank.town, "lab") as client:
        oracle = client.config.deployment.oracle
        before = await held(client, token, oracle)
        task = await client.request(read_document(bank.documents[name]), PARAMS)
        assert task.paid == how
        assert await held(client, token, oracle) - before == PRICE
        state = await task.state()
        assert (state.state, state.escrow) == (TaskState.REQUESTED, PRICE)
        # Nothing is left that somebody could take later.
        assert await Token(client.source, token, await client.head()).allowance(client.sender.address, oracle) == 0


async def test_an_allowance_that_stands_is_used_first(bank: Bank) -> None:
    token = bank.tokens["Permits"]
    async with client_of(bank.town, "lab") as client:
        await client.sender.transact(token, approval(client.config.deployment.oracle, PRICE))
        task = await client.request(read_document(bank.documents["Permits"]), PARAMS)
        assert task.paid == "allowance"


async def test_an_allowance_that_is_too_small_is_set_to_zero_first(bank: Bank) -> None:
    """Some tokens change none that is not zero."""
    async with client_of(bank.town, "lab") as client:
        await client.sender.transact(bank.tokens["Plain"], approval(client.config.deployment.oracle, 1))
        asking = await client.prepare(read_document(bank.documents["Plain"]), PARAMS)
        assert asking.fee is not None
        token = Token(client.source, bank.tokens["Plain"], await client.head())
        assert (await choose(token, asking.fee, client.wallet_key, client.chain.chain_id)).approvals == (0, PRICE)
        assert (await client.request(read_document(bank.documents["Plain"]), PARAMS)).paid == "approval"


async def test_nothing_is_signed_in_the_domain_of_another_token(bank: Bank) -> None:
    async with client_of(bank.town, "lab") as client:
        head, chain = await client.head(), client.chain.chain_id
        asking = await client.prepare(read_document(bank.documents["Posing"]), PARAMS)
        assert asking.fee is not None
        posing = Token(client.source, bank.tokens["Posing"], head)
        assert await posing.permit(client.wallet_key, asking.fee, chain) is None
        honest = Token(client.source, bank.tokens["Permits"], head)
        assert await honest.permit(client.wallet_key, asking.fee, chain) is not None
        assert await honest.permit(client.wallet_key, asking.fee, chain + 1) is None


async def test_a_fee_that_is_not_there_is_said_before_anything_is_sent(bank: Bank) -> None:
    async with client_of(bank.town, "stranger") as client:
        asking = await client.prepare(
            read_document(bank.documents["Plain"]), PARAMS, requester=bank.town.addresses["lab"]
        )
        assert asking.fee is not None
        token = Token(client.source, bank.tokens["Plain"], await client.head())
        with pytest.raises(OracleError) as refused:
            await choose(token, asking.fee, client.wallet_key, client.chain.chain_id)
        assert refused.value.code == "payment.balance"
        assert "2.5 TUSD" in str(refused.value)


async def test_what_is_no_token_is_said(bank: Bank) -> None:
    async with client_of(bank.town, "lab") as client:
        token = Token(client.source, client.config.deployment.oracle, await client.head())
        with pytest.raises(OracleError) as refused:
            await token.balance(client.sender.address)
        assert refused.value.code == "payment.token"


# Requests that somebody else brings


@pytest.mark.parametrize(("name", "kind"), [("Permits", PaymentKind.PERMIT), ("Authorizes", PaymentKind.AUTHORIZATION)])
async def test_a_signed_request_is_relayed_by_a_stranger(bank: Bank, name: str, kind: PaymentKind) -> None:
    async with client_of(bank.town, "lab") as lab, client_of(bank.town, "stranger") as stranger:
        gas = await lab.rpc.call("eth_getBalance", lab.sender.address, "latest")
        signed = await lab.sign_request(read_document(bank.documents[name]), PARAMS)
        assert signed.payment.kind == kind
        task = await stranger.relay(parse_signed_request(signed.canonical()))
        assert (await task.state()).escrow == PRICE
        assert task.request.requester == lab.sender.address
        assert await lab.rpc.call("eth_getBalance", lab.sender.address, "latest") == gas
        # The requester can take it back, and its money.
        await (await lab.task(task.id)).cancel()
        assert await lab.balance(bank.tokens[name]) >= PRICE
        with pytest.raises(OracleError) as refused:
            await stranger.relay(signed)
        assert refused.value.code == "contract.ComputeOracle_TaskExists"


async def test_a_token_without_signatures_needs_an_approval_before_a_relay(bank: Bank) -> None:
    async with client_of(bank.town, "lab") as lab:
        with pytest.raises(OracleError) as refused:
            await lab.sign_request(read_document(bank.documents["Posing"]), PARAMS)
        assert refused.value.code == "payment.unsigned"
        await lab.sender.transact(bank.tokens["Posing"], approval(lab.config.deployment.oracle, PRICE))
        signed = await lab.sign_request(read_document(bank.documents["Posing"]), PARAMS)
        assert signed.payment.kind == PaymentKind.ALLOWANCE


async def test_a_relayer_pays_a_fee_of_the_native_coin_only_when_it_says_so(town: Town) -> None:
    document, _ = await asyncio.to_thread(town.active, "relayed")
    async with client_of(town, "lab") as lab, client_of(town, "stranger") as stranger:
        signed = await lab.sign_request(read_document(document), PARAMS)
        with pytest.raises(OracleError) as refused:
            await stranger.relay(signed)
        assert refused.value.code == "relay.fee"
        assert (await (await stranger.relay(signed, pay_fee=True)).state()).state is TaskState.REQUESTED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"signature": b""}, "relay.unsigned"),
        ({"signature": SigningKey.generate().sign(bytes(32))}, "signature.signer"),
        ({"oracle": "0x" + "11" * 20}, "relay.chain"),
        ({"chain_id": 5}, "relay.chain"),
        ({"request": {"params": b'{"smallest_group":0}'}}, "params.value"),
        ({"request": {"nonce": bytes(32)}}, "signature.signer"),
        ({"request": {"versions": (bytes(32),)}}, "request.versions"),
        ({"request": {"agreement_id": bytes(32)}}, "agreement.unknown"),
    ],
)
async def test_a_relayer_refuses_before_it_pays(bank: Bank, change: dict[str, Any], code: str) -> None:
    async with client_of(bank.town, "lab") as lab, client_of(bank.town, "stranger") as stranger:
        signed = await lab.sign_request(read_document(bank.documents["Permits"]), PARAMS)
        await stranger.check_relay(signed)
        if "request" in change:
            change = {"request": signed.request.model_copy(update=change["request"])}
        with pytest.raises(OracleError) as refused:
            await stranger.relay(signed.model_copy(update=change))
        assert refused.value.code == code


async def test_a_relayer_pays_for_no_agreement_on_contracts_of_its_makers(town: Town) -> None:
    ours, _ = await asyncio.to_thread(town.active, "ours")
    async with client_of(town, "lab") as lab, client_of(town, "stranger") as stranger:
        signed = await lab.sign_request(read_document(ours), PARAMS)
        # Nothing of it is wrong but the registry that it believes about enclaves.
        agreement = read_document(ours).agreement.model_copy(
            update={"enclave_registry": lab.config.deployment.oracle, "salt": b"\x07" * 32}
        )
        agreement_id = lab.chain.agreement_id(agreement)
        keys = {p: load_wallet(town.base / f"{p}.wallet", lambda: "correct horse") for p in ("lab", "hospital")}
        by_address = {key.address: key for key in keys.values()}
        signatures = [by_address[party].sign(agreement_id) for party in agreement.parties()]
        call = load("AgreementRegistry").call("activate", agreement, signatures, NO_AUDITORS)
        assert (await lab.sender.transact(lab.config.deployment.agreement_registry, call)).ok
        request = signed.request.model_copy(update={"agreement_id": agreement_id})
        with pytest.raises(OracleError) as refused:
            await stranger.relay(signed.model_copy(update={"request": request}), pay_fee=True)
        assert refused.value.code == "agreement.contracts"


async def test_nobody_asks_for_a_result_that_it_could_not_open(town: Town) -> None:
    document, _ = await asyncio.to_thread(town.active, "keyless")
    wallet = load_wallet(town.base / "lab.wallet", lambda: "correct horse")
    async with Client(read_client_config(town.base / "lab.yaml"), wallet=wallet) as client:
        with pytest.raises(OracleError) as refused:
            await client.request(read_document(document), PARAMS)
    assert refused.value.code == "client.result_key"


async def test_a_contract_wallet_asks_through_a_relayer(town: Town) -> None:
    document, _ = await asyncio.to_thread(town.active, "wallet", access={"requesters": "anyone", "quota": 10})
    async with client_of(town, "lab") as lab, client_of(town, "stranger") as stranger:
        wallet = await token_kit.create(lab.sender, "Signs")
        waiting = await lab.sign_request(read_document(document), PARAMS, contract=wallet)
        with pytest.raises(OracleError) as refused:
            await stranger.relay(waiting, pay_fee=True)
        assert refused.value.code == "relay.unsigned"
        given = waiting.model_copy(update={"signature": b"\x01"})
        with pytest.raises(OracleError) as refused:
            await stranger.relay(given, pay_fee=True)
        assert refused.value.code == "contract.ComputeOracle_BadRequestSignature"
        asking: Asking = await stranger.check_relay(given)
        await lab.sender.transact(wallet, token_kit.contracts()["Signs"].call("sign", asking.task_id))
        task = await stranger.relay(given, pay_fee=True)
        assert task.request.requester == wallet


def test_the_commands_sign_and_relay(bank: Bank) -> None:
    town, out = bank.town, bank.town.base / "ask.json"
    words = (bank.documents["Permits"], "--param", "smallest_group=2", "--out", out)
    made = answer("task", "sign-request", *words, *town.as_("lab"))
    assert (made["paid"], made["fee_units"]) == ("permit", str(PRICE))
    assert refusal("task", "sign-request", *words, *town.as_("lab"))["code"] == "file.exists"
    told = answer("task", "relay", out, *town.as_("stranger"))
    assert (told["task_id"], told["state"], told["requester"]) == (
        made["task_id"],
        "requested",
        town.addresses["lab"],
    )
    assert "brought already" in refusal("task", "relay", out, *town.as_("stranger"))["message"]


# Quotes


async def test_a_quote_of_an_active_agreement_is_what_the_request_takes(town: Town) -> None:
    document, _ = await asyncio.to_thread(town.active, "quoted")
    async with client_of(town, "lab") as client:
        found = await quote(client, read_document(document), PARAMS, requester=client.sender.address)
        assert found.estimated
        assert found.total_wei == found.gas_wei + town_kit.FEE
        task = await client.request(read_document(document), PARAMS)
        assert task.receipt is not None
        # Its nonce was another, and a byte that is zero costs less.
        assert abs(task.receipt.gas_used - found.gas) < 1000


@pytest.mark.parametrize("name", ["value", "allowance", "permit", "authorization"])
async def test_the_measured_gas_is_near_what_a_first_request_takes(bank: Bank, name: str) -> None:
    """Not below it, so that nobody's wallet is short; and not far above."""
    named = {"value": "first", "allowance": "Plain", "permit": "Permits", "authorization": "Authorizes"}[name]
    price = {"token": bank.tokens[named], "fee": PRICE} if named in bank.tokens else {"fee": "0.001 ether"}
    document, _ = await asyncio.to_thread(bank.town.active, f"measured-{name}", price=price)
    async with client_of(bank.town, "lab") as client:
        if name == "allowance":
            approved = await client.sender.transact(
                bank.tokens["Plain"], approval(client.config.deployment.oracle, PRICE)
            )
            assert approved.gas_used <= MEASURED["approval"] <= approved.gas_used * 5 // 4
        task = await client.request(read_document(document), PARAMS)
        assert task.receipt is not None
        assert task.paid == name
        assert task.receipt.gas_used <= MEASURED[name] <= task.receipt.gas_used * 5 // 4


def test_a_draft_that_nobody_signed_has_a_quote(bank: Bank) -> None:
    town = bank.town
    token = bank.tokens["Plain"]
    document = town.signed("draft-quoted", price={"token": token, "fee": 5, "failedFee": 2})
    found = answer("quote", document, *town.as_("lab"))
    assert (found["status"], found["token"], found["symbol"], found["decimals"]) == ("none", token, "TUSD", 6)
    assert (found["fee"], found["failed_fee"], found["kept_on_expiry"]) == ("5", "2", "0")
    assert (found["gas_estimated"], found["transactions"]) == (False, 2)
    assert found["gas"] == MEASURED["allowance"] + MEASURED["approval"]
    assert (
        found["total_wei"]
        == found["gas_wei"]
        == str(found["gas"] * (int(found["base_fee_wei"]) + int(found["priority_fee_wei"])))
    )
    assert "not active yet" in found["because"]


def test_a_quote_says_why_it_is_no_estimate(town: Town) -> None:
    document, _ = town.active("not-estimated")
    words = (document, "--param", "smallest_group=2", "--requester", town.addresses["stranger"])
    found = answer("quote", *words, *town.as_("lab"))
    assert found["gas_estimated"] is False
    assert "may not request" in found["because"]


def test_a_token_says_its_amounts(bank: Bank) -> None:
    async def facts(name: str) -> str:
        async with client_of(bank.town, "lab") as client:
            address = bank.tokens.get(name, ZERO_ADDRESS)
            return (await Token(client.source, address, await client.head()).facts()).show(2_500_000)

    assert asyncio.run(facts("Plain")) == "2.5 TUSD"
    assert asyncio.run(facts("none")) == "2500000 of its smallest unit"
    assert TOKEN.call("decimals").hex() == "313ce567"


# What comes back, and what is earned


async def test_what_expires_is_shared_and_handed_out_by_who_withdraws(bank: Bank) -> None:
    token, town = bank.tokens["Plain"], bank.town
    async with client_of(town, "lab") as lab, client_of(town, "hospital") as hospital:
        task = await lab.request(read_document(bank.documents["Plain"]), PARAMS, seconds=60)
        earlier = await lab.balance(token), await hospital.balance(token)
        await lab.rpc.call("evm_increaseTime", 120)
        await lab.rpc.call("evm_mine")
        await task.expire()
        # A minimum fee of 1 goes to whoever has shares, all of it: 40 % are all the shares there are.
        assert (await lab.balance(token), await hospital.balance(token)) == (
            earlier[0] + 1_500_000,
            earlier[1] + 1_000_000,
        )
        assert await hospital.oracle.balance(hospital.sender.address, await hospital.head(), token) == 0
        owed = await hospital.balance(token)
        assert (await hospital.withdraw(token)).ok
        assert await held(hospital, token, hospital.sender.address) == owed
        assert await hospital.balance(token) == 0


async def test_a_share_that_is_not_worth_its_gas_is_left_alone(town: Town) -> None:
    price = {"fee": "100 wei", "minFee": "100 wei", "shares": {"hospital": "50%"}}
    document, _ = await asyncio.to_thread(town.active, "dust", price=price)
    async with client_of(town, "lab") as lab, client_of(town, "hospital") as hospital:
        task = await lab.request(read_document(document), PARAMS, seconds=60)
        await lab.rpc.call("evm_increaseTime", 120)
        await lab.rpc.call("evm_mine")
        await task.expire()
        (left,) = [pool for pool in await hand_out(hospital) if pool.price == task.agreement.price]
        assert left.share == 100
