"""Lies that are signed: each rule of a receipt alone, broken in a receipt whose digests and signatures all fit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from enclave_app.attesters.collateral import CollateralSpec
from enclave_app.attesters.platform import DEVELOPMENT_CPU_SVN, DEVELOPMENT_PCE_SVN, DevelopmentAuthority
from enclave_app.protocol.bundle import Bundle, InputColumn, InputTable, pack
from enclave_app.protocol.evidence import Voucher, registered_under
from enclave_app.protocol.fields import ZERO32, ZERO_ADDRESS
from enclave_app.protocol.shares import key_ids_digest
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Outcome
from oracle.attestation import INTEL_ROOT_DIGEST, Collateral, parse_evidence, verify
from oracle.attestation.anchors import MAKERS
from oracle.chain.reader import Consent, EnclaveRecord, Standing
from oracle.errors import Refused
from oracle.receipt import Expected, Papers, Receipt, Report, Verdict, make_receipt, read_receipt, verify_receipt
from oracle.receipt.document import ATTESTED, MAX_FUNCTION, SIMULATED, assurance
from oracle.receipt.links import CLOCK_SKEW, FUTURE, Case, evidence_link, result_link
from tests.receipt_kit import PLAINTEXT, SEALED_ANSWER, Story, authority, collateral, make_story
from tests.snp_kit import Authority

DAY = 86_400
VOUCHER = Voucher(anchor=b"\5" * 32, measurement=b"\6" * 32)


def check(story: Story, expected: Expected | None = None, **options: Any) -> Report:
    given = {"now": story.time + 60, "allow_simulated": True, **options}
    known = expected or Expected(agreement_id=story.record.chain.agreement_id(story.record.agreement))
    return verify_receipt(story.receipt, known, given.pop("now"), **given)


def bend(**changes: Any) -> Callable[[Any], Any]:
    return lambda value: value.model_copy(update=changes)


def deep(name: str, **changes: Any) -> Callable[[Any], Any]:
    """A change of the structure `name` inside."""
    return lambda value: value.model_copy(update={name: getattr(value, name).model_copy(update=changes)})


def first(of: str, **changes: Any) -> Callable[[Any], Any]:
    """A change of the first entry of the list `of` inside."""

    def change(value: Any) -> Any:
        head, *rest = getattr(value, of)
        return value.model_copy(update={of: (head.model_copy(update=changes), *rest)})

    return change


def only(index: int, **changes: Any) -> Callable[[Any], Any]:
    """A change of one broker's statement."""
    return lambda said: said.model_copy(update=changes) if said.broker[0] == 0xB0 + index else said


def later(broker: int, seconds: int) -> Callable[[Any], Any]:
    return lambda said: (
        said.model_copy(update={"time": said.time + seconds}) if said.broker[0] == 0xB0 + broker else said
    )


def header(**changes: Any) -> Callable[[Bundle], Bundle]:
    return lambda bundle: pack(bundle.header.model_copy(update=changes), bundle.files)


def reads(column: str, kind: str) -> Callable[[Bundle], Bundle]:
    """The function reads one more column of the first table."""

    def change(bundle: Bundle) -> Bundle:
        head, *rest = bundle.header.tables
        more = InputTable(name=head.name, columns=(*head.columns[1:], InputColumn(name=column, type=kind)))
        return pack(bundle.header.model_copy(update={"tables": (more, *rest)}), bundle.files)

    return change


