"""The collateral store on anvil: it makes of Intel's bytes what Python makes of them, and refuses other bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enclave_app.attesters.collateral import CollateralSpec
from enclave_app.attesters.platform import (
    DEVELOPMENT_CPU_SVN,
    DEVELOPMENT_PCE_SVN,
    DevelopmentAuthority,
)
from oracle.attestation import Collateral, intel_root, parse_dcap
from oracle.attestation.collateral import pem_chain
from oracle.attestation.onchain.collateral import posts
from oracle.attestation.onchain.evidence import quote_chain
from oracle.attestation.onchain.structs import Pck, QeIdentity, TcbInfo
from oracle.attestation.types import INTEL_NAMES
from oracle.errors import Reverted
from tests.collateral_kit import RECORDED, Node, NodeError, Store, node, recorded

NOW = 1_800_000_000
NAMES = sorted(each.stem for each in (RECORDED / "collateral").glob("*.json"))
QUOTES = [
    each
    for tee in ("sgx", "tdx")
    for each in sorted((RECORDED / tee).glob("*/quote.bin"))
    # The one recorded quote without a PCK chain.
    if each.parent.name != "oasis-sgx-v3-eppid-nochain"
]


@pytest.fixture(scope="module")
def chain() -> Iterator[Node]:
    with node() as chain:
        yield chain


@pytest.fixture
def intel(chain: Node) -> Iterator[Store]:
    kept = chain.call("evm_snapshot")
    yield Store.deploy(chain, intel_root())
    chain.call("evm_revert", kept)


def in_order_of_issue(names: list[str]) -> list[Collateral]:
    return sorted(map(recorded, names), key=lambda each: TcbInfo.of(each).issued_at)


def test_all_recorded_collateral_is_kept_as_python_reads_it(intel: Store) -> None:
    assert len(NAMES) == 19
    for collateral in in_order_of_issue(NAMES):
        for each in posts(collateral):
            if intel.is_needed(each):
                intel.send(each.function, *each.arguments)
                assert not intel.is_needed(each)
        tcb, qe = TcbInfo.of(collateral), QeIdentity.of(collateral)
        assert intel.read("tcbInfo", tcb.tee, tcb.fmspc, tcb.evaluation) == (tcb.digest, tcb.issued_at)
        newest, issued_at = intel.read("qeIdentity", qe.tee, qe.evaluation)
        # Several documents of one number were recorded, and not in the order of the TCB info beside them.
        assert newest == qe.digest or issued_at > qe.issued_at
        crl = x509.load_der_x509_crl(bytes.fromhex(collateral.pck_crl))
        ca = posts(collateral)[0].key[0]
        revoked = [entry.serial_number for entry in crl]
        if intel.read("crl", ca)["issuedAt"] == int(crl.last_update_utc.timestamp()):
            kept = bytes.fromhex(intel.node.call("eth_getCode", intel.read("crl", ca)["serials"], "latest")[2:])
            assert kept == (b"\0" + b"".join(each.to_bytes(20, "big") for each in revoked) if revoked else b"")


def test_every_recorded_platform_is_kept_as_python_reads_it(intel: Store) -> None:
    assert len(QUOTES) > 10
    for quote in QUOTES:
        tee = 1 if quote.parent.parent.name == "sgx" else 2
        chain = quote_chain(parse_dcap(tee, quote.read_bytes()))
        pck = Pck.of(chain)
        intel.send("postIssuer", der(chain[1]))
        intel.send("postPck", der(chain[0]), pck.issuer)
        assert intel.read("isPck", pck.digest)


def test_what_holds_is_told_with_its_last_second(intel: Store) -> None:
    collateral = recorded("sgx-00606a000000-platform-2025-08-15")
    chain = quote_chain(parse_dcap(1, (RECORDED / "sgx" / "automata-sgx-v3-a" / "quote.bin").read_bytes()))
    intel.post(collateral, chain)
    parts = Pck.of(chain).abi(), TcbInfo.of(collateral).abi(), QeIdentity.of(collateral).abi()
    start, end = collateral.window()
    for at in (start, end - 1):
        assert intel.read("check", *parts, at=at) == end - 1
    for at, name in ((start - 1, "DcapCollateral_NotYetValid"), (end, "DcapCollateral_Expired")):
        assert refusal(intel, "check", *parts, at=at) == name


@pytest.mark.parametrize("name", ["sgx-00a067110000-processor-2025-06-19", "tdx-b0c06f000000-platform-2026-08-13"])
def test_no_changed_byte_is_taken(intel: Store, name: str) -> None:
    collateral = recorded(name)
    chance = random.Random(4)
    quote = "sgx/phala-sgx-v3" if name.startswith("sgx") else "tdx/phala-tdx-v4"
    chain = quote_chain(parse_dcap(1 if name.startswith("sgx") else 2, (RECORDED / quote / "quote.bin").read_bytes()))
    for each in posts(collateral, chain):
        for _ in range(12):
            arguments = list(each.arguments)
            # The last argument of most is the issuer; every byte of every argument counts.
            which = chance.randrange(len(arguments))
            changed = bytearray(arguments[which])
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            arguments[which] = bytes(changed)
            assert refusal(intel, each.function, *arguments), (each.function, which)
        intel.send(each.function, *each.arguments)


def test_documents_do_not_pass_for_each_other_nor_under_anothers_name(intel: Store) -> None:
    collateral = recorded("sgx-00a067110000-processor-2025-06-19")
    other = recorded("tdx-b0c06f000000-platform-2025-06-19")
    intel.post(collateral)
    signer = TcbInfo.of(collateral).signer
    tcb = collateral.tcb_info.encode(), bytes.fromhex(collateral.tcb_info_signature)
    qe = collateral.qe_identity.encode(), bytes.fromhex(collateral.qe_identity_signature)
    assert refusal(intel, "postQeIdentity", *tcb, signer) == "IntelJson_Unexpected"
    assert refusal(intel, "postTcbInfo", *qe, signer) == "IntelJson_Unexpected"
    assert refusal(intel, "postTcbInfo", tcb[0], qe[1], signer) == "DcapCollateral_BadSignature"
    assert refusal(intel, "postTcbInfo", *tcb, posts(collateral)[0].key[0]) == "DcapCollateral_WrongIssuer"
    # The platform CA's list is none of the processor CA's.
    pck_crl = bytes.fromhex(other.pck_crl)
    assert refusal(intel, "postCrl", pck_crl, posts(collateral)[0].key[0]) == "DcapCollateral_UnknownIssuer"
    assert refusal(intel, "postTcbInfo", *tcb, signer) == "DcapCollateral_NotNewer"


def test_minted_collateral_is_kept_as_python_reads_it(chain: Node) -> None:
    authority = DevelopmentAuthority(NOW)
    store = Store.deploy(chain, authority.root_der)
    platform = authority.issue_platform()
    pck_chain = pem_chain(platform.chain_pem.decode())
    statuses = [name for name in INTEL_NAMES if not name.startswith("TDRelaunch")]
    for number, status in enumerate(statuses):
        spec = CollateralSpec(
            DEVELOPMENT_CPU_SVN, DEVELOPMENT_PCE_SVN, status, ("INTEL-SA-00001",), status, evaluation=number
        )
        collateral = Collateral.from_json(pieces_json(authority.collateral(spec, now=NOW + number)))
        store.post(collateral, pck_chain)
        tcb, qe = TcbInfo.of(collateral), QeIdentity.of(collateral)
        end = store.read("check", Pck.of(pck_chain).abi(), tcb.abi(), qe.abi(), at=NOW)
        assert end == authority_end(pck_chain, collateral) - 1


def test_a_platform_that_is_revoked_counts_no_more(chain: Node) -> None:
    authority = DevelopmentAuthority(NOW)
    store = Store.deploy(chain, authority.root_der)
    platform, other = authority.issue_platform(), authority.issue_platform()
    collateral = Collateral.from_json(pieces_json(authority.collateral()))
    chains = [pem_chain(each.chain_pem.decode()) for each in (platform, other)]
    for each in chains:
        store.post(collateral, each)
    parts = TcbInfo.of(collateral).abi(), QeIdentity.of(collateral).abi()
    for each in chains:
        store.read("check", Pck.of(each).abi(), *parts, at=NOW)
    later = Collateral.from_json(pieces_json(authority.collateral(now=NOW + 1, revoked=[platform])))
    crl = next(
        each for each in posts(later, chains[0]) if each.function == "postCrl" and each.key[0] != store.read("anchor")
    )
    store.send(crl.function, *crl.arguments)

    assert refusal(store, "check", Pck.of(chains[0]).abi(), *parts, at=NOW + 60) == "DcapCollateral_Revoked"
    assert store.read("isRevoked", Pck.of(chains[0]).issuer, platform.serial, at=NOW + 60) is True
    store.read("check", Pck.of(chains[1]).abi(), *parts, at=NOW + 60)


def refusal(store: Store, function: str, *arguments: object, at: int | None = None) -> str:
    """The name of the error, "nameless" for a revert without one, and nothing when the call works."""
    try:
        store.read(function, *arguments, at=at)
    except Reverted as error:
        return error.name
    except NodeError:
        return "nameless"
    return ""


def authority_end(chain: list[x509.Certificate], collateral: Collateral) -> int:
    """Of what was minted, everything but the collateral ends with the certificates."""
    return min(collateral.window().end, *(int(each.not_valid_after_utc.timestamp()) for each in chain))


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def pieces_json(pieces: dict[str, str]) -> str:
    return json.dumps(pieces)
