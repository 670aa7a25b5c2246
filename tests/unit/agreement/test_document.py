"""Agreement files: signatures are checked whenever one is read, merged or signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.signing import SigningKey
from oracle.agreement.document import AgreementDocument, merge, parse_document, read_document, write_document
from oracle.agreement.sign import sign


@pytest.fixture
def document(case: Any) -> AgreementDocument:
    found: AgreementDocument = case.draft().document
    return found


def changed(document: AgreementDocument, change: Any) -> bytes:
    value = json.loads(document.canonical())
    change(value)
    return json.dumps(value).encode()


def test_a_signed_document_survives_writing_and_reading(case: Any, document: AgreementDocument, tmp_path: Path) -> None:
    for key in case.keys:
        document = sign(document, key)
    write_document(tmp_path / "agreement.json", document)
    found = read_document(tmp_path / "agreement.json")
    assert found == document
    assert found.missing() == ()
    assert [path.name for path in tmp_path.iterdir()] == ["agreement.json"]


def test_signatures_are_given_in_the_parties_order(case: Any, document: AgreementDocument) -> None:
    lab, hospital_a, hospital_b = case.keys
    signed = sign(sign(document, hospital_b), lab)
    assert signed.ordered_signatures() == (lab.sign(document.id), b"", hospital_b.sign(document.id))
    assert signed.missing() == (hospital_a.address,)


def test_files_signed_apart_merge(case: Any, document: AgreementDocument) -> None:
    parts = [sign(document, key) for key in case.keys]
    merged = merge(*parts)
    assert merged.missing() == ()
    assert merge(*reversed(parts)).signatures == merged.signatures


def test_files_about_different_agreements_do_not_merge(case: Any, document: AgreementDocument) -> None:
    with pytest.raises(Refused) as refused:
        merge(document, case.draft().document)
    assert refused.value.code == "document.other"


def test_a_stranger_cannot_sign(document: AgreementDocument) -> None:
    stranger = SigningKey.generate()
    with pytest.raises(Refused) as refused:
        sign(document, stranger)
    assert refused.value.code == "sign.party"
    with pytest.raises(Refused):
        document.with_signature(stranger.address, stranger.sign(document.id))


def test_one_party_cannot_sign_for_another(case: Any, document: AgreementDocument) -> None:
    lab, hospital, _ = case.keys
    with pytest.raises(Refused) as refused:
        document.with_signature(hospital.address, lab.sign(document.id))
    assert refused.value.code == "signature.signer"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda value: value.update(format="other"), "document.invalid"),
        (lambda value: value.update(v=2), "document.invalid"),
        (lambda value: value.update(surprise=1), "document.invalid"),
        (lambda value: value["agreement"].pop("salt"), "document.invalid"),
        (lambda value: value.update(signatures={"0x" + "55" * 20: "0x" + "00" * 65}), "document.invalid"),
        (lambda value: value.update(contractSignatures={"0x" + "55" * 20: "0x00"}), "document.invalid"),
        (lambda value: value.update(endpoints={"0x" + "55" * 32: "https://a.example"}), "document.invalid"),
        (lambda value: value.update(storage=["ftp://a"]), "document.invalid"),
        (lambda value: value["requesters"].popitem(), "access.requesters"),
        (lambda value: value.update(auditors={"accounts": ["0x" + "55" * 20], "threshold": 1}), "agreement.auditors"),
        (lambda value: value["requesters"].update({"0x" + "66" * 20: "1"}), "access.requesters"),
    ],
)
def test_one_wrong_field_of_a_document_is_refused(document: AgreementDocument, change: Any, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_document(changed(document, change))
    assert refused.value.code == code


def test_a_contract_wallets_signature_is_kept_and_marked_unchecked(case: Any, document: AgreementDocument) -> None:
    hospital = case.keys[1].address
    kept = document.with_contract_signature(hospital, b"\x01" * 130)
    assert hospital not in kept.missing()
    assert kept.signatures == {}
    assert parse_document(kept.canonical()).contract_signatures == {hospital: b"\x01" * 130}
    with pytest.raises(Refused):
        document.with_contract_signature("0x" + "55" * 20, b"\x01")


def test_a_checked_signature_replaces_an_unchecked_one(case: Any, document: AgreementDocument) -> None:
    key = case.keys[1]
    merged = merge(document.with_contract_signature(key.address, b"\x01"), sign(document, key))
    assert merged.contract_signatures == {}
    assert merged.signatures == {key.address: key.sign(document.id)}


def test_nothing_is_signed_that_the_rules_refuse(case: Any, document: AgreementDocument) -> None:
    terms = document.agreement
    wrong = document.model_copy(
        update={"agreement": terms.model_copy(update={"fn": terms.fn.model_copy(update={"sealed_id": b"\x01" * 32})})}
    )
    with pytest.raises(Refused) as refused:
        sign(wrong, case.keys[0])
    assert refused.value.code == "agreement.not_yet"
