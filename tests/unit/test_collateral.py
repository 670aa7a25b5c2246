"""Collateral in operation, without a network: Intel's own as recorded, configuration, and the choice of an evaluation."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from multidict import CIMultiDict
from pydantic import ValidationError

from enclave_app.attesters.platform import DEVELOPMENT_FMSPC, DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from oracle.attestation import Code, Collateral, TcbStatus, Tee, VerificationError, intel_root, parse_dcap
from oracle.attestation.onchain.structs import Pck
from oracle.collateral import INTEL_PCS, PcsConfig, check_collateral, pieces
from oracle.collateral.config import under
from oracle.collateral.outlook import ORDER, Standing, choose, rank, standing
from oracle.collateral.pcs import issuer_chain, signed_document
from oracle.collateral.platform import certified_root, platform_named, platform_of, quoted_chain
from oracle.errors import Refused
from tests import recorded_kit
from tests.pcs_kit import spec

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "tests" / "data" / "attestation" / "collateral").glob("*.json"))
NOW = 1_790_000_000
DAY = 86_400
AUTHORITY = DevelopmentAuthority(NOW, days=400)


def minted(evaluation: int, status: str = "UpToDate", days: int = 30) -> Collateral:
    return Collateral.from_json(json.dumps(AUTHORITY.collateral(spec(evaluation, status), days=days)))


# Intel's own


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_intels_collateral_is_checked_to_intels_root(path: Path) -> None:
    collateral = Collateral.from_json(path.read_bytes())
    window = collateral.window()
    platform = platform_named(collateral)
    tee, fmspc, ca = path.stem.split("-")[:3]
    assert (platform.name, platform.ca) == (f"{tee}-{fmspc}", ca)
    if window.start < window.end:
        check_collateral(collateral, platform, intel_root(), window.start)
    with pytest.raises(Refused) as refused:
        check_collateral(collateral, platform, AUTHORITY.root_der, window.start)
    assert refused.value.code == "collateral.signature"


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_signed_document_is_taken_out_byte_for_byte(path: Path) -> None:
    collateral = Collateral.from_json(path.read_bytes())
    answer = f'{{"tcbInfo":{collateral.tcb_info},"signature":"{collateral.tcb_info_signature}"}}'
    assert signed_document(answer.encode(), "tcbInfo") == (collateral.tcb_info, collateral.tcb_info_signature)
    turned = f'{{ "signature": "{collateral.tcb_info_signature.upper()}",\n "tcbInfo" : {collateral.tcb_info} }}\n'
    assert signed_document(turned.encode(), "tcbInfo") == (collateral.tcb_info, collateral.tcb_info_signature)


def test_the_pieces_are_told_with_the_earliest_end_first() -> None:
    found = pieces(minted(17))
    assert [each.ends for each in found] == sorted(each.ends for each in found)
    assert {each.name: each.evaluation for each in found if each.evaluation} == {"TCB info": 17, "QE identity": 17}


@pytest.mark.parametrize(
    "body",
    [
        '{"tcbInfo":{},"signature":"00"}',
        '{"tcbInfo":[],"signature":"SIGNATURE"}',
        '{"tcbInfo":{},"signature":"SIGNATURE","more":1}',
        '{"signature":"SIGNATURE","tcbInfo":{},"signature":"SIGNATURE"}',
        '{"tcbInfo":{}}',
        '{"enclaveIdentity":{},"signature":"SIGNATURE"}',
        '{"tcbInfo":{},"signature":"SIGNATURE"}{}',
        '[{"tcbInfo":{},"signature":"SIGNATURE"}]',
    ],
)
def test_an_answer_of_another_form_is_refused(body: str) -> None:
    with pytest.raises(Refused) as refused:
        signed_document(body.replace("SIGNATURE", "00" * 64).encode(), "tcbInfo")
    assert refused.value.code == "pcs.answer"


def test_a_chain_stands_in_a_header_once() -> None:
    chain = AUTHORITY.collateral()["tcb_info_issuer_chain"]
    encoded = chain.replace("\n", "%0A").replace("+", "%2B")
    assert issuer_chain(CIMultiDict({"tcb-info-issuer-chain": encoded}), "TCB-Info-Issuer-Chain") == chain
    twice = CIMultiDict([("TCB-Info-Issuer-Chain", encoded), ("TCB-Info-Issuer-Chain", encoded)])
    for headers in (twice, CIMultiDict({"TCB-Info-Issuer-Chain": f"{encoded}%00x"}), CIMultiDict[str]()):
        with pytest.raises(Refused) as refused:
            issuer_chain(headers, "TCB-Info-Issuer-Chain")
        assert refused.value.code == "pcs.answer"


# Configuration


def test_intels_service_is_the_default_and_a_pccs_has_its_own_root_list() -> None:
    intel = PcsConfig(cache=Path("c"))
    assert (intel.base, intel.root_crl_url) == (
        INTEL_PCS,
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    )
    pccs = PcsConfig(cache=Path("c"), pcs="https://127.0.0.1:8081/sgx/certification/v4/")
    assert pccs.base == "https://127.0.0.1:8081"
    assert pccs.root_crl_url == "https://127.0.0.1:8081/sgx/certification/v4/rootcacrl"


@pytest.mark.parametrize(
    "url",
    [
        "file:///x",
        "intel.com",
        "https://",
        "https://u:p@h",
        "https://h?x=1",
        "https://h#x",
        "https://h:0",
        "https://[h",
    ],
)
def test_a_service_is_named_by_a_plain_address(url: str) -> None:
    for name in ("pcs", "root_crl"):
        with pytest.raises(ValidationError):
            PcsConfig(**{"cache": Path("c"), name: url})  # type: ignore[arg-type]


def test_its_paths_are_taken_from_the_configurations_folder() -> None:
    moved = under(Path("/etc/x"), PcsConfig(cache=Path("c"), tls_ca=Path("ca.pem")))
    assert isinstance(moved, PcsConfig)
    assert (moved.cache, moved.tls_ca) == (Path("/etc/x/c"), Path("/etc/x/ca.pem"))
    assert under(Path("/etc/x"), Path("file.json")) == Path("/etc/x/file.json")


# Which evaluation


def test_statuses_are_ordered_as_the_contracts_order_them() -> None:
    source = (ROOT / "contracts" / "src" / "libraries" / "TcbRank.sol").read_text()
    ranks = int(re.findall(r"RANKS = (0x[0-9A-F_]+);", source)[0].replace("_", ""), 16)
    theirs = sorted(TcbStatus, key=lambda status: ranks >> 4 * status & 15)
    assert tuple(theirs) == ORDER
    assert rank(None) > rank(TcbStatus.REVOKED)


def of(evaluation: int, status: TcbStatus | None, ended: bool = False) -> Standing:
    return Standing(minted(evaluation), status, ended)


GOOD, SOFT, BAD, GONE = (
    TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("held", "registered", "chosen", "earlier"),
    [
        ({18: GOOD, 17: GOOD}, None, 18, None),
        ({18: GOOD, 17: BAD}, None, 18, None),
        # A worse one waits as long as the better one holds …
        ({18: BAD, 17: GOOD}, None, 17, None),
        ({18: BAD, 17: GOOD}, 17, 17, None),
        # … and shows it when it has to move.
        ({18: BAD, 17: GOOD}, 18, 18, 17),
        ({18: BAD, 17: (GOOD, True)}, 17, 18, 17),
        ({18: BAD, 17: (SOFT, True), 16: (GOOD, True)}, 17, 18, 16),
        ({18: BAD, 17: (GOOD, True), 16: (GOOD, True)}, 17, 18, 17),
        ({18: BAD, 17: (BAD, True)}, 17, 18, None),
        ({18: BAD, 17: (None, True)}, 17, 18, None),
        ({18: GONE, 17: GOOD}, None, 17, None),
        ({18: GONE, 17: (GOOD, True)}, 17, None, None),
        ({18: None}, None, None, None),
        ({17: (GOOD, True)}, None, None, None),
        ({17: GOOD}, 18, None, None),
        ({}, None, None, None),
    ],
)
def test_the_newest_evaluation_under_which_a_platform_stands_best_is_chosen(
    held: dict[int, Any], registered: int | None, chosen: int | None, earlier: int | None
) -> None:
    candidates = [of(number, *(said if isinstance(said, tuple) else (said,))) for number, said in held.items()]
    found = choose(candidates, registered)
    if chosen is None:
        assert found is None
    else:
        assert found is not None
        assert (found[0].evaluation, None if found[1] is None else found[1].evaluation) == (chosen, earlier)


async def test_a_platform_stands_as_the_collateral_says_also_after_its_end() -> None:
    attester = SoftwareAttester(AUTHORITY.issue_platform(), SoftwareEnclave(bytes(32), b"{}"))
    parsed = parse_dcap(1, await attester.quote(bytes(64)))

    def seen(collateral: Collateral, now: int) -> tuple[TcbStatus | None, bool, str | None]:
        found = standing(parsed, collateral, AUTHORITY.root_der, now)
        return found.status, found.ended, found.reason

    assert seen(minted(17), NOW) == (GOOD, False, None)
    assert seen(minted(17, "OutOfDate"), NOW) == (BAD, False, None)
    assert seen(minted(17), NOW + 31 * DAY) == (GOOD, True, None)
    assert seen(minted(17, "Revoked"), NOW)[0] is None
    assert seen(minted(17), NOW - DAY) == (None, False, "collateral_not_yet_valid")
    assert platform_named(minted(17)).fmspc == DEVELOPMENT_FMSPC


# A platform's certificate


@pytest.mark.parametrize("oid", ["06082a8648ce3d030107", "06072a8648ce3d0201"], ids=["curve", "kind of key"])
def test_an_issuer_with_a_key_of_no_known_kind_certified_nothing(oid: str) -> None:
    """A stranger chooses every byte of the chain in a quote: brokers answer with a refusal, not with a failure."""
    case, _ = next((case, run) for case, run in recorded_kit.runs("sgx") if run["expected"] == "ok")
    parsed = parse_dcap(Tee.SGX, recorded_kit.evidence(case))
    leaf, issuer, _ = quoted_chain(parsed)
    assert certified_root(parsed, {b"": intel_root()}) == intel_root()
    known = bytes.fromhex(oid)
    der = issuer.public_bytes(Encoding.DER).replace(known, known[:-1] + b"\x7f")
    body = base64.encodebytes(der).decode()
    pem = leaf.public_bytes(Encoding.PEM).decode() + f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    other = replace(parsed, section=replace(parsed.section, certification=pem.encode()))
    assert certified_root(other, {b"": intel_root()}) is None
    with pytest.raises(VerificationError) as refused:
        Pck.of(quoted_chain(other))
    assert refused.value.code is Code.PCK_CHAIN


def test_a_certificate_with_an_unreadable_name_is_refused() -> None:
    case, _ = next((case, run) for case, run in recorded_kit.runs("sgx") if run["expected"] == "ok")
    parsed = parse_dcap(Tee.SGX, recorded_kit.evidence(case))
    der = quoted_chain(parsed)[0].public_bytes(Encoding.DER)
    name = b"\x0c\x1aIntel SGX PCK Processor CA"
    assert der.count(name) == 1
    body = base64.encodebytes(der.replace(name, name[:2] + b"\xff" + name[3:])).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    other = replace(parsed, section=replace(parsed.section, certification=pem.encode()))
    with pytest.raises(Refused) as refused:
        platform_of(other)
    assert refused.value.code == "evidence.pck_chain"
