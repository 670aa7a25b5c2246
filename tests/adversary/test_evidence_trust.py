"""Whose word makes evidence genuine, at a broker: roots, TCB and debug, other appraisers, one quote used twice (R2, R4)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from enclave_app.attesters.dcap_format import FLAG_DEBUG, FLAG_INIT, FLAG_MODE64BIT
from enclave_app.attesters.development_pki import Issuer
from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester
from enclave_app.protocol.evidence import Voucher, registered_under
from enclave_app.protocol.release import ReleaseBody
from enclave_app.protocol.structs import Agreement
from oracle.agreement.enclave import check_policy
from oracle.attestation import INTEL_ROOT_DIGEST, intel_root, parse_dcap
from oracle.collateral import CollateralFiles
from oracle.keybroker import KeyBroker, open_broker
from oracle.keybroker.keys import LOG_FILE
from oracle.keybroker.trust import Trust
from tests import recorded_kit
from tests.adversary import chain_kit as kit
from tests.adversary.lies import Refused, lie
from tests.broker_kit import Enclave, Scene, collateral_with

broker, scene, world = kit.broker, kit.scene, kit.world
case = partial(kit.case, "evidence")


def with_quote(body: ReleaseBody, quote: bytes) -> ReleaseBody:
    return body.model_copy(update={"evidence": body.evidence.model_copy(update={"quote": quote})})


def under(authority: DevelopmentAuthority, scene: Scene) -> Enclave:
    """The agreed program, as a platform of `authority` vouches for it, with the registered enclave's keys."""
    registered = scene.world.enclave
    attester = SoftwareAttester(authority.issue_platform(), scene.world.program)
    return Enclave(attester, registered.signer, registered.sealing)


def self_made_intel(now: int) -> DevelopmentAuthority:
    """Everything under a root of one's own that calls itself Intel's."""
    authority = DevelopmentAuthority(now)
    window = (datetime.fromtimestamp(now, UTC) - timedelta(hours=1), datetime.fromtimestamp(now, UTC) + timedelta(30))
    root = Issuer.root("Intel SGX Root CA", window)
    authority._root, authority._pck_ca = root, root.authority("Intel SGX PCK Platform CA")
    authority._tcb = root.leaf("Intel SGX TCB Signing")
    return authority


@pytest.fixture
async def body(scene: Scene) -> ReleaseBody:
    """A release that a broker grants; its cap is one."""
    agreement = scene.agreement()
    keys = agreement.keys.model_copy(update={"max_releases": 1})
    return await scene.body(agreement.model_copy(update={"keys": keys}))


# Roots (R4)


@pytest.mark.parametrize(
    "authority",
    [
        case("root", DevelopmentAuthority, "a quote under a made-up root", "R4", "evidence.quote_refused"),
        case("Intel", self_made_intel, "a quote under a root that says it is Intel's", "R4", "evidence.quote_refused"),
    ],
)
async def test_a_made_up_root(
    scene: Scene, broker: KeyBroker, body: ReleaseBody, tmp_path: Path, refused: Refused, authority: Any
) -> None:
    made_up = authority((await scene.head()).timestamp)
    evidence = await scene.evidence(under(made_up, scene))
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"evidence": evidence}))
    await broker.releases.release(body)


@lie("evidence", "a quote under a made-up root that the parties were talked into", "R4 R13", "evidence.quote_refused")
async def test_a_made_up_root_that_is_agreed(scene: Scene, tmp_path: Path, refused: Refused) -> None:
    body = await scene.body()
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path), anchors={"intel": True}))
    await kit.ask(broker, refused, tmp_path, body)
    await broker.close()


@lie("evidence", "a simulated enclave to parties who agreed on Intel's root only", "R4", "evidence.anchor_not_listed")
async def test_a_simulated_enclave_for_a_real_one(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused
) -> None:
    agreement = kit.tee(scene.agreement(), anchors=(INTEL_ROOT_DIGEST,))
    await kit.ask(broker, refused, tmp_path, await scene.body(agreement))


@pytest.mark.parametrize(
    "anchor",
    [
        case("other", bytes([1]) * 32, "a registration under an anchor that nobody has", "R4", "enclave.path"),
        case("Intel", INTEL_ROOT_DIGEST, "a development registration as Intel's", "R2 R4", "enclave.path"),
    ],
)
async def test_a_registration_under_another_anchor_than_the_evidences(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, anchor: bytes
) -> None:
    agreement = kit.tee(scene.agreement(), anchors=(scene.world.root, INTEL_ROOT_DIGEST, anchor))
    body = await scene.body(agreement)
    release = scene.ask(agreement, body.request, anchor=anchor)
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"release": release}))
    await broker.releases.release(body)


