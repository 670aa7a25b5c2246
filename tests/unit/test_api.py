"""A client from a configuration file alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import oracle
from oracle.errors import Refused
from oracle.keys import create_hpke_key, create_wallet
from tests.cli_kit import CHEAP

DEPLOYMENT = {
    "chainId": "31337",
    **dict.fromkeys(("agreementRegistry", "enclaveRegistry", "oracle", "streams", "audits"), "0x" + "a1" * 20),
    "verifiers": {},
    "firstBlock": 0,
}
PASSWORD = "correct horse"


def write(base: Path, **settings: str) -> Path:
    (base / "deployment.json").write_text(json.dumps(DEPLOYMENT))
    (base / "password").write_text(f"{PASSWORD}\n")
    value = {"rpc": "http://127.0.0.1:1", "deployment": "deployment.json", "storage": ["storage"], "brokers": {}}
    path = base / "oracle.yaml"
    path.write_text(yaml.safe_dump({**value, **settings}))
    return path


async def test_a_client_has_the_keys_that_its_file_names(tmp_path: Path) -> None:
    address = create_wallet(tmp_path / "wallet.json", lambda: PASSWORD, n=CHEAP)
    public = create_hpke_key(tmp_path / "result.json", lambda: PASSWORD, n=CHEAP)
    named = {"keystore": "wallet.json", "resultKey": "result.json"}
    given = oracle.connect(write(tmp_path, **named), password=lambda: PASSWORD)
    for client in (given, oracle.connect(str(write(tmp_path, passwordFile="password", **named)))):
        assert client.wallet is not None
        assert client.result_key is not None
        assert (client.wallet.address, client.result_key.public.digest) == (address, public.digest)
        await client.rpc.close()


async def test_a_client_that_only_reads_needs_no_password(tmp_path: Path) -> None:
    client = oracle.connect(write(tmp_path))
    assert (client.wallet, client.result_key) == (None, None)
    await client.rpc.close()


def test_keys_without_a_password_are_refused(tmp_path: Path) -> None:
    create_wallet(tmp_path / "wallet.json", lambda: PASSWORD, n=CHEAP)
    with pytest.raises(Refused) as refused:
        oracle.connect(write(tmp_path, keystore="wallet.json"))
    assert refused.value.code == "password.missing"
