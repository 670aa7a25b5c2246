"""The verifier's role: what it signs about evidence that holds, and what it refuses, one thing changed at a time."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.config import EnclaveConfig, VerifierPolicy, read_config
from enclave_app.identity import EnclaveIdentity
from enclave_app.logs import Log
from enclave_app.protocol import signing
from enclave_app.protocol.canonical import dump, validate
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.measurement import snp_measurement
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import TcbStatus, Tee, VerifierStatement
from enclave_app.protocol.wire import MAX_CRL, MAX_QUOTE, AppraisalBody
from enclave_app.verifier import Verifier
from tests import nitro_kit
from tests.snp_kit import DAY, NOW, TCB, YEAR, Authority, Chip

BOUND = sha256(b"what the registry expects") + bytes(32)
DOMAIN = Domain(chain_id=31337, verifying_contract="0x" + "c3" * 20)
MILAN = Authority()
TURIN = Authority(line="Turin")
VLEK = Authority(vlek=True, ark_key=MILAN.ark_key)
CHIP = MILAN.chip()
LINKS = nitro_kit.links()
CHAIN = nitro_kit.chain(LINKS)
LEAST = {name: TCB[name] for name in ("bootloader", "tee", "snp", "microcode")}
SNP: dict[str, Any] = {
    "roots": ["0x" + MILAN.root.hex(), "0x" + VLEK.root.hex()],
    "minTcb": {"milan": LEAST, "genoa": None, "turin": None},
    "vmpl": [0],
    "keys": ["VCEK"],
    "crl": "skip",
    "aliasCheck": "require",
}
NITRO: dict[str, Any] = {"roots": ["0x" + nitro_kit.root_of(CHAIN).hex()]}


@pytest.fixture(scope="module")
def signer() -> EnclaveIdentity:
    attester = SoftwareAttester(
        DevelopmentAuthority(NOW).issue_platform(), SoftwareEnclave(sha256(b"a program"), b"its configuration")
    )
    return EnclaveIdentity(attester, bytes(32), (), SigningKey.generate(), SealingKey.generate())


def policy(snp: dict[str, Any] | None = SNP, nitro: dict[str, Any] | None = NITRO) -> VerifierPolicy:
    return validate(VerifierPolicy, {"snp": snp, "nitro": nitro})


def snp_body(chip: Chip = CHIP, report: bytes | None = None, **changes: Any) -> AppraisalBody:
    ends = chip.endorsements
    values: dict[str, Any] = {
        "chain_id": DOMAIN.chain_id,
        "registry": DOMAIN.verifying_contract,
        "tee": Tee.SNP,
        "quote": chip.report(BOUND) if report is None else report,
        "endorsements": (ends.ek, ends.ask, ends.ark),
        "now": NOW,
    }
    return AppraisalBody(**{**values, **changes})


def nitro_body(**changes: Any) -> AppraisalBody:
    return snp_body(**{"tee": Tee.NITRO, "quote": document(BOUND), "endorsements": (), **changes})


def document(user_data: bytes) -> bytes:
    return nitro_kit.sign(cbor2.dumps(nitro_kit.content(CHAIN, user_data=user_data)), LINKS[-1].key)


def vouched(identity: EnclaveIdentity, body: AppraisalBody, taken: VerifierPolicy | None = None) -> VerifierStatement:
    """The statement, once its signature was checked."""
    answer = Verifier(identity, taken or policy(), Log()).appraise(body)
    digest = answer.statement.typed_digest(DOMAIN)
    signing.check(digest, answer.signature, identity.signer.address, "a statement")
    return answer.statement


def refused(code: str, identity: EnclaveIdentity, body: AppraisalBody, taken: VerifierPolicy | None = None) -> None:
    with pytest.raises(Refused) as caught:
        vouched(identity, body, taken)
    assert caught.value.code == code


def test_a_report_that_holds_is_vouched_for(signer: EnclaveIdentity) -> None:
    body = snp_body()
    statement = vouched(signer, body)
    assert (statement.tee, statement.tcb_status, statement.evaluation) == (Tee.SNP, TcbStatus.UP_TO_DATE, 0)
    assert statement.report_data == BOUND[:32]
    assert statement.root == MILAN.root
    assert statement.platform == sha256(CHIP.chip_id)
    assert statement.collateral == CHIP.endorsements.digest
    assert statement.appraised_at == NOW
    # Its last second: at NOW + YEAR the certificates have ended.
    assert statement.valid_until == NOW + YEAR - 1
    assert statement.measurement == snp_measurement(body.quote)


def test_a_nitro_document_that_holds_is_vouched_for(signer: EnclaveIdentity) -> None:
    statement = vouched(signer, nitro_body())
    assert (statement.tee, statement.tcb_status) == (Tee.NITRO, TcbStatus.UP_TO_DATE)
    assert statement.report_data == BOUND[:32]
    assert statement.platform == sha256(nitro_kit.pcr("4"))
    assert statement.valid_until == LINKS[-1].end - 1


@pytest.mark.parametrize("component", LEAST)
def test_a_component_below_the_least_is_out_of_date(signer: EnclaveIdentity, component: str) -> None:
    more = {**LEAST, component: LEAST[component] + 1}
    statement = vouched(signer, snp_body(), policy({**SNP, "minTcb": {**SNP["minTcb"], "milan": more}}))
    assert statement.tcb_status == TcbStatus.OUT_OF_DATE


def test_turins_own_component_counts(signer: EnclaveIdentity) -> None:
    found = []
    for more in (0, 1):
        least = {**LEAST, "fmc": TCB["fmc"] + more}
        taken = policy({**SNP, "roots": ["0x" + TURIN.root.hex()], "minTcb": {**SNP["minTcb"], "turin": least}})
        found.append(vouched(signer, snp_body(TURIN.chip()), taken).tcb_status)
    assert found == [TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE]


def test_a_list_that_revokes_makes_a_statement_for_challenges(signer: EnclaveIdentity) -> None:
    revoking = MILAN.crl(MILAN.ask_serial)
    statement = vouched(signer, snp_body(crl=revoking))
    assert statement.tcb_status == TcbStatus.REVOKED
    clean = vouched(signer, snp_body(crl=MILAN.crl(MILAN.ask_serial + 1)))
    assert clean.tcb_status == TcbStatus.UP_TO_DATE
    # A list with an end ends the statement, and it is in what the statement says it rests on.
    assert clean.valid_until == NOW + DAY - 1
    assert len({statement.collateral, clean.collateral, vouched(signer, snp_body()).collateral}) == 3
    # Whoever challenges has to meet the registered versions.
    assert statement.svn_digest == clean.svn_digest


def test_a_revoked_issuer_s_statement_challenges_none_of_another_issuer_s_keys(signer: EnclaveIdentity) -> None:
    """Whoever has AMD's leaked key for a provider writes reports with any TCB; chips with keys of their own stay as they are."""
    provider = Authority(vlek=True, ark_key=MILAN.ark_key, ask_serial=MILAN.ask_serial + 1)
    provider.__dict__["ark"] = MILAN.ark
    taken = policy({**SNP, "keys": ["VCEK", "VLEK"]})
    revoked = vouched(signer, snp_body(provider.chip(), crl=MILAN.crl(provider.ask_serial)), taken)
    registered = vouched(signer, snp_body(), taken)
    assert (revoked.tcb_status, registered.tcb_status) == (TcbStatus.REVOKED, TcbStatus.UP_TO_DATE)
    assert revoked.root == registered.root
    assert revoked.svn_digest != registered.svn_digest


