"""The contracts are where their code says, on every chain, whoever deployed them; nothing else is taken for them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from enclave_app.attesters.platform import DevelopmentAuthority
from oracle.attestation import intel_root
from oracle.chain.abi import load
from oracle.chain.create2 import FACTORY, FACTORY_CODE, FACTORY_SIGNER, FACTORY_TRANSACTION, code_at, place_factory
from oracle.chain.deploy import SALT, Deployment, deploy, missing, plan
from oracle.chain.rpc import Rpc, as_hex
from oracle.chain.sender import Sender
from oracle.errors import Permanent, Retryable, Reverted
from oracle.keys import create_wallet
from tests.anvil_kit import anvil
from tests.cli_kit import CHEAP, answer, oracle, refusal
from tests.rpc_kit import proxy

ROOT = Path(__file__).resolve().parents[2]
NO_FACTORY = "--disable-default-create2-deployer"
CONTRACTS = plan(intel_root())


@asynccontextmanager
async def chain(*options: str) -> AsyncIterator[Rpc]:
    with anvil(*options) as url:
        rpc = Rpc(url)
        try:
            yield rpc
        finally:
            await rpc.close()


async def funded(rpc: Rpc) -> Sender:
    """Somebody new, who can pay."""
    account = Account.create()
    await rpc.call("anvil_setBalance", account.address, hex(10**20))
    return Sender(rpc, account, poll=0.005)


async def place(sender: Sender, *names: str) -> None:
    """Some of the contracts, by somebody who knows nothing but their init code."""
    for name in names:
        assert (await sender.transact(FACTORY, SALT + CONTRACTS[name].init_code)).ok


async def read(rpc: Rpc, address: str, name: str, function: str) -> object:
    answer = await rpc.call("eth_call", {"to": address, "data": as_hex(load(name).call(function))}, "latest")
    value = load(name).result(function, bytes.fromhex(answer[2:]))
    return to_checksum_address(value) if isinstance(value, str) else value


async def test_addresses_are_the_same_on_every_chain_whoever_deploys() -> None:
    async with chain("--chain-id", "31337") as here, chain("--chain-id", "10") as there:
        await (busy := await funded(there)).transact(busy.address, b"")  # another nonce, another block
        first = await deploy(await funded(here), intel_root())
        second = await deploy(busy, intel_root())
    assert (first.chain_id, second.chain_id) == (31337, 10)
    theirs = {"chain_id": 10, "first_block": second.first_block, "genesis": second.genesis}
    assert first.model_copy(update=theirs) == second
    assert (first.oracle, first.agreement_registry) == (
        CONTRACTS["ComputeOracle"].address,
        CONTRACTS["AgreementRegistry"].address,
    )


async def test_the_contracts_know_each_other() -> None:
    async with chain() as rpc:
        found = await deploy(await funded(rpc), intel_root())
        assert await read(rpc, found.oracle, "ComputeOracle", "agreements") == found.agreement_registry
        assert await read(rpc, found.agreement_registry, "AgreementRegistry", "streams") == found.streams
        assert await read(rpc, found.agreement_registry, "AgreementRegistry", "audits") == found.audits
        assert await read(rpc, found.verifiers["dcap"], "DcapVerifier", "collateral") == found.collateral
        assert not await missing(rpc, list(CONTRACTS.values()))


async def test_another_root_is_another_address_for_what_depends_on_it() -> None:
    own = plan(DevelopmentAuthority(1_700_000_000).root_der)
    assert {name for name in own if own[name].address != CONTRACTS[name].address} == {
        "DcapCollateral",
        "DcapVerifier",
        "EnclaveRegistry",
    }


async def test_who_deploys_the_same_before_us_does_no_harm() -> None:
    async with chain() as rpc:
        stranger, sender = await funded(rpc), await funded(rpc)
        await place(stranger, "DatasetStreams", "AttestedVerifier", "DcapCollateral")
        taken = {planned.address for planned in CONTRACTS.values()} - {
            planned.address for planned in await missing(rpc, list(CONTRACTS.values()))
        }
        assert len(taken) == 3
        found = await deploy(sender, intel_root())
        assert (found.streams, found.collateral) == (
            CONTRACTS["DatasetStreams"].address,
            CONTRACTS["DcapCollateral"].address,
        )
        assert found.first_block == 1  # what the stranger's contract logged since then counts


class Overtaken(Sender):
    """Whose every deployment somebody else makes, just before."""

    def __init__(self, sender: Sender, stranger: Sender) -> None:
        super().__init__(sender.rpc, sender._wallet, poll=0.005)
        self.stranger = stranger

    async def estimate(self, to: str | None, data: bytes, value: int = 0) -> int:
        if to == FACTORY:
            assert (await self.stranger.transact(to, data)).ok
        return await super().estimate(to, data, value)


async def test_who_deploys_the_same_in_the_same_moment_does_no_harm() -> None:
    async with chain() as rpc:
        stranger = await funded(rpc)
        found = await deploy(Overtaken(await funded(rpc), stranger), intel_root())
        assert found == await deploy(await funded(rpc), intel_root())


async def test_a_node_that_does_not_show_what_it_mined_is_asked_again_later() -> None:
    hidden = CONTRACTS["DatasetStreams"].address

    def blind(call: dict[str, Any], result: Any) -> Any:
        about = call.get("method") == "eth_getCode" and str(call["params"][0]).lower() == hidden.lower()
        return "0x" if about else result

    async with chain() as rpc, proxy(rpc.url, blind) as liar:
        sender = await funded(rpc)
        behind = Sender(Rpc(liar), sender._wallet, poll=0.005)
        try:
            with pytest.raises(Retryable) as refused:
                await deploy(behind, intel_root())
        finally:
            await behind.rpc.close()
        assert refused.value.code == "deploy.unseen"
        # With a node that shows it, nothing is in the way.
        await deploy(sender, intel_root())


async def test_another_run_finishes_what_one_began_and_a_third_does_nothing() -> None:
    async with chain() as rpc:
        sender = await funded(rpc)
        await place(sender, *list(CONTRACTS)[:2])
        first = await deploy(sender, intel_root())
        block = await rpc.call("eth_blockNumber")
        assert await deploy(sender, intel_root()) == first
        assert await rpc.call("eth_blockNumber") == block


async def test_the_first_block_is_that_of_the_first_contract() -> None:
    async with chain() as rpc:
        await rpc.call("anvil_mine", hex(20))
        sender = await funded(rpc)
        first = await deploy(sender, intel_root())
        assert first.first_block == 21
        await rpc.call("anvil_mine", hex(20))
        assert await deploy(sender, intel_root()) == first


async def test_a_node_without_history_makes_clients_read_from_the_beginning() -> None:
    async with chain("--prune-history", "2") as rpc:
        await rpc.call("anvil_mine", hex(20))
        sender = await funded(rpc)
        assert (await deploy(sender, intel_root())).first_block == 20  # nothing was there before
        await rpc.call("anvil_mine", hex(20))
        assert (await deploy(sender, intel_root())).first_block == 0


async def test_a_chain_without_the_factory_is_refused_until_it_has_it() -> None:
    async with chain(NO_FACTORY) as rpc:
        sender = await funded(rpc)
        with pytest.raises(Permanent, match="0xf8a58085174876e800") as caught:
            await deploy(sender, intel_root())
        assert caught.value.code == "deploy.no_factory"
        assert await place_factory(sender)
        assert await code_at(rpc, FACTORY) == FACTORY_CODE
        assert not await place_factory(sender)
        assert (await deploy(sender, intel_root())).oracle == CONTRACTS["ComputeOracle"].address


async def test_something_else_where_the_factory_belongs_is_refused() -> None:
    async with chain() as rpc:
        await rpc.call("anvil_setCode", FACTORY, as_hex(FACTORY_CODE[:-1] + b"\xf4"))
        sender = await funded(rpc)
        for attempt in (deploy(sender, intel_root()), place_factory(sender)):
            with pytest.raises(Permanent) as caught:
                await attempt
            assert caught.value.code == "deploy.factory"


async def test_a_byte_of_a_contract_that_was_not_compiled_is_refused() -> None:
    async with chain() as rpc:
        sender = await funded(rpc)
        await deploy(sender, intel_root())
        address = CONTRACTS["AgreementTerms"].address
        code = bytearray(await code_at(rpc, address))
        code[len(code) // 2] ^= 1
        await rpc.call("anvil_setCode", address, as_hex(bytes(code)))
        with pytest.raises(Permanent) as caught:
            await deploy(sender, intel_root())
        assert caught.value.code == "deploy.code"


async def test_what_a_constructor_wrote_is_no_difference_and_all_else_is() -> None:
    async with chain() as rpc:
        await deploy(await funded(rpc), intel_root())
        for planned in CONTRACTS.values():
            code, contract = await code_at(rpc, planned.address), load(planned.name)
            assert contract.without_immutables(code) == contract.runtime
            assert contract.without_immutables(code[:-1]) != contract.runtime
            assert contract.without_immutables(code + b"\0") != contract.runtime
            written = sum(a != b for a, b in zip(code, contract.runtime, strict=True))
            assert bool(written) == (planned.name not in ("DatasetStreams", "AgreementTerms", "AttestedVerifier"))


async def test_a_development_root_is_refused_off_development_chains() -> None:
    async with chain("--chain-id", "10") as rpc:
        with pytest.raises(Reverted) as caught:
            await deploy(await funded(rpc), DevelopmentAuthority(1_700_000_000).root_der)
        assert caught.value.name == "DcapCollateral_NotADevelopmentChain"


async def test_who_cannot_pay_is_told_so() -> None:
    async with chain() as rpc:
        with pytest.raises(Retryable) as caught:
            await deploy(Sender(rpc, Account.create(), poll=0.005), intel_root())
        assert caught.value.code == "wallet.funds"


class Shell:
    """The command with a wallet of its own. `CliRunner` runs an event loop, so its tests have none."""

    def __init__(self, base: Path, url: str) -> None:
        self.base, self.url, self.out = base, url, base / "deployments"
        (base / "password").write_text("pw\n")
        self.wallet = create_wallet(base / "wallet.json", lambda: "pw", n=CHEAP)

    def __call__(self, *more: object) -> tuple[object, ...]:
        given = ("--rpc", self.url, "--keystore", self.base / "wallet.json", "--out", self.out)
        return ("contracts", "deploy", *given, "--password-file", self.base / "password", *more)

    def fund(self) -> None:
        asyncio.run(give(self.url, self.wallet))


async def give(url: str, address: str) -> None:
    rpc = Rpc(url)
    try:
        await rpc.call("anvil_setBalance", address, hex(10**20))
    finally:
        await rpc.close()


def test_the_command_writes_what_clients_read_and_deploys_nothing_twice(tmp_path: Path) -> None:
    with anvil("--chain-id", "10") as url:
        shell = Shell(tmp_path, url)
        shell.fund()
        first = answer(*shell("--yes"))
        assert first["deployed"] == list(CONTRACTS)
        assert first["file"] == str(shell.out / "10.json")
        written = (shell.out / "10.json").read_bytes()
        assert answer(*shell())["deployed"] == []  # nothing to do, nothing to ask
        assert (shell.out / "10.json").read_bytes() == written
    found = Deployment.read(shell.out / "10.json")
    assert found.oracle == CONTRACTS["ComputeOracle"].address
    assert json.loads(written)["agreementRegistry"] == found.agreement_registry.lower()


def test_the_command_warns_where_logs_are_read_from_the_beginning(tmp_path: Path) -> None:
    with anvil("--prune-history", "2") as url:
        shell = Shell(tmp_path, url)
        shell.fund()
        assert oracle(*shell("--yes")).code == 0
        assert "block 0" in oracle(*shell()).stderr


def test_the_command_asks_first(tmp_path: Path) -> None:
    with anvil() as url:
        shell = Shell(tmp_path, url)
        declined = oracle(*shell(), given="n\n")
        assert (declined.code, "confirm.declined" in declined.stderr) == (1, True)
        assert refusal(*shell("--yes"))["code"] == "wallet.funds"
        assert not shell.out.exists()


def test_the_command_says_how_to_get_the_factory_and_gets_it(tmp_path: Path) -> None:
    with anvil(NO_FACTORY) as url:
        shell = Shell(tmp_path, url)
        shell.fund()
        told = refusal(*shell("--yes"))
        assert told["code"] == "deploy.no_factory"
        assert f"0x{FACTORY_TRANSACTION.hex()}" in told["message"]
        assert FACTORY_SIGNER in told["message"]
        assert answer(*shell("--yes", "--place-factory"))["oracle"] == CONTRACTS["ComputeOracle"].address


def test_addresses_need_no_chain_and_are_those_of_the_deployment(tmp_path: Path) -> None:
    told = answer("contracts", "addresses")
    assert told["contracts"] == {name: planned.address for name, planned in CONTRACTS.items()}
    assert (told["factory"], told["salt"]) == (FACTORY, as_hex(SALT))
    root = tmp_path / "root.der"
    root.write_bytes(DevelopmentAuthority(1_700_000_000).root_der)
    other = answer("contracts", "addresses", "--root", root)["contracts"]
    assert other["DcapCollateral"] != told["contracts"]["DcapCollateral"]
    assert CONTRACTS["ComputeOracle"].address in oracle("contracts", "addresses").stdout


def test_the_factory_comes_from_an_account_that_nobody_has() -> None:
    assert Account.recover_transaction(FACTORY_TRANSACTION) == FACTORY_SIGNER
    assert keccak(b"\xd6\x94" + bytes.fromhex(FACTORY_SIGNER[2:]) + b"\x80")[12:] == bytes.fromhex(FACTORY[2:])
    assert FACTORY_TRANSACTION.find(FACTORY_CODE) > 0


def test_the_readme_of_deployments_says_what_the_files_are() -> None:
    text = (ROOT / "deployments" / "README.md").read_text()
    table = [line.partition("|")[2].partition("|")[0] for line in text.splitlines() if line.startswith("| `")]
    named = [name for cell in table for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(field.alias or name for name, field in Deployment.model_fields.items())
    assert FACTORY in text
    (salt,) = re.findall(r'keccak256\("([^"]+)"\)', text)
    assert keccak(text=salt) == SALT