VOUCHER = Voucher(anchor=bytes([2]) * 32, measurement=bytes([3]) * 32)


@pytest.mark.parametrize(
    "said",
    [
        case("agreed", (False, True), "a verifier enclave that nobody agreed on", "R4", "enclave.anchor"),
        case("asked", (True, False), "a verifier enclave, and the evidence's own root as anchor", "R4", "enclave.path"),
        case("never", (True, True), "an agreed verifier enclave that never vouched for it", "R2 R4", "enclave.unknown"),
    ],
)
async def test_a_verifier_that_does_not_vouch(
    scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused, said: tuple[bool, bool]
) -> None:
    """The host names whom it likes as having vouched: the anchor that this makes has to be agreed and to have the record."""
    listed, asked = said
    through = registered_under(scene.world.root, VOUCHER)
    agreement = kit.tee(scene.agreement(), anchors=(scene.world.root, *([through] if listed else [])))
    body = await scene.body(agreement)
    evidence = body.evidence.model_copy(update={"voucher": VOUCHER})
    release = scene.ask(agreement, body.request, anchor=through if asked else scene.anchor)
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"evidence": evidence, "release": release}))


@lie("evidence", "a development root to a broker of a public chain", "R4", "anchors.root_on_public_chain")
async def test_a_development_root_on_a_public_chain(scene: Scene, tmp_path: Path, refused: Refused) -> None:
    directory = scene.broker_directory(tmp_path)

    async def started() -> bool:
        return (directory / LOG_FILE).exists()

    refused.watch(started)
    async with refused():
        await open_broker(scene.config(directory, served={"chain_id": 11155111}))
    await (await open_broker(scene.config(directory))).close()


@lie("evidence", "a root of its own in the place of Intel's file", "R4", "anchors.root_format")
async def test_another_root_in_the_place_of_intels(
    scene: Scene, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, package = scene.broker_directory(tmp_path), tmp_path / "package"
    (package / "roots").mkdir(parents=True)
    (package / "roots" / "intel-sgx-root-ca.der").write_bytes(scene.world.authority.root_der)

    async def started() -> bool:
        return (directory / LOG_FILE).exists()

    refused.watch(started)
    monkeypatch.setattr("oracle.attestation.anchors.resources.files", lambda name: package)
    async with refused():
        await open_broker(scene.config(directory, anchors={"intel": True}))


# TCB and debug: the broker goes by its own collateral (R13)


@pytest.mark.parametrize(
    "changes",
    [
        case("status", {"status": "OutOfDate"}, "an outdated platform", "R3", "evidence.status_not_allowed"),
        case("QE", {"qe_status": "OutOfDate"}, "an outdated quoting enclave", "R3", "evidence.status_not_allowed"),
        case("revoked", {"status": "Revoked"}, "a platform with a revoked TCB", "R3", "evidence.quote_refused"),
        case("floor", {"evaluation": 16}, "a TCB evaluation below the floor", "R3", "evidence.evaluation_below_floor"),
        case("QE floor", {"qe_evaluation": 16}, "an old QE identity", "R3", "evidence.evaluation_below_floor"),
    ],
)
async def test_a_bad_platform(
    scene: Scene, body: ReleaseBody, tmp_path: Path, refused: Refused, changes: dict[str, Any]
) -> None:
    own = tmp_path / "own.json"
    own.write_text(collateral_with(scene.world, **changes))
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path), collateral=own))
    await kit.ask(broker, refused, tmp_path, body)
    own.write_text(collateral_with(scene.world))
    await broker.releases.release(body)  # fresh collateral is read without a restart
    await broker.close()


@lie("evidence", "a platform whose certificate was revoked", "R3 R13", "evidence.quote_refused")
async def test_a_revoked_platform(scene: Scene, body: ReleaseBody, tmp_path: Path, refused: Refused) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps(scene.world.authority.collateral(revoked=[scene.world.platform])))
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path), collateral=own))
    await kit.ask(broker, refused, tmp_path, body)
    own.write_text(collateral_with(scene.world))
    await broker.releases.release(body)
    await broker.close()


@lie("evidence", "an enclave whose memory it can read by a debugger", "R3", "evidence.debug_enclave")
async def test_a_debug_enclave(scene: Scene, broker: KeyBroker, tmp_path: Path, refused: Refused) -> None:
    """The parties were talked into its measurement, too, which covers the attributes."""
    program = replace(scene.world.program, flags=FLAG_INIT | FLAG_DEBUG | FLAG_MODE64BIT)
    debug = Enclave(SoftwareAttester(scene.world.platform, program))
    agreement = kit.tee(scene.agreement(), measurements=(program.measurement,))
    await kit.ask(broker, refused, tmp_path, await scene.body(agreement, enclave=debug))


