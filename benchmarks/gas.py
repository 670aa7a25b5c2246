"""`scripts/bench gas`: what agreements and tasks cost, in gas of whole transactions as anvil's receipts have it.

Base, calldata and its floor (EIP-7623) are included. The contracts are those that ship (`oracle/abi`), with an enclave registered
by a minted quote. The agreement: three parties, two fixed datasets, three brokers, two shares of the fee, one sealed output,
requests from anyone; a request has 16 bytes of parameters. The state is a steady one: one task was settled under the agreement
before, so its counter, its pool and the payee's balance are not zero; the account that sends did so before. The callback's
output is public, one number, and its consumer does the least (benchmarks/gas.sol). `fulfill_many_per_task` and
`batch_per_result` are a transaction's gas by its tasks, by how many these are; every task is checked to be fulfilled, and its
fee credited. A cost above what issue 5 requires is named, and fails the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eth_utils.address import to_checksum_address

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.onchain import NO_AUDITORS, Admission, Fulfilment, Settlement, admission, settlement
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Batch,
    Broker,
    Confirmation,
    Dataset,
    DatasetPolicy,
    Enclaves,
    Function,
    FunctionKind,
    KeyRelease,
    Limits,
    Out,
    Outcome,
    Output,
    OutputKind,
    Price,
    RegisteredIdentity,
    Result,
    TaskRequest,
    TaskState,
    TcbStatus,
)
from oracle.chain.abi import Contract, Log, explain_revert, load
from oracle.chain.rpc import Rpc, as_bytes, as_hex, as_int
from oracle.errors import RpcFault
from tests.dcap_chain_kit import Boot, Contracts, Material, chain_at, create, funded
from tests.dcap_kit import NOW, Authority, sgx_case

ROOT: Final = Path(__file__).resolve().parents[1]
HELPERS: Final = "benchmarks/gas.sol"
CAP: Final = 16_777_216
"""Gas that one transaction may have (EIP-7825)."""
FEE: Final = 10**15
SHARES: Final = (3000, 2500)
"""In basis points of the fee."""
REQUIRED: Final = {"request + fulfill": 220_000, "fulfill_many_per_task 100": 60_000, "batch_per_result 1000": 20_000}
"""Gas at most."""


@dataclass
class World:
    """One chain with all contracts, an enclave and the accounts."""

    rpc: Rpc
    registry: str
    oracle: str
    enclaves: str
    token: str
    consumer: str
    boot: Boot
    anchor: bytes
    identity: RegisteredIdentity
    parties: tuple[SigningKey, ...]
    requester: str
    relayer: str
    payee: str
    nonces: int = field(default=0)

    @property
    def domain(self) -> Domain:
        return Domain(chain_id=31337, verifying_contract=self.oracle)

    async def send(self, sender: str, to: str, data: bytes, value: int = 0) -> int:
        """Gas used by a transaction that succeeds. Raises the refusal of one that does not."""
        return (await self.send_all([(sender, to, data, value)]))[0]

    async def send_all(self, calls: Sequence[tuple[str, str, bytes, int]]) -> list[int]:
        used: list[int] = []
        for start in range(0, len(calls), 100):
            sent = await self.rpc.batch(
                [
                    (
                        "eth_sendTransaction",
                        [{"from": f, "to": to, "data": as_hex(data), "value": hex(value), "gas": hex(CAP)}],
                    )
                    for f, to, data, value in calls[start : start + 100]
                ]
            )
            for each in sent:
                if isinstance(each, RpcFault):
                    raise explain_revert(each)
            await self.rpc.call("evm_mine")
            for receipt in await self.rpc.batch([("eth_getTransactionReceipt", [each]) for each in sent]):
                if receipt["status"] != "0x1":
                    raise SystemExit(f"a transaction reverted: {receipt['transactionHash']}")
                used.append(as_int(receipt["gasUsed"]))
        return used

    async def ask(self, to: str, contract: Contract, function: str, *args: Any) -> Any:
        answer = await self.rpc.call("eth_call", {"to": to, "data": as_hex(contract.call(function, *args))}, "latest")
        return contract.result(function, as_bytes(answer))

    async def now(self) -> int:
        return as_int((await self.rpc.call("eth_getBlockByNumber", "latest", False))["timestamp"])

    async def states(self, agreement_id: bytes, tasks: Iterable[bytes]) -> list[TaskState]:
        oracle = load("ComputeOracle")
        calls = [{"to": self.oracle, "data": as_hex(oracle.call("task", agreement_id, each))} for each in tasks]
        answers = await self.rpc.batch([("eth_call", [call, "latest"]) for call in calls])
        return [TaskState(oracle.result("task", as_bytes(each))["state"]) for each in answers]


@dataclass(frozen=True)
class Signed:
    """A result and its enclave's signature over it."""

    result: Result
    digest: bytes
    signature: bytes


