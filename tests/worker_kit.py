"""What the worker's tests share: a local chain with the real contracts, and an enclave and brokers that speak the real
protocol with real keys, in this process, so that a test can make one of them fail in one way."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from eth_account import Account
from eth_account.signers.local import LocalAccount

from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol import evidence as evidence_protocol
from enclave_app.protocol.bundle import BundleFile, BundleHeader, InputColumn, InputTable, pack
from enclave_app.protocol.canonical import Document, parse
from enclave_app.protocol.digests import commitment, sha256
from enclave_app.protocol.errors import OracleError, Refused, Retryable
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.manifest import Column, File, Manifest
from enclave_app.protocol.onchain import NO_AUDITORS, admission
from enclave_app.protocol.output import TaskSecret, seal_output
from enclave_app.protocol.params import ParamDomain
from enclave_app.protocol.release import (
    ErrorBody,
    ReleaseAnswer,
    ReleaseBody,
    SignedRelease,
    SignedShares,
    answer_info,
    open_answer,
    pack_answer,
    recipients_digest,
)
from enclave_app.protocol.shares import (
    DatasetBinding,
    OutputBinding,
    ShareList,
    check_share,
    key_ids_digest,
    make_share_list,
    open_shares,
    random_coefficients,
    read_share_list,
    recover_key,
)
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Broker,
    Chain,
    Confirmation,
    Dataset,
    Enclaves,
    Enrolment,
    Function,
    KeyRelease,
    Limits,
    Out,
    Outcome,
    Output,
    OutputShares,
    Price,
    RegisteredIdentity,
    ReleaseRequest,
    ReleaseStatement,
    Result,
    Retire,
    TaskRequest,
    TcbStatus,
)
from enclave_app.protocol.wire import (
    Blame,
    EvidenceAnswer,
    EvidenceBody,
    Identity,
    RetireAnswer,
    RetireBody,
    RunBody,
    TaskBody,
    TaskDone,
    TaskStarted,
)
from oracle.attestation import parse_dcap
from oracle.attestation.onchain.evidence import quote_chain, versions
from oracle.attestation.onchain.structs import Pck
from oracle.chain.abi import load
from oracle.chain.deploy import Deployment, deploy
from oracle.chain.reader import OracleReader, TaskOnChain
from oracle.chain.rpc import Rpc, as_int
from oracle.chain.sender import Receipt, Sender
from oracle.chain.source import SingleSource
from oracle.storage import FileStorage
from oracle.worker.config import WorkerConfig

FEE = 10**15
ANSWER = b"an answer, which is plaintext\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def anvil(*arguments: str) -> AsyncIterator[Rpc]:
    port = free_port()
    program = Path(sys.executable).with_name("anvil")
    process = await asyncio.create_subprocess_exec(
        str(program), "--port", str(port), *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    rpc = Rpc(f"http://127.0.0.1:{port}")
    try:
        for _ in range(200):
            try:
                await rpc.call("eth_chainId")
                break
            except Retryable:
                await asyncio.sleep(0.02)
        yield rpc
    finally:
        await rpc.close()
        process.terminate()
        await process.wait()


async def funded(rpc: Rpc) -> LocalAccount:
    account: LocalAccount = Account.create()
    await rpc.call("anvil_setBalance", account.address, hex(10**24))
    return account


async def until(condition: Any, seconds: float = 15.0) -> None:
    """Wait until an async `condition` holds; fails loudly when it does not in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.02)


