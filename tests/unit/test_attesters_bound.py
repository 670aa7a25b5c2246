"""Evidence is cut to its own length, and is over what was asked for, or it does not leave the enclave."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable

import pytest

from enclave_app.attesters.base import EvidenceError, PlatformError
from enclave_app.attesters.bound import sgx_quote, snp_report, tdx_quote
from enclave_app.attesters.certificates import ARK, ASK, VCEK, VLEK, endorsements, read_table
from enclave_app.attesters.dstack import read_answer
from enclave_app.attesters.nitro import attestation_request, read_response
from tests.attester_kit import certificate_table, packed_table, recorded

Reader = Callable[[bytes, bytes], bytes]
SNP = recorded("snp/dstack-milan-v3/report.bin")
CASES = {
    "sgx": (sgx_quote, recorded("sgx/automata-sgx-v3-a/quote.bin"), 48 + 320),
    "tdx-v4": (tdx_quote, recorded("tdx/phala-tdx-v4/quote.bin"), 48 + 520),
    "tdx-v5": (tdx_quote, recorded("tdx/google-tdx-v5/quote.bin"), 54 + 520),
    "snp": (snp_report, SNP, 0x50),
}
DOCUMENT = recorded("nitro/dstack-prod-2025/attestation.cbor")
RESPONSE = b"\xa1\x6bAttestation\xa1\x68document\x59" + len(DOCUMENT).to_bytes(2, "big") + DOCUMENT


def asked(name: str) -> bytes:
    _, evidence, offset = CASES[name]
    return evidence[offset : offset + 64]


@pytest.mark.parametrize("name", CASES)
def test_recorded_evidence_over_what_was_asked_is_taken(name: str) -> None:
    read, evidence, _ = CASES[name]
    taken = read(evidence, asked(name))
    assert evidence == taken + bytes(len(evidence) - len(taken))


@pytest.mark.parametrize("name", CASES)
def test_evidence_over_other_report_data_is_refused(name: str) -> None:
    read, evidence, _ = CASES[name]
    other = bytes([asked(name)[0] ^ 1]) + asked(name)[1:]
    with pytest.raises(EvidenceError, match="something else asks"):
        read(evidence, other)


@pytest.mark.parametrize(("name", "zeros"), [("tdx-v4", 70), ("sgx", 0), ("tdx-v5", 0)])
def test_zeros_behind_a_quote_are_cut_and_anything_else_there_is_refused(name: str, zeros: int) -> None:
    read, evidence, _ = CASES[name]
    taken = read(evidence + bytes(9), asked(name))
    assert len(evidence) - len(taken) == zeros
    with pytest.raises(EvidenceError, match="declared end"):
        read(taken + bytes(8) + b"\x01", asked(name))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kept", [0, 3, 47, 400, 1183])
def test_cut_evidence_is_refused(name: str, kept: int) -> None:
    read, evidence, _ = CASES[name]
    with pytest.raises(EvidenceError):
        read(evidence[:kept], asked(name))


@pytest.mark.parametrize("name", ["sgx", "tdx-v4", "tdx-v5"])
def test_a_quote_one_byte_short_is_refused(name: str) -> None:
    read, evidence, _ = CASES[name]
    taken = read(evidence, asked(name))
    with pytest.raises(EvidenceError, match="declares"):
        read(taken[:-1], asked(name))


def test_a_report_with_a_byte_more_is_refused() -> None:
    with pytest.raises(EvidenceError, match="1185 bytes"):
        snp_report(SNP + b"\0", asked("snp"))


@pytest.mark.parametrize(
    ("name", "offset", "value", "said"),
    [
        ("sgx", 0, 2, "version 2"),
        ("sgx", 4, 0x81, "TEE type 0x81"),
        ("tdx-v4", 0, 3, "version 3"),
        ("tdx-v4", 4, 0, "TEE type 0x0"),
        ("tdx-v5", 48, 1, "type 1"),
        ("tdx-v5", 50, 0, "with"),
    ],
)
def test_a_quote_of_another_kind_is_refused(name: str, offset: int, value: int, said: str) -> None:
    read, evidence, _ = CASES[name]
    changed = evidence[:offset] + bytes([value]) + evidence[offset + 1 :]
    with pytest.raises(EvidenceError, match=said):
        read(changed, asked(name))


def test_a_hosts_table_gives_the_signing_keys_certificate_and_its_chain() -> None:
    certificates = certificate_table(VCEK)
    assert endorsements(packed_table(certificates), SNP) == tuple(certificates.values())


def test_a_report_signed_by_a_vlek_takes_the_vleks_certificate() -> None:
    report = recorded("snp/trustee-milan-vlek-v3/report.bin")
    certificates = certificate_table(VLEK, "trustee-milan-vlek-v3")
    both = {VCEK: recorded("snp/dstack-milan-v3/ek.der"), **certificates}
    assert endorsements(packed_table(both), report) == tuple(certificates.values())
    assert endorsements(packed_table({VCEK: both[VCEK]}), report) == ()


@pytest.mark.parametrize("lacking", [ASK, ARK])
def test_a_chain_with_a_gap_is_left_to_the_verifier(lacking: uuid.UUID) -> None:
    certificates = certificate_table(VCEK)
    del certificates[lacking]
    assert endorsements(packed_table(certificates), SNP) == (certificates[VCEK],)


@pytest.mark.parametrize("table", [b"", bytes(4096)])
def test_a_host_without_certificates_gives_none(table: bytes) -> None:
    assert endorsements(table, SNP) == ()


def test_pem_in_a_hosts_table_comes_out_as_der() -> None:
    certificates = certificate_table(VCEK)
    pem = {guid: ssl.DER_cert_to_PEM_cert(der).encode() for guid, der in certificates.items()}
    assert endorsements(packed_table(pem), SNP) == tuple(certificates.values())


def entry(guid: uuid.UUID, offset: int, length: int) -> bytes:
    return guid.bytes + offset.to_bytes(4, "little") + length.to_bytes(4, "little")


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(entry(VCEK, 48, 4), id="no end"),
        pytest.param(entry(VCEK, 48, 4)[:23], id="half an entry"),
        pytest.param(entry(VCEK, 47, 4) + bytes(24) + b"cert", id="inside the header"),
        pytest.param(entry(VCEK, 48, 5) + bytes(24) + b"cert", id="beyond the end"),
        pytest.param(entry(VCEK, 53, 1) + bytes(24) + b"cert", id="starts beyond the end"),
        pytest.param(entry(VCEK, 48, 0) + bytes(24) + b"cert", id="empty"),
        pytest.param(entry(VCEK, 72, 4) * 2 + bytes(24) + b"cert", id="twice"),
        pytest.param(entry(VCEK, 48, 14) + bytes(24) + b"-----BEGIN XXX", id="half a PEM file"),
    ],
)
def test_a_malformed_table_is_refused(table: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_table(table)


def test_the_nsm_request_is_the_apis_cbor() -> None:
    data = bytes(range(64))
    told = "a16b4174746573746174696f6ea369757365725f646174615840" + data.hex()
    assert attestation_request(data).hex() == told + "656e6f6e6365f66a7075626c69635f6b6579f6"


def test_the_nsm_response_gives_its_document() -> None:
    assert read_response(RESPONSE) == DOCUMENT


def test_the_nsms_error_is_told() -> None:
    with pytest.raises(PlatformError, match="InvalidOperation"):
        read_response(b"\xa1\x65Error\x70InvalidOperation")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        RESPONSE[:20],
        RESPONSE[:-1],
        RESPONSE + b"\0",
        RESPONSE.replace(b"document", b"documenu", 1),
        b"\xa1\x6bAttestation\xa1\x68document\x40",
        b"\xa1\x6bAttestation\xa1\x68document\x58\x00",
        b"\xa1\x69GetRandom\xa1\x66random\x41\x00",
    ],
)
def test_another_nsm_response_is_refused(response: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_response(response)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"quote": 1}',
        b'{"quote": "0g"}',
        b'{"quote": null}',
        b"\xff",
        b'{"quote": "' + b"00" * 40000 + b'"}',
    ],
)
def test_an_agents_answer_without_a_quote_is_refused(answer: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_answer(answer)