@dataclass
class Deal:
    """An active agreement and what its transactions show of it."""

    world: World
    agreement: Agreement
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.agreement.typed_digest(Domain(chain_id=31337, verifying_contract=self.world.registry))

    @property
    def settlement(self) -> Settlement:
        return settlement(self.agreement)

    @property
    def admission(self) -> Admission:
        return admission(self.agreement)

    async def activate(self) -> int:
        signatures = [party.sign(self.id) for party in self.world.parties]
        data = load("AgreementRegistry").call("activate", self.agreement, signatures, NO_AUDITORS)
        return await self.world.send(self.world.relayer, self.world.registry, data)

    async def requests(self, count: int, requester: str | None = None, callback: bool = False) -> list[TaskRequest]:
        world, now = self.world, await self.world.now()
        world.nonces += count
        asker = requester or world.requester
        return [
            TaskRequest(
                agreement_id=self.id,
                requester=asker,
                nonce=sha256(f"nonce {world.nonces - i}".encode()),
                versions=tuple(each.id_or_stream for each in self.agreement.data),
                inputs_id=ZERO32,
                input_shares=ZERO32,
                params=b'{"min_cases": 5}',
                result_key=ZERO32 if callback else sha256(b"result key"),
                spend=0,
                max_fee=self.agreement.price.fee,
                as_of=now,
                deadline=now + 86_400,
                callback=asker if callback else ZERO_ADDRESS,
                callback_gas=100_000 if callback else 0,
            )
            for i in range(count)
        ]

    async def request(self, requests: Sequence[TaskRequest]) -> list[int]:
        value = self.agreement.price.fee if self.agreement.price.token == ZERO_ADDRESS else 0
        oracle = load("ComputeOracle")
        return await self.world.send_all(
            [
                (each.requester, self.world.oracle, oracle.call("request", each, self.admission, ""), value)
                for each in requests
            ]
        )

    def sign(self, request: TaskRequest, public: bytes | None = None) -> Signed:
        result = Result(
            agreement_id=self.id,
            task_id=request.typed_digest(self.world.domain),
            outcome=Outcome.SUCCEEDED,
            outputs=(
                Out(
                    name=self.agreement.outputs[0].name,
                    kind=self.agreement.outputs[0].kind,
                    recipients_digest=recipients_digest(self.agreement.outputs[0].recipients, request.result_key),
                    length=4096 if public is None else len(public),
                    digest=sha256(b"output" if public is None else public),
                ),
            ),
            payee=self.world.payee,
            anchor=self.world.anchor,
        )
        digest = result.typed_digest(self.world.domain)
        return Signed(result, digest, self.world.boot.signer.sign(digest))

    async def fulfil(self, signed: Signed, request: TaskRequest | None = None, public: bytes | None = None) -> int:
        fulfilment = Fulfilment(
            result=signed.result,
            signature=signed.signature,
            public_outputs=() if public is None else (public,),
            request=() if request is None else (request,),
        )
        data = load("ComputeOracle").call("fulfil", self.settlement, self.world.identity, fulfilment)
        return await self._settled(data, [signed])

    async def fulfil_many(self, signed: Sequence[Signed]) -> int:
        fulfilments = [
            Fulfilment(result=each.result, signature=each.signature, public_outputs=(), request=()) for each in signed
        ]
        data = load("ComputeOracle").call("fulfilMany", self.settlement, self.world.identity, fulfilments)
        return await self._settled(data, signed)

    async def fulfil_batch(self, signed: Sequence[Signed]) -> int:
        batch = Batch(
            agreement_id=self.id,
            payee=self.world.payee,
            anchor=self.world.anchor,
            tasks=tuple(each.result.task_id for each in signed),
            results=tuple(each.digest for each in signed),
        )
        signature = self.world.boot.signer.sign(batch.typed_digest(self.world.domain))
        data = load("ComputeOracle").call("fulfilBatch", self.settlement, self.world.identity, batch, signature)
        return await self._settled(data, signed)

    async def _settled(self, data: bytes, signed: Sequence[Signed]) -> int:
        """Gas of the settlement, after which all its tasks are fulfilled, and paid."""
        before = await self._money()
        used = await self.world.send(self.world.relayer, self.world.oracle, data)
        states = await self.world.states(self.id, (each.result.task_id for each in signed))
        if any(state is not TaskState.FULFILLED for state in states):
            raise SystemExit("a task that was settled is not fulfilled")
        fee = self.agreement.price.fee
        shared = fee * sum(self.agreement.price.bps) // 10_000
        paid = [later - earlier for later, earlier in zip(await self._money(), before, strict=True)]
        if paid != [len(signed) * (fee - shared), len(signed) * shared]:
            raise SystemExit(f"{len(signed)} tasks paid {paid} to payee and pool")
        return used

    async def _money(self) -> list[int]:
        world, oracle = self.world, load("ComputeOracle")
        payee = await world.ask(world.oracle, oracle, "balanceOf", self.agreement.price.token, world.payee)
        return [payee, await world.ask(world.oracle, oracle, "poolOf", self.id)]


