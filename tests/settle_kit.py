"""What tests of settlements by a worker share: a registered enclave on the world of worker_kit, and results that it signed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from enclave_app.batches import Finished, sign_batch
from enclave_app.identity import EnclaveIdentity
from enclave_app.protocol.abi_output import encode_row
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.release import TaskRecord, recipients_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Agreement, Out, Result, TaskRequest
from enclave_app.protocol.wire import BatchAnswer, TaskBody, TaskDone
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.worker.collateral import open_appraisal
from oracle.worker.enclave import Enclave
from oracle.worker.register import Enrolled, Registrar, register_enclave
from oracle.worker.registrars import make_registrar
from oracle.worker.settle import Settler
from tests.worker_kit import World

CONTENT = encode_row(["int64", "bool"], [712, True])
"""A public output."""


def registrar(place: World, sender: Sender) -> Registrar:
    appraisal = open_appraisal(place.config().attestation, place.deployment.chain_id)
    made = make_registrar(appraisal, place.deployment, sender, SingleSource(place.rpc))
    assert made is not None
    return made


async def register(place: World, operator: SigningKey | None = None) -> Enrolled:
    sender = Sender(place.rpc, place.wallet)
    async with Enclave(place.enclave.socket) as enclave:
        source, made = SingleSource(place.rpc), registrar(place, sender)
        return await register_enclave(enclave, sender, source, place.deployment, made, operator)


def record(place: World, agreement: Agreement, task_id: bytes, request: TaskRequest, **changes: Any) -> TaskRecord:
    """A signed success, as an enclave would give it; `changes` are of the result, before it is signed. A public output is
    CONTENT."""
    term = agreement.outputs[0]
    fields: dict[str, Any] = {
        "agreement_id": request.agreement_id,
        "task_id": task_id,
        "outcome": 1,
        "outputs": (
            Out(
                name=term.name,
                kind=term.kind,
                recipients_digest=recipients_digest(term.recipients, request.result_key),
                length=len(CONTENT) if term.is_public else 4096,
                digest=sha256(CONTENT if term.is_public else task_id),
            ),
        ),
        "payee": place.payee,
        "anchor": sha256(place.authority.root_der),
    }
    result = Result(**{**fields, **changes})
    signing = place.enclave.signing
    return TaskRecord(
        chain=place.chain,
        agreement=agreement,
        request=request,
        result=result,
        signature=signing.sign(result.typed_digest(place.chain.oracle_domain(agreement))),
        signer=signing.address,
        outputs=(),
        releases=(),
        evidence=Evidence(
            tee=1,
            quote=b"",
            signer=signing.address,
            sealing_key=b"",
            chain_id=place.deployment.chain_id,
            registry=place.deployment.enclave_registry,
            block_number=0,
            block_hash=ZERO32,
            operator=ZERO_ADDRESS,
            operator_signature=b"",
        ),
        consents=(),
        enclave=place.enclave.registered,
        public_outputs=(CONTENT,) if term.is_public and result.outputs else (),
    )


def batch_of(place: World, records: Sequence[TaskRecord], signer: SigningKey | None = None) -> BatchAnswer:
    """What the enclave that made these results signs for them."""
    finished = [
        Finished(
            TaskBody(
                chain=each.chain,
                agreement=each.agreement,
                request=each.request,
                payee=each.result.payee,
                anchor=each.result.anchor,
                storage=("file:///nowhere",),
            ),
            TaskDone(
                result=each.result,
                signature=each.signature,
                outputs=(),
                blamed=(),
                used=(),
                enclave_ms=0,
                public_outputs=each.public_outputs,
            ),
        )
        for each in records
    ]
    key = SimpleNamespace(signer=signer or place.enclave.signing)
    return sign_batch(finished, cast(EnclaveIdentity, key))


def settler(place: World, **options: Any) -> Settler:
    return Settler(Sender(place.rpc, place.wallet), place.deployment.oracle, **options)
