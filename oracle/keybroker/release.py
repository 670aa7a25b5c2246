"""POST /v1/release: one enclave, one task, one broker, one answer (R13). `release` is the whole story."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from enclave_app.protocol.digests import sha256, tag
from enclave_app.protocol.evidence import report_data
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.manifest import read_manifest
from enclave_app.protocol.release import ReleaseAnswer, ReleaseBody, answer_info, pack_answer
from enclave_app.protocol.shares import DatasetBinding, key_ids_digest, open_shares, read_share_list
from enclave_app.protocol.structs import ReleaseStatement
from oracle.agreement.consent import check_consent
from oracle.agreement.enclave import check_evidence_place, check_host, check_policy, identity_of
from oracle.agreement.terms import Identify, Terms
from oracle.attestation import Verified
from oracle.errors import Refused
from oracle.keybroker import checks
from oracle.keybroker.chains import ChainAccess, Chains
from oracle.keybroker.keys import BrokerKeys
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.limits import Limiter
from oracle.keybroker.log import Released
from oracle.keybroker.metrics import BrokerMetrics
from oracle.keybroker.terms import Signed, check_share_list, read_terms
from oracle.keybroker.trust import Trust
from oracle.keybroker.view import ReleaseView, read_release

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A request that holds by itself: before anything is read from the chain."""

    terms: Terms
    sealing: PublicKey
    verified: Verified
    signed: frozenset[str]


@dataclass(frozen=True)
class Sealed:
    """An answer that is ready to leave, and its log entry."""

    answer: ReleaseAnswer
    entry: Released


@dataclass(frozen=True)
class Timing:
    """Where a release spent its time, in milliseconds."""

    own_ms: float
    chain_ms: float
    seal_ms: float
    log_ms: float


