"""A devnet: started in one call, everything in one directory, stopped without leftovers.

async with Devnet.open(Path(".devnet")) as devnet:
    async with devnet.client("requester") as client: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from enclave_app.protocol.canonical import dump
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.structs import Chain, Confirmation
from oracle.card import BrokerCard
from oracle.chain.abi import load as load_contract
from oracle.chain.deploy import Deployment, deploy
from oracle.chain.events import get_logs, topic
from oracle.chain.rpc import Rpc
from oracle.chain.sender import Sender, account_of
from oracle.chain.source import SingleSource
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.devnet.accounts import SCRYPT_N, Account, open_account
from oracle.devnet.example import write_example
from oracle.devnet.processes import Process, free_port, until
from oracle.errors import OracleError, Permanent
from oracle.keybroker.keys import init as init_broker

FUNDS = 10_000 * 10**18
ENCLAVE_CONFIG = {
    "format": "enclave-oracle/enclave",
    "v": 1,
    "attester": "software",
    "role": "tasks",
    "verifier": None,
    "storageSchemes": ["file", "http", "https"],
    "maxMemoryMib": 4096,
    "maxTimeSeconds": 600,
    "maxOutputBytes": 256 << 20,
    "maxInputBytes": 4 << 30,
    "maxKeptBytes": 1 << 30,
    "maxTasks": 256,
    "maxRunning": 2,
    "maxDecodedBytes": 64 << 20,
    "fetchSeconds": 120,
}
EXAMPLE_PEOPLE = ("hospital-a", "hospital-b", "institute", "requester")
SERVICE_ACCOUNTS = ("deployer", "operator")


@dataclass(frozen=True)
class Options:
    """`block_time` in seconds (None: a block for every transaction, and with `idle_block_time` one every so many seconds, too,
    so that blocks become final); `port` is the chain's (None: a free one); `people` are accounts beside the services' own;
    `epoch` is the chain's slots in one: a block is final two of them later."""

    brokers: int = 3
    block_time: float | None = None
    idle_block_time: float | None = None
    epoch: int = 1
    port: int | None = None
    people: tuple[str, ...] = EXAMPLE_PEOPLE
    worker: dict[str, Any] = field(default_factory=dict)
    patience: float = 60.0


@dataclass(frozen=True)
class BrokerHandle:
    card: BrokerCard
    url: str
    process: Process


