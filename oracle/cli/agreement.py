"""`oracle agreement`: draft, read, sign and merge agreements, on files alone; `agreement_chain.py` is the rest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import ConfigFile, Json, Keystore, PasswordFile, Yes, open_wallet, read_config
from oracle.cli.consent import (
    DocumentFile,
    FunctionFile,
    Manifests,
    as_rows,
    ask_consent,
    configured,
    explain_with,
    explanation,
    find_document,
    known_names,
    summary,
)
from oracle.cli.screen import Screen

app = typer.Typer(name="agreement", help="Agreements: draft, sign, activate, narrow, revoke.", no_args_is_help=True)


@app.command("draft")
def draft(
    file: Annotated[Path, typer.Argument(metavar="YAML", help="The draft.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the agreement goes.")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Turn a YAML draft into an agreement for the parties to sign. Nothing is signed yet."""
    from oracle.agreement.document import write_document
    from oracle.agreement.draft import draft_agreement
    from oracle.agreement.explain import explain

    drafted = draft_agreement(file, now=int(time.time()), deployment=configured(config))
    document = drafted.document
    if out.exists():
        raise Refused("file.exists", f"{out} is already there", hint="Name a new file: it may hold signatures")
    write_document(out, document)
    lines = explain(document, bundle=drafted.bundle, manifests=drafted.manifests)
    screen = Screen(as_json)
    screen.answer({**summary(document), "file": str(out), "lines": as_rows(lines)}, explanation(lines))
    screen.say("", f"Written to {out}. Each party now signs it: oracle agreement sign {out}")


@app.command("show")
def show(
    agreement: Annotated[str, typer.Argument(metavar="FILE|ID", help="A file, or an active agreement's id.")],
    function: FunctionFile = None,
    manifest: Manifests = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Say in plain words what an agreement allows."""
    document = find_document(agreement, config)
    lines = explain_with(document, function, manifest, config, known_names(None, config))
    terms = document.model_dump(mode="json", by_alias=True)["agreement"]
    Screen(as_json).answer({**summary(document), "lines": as_rows(lines), "terms": terms}, explanation(lines))


@app.command("sign")
def sign(
    file: DocumentFile,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the signed file goes. [default: FILE]")
    ] = None,
    function: FunctionFile = None,
    manifest: Manifests = None,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Sign an agreement, after saying what the signature allows."""
    from oracle.agreement.document import read_document, write_document
    from oracle.agreement.sign import check_signable
    from oracle.agreement.sign import sign as sign_document

    screen, document = Screen(as_json), read_document(file)
    check_signable(document)
    settings = None if keystore is not None and config is None else read_config(config)
    lines = explain_with(document, function, manifest, config, known_names(keystore, config))
    ask_consent(screen, document, lines, "Sign it?", yes)
    signed = sign_document(document, open_wallet(settings, keystore, password_file))
    write_document(out or file, signed)
    screen.answer({**summary(signed), "file": str(out or file)})


@app.command("merge")
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Copies that different parties signed.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the merged file goes.")],
    as_json: Json = False,
) -> None:
    """Bring the signatures of several copies together."""
    from oracle.agreement.document import merge as merge_documents
    from oracle.agreement.document import read_document, write_document

    documents = [read_document(file) for file in files]
    merged = merge_documents(documents[0], *documents[1:])
    write_document(out, merged)
    Screen(as_json).answer({**summary(merged), "file": str(out)})
