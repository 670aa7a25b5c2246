"""What the enclave's tests share: a whole agreement with real keys, tables, shares and brokers, and a running enclave.

No chain: brokers here answer whatever the enclave asks with a valid signature, as `answer` says, so that a test can make
one of them fail in one way."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket as socket_module
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pyarrow as pa

from enclave_app.attesters.platform import make_platforms
from enclave_app.config import EnclaveConfig
from enclave_app.measure import measure
from enclave_app.protocol import pme, signing
from enclave_app.protocol.bundle import Bundle, BundleHeader, InputColumn, InputTable, pack
from enclave_app.protocol.canonical import Document, dump, parse
from enclave_app.protocol.digests import commitment, sha256
from enclave_app.protocol.errors import OracleError
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.manifest import Column, File, Manifest, read_manifest
from enclave_app.protocol.output import open_output
from enclave_app.protocol.params import Param, ParamDomain
from enclave_app.protocol.release import ErrorBody, ReleaseAnswer, SignedRelease, answer_info, pack_answer
from enclave_app.protocol.shares import (
    DatasetBinding,
    OutputBinding,
    ShareList,
    key_ids_digest,
    make_share_list,
    open_shares,
    random_coefficients,
    read_share_list,
    recover_key,
)
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.storage import blob_name
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Broker,
    Chain,
    Confirmation,
    Dataset,
    DatasetPolicy,
    Enclaves,
    Function,
    FunctionKind,
    KeyRelease,
    Limits,
    Output,
    OutputKind,
    Price,
    ReleaseRequest,
    ReleaseStatement,
    TaskRequest,
    TcbStatus,
)
from enclave_app.protocol.wire import Identity, RunBody, TaskBody, TaskDone, TaskStarted

D = TypeVar("D", bound=Document)
ROOT = Path(__file__).resolve().parents[1]
ANCHOR = sha256(b"an anchor of these tests")
CHAIN = Chain(chain_id=31337, agreement_registry="0x" + "a1" * 20)
ORACLE, REGISTRY, OWNER, PAYEE = ("0x" + byte * 20 for byte in ("b2", "c3", "d4", "e5"))
THRESHOLD = 2
MARKER = "MARKER-7f3a91"
"""A value in the data that no file, log or error may ever hold."""

SQL = """
SELECT a.grp, count(*) AS n, sum(a.x * b.y) AS total
FROM a JOIN b USING (id) WHERE a.x >= $least GROUP BY a.grp ORDER BY total DESC
"""


@dataclass
class Sealed:
    """A dataset as its owner sealed and shared it."""

    name: str
    table: pa.Table
    keys: list[bytes]
    manifest: Manifest
    shares: ShareList


@dataclass
class TestBroker:
    """A key broker that answers anything."""

    __test__ = False
    sealing: SealingKey = field(default_factory=SealingKey.generate)
    signer: SigningKey = field(default_factory=SigningKey.generate)


@dataclass
class World:
    """An agreement over tables `a` and `b`, all it names in `storage`, and its brokers."""

    storage: Path
    brokers: list[TestBroker]
    datasets: list[Sealed]
    bundle: Bundle
    domain: ParamDomain
    agreement: Agreement
    recipient: SealingKey

    def put(self, data: bytes) -> bytes:
        digest = sha256(data)
        (self.storage / blob_name(digest)).write_bytes(data)
        return digest

    def path(self, digest: bytes) -> Path:
        return self.storage / blob_name(digest)

    def body(self, agreement: Agreement | None = None, **request: Any) -> TaskBody:
        agreement = agreement or self.agreement
        values: dict[str, Any] = {
            "agreement_id": CHAIN.agreement_id(agreement),
            "requester": OWNER,
            "nonce": secrets.token_bytes(32),
            "versions": tuple(d.id_or_stream for d in agreement.data),
            "inputs_id": ZERO32,
            "input_shares": ZERO32,
            "params": dump({"least": 1}),
            "result_key": self.recipient.public.digest,
            "spend": 0,
            "max_fee": 0,
            "as_of": 1_700_000_000,
            "deadline": 1_700_003_600,
            "callback": ZERO_ADDRESS,
            "callback_gas": 0,
        }
        return TaskBody(
            chain=CHAIN,
            agreement=agreement,
            request=TaskRequest(**{**values, **request}),
            payee=PAYEE,
            anchor=ANCHOR,
            storage=(self.storage.as_uri(),),
        )

    def changed(self, **changes: Any) -> Agreement:
        """The agreement with top-level fields replaced."""
        return self.agreement.model_copy(update=changes)

    def shares_of(self, body: TaskBody, position: int) -> dict[tuple[int, int], bytes]:
        """One broker's shares of all the keys that the agreement releases."""
        broker, found = self.brokers[position], {}
        for index, (term, dataset) in enumerate(zip(body.agreement.data, self.datasets, strict=True)):
            binding = DatasetBinding(
                chain_id=CHAIN.chain_id,
                registry=CHAIN.agreement_registry,
                owner=term.owner,
                dataset=dataset.manifest.id,
            )
            _, shares = open_shares(dataset.shares, broker.sealing, binding)
            found.update({(index, key): shares[key] for key in dataset.manifest.key_indexes(term.columns)})
        return found

    def answer(
        self,
        body: TaskBody,
        release: SignedRelease,
        identity: Identity,
        position: int,
        *,
        change: Callable[[dict[tuple[int, int], bytes]], None] | None = None,
        x: int | None = None,
        to: PublicKey | None = None,
        bound: ReleaseRequest | None = None,
        signed_by: SigningKey | None = None,
        **said: Any,
    ) -> ReleaseAnswer:
        """What broker `position` answers to `release`, its shares changed as `change` does.

        A lying one says another `x`, seals `to` another key or `bound` to another request, is `signed_by` another, or has
        `said` something else in a field of its statement.
        """
        broker, request = self.brokers[position], release.request
        signing.check(
            request.typed_digest(CHAIN.oracle_domain(body.agreement)), release.signature, identity.signer, "a request"
        )
        key = PublicKey(identity.sealing_key)
        assert key.digest == request.sealing_key
        assert request.broker == broker.sealing.public.digest
        shares = self.shares_of(body, position)
        if change is not None:
            change(shares)
        info = answer_info(CHAIN, body.agreement, bound or request, body.request.versions, identity.signer)
        sealed = (to or key).seal(pack_answer(x or position + 1, shares), info)
        statement = ReleaseStatement(
            **{
                "agreement_id": request.agreement_id,
                "task_id": request.task_id,
                "signer": identity.signer,
                "nonce": request.nonce,
                "broker": request.broker,
                "keys": key_ids_digest(sorted(shares)),
                "answer": sha256(sealed),
                "collateral": ZERO32,
                "time": 1,
                "block_number": 1,
                "block_hash": ZERO32,
                **said,
            }
        )
        signature = (signed_by or broker.signer).sign(statement.typed_digest(CHAIN.oracle_domain(body.agreement)))
        return ReleaseAnswer(statement=statement, signature=signature, sealed=sealed)

    def answers(
        self, body: TaskBody, started: TaskStarted, identity: Identity, positions: Sequence[int] = (0, 1, 2)
    ) -> list[ReleaseAnswer]:
        return [self.answer(body, started.releases[i], identity, i) for i in positions]

    def open(self, body: TaskBody, done: TaskDone, ciphertext: bytes, output: int = 0) -> pa.Table:
        """What the recipient reads, once `t` brokers have given it their shares of the output's key."""
        signed, out = done.outputs[output], done.result.outputs[output]
        manifest = read_manifest(signed.manifest, out.digest)
        shares = read_share_list(signed.share_list, manifest.id, signed.shares.shares)
        binding = OutputBinding(
            chain_id=CHAIN.chain_id,
            oracle=body.agreement.oracle,
            agreement_id=body.request.agreement_id,
            task_id=done.result.task_id,
            output=manifest.id,
        )
        opened = dict(open_shares(shares, broker.sealing, binding) for broker in self.brokers[:THRESHOLD])
        key = recover_key({x: s[0] for x, s in opened.items()}, THRESHOLD, manifest.keys[0])
        plain = open_output(manifest, ciphertext, key, body.request.agreement_id, done.result.task_id, out.name)
        return pa.ipc.open_stream(plain).read_all()


