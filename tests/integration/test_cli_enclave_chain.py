"""`oracle enclave status|challenge` and `oracle collateral post|status --config`, against registered enclaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from enclave_app.protocol.signing import SigningKey
from oracle.keys import create_wallet
from oracle.worker.register import Enrolled
from tests.cli_kit import CHEAP, Ran, oracle
from tests.pcs_kit import spec
from tests.settle_kit import register
from tests.worker_kit import World, world

DAY = 86_400


@dataclass
class Desk:
    """A registered enclave, and somebody with a wallet and a client's configuration."""

    place: World
    enrolled: Enrolled
    operator: str
    home: Path

    async def run(self, *words: object, code: int = 0) -> dict[str, Any]:
        ran = await self.ran(*words, "--json")
        assert ran.code == code, ran.stdout + ran.stderr
        value: dict[str, Any] = json.loads(ran.stdout)
        return value

    async def refused(self, *words: object) -> str:
        return str((await self.run(*words, code=1))["error"]["code"])

    async def ran(self, *words: object) -> Ran:
        """The command has an event loop of its own, and ours serves the enclave."""
        config = ("--config", self.home / "oracle.yaml")
        return await asyncio.to_thread(oracle, *words, *config)

    def collateral(self, evaluation: int, status: str = "UpToDate", days: int = 30) -> Path:
        path = self.home / f"{evaluation}-{status}.json"
        path.write_text(json.dumps(self.place.authority.collateral(spec(evaluation, status), days=days)))
        return path


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with world(tmp_path) as place:
        operator = SigningKey.generate()
        enrolled = await register(place, operator)
        wallet = create_wallet(tmp_path / "somebody.json", lambda: "correct horse", n=CHEAP)
        await place.rpc.call("anvil_setBalance", wallet, hex(10**20))
        (tmp_path / "password").write_text("correct horse\n")
        config = {
            "rpc": place.rpc.url,
            "deployment": "deployment.json",
            "storage": [place.blobs.as_uri()],
            "brokers": {},
            "keystore": "somebody.json",
            "passwordFile": "password",
        }
        (tmp_path / "oracle.yaml").write_text(yaml.safe_dump(config))
        yield Desk(place, enrolled, operator.address, tmp_path)


async def test_status_tells_what_a_registration_rests_on_and_what_ends_first(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        (found,) = (await at.run("enclave", "status", "--operator", at.operator))["enclaves"]
        assert (found["signer"], found["tcb_status"], found["evaluation"]) == (at.enrolled.signer, "up_to_date", 17)
        assert found["days_left"] == pytest.approx(7, abs=0.1)  # a registration's longest life
        rests_on = {each["name"]: each["days_left"] for each in found["rests_on"]}
        signers = {"PCK CA", "TCB signing certificate"}
        assert set(rests_on) == {"PCK certificate", "TCB info", "QE identity", "PCK CRL", "root CRL", *signers}
        assert all(days == pytest.approx(30, abs=0.1) for days in rests_on.values())
        assert (await at.run("enclave", "status"))["enclaves"] == [found]
        nobody = SigningKey.generate().address
        assert await at.run("enclave", "status", "--operator", nobody, code=1) == {"enclaves": [], "ok": False}
        ran = await at.ran("enclave", "status", "--signer", at.enrolled.signer)
        assert ran.code == 0
        assert "TCB info" in ran.stdout


async def test_status_fails_ahead_of_an_end(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        words = ("enclave", "status", "--operator", at.operator, "--warn-days")
        assert (await at.run(*words, 6))["ok"]
        assert not (await at.run(*words, 8, code=1))["ok"]
        assert "counts for 7.0 more days" in (await at.ran(*words, 8)).stderr
        nobody = SigningKey.generate().address
        assert (await at.ran("enclave", "status", "--operator", nobody, "--warn-days", 1)).code == 1
        await at.place.rpc.call("evm_increaseTime", 8 * DAY)
        await at.place.rpc.call("anvil_mine", hex(1))
        (found,) = (await at.run(*words, 1, code=1))["enclaves"]
        assert (found["state"], found["days_left"]) == ("expired", pytest.approx(-1, abs=0.1))


async def test_status_shows_the_last_boot_of_a_machine(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.place.enclave.restart()
        await at.place.rpc.call("evm_increaseTime", 60)
        again = await register(at.place)
        signers = [each["signer"] for each in (await at.run("enclave", "status"))["enclaves"]]
        assert signers == [at.enrolled.signer, again.signer]  # another operator's name
        await at.place.enclave.restart()
        await at.place.rpc.call("evm_increaseTime", 60)
        third = await register(at.place)
        signers = [each["signer"] for each in (await at.run("enclave", "status"))["enclaves"]]
        assert signers == [at.enrolled.signer, third.signer]


async def test_anyone_lowers_a_registration_under_newer_collateral_and_status_shows_the_grace(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        worse = at.collateral(18, "OutOfDate")
        done = await at.run("enclave", "challenge", at.enrolled.signer, "--collateral", worse)
        assert (done["tcb_status_was"], done["evaluation_was"]) == ("up_to_date", 17)
        assert (done["tcb_status"], done["evaluation"]) == ("out_of_date", 18)
        assert set(done["posted"]) == {"TCB info", "QE identity"}
        (found,) = (await at.run("enclave", "status", "--grace-days", 30))["enclaves"]
        assert (found["tcb_status"], found["earlier_tcb_status"]) == ("out_of_date", "up_to_date")
        assert found["grace_days_left"] == pytest.approx(30, abs=0.1)  # the TCB date is an hour ago
        again = await at.refused("enclave", "challenge", at.enrolled.signer, "--collateral", worse)
        assert again == "contract.EnclaveRegistry_NotLower"


async def test_a_challenge_that_does_not_lower_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        same = await at.refused("enclave", "challenge", at.enrolled.signer, "--collateral", at.collateral(18))
        assert same == "contract.EnclaveRegistry_NotLower"
        stranger = SigningKey.generate().address
        unknown = await at.refused("enclave", "challenge", stranger, "--collateral", at.collateral(18, "OutOfDate"))
        assert unknown == "challenge.unknown"


async def test_collateral_is_posted_once_and_status_says_what_the_contracts_have(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        file = at.collateral(18)

        async def on_chain() -> dict[str, str]:
            (seen,) = (await at.run("collateral", "status", file))["collateral"]
            return {each["name"]: each["on_chain"] for each in seen["pieces"]}

        before = await on_chain()
        assert (before["TCB info"], before["QE identity"], before["root"]) == ("no", "no", "yes")
        (done,) = (await at.run("collateral", "post", file))["collateral"]
        assert {"TCB info", "QE identity"} <= set(done["posted"])
        assert set((await on_chain()).values()) == {"yes"}
        (again,) = (await at.run("collateral", "post", file))["collateral"]
        assert again["posted"] == []
        ran = await at.ran("collateral", "post", file)
        assert "nothing was missing" in ran.stdout


async def test_collateral_of_another_root_is_not_posted(tmp_path: Path) -> None:
    recorded = next((Path(__file__).parents[1] / "data" / "attestation" / "collateral").glob("sgx-*.json"))
    async with desk(tmp_path) as at:
        assert await at.refused("collateral", "post", recorded) == "collateral.root"
