"""`oracle keys`: make key files, and show the public half of one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import Json, PasswordFile, password_from
from oracle.cli.screen import Screen

app = typer.Typer(name="keys", help="Key files: wallets (Ethereum keystore) and HPKE keys.", no_args_is_help=True)


class Kind(StrEnum):
    WALLET = "wallet"
    HPKE = "hpke"


@app.command("new")
def new(
    kind: Annotated[Kind, typer.Argument(help="wallet: signs and pays. hpke: opens what is sealed to you.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; never overwritten.")],
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Make a new key, under a password."""
    from oracle.keys import create_hpke_key, create_wallet

    password = password_from(password_file, str(out), new=True)
    if kind is Kind.WALLET:
        found: dict[str, Any] = {"kind": kind.value, "file": str(out), "address": create_wallet(out, password)}
    else:
        found = {"kind": kind.value, "file": str(out), "digest": create_hpke_key(out, password).digest}
    Screen(as_json).answer(found)


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A key file of any kind, or a broker's card.")],
    as_json: Json = False,
) -> None:
    """Show a key file's address or digest, or what a broker's card says. No password is needed."""
    from oracle.card import read_card
    from oracle.keys import read_public_key, read_wallet

    if (kind := _format(file)) == "keystore":
        found: dict[str, Any] = {"kind": "wallet", "file": str(file), "address": read_wallet(file).address}
    elif kind == "enclave-oracle/broker":
        card = read_card(file)
        found = {"kind": "broker", "file": str(file), "digest": card.digest, "signer": card.signer, "url": card.url}
    else:
        found = {"kind": "hpke", "file": str(file), "digest": read_public_key(file).digest}
    Screen(as_json).answer(found)


@app.command("public")
def public(
    file: Annotated[Path, typer.Argument(help="An HPKE key file.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write the public key.")],
    as_json: Json = False,
) -> None:
    """Write the public half of an HPKE key to a file that may be handed out."""
    from oracle.keys import read_public_key, write_public_key

    if _format(file) == "keystore":
        raise Refused("keys.wallet", f"{file} is a wallet; its public half is its address", hint="`oracle keys show`")
    key = read_public_key(file)
    if out.exists():
        raise Refused("file.exists", f"{out} is already there", hint="Name a new file")
    write_public_key(out, key)
    Screen(as_json).answer({"kind": "hpke-public", "file": str(out), "digest": key.digest})


def _format(path: Path) -> str:
    """What a JSON file says it is, `keystore` for a wallet of any tool; nothing for other files."""
    from enclave_app.protocol.canonical import load
    from oracle.passwords import read_secret

    data = read_secret(path)
    try:
        value = load(data, canonical=False)
    except Refused:
        return ""  # an HPKE key may be bytes or hex
    if not isinstance(value, dict):
        return ""
    return "keystore" if "crypto" in value else str(value.get("format", ""))
