"""`oracle keys`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from enclave_app.protocol.hpke import SealingKey
from oracle.keybroker import init
from oracle.keys import create_hpke_key, create_wallet, load_hpke_key, load_wallet, read_public_key
from tests.cli_kit import CHEAP, answer, oracle, refusal


def password() -> str:
    return "correct horse"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(password() + "\n")
    return path


def test_a_new_wallet_opens_with_its_password(tmp_path: Path, password_file: Path) -> None:
    made = answer("keys", "new", "wallet", "--out", tmp_path / "w", "--password-file", password_file)
    assert load_wallet(tmp_path / "w", password).address == made["address"]
    assert stat.S_IMODE((tmp_path / "w").stat().st_mode) == 0o600
    assert answer("keys", "show", tmp_path / "w")["address"] == made["address"]


def test_a_new_hpke_key_opens_with_its_password(tmp_path: Path, password_file: Path) -> None:
    environment = {"ORACLE_PASSWORD_FILE": str(password_file)}
    made = answer("keys", "new", "hpke", "--out", tmp_path / "h", env=environment)
    assert "0x" + load_hpke_key(tmp_path / "h", password).public.digest.hex() == made["digest"]


def test_people_see_a_table(tmp_path: Path) -> None:
    address = create_wallet(tmp_path / "w", password, n=CHEAP)
    ran = oracle("keys", "show", tmp_path / "w")
    assert ran.code == 0
    assert address in ran.stdout
    assert not ran.stdout.startswith("{")


def test_a_public_key_is_handed_out_without_a_password(tmp_path: Path) -> None:
    key = create_hpke_key(tmp_path / "h", password, n=CHEAP)
    made = answer("keys", "public", tmp_path / "h", "--out", tmp_path / "h.pub")
    assert made["digest"] == "0x" + key.digest.hex()
    assert read_public_key(tmp_path / "h.pub").wire == key.wire
    assert answer("keys", "show", tmp_path / "h.pub")["digest"] == made["digest"]


def test_a_broker_is_known_by_its_card(tmp_path: Path) -> None:
    card = init(tmp_path / "broker", password(), url="https://broker.example", cost=CHEAP)
    file = tmp_path / "broker" / "broker.json"
    assert answer("keys", "show", file) == {
        "kind": "broker",
        "file": str(file),
        "digest": "0x" + card.digest.hex(),
        "signer": card.signer,
        "url": "https://broker.example",
    }


def test_a_card_that_names_another_key_is_refused(tmp_path: Path) -> None:
    card = init(tmp_path / "broker", password(), cost=CHEAP)
    changed = card.model_copy(update={"hpke_key": SealingKey.generate().public.wire})
    (tmp_path / "card.json").write_bytes(changed.canonical())
    assert refusal("keys", "show", tmp_path / "card.json")["code"] == "broker.card"


def test_a_key_file_is_never_overwritten(tmp_path: Path, password_file: Path) -> None:
    (tmp_path / "w").write_text("precious")
    error = refusal("keys", "new", "wallet", "--out", tmp_path / "w", "--password-file", password_file)
    assert error["code"] == "file.exists"
    assert (tmp_path / "w").read_text() == "precious"


def test_without_a_password_and_without_a_person_nothing_is_made(tmp_path: Path) -> None:
    assert refusal("keys", "new", "wallet", "--out", tmp_path / "w")["code"] == "password.missing"
    assert not (tmp_path / "w").exists()


def test_a_wallet_has_no_hpke_key_to_hand_out(tmp_path: Path) -> None:
    create_wallet(tmp_path / "w", password, n=CHEAP)
    assert refusal("keys", "public", tmp_path / "w", "--out", tmp_path / "x")["code"] == "keys.wallet"
