"""From plaintext outputs to sealed ones, or public ones, and a signed result (R16, R17, R20)."""

from __future__ import annotations

from collections.abc import Sequence

from enclave_app.agreed import Materials
from enclave_app.identity import EnclaveIdentity
from enclave_app.protocol.output import MadeOutput, PublicOutput, SealedOutput, TaskSecret, seal_output
from enclave_app.protocol.release import SignedShares, recipients_digest
from enclave_app.protocol.shares import OutputBinding, make_share_list
from enclave_app.protocol.structs import Out, Outcome, OutputShares, Result
from enclave_app.protocol.wire import INLINE, TaskBody, TaskDone
from enclave_app.release import Released


def seal_all(body: TaskBody, task_id: bytes, released: Released, plaintexts: Sequence[bytes]) -> list[MadeOutput]:
    """Each output sealed under a key that all released keys, the task and the plaintext derive (R16); public ones as they are."""
    secret = TaskSecret([released.keys[k] for k in sorted(released.keys)], body.request.agreement_id, task_id)
    return [
        PublicOutput(plaintext)
        if term.is_public
        else seal_output(secret, term.name, plaintext, term.size_class, body.agreement.keys.threshold)
        for term, plaintext in zip(body.agreement.outputs, plaintexts, strict=True)
    ]


def sign_result(
    body: TaskBody,
    task_id: bytes,
    materials: Materials,
    released: Released,
    made: Sequence[MadeOutput] | None,
    identity: EnclaveIdentity,
    enclave_ms: int,
) -> TaskDone:
    """The signed result over what was `made`, or a signed failure, which has no outputs, where that is None (R19)."""
    domain = body.chain.oracle_domain(body.agreement)
    result = Result(
        agreement_id=body.request.agreement_id,
        task_id=task_id,
        outcome=Outcome.FAILED if made is None else Outcome.SUCCEEDED,
        outputs=tuple(
            Out(
                name=term.name,
                kind=term.kind,
                recipients_digest=recipients_digest(term.recipients, body.request.result_key),
                length=output.length,
                digest=output.digest,
            )
            for term, output in zip(body.agreement.outputs, made or (), strict=made is not None)
        ),
        payee=body.payee,
        anchor=body.anchor,
    )
    return TaskDone(
        result=result,
        signature=identity.signer.sign(result.typed_digest(domain)),
        outputs=tuple(
            _share(body, task_id, materials, index, output, identity)
            for index, output in enumerate(made or ())
            if isinstance(output, SealedOutput)
        ),
        public_outputs=tuple(output.content for output in made or () if isinstance(output, PublicOutput)),
        files=tuple(
            bytes(output.ciphertext)
            for output in made or ()
            if isinstance(output, SealedOutput) and len(output.ciphertext) <= INLINE
        ),
        blamed=released.blamed,
        used=released.used,
        enclave_ms=enclave_ms,
    )


def _share(
    body: TaskBody, task_id: bytes, materials: Materials, index: int, output: SealedOutput, identity: EnclaveIdentity
) -> SignedShares:
    """The output's key, split with derived coefficients, sealed to the agreed brokers, outside of the result (R17)."""
    output_id = output.manifest.id
    binding = OutputBinding(
        chain_id=body.chain.chain_id,
        oracle=body.agreement.oracle,
        agreement_id=body.request.agreement_id,
        task_id=task_id,
        output=output_id,
    )
    shares = make_share_list(
        output_id,
        [output.key],
        body.agreement.keys.threshold,
        materials.brokers,
        binding,
        lambda _: output.coefficients,
    )
    statement = OutputShares(
        agreement_id=body.request.agreement_id, task_id=task_id, output_id=output_id, shares=shares.id
    )
    return SignedShares(
        output=index,
        manifest=output.manifest.canonical(),
        share_list=shares.canonical(),
        shares=statement,
        signature=identity.signer.sign(statement.typed_digest(body.chain.oracle_domain(body.agreement))),
    )