class TinyBroker:
    """A broker without a chain: opens its envelope and seals its shares, or misbehaves as `mode` says."""

    def __init__(self) -> None:
        self.sealing, self.signing = SealingKey.generate(), SigningKey.generate()
        self.mode, self.delay, self.asked = "good", 0.0, 0
        self.evidence_block: bytes | None = None
        """The block that the newest evidence binds which it was shown."""
        self.url = ""
        self._port = 0
        self._runner: web.AppRunner | None = None

    @property
    def digest(self) -> bytes:
        return self.sealing.public.digest

    async def start(self) -> None:
        self._port = self._port or free_port()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/release", self._release)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _release(self, request: web.Request) -> web.Response:
        self.asked += 1
        await asyncio.sleep(self.delay)
        if self.mode == "refuse":
            return _error(Retryable("task.delay", "not yet"))
        if self.mode == "garbage":
            return web.Response(body=b"<html>", content_type="text/html")
        body = parse(ReleaseBody, await request.read(), limit=64 << 20)
        return _document(self.answer(body))

    def answer(self, body: ReleaseBody) -> ReleaseAnswer:
        self.evidence_block = body.evidence.block_hash
        agreement, asked = body.agreement, body.release.request
        opened: dict[tuple[int, int], bytes] = {}
        x = 0
        for index, term in enumerate(agreement.data):
            shares = read_share_list(body.share_lists[index], body.request.versions[index], term.shares_digest)
            x, mine = open_shares(shares, self.sealing, _binding(body.chain, term.owner, shares.dataset))
            opened |= {(index, key): share for key, share in enumerate(mine)}
        if self.mode == "wrong_share":
            opened = {key: secrets.token_bytes(32) for key in opened}
        signer = body.evidence.signer
        info = answer_info(body.chain, agreement, asked, body.request.versions, signer)
        sealed = PublicKey(body.evidence.sealing_key).seal(pack_answer(x, opened), info)
        statement = ReleaseStatement(
            agreement_id=asked.agreement_id,
            task_id=asked.task_id,
            signer=signer,
            nonce=secrets.token_bytes(32) if self.mode == "lie" else asked.nonce,
            broker=self.digest,
            keys=key_ids_digest(sorted(opened)),
            answer=sha256(sealed),
            collateral=bytes(32),
            time=int(time.time()),
            block_number=0,
            block_hash=bytes(32),
        )
        signature = self.signing.sign(statement.typed_digest(body.chain.oracle_domain(agreement)))
        return ReleaseAnswer(statement=statement, signature=signature, sealed=sealed)


@dataclass
class Held:
    body: TaskBody
    task_id: bytes
    requests: dict[bytes, ReleaseRequest]
    files: dict[bytes, bytes] = field(default_factory=dict)
    done: TaskDone | None = None


