"""The broker's own appraisal of evidence that carries its certificates: SEV-SNP and Nitro."""

from __future__ import annotations

from pathlib import Path

import pytest

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.structs import Tee
from oracle.attestation import NitroDocument, parse_evidence
from oracle.attestation.anchors import MAKERS
from oracle.collateral import CollateralFiles
from oracle.errors import Refused
from oracle.keybroker.config import Anchors
from oracle.keybroker.trust import Trust, load_roots
from tests import nitro_kit
from tests.snp_kit import NOW, YEAR, Authority

CHIP = Authority().chip()
ENDS = (CHIP.ek, CHIP.authority.ask, CHIP.authority.ark)
DOCUMENT, AWS = nitro_kit.document(nitro_kit.links())
OTHER = Authority().ark


def trust(*roots: bytes, now: int = NOW) -> Trust:
    return Trust({sha256(root): root for root in roots}, CollateralFiles(Path("/nowhere")), lambda: now)


def refused(code: str, broker: Trust, tee: int, evidence: bytes, endorsements: tuple[bytes, ...]) -> None:
    with pytest.raises(Refused) as caught:
        broker.verify(tee, evidence, endorsements)
    assert caught.value.code == code


def test_a_report_is_verified_under_a_root_of_the_brokers() -> None:
    # In any place among the roots.
    for roots in ((CHIP.authority.ark,), (OTHER, CHIP.authority.ark), (CHIP.authority.ark, OTHER)):
        found = trust(*roots).verify(Tee.SNP, CHIP.report(), ENDS)
        assert (found.root, found.tcb_status) == (CHIP.authority.root, None)


def test_a_document_is_verified_under_a_root_of_the_brokers() -> None:
    parsed = parse_evidence(Tee.NITRO, DOCUMENT)
    assert isinstance(parsed, NitroDocument)
    assert trust(parsed.cabundle[0]).verify(Tee.NITRO, DOCUMENT).root == AWS
    refused("evidence.certificate_chain", trust(parsed.cabundle[0]), Tee.NITRO, DOCUMENT, ENDS)


def test_the_root_that_evidence_brings_along_is_not_its_own_judge() -> None:
    refused("evidence.root_mismatch", trust(OTHER), Tee.SNP, CHIP.report(), ENDS)
    refused("evidence.root_mismatch", trust(OTHER), Tee.NITRO, DOCUMENT, ())


@pytest.mark.parametrize("ends", [(), ENDS[:1], ENDS[:2], (*ENDS, b"")])
def test_a_report_comes_with_three_certificates(ends: tuple[bytes, ...]) -> None:
    refused("evidence.certificate_chain", trust(CHIP.authority.ark), Tee.SNP, CHIP.report(), ends)


def test_a_report_that_was_verified_is_not_taken_with_other_certificates() -> None:
    broker, report = trust(CHIP.authority.ark), CHIP.report()
    broker.verify(Tee.SNP, report, ENDS)
    changed = (ENDS[0][:-1] + bytes([ENDS[0][-1] ^ 1]), *ENDS[1:])
    refused("evidence.certificate_chain", broker, Tee.SNP, report, changed)


def test_certificates_that_have_ended_refuse() -> None:
    with pytest.raises(Exception, match="ended") as caught:
        trust(CHIP.authority.ark, now=NOW + YEAR).verify(Tee.SNP, CHIP.report(), ENDS)
    assert getattr(caught.value, "code", None) == "evidence.collateral_expired"


def test_makers_roots_count_only_where_they_are_written() -> None:
    assert load_roots(Anchors(), (1,)).keys() == MAKERS["intel"].keys()
    assert load_roots(Anchors(intel=False, amd=True), (1,)).keys() == MAKERS["amd"].keys()
    assert load_roots(Anchors(intel=False, aws=True), (1,)).keys() == MAKERS["aws"].keys()
