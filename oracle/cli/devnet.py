"""`oracle devnet`: a chain, contracts, brokers, an enclave and a worker on this machine, in one command."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import ConfigFile, Json, parse_address, read_config, run
from oracle.cli.screen import Screen, fields, grid, with_ether

if TYPE_CHECKING:
    from oracle.devnet import Devnet

IDLE_BLOCK_TIME = 5
"""Seconds. Without it nothing would become final while nobody sends anything, and a public answer would wait for ever."""

app = typer.Typer(
    name="devnet",
    help="Run everything on this machine until Ctrl-C. For development: its enclave is SIMULATED.",
    invoke_without_command=True,
)


@app.callback()
def devnet(
    ctx: typer.Context,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where everything lies; a new directory.")
    ] = Path(".devnet"),
    brokers: Annotated[int, typer.Option(min=1, max=16, help="How many key brokers.")] = 3,
    block_time: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds between blocks. [default: a block for every transaction, and every {IDLE_BLOCK_TIME} s]"
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Where the chain answers. [default: a free port]")
    ] = None,
    with_agreement: Annotated[
        bool, typer.Option("--with-agreement", help="Bring the example's agreements into force, open to any requester.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run everything on this machine until Ctrl-C. For development: its enclave is SIMULATED."""
    if ctx.invoked_subcommand is not None:
        return
    from oracle.devnet import Devnet, Options
    from oracle.devnet.scenario import activate_example

    screen = Screen(as_json)

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            with screen.busy("starting the devnet"):
                options = Options(brokers=brokers, block_time=block_time, idle_block_time=IDLE_BLOCK_TIME, port=port)
                opened = Devnet.open(directory, options)
                running = await stack.enter_async_context(opened)
                if with_agreement:
                    await activate_example(running)
            _announce(screen, running)
            await _until_stopped()
        screen.say("stopped")

    run(serve())


@app.command("fund")
def fund(
    address: Annotated[
        str | None, typer.Argument(metavar="ADDRESS", help="Whose. [default: the configured wallet's]")
    ] = None,
    ether: Annotated[int, typer.Option(min=1, max=1_000_000, help="How much.")] = 10,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Give an address ether, out of nothing, as only a development chain does."""
    from oracle.devnet.accounts import give_ether
    from oracle.keys import read_wallet

    settings = read_config(config)
    if address is None and settings.keystore is None:
        raise Refused("wallet.missing", "no wallet was given", hint="Give an ADDRESS, or name a keystore in the file")
    whose = parse_address(address) if address is not None else read_wallet(Path(str(settings.keystore))).address
    held = run(give_ether(settings.rpc, whose, ether * 10**18))
    value = {"address": whose, "balance_wei": str(held)}
    Screen(as_json).answer(value, fields(with_ether(value)))


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
