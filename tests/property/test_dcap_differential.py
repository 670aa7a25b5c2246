"""Nothing that dcap-qvl refuses is accepted on chain, and where both accept, they say the same status.

Each trial is valid evidence, recorded or minted, with one change. What a minted root could sign is signed again. Whoever brings
evidence is the adversary: it is posted in raw bytes, past all of our Python, and shown with every level that could be named.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from eth_abi.abi import encode

from oracle.attestation import Collateral, intel_root, parse_dcap, verify
from oracle.attestation.errors import AttestationError
from oracle.attestation.onchain.evidence import EVIDENCE, dcap_evidence
from oracle.attestation.onchain.structs import Pck, QeIdentity, TcbInfo
from oracle.attestation.types import INTEL_NAMES, Tee
from oracle.chain.abi import Log, load
from oracle.chain.rpc import Rpc
from tests.dcap_chain_kit import Contracts, Material, pck_chain, quote_head, recorded
from tests.dcap_fixtures import rpc, url
from tests.dcap_kit import (
    DAY,
    NOW,
    TEE_TCB_SVN,
    Authority,
    Case,
    Level,
    QvlRefused,
    Span,
    SvnLevel,
    TdBody,
    sgx_case,
    tdx_case,
)
from tests.property import dcap_mutations as mutations
from tests.property.dcap_mutations import Trial

__all__ = ["rpc", "url"]

# A changed certificate may have a serial number that cryptography will refuse one day, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

SEED = 20_261_122
FEW, MANY = 400, 4000
"""Trials; each is one on-chain case at least."""
NEWER = TEE_TCB_SVN[:2] + b"\x05" + TEE_TCB_SVN[3:]


@dataclass(frozen=True)
class Base:
    """Valid evidence to start from; a minted one with its case, from which it can be signed again."""

    name: str
    tee: Tee
    material: Material
    contracts: Contracts
    case: Case | None = None

    @property
    def collateral(self) -> Collateral:
        return Collateral.from_json(json.dumps(self.material.pieces))


def minted_cases() -> dict[str, Case]:
    authority = Authority.make()
    short = Authority.make(
        root=Span(NOW - 9 * DAY, NOW + 9 * DAY),
        ca=Span(NOW - 7 * DAY, NOW + 7 * DAY),
        signer=Span(NOW - 5 * DAY, NOW + 5 * DAY),
    )
    sgx, tdx4, tdx5 = sgx_case(authority), tdx_case(4, authority), tdx_case(5, authority)
    levels = (
        Level(pce_svn=14),
        Level("ConfigurationAndSWHardeningNeeded", pce_svn=12),
        Level("OutOfDate", bytes(16), 5, bytes(16)),
        Level("OutOfDateConfigurationNeeded", bytes(16), 0, bytes(16)),
    )
    updated = (Level("SWHardeningNeeded", tdx=NEWER), Level("OutOfDate"), Level("Revoked", bytes(16), 0, bytes(16)))
    return {
        "sgx": sgx,
        "sgx-levels": replace(sgx, tcb=replace(sgx.tcb, levels=levels)),
        "sgx-qe": replace(sgx, qe=replace(sgx.qe, levels=(SvnLevel(9), SvnLevel(7, "OutOfDate")))),
        "sgx-short": sgx_case(short),
        "tdx4": tdx4,
        "tdx4-levels": replace(tdx4, tcb=replace(tdx4.tcb, levels=levels)),
        "tdx5": tdx5,
        "tdx5-updated": replace(
            tdx5,
            tcb=replace(tdx5.tcb, levels=updated),
            body=TdBody(later=True, tee_tcb_svn2=NEWER),
        ),
    }


async def bases(rpc: Rpc) -> list[Base]:
    deployed: dict[bytes, Contracts] = {}
    found = []
    for name, case in minted_cases().items():
        if case.root_der not in deployed:
            deployed[case.root_der] = await Contracts.deploy(rpc, case.root_der)
        found.append(Base(name, Tee(case.tee), Material.of(case), deployed[case.root_der], case))
    intel = await Contracts.deploy(rpc, intel_root())
    for each in recorded():
        # Evidence that binds something in its second half is refused whatever else it is, and would show nothing.
        if each.status is not None and not any(parse_dcap(each.tee, each.quote).report_data[32:]):
            found.append(Base(each.name, each.tee, each.material, intel))
    return found


def changed(rng: random.Random, base: Base, others: list[Material]) -> Trial:
    material, case = base.material, base.case
    ways = [
        lambda: mutations.change_quote(rng, material),
        lambda: mutations.change_post(rng, material),
        lambda: mutations.exchange_post(rng, material, others),
        lambda: mutations.change_time(rng, material, mutations.ends(material)),
    ]
    if case is not None:
        ways += [
            lambda: mutations.sign_body(rng, case),
            lambda: mutations.sign_qe_report(rng, case),
            lambda: mutations.sign_certificate(rng, case),
            lambda: mutations.sign_certificate(rng, case),
            lambda: mutations.sign_text(rng, case),
            *[lambda: mutations.sign_values(rng, case)] * 4,
        ]
    return rng.choice(ways)()


@dataclass
class Verdict:
    """What the chain says of a trial: the claims of each showing that it accepted, and why it refused the others."""

    claims: list[dict[str, Any]]
    refusals: list[str]

    @property
    def status(self) -> int:
        status: int = self.claims[0]["judgement"]["tcbStatus"]
        return status


async def ask_chain(base: Base, material: Material) -> Verdict:
    contracts = base.contracts
    posts = list(contracts.posts(material).values())
    outcomes = await contracts.simulate(posts, material.now)
    showings = show_all(base, material, posted_pck([log for each in outcomes for log in each.logs]))
    judged = (await contracts.simulate([*posts, *map(contracts.verify, showings)], material.now))[len(posts) :]
    refusals = [each.refusal for each in outcomes + judged if each.refusal is not None]
    return Verdict([each.claims for each in judged if each.ok], refusals)


def posted_pck(logs: Sequence[Log]) -> dict[str, Any] | None:
    """The parts of the PCK certificate as the contract itself read them."""
    for log in logs:
        event = load("DcapCollateral").event(log)
        if event is not None and event[0] == "PckPosted":
            parts: dict[str, Any] = event[1]["parts"]
            return parts
    return None


def show_all(base: Base, material: Material, pck: dict[str, Any] | None) -> list[bytes]:
    """The quote with every level named in turn. What our Python cannot read is shown as it was before the change."""
    head = quote_head(base.material.quote, material.quote)
    tcb, qe = TcbInfo.of(base.collateral), QeIdentity.of(base.collateral)
    try:
        collateral = Collateral.from_json(json.dumps(material.pieces))
        tcb = TcbInfo.of(collateral)
        qe = QeIdentity.of(collateral)
    except AttestationError:
        pass
    parts = tuple(pck.values()) if pck else Pck.of(pck_chain(base.material)).abi()
    start = 54 if base.material.quote[0] == 5 else 48
    wanted = {head[start + 1]: None, head[start + 585]: None} if head[0] == 5 else {head[start + 1]: None}
    modules = [
        next((m for m in tcb.modules if m.version == each), tcb.modules[0]).abi() for each in wanted if tcb.modules
    ]
    shown = []
    for last in range(len(tcb.levels)):
        proof = (
            tcb.abi(),
            [each.abi() for each in tcb.levels[: last + 1]],
            tcb.rest(last + 1),
            [each.digest for each in tcb.modules],
            modules,
            qe.abi(),
        )
        shown.append(encode([EVIDENCE], [(head, parts, proof, [])]))
    return shown


def ask_wrapper(base: Base, material: Material) -> str | None:
    """What our own verifier refuses it for. It reads the quote's own chain, so it is not asked where that was changed."""
    if material.pck != base.material.pck or material.ca != base.material.ca:
        return None
    try:
        collateral = Collateral.from_json(json.dumps(material.pieces))
        verify(parse_dcap(base.tee, material.quote), collateral, material.root, material.now)
    except AttestationError as error:
        return str(error.code)
    return None


