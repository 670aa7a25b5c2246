"""A valid receipt without network: two owners, three brokers (two needed), one software enclave, everything signed for real.

`make_story` does what all of them do for one task, in memory; `changes` bend one thing of it before it is signed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from enclave_app.attesters.platform import DevelopmentAuthority, Platform
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.bundle import Bundle, BundleFile, BundleHeader, InputColumn, InputTable, pack
from enclave_app.protocol.digests import commitment, sha256
from enclave_app.protocol.evidence import Evidence, report_data
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.manifest import Column, File, Manifest
from enclave_app.protocol.output import TaskSecret, seal_output
from enclave_app.protocol.params import IntegerParam, ParamDomain
from enclave_app.protocol.release import ReleaseAnswer, SignedShares, TaskRecord, recipients_digest
from enclave_app.protocol.shares import key_ids_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import (
    ANYONE,
    Access,
    Agreement,
    Broker,
    Chain,
    Dataset,
    Enclaves,
    Function,
    Host,
    KeyRelease,
    Limits,
    Out,
    Outcome,
    Output,
    OutputShares,
    Price,
    RegisteredIdentity,
    ReleaseStatement,
    Result,
    TaskRequest,
)
from oracle.agreement.enclave import identity_of
from oracle.attestation import Collateral, parse_evidence, verify
from oracle.receipt import Papers, make_receipt

Bend = Callable[[Any], Any]
NOBODY = "0x" + "77" * 20
SEALING = SealingKey.generate()
PLAINTEXT = b"MARKER-55aa, a plaintext that no receipt holds"
SEALED_ANSWER = b"SEALED-55aa, for the enclave alone"
CHAIN_ID = 31337


@dataclass(frozen=True)
class Keys:
    """Who signs what. The data keys stand for those that the brokers would release."""

    author: SigningKey
    owners: tuple[SigningKey, SigningKey]
    brokers: tuple[SigningKey, SigningKey, SigningKey]
    enclave: SigningKey
    operator: SigningKey
    data: tuple[bytes, ...]


@dataclass(frozen=True)
class Story:
    """A task from its agreement to its result: what a worker holds, and who signed it."""

    keys: Keys
    record: TaskRecord
    papers: Papers
    time: int

    @property
    def receipt(self) -> bytes:
        return make_receipt(self.record, self.papers)


@cache
def authority() -> DevelopmentAuthority:
    return DevelopmentAuthority(int(time.time()))


@cache
def platform() -> Platform:
    return authority().issue_platform()


def collateral(of: DevelopmentAuthority | None = None) -> Collateral:
    return Collateral.from_json(json.dumps((of or authority()).collateral()))


PROGRAM = SoftwareEnclave(mrenclave=bytes(range(32)), launch_config=b"a receipt's test")
COLUMNS = {"clinic": ("patient", "radius"), "pathology": ("patient", "diagnosis")}


def identity(evidence: Evidence, made: DevelopmentAuthority) -> RegisteredIdentity:
    """What the registry holds of the enclave that this evidence is of."""
    verified = verify(parse_evidence(1, evidence.quote), collateral(made), made.root_der, int(time.time()))
    return identity_of(evidence, PublicKey(evidence.sealing_key).digest, verified)


def _same(value: Any) -> Any:
    return value


def make_story(
    *,
    agreement: Bend = _same,
    request: Bend = _same,
    statement: Bend = _same,
    result: Bend = _same,
    evidence: Bend = _same,
    bundle: Bend = _same,
    outcome: Outcome = Outcome.SUCCEEDED,
    chain_id: int = CHAIN_ID,
    released_by: Sequence[int] = (0, 1),
    consents: Bend = _same,
    root_of: DevelopmentAuthority | None = None,
    anchors: Bend = _same,
    columns: Mapping[str, tuple[str, ...]] = COLUMNS,
    public: bytes | None = None,
) -> Story:
    """Each bend takes the valid thing, and gives what is used, and signed, in its place. With `public`, that is the output."""
    made = root_of or authority()
    keys = Keys(
        author=SigningKey.generate(),
        owners=(SigningKey.generate(), SigningKey.generate()),
        brokers=(SigningKey.generate(), SigningKey.generate(), SigningKey.generate()),
        enclave=SigningKey.generate(),
        operator=SigningKey.generate(),
        data=tuple(secrets.token_bytes(32) for _ in range(3)),
    )
    now = int(time.time())
    chain = Chain(chain_id=chain_id, agreement_registry="0x" + "11" * 20)
    manifests = tuple(_manifest(released) for released in columns.values())
    packed: Bundle = bundle(_bundle(columns))
    domain = packed.header.params
    anchor = sha256(made.root_der)
    agreed: Agreement = agreement(
        Agreement(
            oracle="0x" + "22" * 20,
            enclave_registry="0x" + "33" * 20,
            fn=Function(
                id=packed.id, sealed_id=ZERO32, shares_digest=ZERO32, owner=keys.author.address, kind=1,
                deterministic=True,
                limits=Limits(memory_mib=512, time_seconds=30, output_bytes=1 << 20, output_rows=1000),
            ),
            data=tuple(
                Dataset(
                    name=name, owner=owner.address, id_or_stream=manifest.id, lineage=manifest.lineage,
                    shares_digest=secrets.token_bytes(32), policy=1, min_version=0, columns=columns[name], budget=0,
                )
                for name, owner, manifest in zip(columns, keys.owners, manifests, strict=True)
            ),
            tee=Enclaves(
                measurements=(PROGRAM.measurement,), anchors=anchors((anchor,)),
                status_mask=1 << 1, eval_floor=17, grace_days=0, max_evidence_age=3600, any_host=False,
                operators=(keys.operator.address,), platforms=(),
            ),
            keys=KeyRelease(
                brokers=tuple(Broker(hpke_key=_broker_key(i), signer=b.address) for i, b in enumerate(keys.brokers)),
                threshold=2, max_releases=3, confirmation=1 if public is None else 3, confirm_blocks=0, release_delay=0,
            ),
            param_domain=domain.id,
            outputs=(
                Output(
                    name="summary", kind=1, recipients=(ZERO32, b"\x42" * 32), owners=(keys.owners[0].address,),
                    size_class=4096,
                )
                if public is None
                else Output(name="summary", kind=2, recipients=(), owners=(keys.owners[0].address,), size_class=1),
            ),
            access=Access(requesters=ANYONE, quota=100, quota_per_requester=10),
            price=Price(token=ZERO_ADDRESS, fee=10**15, min_fee=0, failed_fee=0, to=(NOBODY,), bps=(5000,)),
            not_before=now - 3600, not_after=now + 86_400, activate_before=now + 86_400,
            supersedes=ZERO32, auditors=ZERO32, salt=secrets.token_bytes(32),
        )
    )  # fmt: skip
    agreement_id = chain.agreement_id(agreed)
    asked: TaskRequest = request(
        TaskRequest(
            agreement_id=agreement_id, requester=NOBODY, nonce=secrets.token_bytes(32),
            versions=tuple(term.id_or_stream for term in agreed.data), inputs_id=ZERO32, input_shares=ZERO32,
            params=b'{"least":12}', result_key=secrets.token_bytes(32), spend=0, max_fee=10**15, as_of=now,
            deadline=now + 3600, callback=ZERO_ADDRESS, callback_gas=0,
        )
    )  # fmt: skip
    oracle = chain.oracle_domain(agreed)
    task_id = asked.typed_digest(oracle)
    proof: Evidence = evidence(_evidence(chain, agreed, keys, made))
    released = [
        (position, key)
        for position, (names, manifest) in enumerate(zip(columns.values(), manifests, strict=True))
        for key in manifest.key_indexes(names)
    ]
    nonce, secret = secrets.token_bytes(32), TaskSecret(keys.data, agreement_id, task_id)
    answers = []
    for index in released_by:
        said: ReleaseStatement = statement(
            ReleaseStatement(
                agreement_id=agreement_id, task_id=task_id, signer=proof.signer, nonce=nonce,
                broker=_broker_key(index), keys=key_ids_digest(released), answer=secrets.token_bytes(32),
                collateral=collateral(made).digest, time=now + index, block_number=7, block_hash=b"\x07" * 32,
            )
        )  # fmt: skip
        signature = keys.brokers[index].sign(said.typed_digest(oracle))
        answers.append(ReleaseAnswer(statement=said, signature=signature, sealed=SEALED_ANSWER))
    sealed = seal_output(secret, "summary", PLAINTEXT, 4096, 2)
    succeeded = outcome == Outcome.SUCCEEDED
    out = Out(
        name="summary", kind=1 if public is None else 2,
        recipients_digest=recipients_digest(agreed.outputs[0].recipients, asked.result_key),
        length=sealed.length if public is None else len(public),
        digest=sealed.manifest.id if public is None else sha256(public),
    )  # fmt: skip
    signed: Result = result(
        Result(
            agreement_id=agreement_id, task_id=task_id, outcome=outcome, outputs=(out,) if succeeded else (),
            payee=keys.operator.address, anchor=anchor,
        )
    )  # fmt: skip
    word = OutputShares(agreement_id=agreement_id, task_id=task_id, output_id=sealed.manifest.id, shares=ZERO32)
    output = SignedShares(
        output=0, manifest=sealed.manifest.canonical(), share_list=b"", shares=word, signature=b""
    )  # fmt: skip
    signers = {k.address: k for k in (keys.author, *keys.owners)}
    record = TaskRecord(
        chain=chain, agreement=agreed, request=asked, result=signed,
        signature=keys.enclave.sign(signed.typed_digest(oracle)), signer=proof.signer,
        outputs=(output,) if succeeded and public is None else (), releases=tuple(answers), evidence=proof,
        consents=consents(tuple(signers[party].sign(agreement_id) for party in agreed.parties() if party in signers)),
        enclave=identity(proof, made),
        public_outputs=(public,) if succeeded and public is not None else (),
    )  # fmt: skip
    papers = Papers(
        function=packed.raw, param_domain=domain.canonical(), manifests=tuple(m.canonical() for m in manifests),
        collateral=collateral(made), root=made.root_der,
    )  # fmt: skip
    return Story(keys, record, papers, now)


def _broker_key(index: int) -> bytes:
    return bytes([0xB0 + index]) * 32


def _manifest(columns: tuple[str, ...]) -> Manifest:
    return Manifest(
        encryption="parquet-aes-gcm-v1",
        lineage=secrets.token_bytes(32),
        files=(File(sha256=secrets.token_bytes(32), size=1000, rows=10),),
        columns=tuple(Column(name=c, type="double", key=i) for i, c in enumerate((*columns, "unreleased"), start=1)),
        keys=tuple(commitment(secrets.token_bytes(32)) for _ in range(len(columns) + 2)),
    )


def _bundle(columns: Mapping[str, tuple[str, ...]]) -> Bundle:
    header = BundleHeader(
        kind="sql", name="by-diagnosis", description="", entry="query.sql", deterministic=True,
        params=ParamDomain(params=(IntegerParam(type="integer", name="least", min=0, max=40),)),
        tables=tuple(
            InputTable(name=name, columns=tuple(InputColumn(name=c, type="double") for c in names))
            for name, names in columns.items()
        ),
        outputs=("summary",), salt=secrets.token_bytes(32),
        files=(BundleFile(path="query.sql", size=0, sha256=ZERO32),),
    )  # fmt: skip
    return pack(header, {"query.sql": b"SELECT 1"})


def _evidence(chain: Chain, agreement: Agreement, keys: Keys, made: DevelopmentAuthority) -> Evidence:
    block = b"\x05" * 32
    bound = report_data(chain.chain_id, agreement.enclave_registry, keys.enclave.address, SEALING.public.digest, block)
    host = Host(signer=keys.enclave.address).typed_digest(chain.enclave_domain(agreement))
    on = platform() if made is authority() else made.issue_platform()
    return Evidence(
        tee=1, quote=asyncio.run(SoftwareAttester(on, PROGRAM).quote(bound)), signer=keys.enclave.address,
        sealing_key=SEALING.public.wire, chain_id=chain.chain_id, registry=agreement.enclave_registry,
        block_number=5, block_hash=block, operator=keys.operator.address,
        operator_signature=keys.operator.sign(host),
    )  # fmt: skip