async def make_world(rpc: Rpc) -> World:
    authority = Authority.make()
    case = sgx_case(authority)
    contracts = await Contracts.deploy(rpc, authority.root_der)
    await contracts.keep(contracts.posts(Material.of(case)).values())
    boot = Boot(case)
    (registered,) = await contracts.keep([contracts.register(await boot.registration(contracts))])
    sender = await funded(rpc)
    registry = await create(
        sender, "AgreementRegistry", await create(sender, "DatasetStreams"), await create(sender, "FunctionAudits")
    )
    oracle = await create(sender, "ComputeOracle", registry)
    requester, relayer, payee = (to_checksum_address(each) for each in (await rpc.call("eth_accounts"))[:3])
    compiled = compile_helpers()
    token = await sender.transact(None, compiled["Token"].deployment(requester))
    consumer = await sender.transact(None, compiled["Consumer"].deployment(oracle))
    assert token.contract_address is not None
    assert consumer.contract_address is not None
    await rpc.call("anvil_impersonateAccount", consumer.contract_address)
    await rpc.call("anvil_setBalance", consumer.contract_address, hex(10**21))
    event = load("EnclaveRegistry").event(_log(registered.raw["logs"][-1]))
    assert event is not None
    return World(
        rpc=rpc,
        registry=to_checksum_address(registry),
        oracle=to_checksum_address(oracle),
        enclaves=to_checksum_address(contracts.registry),
        token=to_checksum_address(token.contract_address),
        consumer=to_checksum_address(consumer.contract_address),
        boot=boot,
        anchor=contracts.anchor,
        identity=RegisteredIdentity.from_abi(tuple(event[1]["identity"].values())),
        parties=tuple(SigningKey.generate() for _ in range(3)),
        requester=requester,
        relayer=relayer,
        payee=payee,
    )


def _log(raw: dict[str, Any]) -> Log:
    topics = tuple(as_bytes(each) for each in raw["topics"])
    return Log(raw["address"], topics, as_bytes(raw["data"]), 0, b"", b"", 0)


