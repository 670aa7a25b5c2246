"""What a broker's configuration refuses, its keys at rest, its roots and its rate limits."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.protocol.canonical import parse
from oracle.errors import Refused, Retryable
from oracle.keybroker import BrokerCard, init, read_card, read_config, read_password
from oracle.keybroker.config import Anchors, RateLimits
from oracle.keybroker.keys import HPKE_FILE, SIGNER_FILE, load
from oracle.keybroker.limits import Limiter
from oracle.keybroker.trust import load_roots

COST = 1 << 10
REGISTRY = "0x00000000000000000000000000000000000000aa"


def settings(**changes: Any) -> dict[str, Any]:
    chain = {"chainId": 5, "agreementRegistries": [REGISTRY], "rpc": ["http://one:1", "http://two:1"]}
    chain.update(changes.pop("chain", {}))
    base = {"directory": "keys", "passwordFile": "password", "collateral": "collateral", "chains": [chain]}
    return {**base, **changes}


def read(tmp_path: Path, value: Any) -> Any:
    path = tmp_path / "broker.yaml"
    path.write_text(yaml.safe_dump(value))
    return read_config(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, settings(listen={"unix": "broker.sock"}))
    assert config.directory == tmp_path / "keys"
    assert config.listen.unix == tmp_path / "broker.sock"
    assert config.chains[0].votes == 2


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (settings(chain={"rpc": ["http://one:1"]}), "dangerousSingleRpc"),
        (settings(chain={"quorum": 1}), "dangerousSingleRpc"),
        (settings(chain={"quorum": 3}), "quorum"),
        (settings(chain={"quorum": 0}), "quorum"),
        (settings(chain={"rpc": ["http://", "http://two:2"]}), "an RPC endpoint is"),
        (settings(chain={"rpc": [f"http://h{i}:1" for i in range(4)], "quorum": 2}), "more than half"),
        (settings(chain={"rpc": ["http://one:1", "http://ONE:1/"]}), "twice"),
        (settings(chain={"rpc": ["ftp://one", "http://two"]}), "http"),
        (settings(chain={"agreementRegistries": []}), "agreementRegistries"),
        (settings(chain={"maxBlockAge": None}), "maxBlockAge"),
        (settings(chain={"maxBlockAge": "never"}), "maxBlockAge"),
        (settings(chains=[]), "chains"),
        (settings(chains=[*settings()["chains"], *settings()["chains"]]), "twice"),
        (settings(anchors={"intel": False}), "trust anchor"),
        (settings(anchors={"development": ["root.der"]}), "dangerousDevelopmentRoots"),
        (settings(surprise=1), "surprise"),
        ({}, "directory"),
        ([], "the file"),
    ],
)
def test_a_configuration_that_means_less_than_it_should_is_refused(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(Refused, match=says) as caught:
        read(tmp_path, value)
    assert caught.value.code == "yaml.invalid"


def test_one_endpoint_can_be_meant(tmp_path: Path) -> None:
    chain = {"rpc": ["http://one:1"], "dangerousSingleRpc": True}
    assert read(tmp_path, settings(chain=chain)).chains[0].votes == 1


def test_an_unreadable_file_and_an_empty_password_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("{")
    (tmp_path / "empty").write_text("\n")
    for attempt in (
        lambda: read_config(tmp_path / "bad.yaml"),
        lambda: read_config(tmp_path / "none.yaml"),
        lambda: read_password(tmp_path / "empty"),
        lambda: read_password(tmp_path / "none"),
    ):
        with pytest.raises(Refused):
            attempt()


# Roots (R4)


def roots(tmp_path: Path, *chain_ids: int) -> dict[bytes, bytes]:
    path = tmp_path / "root.der"
    path.write_bytes(DevelopmentAuthority(1_800_000_000).root_der)
    return load_roots(Anchors(development=(path,), dangerous_development_roots=True), chain_ids)


@pytest.mark.parametrize("chain_id", [1, 10, 8453, 17000, 11155111])
def test_a_development_root_is_refused_beside_a_public_chain(tmp_path: Path, chain_id: int) -> None:
    with pytest.raises(Refused) as caught:
        roots(tmp_path, 31337, chain_id)
    assert caught.value.code == "anchors.root_on_public_chain"


def test_a_development_root_counts_on_a_private_chain(tmp_path: Path) -> None:
    assert len(roots(tmp_path, 31337)) == 2


def test_intel_is_the_default(tmp_path: Path) -> None:
    assert [digest.hex()[:8] for digest in load_roots(Anchors(), (1,))] == ["44a0196b"]


def test_a_root_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root.der").write_bytes(b"no certificate")
    for name in ("root.der", "missing.der"):
        with pytest.raises(Refused):
            load_roots(Anchors(development=(tmp_path / name,), dangerous_development_roots=True), (31337,))


# Keys at rest


def test_keys_open_with_their_password_only(tmp_path: Path) -> None:
    card = init(tmp_path / "b", "good", url="http://b", cost=COST)
    keys = load(tmp_path / "b", "good")
    assert (keys.card, keys.sealing.public.digest, keys.signing.address) == (card, card.digest, card.signer)
    with pytest.raises(Refused) as caught:
        load(tmp_path / "b", "bad")
    assert caught.value.code == "broker.password"


def test_key_files_are_the_owners_alone_and_hold_no_key(tmp_path: Path) -> None:
    from eth_account import Account

    directory = tmp_path / "b"
    init(directory, "good", cost=COST)
    for name in (HPKE_FILE, SIGNER_FILE):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    secret = Account.decrypt((directory / SIGNER_FILE).read_text(), "good").hex().removeprefix("0x")
    assert all(secret not in file.read_text() for file in directory.iterdir())


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    card = init(tmp_path / "b", "good", cost=COST)
    with pytest.raises(Refused) as caught:
        init(tmp_path / "b", "good", cost=COST)
    assert caught.value.code == "broker.exists"
    assert read_card(tmp_path / "b") == card


def test_a_card_of_other_keys_is_refused(tmp_path: Path) -> None:
    init(tmp_path / "a", "good", cost=COST)
    init(tmp_path / "b", "good", cost=COST)
    (tmp_path / "b" / "broker.json").write_bytes((tmp_path / "a" / "broker.json").read_bytes())
    with pytest.raises(Refused) as caught:
        load(tmp_path / "b", "good")
    assert caught.value.code == "broker.card"


def test_a_card_whose_digest_is_not_its_keys_is_refused(tmp_path: Path) -> None:
    card = init(tmp_path / "a", "good", cost=COST)
    path = tmp_path / "card.json"
    path.write_bytes(card.model_copy(update={"digest": bytes(32)}).canonical())
    with pytest.raises(Refused) as caught:
        read_card(path)
    assert caught.value.code == "broker.card"
    assert parse(BrokerCard, card.canonical()) == card


# Rates


def test_a_client_that_asks_too_fast_waits_alone() -> None:
    now = [0.0]
    limits = RateLimits(per_client=1, per_client_burst=2, overall=100, overall_burst=100)
    limiter = Limiter(limits, lambda: now[0])
    limiter.check("a")
    limiter.check("a")
    with pytest.raises(Retryable):
        limiter.check("a")
    limiter.check("b")
    now[0] = 1.0
    limiter.check("a")


def test_all_clients_together_have_a_limit() -> None:
    limits = RateLimits(per_client=100, per_client_burst=100, overall=1, overall_burst=2)
    limiter = Limiter(limits, lambda: 0.0)
    limiter.check("a")
    limiter.check(None)
    with pytest.raises(Retryable):
        limiter.check("b")