class Releaser:
    def __init__(
        self,
        keys: BrokerKeys,
        chains: Chains,
        trust: Trust,
        ledger: Ledger,
        memory: tuple[Identify, Signed],
        clock: Callable[[], float],
        limiter: Limiter,
        metrics: BrokerMetrics,
        released: Callable[[int, ReleaseStatement], None],
    ) -> None:
        """`released` is told of each release's chain and statement, so that somebody watches its block."""
        self._keys, self._chains, self._trust, self._ledger = keys, chains, trust, ledger
        self._identify, self._signed = memory
        self._clock, self._limiter, self._metrics, self._released = clock, limiter, metrics, released
        self._questions: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def release(self, body: ReleaseBody, *, aside: bool = True) -> tuple[ReleaseAnswer, Timing]:
        """Release this broker's shares of a task's keys, or raise the rule that forbids it (R13).

        `aside`: in a thread. What takes a small body a millisecond or two is done before a thread would have been told of it.
        """
        started = time.perf_counter()
        access = self._chains.served(body.chain)
        asked = await _done(aside, self._check_own_words, body)
        self._limiter.platform(asked.verified.platform)
        checked = time.perf_counter()
        parties = asked.terms.agreement.parties()
        unsigned = [party for party in parties if party not in asked.signed]
        view = await read_release(
            access, asked.terms, body.release.request.anchor, body.evidence, asked.verified, unsigned
        )
        check_view(asked, body, view)
        checks.check_remembered(body.request.as_of, self._ledger.refused_until)
        self._limiter.owners([data.owner for data in asked.terms.agreement.data], "release")
        read = time.perf_counter()
        question = question_of(asked.terms, body)
        # One at a time: the same question twice at once is one release.
        async with self._questions.setdefault(question, asyncio.Lock()):
            answer = await self._given(access, question)
            ready = time.perf_counter()
            if answer is None:
                sealed = await _done(aside, self._seal, asked, body, view, question)
                answer, ready = sealed.answer, time.perf_counter()
                cap = asked.terms.agreement.keys.max_releases
                await self._ledger.append_release(sealed.entry, cap, answer.sealed)
                self._count(asked)
                self._released(body.chain.chain_id, answer.statement)
            else:
                self._metrics.repeats.inc()
        steps = [started, checked, read, ready, time.perf_counter()]
        own, chain, seal, log = (round(1000 * (b - a), 2) for a, b in pairwise(steps))
        return answer, Timing(own, chain, seal, log)

    def _count(self, asked: Asked) -> None:
        used = self._ledger.released(asked.terms.task_id, asked.verified.platform)
        self._metrics.releases.inc()
        self._metrics.cap_used.observe(used / asked.terms.agreement.keys.max_releases)

    async def _given(self, access: ChainAccess, question: bytes) -> ReleaseAnswer | None:
        """The answer that this question got before, so that a crash behind the log takes none of the cap (R13).

        Not where its block is gone: nobody could check that statement against the chain any more.
        """
        line = await self._ledger.answered(question)
        if line is None or not isinstance(line.entry.event, Released) or line.sealed is None:
            return None
        said = line.entry.event.statement
        block = await access.source.block(said.block_number)
        if block is None or block.hash != said.block_hash:
            return None
        return ReleaseAnswer(statement=said, signature=line.entry.event.signature, sealed=line.sealed)

    def _check_own_words(self, body: ReleaseBody) -> Asked:
        """What needs no chain: ids (R13), consent by ECDSA (R7), who asks, and the broker's own appraisal (R2 to R5)."""
        terms = read_terms(body.chain, body.agreement, body.request, self._keys.card, self._identify)
        signed = self._signed(terms.agreement_id, terms.agreement.parties(), body.signatures)
        sealing = checks.check_asked(terms, body.release, body.evidence, self._keys.card.digest)
        check_evidence_place(terms, body.evidence)
        verified = self._trust.verify(body.evidence.tee, body.evidence.quote, body.evidence.endorsements)
        expected = report_data(
            terms.chain.chain_id,
            terms.agreement.enclave_registry,
            body.evidence.signer,
            sealing.digest,
            body.evidence.block_hash,
        )
        # Where there is a grace, the status is judged beside what is registered.
        check_policy(verified, terms.agreement.tee, expected, graced=terms.agreement.tee.grace_days > 0)
        checks.check_anchor(body.evidence, verified, body.release.request.anchor, terms.agreement.tee)
        check_host(terms, body.evidence, verified)
        return Asked(terms, sealing, verified, signed)

    def _seal(self, asked: Asked, body: ReleaseBody, view: ReleaseView, question: bytes) -> Sealed:
        """Open this broker's shares of the agreed columns (R10, R11) and seal them to the enclave, with a statement (R13)."""
        terms, request = asked.terms, body.release.request
        x, shares = self._open(terms, body)
        plaintext = pack_answer(x, shares)
        info = answer_info(terms.chain, terms.agreement, request, terms.request.versions, body.evidence.signer)
        sealed = asked.sealing.seal(plaintext, info)
        statement = ReleaseStatement(
            agreement_id=terms.agreement_id,
            task_id=terms.task_id,
            signer=body.evidence.signer,
            nonce=request.nonce,
            broker=self._keys.card.digest,
            keys=key_ids_digest(sorted(shares)),
            answer=sha256(sealed),
            collateral=asked.verified.collateral,
            time=int(self._clock()),
            block_number=view.block.number,
            block_hash=view.block.hash,
        )
        signature = self._keys.signing.sign(statement.typed_digest(terms.chain.oracle_domain(terms.agreement)))
        entry = Released(
            statement=statement,
            signature=signature,
            tee=body.evidence.tee,
            measurement=asked.verified.measurement,
            platform=asked.verified.platform,
            operator=body.evidence.operator,
            root=asked.verified.root,
            anchor=request.anchor,
            evidence_block=body.evidence.block_hash,
            datasets=terms.request.versions,
            keys=tuple(tuple(k for d, k in sorted(shares) if d == i) for i in range(len(terms.agreement.data))),
            question=question,
            chain_id=terms.chain.chain_id,
        )
        return Sealed(ReleaseAnswer(statement=statement, signature=signature, sealed=sealed), entry)

    def _open(self, terms: Terms, body: ReleaseBody) -> tuple[int, dict[tuple[int, int], bytes]]:
        """This broker's x, and its shares by (dataset index, key index), of the released columns only (R10, R11)."""
        data = terms.agreement.data
        if len(body.manifests) != len(data) or len(body.share_lists) != len(data):
            raise Refused(
                "release.datasets",
                "not one manifest and one share list per dataset",
                found=f"{len(body.manifests)} and {len(body.share_lists)}",
                expected=len(data),
            )
        x, opened = 0, {}
        for index, (term, version) in enumerate(zip(data, terms.request.versions, strict=True)):
            manifest = read_manifest(body.manifests[index], version)
            if manifest.lineage != term.lineage:
                raise Refused("manifest.lineage", "a dataset is of another lineage than its term (R9)", found=term.name)
            wanted = manifest.key_indexes(term.columns)
            shares = read_share_list(body.share_lists[index], version, term.shares_digest)
            check_share_list(shares, terms.agreement, len(manifest.keys))
            # R10: the owner is the agreement's, so shares copied from another owner's list do not open.
            binding = DatasetBinding(
                chain_id=terms.chain.chain_id,
                registry=terms.chain.agreement_registry,
                owner=term.owner,
                dataset=version,
            )
            x, mine = open_shares(shares, self._keys.sealing, binding)
            opened.update({(index, key): mine[key] for key in wanted})
        return x, opened


async def _done(aside: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.to_thread(work, *args, **kwargs) if aside else work(*args, **kwargs)


def question_of(terms: Terms, body: ReleaseBody) -> bytes:
    """The digest of everything that an answer rests on: who asks with which nonce, over which documents and evidence.

    An answer is given again to its own question only: never for other documents, another enclave or another nonce (R12).
    """
    release = body.release
    parts = [
        terms.agreement_id,
        terms.task_id,
        release.request.typed_digest(terms.chain.oracle_domain(terms.agreement)),
        sha256(body.evidence.canonical()),
        sha256(b"".join(sha256(each) for each in body.manifests)),
        sha256(b"".join(sha256(each) for each in body.share_lists)),
    ]
    return sha256(tag("broker-question") + b"".join(parts))


def check_view(asked: Asked, body: ReleaseBody, view: ReleaseView) -> None:
    """What the chain has to say at the confirmed block, rule by rule."""
    terms, tee = asked.terms, asked.terms.agreement.tee
    check_consent(terms.agreement.parties(), asked.signed, view.consents)
    checks.check_standing(terms, view.agreement, view.dropped)
    checks.check_task(view.task, terms.agreement.keys, view.block)
    identity = identity_of(body.evidence, asked.sealing.digest, asked.verified)
    standing = checks.check_registered(view.enclave, identity, tee, view.block)
    checks.check_status(asked.verified, standing, tee, view.block)
    checks.check_freshness(body.evidence, view.evidence_block, tee, view.block)
