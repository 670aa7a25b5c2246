"""SEV-SNP evidence: reports and endorsements that hold, and each with one thing changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enclave_app.appraise.errors import Code, EvidenceRefused
from enclave_app.appraise.snp import SnpClaims, SnpEndorsements, parse_report, verify_report
from enclave_app.protocol.measurement import SNP_REGISTERS
from enclave_app.protocol.structs import Tee
from tests import recorded_kit
from tests.recorded_kit import named
from tests.snp_kit import DAY, NOW, YEAR, Authority, Chip, Validity, der_integer, ia5, raw_tcb

MILAN = Authority()
CHIP = MILAN.chip()
REPORT = CHIP.report(bytes(range(64)))
VLEK = Authority(vlek=True, ark_key=MILAN.ark_key)
RECORDED = recorded_kit.runs("snp")


def check(
    report: bytes = REPORT,
    endorsements: SnpEndorsements = CHIP.endorsements,
    root: bytes = MILAN.root,
    now: int = NOW,
) -> SnpClaims:
    return verify_report(parse_report(report), endorsements, root, now)


def refused(code: Code, call: Callable[[], Any]) -> None:
    with pytest.raises(EvidenceRefused) as caught:
        call()
    assert caught.value.code is code
    assert all((caught.value.found, caught.value.expected, caught.value.action))


def flipped(data: bytes, offset: int, bit: int = 1) -> bytes:
    return data[:offset] + bytes([data[offset] ^ bit]) + data[offset + 1 :]


def of(chip: Chip) -> SnpClaims:
    """What this chip's own report gives."""
    return check(chip.report(), chip.endorsements, chip.authority.root)


# Recorded reports


@pytest.mark.parametrize(("case", "run"), RECORDED, ids=named(RECORDED))
def test_a_recorded_report_gives_what_its_manifest_says(case: dict[str, Any], run: dict[str, Any]) -> None:
    report = parse_report(recorded_kit.evidence(case))
    endorsements = recorded_kit.endorsements(case, run.get("ek_file", "ek.der"))
    root = hashlib.sha256(endorsements.ark).digest()
    now = run.get("now", case["verify"][0].get("now"))
    if run["expected"] == "ok":
        assert verify_report(report, endorsements, root, now).valid_until == run["valid_until"]
        refused(Code.COLLATERAL_EXPIRED, lambda: verify_report(report, endorsements, root, run["valid_until"]))
        early = run["valid_from"] - 1
        refused(Code.COLLATERAL_NOT_YET_VALID, lambda: verify_report(report, endorsements, root, early))
    else:
        code = Code.DEBUG_ENCLAVE if run["crypto"] == "ok" else Code.CERTIFICATE_CHAIN
        refused(code, lambda: verify_report(report, endorsements, root, now))


@pytest.mark.parametrize("case", recorded_kit.cases("snp"), ids=lambda case: case["name"])
def test_a_recorded_report_parses_into_its_recorded_fields(case: dict[str, Any]) -> None:
    report = parse_report(recorded_kit.evidence(case))
    found = {
        "policy": hex(report.policy.raw),
        "policy_debug": report.policy.debug,
        "policy_migrate_ma": report.policy.migration_agent,
        "policy_smt": report.policy.smt,
        "vmpl": report.vmpl,
        "report_data": report.report_data.hex(),
        "measurement": report.launch_measurement.hex(),
        "host_data": report.host_data.hex(),
        "current_tcb": report.current_tcb.hex(),
        "reported_tcb": report.reported_tcb.hex(),
        "committed_tcb": report.committed_tcb.hex(),
        "cpuid_fam_mod_step": bytes([report.family, report.model, report.stepping]).hex(),
        "chip_id": report.chip_id.hex(),
        "signing_key": report.signer,
    }
    assert (report.version, found) == (case["report_version"], case["fields"])


def test_every_recorded_chip_refuses_the_endorsements_of_another() -> None:
    names = ["virtee-milan-v2", "dstack-milan-v3", "azure-milan-v3-b"]
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        report = parse_report(recorded_kit.evidence(recorded_kit.case(name)))
        theirs = recorded_kit.endorsements(recorded_kit.case(other))
        root = hashlib.sha256(theirs.ark).digest()
        refused(Code.REPORT_SIGNATURE, lambda: verify_report(report, theirs, root, NOW))  # noqa: B023


