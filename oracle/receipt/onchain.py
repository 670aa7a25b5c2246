"""What only the chain can say about a receipt: that it recorded the agreement, the enclave and exactly this result.

Read at a block that the agreement calls confirmed, then checked link by link, as the offline part is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from enclave_app.protocol.structs import Confirmation, Outcome, RegisteredIdentity, TaskState
from oracle.agreement.consent import check_activated
from oracle.agreement.terms import Terms, check_request_terms
from oracle.chain.reader import (
    AgreementReader,
    AgreementRecord,
    Consent,
    EnclaveReader,
    EnclaveRecord,
    OracleReader,
    TaskOnChain,
)
from oracle.chain.source import Block, Source
from oracle.errors import Permanent, Refused
from oracle.receipt.document import Receipt
from oracle.receipt.links import GRACE_ON_CHAIN, ON_CHAIN, Expected
from oracle.receipt.verify import LinkReport, Report, Verdict, verify_receipt, walk


@dataclass(frozen=True)
class ChainView:
    """`enclave` is what the registry holds, `identity` what it must hold, by the evidence; `evidence_block` is the block that the
    evidence binds, and `release_blocks` those at which the brokers read, where the chain has them."""

    agreement: AgreementRecord
    task: TaskOnChain
    enclave: EnclaveRecord | None
    identity: RegisteredIdentity
    evidence_block: Block | None
    release_blocks: tuple[Block | None, ...]


async def verify_with_chain(
    data: bytes,
    expected: Expected,
    now: int,
    source: Source,
    *,
    allow_simulated: bool = False,
    function: bytes | None = None,
) -> Report:
    """`verify_receipt`, and then what the chain says. Raises Retryable where an RPC endpoint does not answer."""

    async def offline(recorded: Mapping[str, Consent] | None = None, registered: EnclaveRecord | None = None) -> Report:
        return await asyncio.to_thread(
            verify_receipt,
            data,
            expected,
            now,
            allow_simulated=allow_simulated,
            recorded=recorded,
            registered=registered,
            function=function,
        )

    found = await offline()
    receipt = found.receipt
    if receipt is None:
        return _and_then(found, (), None)
    chain_id = await source.chain_id()
    if found.reason in (ON_CHAIN, GRACE_ON_CHAIN) and chain_id == receipt.chain.chain_id:
        try:
            found = await offline(await _recorded(source, receipt), await _registered(source, receipt))
        except Permanent as error:
            links = tuple(
                replace(link, detail=_no_contracts(error)) if link.ok is False else link for link in found.links
            )
            found = replace(found, links=links, reason="chain.contracts")
    if found.failed is not None or found.enclave is None:
        return _and_then(found, (), None)
    right, reason = walk([(CHAIN, partial(_chain_link, receipt, chain_id))])
    if reason is not None:
        return _and_then(found, right, reason)
    terms = check_request_terms(receipt.chain, receipt.agreement, receipt.agreement_id, receipt.request)
    try:
        view = await _read(source, receipt, found.enclave)
    except Permanent as error:
        return _and_then(found, (LinkReport(CHAIN, False, _no_contracts(error)),), "chain.contracts")
    links, reason = walk((name, partial(link, receipt, terms, view)) for name, link in CHAIN_LINKS.items())
    return _and_then(found, (*right, *links), reason)


def _and_then(found: Report, links: tuple[LinkReport, ...], reason: str | None) -> Report:
    """`found`, and what the chain's links said after it; those that were not reached are named all the same."""
    rest = tuple(LinkReport(name, None, "") for name in (CHAIN, *CHAIN_LINKS)[len(links) :])
    if reason is None:
        return replace(found, links=(*found.links, *links, *rest))
    failed = next(link.name for link in links if link.ok is False)
    return replace(found, verdict=Verdict.REFUSED, links=(*found.links, *links, *rest), failed=failed, reason=reason)


def _no_contracts(error: Permanent) -> str:
    return f"this chain does not have the contracts that the receipt names: {error.message}"


def _chain_link(receipt: Receipt, chain_id: int) -> str:
    if chain_id != receipt.chain.chain_id:
        raise Refused(
            "chain.id", "the RPC endpoint serves another chain", found=chain_id, expected=receipt.chain.chain_id
        )
    return f"chain {chain_id}"


def activation_link(receipt: Receipt, terms: Terms, view: ChainView) -> str:
    """R7: the agreement was activated there, on the contracts that it names."""
    check_activated(terms, view.agreement)
    return f"on {receipt.chain.agreement_registry}, for oracle {receipt.agreement.oracle}"


