"""Evidence where a party or an appraiser judges it, before anything is signed (R2 to R5)."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import yaml

from enclave_app.attesters.dcap_format import FLAG_DEBUG, FLAG_INIT, FLAG_MODE64BIT
from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.evidence import Evidence, report_data
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.wire import Identity
from oracle.agreement.document import AgreementDocument
from oracle.agreement.explain import Severity, explain
from oracle.attestation import INTEL_ROOT_DIGEST, Collateral, DevelopmentRoot
from oracle.worker.register import DevelopmentAppraiser
from tests.adversary import desk_kit as kit
from tests.adversary.chain_kit import case as any_case
from tests.adversary.desk_kit import Desk
from tests.adversary.lies import Refused, lie

desk, made = kit.desk, kit.made
case = partial(any_case, "evidence")

MADE_UP = bytes([0xDE]) * 32
SEPOLIA = 11155111
NOW = int(time.time())
MISMATCH = "evidence.report_data_mismatch"


# A party that reads, drafts or signs


def with_root(document: AgreementDocument, chain_id: int) -> AgreementDocument:
    """What another party made of it: a root of its own beside Intel's, on that chain."""
    tee = document.agreement.tee.model_copy(update={"anchors": (INTEL_ROOT_DIGEST, MADE_UP)})
    terms = document.agreement.model_copy(update={"tee": tee})
    chain = document.chain.model_copy(update={"chain_id": chain_id})
    return document.model_copy(update={"agreement": terms, "chain": chain})


@lie("evidence", "a draft with a development root on a public chain", "R4", "agreement.development_anchor")
async def test_a_draft_with_a_development_root(desk: Desk, refused: Refused) -> None:
    draft = copy.deepcopy(desk.case.value)
    draft["chain"]["id"] = SEPOLIA
    draft["enclaves"]["anchors"] = ["intel", "0x" + MADE_UP.hex()]
    path = desk.case.base / "sepolia.yaml"  # beside the files that it names
    path.write_text(yaml.safe_dump(draft))
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", "draft", path, "--out", desk.base / "agreement.json")


@pytest.mark.parametrize(
    "command",
    [
        case("sign", "sign", "an agreement with a root of its own to sign", "R4", "agreement.development_anchor"),
        case(
            "approve", "approve", "an agreement with a root of its own to approve", "R4", "agreement.development_anchor"
        ),
    ],
)
async def test_an_agreement_with_a_development_root(desk: Desk, refused: Refused, command: str) -> None:
    path = desk.received(with_root(desk.case.draft().document, SEPOLIA))
    refused.watch(desk.files)
    async with refused():
        await desk.run("agreement", command, path, "--yes", *desk.as_lab)


@lie("evidence", "a made-up root beside Intel's, where development roots may be", "R4", "danger")
async def test_a_made_up_root_is_said_loudly(desk: Desk, refused: Refused) -> None:
    document = desk.case.draft().document
    assert not [line for line in explain(document) if line.severity is Severity.DANGER]
    (line,) = [line for line in explain(with_root(document, 31337)) if MADE_UP.hex() in line.text]
    assert "no hardware maker stands behind it" in line.text
    refused.as_reason(line.severity.value)


@lie("evidence", "any host at all, in an agreement to sign", "R5", "danger")
async def test_any_host_is_said_loudly(desk: Desk, refused: Refused) -> None:
    document = desk.case.draft().document
    tee = document.agreement.tee.model_copy(update={"any_host": True, "operators": ()})
    changed = document.model_copy(update={"agreement": document.agreement.model_copy(update={"tee": tee})})
    (line,) = [line for line in explain(changed) if "ANY HOST" in line.text]
    refused.as_reason(line.severity.value)


# The appraiser whose word registers development enclaves


class Pen(SigningKey):
    """An appraiser's key that remembers how often it signed."""

    signed = 0

    def sign(self, digest: bytes) -> bytes:
        self.signed += 1
        return super().sign(digest)


