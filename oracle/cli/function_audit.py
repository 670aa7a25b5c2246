"""`oracle function`, on chain: what auditors vouch for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oracle.cli.common import (
    ConfigFile,
    Json,
    Keystore,
    PasswordFile,
    Yes,
    make_client,
    open_wallet,
    parse_address,
    parse_id,
    read_config,
    run,
)
from oracle.cli.function import app
from oracle.cli.screen import Screen

if TYPE_CHECKING:
    from oracle.chain.sender import Receipt
    from oracle.client import Client

MAX_REPORT = 64 << 20
FunctionRef = Annotated[str, typer.Argument(metavar="BUNDLE|ID", help="The function's bundle, or its id.")]


@app.command("approve")
def approve(
    function: FunctionRef,
    report: Annotated[
        Path, typer.Option("--report", metavar="FILE", help="What you wrote about it. Its digest goes on chain.")
    ],
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Vouch for a function as an auditor: agreements that name you can then become active. Read it before."""
    from enclave_app.protocol.digests import sha256
    from enclave_app.protocol.structs import Audit
    from oracle.files import read_file

    function_id, digest = _function_id(function), sha256(read_file(report, MAX_REPORT))
    screen = Screen(as_json)
    screen.say(f"Function 0x{function_id.hex()}", f"Report   0x{digest.hex()} ({report})")
    screen.confirm("Vouch for it on chain, under your name?", yes)
    audit = Audit(function_id=function_id, report=digest)
    value = {"function_id": function_id, "report": digest}
    _audit(value, lambda client: client.approve_function(audit), keystore, config, password_file, as_json)


@app.command("withdraw-approval")
def withdraw_approval(
    function: FunctionRef,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Take your approval of a function back. Agreements that are active stay so: their parties decide."""
    function_id = _function_id(function)
    value = {"function_id": function_id}
    _audit(value, lambda client: client.withdraw_approval(function_id), keystore, config, password_file, as_json)


@app.command("audits")
def audits(
    function: FunctionRef,
    auditor: Annotated[list[str], typer.Option("--auditor", metavar="ADDRESS", help="Whose word to look for.")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Say which auditors approved a function, and the digests of their reports."""
    settings, function_id = read_config(config), _function_id(function)
    asked = [parse_address(each) for each in auditor]

    async def read() -> dict[str, bytes]:
        async with make_client(settings) as client:
            return await client.approvals(function_id, asked)

    found = run(read())
    value = {"function_id": function_id, "approved": found, "not_approved": [a for a in asked if a not in found]}
    Screen(as_json).answer(value)


def _function_id(text: str) -> bytes:
    from enclave_app.protocol.bundle import MAX_BUNDLE, read_bundle
    from oracle.files import read_file

    path = Path(text)
    return read_bundle(read_file(path, MAX_BUNDLE), None).id if path.exists() else parse_id(text, "function")


def _audit(
    value: dict[str, Any],
    act: Callable[[Client], Awaitable[Receipt]],
    keystore: Path | None,
    config: Path | None,
    password_file: Path | None,
    as_json: bool,
) -> None:
    from oracle.cli.agreement_chain import receipt_fields

    settings = read_config(config)
    wallet = open_wallet(settings, keystore, password_file)

    async def send() -> Receipt:
        async with make_client(settings, wallet=wallet) as client:
            return await act(client)

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        receipt = run(send())
    screen.answer({"auditor": wallet.address, **value, **receipt_fields(receipt)})