def tables() -> dict[str, pa.Table]:
    count = 200
    return {
        "a": pa.table(
            {
                "id": list(range(count)),
                "x": [i * 0.5 for i in range(count)],
                "grp": [("red", "green", "blue")[i % 3] for i in range(count)],
                "secret": [f"{MARKER}-{i}" for i in range(count)],
            }
        ),
        "b": pa.table({"id": list(range(0, count, 2)), "y": [1.0 / (i + 1) for i in range(0, count, 2)]}),
    }


def seal(name: str, table: pa.Table, brokers: Sequence[TestBroker], put: Callable[[bytes], bytes]) -> Sealed:
    columns = tuple(Column(name=f.name, type=str(f.type), key=i) for i, f in enumerate(table.schema, 1))
    keys = [secrets.token_bytes(32) for _ in range(len(columns) + 1)]
    half = table.num_rows // 2
    parts = [table.slice(0, half), table.slice(half)]
    files = [pme.encrypt_table(part, keys, columns) for part in parts]
    manifest = Manifest(
        encryption="parquet-aes-gcm-v1",
        lineage=sha256(name.encode()),
        files=tuple(
            File(sha256=put(data), size=len(data), rows=part.num_rows) for data, part in zip(files, parts, strict=True)
        ),
        columns=columns,
        keys=tuple(commitment(key) for key in keys),
    )
    return share(name, table, keys, manifest, brokers, put)


