"""One signature over many results (R20): what the contract settles in one transaction for a fraction of the price.

A batch says nothing that the single results do not say, so a host that asks twice, or in another order, gains nothing. What
the contract cannot see of a result, it takes from here: that it succeeded, that nothing of it is public, and whom it pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enclave_app.identity import EnclaveIdentity
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.structs import Batch, Outcome
from enclave_app.protocol.wire import BatchAnswer, TaskBody, TaskDone


@dataclass(frozen=True)
class Finished:
    """A task that ran here: what it was started with, and what was signed."""

    body: TaskBody
    done: TaskDone


def sign_batch(finished: Sequence[Finished], identity: EnclaveIdentity) -> BatchAnswer:
    """A Batch of the results in this order, and its signature. Raises Refused `batch.…` for what a batch cannot hold."""
    first = finished[0]
    # Of one agreement, hence of one chain, registry and oracle: its id is a digest over all three.
    domain = first.body.chain.oracle_domain(first.body.agreement)
    for each in finished:
        result = each.done.result
        task = result.task_id.hex()
        for name, expected in (
            ("agreement_id", first.done.result.agreement_id),
            ("payee", first.done.result.payee),
            ("anchor", first.done.result.anchor),
        ):
            if getattr(result, name) != expected:
                raise Refused(f"batch.{name}", f"the tasks of a batch have one {name.replace('_', ' ')}", found=task)
        if result.outcome != Outcome.SUCCEEDED:
            # Somebody has to be paid back, which takes the request.
            raise Refused("batch.failed", "a task that failed is settled by itself", found=task)
        if each.done.public_outputs:
            # R17: the contract would never see what it is to publish.
            raise Refused("batch.public", "a task with a public output is settled by itself", found=task)
        if each.body.request.callback != ZERO_ADDRESS:
            raise Refused("batch.callback", "a task that calls back is settled by itself", found=task)
    batch = Batch(
        agreement_id=first.done.result.agreement_id,
        payee=first.done.result.payee,
        anchor=first.done.result.anchor,
        tasks=tuple(each.done.result.task_id for each in finished),
        results=tuple(each.done.result.typed_digest(domain) for each in finished),
    )
    return BatchAnswer(batch=batch, signature=identity.signer.sign(batch.typed_digest(domain)))