# Minted reports


def test_a_minted_report_gives_the_claims_that_were_put_in() -> None:
    claims = check()

    assert claims.tee is Tee.SNP
    assert claims.report_data == bytes(range(64))
    assert claims.root == hashlib.sha256(MILAN.ark).digest()
    assert claims.platform == hashlib.sha256(CHIP.chip_id).digest()
    assert claims.tcb == {"bootloader": 4, "tee": 2, "snp": 24, "microcode": 219}
    assert (claims.csp, claims.chip_masked) == (None, False)
    assert claims.valid_until == NOW + YEAR
    assert claims.collateral == CHIP.endorsements.digest


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("version", [2, 3, 5])
def test_each_line_and_version_is_read(line: str, version: int) -> None:
    of = MILAN if line == "Milan" else Authority(line, ark_key=MILAN.ark_key, ask_key=MILAN.ask_key)
    chip = of.chip()
    claims = check(chip.report(version=version), chip.endorsements, of.root)
    assert claims.line.name == line
    assert claims.tcb["microcode"] == 219
    assert claims.tcb.get("fmc") == (1 if line == "Turin" else None)


def test_a_provider_s_key_names_the_provider_and_no_machine() -> None:
    claims = of(VLEK.chip())
    assert (claims.csp, claims.chip_masked, claims.platform) == ("CN=provider", True, bytes(32))


def test_padding_is_cut_and_counted_and_changes_no_claim() -> None:
    report = parse_report(REPORT + bytes(100))
    assert (report.trailing, report.raw) == (100, REPORT)
    padded = verify_report(report, CHIP.endorsements, MILAN.root, NOW)
    assert replace(padded, report=parse_report(REPORT)) == check()


@pytest.mark.parametrize(("name", "offset", "size"), SNP_REGISTERS, ids=[name for name, _, _ in SNP_REGISTERS])
def test_each_register_changes_the_measurement(name: str, offset: int, size: int) -> None:
    """R3: one bit of each, at an end where the guest policy and VMPL have known ones."""
    at = offset if name in ("policy", "vmpl") else offset + size - 1
    assert parse_report(flipped(REPORT, at)).measurement != parse_report(REPORT).measurement


def test_digests_have_the_documented_layout() -> None:
    report = parse_report(REPORT)
    tag = hashlib.sha256(b"enclave-oracle/measurement/1").digest()
    launched = REPORT[0x4:0x34]  # guest SVN, policy, family id, image id, VMPL
    launched += report.launch_measurement + report.host_data + report.id_key_digest + report.author_key_digest
    assert report.measurement == hashlib.sha256(tag + b"\x03" + launched).digest()

    used = CHIP.endorsements
    issuer = hashlib.sha256(x509.load_der_x509_certificate(used.ask).tbs_certificate_bytes).digest()
    svn = hashlib.sha256(b"enclave-oracle/svn/1").digest() + b"\x03" + issuer + b"Milan" + 4 * raw_tcb("Milan")
    assert check().svn_digest == hashlib.sha256(svn).digest()

    behind = b"".join(len(der).to_bytes(4, "big") + der for der in (used.ek, used.ask, used.ark))
    assert check().collateral == hashlib.sha256(behind).digest()


@pytest.mark.parametrize("offset", [0x38, 0x40, 0x50, 0x140, 0x180, 0x1A0, 0x1E0, 0x1F0])
def test_what_is_no_register_leaves_the_measurement(offset: int) -> None:
    assert parse_report(flipped(REPORT, offset)).measurement == parse_report(REPORT).measurement


@pytest.mark.parametrize("offset", [0x38, 0x180, 0x1E0, 0x1F0], ids=["current", "reported", "committed", "launch"])
def test_the_least_of_the_four_tcbs_counts_and_each_is_in_the_svn_digest(offset: int) -> None:
    lower = {**CHIP.levels, "snp": 23}
    chip = CHIP.but(levels=lower) if offset == 0x180 else CHIP
    report = chip.report(bytes(range(64)), at={offset: raw_tcb("Milan", lower)})
    claims = check(report, chip.endorsements)
    assert claims.tcb["snp"] == 23
    assert claims.svn_digest != check().svn_digest