def test_a_required_list_has_to_come(signer: EnclaveIdentity) -> None:
    taken = policy({**SNP, "crl": "require"})
    refused("appraisal.crl", signer, snp_body(), taken)
    assert vouched(signer, snp_body(crl=MILAN.crl()), taken).tcb_status == TcbStatus.UP_TO_DATE


def test_a_list_that_ended_is_refused(signer: EnclaveIdentity) -> None:
    refused("evidence.collateral_expired", signer, snp_body(crl=MILAN.crl(end=NOW)))


def test_evidence_that_does_not_hold_is_refused(signer: EnclaveIdentity) -> None:
    report = bytearray(CHIP.report(BOUND))
    report[0x90] ^= 1
    refused("evidence.report_signature", signer, snp_body(report=bytes(report)))
    refused("evidence.collateral_expired", signer, snp_body(now=NOW + YEAR))
    refused(
        "evidence.debug_enclave",
        signer,
        snp_body(report=CHIP.report(BOUND, at={0x08: (0xB0000).to_bytes(8, "little")})),
    )
    refused("evidence.certificate_chain", signer, snp_body(endorsements=(CHIP.ek,)))


def test_a_root_that_is_not_in_the_policy_is_refused(signer: EnclaveIdentity) -> None:
    other = Authority().chip()
    refused("appraisal.root", signer, snp_body(other))
    document_of_another, _ = nitro_kit.document(nitro_kit.links(), user_data=BOUND)
    refused("appraisal.root", signer, nitro_body(quote=document_of_another))


def test_a_nitro_root_is_none_of_amds(signer: EnclaveIdentity) -> None:
    refused("appraisal.root", signer, nitro_body(), policy(SNP, {"roots": SNP["roots"]}))