@dataclass(frozen=True)
class Booth:
    """An appraiser, and an enclave that comes to it with evidence that holds."""

    authority: DevelopmentAuthority = field(default_factory=lambda: DevelopmentAuthority(NOW))
    program: SoftwareEnclave = field(default_factory=lambda: SoftwareEnclave(bytes([0xE1]) * 32, b"{}"))
    pen: Pen = field(default_factory=lambda: Pen(bytes([7]) * 32))
    signer: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)

    def appraiser(self, **changes: Any) -> DevelopmentAppraiser:
        fields: dict[str, Any] = {
            "key": self.pen,
            "verifier": "0x" + "a4" * 20,
            "chain_id": 31337,
            "root": DevelopmentRoot(self.authority.root_der),
            "collateral": Collateral.from_json(json.dumps(self.authority.collateral())),
        }
        return DevelopmentAppraiser(**{**fields, **changes})

    @property
    def identity(self) -> Identity:
        return Identity(
            signer=self.signer.address,
            sealing_key=self.sealing.public.wire,
            tee=1,
            attester="software",
            measurement=self.program.measurement,
            sandbox=(),
            simulated=True,
        )

    async def evidence(self, authority: DevelopmentAuthority | None = None) -> Evidence:
        attester = SoftwareAttester((authority or self.authority).issue_platform(), self.program)
        registry, block = "0x" + "a3" * 20, bytes([5]) * 32
        bound = report_data(31337, registry, self.signer.address, self.sealing.public.digest, block)
        return Evidence(
            tee=1,
            quote=await attester.quote(bound),
            signer=self.signer.address,
            sealing_key=self.sealing.public.wire,
            chain_id=31337,
            registry=registry,
            block_number=1,
            block_hash=block,
            operator=ZERO_ADDRESS,
            operator_signature=b"",
        )

    async def signatures(self) -> object:
        return self.pen.signed


@pytest.fixture
async def booth() -> Booth:
    """Its appraiser signs for an honest enclave."""
    booth = Booth()
    booth.appraiser().proof(await booth.evidence(), booth.identity, NOW)
    assert booth.pen.signed == 1
    return booth


async def appraise(refused: Refused, booth: Booth, evidence: Evidence, identity: Identity | None = None) -> None:
    refused.watch(booth.signatures)
    async with refused():
        booth.appraiser().proof(evidence, identity or booth.identity, NOW)


@lie("evidence", "a development root to an appraiser on a public chain", "R4", "anchors.root_on_public_chain")
async def test_an_appraiser_on_a_public_chain(booth: Booth, refused: Refused) -> None:
    refused.watch(booth.signatures)
    async with refused():
        booth.appraiser(chain_id=SEPOLIA).proof(await booth.evidence(), booth.identity, NOW)


@lie("evidence", "a quote under a made-up root to an appraiser", "R4", "evidence.quote_refused")
async def test_a_made_up_root_before_an_appraiser(booth: Booth, refused: Refused) -> None:
    await appraise(refused, booth, await booth.evidence(DevelopmentAuthority(NOW)))


@lie("evidence", "a debug enclave to an appraiser", "R3", "evidence.debug_enclave")
async def test_a_debug_enclave_before_an_appraiser(booth: Booth, refused: Refused) -> None:
    program = replace(booth.program, flags=FLAG_INIT | FLAG_DEBUG | FLAG_MODE64BIT)
    debug = replace(booth, program=program)
    await appraise(refused, debug, await debug.evidence())


@pytest.mark.parametrize(
    "change",
    [
        case("chain", {"chain_id": 1}, "another chain's quote to an appraiser", "R2", MISMATCH),
        case("registry", {"registry": "0x" + "a5" * 20}, "another registry's quote to an appraiser", "R2", MISMATCH),
        case("block", {"block_hash": bytes(32)}, "another block's quote to an appraiser", "R2", MISMATCH),
        case("signer", {"signer": "0x" + "a6" * 20}, "another enclave's quote to an appraiser", "R2", MISMATCH),
    ],
)
async def test_a_quote_of_something_else_before_an_appraiser(
    booth: Booth, refused: Refused, change: dict[str, Any]
) -> None:
    evidence = await booth.evidence()
    await appraise(refused, booth, evidence.model_copy(update=change))


@lie("evidence", "another program than it says, to an appraiser", "R3", "evidence.measurement_not_listed")
async def test_another_program_before_an_appraiser(booth: Booth, refused: Refused) -> None:
    identity = booth.identity.model_copy(update={"measurement": bytes([1]) * 32})
    await appraise(refused, booth, await booth.evidence(), identity)
