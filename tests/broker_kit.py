"""A whole small world for broker tests: anvil, real contracts, a registered software enclave, sealed datasets, a task.

Everything is valid; a test changes one thing of it and sees which rule stops the release.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from eth_account import Account
from eth_account.signers.local import LocalAccount

from enclave_app.attesters.collateral import CollateralSpec
from enclave_app.attesters.platform import (
    DEVELOPMENT_CPU_SVN,
    DEVELOPMENT_PCE_SVN,
    DevelopmentAuthority,
    Platform,
)
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.digests import commitment, sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import Evidence, report_data
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.manifest import Column, File, Manifest
from enclave_app.protocol.onchain import NO_AUDITORS, Admission, Fulfilment, settlement
from enclave_app.protocol.release import ReleaseBody, SignedRelease
from enclave_app.protocol.shares import DatasetBinding, ShareList, make_share_list, random_coefficients
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Broker,
    Chain,
    Dataset,
    Enclaves,
    Enrolment,
    Function,
    Host,
    KeyRelease,
    Limits,
    Outcome,
    Output,
    Price,
    RegisteredIdentity,
    ReleaseRequest,
    Result,
    TaskRequest,
)
from oracle.agreement.enclave import identity_of
from oracle.attestation import Collateral, Verified, parse_dcap, verify
from oracle.attestation.onchain.collateral import posts
from oracle.attestation.onchain.evidence import dcap_evidence, quote_chain
from oracle.chain.abi import load
from oracle.chain.collateral import post_missing
from oracle.chain.deploy import Deployment, deploy
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Receipt, Sender
from oracle.chain.source import Block, SingleSource
from oracle.keybroker import BrokerCard, KeyBrokerConfig, init, read_log
from oracle.keybroker.config import Anchors, ServedChain
from oracle.keybroker.keys import LOG_FILE

PASSWORD = "correct horse"
OPEN = Admission(requesters=ANYONE, quota=0, proof=(), data=())
"""What a request shows where anyone may ask and every dataset is fixed."""
FEE = 10**15
COST = 1 << 10


@dataclass(frozen=True)
class Sealed:
    """A sealed dataset: no files lie behind it, because brokers never see any."""

    manifest: Manifest
    keys: tuple[bytes, ...]
    shares: ShareList

    @classmethod
    def make(cls, chain: Chain, owner: str, columns: Sequence[str], brokers: Sequence[PublicKey], t: int) -> Sealed:
        keys = tuple(secrets.token_bytes(32) for _ in range(len(columns) + 1))
        manifest = Manifest(
            encryption="parquet-aes-gcm-v1",
            lineage=secrets.token_bytes(32),
            files=(File(sha256=secrets.token_bytes(32), size=1000, rows=10),),
            columns=tuple(Column(name=name, type="double", key=i) for i, name in enumerate(columns, start=1)),
            keys=tuple(commitment(key) for key in keys),
        )
        binding = DatasetBinding(
            chain_id=chain.chain_id, registry=chain.agreement_registry, owner=owner, dataset=manifest.id
        )
        return cls(manifest, keys, make_share_list(manifest.id, keys, t, brokers, binding, random_coefficients(t)))


@dataclass(frozen=True)
class Enclave:
    """A software enclave on a development platform, with its keys of this boot."""

    attester: SoftwareAttester
    signer: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)


@dataclass
class World:
    """What is made once: chain, contracts, accounts, brokers, datasets, one registered enclave, whose `identity` is on chain."""

    url: str
    directory: Path
    deployment: Deployment
    authority: DevelopmentAuthority
    platform: Platform
    program: SoftwareEnclave
    enclave: Enclave
    brokers: tuple[BrokerCard, ...]
    owners: tuple[LocalAccount, LocalAccount]
    author: LocalAccount
    requester: LocalAccount
    operator: LocalAccount
    sealed: tuple[Sealed, ...]
    identity: RegisteredIdentity = field(init=False)

    def changed(self, **changes: Any) -> World:
        world = replace(self, **changes)
        world.identity = self.identity
        return world

    @property
    def chain(self) -> Chain:
        return Chain(chain_id=self.deployment.chain_id, agreement_registry=self.deployment.agreement_registry)

    @property
    def root(self) -> bytes:
        return sha256(self.authority.root_der)


async def make_world(url: str, directory: Path) -> World:
    accounts = [Account.create() for _ in range(6)]
    deployer, first, second, author, requester, operator = accounts
    rpc = Rpc(url)
    for account in accounts:
        await rpc.call("anvil_setBalance", account.address, hex(10**21))
    authority = DevelopmentAuthority(int(time.time()))
    deployment = await deploy(Sender(rpc, deployer, poll=0.005), authority.root_der)
    (directory / "root.der").write_bytes(authority.root_der)
    (directory / "collateral.json").write_text(json.dumps(authority.collateral()))
    (directory / "password").write_text(PASSWORD + "\n")
    cards = tuple(init(directory / f"broker{i}", PASSWORD, cost=COST) for i in range(3))
    chain = Chain(chain_id=deployment.chain_id, agreement_registry=deployment.agreement_registry)
    public = [card.public_key() for card in cards]
    sealed = (
        Sealed.make(chain, first.address, ["patient", "radius", "texture"], public, 2),
        Sealed.make(chain, second.address, ["patient", "diagnosis"], public, 2),
    )
    platform = authority.issue_platform()
    program = SoftwareEnclave(secrets.token_bytes(32), b"{}")
    enclave = Enclave(SoftwareAttester(platform, program))
    world = World(
        url, directory, deployment, authority, platform, program, enclave, cards,
        (first, second), author, requester, operator, sealed,
    )  # fmt: skip
    scene = Scene(world, rpc)
    evidence = await scene.evidence()
    await scene.register(evidence)
    world.identity = scene.identity(evidence)
    await rpc.close()
    return world


class Registration(NamedTuple):
    """IEnclaveRegistry.Registration, field by field."""

    signer: str
    sealing_key: bytes
    block_number: int
    block_hash: bytes
    operator: str
    proof_of_possession: bytes
    operator_signature: bytes
    verifier: str
    evidence: bytes


def fulfil_call(
    agreement: Agreement, request: TaskRequest, result: Result, enclave: RegisteredIdentity, signature: bytes
) -> bytes:
    """Calldata that settles one task without public outputs; the request goes along where the contract reads it."""
    read = result.outcome != Outcome.SUCCEEDED or request.callback != ZERO_ADDRESS
    done = Fulfilment(result=result, signature=signature, public_outputs=(), request=(request,) if read else ())
    return load("ComputeOracle").call("fulfil", settlement(agreement), enclave, done)


class Scene:
    """A world seen from one test's event loop."""

    def __init__(self, world: World, rpc: Rpc) -> None:
        self.world, self.rpc = world, rpc
        self.source = SingleSource(rpc)

    # the chain

    async def transact(self, account: LocalAccount, to: str, data: bytes, value: int = 0) -> Receipt:
        receipt = await Sender(self.rpc, account, poll=0.005).transact(to, data, value=value)
        assert receipt.ok
        return receipt

    async def party(self, account: LocalAccount, function: str, *args: object) -> None:
        registry = load("AgreementRegistry")
        await self.transact(account, self.world.deployment.agreement_registry, registry.call(function, *args))

    async def mine(self, blocks: int = 1) -> None:
        await self.rpc.call("anvil_mine", hex(blocks))

    async def head(self) -> Block:
        block = await self.source.block(int(await self.rpc.call("eth_blockNumber"), 16))
        assert block is not None
        return block

    # the enclave

    async def evidence(
        self, enclave: Enclave | None = None, block: Block | None = None, operator: LocalAccount | None = None
    ) -> Evidence:
        enclave, operator = enclave or self.world.enclave, operator or self.world.operator
        block = block or await self.head()
        registry, signer = self.world.deployment.enclave_registry, enclave.signer
        chain_id = self.world.deployment.chain_id
        bound = report_data(chain_id, registry, signer.address, enclave.sealing.public.digest, block.hash)
        host = Host(signer=signer.address).typed_digest(Domain(chain_id=chain_id, verifying_contract=registry))
        return Evidence(
            tee=1,
            quote=await enclave.attester.quote(bound),
            signer=signer.address,
            sealing_key=enclave.sealing.public.wire,
            chain_id=chain_id,
            registry=registry,
            block_number=block.number,
            block_hash=block.hash,
            operator=operator.address,
            operator_signature=SigningKey(bytes(operator.key)).sign(host),
        )

    def verified(self, evidence: Evidence) -> Verified:
        collateral = Collateral.from_json(json.dumps(self.world.authority.collateral()))
        parsed = parse_dcap(evidence.tee, evidence.quote)
        return verify(parsed, collateral, self.world.authority.root_der, int(time.time()))

    def collateral(
        self, *, now: int | None = None, days: int | None = None, revoked: Sequence[Platform] = (), **spec: Any
    ) -> Collateral:
        """The world's collateral, or what else its authority would say of its platforms. A store keeps one document for each
        evaluation number, and takes later ones only."""
        said = replace(CollateralSpec(DEVELOPMENT_CPU_SVN, DEVELOPMENT_PCE_SVN), **spec)
        minted = self.world.authority.collateral(said, now=now, days=days, revoked=revoked)
        return Collateral.from_json(json.dumps(minted))

    def identity(self, evidence: Evidence) -> RegisteredIdentity:
        """What a registry holds of the enclave that this evidence is of."""
        return identity_of(evidence, sha256(evidence.sealing_key), self.verified(evidence))

    async def post(self, quote: bytes, collateral: Collateral) -> None:
        """Everything that a quote rests on, by its operator."""
        store = self.world.deployment.collateral
        assert store is not None
        sender = Sender(self.rpc, self.world.operator, poll=0.005)
        wanted = posts(collateral, quote_chain(parse_dcap(1, quote)))
        await post_missing(sender, self.source, store, wanted, self.world.root)

    async def registration(
        self,
        evidence: Evidence,
        enclave: Enclave | None = None,
        collateral: Collateral | None = None,
        earlier: Collateral | None = None,
    ) -> Registration:
        """What the registry takes once the collateral is there, which is posted."""
        enclave, collateral = enclave or self.world.enclave, collateral or self.collateral()
        for each in (earlier, collateral):
            if each is not None:
                await self.post(evidence.quote, each)
        enrolment = Enrolment(
            signer=evidence.signer,
            sealing_key=sha256(evidence.sealing_key),
            block_hash=evidence.block_hash,
            operator=evidence.operator,
        )
        registry = Domain(chain_id=evidence.chain_id, verifying_contract=evidence.registry)
        return Registration(
            evidence.signer,
            enrolment.sealing_key,
            evidence.block_number,
            evidence.block_hash,
            evidence.operator,
            enclave.signer.sign(enrolment.typed_digest(registry)),
            evidence.operator_signature,
            self.world.deployment.verifiers["dcap"],
            dcap_evidence(parse_dcap(evidence.tee, evidence.quote), collateral, earlier),
        )

    async def register(self, evidence: Evidence, enclave: Enclave | None = None, **shown: Collateral | None) -> None:
        """Register evidence under the world's collateral, unless another is `shown`."""
        await self.send_registration(await self.registration(evidence, enclave, **shown))

    async def send_registration(self, registration: Registration, registry: str | None = None) -> None:
        """Anyone may relay one, so the requester does."""
        call = load("EnclaveRegistry").call("register", registration)
        await self.transact(self.world.requester, registry or self.world.deployment.enclave_registry, call)

    @property
    def anchor(self) -> bytes:
        """The development root's, under which the enclave is registered."""
        return self.world.root

    # agreement and task

    def agreement(self, **changes: Any) -> Agreement:
        world, now = self.world, int(time.time())
        base: dict[str, Any] = {
            "oracle": world.deployment.oracle,
            "enclave_registry": world.deployment.enclave_registry,
            "fn": Function(
                id=secrets.token_bytes(32),
                sealed_id=ZERO32,
                shares_digest=ZERO32,
                owner=world.author.address,
                kind=1,
                deterministic=True,
                limits=Limits(memory_mib=512, time_seconds=30, output_bytes=1 << 20, output_rows=1000),
            ),
            "data": (
                self.dataset("measurements", 0, ("patient", "radius")),
                self.dataset("diagnoses", 1, ("patient", "diagnosis")),
            ),
            "tee": Enclaves(
                measurements=(world.program.measurement,),
                anchors=(self.anchor,),
                status_mask=1 << 1,
                eval_floor=17,
                grace_days=0,
                max_evidence_age=3600,
                any_host=False,
                operators=(world.operator.address,),
                platforms=(),
            ),
            "keys": KeyRelease(
                brokers=tuple(Broker(hpke_key=card.digest, signer=card.signer) for card in world.brokers),
                threshold=2,
                max_releases=3,
                confirmation=1,
                confirm_blocks=0,
                release_delay=0,
            ),
            "param_domain": secrets.token_bytes(32),
            "outputs": (
                Output(name="summary", kind=1, recipients=(ZERO32,), owners=(world.owners[0].address,), size_class=4096),
            ),
            "access": Access(requesters=ANYONE, quota=100, quota_per_requester=100),
            "price": Price(token=ZERO_ADDRESS, fee=FEE, min_fee=0, failed_fee=0, to=(), bps=()),
            "not_before": now - 3600,
            "not_after": now + 86_400,
            "activate_before": now + 86_400,
            "supersedes": ZERO32,
            "auditors": ZERO32,
            "salt": secrets.token_bytes(32),
        }  # fmt: skip
        return Agreement(**{**base, **changes})

    def dataset(self, name: str, index: int, columns: Sequence[str], **changes: Any) -> Dataset:
        sealed = self.world.sealed[index]
        base: dict[str, Any] = {
            "name": name,
            "owner": self.world.owners[index].address,
            "id_or_stream": sealed.manifest.id,
            "lineage": sealed.manifest.lineage,
            "shares_digest": sealed.shares.id,
            "policy": 1,
            "min_version": 0,
            "columns": tuple(columns),
            "budget": 0,
        }
        return Dataset(**{**base, **changes})

    def signatures(self, agreement: Agreement) -> tuple[bytes, ...]:
        known: dict[str, LocalAccount] = {str(a.address): a for a in (self.world.author, *self.world.owners)}
        digest = self.world.chain.agreement_id(agreement)
        return tuple(SigningKey(bytes(known[p].key)).sign(digest) if p in known else b"" for p in agreement.parties())

    async def activate(self, agreement: Agreement, signatures: Sequence[bytes] | None = None) -> tuple[bytes, ...]:
        given = tuple(self.signatures(agreement) if signatures is None else signatures)
        call = load("AgreementRegistry").call("activate", agreement, given, NO_AUDITORS)
        await self.transact(self.world.requester, self.world.deployment.agreement_registry, call)
        return given

    async def request(self, agreement: Agreement, **changes: Any) -> TaskRequest:
        request = await self.task_request(agreement, **changes)
        await self.send_request(request)
        return request

    async def task_request(self, agreement: Agreement, **changes: Any) -> TaskRequest:
        """A request that the contract takes, not sent yet."""
        now = (await self.head()).timestamp
        base: dict[str, Any] = {
            "agreement_id": self.world.chain.agreement_id(agreement),
            "requester": self.world.requester.address,
            "nonce": secrets.token_bytes(32),
            "versions": tuple(d.id_or_stream for d in agreement.data),
            "inputs_id": ZERO32,
            "input_shares": ZERO32,
            "params": b"{}",
            "result_key": secrets.token_bytes(32),
            "spend": 0,
            "max_fee": FEE,
            "as_of": now,
            "deadline": now + 3600,
            "callback": ZERO_ADDRESS,
            "callback_gas": 0,
        }
        return TaskRequest(**{**base, **changes})

    async def send_request(
        self, request: TaskRequest, admission: Admission = OPEN, sender: LocalAccount | None = None, value: int = FEE
    ) -> None:
        call = load("ComputeOracle").call("request", request, admission, "")
        await self.transact(sender or self.world.requester, self.world.deployment.oracle, call, value=value)

    def ask(
        self, agreement: Agreement, request: TaskRequest, enclave: Enclave | None = None, **changes: Any
    ) -> SignedRelease:
        """A release request for broker 0, signed by the enclave."""
        enclave = enclave or self.world.enclave
        domain = self.world.chain.oracle_domain(agreement)
        base = {
            "agreement_id": self.world.chain.agreement_id(agreement),
            "task_id": request.typed_digest(domain),
            "broker": self.world.brokers[0].digest,
            "nonce": secrets.token_bytes(32),
            "sealing_key": enclave.sealing.public.digest,
            "anchor": self.anchor,
        }
        release = ReleaseRequest(**{**base, **changes})
        return SignedRelease(request=release, signature=enclave.signer.sign(release.typed_digest(domain)))

    async def body(
        self,
        agreement: Agreement | None = None,
        *,
        signatures: Sequence[bytes] | None = None,
        sealed: Sequence[Sealed] | None = None,
        enclave: Enclave | None = None,
    ) -> ReleaseBody:
        """A valid body: activates the agreement, requests a task and asks broker 0 with fresh evidence."""
        agreement = agreement or self.agreement()
        given = await self.activate(agreement, signatures)
        request = await self.request(agreement)
        sealed = sealed or self.world.sealed
        return ReleaseBody(
            chain=self.world.chain,
            agreement=agreement,
            signatures=given,
            request=request,
            manifests=tuple(s.manifest.canonical() for s in sealed),
            share_lists=tuple(s.shares.canonical() for s in sealed),
            release=self.ask(agreement, request, enclave),
            evidence=await self.evidence(enclave),
        )

    # the broker

    def config(self, directory: Path, rpc: Sequence[str] | None = None, **changes: Any) -> KeyBrokerConfig:
        world = self.world
        urls = tuple(rpc or [world.url])
        served = {
            "chain_id": world.deployment.chain_id,
            "agreement_registries": (world.deployment.agreement_registry,),
            "rpc": urls,
            "dangerous_single_rpc": len(urls) == 1,
            **changes.pop("served", {}),
        }
        return KeyBrokerConfig(
            **{
                "directory": directory,
                "password_file": world.directory / "password",
                "chains": (ServedChain(**served),),
                "anchors": Anchors(development=(world.directory / "root.der",), dangerous_development_roots=True),
                "collateral": world.directory / "collateral.json",
                "listen": {"port": 0},
                **changes,
            }
        )

    def broker_directory(self, into: Path, index: int = 0) -> Path:
        """A copy of a broker's keys, with a log of its own."""
        target = into / f"broker{index}"
        shutil.copytree(self.world.directory / f"broker{index}", target)
        return target


def released_by(*directories: Path) -> Callable[[], Awaitable[object]]:
    """A footprint: all that these brokers ever logged, which is before they answer."""

    async def footprint() -> object:
        return [[entry.event for entry in read_log(directory / LOG_FILE)] for directory in directories]

    return footprint


def collateral_with(world: World, **changes: Any) -> str:
    spec = replace(CollateralSpec(DEVELOPMENT_CPU_SVN, DEVELOPMENT_PCE_SVN), **changes)
    return json.dumps(world.authority.collateral(spec))