def settlement_link(receipt: Receipt, terms: Terms, view: ChainView) -> str:
    """R17: the task ended with exactly this result."""
    task, result = view.task, receipt.result
    state = TaskState.FULFILLED if result.outcome == Outcome.SUCCEEDED else TaskState.FAILED
    if task.state != state:
        raise Refused("settled.state", "the task did not end so", found=task.state.name, expected=state.name)
    if not task.settled_with(result.typed_digest(receipt.chain.oracle_domain(receipt.agreement))):
        raise Refused("settled.result", "the chain settled another result", found=task.result_digest.hex())
    return f"task {task.state.name.lower()} with this result"


def registration_link(receipt: Receipt, terms: Terms, view: ChainView) -> str:
    """R2, R3: the signing enclave was registered under the result's anchor as exactly what the evidence says. A record never
    becomes another identity's, so whenever it is read it tells."""
    if view.enclave is None:
        raise Refused("registered.unknown", "the enclave was never registered under the result's anchor")
    if view.enclave.digest != view.identity.digest:
        raise Refused(
            "registered.identity",
            "the enclave is registered as something else than its evidence says",
            found=view.enclave.digest.hex(),
            expected=view.identity.digest.hex(),
        )
    return f"under anchor 0x{receipt.result.anchor.hex()[:16]}…"


def blocks_link(receipt: Receipt, terms: Terms, view: ChainView) -> str:
    """R2: the evidence binds a block of this chain, young enough whenever a broker released; the brokers read this chain."""
    bound = view.evidence_block
    if bound is None:
        raise Refused(
            "blocks.evidence", "the evidence binds a block that is not on this chain", found=receipt.evidence.block_hash
        )
    for release, block in zip(receipt.releases, view.release_blocks, strict=True):
        if block is None or block.hash != release.statement.block_hash:
            raise Refused(
                "blocks.release",
                "a broker released at a block that is not on this chain",
                found=release.statement.block_number,
            )
        age = block.timestamp - bound.timestamp
        if age > receipt.agreement.tee.max_evidence_age:
            raise Refused(
                "blocks.age",
                "the evidence was older than agreed when a broker released",
                found=f"{age} s",
                expected=receipt.agreement.tee.max_evidence_age,
            )
    return f"evidence over block {bound.number}"


ChainLink = Callable[[Receipt, Terms, ChainView], str]
CHAIN = "chain"
CHAIN_LINKS: Mapping[str, ChainLink] = {
    "activation": activation_link,
    "settlement": settlement_link,
    "registration": registration_link,
    "blocks": blocks_link,
}
"""What the chain itself adds after the link `chain`, in order. Names are stable."""


async def _recorded(source: Source, receipt: Receipt) -> dict[str, Consent]:
    asked = [p for p, s in zip(receipt.agreement.parties(), receipt.consents, strict=True) if not s]
    registry = AgreementReader(source, receipt.chain.agreement_registry)
    consents = await registry.consents(receipt.agreement_id, asked, await _confirmed(source, receipt))
    return dict(zip(asked, consents, strict=True))


async def _registered(source: Source, receipt: Receipt) -> EnclaveRecord | None:
    """What the registry held at the last block at which a broker read it: a later challenge takes no receipt back."""
    if not receipt.agreement.tee.grace_days:
        return None
    last = max(receipt.releases, key=lambda release: release.statement.block_number).statement
    block = await source.block(last.block_number)
    if block is None or block.hash != last.block_hash:
        return None
    reader = EnclaveReader(source, receipt.agreement.enclave_registry)
    return await reader.record(receipt.result.anchor, receipt.evidence.signer, block)


async def _read(source: Source, receipt: Receipt, identity: RegisteredIdentity) -> ChainView:
    block, agreement = await _confirmed(source, receipt), receipt.agreement
    record, task, enclave, bound, released = await asyncio.gather(
        AgreementReader(source, receipt.chain.agreement_registry).record(receipt.agreement_id, block),
        OracleReader(source, agreement.oracle).task(receipt.agreement_id, receipt.task_id, block),
        EnclaveReader(source, agreement.enclave_registry).record(receipt.result.anchor, receipt.evidence.signer, block),
        _canonical(source, receipt.evidence.block_hash),
        asyncio.gather(*(source.block(release.statement.block_number) for release in receipt.releases)),
    )
    return ChainView(record, task, enclave, identity, bound, tuple(released))


async def _confirmed(source: Source, receipt: Receipt) -> Block:
    keys = receipt.agreement.keys
    return await source.confirmed(Confirmation(keys.confirmation), keys.confirm_blocks)


async def _canonical(source: Source, block_hash: bytes) -> Block | None:
    """The block, where it is on the chain: nodes also know blocks that a reorganisation took away."""
    block = await source.block_by_hash(block_hash)
    if block is None:
        return None
    standing = await source.block(block.number)
    return standing if standing is not None and standing.hash == block_hash else None
