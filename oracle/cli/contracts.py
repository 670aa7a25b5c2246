"""`oracle contracts`: where the contracts are on every chain, putting them there, and what shows what they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import Json, Keystore, PasswordFile, Yes, open_wallet, run
from oracle.cli.screen import Screen, fields, grid

if TYPE_CHECKING:
    from enclave_app.protocol.signing import SigningKey
    from oracle.chain.deploy import Deployment

app = typer.Typer(name="contracts", help="The contracts: their addresses, deploying them.", no_args_is_help=True)

Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="FILE",
        help="A development root, DER: the contracts under it have addresses of their own. [default: Intel's]",
    ),
]


@app.command("addresses")
def addresses(root: Root = None, as_json: Json = False) -> None:
    """Say where the contracts are, on every chain that has them. Asks no chain."""
    from oracle.chain.create2 import FACTORY
    from oracle.chain.deploy import SALT, plan

    contracts = plan(_root(root))
    named = {name: planned.address for name, planned in contracts.items()}
    value = {"contracts": named, "factory": FACTORY, "salt": SALT}
    Screen(as_json).answer(value, grid(("contract", "address"), named.items()))


@app.command("deploy")
def deploy(
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", help="The chain's JSON-RPC endpoint.")],
    keystore: Keystore = None,
    password_file: PasswordFile = None,
    root: Root = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where CHAINID.json is written, which clients read.")
    ] = Path("deployments"),
    place_factory: Annotated[
        bool,
        typer.Option("--place-factory", help="Where the chain lacks the deployment proxy, pay for its transaction."),
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put the contracts on a chain, each where it has to be, and write down where that is.

    What is there already is checked and left, whoever deployed it. A run that was cut short is finished by another one.
    """
    screen, der = Screen(as_json), _root(root)
    wallet = open_wallet(None, keystore, password_file)
    value = run(_deploy(screen, rpc, wallet, der, out, place_factory, yes))
    screen.answer(value, fields(value))


@app.command("verification")
def verification(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the files are written.")],
    sources: Annotated[
        Path, typer.Option("--sources", metavar="DIR", help="A checkout of the repository, after scripts/setup.")
    ] = Path(),
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write what block explorers and Sourcify take to show the contracts' source.

    That is the compiler's whole input, `input.json`, the same for every contract, and `contracts.json`: of each contract
    its address, name, compiler and constructor arguments. The installed package has no sources, so this needs a checkout.
    """
    import json

    from oracle.chain.deploy import plan
    from oracle.chain.verification import constructor_arguments, standard_input
    from oracle.collateral.cache import write_whole

    contracts = constructor_arguments(plan(_root(root)))
    given = standard_input(sources)
    files = {"input": out / "input.json", "contracts": out / "contracts.json"}
    for name, content in (("input", given), ("contracts", contracts)):
        write_whole(files[name], json.dumps(content, indent=1).encode() + b"\n")
    value = {**files, "sources": len(given["sources"]), "contracts_named": len(contracts)}
    Screen(as_json).answer(value, fields(value))


async def _deploy(
    screen: Screen, url: str, wallet: SigningKey, root: bytes, out: Path, place: bool, yes: bool
) -> dict[str, Any]:
    from oracle.chain import create2
    from oracle.chain.deploy import deploy, missing, plan
    from oracle.chain.rpc import Rpc, as_int
    from oracle.chain.sender import Sender, account_of
    from oracle.collateral.cache import write_whole

    rpc = Rpc(url)
    try:
        sender = Sender(rpc, account_of(wallet))
        chain_id = as_int(await rpc.call("eth_chainId"))
        wanted = await missing(rpc, list(plan(root).values()))
        if wanted:
            names = ", ".join(planned.name for planned in wanted)
            screen.say(f"On chain {chain_id}, paid by {sender.address}, will be deployed: {names}.")
            screen.confirm("Deploy them?", yes)
        with screen.busy("waiting for the chain"):
            if place and await create2.place_factory(sender):
                screen.say(f"The deployment proxy is at {create2.FACTORY} now.")
            found = await deploy(sender, root)
    finally:
        await rpc.close()
    path = out / f"{found.chain_id}.json"
    _warn(screen, path, found)
    write_whole(path, found.pretty())
    return {"file": path, "deployed": [planned.name for planned in wanted], **found.model_dump()}


def _warn(screen: Screen, path: Path, found: Deployment) -> None:
    from oracle.chain.deploy import Deployment

    if found.first_block == 0:
        screen.warn("The node has no old state to tell when the contracts came: their logs are read from block 0.")
    try:
        before = Deployment.read(path)
    except Refused:
        return  # none, or what is no deployment
    if before.oracle != found.oracle:
        screen.warn(f"{path} named other contracts, of another version or root: it is written anew.")


def _root(path: Path | None) -> bytes:
    from oracle.attestation import DevelopmentRoot, intel_root
    from oracle.attestation.anchors import MAX_ROOT
    from oracle.files import read_file

    return intel_root() if path is None else DevelopmentRoot(read_file(path, MAX_ROOT)).der
