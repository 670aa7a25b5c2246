"""`oracle agreement`: draft, read, sign and merge agreements, on files alone; `agreement_chain.py` is the rest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import ConfigFile, Json, Keystore, PasswordFile, Yes, open_wallet, parse_pairs, read_config
from oracle.cli.screen import Screen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from oracle.agreement.document import AgreementDocument
    from oracle.agreement.draft import Deployment
    from oracle.agreement.explain import Line

app = typer.Typer(name="agreement", help="Agreements: draft, sign, activate, narrow, revoke.", no_args_is_help=True)

DocumentFile = Annotated[Path, typer.Argument(metavar="FILE", help="The agreement's file.")]
FunctionFile = Annotated[
    Path | None, typer.Option("--function", metavar="BUNDLE", help="The function's bundle, to read its text here.")
]
Manifests = Annotated[
    list[str] | None,
    typer.Option("--manifest", metavar="NAME=FILE", help="A dataset's manifest, to say how much of it is released."),
]
STYLES = {"info": "", "notice": "yellow", "warning": "bold yellow", "danger": "bold white on red"}


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

    drafted = draft_agreement(file, now=int(time.time()), deployment=_deployment(config))
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
    from oracle.cli.agreement_chain import find_document

    document = find_document(agreement, config)
    lines = explain_with(document, function, manifest, config)
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
    lines = explain_with(document, function, manifest, config, signer_names(keystore, config))
    ask_consent(screen, document, lines, "Sign it?", yes)
    settings = None if keystore is not None and config is None else read_config(config)
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


def ask_consent(screen: Screen, document: AgreementDocument, lines: Sequence[Line], question: str, yes: bool) -> None:
    """Say what is consented to, the dangerous parts once more and loudly, then ask (R5, R4)."""
    screen.tell(explanation(lines))
    loud = [line.text for line in lines if line.severity.value == "danger"]
    if loud:
        screen.say("")
        screen.warn(*loud)
    screen.say("", f"Agreement 0x{document.id.hex()}")
    screen.confirm(question, yes)


def explanation(lines: Sequence[Line]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from oracle.cli.screen import plain

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    last = ""
    for line in lines:
        mark = {"danger": "!! ", "warning": "! "}.get(line.severity.value, "")
        topic = line.topic if line.topic != last else ""
        table.add_row(Text(topic), Text(mark + plain(line.text), style=STYLES[line.severity.value]))
        last = line.topic
    return table


def as_rows(lines: Sequence[Line]) -> list[dict[str, str]]:
    return [{"severity": line.severity.value, "topic": line.topic, "text": line.text} for line in lines]


def summary(document: AgreementDocument) -> dict[str, Any]:
    """What every command about a document answers."""
    return {
        "agreement_id": document.id,
        "chain_id": document.chain.chain_id,
        "parties": document.agreement.parties(),
        "signed": [p for p in document.agreement.parties() if p not in document.missing()],
        "missing": document.missing(),
    }


def explain_with(
    document: AgreementDocument,
    function: Path | None,
    manifests: Sequence[str] | None,
    config: Path | None,
    names: Mapping[str, str] | None = None,
) -> tuple[Line, ...]:
    from enclave_app.protocol.bundle import read_bundle
    from oracle.agreement.explain import explain
    from oracle.dataset.seal import load_manifest

    bundle = None if function is None else read_bundle(function.read_bytes(), document.agreement.fn.id)
    given = parse_pairs(manifests or (), "--manifest")
    loaded = {name: load_manifest(Path(path)) for name, path in given.items()}
    return explain(document, bundle=bundle, manifests=loaded, names=names, deployment=_deployment(config))


def signer_names(keystore: Path | None, config: Path | None) -> dict[str, str]:
    """Whoever is about to sign is called so: of all addresses, their own is the one that they look for."""
    from oracle.keys import read_wallet

    path = keystore or read_config(config).keystore
    return {} if path is None else {read_wallet(path).address: "YOU"}


def _deployment(config: Path | None) -> Deployment | None:
    """The configured contracts, for a draft that names none."""
    from enclave_app.protocol.structs import Chain
    from oracle.agreement.draft import Deployment
    from oracle.cli.common import DEFAULT_CONFIG

    if config is None and not DEFAULT_CONFIG.exists():
        return None
    found = read_config(config).deployment
    chain = Chain(chain_id=found.chain_id, agreement_registry=found.agreement_registry)
    return Deployment(chain=chain, oracle=found.oracle, enclave_registry=found.enclave_registry)