def compile_helpers() -> dict[str, Contract]:
    """The contracts of benchmarks/gas.sol, by name."""
    given = {
        "language": "Solidity",
        "sources": sources_of(HELPERS),
        "settings": {
            "optimizer": {"enabled": True},
            "evmVersion": "osaka",
            "outputSelection": {HELPERS: {"*": ["abi", "evm.bytecode.object"]}},
        },
    }
    ran = subprocess.run(
        [ROOT / "scripts/solc", "--standard-json"], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    made = json.loads(ran.stdout)["contracts"][HELPERS]
    return {
        name: Contract(name, {"abi": found["abi"], "bytecode": found["evm"]["bytecode"]["object"]})
        for name, found in made.items()
    }


def sources_of(name: str) -> dict[str, dict[str, str]]:
    """The file and all that it imports, as the compiler takes them."""
    found: dict[str, dict[str, str]] = {}
    missing = [name]
    while missing:
        at = missing.pop()
        if at in found:
            continue
        text = (ROOT / ("node_modules" if at.startswith("@") else "") / at).read_text()
        found[at] = {"content": text}
        for imported in re.findall(r'^import .*"(.+)";', text, re.MULTILINE):
            folder = posixpath.dirname(at)
            missing.append(posixpath.normpath(posixpath.join(folder, imported)) if imported[0] == "." else imported)
    return found


def agreement(world: World, now: int, *, token: str = ZERO_ADDRESS, public: bool = False) -> Agreement:
    author, first, second = (party.address for party in world.parties)
    return Agreement(
        oracle=world.oracle,
        enclave_registry=world.enclaves,
        fn=Function(
            id=sha256(b"function"),
            sealed_id=ZERO32,
            shares_digest=ZERO32,
            owner=author,
            kind=FunctionKind.SQL,
            deterministic=True,
            limits=Limits(memory_mib=512, time_seconds=60, output_bytes=1 << 20, output_rows=10_000),
        ),
        data=tuple(
            Dataset(
                name=name,
                owner=owner,
                id_or_stream=sha256(name.encode()),
                lineage=sha256(f"lineage of {name}".encode()),
                shares_digest=sha256(f"shares of {name}".encode()),
                policy=DatasetPolicy.FIXED,
                min_version=0,
                columns=("patient", "diagnosis"),
                budget=0,
            )
            for name, owner in (("hospital_a", first), ("hospital_b", second))
        ),
        tee=Enclaves(
            measurements=(world.identity.measurement,),
            anchors=(world.anchor,),
            status_mask=1 << TcbStatus.UP_TO_DATE,
            eval_floor=1,
            grace_days=0,
            max_evidence_age=7 * 86_400,
            any_host=False,
            operators=(),
            platforms=(world.identity.platform,),
        ),
        keys=KeyRelease(
            brokers=tuple(
                Broker(hpke_key=sha256(f"broker {i}".encode()), signer=SigningKey.generate().address) for i in range(3)
            ),
            threshold=2,
            max_releases=3,
            confirmation=Confirmation.FINALIZED,
            confirm_blocks=0,
            release_delay=5,
        ),
        param_domain=sha256(b"parameter domain"),
        outputs=(
            Output(
                name="by_diagnosis",
                kind=OutputKind.ABI_VALUES if public else OutputKind.ARROW_TABLE,
                recipients=() if public else (ZERO32,),
                owners=(first, second),
                size_class=1 if public else 4096,
            ),
        ),
        access=Access(requesters=ANYONE, quota=100_000, quota_per_requester=100_000),
        price=Price(token=token, fee=FEE, min_fee=0, failed_fee=FEE // 10, to=(first, second), bps=SHARES),
        not_before=now,
        not_after=now + 365 * 86_400,
        activate_before=now + 86_400,
        supersedes=ZERO32,
        auditors=ZERO32,
        salt=sha256(b"salt" + token.encode() + bytes([public])),
    )


async def measure(url: str) -> dict[str, Any]:
    rpc = Rpc(url)
    try:
        return await _measure(await make_world(rpc))
    finally:
        await rpc.close()


async def _measure(world: World) -> dict[str, Any]:
    found: dict[str, Any] = {}
    await world.rpc.call("evm_setAutomine", False)
    # Of the block: transactions keep their cap.
    await world.rpc.call("evm_setBlockGasLimit", hex(1000 * CAP))
    native = Deal(world, agreement(world, await world.now()))
    found["activate_3_parties"] = await native.activate()
    await native.fulfil(native.sign(await one(native)))
    request = await native.requests(1)
    found["request"] = (await native.request(request))[0]
    found["request_erc20"] = await request_in_token(world)
    found["fulfill"] = await native.fulfil(native.sign(request[0]))
    found["fulfill_callback"] = await fulfil_with_callback(world)
    found["fulfill_many_per_task"] = {
        str(count): await native.fulfil_many([native.sign(each) for each in await asked(native, count)]) // count
        for count in (1, 10, 100)
    }
    found["batch_per_result"] = {
        str(count): await native.fulfil_batch([native.sign(each) for each in await asked(native, count)]) // count
        for count in (10, 100, 1000)
    }
    found["withdraw"] = await world.send(
        world.payee, world.oracle, load("ComputeOracle").call("withdraw", ZERO_ADDRESS, world.payee)
    )
    party = world.parties[1].address
    await world.rpc.call("anvil_impersonateAccount", party)
    await world.rpc.call("anvil_setBalance", party, hex(10**21))
    found["suspend"] = await world.send(party, world.registry, load("AgreementRegistry").call("suspend", native.id))
    return found


async def asked(deal: Deal, count: int) -> list[TaskRequest]:
    requests = await deal.requests(count)
    await deal.request(requests)
    return requests


async def one(deal: Deal) -> TaskRequest:
    return (await asked(deal, 1))[0]


async def request_in_token(world: World) -> int:
    deal = Deal(world, agreement(world, await world.now(), token=world.token))
    await deal.activate()
    await world.send(world.requester, world.token, APPROVE.call("approve", world.oracle, 1 << 128))
    await one(deal)
    return (await deal.request(await deal.requests(1)))[0]


async def fulfil_with_callback(world: World) -> int:
    deal = Deal(world, agreement(world, await world.now(), public=True))
    await deal.activate()
    public = (720).to_bytes(32, "big")
    used = 0
    for _ in range(2):
        requests = await deal.requests(1, world.consumer, callback=True)
        await deal.request(requests)
        used = await deal.fulfil(deal.sign(requests[0], public), requests[0], public)
        slot = await world.ask(
            world.oracle, load("ComputeOracle"), "task", deal.id, requests[0].typed_digest(world.domain)
        )
        if slot["callback"]:
            raise SystemExit("the callback failed")
    return used


APPROVE: Final = Contract(
    "IERC20",
    {
        "abi": [
            {
                "type": "function",
                "name": "approve",
                "inputs": [{"name": "spender", "type": "address"}, {"name": "value", "type": "uint256"}],
                "outputs": [{"name": "", "type": "bool"}],
                "stateMutability": "nonpayable",
            }
        ]
    },
)


def over(found: dict[str, Any]) -> Iterable[str]:
    costs = {
        "request + fulfill": found["request"] + found["fulfill"],
        "fulfill_many_per_task 100": found["fulfill_many_per_task"]["100"],
        "batch_per_result 1000": found["batch_per_result"]["1000"],
    }
    for name, most in REQUIRED.items():
        if costs[name] > most:
            yield f"{name}: {costs[name]} gas, at most {most} wanted"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench gas", description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with chain_at(NOW) as url:
        found = asyncio.run(measure(url))
    if not arguments.json:
        for name, value in found.items():
            print(f"{name:>22}  {value}")
    print(json.dumps(found))
    missed = list(over(found))
    print("\n".join(missed), file=sys.stderr, end="\n" if missed else "")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