STRANGER = SigningKey.generate()
LIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "terms that no agreement may have": (
        {"agreement": deep("access", quota=0)}, "agreement", "agreement.quota"
    ),
    "a stranger's consent": (
        {"consents": lambda given: (STRANGER.sign(b"\1" * 32), *given[1:])}, "consent", "consent.on_chain"
    ),
    "another kind of function": ({"bundle": header(kind="python")}, "function", "function.kind"),
    "a function of chance": ({"bundle": header(deterministic=False)}, "function", "function.kind"),
    "a function with other outputs": ({"bundle": header(outputs=("all",))}, "function", "function.outputs"),
    "a function that reads what is not released": (
        {"bundle": reads("unreleased", "double")}, "function", "function.tables"
    ),
    "a function that expects another type": (
        {"bundle": reads("radius", "int64")}, "datasets", "function.tables"
    ),
    "a released column that the dataset does not have": (
        {"agreement": first("data", columns=("patient", "radius", "more"))}, "datasets", "manifest.column"
    ),
    "another lineage": ({"agreement": first("data", lineage=b"\1" * 32)}, "datasets", "manifest.lineage"),
    "other datasets in the request": (
        {"request": lambda r: r.model_copy(update={"versions": r.versions[::-1]})}, "request", "request.versions"
    ),
    "a request under another agreement": ({"request": bend(agreement_id=b"\1" * 32)}, "request", "request.agreement"),
    "parameters outside their domain": ({"request": bend(params=b'{"least":41}')}, "request", "params.value"),
    "a root of one's own": (
        {"root_of": DevelopmentAuthority(int(time.time())), "anchors": lambda listed: (b"\1" * 32,)},
        "evidence",
        "evidence.anchor_not_listed",
    ),
    "a development root on a public chain": ({"chain_id": 1}, "evidence", "evidence.root_on_public_chain"),
    "evidence that binds another key": (
        {"evidence": bend(signer=STRANGER.address)}, "binding", "evidence.report_data_mismatch"
    ),
    "evidence over another block": ({"evidence": bend(block_hash=b"\6" * 32)}, "binding", "evidence.report_data_mismatch"),
    "a measurement that is not agreed": (
        {"agreement": deep("tee", measurements=(b"\1" * 32,))}, "measurement", "evidence.measurement_not_listed"
    ),
    "a TCB status that is not agreed": (
        {"agreement": deep("tee", status_mask=1 << 2)}, "measurement", "evidence.status_not_allowed"
    ),
    "too old a TCB evaluation": (
        {"agreement": deep("tee", eval_floor=18)}, "measurement", "evidence.evaluation_below_floor"
    ),
    "a host that is not agreed": (
        {"agreement": deep("tee", operators=(STRANGER.address,))}, "host", "host.not_agreed"
    ),
    "an agreed operator who did not sign": (
        {"evidence": bend(operator_signature=STRANGER.sign(b"\1" * 32))}, "host", "host.signature"
    ),
    "any host, and an operator who did not sign": (
        {
            "agreement": deep("tee", any_host=True, operators=()),
            "evidence": bend(operator_signature=STRANGER.sign(b"\1" * 32)),
        },
        "host",
        "host.signature",
    ),
    "any host, and a signature of nobody": (
        {"agreement": deep("tee", any_host=True, operators=()), "evidence": bend(operator=ZERO_ADDRESS)},
        "host",
        "host.signature",
    ),
    "too few brokers": ({"released_by": (2,)}, "releases", "release.too_few"),
    "one broker twice": ({"released_by": (1, 1)}, "releases", "release.order"),
    "a broker that is not agreed": ({"statement": only(1, broker=b"\1" * 32)}, "releases", "release.signature"),
    "a release to another enclave": ({"statement": only(1, signer=STRANGER.address)}, "releases", "release.statement"),
    "a release for another task": ({"statement": only(1, task_id=b"\1" * 32)}, "releases", "release.statement"),
    "a release under another agreement": (
        {"statement": only(1, agreement_id=b"\1" * 32)}, "releases", "release.statement"
    ),
    "releases of two runs": ({"statement": only(1, nonce=b"\1" * 32)}, "releases", "release.statement"),
    "a release of other keys": (
        {"statement": only(1, keys=key_ids_digest([(0, 0)]))}, "releases", "release.statement"
    ),
    "a release long before the request": (
        {"request": lambda r: r.model_copy(update={"as_of": r.as_of + 3602 + CLOCK_SKEW, "deadline": r.as_of + DAY})},
        "releases",
        "release.time",
    ),
    "a release long after the deadline": ({"statement": later(1, 3600 + CLOCK_SKEW + 1)}, "releases", "release.time"),
    "another agreement's result": ({"result": bend(agreement_id=b"\1" * 32)}, "result", "result.agreement"),
    "another task's result": ({"result": bend(task_id=b"\1" * 32)}, "result", "result.task"),
    "an anchor that is not agreed": ({"result": bend(anchor=b"\1" * 32)}, "result", "result.anchor"),
    "an agreed anchor that is not the evidence's": (
        {"anchors": lambda listed: (*listed, b"\1" * 32), "result": bend(anchor=b"\1" * 32)}, "result", "result.path"
    ),
    "a verifier that was not asked": ({"evidence": bend(voucher=VOUCHER)}, "result", "result.path"),
    "a verifier that is not agreed": (
        {
            "evidence": bend(voucher=VOUCHER),
            "result": lambda r: r.model_copy(update={"anchor": registered_under(r.anchor, VOUCHER)}),
        },
        "result",
        "result.anchor",
    ),
    "no payee": ({"result": bend(payee=ZERO_ADDRESS)}, "result", "result.payee"),
    "an outcome that is none": ({"result": bend(outcome=3)}, "result", "result.outcome"),
    "a success without outputs": ({"result": bend(outputs=())}, "outputs", "result.outputs"),
    "a failure with outputs": ({"result": bend(outcome=2)}, "outputs", "result.outputs"),
    "an output of another name": ({"result": first("outputs", name="all")}, "outputs", "output.name"),
    "an output of another kind": ({"result": first("outputs", kind=2)}, "outputs", "output.name"),
    "other recipients": ({"result": first("outputs", recipients_digest=ZERO32)}, "outputs", "output.recipients"),
    "an output of another length": ({"result": first("outputs", length=8192)}, "outputs", "output.length"),
    "an output that is not padded": ({"result": first("outputs", length=4095)}, "outputs", "output.size_class"),
    "an output of nothing": ({"result": first("outputs", length=0)}, "outputs", "output.size_class"),
    "another output": ({"result": first("outputs", digest=b"\1" * 32)}, "outputs", "manifest.digest"),
}  # fmt: skip


