"""First stage: exact length, typed refusals, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from oracle.attestation import Code, EvidenceError, SgxReport, Tee, parse_dcap, parse_evidence

ENCLAVE = SoftwareEnclave(mrenclave=bytes(range(32)), launch_config=b"configuration")
PLATFORM = DevelopmentAuthority(1_800_000_000).issue_platform()
QUOTE = asyncio.run(SoftwareAttester(PLATFORM, ENCLAVE).quote(bytes(range(64))))


def changed(offset: int, replacement: bytes) -> bytes:
    return QUOTE[:offset] + replacement + QUOTE[offset + len(replacement) :]


def test_a_minted_quote_parses_into_what_was_put_in() -> None:
    parsed = parse_dcap(1, QUOTE)

    assert (parsed.tee, parsed.version) == (Tee.SGX, 3)
    assert isinstance(parsed.report, SgxReport)
    assert parsed.report.mrenclave == ENCLAVE.mrenclave
    assert parsed.report.attributes.hex() == "0500000000000000e700000000000000"
    assert parsed.report.cpu_svn == PLATFORM.cpu_svn
    assert parsed.report_data == bytes(range(64))
    assert parsed.measurement == ENCLAVE.measurement
    assert parsed.section.certification == PLATFORM.chain_pem
    assert (parsed.declared_end, parsed.trailing, parsed.raw) == (len(QUOTE), 0, QUOTE)


def test_trailing_zeros_are_cut_and_counted() -> None:
    parsed = parse_evidence(1, QUOTE + bytes(70))
    assert (parsed.trailing, parsed.raw) == (70, QUOTE)


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (b"", Code.EVIDENCE_TOO_SHORT),
        (QUOTE[:-1], Code.EVIDENCE_TOO_SHORT),
        (QUOTE + bytes(5) + b"\x01", Code.EVIDENCE_TRAILING_BYTES),
        (QUOTE + bytes(65536), Code.EVIDENCE_TOO_LONG),
        (changed(0, b"\x02"), Code.QUOTE_VERSION),
        (changed(2, b"\x03"), Code.QUOTE_KEY_TYPE),
        (changed(4, b"\x81"), Code.TEE_UNSUPPORTED),
        (changed(48 + 96, b"\x01"), Code.QUOTE_RESERVED_BYTES),
        (changed(436 + 128 + 384 + 64, b"\x21"), Code.QUOTE_SIGNATURE_SECTION),
    ],
)
def test_one_wrong_field_has_its_own_code(evidence: bytes, code: Code) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_evidence(1, evidence)
    assert caught.value.code is code
    assert not caught.value.retryable


def test_a_quote_of_another_tee_than_named_is_refused() -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_evidence(2, QUOTE)
    assert caught.value.code is Code.TEE_MISMATCH


@pytest.mark.parametrize("tee", [0, 5, -1, 256])
def test_an_unknown_tee_is_refused(tee: int) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_evidence(tee, QUOTE)
    assert caught.value.code is Code.TEE_UNSUPPORTED


@pytest.mark.parametrize("tee", [0, 3, 4])
def test_where_only_intel_s_evidence_will_do_no_other_is_read(tee: int) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_dcap(tee, QUOTE)
    assert caught.value.code is Code.TEE_UNSUPPORTED


def only_typed_refusals(tee: int, evidence: bytes) -> None:
    try:
        parsed = parse_evidence(tee, evidence)
    except EvidenceError:
        return
    assert parsed.raw + bytes(parsed.trailing) == evidence


@given(st.integers(-1, 4), st.binary(max_size=2048))
def test_arbitrary_bytes_give_only_typed_refusals(tee: int, evidence: bytes) -> None:
    only_typed_refusals(tee, evidence)


HEADERS = st.sampled_from(
    [bytes([version, 0, 2, 0, tee, 0, 0, 0]) + bytes(40) for version in (3, 4, 5) for tee in (0, 0x81)]
)


@settings(max_examples=200)
@given(st.integers(1, 2), HEADERS, st.sampled_from([b"", b"\x01\0\x80\x01\0\0", b"\x03\0\x88\x02\0\0"]), st.data())
def test_bytes_behind_a_good_header_give_only_typed_refusals(
    tee: int, header: bytes, body: bytes, data: st.DataObject
) -> None:
    size = data.draw(st.sampled_from([0, 384, 584, 648]))
    only_typed_refusals(tee, header + body + bytes(size) + data.draw(st.binary(max_size=1024)))


EDITS: dict[str, Callable[[int, int], bytes]] = {
    "flip": lambda at, value: changed(at, bytes([value])),
    "cut": lambda at, value: QUOTE[:at],
    "drop": lambda at, value: QUOTE[:at] + QUOTE[at + 1 :],
    "insert": lambda at, value: QUOTE[:at] + bytes([value]) + QUOTE[at:],
}


@given(st.sampled_from(sorted(EDITS)), st.integers(0, len(QUOTE) - 1), st.integers(0, 255))
def test_an_edited_quote_parses_or_is_refused_typed(edit: str, at: int, value: int) -> None:
    only_typed_refusals(1, EDITS[edit](at, value))
