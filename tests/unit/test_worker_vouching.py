"""Registering on a verifier's word: what is refused before anything is sent."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import Evidence
from enclave_app.protocol.fields import ZERO32
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import VerifierStatement
from enclave_app.protocol.wire import AppraisalAnswer, AppraisalBody, Identity
from oracle.chain.deploy import Deployment
from oracle.chain.enclaves import RegisteredEnclave
from oracle.chain.reader import IdentityRecord, Standing
from oracle.chain.source import SingleSource
from oracle.errors import OracleError, Permanent, Refused, Retryable
from oracle.worker import vouching
from oracle.worker.config import AttestationConfig
from oracle.worker.enclave import Enclave
from oracle.worker.vouching import AttestedRegistrar, Vouching, open_vouching
from tests.receipt_kit import authority, make_story
from tests.snp_kit import Authority

NOW = int(time.time())
STORY = make_story()
CHIP = Authority().chip()
CERTIFICATES = (CHIP.ek, CHIP.authority.ask, CHIP.authority.ark)
CONTRACT = "0x" + "44" * 20
DEPLOYMENT = Deployment(
    chain_id=31_337, agreement_registry=CONTRACT, enclave_registry=CONTRACT, oracle=CONTRACT,
    streams=CONTRACT, audits=CONTRACT,
    verifiers={"attested": CONTRACT}, first_block=0,
)  # fmt: skip
KEY = SigningKey.generate()
ANCHOR = b"\x0a" * 32


@dataclass
class Verifier:
    """A verifier enclave that says it is `key`'s, and signs with `signs`."""

    key: SigningKey
    signs: SigningKey

    async def identity(self) -> Identity:
        return Identity(
            signer=self.key.address, sealing_key=b"", tee=1, attester="software", measurement=ZERO32, sandbox=(),
            simulated=True,
        )  # fmt: skip

    async def appraise(self, body: AppraisalBody) -> AppraisalAnswer:
        statement = VerifierStatement(
            tee=body.tee, measurement=ZERO32, report_data=ZERO32, root=CHIP.authority.root, tcb_status=1, evaluation=1,
            platform=ZERO32, svn_digest=ZERO32, collateral=ZERO32, appraised_at=body.now, valid_until=body.now + 60,
        )  # fmt: skip
        domain = Domain(chain_id=body.chain_id, verifying_contract=body.registry)
        return AppraisalAnswer(statement=statement, signature=self.signs.sign(statement.typed_digest(domain)))


class Source:
    async def confirmed(self, how: object) -> object:
        return None


def registrar(signs: SigningKey = KEY, root: bytes | None = None, files: Path | None = None) -> AttestedRegistrar:
    asked = Vouching(cast(Enclave, Verifier(KEY, signs)), root, files, None)
    return AttestedRegistrar.of(asked, DEPLOYMENT, cast(SingleSource, Source()))


def registered(valid: bool = True, verifier: bytes = ZERO32) -> RegisteredEnclave:
    identity = STORY.record.enclave.model_copy(update={"verifier": verifier})
    standing = Standing(1, False, 0, 17, 0, 0, NOW, NOW + 60, 1)
    return RegisteredEnclave(ANCHOR, KEY.address, IdentityRecord(identity, standing), valid)


def guest(**changes: Any) -> Evidence:
    """An SEV-SNP guest's evidence; `changes` of it."""
    told = {"tee": 3, "quote": CHIP.report(), "endorsements": CERTIFICATES, "voucher": None, **changes}
    return STORY.record.evidence.model_copy(update=told)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[RegisteredEnclave]:
    """What the registry knows of the verifier's signer."""
    found: list[RegisteredEnclave] = []

    async def read(source: object, deployment: object, head: object, signer: str) -> tuple[RegisteredEnclave, ...]:
        assert signer == KEY.address
        return tuple(found)

    monkeypatch.setattr(vouching, "registered_enclaves", read)
    return found