# Quotes of others, and one quote twice


@pytest.mark.parametrize(
    "recorded",
    [
        case("SGX", "phala-sgx-v3", "a real SGX quote of somebody else's", "R2", "evidence.report_data_mismatch"),
        case("TDX", "phala-tdx-v4", "a real TDX quote of somebody else's", "R2", "evidence.report_data_mismatch"),
    ],
)
async def test_a_real_quote_of_somebody_else(scene: Scene, tmp_path: Path, refused: Refused, recorded: str) -> None:
    """Everything about it is agreed and holds; it only binds another key."""
    found = recorded_kit.case(recorded)
    run, tee = found["verify"][0], {"sgx": 1, "tdx": 2}[found["tee"]]
    quote, collateral = recorded_kit.evidence(found), recorded_kit.collateral_file(run["collateral"])
    trust = Trust({INTEL_ROOT_DIGEST: intel_root()}, CollateralFiles(collateral), lambda: run["now"])
    verified = trust.verify(tee, quote)
    agreement = kit.tee(
        scene.agreement(),
        measurements=(verified.measurement,),
        anchors=(INTEL_ROOT_DIGEST,),
        status_mask=1 << (verified.tcb_status or 0),
        eval_floor=1,
    )
    check_policy(verified, agreement.tee, parse_dcap(tee, quote).report_data)  # all but the key is as agreed

    body = await scene.body(agreement)
    config = scene.config(scene.broker_directory(tmp_path), anchors={"intel": True}, collateral=collateral)
    broker = await open_broker(config, clock=lambda: run["now"])
    evidence = body.evidence.model_copy(update={"tee": tee, "quote": quote})
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"evidence": evidence}))
    await broker.close()


@lie("evidence", "a quote with words of its own behind it", "R2", "evidence.evidence_trailing_bytes")
async def test_trailing_bytes(
    scene: Scene, broker: KeyBroker, body: ReleaseBody, tmp_path: Path, refused: Refused
) -> None:
    await kit.ask(broker, refused, tmp_path, with_quote(body, kit.padded(body.evidence.quote) + b"\x01"))
    await broker.releases.release(body)


@pytest.mark.parametrize(
    "another_form",
    [
        case("padded", kit.padded, "a used quote again, with zeros behind it", "R2 R13", "release.cap"),
        case("malleated", kit.malleated, "a used quote again, its signature malleated", "R2 R13", "release.cap"),
    ],
)
async def test_one_quote_twice(
    scene: Scene, broker: KeyBroker, body: ReleaseBody, tmp_path: Path, refused: Refused, another_form: Any
) -> None:
    """Both forms verify, and are the same enclave on the same platform: they gain no release beyond the cap."""
    await broker.releases.release(body)
    release = scene.ask(body.agreement, body.request)
    again = with_quote(body, another_form(body.evidence.quote)).model_copy(update={"release": release})
    await kit.ask(broker, refused, tmp_path, again)


@lie("evidence", "the same machine under a new boot's keys, past the cap", "R1 R13", "release.cap")
async def test_a_new_boot_past_the_cap(
    scene: Scene, broker: KeyBroker, body: ReleaseBody, tmp_path: Path, refused: Refused
) -> None:
    await broker.releases.release(body)
    boot = Enclave(scene.world.enclave.attester)
    evidence = await scene.evidence(boot)
    await scene.register(evidence, boot)
    release = scene.ask(body.agreement, body.request, boot)
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"evidence": evidence, "release": release}))


# Two anchors in one registry (R2)


@lie("evidence", "its own root's record of the same enclave", "R2 R4", "enclave.path")
async def test_the_record_of_another_anchor(scene: Scene, tmp_path: Path, refused: Refused) -> None:
    """The registry takes the host's verifier, too. Its record stands beside the agreed one, and counts for nothing."""
    scene, theirs = await kit.with_second_verifier(scene)
    await scene.register(await scene.evidence())
    agreed = kit.identity(scene, scene.world.enclave.signer.address)
    before = await agreed()
    await theirs.register(await theirs.evidence())
    assert await agreed() == before

    agreement: Agreement = scene.agreement()
    body = await scene.body(agreement)
    release = scene.ask(agreement, body.request, anchor=theirs.anchor)
    broker = await open_broker(scene.config(scene.broker_directory(tmp_path)))
    await kit.ask(broker, refused, tmp_path, body.model_copy(update={"release": release}))
    await broker.releases.release(body)
    await broker.close()
