"""Wallet keystores and HPKE key files."""

from __future__ import annotations

import json
import secrets
import stat
from pathlib import Path
from typing import Literal

import pytest
from eth_account import Account

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.signing import recover
from oracle.keys import (
    create_hpke_key,
    create_wallet,
    import_wallet,
    load_hpke_key,
    load_raw_key,
    load_wallet,
    read_public_key,
    read_wallet,
    write_public_key,
)
from oracle.passwords import lock, password_file, unlock

CHEAP = 1 << 10


def right() -> str:
    return "correct horse"


def wrong() -> str:
    return "incorrect horse"


def test_a_wallet_signs_after_its_password_opens_it(tmp_path: Path) -> None:
    address = create_wallet(tmp_path / "wallet.json", right, n=CHEAP)
    found = read_wallet(tmp_path / "wallet.json")
    assert found.address == address
    digest = secrets.token_bytes(32)
    assert recover(digest, found.unlock(right).sign(digest)) == address


def test_the_keystore_is_the_one_that_other_tools_read_and_write(tmp_path: Path) -> None:
    address = create_wallet(tmp_path / "ours.json", right, n=CHEAP)
    secret = Account.decrypt(json.loads((tmp_path / "ours.json").read_text()), right())
    assert Account.from_key(secret).address == address
    kinds: tuple[tuple[Literal["scrypt", "pbkdf2"], int], ...] = (("scrypt", CHEAP), ("pbkdf2", 1000))
    for kdf, cost in kinds:
        (tmp_path / f"{kdf}.json").write_text(json.dumps(Account.encrypt(secret, right(), kdf=kdf, iterations=cost)))
        assert load_wallet(tmp_path / f"{kdf}.json", right).address == address


def test_a_private_key_file_becomes_a_wallet(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0x" + "11" * 32 + "\n")
    address = import_wallet(tmp_path / "wallet.json", tmp_path / "secret", right, n=CHEAP)
    assert load_wallet(tmp_path / "wallet.json", right).address == address == load_raw_key(tmp_path / "secret").address


@pytest.mark.parametrize(("text", "code"), [("", "key.file"), ("0x12", "key.file"), ("00" * 32, "signature.key")])
def test_what_is_no_private_key_is_refused_and_not_quoted(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "secret").write_text(text)
    for attempt in (load_raw_key, lambda path: import_wallet(tmp_path / "w", path, right, n=CHEAP)):
        with pytest.raises(Refused) as refused:
            attempt(tmp_path / "secret")
        assert refused.value.code == code
        assert not text or text not in refused.value.message


def test_a_wrong_password_opens_no_wallet(tmp_path: Path) -> None:
    create_wallet(tmp_path / "wallet.json", right, n=CHEAP)
    with pytest.raises(Refused) as refused:
        load_wallet(tmp_path / "wallet.json", wrong)
    assert refused.value.code == "keystore.password"


def test_an_empty_password_is_refused(tmp_path: Path) -> None:
    for attempt in (create_wallet, create_hpke_key):
        with pytest.raises(Refused) as refused:
            attempt(tmp_path / "file", lambda: "", n=CHEAP)
        assert refused.value.code == "password.empty"
        assert not (tmp_path / "file").exists()


def test_a_keystore_that_names_another_address_is_refused(tmp_path: Path) -> None:
    create_wallet(tmp_path / "wallet.json", right, n=CHEAP)
    store = json.loads((tmp_path / "wallet.json").read_text())
    (tmp_path / "wallet.json").write_text(json.dumps({**store, "address": "22" * 20}))
    with pytest.raises(Refused) as refused:
        load_wallet(tmp_path / "wallet.json", right)
    assert refused.value.code == "keystore.address"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 4),
        (("address",), "zz"),
        (("crypto",), None),
        (("crypto", "kdf"), "argon2"),
        (("crypto", "kdfparams"), {}),
        (("crypto", "kdfparams", "n"), 1 << 30),
        (("crypto", "kdfparams", "n"), 1000),
        (("crypto", "kdfparams", "salt"), "xy"),
        (("crypto", "ciphertext"), 5),
        (("crypto", "cipherparams"), []),
    ],
)
def test_a_malformed_keystore_is_refused(tmp_path: Path, path: tuple[str, ...], value: object) -> None:
    create_wallet(tmp_path / "wallet.json", right, n=CHEAP)
    store = json.loads((tmp_path / "wallet.json").read_text())
    inner = store
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    (tmp_path / "wallet.json").write_text(json.dumps(store))
    with pytest.raises(Refused) as refused:
        load_wallet(tmp_path / "wallet.json", right)
    assert refused.value.code == "keystore.format"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_keystore_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wallet.json").write_bytes(content)
    with pytest.raises(Refused) as refused:
        read_wallet(tmp_path / "wallet.json")
    assert refused.value.code == "keystore.format"