def share(
    name: str,
    table: pa.Table,
    keys: list[bytes],
    manifest: Manifest,
    brokers: Sequence[TestBroker],
    put: Callable[[bytes], bytes],
) -> Sealed:
    put(manifest.canonical())
    binding = DatasetBinding(
        chain_id=CHAIN.chain_id, registry=CHAIN.agreement_registry, owner=OWNER, dataset=manifest.id
    )
    publics = [broker.sealing.public for broker in brokers]
    shares = make_share_list(manifest.id, keys, THRESHOLD, publics, binding, random_coefficients(THRESHOLD))
    put(shares.canonical())
    return Sealed(name, table, keys, manifest, shares)


def make_bundle(sql: str, inputs: Sequence[tuple[str, pa.Schema]], params: Sequence[Param], **header: Any) -> Bundle:
    values: dict[str, Any] = {
        "kind": "sql",
        "name": "a function",
        "description": "",
        "entry": "query.sql",
        "deterministic": True,
        "tables": tuple(
            InputTable(name=name, columns=tuple(InputColumn(name=f.name, type=str(f.type)) for f in schema))
            for name, schema in inputs
        ),
        "params": ParamDomain(params=tuple(params)),
        "outputs": ("result",),
        "files": ({"path": "query.sql", "size": 0, "sha256": ZERO32},),
        "salt": secrets.token_bytes(32),
    }
    return pack(BundleHeader.model_validate({**values, **header}), {"query.sql": sql.encode()})


def make_world(
    storage: Path, measurement: bytes, *, sql: str = SQL, limits: dict[str, int] | None = None, size_class: int = 4096
) -> World:
    from enclave_app.protocol.params import IntegerParam

    storage.mkdir(parents=True, exist_ok=True)
    brokers = [TestBroker() for _ in range(3)]

    def put(data: bytes) -> bytes:
        (storage / blob_name(sha256(data))).write_bytes(data)
        return sha256(data)

    datasets = [seal(name, table, brokers, put) for name, table in tables().items()]
    for broker in brokers:
        put(broker.sealing.public.wire)
    released = {"a": ("id", "x", "grp"), "b": ("id", "y")}
    inputs = [(d.name, pa.schema([d.table.schema.field(c) for c in released[d.name]])) for d in datasets]
    # A domain of its own: an enclave remembers, by digest, the documents that it has checked.
    least = -secrets.randbelow(1 << 40)
    bundle = make_bundle(sql, inputs, [IntegerParam(type="integer", name="least", min=least, max=100)])
    put(bundle.raw)
    domain = bundle.header.params
    put(domain.canonical())
    agreement = Agreement(
        oracle=ORACLE,
        enclave_registry=REGISTRY,
        fn=Function(
            id=bundle.id,
            sealed_id=ZERO32,
            shares_digest=ZERO32,
            owner=OWNER,
            kind=FunctionKind.SQL,
            deterministic=True,
            limits=Limits(
                **{
                    "memory_mib": 256,
                    "time_seconds": 20,
                    "output_bytes": 1 << 20,
                    "output_rows": 10_000,
                    **(limits or {}),
                }
            ),
        ),
        data=tuple(
            Dataset(
                name=d.name,
                owner=OWNER,
                id_or_stream=d.manifest.id,
                lineage=d.manifest.lineage,
                shares_digest=d.shares.id,
                policy=DatasetPolicy.FIXED,
                min_version=0,
                columns=released[d.name],
                budget=0,
            )
            for d in datasets
        ),
        tee=Enclaves(
            measurements=(measurement,),
            anchors=(ANCHOR,),
            status_mask=1 << TcbStatus.UP_TO_DATE,
            eval_floor=1,
            grace_days=0,
            max_evidence_age=86_400,
            any_host=True,
            operators=(),
            platforms=(),
        ),
        keys=KeyRelease(
            brokers=tuple(Broker(hpke_key=b.sealing.public.digest, signer=b.signer.address) for b in brokers),
            threshold=THRESHOLD,
            max_releases=3,
            confirmation=Confirmation.LATEST,
            confirm_blocks=0,
            release_delay=0,
        ),
        param_domain=domain.id,
        outputs=(
            Output(
                name="result", kind=OutputKind.ARROW_TABLE, recipients=(ZERO32,), owners=(OWNER,), size_class=size_class
            ),
        ),
        access=Access(requesters=ANYONE, quota=10, quota_per_requester=10),
        price=Price(token=ZERO_ADDRESS, fee=0, min_fee=0, failed_fee=0, to=(), bps=()),
        not_before=1,
        not_after=2_000_000_000,
        activate_before=2_000_000_000,
        supersedes=ZERO32,
        auditors=ZERO32,
        salt=secrets.token_bytes(32),
    )
    return World(storage, brokers, datasets, bundle, domain, agreement, SealingKey.generate())


