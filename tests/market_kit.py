"""A market on any EVM node: the contracts deployed by CREATE2, a DCAP-registered software enclave, people, a token, a consumer.

No broker and no worker runs: an enclave's results are signed here. Everything is valid; what is not, a test says.
Nodes are spoken to in Hardhat's dialect (`hardhat_…`, `evm_…`), which anvil understands too.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.onchain import (
    ALLOWANCE,
    NO_AUDITORS,
    Auditors,
    Fulfilment,
    Payment,
    admission,
    pricing,
    requester_leaf,
    settlement,
)
from enclave_app.protocol.release import recipients_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Batch,
    Broker,
    Chain,
    Confirmation,
    Dataset,
    DatasetPolicy,
    Enclaves,
    Function,
    KeyRelease,
    Limits,
    Out,
    Outcome,
    Output,
    OutputKind,
    PaymentKind,
    Price,
    RegisteredIdentity,
    Result,
    TaskRequest,
)
from oracle.chain.abi import Contract, load
from oracle.chain.create2 import place_factory
from oracle.chain.deploy import Deployment, deploy
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Receipt, Sender
from oracle.chain.source import Block, Call, SingleSource
from oracle.chain.verification import imports
from tests.broker_kit import Enclave, Scene, World

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "tests/solidity/Market.sol"
REMAPPINGS = ["@openzeppelin/=node_modules/@openzeppelin/"]
FEE = 10**15
RICH = 10**22
PEOPLE = ("deployer", "operator", "author", "first", "second", "alice", "bob", "auditor", "payee", "relayer")
PERMIT = keccak(text="Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")
RECEIVE = keccak(
    text="ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)


def compiled(name: str) -> Contract:
    """A contract of `SOURCE`."""
    made = _compiled()[name]
    return Contract(name, {"abi": made["abi"], "bytecode": made["evm"]["bytecode"]["object"]})


@cache
def _compiled() -> dict[str, Any]:
    waiting, sources = [SOURCE], {}
    while waiting:
        path = waiting.pop()
        text = (ROOT / path).read_text()
        sources[path] = {"content": text}
        waiting += [target for target in imports(path, text, REMAPPINGS) if target not in sources]
    given = {
        "language": "Solidity",
        "sources": sources,
        "settings": {
            "remappings": REMAPPINGS,
            "evmVersion": "osaka",
            "outputSelection": {SOURCE: {"*": ["abi", "evm.bytecode.object"]}},
        },
    }
    ran = subprocess.run(
        [ROOT / "scripts" / "solc", "--standard-json"],
        input=json.dumps(given).encode(),
        capture_output=True,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert not [error for error in answer.get("errors", ()) if error["severity"] == "error"], answer["errors"]
    made: dict[str, Any] = answer["contracts"][SOURCE]
    return made


class Market:
    """`seed` decides every key, salt and nonce."""

    def __init__(self, rpc: Rpc, seed: int) -> None:
        self.rpc, self.source = rpc, SingleSource(rpc)
        self.random = random.Random(seed)
        self.people: dict[str, LocalAccount] = {name: Account.from_key(self.bytes32()) for name in PEOPLE}
        self._senders = {name: Sender(rpc, account, poll=0.005) for name, account in self.people.items()}
        self.authority = DevelopmentAuthority(int(time.time()))
        self.deployment: Deployment
        self.chain: Chain
        self.enclave: Enclave
        self.identity: RegisteredIdentity
        self.coin = self.caller = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, seed: int) -> AsyncIterator[Market]:
        rpc = Rpc(url, timeout=60)
        market = cls(rpc, seed)
        try:
            await market._start(url)
            yield market
        finally:
            await rpc.close()

    async def _start(self, url: str) -> None:
        for account in self.people.values():
            await self.rpc.call("hardhat_setBalance", account.address, hex(RICH))
        deployer = self._senders["deployer"]
        await place_factory(deployer)
        self.deployment = await deploy(deployer, self.authority.root_der)
        self.chain = Chain(chain_id=self.deployment.chain_id, agreement_registry=self.deployment.agreement_registry)
        platform = self.authority.issue_platform()
        program = SoftwareEnclave(self.bytes32(), b"{}")
        self.enclave = Enclave(SoftwareAttester(platform, program))
        world = World(
            url, ROOT, self.deployment, self.authority, platform, program, self.enclave, (),
            (self.people["first"], self.people["second"]), self.people["author"], self.people["relayer"],
            self.people["operator"], (),
        )  # fmt: skip
        self.measurement = program.measurement
        scene = Scene(world, self.rpc)
        evidence = await scene.evidence()
        await scene.register(evidence)
        self.identity = scene.identity(evidence)
        self.coin = await self._create("Coin")
        self.caller = await self._create("Caller", self.deployment.oracle)
        for holder in (*(a.address for a in self.people.values()), self.caller):
            await self.send("deployer", self.coin, compiled("Coin").call("mint", holder, RICH))

    async def _create(self, name: str, *args: object) -> str:
        receipt = await self._senders["deployer"].transact(None, compiled(name).deployment(*args))
        assert receipt.ok
        assert receipt.contract_address is not None
        return str(to_checksum_address(receipt.contract_address))

    # people and time

    def bytes32(self) -> bytes:
        return self.random.randbytes(32)

    def address(self, who: str) -> str:
        return self.caller if who == "caller" else str(self.people[who].address)

    def key(self, who: str) -> SigningKey:
        return SigningKey(bytes(self.people[who].key))

    async def send(self, who: str, to: str, data: bytes, value: int = 0) -> Receipt:
        """Raises Reverted before anything is sent."""
        receipt = await self._senders[who].transact(to, data, value=value)
        assert receipt.ok
        return receipt

    async def registry(self, who: str, function: str, *args: object) -> Receipt:
        return await self.send(who, self.deployment.agreement_registry, load("AgreementRegistry").call(function, *args))

    async def oracle(self, who: str, function: str, *args: object, value: int = 0) -> Receipt:
        return await self.send(who, self.deployment.oracle, load("ComputeOracle").call(function, *args), value)

    async def streams(self, who: str, function: str, *args: object) -> Receipt:
        return await self.send(who, self.deployment.streams, load("DatasetStreams").call(function, *args))

    async def audits(self, who: str, function: str, *args: object) -> Receipt:
        return await self.send(who, self.deployment.audits, load("FunctionAudits").call(function, *args))

    async def views(self, name: str, address: str, *calls: tuple[Any, ...]) -> list[Any]:
        contract = compiled(name) if name in ("Coin", "Caller") else load(name)
        answers = []
        for start in range(0, len(calls), 500):
            part = calls[start : start + 500]
            found = await self.source.calls([Call(address, contract.call(*call)) for call in part], await self.head())
            answers += [contract.result(call[0], answer) for call, answer in zip(part, found, strict=True)]
        return answers

    async def head(self) -> Block:
        block = await self.source.block(int(await self.rpc.call("eth_blockNumber"), 16))
        assert block is not None
        return block

    async def wait(self, seconds: int) -> None:
        await self.rpc.call("evm_increaseTime", hex(seconds))
        await self.rpc.call("evm_mine")

    async def mine(self, blocks: int) -> None:
        await self.rpc.call("hardhat_mine", hex(blocks))

    # agreements

    def dataset(self, name: str, owner: str, **changes: Any) -> Dataset:
        base: dict[str, Any] = {
            "name": name,
            "owner": self.address(owner),
            "id_or_stream": self.bytes32(),
            "lineage": self.bytes32(),
            "shares_digest": self.bytes32(),
            "policy": DatasetPolicy.FIXED,
            "min_version": 0,
            "columns": ("patient", "radius"),
            "budget": 0,
        }
        return Dataset(**{**base, **changes})

    def price(self, **changes: Any) -> Price:
        base: dict[str, Any] = {
            "token": ZERO_ADDRESS,
            "fee": FEE,
            "min_fee": FEE // 10,
            "failed_fee": FEE // 4,
            "to": (self.address("first"), self.address("second")),
            "bps": (3000, 2501),
        }
        return Price(**{**base, **changes})

    def output(self, public: bool = False) -> Output:
        kind = OutputKind.ABI_VALUES if public else OutputKind.ARROW_TABLE
        return Output(
            name="answer",
            kind=kind,
            recipients=() if public else (ZERO32,),
            owners=(self.address("first"),),
            size_class=1 if public else 4096,
        )

    async def agreement(self, **changes: Any) -> Agreement:
        now = (await self.head()).timestamp
        base: dict[str, Any] = {
            "oracle": self.deployment.oracle,
            "enclave_registry": self.deployment.enclave_registry,
            "fn": Function(
                id=self.bytes32(),
                sealed_id=ZERO32,
                shares_digest=ZERO32,
                owner=self.address("author"),
                kind=1,
                deterministic=True,
                limits=Limits(memory_mib=512, time_seconds=30, output_bytes=1 << 20, output_rows=1000),
            ),
            "data": (self.dataset("measurements", "first"), self.dataset("diagnoses", "second")),
            "tee": Enclaves(
                measurements=(self.measurement,),
                anchors=(sha256(self.authority.root_der),),
                status_mask=1 << 1,
                eval_floor=17,
                grace_days=0,
                max_evidence_age=30 * 86_400,
                any_host=False,
                operators=(self.address("operator"),),
                platforms=(),
            ),
            "keys": KeyRelease(
                brokers=(Broker(hpke_key=self.bytes32(), signer=self.address("relayer")),),
                threshold=1,
                max_releases=3,
                confirmation=Confirmation.FINALIZED,
                confirm_blocks=0,
                release_delay=5,
            ),
            "param_domain": self.bytes32(),
            "outputs": (self.output(),),
            "access": Access(requesters=ANYONE, quota=1000, quota_per_requester=1000),
            "price": self.price(),
            "not_before": now - 3600,
            "not_after": now + 300 * 86_400,
            "activate_before": now + 300 * 86_400,
            "supersedes": ZERO32,
            "auditors": ZERO32,
            "salt": self.bytes32(),
        }
        return Agreement(**{**base, **changes})

    def agreement_id(self, agreement: Agreement) -> bytes:
        return self.chain.agreement_id(agreement)

    def signatures(self, agreement: Agreement) -> tuple[bytes, ...]:
        known = {str(account.address): name for name, account in self.people.items()}
        digest = self.agreement_id(agreement)
        return tuple(self.key(known[party]).sign(digest) for party in agreement.parties())

    async def activate(
        self, agreement: Agreement, signatures: Sequence[bytes] | None = None, auditors: Auditors = NO_AUDITORS
    ) -> Receipt:
        given = self.signatures(agreement) if signatures is None else signatures
        return await self.registry("relayer", "activate", agreement, list(given), auditors)

    async def active(self, **changes: Any) -> Agreement:
        agreement = await self.agreement(**changes)
        await self.activate(agreement)
        return agreement

    # tasks

    async def task_request(self, agreement: Agreement, who: str = "alice", **changes: Any) -> TaskRequest:
        now = (await self.head()).timestamp
        calls_back = who == "caller"
        base: dict[str, Any] = {
            "agreement_id": self.agreement_id(agreement),
            "requester": self.address(who),
            "nonce": self.bytes32(),
            "versions": tuple(d.id_or_stream for d in agreement.data),
            "inputs_id": ZERO32,
            "input_shares": ZERO32,
            "params": b"{}",
            "result_key": self.bytes32(),
            "spend": int(any(d.budget for d in agreement.data)),
            "max_fee": agreement.price.fee,
            "as_of": now,
            "deadline": now + 3600,
            "callback": self.caller if calls_back else ZERO_ADDRESS,
            "callback_gas": 200_000 if calls_back else 0,
        }
        return TaskRequest(**{**base, **changes})

    def task_id(self, agreement: Agreement, request: TaskRequest) -> bytes:
        return request.typed_digest(self.chain.oracle_domain(agreement))

    async def request(
        self, agreement: Agreement, who: str = "alice", *, quota: int = 0, proof: Sequence[bytes] = (), **changes: Any
    ) -> TaskRequest:
        """Asked for by the requester's own transaction; a token is allowed before."""
        request = await self.task_request(agreement, who, **changes)
        shown, native = admission(agreement, quota, proof), self._native(agreement)
        if who == "caller":
            assert agreement.price.token == ZERO_ADDRESS
            call = compiled("Caller").call("ask", request, shown)
            await self.send("relayer", self.caller, call, native)
            return request
        if agreement.price.token != ZERO_ADDRESS:
            allow = compiled("Coin").call("approve", self.deployment.oracle, agreement.price.fee)
            await self.send(who, self.coin, allow)
        await self.oracle(who, "request", request, shown, "", value=native)
        return request

    async def relay(self, agreement: Agreement, who: str, kind: PaymentKind, **changes: Any) -> TaskRequest:
        """Signed by the requester, brought and (in the native coin) paid by the relayer."""
        request = await self.task_request(agreement, who, **changes)
        task_id = self.task_id(agreement, request)
        payment = ALLOWANCE
        if kind == PaymentKind.PERMIT:
            payment = await self._permit(who, agreement.price.fee, request.deadline)
        elif kind == PaymentKind.AUTHORIZATION:
            payment = await self._authorization(who, agreement.price.fee, request.deadline, task_id)
        signature = self.key(who).sign(task_id)
        shown = admission(agreement)
        await self.oracle(
            "relayer", "requestFor", request, shown, "", signature, payment, value=self._native(agreement)
        )
        return request

    def _native(self, agreement: Agreement) -> int:
        return agreement.price.fee if agreement.price.token == ZERO_ADDRESS else 0

    async def _permit(self, who: str, value: int, deadline: int) -> Payment:
        (nonce,) = await self.views("Coin", self.coin, ("nonces", self.address(who)))
        fields = [self.address(who), self.deployment.oracle, value, nonce, deadline]
        words = encode(["bytes32", "address", "address", "uint256", "uint256", "uint256"], [PERMIT, *fields])
        return await self._signed(who, PaymentKind.PERMIT, value, deadline, words)

    async def _authorization(self, who: str, value: int, deadline: int, task_id: bytes) -> Payment:
        fields = [RECEIVE, self.address(who), self.deployment.oracle, value, 0, deadline, task_id]
        words = encode(["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"], fields)
        return await self._signed(who, PaymentKind.AUTHORIZATION, 0, deadline, words)

    async def _signed(self, who: str, kind: PaymentKind, value: int, deadline: int, words: bytes) -> Payment:
        (separator,) = await self.views("Coin", self.coin, ("DOMAIN_SEPARATOR",))
        signature = self.key(who).sign(keccak(b"\x19\x01" + separator + keccak(words)))
        r, s, v = signature[:32], signature[32:64], signature[64]
        return Payment(kind=kind, value=value, valid_after=0, deadline=deadline, v=v, r=r, s=s)

    def result(
        self,
        agreement: Agreement,
        request: TaskRequest,
        *,
        failed: bool = False,
        public: Sequence[bytes] = (),
        **changes: Any,
    ) -> Result:
        outs = []
        for number, output in enumerate(() if failed else agreement.outputs):
            digest = self.bytes32() if output.recipients else sha256(public[number])
            outs.append(
                Out(
                    name=output.name,
                    kind=output.kind,
                    recipients_digest=recipients_digest(output.recipients, request.result_key),
                    length=4096 if output.recipients else len(public[number]),
                    digest=digest,
                )
            )
        base: dict[str, Any] = {
            "agreement_id": request.agreement_id,
            "task_id": self.task_id(agreement, request),
            "outcome": Outcome.FAILED if failed else Outcome.SUCCEEDED,
            "outputs": tuple(outs),
            "payee": self.address("payee"),
            "anchor": sha256(self.authority.root_der),
        }
        return Result(**{**base, **changes})

    def fulfilment(
        self,
        agreement: Agreement,
        request: TaskRequest,
        *,
        failed: bool = False,
        public: Sequence[bytes] = (),
        **changes: Any,
    ) -> Fulfilment:
        result = self.result(agreement, request, failed=failed, public=public, **changes)
        needed = failed or request.callback != ZERO_ADDRESS
        return Fulfilment(
            result=result,
            signature=self.enclave.signer.sign(result.typed_digest(self.chain.oracle_domain(agreement))),
            public_outputs=() if failed else tuple(public),
            request=(request,) if needed else (),
        )

    async def fulfil(self, agreement: Agreement, request: TaskRequest, **how: Any) -> Fulfilment:
        made = self.fulfilment(agreement, request, **how)
        await self.oracle("relayer", "fulfil", settlement(agreement), self.identity, made)
        return made

    async def fulfil_many(self, agreement: Agreement, made: Sequence[Fulfilment]) -> None:
        await self.oracle("relayer", "fulfilMany", settlement(agreement), self.identity, list(made))

    async def fulfil_batch(self, agreement: Agreement, requests: Sequence[TaskRequest], payee: str = "payee") -> None:
        domain = self.chain.oracle_domain(agreement)
        results = [self.result(agreement, request, payee=self.address(payee)) for request in requests]
        batch = Batch(
            agreement_id=self.agreement_id(agreement),
            payee=self.address(payee),
            anchor=sha256(self.authority.root_der),
            tasks=tuple(result.task_id for result in results),
            results=tuple(result.typed_digest(domain) for result in results),
        )
        signature = self.enclave.signer.sign(batch.typed_digest(domain))
        await self.oracle("relayer", "fulfilBatch", settlement(agreement), self.identity, batch, signature)

    async def cancel(self, agreement: Agreement, request: TaskRequest, who: str = "alice", **leaf: Any) -> None:
        await self.oracle(who, "cancel", request, admission(agreement, **leaf))

    async def expire(self, agreement: Agreement, request: TaskRequest) -> None:
        await self.oracle("relayer", "expire", request, pricing(agreement))

    async def distribute(self, agreement: Agreement) -> None:
        await self.oracle("relayer", "distribute", self.agreement_id(agreement), pricing(agreement))

    async def task(self, agreement: Agreement, request: TaskRequest) -> dict[str, Any]:
        call = ("task", self.agreement_id(agreement), self.task_id(agreement, request))
        (found,) = await self.views("ComputeOracle", self.deployment.oracle, call)
        assert isinstance(found, dict)
        return found

    async def balance(self, token: str, who: str) -> int:
        """What the oracle holds for somebody."""
        call = ("balanceOf", token, self.address(who))
        (found,) = await self.views("ComputeOracle", self.deployment.oracle, call)
        return int(found)

    async def pool(self, agreement: Agreement) -> int:
        (found,) = await self.views("ComputeOracle", self.deployment.oracle, ("poolOf", self.agreement_id(agreement)))
        return int(found)

    async def held(self, token: str) -> int:
        """What the oracle has in all."""
        if token == ZERO_ADDRESS:
            return int(await self.rpc.call("eth_getBalance", self.deployment.oracle, "latest"), 16)
        (found,) = await self.views("Coin", self.coin, ("balanceOf", self.deployment.oracle))
        return int(found)


def tree(leaves: Sequence[tuple[str, int]]) -> tuple[bytes, list[list[bytes]]]:
    """A StandardMerkleTree's root over two requesters, and the proof of each."""
    (first, second) = (requester_leaf(*leaf) for leaf in leaves)
    return keccak(b"".join(sorted((first, second)))), [[second], [first]]