class TinyEnclave:
    """The enclave's API with real keys, quotes, shares, sealing and signatures; its function is a constant."""

    def __init__(self, socket_path: Path, authority: DevelopmentAuthority, *, launch_config: bytes = b"a test") -> None:
        """`launch_config` is part of its measurement."""
        self.socket = socket_path
        self._program = SoftwareEnclave(mrenclave=bytes(range(32)), launch_config=launch_config)
        self._attester = SoftwareAttester(authority.issue_platform(), self._program)
        self.measurement = self._program.measurement
        self._runner: web.AppRunner | None = None
        self.runs = 0
        self.run_delay = 0.0
        self.forgets = 0
        """How many started tasks it will have dropped by the time they are to run."""
        self.outcome = Outcome.SUCCEEDED
        self.out_of_memory = False
        self.blobs_missing = 0
        """How many runs will find their ciphertext missing."""
        self._boot()

    def _boot(self) -> None:
        self.signing, self.sealing = SigningKey.generate(), SealingKey.generate()
        self.held: dict[bytes, Held] = {}

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20, middlewares=[_typed_errors])
        app.router.add_get("/v1/identity", self._identity)
        app.router.add_post("/v1/evidence", self._evidence)
        app.router.add_post("/v1/retire", self._retire)
        app.router.add_post("/v1/tasks", self._start)
        app.router.add_post("/v1/tasks/{id}/run", self._run)
        app.router.add_get("/v1/tasks/{id}/files/{digest}", self._file)
        app.router.add_delete("/v1/tasks/{id}", self._forget)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()
        self.registered = await self._registered()

    async def _registered(self) -> RegisteredIdentity:
        """What the registry holds of this boot, once it is registered without an operator."""
        parsed = parse_dcap(1, await self._attester.quote(bytes(64)))
        pck = Pck.of(quote_chain(parsed))
        return RegisteredIdentity(
            measurement=self.measurement,
            platform=pck.platform,
            sealing_key=self.sealing.public.digest,
            svn_digest=versions(parsed, pck).digest,
            verifier=ZERO32,
            operator=ZERO_ADDRESS,
            tee=1,
        )

    def move(self, authority: DevelopmentAuthority) -> None:
        """To another machine, with the keys of this boot: what no real enclave can, but its registration must not outlive."""
        self._attester = SoftwareAttester(authority.issue_platform(), self._program)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def restart(self) -> None:
        """R1: a boot is a new identity, and forgets all tasks."""
        await self.stop()
        self._boot()
        await self.start()

    def sign_enrolment(self, block_hash: bytes, operator: str, domain: Any) -> bytes:
        enrolment = Enrolment(
            signer=self.signing.address,
            sealing_key=self.sealing.public.digest,
            block_hash=block_hash,
            operator=operator,
        )
        return self.signing.sign(enrolment.typed_digest(domain))

    async def _identity(self, _: web.Request) -> web.Response:
        return _document(
            Identity(
                signer=self.signing.address,
                sealing_key=self.sealing.public.wire,
                tee=1,
                attester="software",
                measurement=self.measurement,
                sandbox=(),
                simulated=True,
            )
        )

    async def _evidence(self, request: web.Request) -> web.Response:
        body = parse(EvidenceBody, await request.read())
        domain = Chain(chain_id=body.chain_id, agreement_registry=body.registry).agreement_domain()
        bound = evidence_protocol.report_data(
            body.chain_id, body.registry, self.signing.address, self.sealing.public.digest, body.block_hash
        )
        return _document(
            EvidenceAnswer(
                quote=await self._attester.quote(bound),
                proof_of_possession=self.sign_enrolment(body.block_hash, body.operator, domain),
            )
        )

    async def _retire(self, request: web.Request) -> web.Response:
        body = parse(RetireBody, await request.read())
        domain = Chain(chain_id=body.chain_id, agreement_registry=body.registry).agreement_domain()
        digest = Retire(signer=self.signing.address).typed_digest(domain)
        return _document(RetireAnswer(signature=self.signing.sign(digest)))

    async def _start(self, request: web.Request) -> web.Response:
        body = parse(TaskBody, await request.read())
        domain = body.chain.oracle_domain(body.agreement)
        task_id, nonce = body.request.typed_digest(domain), secrets.token_bytes(32)
        releases = tuple(
            ReleaseRequest(
                agreement_id=body.request.agreement_id,
                task_id=task_id,
                broker=broker.hpke_key,
                nonce=nonce,
                sealing_key=self.sealing.public.digest,
                anchor=body.anchor,
            )
            for broker in body.agreement.keys.brokers
        )
        self.held[task_id] = Held(body, task_id, {release.broker: release for release in releases})
        signed = tuple(
            SignedRelease(request=each, signature=self.signing.sign(each.typed_digest(domain))) for each in releases
        )
        return _document(TaskStarted(task_id=task_id, releases=signed))

    async def _run(self, request: web.Request) -> web.Response:
        if self.forgets:
            self.forgets -= 1
            self.held.clear()
        if self.out_of_memory:
            self.runs += 1
            raise Retryable("run.memory", "the function ran out of memory")
        if self.blobs_missing:
            self.blobs_missing -= 1
            raise Retryable("blob.missing", "no storage has a blob")
        held = self._task(request)
        body = parse(RunBody, await request.read(), limit=64 << 20)
        await asyncio.sleep(self.run_delay)
        if held.done is None:  # R16: done once, as the real one
            held.done = await asyncio.to_thread(self.compute, held, body)
            self.runs += 1
        return _document(held.done)

    def compute(self, held: Held, body: RunBody) -> TaskDone:
        chain, agreement = held.body.chain, held.body.agreement
        lists = [self._share_list(held, index) for index in range(len(agreement.data))]
        good: dict[bytes, tuple[int, dict[tuple[int, int], bytes]]] = {}
        blamed = []
        for answer in body.answers:
            broker = answer.statement.broker
            try:
                x, shares = self._open(held, answer)
                for (dataset, key), share in shares.items():
                    check_share(lists[dataset], x, key, share)
                good[broker] = x, shares
            except Refused as error:
                blamed.append(Blame(broker=broker, code=error.code))
        threshold = agreement.keys.threshold
        if len(good) < threshold:
            raise Retryable("release.too_few", "too few good answers")
        used = dict(list(good.items())[:threshold])
        keys = [
            recover_key({x: s[d, k] for x, s in used.values()}, threshold, commitments[k])
            for d, commitments in enumerate(self._commitments(held))
            for k in range(len(commitments))
        ]
        return self._seal(held, chain, agreement, keys, tuple(used), tuple(blamed))

    def _open(self, held: Held, answer: ReleaseAnswer) -> tuple[int, dict[tuple[int, int], bytes]]:
        agreement, broker = held.body.agreement, answer.statement.broker
        return open_answer(
            answer,
            chain=held.body.chain,
            agreement=agreement,
            request=held.requests[broker],
            datasets=held.body.request.versions,
            signer=self.signing.address,
            broker_signer=next(b.signer for b in agreement.keys.brokers if b.hpke_key == broker),
            key=self.sealing,
        )

    def _seal(
        self,
        held: Held,
        chain: Chain,
        agreement: Agreement,
        keys: list[bytes],
        used: tuple[bytes, ...],
        blamed: tuple[Blame, ...],
    ) -> TaskDone:
        request = held.body.request
        if self.outcome == Outcome.FAILED:
            failed = Result(
                agreement_id=request.agreement_id,
                task_id=held.task_id,
                outcome=Outcome.FAILED,
                outputs=(),
                payee=held.body.payee,
                anchor=held.body.anchor,
            )
            signature = self.signing.sign(failed.typed_digest(chain.oracle_domain(agreement)))
            return TaskDone(result=failed, signature=signature, outputs=(), blamed=blamed, used=used, enclave_ms=1)
        term = agreement.outputs[0]
        secret = TaskSecret(keys, request.agreement_id, held.task_id)
        sealed = seal_output(secret, term.name, ANSWER, term.size_class, agreement.keys.threshold)
        binding = OutputBinding(
            chain_id=chain.chain_id,
            oracle=agreement.oracle,
            agreement_id=request.agreement_id,
            task_id=held.task_id,
            output=sealed.manifest.id,
        )
        brokers = [broker.sealing.public for broker in BROKERS]
        shares = make_share_list(
            sealed.manifest.id,
            [sealed.key],
            agreement.keys.threshold,
            brokers,
            binding,
            lambda _: sealed.coefficients,
        )
        word = OutputShares(
            agreement_id=request.agreement_id, task_id=held.task_id, output_id=sealed.manifest.id, shares=shares.id
        )
        domain = chain.oracle_domain(agreement)
        held.files[sealed.manifest.files[0].sha256] = bytes(sealed.ciphertext)
        result = Result(
            agreement_id=request.agreement_id,
            task_id=held.task_id,
            outcome=1,
            outputs=(
                Out(
                    name=term.name,
                    kind=term.kind,
                    recipients_digest=recipients_digest(term.recipients, request.result_key),
                    length=sealed.length,
                    digest=sealed.manifest.id,
                ),
            ),
            payee=held.body.payee,
            anchor=held.body.anchor,
        )
        return TaskDone(
            result=result,
            signature=self.signing.sign(result.typed_digest(domain)),
            outputs=(
                SignedShares(
                    output=0,
                    manifest=sealed.manifest.canonical(),
                    share_list=shares.canonical(),
                    shares=word,
                    signature=self.signing.sign(word.typed_digest(domain)),
                ),
            ),
            blamed=blamed,
            used=used,
            enclave_ms=1,
        )

    def _share_list(self, held: Held, index: int) -> ShareList:
        agreement, version = held.body.agreement, held.body.request.versions[index]
        raw = _blob(held.body.storage[0], agreement.data[index].shares_digest)
        return read_share_list(raw, version, agreement.data[index].shares_digest)

    def _commitments(self, held: Held) -> list[tuple[bytes, ...]]:
        return [parse(Manifest, _blob(held.body.storage[0], version)).keys for version in held.body.request.versions]

    async def _file(self, request: web.Request) -> web.Response:
        digest = bytes.fromhex(request.match_info["digest"].removeprefix("0x"))
        return web.Response(body=self._task(request).files[digest])

    async def _forget(self, request: web.Request) -> web.Response:
        self.held.pop(bytes.fromhex(request.match_info["id"].removeprefix("0x")), None)
        return web.Response(status=204)

    def _task(self, request: web.Request) -> Held:
        held = self.held.get(bytes.fromhex(request.match_info["id"].removeprefix("0x")))
        if held is None:
            raise Refused("task.unknown", "no such task")
        return held


