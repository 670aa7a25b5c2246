"""Evidence where a party or a worker judges it, before anything is signed (R2 to R5)."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
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
from oracle.attestation import INTEL_ROOT_DIGEST
from oracle.chain.deploy import Deployment
from oracle.chain.sender import Receipt, Sender
from oracle.chain.source import SingleSource
from oracle.errors import Permanent
from oracle.worker.collateral import open_appraisal
from oracle.worker.config import AttestationConfig
from oracle.worker.register import Registrar
from oracle.worker.registrars import make_registrar
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


# The worker that registers an enclave: it holds the evidence against what the enclave says of itself, before it pays for it


class Wallet(Sender):
    """A wallet that remembers what it was asked to send, and sends nothing."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    async def transact(
        self,
        to: str | None,
        data: bytes,
        *,
        value: int = 0,
        gas: int | None = None,
        purpose: str = "other",
        key: bytes = b"",
    ) -> Receipt:
        self.asked.append(to)
        raise Permanent("wallet.empty", "this wallet sends nothing")


class Nowhere(SingleSource):
    """No chain."""

    def __init__(self) -> None:
        pass


DEPLOYMENT = Deployment(
    chain_id=31337,
    agreement_registry="0x" + "a1" * 20,
    enclave_registry="0x" + "a3" * 20,
    oracle="0x" + "a2" * 20,
    streams="0x" + "a6" * 20,
    audits="0x" + "a7" * 20,
    verifiers={"dcap": "0x" + "a4" * 20},
    collateral="0x" + "a5" * 20,
    first_block=0,
)


@dataclass(frozen=True)
class Booth:
    """A worker's registrar, and an enclave that comes to it with evidence that holds."""

    directory: Path
    authority: DevelopmentAuthority = field(default_factory=lambda: DevelopmentAuthority(NOW))
    program: SoftwareEnclave = field(default_factory=lambda: SoftwareEnclave(bytes([0xE1]) * 32, b"{}"))
    wallet: Wallet = field(default_factory=Wallet)
    signer: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)

    def registrar(self, **changes: Any) -> Registrar:
        root, collateral = self.directory / "root.der", self.directory / "collateral.json"
        root.write_bytes(self.authority.root_der)
        collateral.write_text(json.dumps(self.authority.collateral()))
        attestation = AttestationConfig(root=root, collateral=collateral)
        deployment = DEPLOYMENT.model_copy(update=changes)
        found = make_registrar(open_appraisal(attestation, deployment.chain_id), deployment, self.wallet, Nowhere())
        assert found is not None
        return found

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

    async def sent(self) -> object:
        return list(self.wallet.asked)


@pytest.fixture
async def booth(tmp_path: Path) -> Booth:
    """Its registrar knows an honest enclave."""
    booth = Booth(tmp_path)
    evidence = await booth.evidence()
    assert booth.registrar().identify(evidence, booth.identity, NOW)[1].measurement == booth.program.measurement
    return booth


async def identify(refused: Refused, booth: Booth, evidence: Evidence, identity: Identity | None = None) -> None:
    refused.watch(booth.sent)
    async with refused():
        booth.registrar().identify(evidence, identity or booth.identity, NOW)


@lie("evidence", "a development root to a worker of a public chain", "R4", "attestation.root_on_public_chain")
async def test_a_development_root_for_a_worker_on_a_public_chain(booth: Booth, refused: Refused) -> None:
    refused.watch(booth.sent)
    async with refused():
        booth.registrar(chain_id=SEPOLIA)


@lie("evidence", "a quote under a made-up root to a worker", "R4", "evidence.quote_refused")
async def test_a_made_up_root_before_a_worker(booth: Booth, refused: Refused) -> None:
    await identify(refused, booth, await booth.evidence(DevelopmentAuthority(NOW)))


@lie("evidence", "a debug enclave to a worker", "R3", "evidence.debug_enclave")
async def test_a_debug_enclave_before_a_worker(booth: Booth, refused: Refused) -> None:
    program = replace(booth.program, flags=FLAG_INIT | FLAG_DEBUG | FLAG_MODE64BIT)
    debug = replace(booth, program=program)
    await identify(refused, debug, await debug.evidence())


@pytest.mark.parametrize(
    "change",
    [
        case("chain", {"chain_id": 1}, "another chain's quote to a worker", "R2", MISMATCH),
        case("registry", {"registry": "0x" + "a5" * 20}, "another registry's quote to a worker", "R2", MISMATCH),
        case("block", {"block_hash": bytes(32)}, "another block's quote to a worker", "R2", MISMATCH),
        case("signer", {"signer": "0x" + "a6" * 20}, "another enclave's quote to a worker", "R2", MISMATCH),
    ],
)
async def test_a_quote_of_something_else_before_a_worker(
    booth: Booth, refused: Refused, change: dict[str, Any]
) -> None:
    evidence = await booth.evidence()
    await identify(refused, booth, evidence.model_copy(update=change))


@lie("evidence", "another program than it says, to a worker", "R3", "evidence.measurement_not_listed")
async def test_another_program_before_a_worker(booth: Booth, refused: Refused) -> None:
    identity = booth.identity.model_copy(update={"measurement": bytes([1]) * 32})
    await identify(refused, booth, await booth.evidence(), identity)
