"""`oracle receipt`: get a task's receipt, read it, and check it, without believing who made it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import ConfigFile, Json, make_client, parse_address, read_config, run
from oracle.cli.screen import Screen, grid, plain, when

if TYPE_CHECKING:
    from oracle.receipt import Expected, Receipt, Report

app = typer.Typer(name="receipt", help="What a settled task leaves for strangers to check.", no_args_is_help=True)
ReceiptFile = Annotated[Path, typer.Argument(metavar="FILE", help="The receipt.")]
FETCH_PATIENCE = 10.0
"""Seconds: a worker writes the receipt a moment after the settlement."""
MARKS = {True: "✓", False: "✗", None: "·"}


@app.command("verify")
def verify(
    file: ReceiptFile,
    agreement: Annotated[
        str | None, typer.Option("--agreement", metavar="ID", help="The agreement you expect: its id, or its file.")
    ] = None,
    parties: Annotated[
        Path | None,
        typer.Option(
            "--parties", metavar="FILE", help="Exactly who must have signed: YAML or JSON, addresses, or name: address."
        ),
    ] = None,
    consistency_only: Annotated[
        bool, typer.Option("--consistency-only", help="Ask only whether the receipt agrees with itself.")
    ] = False,
    allow_simulated: Annotated[
        bool, typer.Option("--allow-simulated", help="Take a receipt that no hardware vouches for.")
    ] = False,
    rpc: Annotated[
        str | None, typer.Option("--rpc", metavar="URL", help="Also ask this chain whether it recorded all of it.")
    ] = None,
    function: Annotated[
        Path | None,
        typer.Option("--function", metavar="BUNDLE", help="The function, where it was too large for the receipt."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a receipt from the agreement to the outputs, link by link. Offline, unless --rpc is given.

    Exits 0 only for a receipt that is authentic: of the agreement or the parties that you name.
    """
    from enclave_app.protocol.bundle import MAX_BUNDLE
    from oracle.files import read_file
    from oracle.receipt import Verdict, read_receipt_file, verify_receipt

    if (agreement is not None) + (parties is not None) + consistency_only > 1:
        raise typer.BadParameter("give one of --agreement, --parties and --consistency-only")
    expected = _expected(agreement, parties)
    data = read_receipt_file(file)
    bundle = None if function is None else read_file(function, MAX_BUNDLE)
    if rpc is None:
        found = verify_receipt(data, expected, int(time.time()), allow_simulated=allow_simulated, function=bundle)
    else:
        found = run(_with_chain(data, expected, rpc, allow_simulated, bundle))
    screen = Screen(as_json)
    screen.answer(as_value(found), *_shown(found))
    if found.simulated and found.receipt is not None and not as_json:
        screen.warn("SIMULATED: no hardware vouches for the enclave behind this receipt (R4)")
    if found.verdict is Verdict.CONSISTENT and not consistency_only and not as_json:
        screen.say("Give --agreement or --parties to say whom you expect; anyone can make a receipt of their own.")
    wanted = Verdict.CONSISTENT if consistency_only else Verdict.AUTHENTIC
    if found.verdict is not wanted:
        raise typer.Exit(1)


@app.command("fetch")
def fetch(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's id, or the file that `task request` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write the receipt.")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Get a settled task's receipt from storage. Check it with `oracle receipt verify`."""
    from oracle.cli.task import find_task_id

    settings, task_id = read_config(config), find_task_id(task)

    async def get() -> bytes:
        async with make_client(settings) as client:
            return await client.receipt(task_id, patience=FETCH_PATIENCE)

    data = run(get())
    out.write_bytes(data)
    Screen(as_json).answer({"task_id": task_id, "file": str(out), "bytes": len(data)})


@app.command("show")
def show(file: ReceiptFile, as_json: Json = False) -> None:
    """Say in words what a receipt claims: who, what, when. Nothing is checked."""
    from oracle.receipt import read_receipt, read_receipt_file

    screen = Screen(as_json)
    value = summary(read_receipt(read_receipt_file(file)))
    screen.answer(value)
    if not as_json:
        screen.warn("This is what the receipt says; nothing of it was checked. Use `oracle receipt verify`.")


def summary(receipt: Receipt) -> dict[str, Any]:
    """What a receipt claims, in a person's order."""
    from enclave_app.protocol.structs import Outcome

    agreement, result = receipt.agreement, receipt.result
    known = result.outcome in set(Outcome)
    return {
        "assurance": receipt.assurance,
        "task_id": receipt.task_id,
        "agreement_id": receipt.agreement_id,
        "chain_id": receipt.chain.chain_id,
        "parties": agreement.parties(),
        "requester": receipt.request.requester,
        "parameters": receipt.request.params.decode("utf-8", "replace"),
        "datasets": [f"{term.name} ({', '.join(term.columns)})" for term in agreement.data],
        "enclave": receipt.evidence.signer,
        "operator": receipt.evidence.operator,
        "released": [when(release.statement.time) for release in receipt.releases],
        "outcome": Outcome(result.outcome).name.lower() if known else result.outcome,
        "outputs": [f"{out.name} ({out.length} bytes)" for out in result.outputs],
        "payee": result.payee,
    }


def as_value(found: Report) -> dict[str, Any]:
    """The answer for programs. Names of links and reasons are stable."""
    receipt = found.receipt
    return {
        "verdict": found.verdict.value,
        "simulated": found.simulated,
        "agreement_id": None if receipt is None else receipt.agreement_id,
        "task_id": None if receipt is None else receipt.task_id,
        "outcome": found.outcome,
        "failed": found.failed,
        "reason": found.reason,
        "links": [{"name": link.name, "ok": link.ok, "detail": link.detail} for link in found.links],
    }


def read_parties(path: Path) -> frozenset[str]:
    """Addresses from a file: a list, a mapping of names to them, or either under `parties`; Refused `parties.*`, `yaml.*`."""
    from oracle.yamlfile import read_yaml

    value = read_yaml(path)
    if isinstance(value, dict) and "parties" in value:
        value = value["parties"]
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise Refused("parties.format", f"{path} does not list addresses", expected="a list, or name: address")
    found = [parse_address(item) for item in items]
    if len(set(found)) != len(found):
        raise Refused("parties.duplicate", f"{path} names an address twice")
    return frozenset(found)


def _expected(agreement: str | None, parties: Path | None) -> Expected:
    from oracle.cli.consent import find_id
    from oracle.receipt import Expected

    return Expected(
        agreement_id=None if agreement is None else find_id(agreement),
        parties=None if parties is None else read_parties(parties),
    )


async def _with_chain(
    data: bytes, expected: Expected, url: str, allow_simulated: bool, function: bytes | None
) -> Report:
    from oracle.chain.rpc import Rpc
    from oracle.chain.source import SingleSource
    from oracle.receipt import verify_with_chain

    rpc = Rpc(url)
    try:
        return await verify_with_chain(
            data,
            expected,
            int(time.time()),
            SingleSource(rpc),
            allow_simulated=allow_simulated,
            function=function,
        )
    finally:
        await rpc.close()


def _shown(found: Report) -> tuple[Any, ...]:
    from rich.text import Text

    rows = [(MARKS[link.ok], link.name, link.detail) for link in found.links]
    good = found.failed is None
    verdict = found.verdict.value.upper() + (" (SIMULATED)" if found.simulated and good else "")
    if not good:
        verdict += f": the link “{found.failed}” fails ({plain(str(found.reason))})"
    return grid(("", "link", ""), rows), Text(verdict, style="bold green" if good else "bold red")