# Parsing refuses


@pytest.mark.parametrize(
    ("code", "report"),
    [
        (Code.EVIDENCE_TOO_SHORT, REPORT[:-1]),
        (Code.EVIDENCE_TOO_SHORT, b""),
        (Code.EVIDENCE_TOO_LONG, REPORT + bytes(65536)),
        (Code.EVIDENCE_TRAILING_BYTES, REPORT + b"\0\0\x01"),
        (Code.REPORT_VERSION, CHIP.report(at={0x0: b"\x01"})),
        (Code.REPORT_VERSION, CHIP.report(at={0x0: b"\x04"})),
        (Code.REPORT_VERSION, CHIP.report(at={0x0: b"\x06"})),
        (Code.REPORT_VMPL, CHIP.report(at={0x30: b"\x04"})),
        (Code.REPORT_VMPL, CHIP.report(at={0x30: b"\xff" * 4})),
        (Code.REPORT_SIGNATURE_ALGORITHM, CHIP.report(at={0x34: b"\x02"})),
        (Code.REPORT_SIGNATURE_ALGORITHM, CHIP.report(at={0x34: b"\x00"})),
        (Code.REPORT_UNSIGNED, CHIP.report(at={0x48: b"\x02"})),
        (Code.REPORT_UNSIGNED, CHIP.report(at={0x48: b"\x1c"})),
        (Code.REPORT_RESERVED_BYTES, CHIP.report(at={0x48: b"\x08"})),
        (Code.REPORT_RESERVED_BYTES, CHIP.report(at={0x48: b"\x20"})),
        (Code.REPORT_RESERVED_BYTES, CHIP.report(at={0x8: b"\0\0\x01"})),
        (Code.REPORT_RESERVED_BYTES, CHIP.report(at={0x8: b"\0\0\x03\x04"})),
        *(
            (Code.REPORT_RESERVED_BYTES, CHIP.report(at={offset: b"\x01"}))
            for offset in (0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x200, 0x29F)
        ),
        *(
            (Code.REPORT_RESERVED_BYTES, flipped(REPORT, offset))
            for offset in (0x2D0, 0x2E7, 0x318, 0x32F, 0x330, 0x49F)
        ),
        (Code.REPORT_RESERVED_BYTES, CHIP.report(version=2, at={0x188: b"\x19"})),
        (Code.REPORT_RESERVED_BYTES, CHIP.report(version=5, at={0x208: b"\x01"})),
    ],
)  # fmt: skip
def test_a_report_of_another_form_is_refused(code: Code, report: bytes) -> None:
    refused(code, lambda: parse_report(report))


def test_a_version_5_report_has_mitigation_vectors() -> None:
    report = parse_report(CHIP.report(version=5, at={0x1F8: b"\x01", 0x200: b"\x02"}))
    assert (report.launch_mitigations, report.current_mitigations) == (1, 2)


# Verification refuses


@pytest.mark.parametrize("offset", [0x04, 0x10, 0x50, 0x8F, 0x90, 0xC0, 0x140, 0x2A0, 0x2A0 + 47, 0x2A0 + 72])
def test_one_changed_bit_is_refused(offset: int) -> None:
    refused(Code.REPORT_SIGNATURE, lambda: check(flipped(REPORT, offset)))


@pytest.mark.parametrize("bits", [b"\0\0\x0b", b"\0\0\x0f"])
def test_a_debug_guest_is_refused(bits: bytes) -> None:
    refused(Code.DEBUG_ENCLAVE, lambda: check(CHIP.report(at={0x8: bits})))


def test_another_root_is_refused() -> None:
    refused(Code.ROOT_MISMATCH, lambda: check(root=bytes(32)))
    amd = bytes.fromhex(recorded_kit.case("virtee-milan-v2")["files"]["ark"]["sha256"])
    refused(Code.ROOT_MISMATCH, lambda: check(root=amd))


