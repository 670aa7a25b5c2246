"""A chain with the contracts, and people who have wallets, configurations and files: for tests of commands against a chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.protocol.signing import SigningKey
from oracle.chain.deploy import deploy
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Sender, account_of
from oracle.keys import create_hpke_key, create_wallet
from tests.anvil_kit import anvil
from tests.cli_kit import CHEAP, answer

MEASUREMENT = "0x" + "e1" * 32
FEE = 10**15
PEOPLE = ("lab", "hospital", "stranger")
SPEC = """
name: ages
kind: sql
entry: query.sql
tables: {people: {sex: string, age: int64}}
params: [{name: smallest_group, type: integer, min: 1, max: 100}]
outputs: [result]
"""


@dataclass(frozen=True)
class Town:
    """A chain with the contracts, and people with wallets and configurations, all in one directory."""

    base: Path
    url: str
    addresses: dict[str, str]

    def as_(self, who: str) -> tuple[object, ...]:
        return ("--config", self.base / f"{who}.yaml")

    def call(self, method: str, *params: object) -> None:
        asyncio.run(_call(self.url, method, *params))

    def signed(self, name: str, **changes: Any) -> Path:
        """An agreement that both parties signed, drafted anew."""
        draft, document = self.base / f"{name}.draft", self.base / f"{name}.json"
        draft.write_text(yaml.safe_dump({**self.draft(), **changes}))
        answer("agreement", "draft", draft, "--out", document, *self.as_("lab"))
        for who in ("lab", "hospital"):
            answer("agreement", "sign", document, "--yes", *self.as_(who))
        return document

    def active(self, name: str, **changes: Any) -> tuple[Path, str]:
        document = self.signed(name, **changes)
        made = answer("agreement", "activate", document, *self.as_("lab"))
        assert made["status"] == "active"
        return document, made["agreement_id"]

    def draft(self) -> dict[str, Any]:
        return {
            "parties": {name: self.addresses[name] for name in ("lab", "hospital")},
            "function": {
                "bundle": "f.eofb",
                "owner": "lab",
                "limits": {"memory": "512 MiB", "time": "30 s", "outputBytes": "1 MiB", "outputRows": 1000},
            },
            "data": [
                {
                    "name": "people",
                    "owner": "hospital",
                    "manifest": "people",
                    "shares": "people/shares.json",
                    "columns": "all",
                }
            ],
            "enclaves": {
                "measurements": [MEASUREMENT],
                "anchors": ["intel"],
                "statuses": ["UP_TO_DATE"],
                "evaluationFloor": 17,
                "maxEvidenceAge": "24 h",
                "hosts": [self.addresses["stranger"]],
            },
            "brokers": {
                "threshold": 2,
                "confirmation": {"latest": 0},
                "releaseDelay": 20,
                "list": [{"key": f"b{n}/broker.json", "signer": "0x" + f"b{n}" * 20} for n in range(2)],
            },
            "outputs": [{"name": "result", "recipients": ["requester"], "owners": ["lab"]}],
            "access": {"requesters": ["lab"], "quota": 10},
            "price": {"fee": "0.001 ether"},
            "validity": {"until": "90 days"},
        }


async def _call(url: str, method: str, *params: object) -> None:
    rpc = Rpc(url)
    try:
        await rpc.call(method, *params)
    finally:
        await rpc.close()


async def _deploy(url: str, base: Path, addresses: list[str]) -> None:
    deployer, rpc = SigningKey.generate(), Rpc(url)
    try:
        for address in (deployer.address, *addresses):
            await rpc.call("anvil_setBalance", address, hex(10**20))
        deployment = await deploy(Sender(rpc, account_of(deployer)), DevelopmentAuthority(int(time.time())).root_der)
        (base / "deployment.json").write_bytes(deployment.canonical())
    finally:
        await rpc.close()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    base = tmp_path_factory.mktemp("town")
    (base / "pw").write_text("correct horse\n")
    addresses = {who: create_wallet(base / f"{who}.wallet", lambda: "correct horse", n=CHEAP) for who in PEOPLE}
    create_hpke_key(base / "result.key", lambda: "correct horse", n=CHEAP)
    with anvil() as url:
        asyncio.run(_deploy(url, base, list(addresses.values())))
        for who in PEOPLE:
            config = {
                "rpc": url,
                "deployment": "deployment.json",
                "storage": [(base / "storage").as_uri()],
                "brokers": {},
                "keystore": f"{who}.wallet",
                "passwordFile": "pw",
                "resultKey": "result.key",
            }
            (base / f"{who}.yaml").write_text(yaml.safe_dump(config))
        town = Town(base, url, addresses)
        _prepare(town)
        yield town


def _prepare(town: Town) -> None:
    """The hospital seals, shares and publishes; the lab packs and publishes its function; two brokers are made."""
    base = town.base
    (base / "people.csv").write_text("sex,age\nf,30\nm,20\n")
    (base / "function.yaml").write_text(SPEC)
    (base / "query.sql").write_text("SELECT sex FROM people GROUP BY sex HAVING count(*) >= $smallest_group")
    keys = ("--keys", base / "people.keys", "--yes")
    answer("dataset", "seal", base / "people.csv", "--out", base / "people", "--dangerous-plaintext-keys", *keys)
    for number in range(2):
        answer("keybroker", "init", base / f"b{number}", "--password-file", base / "pw")
    brokers = [word for n in range(2) for word in ("--broker", base / f"b{n}" / "broker.json")]
    words = ("--owner", town.addresses["hospital"], "--threshold", 2, *keys, *town.as_("hospital"))
    answer("dataset", "share", base / "people", *brokers, *words)
    answer("dataset", "publish", base / "people", *town.as_("hospital"))
    answer("function", "pack", base, "--out", base / "f.eofb")
    answer("function", "publish", base / "f.eofb", *town.as_("lab"))