BROKERS: list[TinyBroker] = []
"""The brokers of the running test; the enclave seals outputs to them."""


@web.middleware
async def _typed_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
        return answer
    except OracleError as error:
        return _error(error)


def _error(error: OracleError) -> web.Response:
    body = ErrorBody(code=error.code, message=error.message, retry=isinstance(error, Retryable))
    return web.Response(body=body.canonical(), status=503 if body.retry else 400)


def _document(document: Document) -> web.Response:
    return web.Response(body=document.canonical(), content_type="application/json")


def _blob(base: str, digest: bytes) -> bytes:
    return (Path(base.removeprefix("file://")) / digest.hex()).read_bytes()


def _binding(chain: Chain, owner: str, dataset: bytes) -> DatasetBinding:
    return DatasetBinding(chain_id=chain.chain_id, registry=chain.agreement_registry, owner=owner, dataset=dataset)


def terms(
    deployment: Deployment,
    owner: str,
    measurement: bytes,
    anchor: bytes,
    brokers: Sequence[TinyBroker],
    sealed: tuple[bytes, bytes, bytes],
    *,
    function: bytes | None = None,
    **changes: Any,
) -> Agreement:
    """A valid agreement over one dataset: `sealed` is its id, lineage and shares digest. `changes` replace fields."""
    dataset, lineage, shares = sealed
    now = int(time.time())
    fields: dict[str, Any] = {
        "oracle": deployment.oracle,
        "enclave_registry": deployment.enclave_registry,
        "fn": Function(
            id=function or secrets.token_bytes(32),
            sealed_id=ZERO32,
            shares_digest=ZERO32,
            owner=owner,
            kind=1,
            deterministic=True,
            limits=Limits(memory_mib=512, time_seconds=10, output_bytes=1 << 20, output_rows=1000),
        ),
        "data": (
            Dataset(
                name="a",
                owner=owner,
                id_or_stream=dataset,
                lineage=lineage,
                shares_digest=shares,
                policy=1,
                min_version=0,
                columns=("a",),
                budget=0,
            ),
        ),
        "tee": Enclaves(
            measurements=(measurement,),
            anchors=(anchor,),
            status_mask=1 << TcbStatus.UP_TO_DATE,
            eval_floor=1,
            grace_days=0,
            max_evidence_age=86400,
            any_host=True,
            operators=(),
            platforms=(),
        ),
        "keys": KeyRelease(
            brokers=tuple(Broker(hpke_key=b.digest, signer=b.signing.address) for b in brokers),
            threshold=2,
            max_releases=3,
            confirmation=Confirmation.LATEST,
            confirm_blocks=0,
            release_delay=0,
        ),
        "param_domain": ParamDomain().id,
        "outputs": (Output(name="result", kind=1, recipients=(ZERO32,), owners=(owner,), size_class=4096),),
        "access": Access(requesters=ANYONE, quota=1000, quota_per_requester=1000),
        "price": Price(token=ZERO_ADDRESS, fee=FEE, min_fee=0, failed_fee=0, to=(), bps=()),
        "not_before": now - 1000,
        "not_after": now + 10**6,
        "activate_before": now + 10**6,
        "supersedes": ZERO32,
        "auditors": ZERO32,
        "salt": secrets.token_bytes(32),
    }
    return Agreement(**{**fields, **changes})


