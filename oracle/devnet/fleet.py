"""More workers on a devnet, each with an enclave, a journal and a wallet of its own: a fleet without a coordinator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from oracle.devnet.network import Devnet
from oracle.devnet.processes import Process, until
from oracle.yamlfile import read_yaml


@asynccontextmanager
async def more_workers(
    devnet: Devnet, operators: Sequence[str], changes: Mapping[str, Any] | None = None
) -> AsyncIterator[list[Process]]:
    """A worker for each of these accounts of the devnet beside its own, once they serve; `changes` are laid over their
    configuration. An agreement has to take the operators as hosts. One that was killed is started again at the end, so that it
    ends the enclave that it left behind."""
    started: list[Process] = []
    base = read_yaml(devnet.directory / "worker" / "worker.yaml")
    try:
        for name in operators:
            home = devnet.directory / name
            home.mkdir()
            account, socket = devnet.accounts[name], str(home / "enclave.sock")
            key = {"keystore": str(account.keystore), "passwordFile": str(account.password_file)}
            command = [socket if part.endswith("enclave.sock") else part for part in base["enclave"]["command"]]
            config = {
                **base,
                "journal": str(home / "journal.sqlite"),
                "enclave": {"socket": socket, "command": command},
                "wallet": key,
                "operator": key,
                "payee": account.wallet.address,
                **(changes or {}),
            }
            path = home / "worker.yaml"
            path.write_text(json.dumps(config, indent=1))  # YAML is its superset
            log = devnet.directory / "logs" / f"{name}.log"
            process = Process(name, devnet._python("oracle", "worker", "run", "--config", str(path)), log)
            started.append(process)
            await process.start()
        await asyncio.gather(*(_serves(process) for process in started))
        yield started
    finally:
        await asyncio.gather(*(_stop(process) for process in started))


async def _serves(process: Process, since: int = 0) -> None:
    async def ready() -> bool:
        return process.log.read_bytes().count(b'"event":"worker ready"') > since

    await until(process.name, ready, [process], 60)


async def _stop(process: Process) -> None:
    if not process.running:
        since = process.log.read_bytes().count(b'"event":"worker ready"')
        await process.start()
        await _serves(process, since)
    await process.stop(30)