@pytest.mark.parametrize(("bends", "link", "reason"), LIES.values(), ids=LIES)
def test_a_lie_that_is_signed_is_refused_by_its_link(bends: dict[str, Any], link: str, reason: str) -> None:
    found = check(make_story(**bends))
    assert (found.failed, found.reason) == (link, reason)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_failure_has_a_receipt_as_good_as_a_success(outcome: Outcome) -> None:
    found = check(make_story(outcome=outcome))
    assert (found.verdict, found.outcome) == (Verdict.AUTHENTIC, outcome.name.lower())


def test_any_brokers_of_the_agreement_will_do() -> None:
    assert check(make_story(released_by=(0, 2))).verdict is Verdict.AUTHENTIC
    assert check(make_story(released_by=(0, 1, 2))).verdict is Verdict.AUTHENTIC


def test_an_agreed_platform_needs_no_operator() -> None:
    def on(platform: bytes) -> Story:
        return make_story(
            agreement=deep("tee", operators=(), platforms=(platform,)),
            evidence=bend(operator=ZERO_ADDRESS, operator_signature=b""),
        )

    evidence, papers = STORY.record.evidence, STORY.papers
    known = verify(
        parse_evidence(evidence.tee, evidence.quote), papers.collateral, authority().root_der, STORY.time
    ).platform
    assert check(on(known)).verdict is Verdict.AUTHENTIC
    assert check(on(b"\1" * 32)).reason == "host.not_agreed"


def test_any_host_needs_no_operator() -> None:
    story = make_story(
        agreement=deep("tee", any_host=True, operators=()),
        evidence=bend(operator=ZERO_ADDRESS, operator_signature=b""),
    )
    assert check(story).verdict is Verdict.AUTHENTIC


STORY = make_story()
ID = STORY.record.result.agreement_id
PARTIES = frozenset(STORY.record.agreement.parties())


def test_without_an_expectation_it_is_consistent_and_no_more() -> None:
    found = check(STORY, Expected())
    assert (found.verdict, found.failed) == (Verdict.CONSISTENT, None)


@pytest.mark.parametrize("expected", [Expected(agreement_id=ID), Expected(parties=PARTIES)], ids=["id", "parties"])
def test_with_the_right_expectation_it_is_authentic(expected: Expected) -> None:
    assert check(STORY, expected).verdict is Verdict.AUTHENTIC


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (Expected(agreement_id=b"\1" * 32), "agreement.unexpected"),
        (Expected(parties=PARTIES | {STRANGER.address}), "agreement.parties"),
        (Expected(parties=PARTIES - {STORY.keys.author.address}), "agreement.parties"),
        (Expected(parties=frozenset()), "agreement.parties"),
        (Expected(parties=PARTIES, registry=STRANGER.address), "agreement.registry"),
        (Expected(agreement_id=ID, registry=STRANGER.address), "agreement.registry"),
    ],
)
def test_with_another_expectation_it_is_refused(expected: Expected, reason: str) -> None:
    found = check(STORY, expected)
    assert (found.verdict, found.failed, found.reason) == (Verdict.REFUSED, "agreement", reason)


def test_a_simulation_is_refused_unless_it_is_asked_for() -> None:
    found = check(STORY, allow_simulated=False)
    assert (found.verdict, found.failed, found.reason) == (Verdict.REFUSED, "assurance", "receipt.simulated")
    assert found.simulated


def test_assurance_is_the_lowest_along_the_path() -> None:
    other, (amd, *_) = b"\1" * 32, MAKERS["amd"]
    by_real, by_simulated = Voucher(anchor=INTEL_ROOT_DIGEST, measurement=other), VOUCHER
    assert assurance(INTEL_ROOT_DIGEST, None) == assurance(amd, by_real) == ATTESTED
    assert assurance(other, None) == assurance(other, by_real) == SIMULATED
    assert assurance(amd, by_simulated) == assurance(amd, None) == SIMULATED