def test_an_hpke_key_opens_what_was_sealed_to_its_public_file(tmp_path: Path) -> None:
    public = create_hpke_key(tmp_path / "key.json", right, n=CHEAP)
    write_public_key(tmp_path / "public.json", public)
    sealed = read_public_key(tmp_path / "public.json").seal(b"share", b"info")
    assert load_hpke_key(tmp_path / "key.json", right).open(sealed, b"info") == b"share"


def test_a_public_key_is_read_in_each_form(tmp_path: Path) -> None:
    public = create_hpke_key(tmp_path / "key.json", right, n=CHEAP)
    (tmp_path / "raw").write_bytes(public.wire)
    (tmp_path / "hex").write_text("0x" + public.wire.hex() + "\n")
    write_public_key(tmp_path / "public.json", public)
    for name in ("key.json", "raw", "hex", "public.json"):
        assert read_public_key(tmp_path / name).digest == public.digest


def test_a_wrong_password_opens_no_hpke_key(tmp_path: Path) -> None:
    create_hpke_key(tmp_path / "key.json", right, n=CHEAP)
    with pytest.raises(Refused) as refused:
        load_hpke_key(tmp_path / "key.json", wrong)
    assert refused.value.code == "password.wrong"


def test_a_swapped_public_key_is_noticed(tmp_path: Path) -> None:
    create_hpke_key(tmp_path / "key.json", right, n=CHEAP)
    value = json.loads((tmp_path / "key.json").read_text())
    value["public"] = "0x" + SealingKey.generate().public.wire.hex()
    (tmp_path / "key.json").write_text(json.dumps(value))
    with pytest.raises(Refused):
        load_hpke_key(tmp_path / "key.json", right)


def test_key_files_are_private_never_overwritten_and_hold_no_plain_key(tmp_path: Path) -> None:
    create_wallet(tmp_path / "wallet", right, n=CHEAP)
    create_hpke_key(tmp_path / "hpke", right, n=CHEAP)
    secret = bytes(Account.decrypt(json.loads((tmp_path / "wallet").read_text()), right()))
    assert secret.hex() not in (tmp_path / "wallet").read_text()
    for name, create in (("wallet", create_wallet), ("hpke", create_hpke_key)):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        with pytest.raises(Refused) as refused:
            create(tmp_path / name, right, n=CHEAP)
        assert refused.value.code == "file.exists"


def test_a_locked_secret_opens_for_its_own_purpose_only() -> None:
    locked = lock(b"secret", right, b"one", n=CHEAP)
    assert unlock(locked, right, b"one") == b"secret"
    with pytest.raises(Refused) as refused:
        unlock(locked, right, b"two")
    assert refused.value.code == "password.wrong"
    with pytest.raises(Refused) as refused:
        unlock(locked.model_copy(update={"n": 1500}), right, b"one")
    assert refused.value.code == "password.cost"


def test_a_password_file_gives_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse\r\nignored\n")
    assert password_file(tmp_path / "password")() == "correct horse"
    with pytest.raises(Refused):
        password_file(tmp_path / "missing")()