def test_a_line_without_a_least_tcb_is_refused(signer: EnclaveIdentity) -> None:
    refused("appraisal.line", signer, snp_body(TURIN.chip()), policy({**SNP, "roots": ["0x" + TURIN.root.hex()]}))


def test_a_privilege_level_that_is_not_in_the_policy_is_refused(signer: EnclaveIdentity) -> None:
    body = snp_body(report=CHIP.report(BOUND, at={0x30: b"\x01"}))
    refused("appraisal.vmpl", signer, body)
    assert vouched(signer, body, policy({**SNP, "vmpl": [0, 1]})).tcb_status == TcbStatus.UP_TO_DATE


def test_a_providers_key_counts_only_where_the_policy_says_so(signer: EnclaveIdentity) -> None:
    body = snp_body(VLEK.chip())
    refused("appraisal.key", signer, body)
    assert vouched(signer, body, policy({**SNP, "keys": ["VLEK"]})).tcb_status == TcbStatus.UP_TO_DATE


def test_a_guest_that_an_agent_may_copy_is_refused(signer: EnclaveIdentity) -> None:
    """R3. The agent is named, as AMD's firmware does, and still nobody measured it."""
    report = CHIP.report(BOUND, at={0x8: b"\0\0\x07", 0x160: bytes(31) + b"\x01"})
    refused("appraisal.migration", signer, snp_body(report=report))


def test_memory_that_was_not_checked_for_aliases_is_refused(signer: EnclaveIdentity) -> None:
    body = snp_body(report=CHIP.report(BOUND, at={0x40: b"\x05"}))
    refused("appraisal.alias_check", signer, body)
    assert vouched(signer, body, policy({**SNP, "aliasCheck": "skip"})).tcb_status == TcbStatus.UP_TO_DATE


@pytest.mark.parametrize(
    "found", [BOUND[:32], BOUND[:32] + bytes(31) + b"\x01", b""], ids=["short", "second half", "none"]
)
def test_report_data_has_one_form(signer: EnclaveIdentity, found: bytes) -> None:
    refused("appraisal.report_data", signer, nitro_body(quote=document(found)))


def test_the_second_half_of_report_data_is_zero(signer: EnclaveIdentity) -> None:
    refused("appraisal.report_data", signer, snp_body(report=CHIP.report(BOUND[:63] + b"\x01")))


def test_a_kind_of_tee_without_a_policy_is_refused(signer: EnclaveIdentity) -> None:
    refused("appraisal.tee", signer, snp_body(), policy(None, NITRO))
    refused("appraisal.tee", signer, nitro_body(), policy(SNP, None))


@pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX, 0, 5])
def test_what_a_contract_checks_itself_is_none_of_its_business(signer: EnclaveIdentity, tee: int) -> None:
    refused("appraisal.tee", signer, snp_body(tee=tee))


def config(**changes: Any) -> bytes:
    value = {**EnclaveConfig(attester="software").model_dump(mode="json", by_alias=True), **changes}
    return dump(value)


VERIFIER: dict[str, Any] = {"snp": SNP, "nitro": None}


def test_the_policy_is_part_of_what_is_measured() -> None:
    assert read_config(config(role="verifier", verifier=VERIFIER)).verifier == policy(SNP, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "verifier"},
        {"verifier": VERIFIER},
        {"role": "verifier", "verifier": {"snp": None, "nitro": None}},
        *({"role": "verifier", "verifier": {"snp": {k: v for k, v in SNP.items() if k != name}, "nitro": None}} for name in SNP),
        {"role": "verifier", "verifier": {"snp": {**SNP, "roots": []}, "nitro": None}},
        {"role": "verifier", "verifier": {"snp": {**SNP, "vmpl": []}, "nitro": None}},
        {"role": "verifier", "verifier": {"snp": {**SNP, "vmpl": [4]}, "nitro": None}},
        {"role": "verifier", "verifier": {"snp": {**SNP, "keys": []}, "nitro": None}},
        {"role": "verifier", "verifier": {"snp": {**SNP, "minTcb": {**SNP["minTcb"], "turin": LEAST}}, "nitro": None}},
    ],
)  # fmt: skip
def test_half_a_policy_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        read_config(config(**changes))


@pytest.mark.parametrize("changes", [{"quote": bytes(MAX_QUOTE + 1)}, {"crl": bytes(MAX_CRL + 1)}])
def test_what_is_read_before_a_signature_counts_is_bounded(changes: dict[str, bytes]) -> None:
    """Whoever reaches a verifier may ask it."""
    with pytest.raises(Refused) as caught:
        validate(AppraisalBody, {**snp_body().model_dump(mode="json", by_alias=True), **changes})
    assert caught.value.code == "document.invalid"
