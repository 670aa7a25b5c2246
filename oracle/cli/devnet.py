"""`oracle devnet`: a chain, contracts, brokers, an enclave and a worker on this machine, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oracle.cli.common import Json, run
from oracle.cli.screen import Screen, fields, grid

if TYPE_CHECKING:
    from oracle.devnet import Devnet


def devnet(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where everything lies; a new directory.")
    ] = Path(".devnet"),
    brokers: Annotated[int, typer.Option(min=1, max=16, help="How many key brokers.")] = 3,
    block_time: Annotated[
        float | None, typer.Option(help="Seconds between blocks. [default: a block for every transaction]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run everything on this machine until Ctrl-C. For development: its enclave is SIMULATED."""
    from oracle.devnet import Devnet, Options

    screen = Screen(as_json)

    async def serve() -> None:
        with screen.busy("starting the devnet"):
            opened = Devnet.open(directory, Options(brokers=brokers, block_time=block_time))
            running = await opened.__aenter__()
        try:
            _announce(screen, running)
            await _until_stopped()
        finally:
            await opened.__aexit__(None, None, None)

    run(serve())


def _announce(screen: Screen, running: Devnet) -> None:
    where = running.directory
    deployment = running.deployment
    value: dict[str, Any] = {
        "directory": str(where),
        "rpc": running.rpc_url,
        "chain_id": deployment.chain_id,
        "deployment": str(where / "deployment.json"),
        "oracle": deployment.oracle,
        "agreement_registry": deployment.agreement_registry,
        "enclave_registry": deployment.enclave_registry,
        "storage": running.storage,
        "measurement": running.measurement,
    }
    brokers = [{"url": b.url, "digest": b.card.digest, "signer": b.card.signer} for b in running.brokers]
    accounts = [
        {"name": name, "address": account.wallet.address, "config": str(where / f"{name}.yaml")}
        for name, account in running.accounts.items()
    ]
    screen.answer(
        {**value, "brokers": brokers, "accounts": accounts},
        fields(value),
        grid(("broker", "key digest", "signer"), [tuple(b.values()) for b in brokers]),
        grid(("account", "address", "configuration"), [tuple(a.values()) for a in accounts]),
    )
    screen.warn("SIMULATED: the enclave's root of trust was made just now, on this machine.")
    screen.say(
        "Try it as one of the accounts: oracle --help, with ORACLE_CONFIG set to its configuration.", "Ctrl-C ends it."
    )


async def _until_stopped() -> None:
    """Until SIGINT or SIGTERM."""
    import asyncio
    import signal

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