class Devnet:
    """A running devnet. `brokers[i].process` and `worker` are what tests kill and restart."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory, self.options = directory.absolute(), options
        self.rpc_url = ""
        self.brokers: list[BrokerHandle] = []
        self.accounts: dict[str, Account] = {}
        self.deployment: Deployment
        self.chain: Chain
        self.anvil: Process
        self.worker: Process
        self.measurement = b""

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, options: Options | None = None) -> AsyncIterator[Devnet]:
        """Start everything in a new `directory`; stop it all at the end."""
        devnet = cls(directory, options or Options())
        try:
            await devnet._start()
            yield devnet
        finally:
            await devnet.stop()

    # --- what it offers -----------------------------------------------------------------------------------------------

    @property
    def storage(self) -> str:
        return (self.directory / "storage").as_uri()

    @property
    def root(self) -> bytes:
        """The development root's certificate, in DER."""
        return (self.directory / "platform" / "root.der").read_bytes()

    @property
    def anchor(self) -> bytes:
        """The development root's digest: what drafts list, and contract and brokers check (R4)."""
        return sha256(self.root)

    def client_config(self, account: str | None = None) -> ClientConfig:
        person = self.accounts[account] if account else None
        return ClientConfig(
            rpc=self.rpc_url,
            deployment=self.deployment,
            storage=(self.storage,),
            brokers={broker.card.digest: broker.url for broker in self.brokers},
            keystore=person.keystore if person else None,
            password_file=person.password_file if person else None,
            result_key=person.hpke_file if person else None,
        )

    def client(self, account: str) -> Client:
        """A client that acts as one of the accounts."""
        person = self.accounts[account]
        return Client(self.client_config(account), wallet=person.wallet, result_key=person.hpke)

    def processes(self) -> list[Process]:
        found = [broker.process for broker in self.brokers]
        for name in ("anvil", "worker"):
            if hasattr(self, name):
                found.append(getattr(self, name))
        return found

    async def stop(self) -> None:
        """The worker first, so that it can drain; then brokers and chain."""
        if hasattr(self, "worker"):
            await self.worker.stop()
            self._end_enclave()
        await asyncio.gather(*(process.stop() for process in self.processes()))

    def enclave_pid(self) -> int | None:
        """The enclave's process, from what the worker logged when it launched it; None once that has ended."""
        lines = self.worker.log.read_text("utf-8", "replace").splitlines() if self.worker.log.exists() else []
        for line in reversed(lines):
            if '"event":"enclave launched"' in line:
                pid = int(json.loads(line)["pid"])
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    return None
                return pid if str(self.directory).encode() in command else None
        return None

    def _end_enclave(self) -> None:
        # A worker that was killed leaves its enclave to its successor; here there is none.
        pid = self.enclave_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    # --- how it starts ------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        for name in ("logs", "storage", "brokers", "worker"):
            try:
                (self.directory / name).mkdir(parents=True)
            except FileExistsError:
                raise Permanent(
                    "devnet.directory",
                    f"{self.directory} holds a devnet already",
                    hint="Name a new directory, or remove it",
                ) from None
        await asyncio.gather(self._start_anvil(), self._make_platform(), asyncio.to_thread(self._make_accounts))
        await asyncio.gather(self._deploy(), asyncio.to_thread(self._init_brokers))
        await asyncio.gather(self._start_brokers(), self._start_worker())
        await self._enclave_registered()
        # What drafts name, under names for people.
        (self.directory / "enclave.measurement").write_text(f"0x{self.measurement.hex()}\n")
        for name in self.accounts:
            self._write_client_yaml(name)
        if set(EXAMPLE_PEOPLE) <= self.accounts.keys():
            self._write_example()

    async def _start_anvil(self) -> None:
        program = shutil.which(
            "anvil", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
        ) or shutil.which("anvil")
        if program is None:
            raise Permanent(
                "devnet.anvil", "anvil is not installed", hint="scripts/setup brings it; see `oracle doctor`"
            )
        port = self.options.port or free_port()
        # By default one slot an epoch: `safe` and `finalized` follow the head closely, so brokers that wait for them do not.
        command = [program, "--host", "127.0.0.1", "--port", str(port), "--accounts", "0"]
        command += ["--slots-in-an-epoch", str(self.options.epoch)]
        if self.options.block_time is not None:
            command += ["--block-time", str(self.options.block_time)]
        elif self.options.idle_block_time is not None:
            command += ["--block-time", str(self.options.idle_block_time), "--mixed-mining"]
        self.rpc_url = f"http://127.0.0.1:{port}"
        self.anvil = Process("anvil", command, self._log("anvil"))
        await self.anvil.start()

        async def answers() -> bool:
            rpc = Rpc(self.rpc_url, timeout=2)
            try:
                return bool(await rpc.call("eth_chainId"))
            except OracleError:
                return False
            finally:
                await rpc.close()

        await until("anvil", answers, [self.anvil], self.options.patience)

    async def _make_platform(self) -> None:
        """A development root, made new, and one platform under it."""
        # R4: made for this devnet, and never shipped.
        maker = Process(
            "platform",
            self._python("enclave_app.attesters.platform", str(self.directory / "platform")),
            self._log("platform"),
        )
        await maker.start()
        status = await maker.wait()
        if status != 0:
            raise Permanent("devnet.platform", "the development platform could not be made", hint=maker.tail())

    def _make_accounts(self) -> None:
        for name in (*SERVICE_ACCOUNTS, *self.options.people):
            self.accounts[name] = open_account(self.directory / "accounts", name)

    async def _deploy(self) -> None:
        rpc = Rpc(self.rpc_url)
        try:
            addresses = [account.wallet.address for account in self.accounts.values()]
            await rpc.batch([("anvil_setBalance", [address, hex(FUNDS)]) for address in addresses])
            sender = Sender(rpc, account_of(self.accounts["deployer"].wallet))
            self.deployment = await deploy(sender, self.root)
        finally:
            await rpc.close()
        self.chain = Chain(chain_id=self.deployment.chain_id, agreement_registry=self.deployment.agreement_registry)
        (self.directory / "deployment.json").write_bytes(self.deployment.canonical() + b"\n")

    def _init_brokers(self) -> None:
        for number in range(1, self.options.brokers + 1):
            home = self.directory / "brokers" / str(number)
            url = f"http://127.0.0.1:{free_port()}"
            password = home.with_suffix(".password")
            password.touch(mode=0o600)
            password.write_text(f"devnet broker {number}\n")
            card = init_broker(home, f"devnet broker {number}", url=url, cost=SCRYPT_N)
            config = home.with_suffix(".yaml")
            process = Process(
                f"broker-{number}",
                self._python("oracle", "keybroker", "serve", "--config", str(config)),
                self._log(f"broker-{number}"),
            )
            self.brokers.append(BrokerHandle(card, url, process))

    async def _start_brokers(self) -> None:
        for number, broker in enumerate(self.brokers, start=1):
            home = self.directory / "brokers" / str(number)
            _write_yaml(
                home.with_suffix(".yaml"),
                {
                    "directory": str(home),
                    "passwordFile": str(home.with_suffix(".password")),
                    "listen": {"port": int(broker.url.rsplit(":", 1)[1])},
                    "chains": [
                        {
                            "chainId": self.deployment.chain_id,
                            "agreementRegistries": [self.deployment.agreement_registry],
                            "rpc": [self.rpc_url],
                            "dangerousSingleRpc": True,
                            "maxBlockAge": "skip",
                        }
                    ],
                    "anchors": {
                        "intel": False,
                        "development": [str(self.directory / "platform" / "root.der")],
                        "dangerousDevelopmentRoots": True,
                    },
                    "collateral": str(self.directory / "platform" / "collateral.json"),
                },
            )
            await broker.process.start()

    async def _start_worker(self) -> None:
        home, operator = self.directory / "worker", self.accounts["operator"]
        config = {
            "rpc": [self.rpc_url],
            "deployment": str(self.directory / "deployment.json"),
            "journal": str(home / "journal.sqlite"),
            "enclave": {"socket": str(home / "enclave.sock"), "command": self._enclave_command(home)},
            "storage": {"read": [self.storage], "write": self.storage},
            "brokers": {"0x" + broker.card.digest.hex(): broker.url for broker in self.brokers},
            "wallet": _key(operator),
            "payee": operator.wallet.address,
            "operator": _key(operator),
            "attestation": {
                "root": str(self.directory / "platform" / "root.der"),
                "collateral": str(self.directory / "platform" / "collateral.json"),
            },
            **self.options.worker,
        }
        _write_yaml(home / "worker.yaml", config)
        self.worker = Process(
            "worker",
            self._python("oracle", "worker", "run", "--config", str(home / "worker.yaml")),
            self._log("worker"),
        )
        await self.worker.start()

    def _enclave_config(self, home: Path) -> Path:
        """Everything written out: the file's digest is part of the enclave's measurement (R3)."""
        path = home / "enclave.json"
        path.write_bytes(dump(ENCLAVE_CONFIG))
        return path

    def _enclave_command(self, home: Path) -> list[str]:
        files = ["--config", str(self._enclave_config(home)), "--socket", str(home / "enclave.sock")]
        return self._python("enclave_app", *files, "--platform", str(self.directory / "platform"))

    async def _enclave_registered(self) -> None:
        """Until the worker's enclave is on the chain; its measurement is what agreements list."""
        rpc = Rpc(self.rpc_url)

        async def registered() -> bool:
            head = await SingleSource(rpc).confirmed(Confirmation.LATEST)
            logs = await get_logs(
                rpc, [self.deployment.enclave_registry], 0, head.number, [[topic("EnclaveRegistered")]]
            )
            if logs:
                found = load_contract("EnclaveRegistry").event(logs[-1])
                self.measurement = found[1]["measurement"] if found else b""
            return bool(self.measurement)

        try:
            await until("the enclave's registration", registered, self.processes(), self.options.patience)
        finally:
            await rpc.close()

    def _write_client_yaml(self, name: str) -> None:
        config = self.client_config(name).model_dump(mode="json", by_alias=True)
        config["deployment"] = "deployment.json"
        _write_yaml(self.directory / f"{name}.yaml", config)

    def _write_example(self) -> None:
        cards = [
            {"key": f"../brokers/{number}/broker.json", "signer": broker.card.signer, "url": broker.url}
            for number, broker in enumerate(self.brokers, start=1)
        ]
        parties = {name: account.wallet.address for name, account in self.accounts.items()}
        write_example(self.directory / "example", parties, self.measurement, self.anchor, cards)

    def _python(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"


def _key(account: Account) -> dict[str, str]:
    return {"keystore": str(account.keystore), "passwordFile": str(account.password_file)}


def _write_yaml(path: Path, value: Any) -> None:
    # Through JSON, so that every value is plain; YAML is its superset. A digest stays quoted text.
    path.write_text(yaml.safe_dump(json.loads(json.dumps(value, default=str)), sort_keys=False))