@pytest.mark.parametrize(("chain_id", "good"), [(31_337, True), (1, False)])
async def test_a_development_root_stays_off_public_chains(chain_id: int, good: bool, tmp_path: Path) -> None:
    root = tmp_path / "root.der"
    root.write_bytes(authority().root_der)
    config = AttestationConfig(vouched_by=tmp_path / "verifier.sock", root=root)
    if good:
        async with open_vouching(config, chain_id) as opened:
            assert opened is not None
            assert opened.root == sha256(authority().root_der)
        return
    with pytest.raises(Refused) as refused:
        async with open_vouching(config, chain_id):
            pass
    assert refused.value.code == "attestation.root_on_public_chain"


def test_a_deployment_without_that_contract_is_no_place_for_it() -> None:
    asked = Vouching(cast(Enclave, Verifier(KEY, KEY)), None, None, None)
    with pytest.raises(Permanent) as refused:
        AttestedRegistrar.of(asked, DEPLOYMENT.model_copy(update={"verifiers": {}}), cast(SingleSource, Source()))
    assert refused.value.code == "config.deployment"


@pytest.mark.parametrize("found", [[], [registered(valid=False)], [registered(verifier=b"\1" * 32)]])
async def test_only_a_verifier_that_is_registered_by_its_own_evidence_counts(
    found: list[RegisteredEnclave], known: list[RegisteredEnclave]
) -> None:
    known.extend(found)
    with pytest.raises(Retryable) as refused:
        await registrar().voucher()
    assert refused.value.code == "register.verifier"
    known.append(replace(registered(), anchor=b"\x0b" * 32))
    voucher = await registrar().voucher()
    assert voucher is not None
    assert (voucher.anchor, voucher.measurement) == (b"\x0b" * 32, STORY.record.enclave.measurement)


async def test_another_enclave_behind_the_same_address_is_asked_again(known: list[RegisteredEnclave]) -> None:
    known.append(registered())
    good, other = registrar(), registrar(signs=SigningKey.generate())
    for each in (good, other):
        await each.voucher()
    assert await good.proof(guest(), None, NOW)
    with pytest.raises(Retryable) as refused:
        await other.proof(guest(), None, NOW)
    assert refused.value.code == "register.verifier"


LIES: dict[str, tuple[dict[str, Any], bytes | None, str]] = {
    "the maker's root was configured": ({}, None, "evidence.root_mismatch"),
    "another root was configured": ({}, b"\1" * 32, "evidence.root_mismatch"),
    "no certificates": ({"endorsements": ()}, CHIP.authority.root, "`endorsements`"),
    "one certificate": ({"endorsements": CERTIFICATES[:1]}, CHIP.authority.root, "`endorsements`"),
    "a quote that contracts check": (
        {"tee": 1, "quote": STORY.record.evidence.quote}, CHIP.authority.root, "register.vouched"
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_evidence_that_the_verifier_need_not_be_asked_about_is_refused(lie: str) -> None:
    changes, root, told = LIES[lie]
    evidence, claimed = guest(**changes), await Verifier(KEY, KEY).identity()
    with pytest.raises(OracleError) as refused:
        registrar(root=root).identify(evidence, claimed, NOW)
    assert told in f"{refused.value.code} {refused.value.message}"


def test_what_the_host_lacks_is_read_from_its_files(tmp_path: Path) -> None:
    for name, content in zip(vouching.ENDORSEMENTS, CERTIFICATES, strict=True):
        (tmp_path / name).write_bytes(content)
    asked = registrar(files=tmp_path)
    for given in range(4):
        assert asked.endorse(CERTIFICATES[:given]) == CERTIFICATES
    assert registrar().endorse(()) == ()
    (tmp_path / "ask.der").unlink()
    with pytest.raises(Retryable) as refused:
        asked.endorse(CERTIFICATES[:1])
    assert refused.value.code == "attestation.file"