def test_amd_s_own_root_does_not_vouch_for_minted_keys() -> None:
    real = recorded_kit.endorsements(recorded_kit.case("virtee-milan-v2"))
    mixed = [replace(CHIP.endorsements, ark=real.ark), replace(CHIP.endorsements, ark=real.ark, ask=real.ask)]
    for endorsements in mixed:
        root = hashlib.sha256(real.ark).digest()
        refused(Code.CERTIFICATE_CHAIN, lambda: check(endorsements=endorsements, root=root))  # noqa: B023


@pytest.mark.parametrize("part", ["ek", "ask", "ark"])
def test_an_unreadable_certificate_is_refused(part: str) -> None:
    der = getattr(CHIP.endorsements, part)
    changed = replace(CHIP.endorsements, **{part: der[:-1]})
    root = hashlib.sha256(changed.ark).digest()
    refused(Code.CERTIFICATE_FORMAT, lambda: check(endorsements=changed, root=root))
    trailing = replace(CHIP.endorsements, **{part: der + b"\0"})
    refused(Code.CERTIFICATE_FORMAT, lambda: check(endorsements=trailing, root=hashlib.sha256(trailing.ark).digest()))


def test_a_certificate_has_at_most_8_kib() -> None:
    long = CHIP.but(extensions={"100": bytes(9000)})
    with pytest.raises(EvidenceRefused, match="at most 8192") as caught:
        of(long)
    assert caught.value.code is Code.CERTIFICATE_FORMAT


@pytest.mark.parametrize("part", ["ek", "ask", "ark"])
def test_a_certificate_whose_signature_is_off_by_one_bit_is_refused(part: str) -> None:
    der = getattr(CHIP.endorsements, part)
    changed = replace(CHIP.endorsements, **{part: flipped(der, len(der) - 1)})
    refused(Code.CERTIFICATE_CHAIN, lambda: check(endorsements=changed, root=hashlib.sha256(changed.ark).digest()))


@pytest.mark.parametrize("part", ["ek", "ask", "crl"])
def test_no_byte_of_an_endorsement_is_anyone_s_to_choose(part: str) -> None:
    """The algorithm beside a certificate's signature is not signed."""
    whole = with_list(MILAN.crl(1))
    der = getattr(whole, part)
    for offset in [*range(0, len(der), 11), *range(len(der) - 310, len(der) - 256)]:
        changed = replace(whole, **{part: flipped(der, offset, 2)})
        with pytest.raises(EvidenceRefused):
            check(endorsements=changed)


def test_a_signature_is_of_whole_bytes() -> None:
    """A BIT STRING tells how many of its last bits are unused, and some readers let it say one too many."""
    even = next(ek for ek in (CHIP.but(validity=Validity(end=NOW + DAY + i)).ek for i in range(64)) if not ek[-1] & 1)
    check(endorsements=replace(CHIP.endorsements, ek=even))
    refused(
        Code.CERTIFICATE_FORMAT,
        lambda: check(endorsements=replace(CHIP.endorsements, ek=flipped(even, len(even) - 257))),
    )


def test_too_few_certificates_are_refused() -> None:
    ek, ask, ark = CHIP.endorsements.ek, CHIP.endorsements.ask, CHIP.endorsements.ark
    assert SnpEndorsements.of((ek, ask, ark)) == CHIP.endorsements
    refused(Code.CERTIFICATE_CHAIN, lambda: SnpEndorsements.of((ek, ask)))