@pytest.mark.parametrize(
    ("root", "voucher"),
    [
        (b"\1" * 32, None),
        (next(iter(MAKERS["amd"])), VOUCHER),
        (b"\1" * 32, VOUCHER.model_copy(update={"anchor": INTEL_ROOT_DIGEST})),
    ],
)
def test_a_simulation_anywhere_on_the_path_counts_for_nothing_on_a_public_chain(
    root: bytes, voucher: Voucher | None
) -> None:
    """Also where the rest is under makers' roots, which no test can mint: so the link is asked alone."""
    anchor = registered_under(root, voucher)
    story = make_story(
        chain_id=1, anchors=lambda _: (anchor,), result=bend(anchor=anchor), evidence=bend(voucher=voucher)
    )
    genuine = verify(parse_evidence(1, STORY.record.evidence.quote), collateral(), authority().root_der, STORY.time)
    verified = replace(genuine, root=root)
    with pytest.raises(Refused) as refused:
        result_link(Case(read_receipt(story.receipt), Expected(), STORY.time, verified=(verified,)))
    assert refused.value.code == "agreement.development_anchor"


def test_somebody_has_to_vouch_for_what_no_contract_can_check() -> None:
    """Evidence that is genuine, of an agreed anchor: the link is asked alone."""
    chip = Authority().chip()
    certificates = (chip.ek, chip.authority.ask, chip.authority.ark)
    story = make_story(anchors=lambda _: (chip.authority.root,))

    def case(voucher: Voucher | None) -> Case:
        changes = {"tee": 3, "quote": chip.report(), "endorsements": certificates, "voucher": voucher}
        record = story.record.model_copy(update={"evidence": story.record.evidence.model_copy(update=changes)})
        made = replace(story, record=record, papers=replace(story.papers, collateral=None))
        return Case(read_receipt(made.receipt), Expected(), STORY.time)

    vouched = case(VOUCHER)
    evidence_link(vouched)
    assert vouched.verified
    with pytest.raises(Refused) as refused:
        evidence_link(case(None))
    assert refused.value.code == "evidence.voucher"


# Grace: what the platform was before, only the chain can say

GRACED = EnclaveRecord(STORY.record.enclave.digest, Standing(5, False, 1, 18, 17, STORY.time - 10, 0, 0, 0))
NEWER = CollateralSpec(DEVELOPMENT_CPU_SVN, DEVELOPMENT_PCE_SVN, "OutOfDate", evaluation=18)
OUTDATED = Collateral.from_json(json.dumps(authority().collateral(NEWER)))


def outdated(**changes: Any) -> Story:
    """A platform that newer collateral calls out of date, under an agreement with a grace of a day."""
    agreement = deep("tee", **{"grace_days": 1, **changes})
    story = make_story(agreement=agreement)
    return replace(story, papers=replace(story.papers, collateral=OUTDATED))


def graced(story: Story, **changes: Any) -> EnclaveRecord:
    return EnclaveRecord(story.record.enclave.digest, replace(GRACED.standing, **changes))


def test_a_platform_in_the_grace_is_taken_as_the_chain_has_it() -> None:
    story = outdated()
    assert check(story, registered=graced(story)).verdict is Verdict.AUTHENTIC


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"earlier_status": 0}, "evidence.status_not_allowed"),
        ({"earlier_status": 5}, "evidence.status_not_allowed"),
        ({"earlier_evaluation": 16}, "evidence.status_not_allowed"),
        ({"changed_at": STORY.time - 2 * DAY}, "evidence.status_not_allowed"),
    ],
)
def test_a_platform_out_of_its_grace_is_refused(changes: dict[str, Any], reason: str) -> None:
    story = outdated()
    found = check(story, registered=graced(story, **changes))
    assert (found.failed, found.reason) == ("measurement", reason)


def test_without_the_chain_nobody_knows_of_a_grace() -> None:
    story = outdated()
    for registered in (None, EnclaveRecord(b"\1" * 32, GRACED.standing)):
        found = check(story, registered=registered)
        assert (found.failed, found.reason) == ("measurement", "measurement.on_chain")


def test_without_a_grace_the_chain_is_not_asked() -> None:
    story = outdated(grace_days=0)
    found = check(story, registered=graced(story))
    assert (found.failed, found.reason) == ("measurement", "evidence.status_not_allowed")


