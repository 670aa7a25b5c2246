"""What the chain says about one release or one output, all of it at one confirmed block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.fields import ZERO_ADDRESS
from oracle.agreement.terms import Terms
from oracle.attestation import Verified
from oracle.chain.reader import (
    AgreementReader,
    AgreementRecord,
    Consent,
    EnclaveReader,
    EnclaveRecord,
    OracleReader,
    TaskOnChain,
    host_id,
)
from oracle.chain.source import Block
from oracle.keybroker.batch import OneBatch
from oracle.keybroker.chains import ChainAccess

T = TypeVar("T")


@dataclass(frozen=True)
class ReleaseView:
    """`consents` are as recorded at activation, by party; `dropped` whether measurement, platform or operator was dropped."""

    block: Block
    agreement: AgreementRecord
    consents: dict[str, Consent]
    dropped: bool
    enclave: EnclaveRecord | None
    task: TaskOnChain
    evidence_block: Block | None


@dataclass(frozen=True)
class OutputView:
    """`enclaves` are the registrations of one signer, anchor by anchor of the agreement, where there is one."""

    block: Block
    agreement: AgreementRecord
    task: TaskOnChain
    enclaves: tuple[EnclaveRecord, ...]


async def read_release(
    access: ChainAccess, terms: Terms, anchor: bytes, evidence: Evidence, verified: Verified, ask: Sequence[str]
) -> ReleaseView:
    """`ask` are the parties whose consent the chain has to vouch for."""
    agreement = terms.agreement
    async with _begun(access.source.block(evidence.block_number)) as found:
        block = await access.confirmed(agreement.keys)
        evidence_block = await found
    batch = OneBatch(access.source, block)
    registry = AgreementReader(batch, terms.chain.agreement_registry)
    hosts = [] if evidence.operator == ZERO_ADDRESS else [host_id(evidence.operator)]
    record, consents, dropped, enclave, task = await asyncio.gather(
        registry.record(terms.agreement_id, block),
        registry.consents(terms.agreement_id, ask, block),
        registry.dropped(terms.agreement_id, [verified.measurement, verified.platform, *hosts], block),
        EnclaveReader(batch, agreement.enclave_registry).record(anchor, evidence.signer, block),
        OracleReader(batch, agreement.oracle).task(terms.agreement_id, terms.task_id, block),
    )
    return ReleaseView(
        block, record, dict(zip(ask, consents, strict=True)), any(dropped), enclave, task, evidence_block
    )


@asynccontextmanager
async def _begun(reading: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """A read that runs beside another, and is not left running when that one fails."""
    task = asyncio.create_task(reading)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def read_output(access: ChainAccess, terms: Terms, signer: str) -> OutputView:
    agreement = terms.agreement
    block = await access.confirmed(agreement.keys)
    batch = OneBatch(access.source, block)
    reader = EnclaveReader(batch, agreement.enclave_registry)
    record, task, enclaves = await asyncio.gather(
        AgreementReader(batch, terms.chain.agreement_registry).record(terms.agreement_id, block),
        OracleReader(batch, agreement.oracle).task(terms.agreement_id, terms.task_id, block),
        asyncio.gather(*(reader.record(anchor, signer, block) for anchor in agreement.tee.anchors)),
    )
    return OutputView(block, record, task, tuple(e for e in enclaves if e is not None))