class NotStarted(Exception):
    """An enclave's process that ended before it served; `code` is why, as its log says."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self.code: str = json.loads(log.splitlines()[-1])["code"]


class Refusal(Exception):
    """What the enclave answered with a status of 400 or above."""

    def __init__(self, status: int, body: ErrorBody) -> None:
        super().__init__(f"{status} {body.code}: {body.message}")
        self.status, self.code, self.body = status, body.code, body


@dataclass
class RunningEnclave:
    """A client of one enclave process."""

    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process
    log: Path
    socket: Path
    _identity: Identity | None = None

    async def call(self, method: str, path: str, body: Document | bytes | None = None) -> bytes:
        data = body.canonical() if isinstance(body, Document) else body
        async with self.session.request(method, f"http://enclave{path}", data=data) as response:
            answer = await response.read()
        if response.status >= 400:
            raise Refusal(response.status, parse(ErrorBody, answer))
        return answer

    async def ask(self, method: str, path: str, model: type[D], body: Document | None = None) -> D:
        return parse(model, await self.call(method, path, body))

    async def identity(self) -> Identity:
        if self._identity is None:
            self._identity = await self.ask("GET", "/v1/identity", Identity)
        return self._identity

    async def start(self, body: TaskBody) -> TaskStarted:
        return await self.ask("POST", "/v1/tasks", TaskStarted, body)

    async def run(self, task: bytes, answers: Sequence[ReleaseAnswer]) -> TaskDone:
        return await self.ask("POST", f"/v1/tasks/0x{task.hex()}/run", TaskDone, RunBody(answers=tuple(answers)))

    async def file(self, done: TaskDone, output: int = 0) -> bytes:
        manifest = read_manifest(done.outputs[output].manifest, done.result.outputs[output].digest)
        return await self.call("GET", f"/v1/tasks/{done.result.task_id.hex()}/files/{manifest.files[0].sha256.hex()}")

    async def whole(self, world: World, body: TaskBody) -> TaskDone:
        started = await self.start(body)
        return await self.run(started.task_id, world.answers(body, started, await self.identity()))

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def footprint(self) -> object:
        """What its tasks have left with the host: the results it signed, and whether its log holds a value of the data."""
        return [event for event in self.logged() if event["event"] == "task.done"], MARKER in self.log.read_text()


def enclave_config(**changes: Any) -> bytes:
    return EnclaveConfig(**{"attester": "software", **changes}).canonical()


def prepare(directory: Path, config: bytes) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "enclave.json").write_bytes(config)
    if not (directory / "platform").exists():
        make_platforms(directory / "platform", now=1_700_000_000, days=3650)


def _listens(path: Path) -> bool:
    """The socket is there a moment before anybody listens on it."""
    with socket_module.socket(socket_module.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@asynccontextmanager
async def enclave(
    directory: Path,
    *,
    config: bytes | None = None,
    root: Path = ROOT,
    program: Sequence[str] = ("-m", "enclave_app"),
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[RunningEnclave]:
    """An enclave process of its own, under a development platform of its own; the package is the one below `root`.

    `environment` is all that the process gets, or left out, what this one has. Raises NotStarted where it refuses to start."""
    raw = config or enclave_config()
    prepare(directory, raw)
    log = directory / "enclave.log"
    # A Unix socket's path has at most 107 bytes, and pytest's directories are deep.
    socket = Path(f"/tmp/enclave-{secrets.token_hex(8)}.sock")  # noqa: S108
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "--config", str(directory / "enclave.json")),
            *("--socket", str(socket), "--platform", str(directory / "platform"), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=root,
            env=environment,
        )
    try:
        for _ in range(600):
            if process.returncode is not None or _listens(socket):
                break
            await asyncio.sleep(0.05)
        if not _listens(socket):
            raise NotStarted(log.read_text())
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket)), timeout=timeout) as session:
            yield RunningEnclave(session, process, log, socket)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        socket.unlink(missing_ok=True)  # noqa: ASYNC240


@lru_cache
def measured(config: bytes | None = None) -> bytes:
    return measure(config or enclave_config())


def code_of(error: BaseException) -> str:
    assert isinstance(error, OracleError | Refusal)
    return error.code