@dataclass
class World:
    """A devnet with one agreement. `wallet` is the worker's, `requester` and `owner` are others."""

    rpc: Rpc
    directory: Path
    deployment: Deployment
    authority: DevelopmentAuthority
    enclave: TinyEnclave
    brokers: list[TinyBroker]
    owner: SigningKey
    requester: Sender
    wallet: LocalAccount
    payee: str
    _asked: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def chain(self) -> Chain:
        return Chain(chain_id=self.deployment.chain_id, agreement_registry=self.deployment.agreement_registry)

    @property
    def blobs(self) -> Path:
        return self.directory / "blobs"

    async def agreement(self, **changes: Any) -> Agreement:
        """A valid agreement over one sealed dataset, its blobs in storage. `changes` replace top-level fields."""
        storage = FileStorage(self.blobs)
        keys = [secrets.token_bytes(32) for _ in range(2)]
        manifest = Manifest(
            encryption="parquet-aes-gcm-v1",
            lineage=secrets.token_bytes(32),
            files=(File(sha256=secrets.token_bytes(32), size=10, rows=1),),
            columns=(Column(name="a", type="int64", key=1),),
            keys=tuple(commitment(key) for key in keys),
        )
        shares = make_share_list(
            manifest.id,
            keys,
            2,
            [broker.sealing.public for broker in self.brokers],
            _binding(self.chain, self.owner.address, manifest.id),
            random_coefficients(2),
        )
        domain = ParamDomain()
        header = BundleHeader(
            kind="sql", name="constant", description="", entry="query.sql", deterministic=True, params=domain,
            tables=(InputTable(name="a", columns=(InputColumn(name="a", type="int64"),)),),
            outputs=("result",), salt=secrets.token_bytes(32),
            files=(BundleFile(path="query.sql", size=0, sha256=ZERO32),),
        )  # fmt: skip
        bundle = pack(header, {"query.sql": b"SELECT 1"})
        for blob in (manifest.canonical(), shares.canonical(), bundle.raw, domain.canonical()):
            await storage.put(blob)
        return terms(
            self.deployment,
            self.owner.address,
            self.enclave.measurement,
            sha256(self.authority.root_der),
            self.brokers,
            (manifest.id, manifest.lineage, shares.id),
            function=bundle.id,
            **changes,
        )

    async def activate(self, agreement: Agreement) -> bytes:
        agreement_id = self.chain.agreement_id(agreement)
        call = load("AgreementRegistry").call("activate", agreement, [self.owner.sign(agreement_id)], NO_AUDITORS)
        receipt = await self.requester.transact(self.deployment.agreement_registry, call)
        assert receipt.ok
        return agreement_id

    async def request(self, agreement: Agreement, **changes: Any) -> tuple[bytes, TaskRequest, Receipt]:
        """Ask for a task; returns its id."""
        head = await self.rpc.call("eth_getBlockByNumber", "latest", False)
        now = max(int(time.time()), as_int(head["timestamp"]))
        fields: dict[str, Any] = {
            "agreement_id": self.chain.agreement_id(agreement),
            "requester": self.requester.address,
            "nonce": secrets.token_bytes(32),
            "versions": tuple(d.id_or_stream for d in agreement.data),
            "inputs_id": ZERO32,
            "input_shares": ZERO32,
            "params": b"{}",
            "result_key": SealingKey.generate().public.digest,
            "spend": 0,
            "max_fee": FEE,
            "as_of": as_int(head["timestamp"]),
            "deadline": now + 3600,
            "callback": ZERO_ADDRESS,
            "callback_gas": 0,
        }
        request = TaskRequest(**{**fields, **changes})
        call = load("ComputeOracle").call("request", request, admission(agreement), "")
        receipt = await self.requester.transact(self.deployment.oracle, call, value=FEE)
        assert receipt.ok
        task_id = request.typed_digest(self.chain.oracle_domain(agreement))
        self._asked[task_id] = request.agreement_id
        return task_id, request, receipt

    async def on_chain(self, task_id: bytes) -> TaskOnChain:
        """Of a task under the agreement of the last request, unless it was asked for under another."""
        source = SingleSource(self.rpc)
        agreement_id = self._asked.get(task_id, self._asked[next(reversed(self._asked))])
        return await OracleReader(source, self.deployment.oracle).task(
            agreement_id, task_id, await source.confirmed(Confirmation.LATEST)
        )

    def config(self, **changes: Any) -> WorkerConfig:
        """The worker's configuration, read from a file as a user would have it."""
        (self.directory / "deployment.json").write_bytes(self.deployment.canonical())
        (self.directory / "root.der").write_bytes(self.authority.root_der)
        (self.directory / "collateral.json").write_text(json.dumps(self.authority.collateral()))
        (self.directory / "wallet.key").write_text(self.wallet.key.hex())
        fields: dict[str, Any] = {
            "rpc": [self.rpc.url],
            "deployment": "deployment.json",
            "journal": "worker.sqlite",
            "enclave": {"socket": str(self.enclave.socket)},
            "storage": {"read": [self.blobs.as_uri()], "write": self.blobs.as_uri()},
            "brokers": {"0x" + broker.digest.hex(): broker.url for broker in self.brokers},
            "wallet": {"keyFile": "wallet.key"},
            "payee": self.payee,
            "attestation": {"root": "root.der", "collateral": "collateral.json"},
            "poll": "0.02",
            "retryFirst": "0.1",
            "retryMost": "0.3",
            "drain": "5",
            **changes,
        }
        path = self.directory / "worker.yaml"
        path.write_text(yaml.safe_dump(fields))
        return WorkerConfig.read(path)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    async with anvil() as rpc:
        deployer, requester, wallet = [await funded(rpc) for _ in range(3)]
        authority = DevelopmentAuthority(int(time.time()))
        deployment = await deploy(Sender(rpc, deployer), authority.root_der)
        enclave = TinyEnclave(directory / "enclave.sock", authority)
        brokers = [TinyBroker() for _ in range(3)]
        BROKERS[:] = brokers
        await enclave.start()
        for broker in brokers:
            await broker.start()
        try:
            yield World(
                rpc=rpc,
                directory=directory,
                deployment=deployment,
                authority=authority,
                enclave=enclave,
                brokers=brokers,
                owner=SigningKey.generate(),
                requester=Sender(rpc, requester),
                wallet=wallet,
                payee=str(Account.create().address),
            )
        finally:
            for broker in brokers:
                await broker.stop()
            await enclave.stop()