async def compare(rpc: Rpc, trials: int, seed: int) -> Counter[str]:
    """Counts of who accepted; every disagreement that does harm is an assertion error."""
    start = await bases(rpc)
    others = [base.material for base in start]
    counts: Counter[str] = Counter()
    wrong = []
    for base in start:
        verdict = await ask_chain(base, base.material)
        assert len(verdict.claims) == 1, f"{base.name} unchanged: {verdict.refusals}"
        assert intel_number(base.material.ask()) == verdict.status
    for number in range(trials):
        base = start[number % len(start)]
        rng = random.Random(f"{seed}/{number}")
        trial = changed(rng, base, others)
        verdict = await ask_chain(base, trial.material)
        try:
            status: str | None = trial.material.ask()
        except QvlRefused:
            status = None
        refused = ask_wrapper(base, trial.material)
        counts["trials"] += 1
        counts["dcap-qvl accepted"] += status is not None
        counts["chain accepted"] += bool(verdict.claims)
        if verdict.claims:
            same = all(each == verdict.claims[0] for each in verdict.claims)
            if status is None or intel_number(status) != verdict.status or not same or refused is not None:
                wrong.append((number, base.name, trial.name, status, verdict.claims[0]["judgement"], refused))
        elif status is not None:
            counts[f"chain alone refused: {verdict.refusals[0]}"] += 1
    assert not wrong, "\n".join(map(str, wrong))
    return counts


def intel_number(status: str) -> int:
    return int(INTEL_NAMES[status])


def report(counts: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n" + "\n".join(f"{count:6} {what}" for what, count in counts.most_common()))


async def test_the_chain_accepts_nothing_that_dcap_qvl_refuses(rpc: Rpc, capsys: pytest.CaptureFixture[str]) -> None:
    counts = await compare(rpc, FEW, SEED)
    report(counts, capsys)
    assert counts["chain accepted"] > FEW // 10
    assert counts["dcap-qvl accepted"] < FEW


async def test_no_byte_of_the_evidence_can_be_changed_into_other_claims(rpc: Rpc) -> None:
    for base in await bases(rpc):
        contracts, material = base.contracts, base.material
        posts = list(contracts.posts(material).values())
        evidence = dcap_evidence(parse_dcap(base.tee, material.quote), base.collateral)
        rng = random.Random(f"{SEED}/{base.name.split('@')[0]}")
        calls = [contracts.verify(mutations.flipped(rng, evidence)[0]) for _ in range(60)]
        whole, *found = (await contracts.simulate([*posts, contracts.verify(evidence), *calls], material.now))[
            len(posts) :
        ]
        assert all(each.claims == whole.claims for each in found if each.ok), base.name
        assert not all(each.ok for each in found), base.name


@pytest.mark.slow
async def test_the_chain_accepts_nothing_that_dcap_qvl_refuses_in_many_trials(
    rpc: Rpc, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = await compare(rpc, MANY, SEED + 1)
    report(counts, capsys)
    assert counts["chain accepted"] > MANY // 10
