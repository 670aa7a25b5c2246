"""Evidence that no contract can check: an SEV-SNP guest registers on the word of a verifier enclave, and works."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from eth_abi.abi import encode

from enclave_app.attesters.certificates import VCEK
from enclave_app.protocol.evidence import Voucher, attested_anchor, registered_under
from enclave_app.protocol.structs import Confirmation, Outcome, TaskState, TcbStatus
from enclave_app.protocol.wire import AppraisalBody, EvidenceBody
from oracle.chain.abi import load
from oracle.chain.enclaves import RegisteredEnclave, registered_enclaves
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Sender, account_of
from oracle.chain.source import SingleSource
from oracle.devnet import Devnet
from oracle.devnet.processes import until
from oracle.devnet.scenario import activate, prepare
from oracle.errors import Permanent
from oracle.receipt import Expected, Verdict, verify_receipt, verify_with_chain
from oracle.worker.enclave import Enclave
from oracle.worker.vouching import ATTESTED
from tests import nitro_kit
from tests.attester_kit import NsmDevice, Tsm, machine, packed_table
from tests.e2e import attested_kit as kit
from tests.e2e.attested_kit import Party
from tests.e2e.conftest import PARAMS, QUERY, expected, tables
from tests.snp_kit import DAY, Authority, Chip

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Scene:
    """`guest` is to be vouched for by `verifier`; `lax` is a verifier that asks for less, and both are registered."""

    devnet: Devnet
    home: Path
    chip: Chip
    guest: Party
    verifier: Party
    lax: Party

    @property
    def voucher(self) -> Voucher:
        return Voucher(anchor=self.devnet.anchor, measurement=self.verifier.identity.measurement)

    @property
    def anchor(self) -> bytes:
        return registered_under(self.chip.authority.root, self.voucher)

    async def registered(self, party: Party) -> dict[bytes, RegisteredEnclave]:
        """Its registrations, by anchor."""
        rpc = Rpc(self.devnet.rpc_url)
        try:
            source = SingleSource(rpc)
            head = await source.confirmed(Confirmation.LATEST)
            found = await registered_enclaves(source, self.devnet.deployment, head, party.identity.signer)
            return {each.anchor: each for each in found}
        finally:
            await rpc.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(devnet: Devnet, home: Path) -> AsyncIterator[Scene]:
    chip, platform = kit.milan(), devnet.directory / "platform"
    (home / "ark.der").write_bytes(chip.authority.ark)
    own = {"root": str(platform / "root.der"), "collateral": str(platform / "collateral.json")}
    vouched = {"root": str(home / "ark.der"), "vouchedBy": str(home / "nobody.sock")}
    policy, less = (kit.verifier_config([chip.authority.root], aliasCheck=each) for each in ("require", "skip"))
    hardware = Tsm("sev_guest", chip.report, kit.table(chip))
    (home / "machine").mkdir()
    with machine(home / "machine", tsm=hardware) as root:
        async with (
            kit.party(devnet, home / "guest", kit.guest_config(), root, vouched) as guest,
            kit.party(devnet, home / "verifier", policy, platform, own) as verifier,
            kit.party(devnet, home / "lax", less, platform, own) as lax,
        ):
            await kit.trust_root(devnet, home / "ark.der")
            yield Scene(devnet, home, chip, guest, verifier, lax)


def said(receipt: bytes) -> dict[str, Any]:
    """The evidence in a receipt."""
    found: dict[str, Any] = json.loads(receipt)["evidence"]
    return found


async def vouch(scene: Scene, by: Party | Path | str) -> tuple[int, dict[str, Any]]:
    where = by.socket if isinstance(by, Party) else by
    return await scene.guest.cli("enclave", "vouch", "--by", str(where), "--root", str(scene.home / "ark.der"))


async def test_a_verifier_that_is_not_registered_vouches_for_nobody(scene: Scene) -> None:
    status, told = await vouch(scene, scene.verifier)
    assert (status, told["code"]) == (1, "register.verifier")
    assert await scene.registered(scene.guest) == {}


async def test_a_verifier_registers_by_its_own_quote(scene: Scene) -> None:
    for party in (scene.verifier, scene.lax):
        status, told = await party.cli("enclave", "register")
        assert (status, told["anchor"]) == (0, "0x" + scene.devnet.anchor.hex())
    assert scene.verifier.identity.measurement != scene.lax.identity.measurement


async def test_its_word_registers_a_guest_under_an_anchor_that_names_it(scene: Scene) -> None:
    asked: list[str] = []
    async with kit.published(scene.verifier.socket, asked) as url:
        status, told = await vouch(scene, url)
    assert status == 0
    # What whoever relays a verifier's socket has to pass on (docs/attestation.md).
    assert set(asked) == {"/snp/v1/identity", "/snp/v1/appraise"}
    expected_anchor = attested_anchor(
        scene.devnet.anchor, scene.verifier.identity.measurement, scene.chip.authority.root
    )
    (found,) = (await scene.registered(scene.guest)).values()
    assert (found.anchor, found.valid) == (expected_anchor, True)
    assert told["anchor"] == "0x" + expected_anchor.hex()
    assert told["verifier"] == "0x" + scene.verifier.identity.measurement.hex()
    assert told["simulated"]
    identity, standing = found.record.identity, found.record.standing
    assert (identity.measurement, identity.tee) == (scene.guest.identity.measurement, 3)
    # R4: the lowest along the path, and never longer than the verifier's own registration.
    (own,) = (await scene.registered(scene.verifier)).values()
    assert standing.tcb_status == TcbStatus.UP_TO_DATE
    assert standing.evaluation == own.record.standing.evaluation
    assert standing.valid_until <= own.record.standing.valid_until


async def test_an_enclave_that_runs_tasks_vouches_for_nobody(scene: Scene) -> None:
    status, told = await vouch(scene, scene.devnet.directory / "worker" / "enclave.sock")
    assert (status, told["code"]) == (1, "http.404")


async def test_a_verifier_takes_no_task(scene: Scene) -> None:
    async with Enclave(scene.verifier.socket) as enclave:
        with pytest.raises(Permanent) as refused:
            await enclave._send("POST", "/v1/tasks", b"{}", 10)
    assert refused.value.code == "http.404"
    assert scene.verifier.identity.sandbox == ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agreed(scene: Scene) -> bytes:
    return await agree(scene, scene.guest, scene.verifier, scene.home / "ark.der", scene.home / "owners")


async def agree(scene: Scene, guest: Party, verifier: Party, root: Path, home: Path) -> bytes:
    """An agreement that takes the guest, whose chip is of `root`, on the word of that one verifier."""
    enclaves = {
        "measurements": ["0x" + guest.identity.measurement.hex()],
        "anchors": [f"{root} via 0x{verifier.identity.measurement.hex()} under 0x{scene.devnet.anchor.hex()}"],
        "statuses": ["UP_TO_DATE"],
        "evaluationFloor": 1,
        "maxEvidenceAge": "24 h",
        "hosts": ["operator"],
    }
    changes = {"enclaves": enclaves}
    prepared = await prepare(scene.devnet, home, tables(), QUERY, params=PARAMS, changes=changes)
    return await activate(scene.devnet, prepared)


async def test_a_worker_finds_who_vouched_for_its_enclave(scene: Scene, agreed: bytes) -> None:
    async with (
        scene.devnet.client("requester") as client,
        kit.worker(scene.devnet, scene.home / "w0", scene.guest, None),
    ):
        task = await client.request(agreed, {"least": 50})
        assert (await task.result(patience=240)).to_pylist() == expected(50)
        assert (await task.settlement()).result.anchor == scene.anchor


async def test_a_task_runs_in_the_guest_and_settles(scene: Scene, agreed: bytes) -> None:
    async with scene.devnet.client("requester") as client:
        task = await client.request(agreed, {"least": 100})
        # On the word of another verifier the very same guest has another anchor, which nobody agreed on.
        async with kit.worker(scene.devnet, scene.home / "w2", scene.guest, scene.lax.socket) as wrong:

            async def skipped() -> bool:
                lines = wrong.log.read_text().splitlines() if wrong.log.exists() else []
                return any(json.loads(line).get("code") == "plan.anchor" for line in lines if line.startswith("{"))

            await until("the task's refusal", skipped, [wrong], 240)
        assert (await task.state()).state is TaskState.REQUESTED

        asked: list[str] = []
        async with (
            kit.published(scene.verifier.socket, asked) as url,
            kit.worker(scene.devnet, scene.home / "w1", scene.guest, url),
        ):
            assert (await task.result(patience=240)).to_pylist() == expected(100)
            settled = await task.settlement()
            assert (settled.result.outcome, settled.result.anchor) == (Outcome.SUCCEEDED, scene.anchor)
            data = await task.fetch_receipt()

    assert set(asked) == {"/snp/v1/identity"}

    now, known = int(time.time()), Expected(agreement_id=agreed)
    alone = verify_receipt(data, known, now, allow_simulated=True)
    assert (alone.verdict, alone.failed, alone.reason, alone.simulated) == (Verdict.AUTHENTIC, None, None, True)
    # R4: nothing hides that neither root is a maker's.
    assert verify_receipt(data, known, now).verdict is not Verdict.AUTHENTIC
    assert json.loads(data)["assurance"] == "SIMULATED"
    for lie, code in (
        ({"voucher": None}, "evidence.voucher"),
        ({"endorsements": said(data)["endorsements"][:2]}, "evidence.certificate_chain"),
        ({"endorsements": [*said(data)["endorsements"][:2], "0x" + Authority().ark.hex()]}, "evidence.form"),
    ):
        whole = {**json.loads(data), "evidence": {**said(data), **lie}}
        bent = verify_receipt(json.dumps(whole).encode(), known, now, allow_simulated=True)
        assert (bent.verdict, bent.failed, bent.reason) == (Verdict.REFUSED, "evidence", code)
    rpc = Rpc(scene.devnet.rpc_url)
    try:
        found = await verify_with_chain(data, known, now, SingleSource(rpc), allow_simulated=True)
    finally:
        await rpc.close()
    assert (found.verdict, found.failed, found.reason) == (Verdict.AUTHENTIC, None, None)


@pytest.mark.parametrize("given", [{}, {VCEK}])
async def test_what_the_host_hands_no_guest_is_read_from_files(
    scene: Scene, given: set[uuid.UUID], tmp_path: Path
) -> None:
    """A cloud's host gives its guest the chip's certificate, or none at all."""
    chip, authority = scene.chip, scene.chip.authority
    files = {"ek.der": chip.ek, "ask.der": authority.ask, "ark.der": authority.ark}
    (tmp_path / "chip").mkdir()
    config = {"root": str(scene.home / "ark.der"), "endorsements": str(tmp_path / "chip")}
    hardware = Tsm("sev_guest", chip.report, packed_table(dict.fromkeys(given, chip.ek)))
    (tmp_path / "machine").mkdir()
    with machine(tmp_path / "machine", tsm=hardware) as root:
        async with (
            kit.published(scene.verifier.socket, []) as url,
            kit.party(scene.devnet, tmp_path / "bare", kit.guest_config(), root, {**config, "vouchedBy": url}) as guest,
        ):
            status, told = await guest.cli("enclave", "vouch")
            assert (status, told["code"]) == (1, "attestation.file")
            for name, content in files.items():
                (tmp_path / "chip" / name).write_bytes(content)
            # Another maker's chain, or another chip's certificate, is no help.
            other = Authority().chip()
            wrong = "ask.der" if given else "ek.der"
            (tmp_path / "chip" / wrong).write_bytes(other.authority.ask if given else other.ek)
            status, told = await guest.cli("enclave", "vouch")
            assert (status, told["code"]) == (1, "evidence.certificate_chain")
            (tmp_path / "chip" / wrong).write_bytes(files[wrong])
            assert (await guest.cli("enclave", "vouch"))[0] == 0
            assert set(await scene.registered(guest)) == {scene.anchor}
            # The same by options, in place of the configuration's.
            by = ("--by", url, "--root", config["root"])
            status, told = await guest.cli("enclave", "vouch", *by)
            assert (status, told["code"]) == (1, "evidence.certificate_chain")
            assert "`endorsements`" in told["message"]
            assert (await guest.cli("enclave", "vouch", *by, "--endorsements", config["endorsements"]))[0] == 0


async def test_a_verifier_elsewhere_that_does_not_answer_as_one_is_refused(scene: Scene) -> None:
    async with kit.published(scene.home / "nobody.sock", []) as url:
        assert (await vouch(scene, url))[1]["code"] == "http.500"
        assert (await vouch(scene, url + "/else"))[1]["code"] == "http.500"
    status, told = await vouch(scene, "http://127.0.0.1:1")
    assert (status, told["code"]) == (1, "enclave.unreachable")


async def test_a_nitro_enclave_works_on_the_word_of_a_verifier(scene: Scene, tmp_path: Path) -> None:
    chain = nitro_kit.links(int(time.time()))
    certificates = nitro_kit.chain(chain)
    root = scene.home / "nitro.der"
    root.write_bytes(certificates[0])
    platform = scene.devnet.directory / "platform"
    own = {"root": str(platform / "root.der"), "collateral": str(platform / "collateral.json")}
    rule = kit.verifier_config([], nitro=[nitro_kit.root_of(certificates)])
    (tmp_path / "machine").mkdir()
    with machine(tmp_path / "machine", nsm=NsmDevice(kit.nitro_module(chain, certificates))) as devices:
        async with (
            kit.party(scene.devnet, scene.home / "aws", rule, platform, own) as verifier,
            kit.party(
                scene.devnet,
                scene.home / "nitro",
                kit.guest_config("nitro"),
                devices,
                {"root": str(root), "vouchedBy": str(verifier.socket)},
            ) as guest,
        ):
            for each in (scene.verifier, verifier):
                assert (await each.cli("enclave", "register"))[0] == 0
            # Each vouches for what its configuration says, and nothing else (R21).
            status, told = await guest.cli("enclave", "vouch", "--by", str(scene.verifier.socket), "--root", str(root))
            assert (status, told["code"]) == (1, "appraisal.tee")
            await kit.trust_root(scene.devnet, root)
            agreed = await agree(scene, guest, verifier, root, tmp_path / "owners")
            async with (
                scene.devnet.client("requester") as client,
                kit.worker(scene.devnet, tmp_path / "worker", guest, verifier.socket),
            ):
                task = await client.request(agreed, {"least": 50})
                assert (await task.result(patience=240)).to_pylist() == expected(50)
                data = await task.fetch_receipt()
            (found,) = (await scene.registered(guest)).values()
    identity = found.record.identity
    assert (identity.tee, identity.verifier) == (4, verifier.identity.measurement)
    shown = verify_receipt(data, Expected(agreement_id=agreed), int(time.time()), allow_simulated=True)
    assert (shown.verdict, shown.failed, shown.reason, shown.simulated) == (Verdict.AUTHENTIC, None, None, True)


async def test_a_guest_below_the_least_tcb_is_registered_as_out_of_date(scene: Scene) -> None:
    more = {**kit.LEAST, "microcode": kit.LEAST["microcode"] + 1}
    platform = scene.devnet.directory / "platform"
    own = {"root": str(platform / "root.der"), "collateral": str(platform / "collateral.json")}
    config = kit.verifier_config([scene.chip.authority.root], more)
    async with kit.party(scene.devnet, scene.home / "strict", config, platform, own) as strict:
        assert (await strict.cli("enclave", "register"))[0] == 0
        status, told = await vouch(scene, strict)
    assert (status, told["tcb_status"]) == (0, "out_of_date")


async def test_the_word_of_one_that_was_itself_vouched_for_counts_for_nothing(scene: Scene) -> None:
    config = json.loads(kit.verifier_config([scene.chip.authority.root]))
    config["attester"] = "snp"
    raw = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    machine_root = scene.home / "machine"
    vouched = {"root": str(scene.home / "ark.der"), "vouchedBy": str(scene.verifier.socket)}
    async with kit.party(scene.devnet, scene.home / "nested", raw, machine_root, vouched) as nested:
        assert (await nested.cli("enclave", "vouch"))[0] == 0
        status, told = await vouch(scene, nested)
        assert (status, told["code"]) == (1, "register.verifier")


async def test_a_revoked_signing_key_lowers_the_guest_for_ever(scene: Scene) -> None:
    """Anyone asks the verifier again, with AMD's newer list, and challenges."""
    now = int(time.time())
    revoking = scene.chip.authority.crl(scene.chip.authority.ask_serial, start=now - DAY, end=now + DAY)
    deployment = scene.devnet.deployment
    enclave = (await scene.registered(scene.guest))[scene.anchor]
    (own,) = (await scene.registered(scene.verifier)).values()
    rpc = Rpc(scene.devnet.rpc_url)
    try:
        head = await SingleSource(rpc).confirmed(Confirmation.LATEST)
        async with Enclave(scene.guest.socket) as guest, Enclave(scene.verifier.socket) as verifier:
            body = EvidenceBody(
                chain_id=deployment.chain_id,
                registry=deployment.enclave_registry,
                block_hash=head.hash,
                operator=enclave.record.identity.operator,
            )
            evidence = await guest.evidence(body)
            answer = await verifier.appraise(
                AppraisalBody(
                    chain_id=body.chain_id,
                    registry=body.registry,
                    tee=3,
                    quote=evidence.quote,
                    endorsements=evidence.endorsements,
                    crl=revoking,
                    now=max(now, head.timestamp),
                )
            )
        assert answer.statement.tcb_status == TcbStatus.REVOKED
        proof = encode(
            [ATTESTED],
            [(answer.statement.to_abi(), own.anchor, own.signer, own.record.identity.to_abi(), answer.signature)],
        )
        call = load("EnclaveRegistry").call(
            "challenge",
            scene.anchor,
            enclave.signer,
            enclave.record.identity.to_abi(),
            deployment.verifiers["attested"],
            proof,
        )
        sender = Sender(rpc, account_of(scene.devnet.accounts["requester"].wallet))
        assert (await sender.transact(deployment.enclave_registry, call)).ok
    finally:
        await rpc.close()
    lowered = (await scene.registered(scene.guest))[scene.anchor]
    assert (lowered.record.standing.tcb_status, lowered.valid) == (TcbStatus.REVOKED, False)


async def test_without_its_verifier_a_guest_registers_no_more(scene: Scene) -> None:
    await scene.verifier.process.stop()
    status, told = await vouch(scene, scene.verifier)
    assert (status, told["code"]) == (1, "enclave.unreachable")