@pytest.mark.parametrize(
    ("code", "authority"),
    [
        (Code.PRODUCT_MISMATCH, {"ark_name": "ARK-Rome"}),
        (Code.PRODUCT_MISMATCH, {"ark_name": "Milan"}),
        (Code.CERTIFICATE_CHAIN, {"ark_issuer": "ARK-Genoa"}),
        (Code.CERTIFICATE_CHAIN, {"ask_name": "SEV-Genoa"}),
        (Code.CERTIFICATE_CHAIN, {"ask_name": "SEV-VLEK-Milan"}),
        (Code.CERTIFICATE_CHAIN, {"ask_ca": False}),
        (Code.CERTIFICATE_CHAIN, {"digest": hashes.SHA256()}),
        (Code.CERTIFICATE_CHAIN, {"ark_key": rsa.generate_private_key(65537, 1024)}),  # noqa: S505
        (Code.COLLATERAL_EXPIRED, {"ark_validity": Validity(end=NOW)}),
        (Code.COLLATERAL_EXPIRED, {"ask_validity": Validity(end=NOW)}),
        (Code.COLLATERAL_NOT_YET_VALID, {"ark_validity": Validity(start=NOW + 1)}),
        (Code.COLLATERAL_NOT_YET_VALID, {"ask_validity": Validity(start=NOW + 1)}),
    ],
)
def test_an_authority_that_is_not_as_amd_s_is_refused(code: Code, authority: dict[str, Any]) -> None:
    refused(code, lambda: of(replace(MILAN, **authority).chip()))


@pytest.mark.parametrize(
    ("code", "chip"),
    [
        (Code.CERTIFICATE_CHAIN, {"subject_name": "SEV-VLEK"}),
        (Code.CERTIFICATE_CHAIN, {"issuer_name": "SEV-Genoa"}),
        (Code.CERTIFICATE_CHAIN, {"ca": True}),
        (Code.CERTIFICATE_CHAIN, {"key": ec.generate_private_key(ec.SECP256R1())}),
        (Code.CERTIFICATE_CHAIN, {"key": ec.generate_private_key(ec.SECP256K1())}),
        (Code.COLLATERAL_EXPIRED, {"validity": Validity(end=NOW)}),
        (Code.COLLATERAL_NOT_YET_VALID, {"validity": Validity(start=NOW + 1)}),
        (Code.CERTIFICATE_FORMAT, {"critical": ("2",)}),
        (Code.CERTIFICATE_FORMAT, {"extensions": {"1": None}}),
        (Code.CERTIFICATE_FORMAT, {"extensions": {"2": None}}),
        (Code.CERTIFICATE_FORMAT, {"extensions": {"2": b"\x0c\x05Milan"}}),
        (Code.CERTIFICATE_FORMAT, {"extensions": {"3.3": None}}),
        (Code.CERTIFICATE_FORMAT, {"extensions": {"3.3": b"\x02\x02\x00\x18"}}),
        (Code.CERTIFICATE_FORMAT, {"extensions": {"3.8": b"\x02\x01\xdb"}}),
        (Code.CERTIFICATE_FORMAT, {"extensions": {"4": None}}),
        (Code.PRODUCT_MISMATCH, {"extensions": {"1": der_integer(1)}}),
        (Code.PRODUCT_MISMATCH, {"extensions": {"2": ia5("Genoa")}}),
        (Code.PRODUCT_MISMATCH, {"extensions": {"2": ia5("Milano")}}),
        (Code.TCB_MISMATCH, {"extensions": {"3.1": der_integer(5)}}),
        (Code.TCB_MISMATCH, {"extensions": {"3.2": der_integer(3)}}),
        (Code.TCB_MISMATCH, {"extensions": {"3.3": der_integer(25)}}),
        (Code.TCB_MISMATCH, {"extensions": {"3.8": der_integer(220)}}),
        *((Code.TCB_MISMATCH, {"extensions": {f"3.{end}": der_integer(1)}}) for end in (4, 5, 6, 7)),
        (Code.CHIP_MISMATCH, {"extensions": {"4": bytes(64)}}),
        (Code.CHIP_MISMATCH, {"extensions": {"4": CHIP.chip_id[:63]}}),
        (Code.CHIP_MISMATCH, {"extensions": {"5": ia5("CN=provider")}}),
    ],
)
def test_an_endorsement_key_that_is_not_the_report_s_is_refused(code: Code, chip: dict[str, Any]) -> None:
    refused(code, lambda: of(CHIP.but(**chip)))


def test_a_chip_id_may_stand_in_an_octet_string() -> None:
    assert of(CHIP.but(extensions={"4": b"\x04\x40" + CHIP.chip_id})).platform == check().platform