def test_a_receipt_outlives_its_collateral() -> None:
    collateral = STORY.papers.collateral
    assert collateral is not None
    assert collateral.window().end < STORY.time + 3650 * DAY
    assert check(STORY, now=STORY.time + 3650 * DAY).verdict is Verdict.AUTHENTIC


def test_brokers_who_release_when_the_collateral_did_not_hold_prove_nothing() -> None:
    story = make_story(
        request=bend(as_of=STORY.time + 3000 * DAY, deadline=STORY.time + 3001 * DAY),
        statement=lambda said: said.model_copy(update={"time": STORY.time + 3000 * DAY}),
    )
    found = check(story, now=STORY.time + 3650 * DAY)
    assert (found.failed, found.reason) == ("evidence", "evidence.collateral_expired")


@pytest.mark.parametrize(("early", "good"), [(FUTURE, True), (FUTURE + 1, False)])
def test_todays_clock_bounds_the_future_only(early: int, good: bool) -> None:
    latest = max(answer.statement.time for answer in STORY.record.releases)
    found = check(STORY, now=latest - early)
    assert (found.failed is None) == good
    assert found.reason in (None, "release.time")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (Consent.ERC1271, None),
        (Consent.TRANSACTION, None),
        (Consent.ECDSA, "consent.missing"),
        (Consent.NONE, "consent.missing"),
    ],
)
def test_a_consent_without_a_signature_is_the_chains_to_tell(how: Consent, reason: str | None) -> None:
    story = make_story(consents=lambda given: (b"what a wallet takes for a signature", *given[1:]))
    author = story.keys.author.address
    assert read_receipt(story.receipt).consents[0] == b""
    assert check(story).reason == "consent.on_chain"
    assert check(story, recorded={author: how}).reason == reason


def test_a_registry_of_the_liars_own_makes_nobody_consent() -> None:
    """Whoever deploys it makes it say that these parties consented by a transaction, to an agreement that they never saw."""
    story = make_story(consents=lambda given: (b"",) * len(given))
    parties = frozenset(story.record.agreement.parties())
    said = dict.fromkeys(parties, Consent.TRANSACTION)
    found = check(story, Expected(parties=parties), recorded=said)
    assert (found.verdict, found.failed, found.reason) == (Verdict.REFUSED, "consent", "consent.registry")
    trusted = Expected(parties=parties, registry=story.record.chain.agreement_registry)
    assert check(story, trusted, recorded=said).verdict is Verdict.AUTHENTIC
    assert check(story, Expected(), recorded=said).verdict is Verdict.CONSISTENT


def test_a_function_too_large_for_the_receipt_is_given_beside_it() -> None:
    def grown(bundle: Bundle) -> Bundle:
        return pack(bundle.header, {"query.sql": b"-" * MAX_FUNCTION})

    story = make_story(bundle=grown)
    assert story.papers.function is not None
    assert read_receipt(story.receipt).function is None
    assert check(story).reason == "function.missing"
    assert check(story, function=story.papers.function).verdict is Verdict.AUTHENTIC
    assert check(story, function=STORY.papers.function).reason == "bundle.digest"


def test_a_receipt_holds_no_secret_and_no_plaintext() -> None:
    story = make_story()
    data = story.receipt
    keys = story.keys
    secrets = [k.secret() for k in (keys.author, *keys.owners, *keys.brokers, keys.enclave, keys.operator)]
    for secret in (*secrets, *keys.data, PLAINTEXT, SEALED_ANSWER):
        assert secret not in data
        assert secret.hex().encode() not in data


def test_the_maker_keeps_the_agreements_order_and_no_padding() -> None:
    record = STORY.record.model_copy(
        update={
            "releases": STORY.record.releases[::-1],
            "evidence": STORY.record.evidence.model_copy(update={"quote": STORY.record.evidence.quote + bytes(8)}),
        }
    )
    assert make_receipt(record, STORY.papers) == STORY.receipt


def test_the_maker_writes_pem_in_its_one_form() -> None:
    collateral = STORY.papers.collateral
    assert collateral is not None
    spaced = Collateral(
        **{
            **vars(collateral),
            "pck_crl_issuer_chain": collateral.pck_crl_issuer_chain.replace("\n", "\r\n"),
        }
    )
    papers = Papers(**{**vars(STORY.papers), "collateral": spaced})
    assert make_receipt(STORY.record, papers) == STORY.receipt


def test_one_task_makes_one_receipt() -> None:
    assert STORY.receipt == STORY.receipt
    assert json.loads(STORY.receipt)["taskId"] == "0x" + STORY.record.result.task_id.hex()
    assert isinstance(read_receipt(STORY.receipt), Receipt)