def test_a_turin_key_states_its_fmc_level() -> None:
    turin = Authority("Turin", ark_key=MILAN.ark_key, ask_key=MILAN.ask_key)
    refused(Code.TCB_MISMATCH, lambda: of(turin.chip().but(extensions={"3.9": der_integer(2)})))
    refused(Code.CERTIFICATE_FORMAT, lambda: of(turin.chip().but(extensions={"3.9": None})))


def test_a_turin_chip_id_has_eight_bytes() -> None:
    chip = Authority("Turin", ark_key=MILAN.ark_key, ask_key=MILAN.ask_key).chip()
    longer = chip.report(at={0x1A8: b"\x01"})
    refused(Code.REPORT_RESERVED_BYTES, lambda: check(longer, chip.endorsements, chip.authority.root))


@pytest.mark.parametrize("extensions", [{"4": bytes(64)}, {"5": None}, {"5": ia5("")}])
def test_a_provider_s_key_has_a_provider_and_no_chip(extensions: dict[str, bytes | None]) -> None:
    with pytest.raises(EvidenceRefused) as caught:
        of(VLEK.chip().but(extensions=extensions))
    assert caught.value.code in (Code.CHIP_MISMATCH, Code.CERTIFICATE_FORMAT)


def test_a_report_that_names_the_other_kind_of_key_is_refused() -> None:
    refused(Code.CERTIFICATE_CHAIN, lambda: check(CHIP.report(at={0x48: b"\x04"})))
    vlek = VLEK.chip()
    refused(Code.CERTIFICATE_CHAIN, lambda: check(vlek.report(at={0x48: b"\0"}), vlek.endorsements, VLEK.root))


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        (Code.PRODUCT_MISMATCH, {0x188: b"\x19\x11"}),
        (Code.PRODUCT_MISMATCH, {0x188: b"\x1a\x01"}),
        (Code.PRODUCT_MISMATCH, {0x188: b"\0\0"}),
        (Code.CHIP_MISMATCH, {0x1A0: b"\x01"}),
        (Code.CHIP_MISMATCH, {0x1A0: bytes(64)}),
        (Code.TCB_MISMATCH, {0x180: raw_tcb("Milan", {**CHIP.levels, "microcode": 218})}),
        (Code.REPORT_RESERVED_BYTES, {0x160: bytes(31) + b"\x01"}),
        *((Code.REPORT_RESERVED_BYTES, {offset + 2: b"\x01"}) for offset in (0x38, 0x180, 0x1E0, 0x1F0)),
    ],
)
def test_a_signed_report_that_contradicts_its_key_is_refused(code: Code, fields: dict[int, bytes]) -> None:
    refused(code, lambda: check(CHIP.report(at=fields)))


def test_a_guest_that_may_migrate_names_its_agent() -> None:
    assert check(CHIP.report(at={0x8: b"\0\0\x07", 0x160: bytes(31) + b"\x01"})).report.policy.migration_agent


# Revocation


def with_list(crl: bytes) -> SnpEndorsements:
    return replace(CHIP.endorsements, crl=crl)


def test_a_list_that_names_others_is_part_of_the_verdict() -> None:
    claims = check(endorsements=with_list(MILAN.crl(1, 2)))
    assert claims.valid_until == NOW + DAY
    assert claims.collateral != check().collateral


@pytest.mark.parametrize(
    ("code", "crl"),
    [
        (Code.CERTIFICATE_REVOKED, MILAN.crl(1, MILAN.ask_serial)),
        (Code.REVOCATION_LIST, Authority().crl()),
        (Code.REVOCATION_LIST, replace(MILAN, ark_name="ARK-Genoa").crl()),
        (Code.REVOCATION_LIST, MILAN.crl()[:-1]),
        (Code.REVOCATION_LIST, flipped(MILAN.crl(), len(MILAN.crl()) - 1)),
        (Code.COLLATERAL_EXPIRED, MILAN.crl(end=NOW)),
        (Code.COLLATERAL_NOT_YET_VALID, MILAN.crl(start=NOW + 1)),
    ],
)
def test_a_list_that_revokes_or_does_not_hold_refuses(code: Code, crl: bytes) -> None:
    refused(code, lambda: check(endorsements=with_list(crl)))
