"""What the commands about agreements share: finding one, saying in plain words what it allows, asking for consent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import make_client, parse_id, parse_pairs, read_config, run
from oracle.cli.screen import Screen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from oracle.agreement.document import AgreementDocument
    from oracle.agreement.draft import Deployment
    from oracle.agreement.explain import Line

DocumentFile = Annotated[Path, typer.Argument(metavar="FILE", help="The agreement's file.")]
FunctionFile = Annotated[
    Path | None, typer.Option("--function", metavar="BUNDLE", help="The function's bundle, to read its text here.")
]
Manifests = Annotated[
    list[str] | None,
    typer.Option("--manifest", metavar="NAME=FILE", help="A dataset's manifest, to say how much of it is released."),
]
STYLES = {"info": "", "notice": "yellow", "warning": "bold yellow", "danger": "bold white on red"}


def find_id(text: str) -> bytes:
    """An agreement's id, from its file or as it is."""
    from oracle.agreement.document import read_document

    path = Path(text)
    return read_document(path).id if path.exists() else parse_id(text, "agreement")


def find_document(text: str, config: Path | None) -> AgreementDocument:
    """An agreement with its signatures: from its file, or from the chain's log, checked against the id."""
    from oracle.agreement.document import AgreementDocument, read_document

    if Path(text).exists():
        return read_document(Path(text))
    settings, agreement_id = read_config(config), find_id(text)

    async def read() -> AgreementDocument:
        async with make_client(settings) as client:
            active = await client.agreement(agreement_id)
            given = dict(zip(active.agreement.parties(), active.signatures, strict=False))
            ecdsa = {party: each for party, each in given.items() if _signed(agreement_id, each, party)}
            return AgreementDocument(
                chain=client.chain,
                agreement=active.agreement,
                signatures=ecdsa,
                contract_signatures={p: each for p, each in given.items() if each and p not in ecdsa},
            )

    return run(read())


def _signed(digest: bytes, signature: bytes, party: str) -> bool:
    from enclave_app.protocol.signing import recover

    try:
        return recover(digest, signature) == party
    except Refused:
        return False


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
    """What every command about a document answers; `unchecked` are wallets' signatures, which only the chain can check."""
    parties = document.agreement.parties()
    return {
        "agreement_id": document.id,
        "chain_id": document.chain.chain_id,
        "parties": parties,
        "signed": [p for p in parties if p in document.signatures],
        "unchecked": [p for p in parties if p in document.contract_signatures],
        "missing": document.missing(),
    }


def explain_with(
    document: AgreementDocument,
    function: Path | None,
    manifests: Sequence[str] | None,
    config: Path | None,
    names: Mapping[str, str] | None = None,
) -> tuple[Line, ...]:
    from enclave_app.protocol.bundle import MAX_BUNDLE, read_bundle
    from oracle.agreement.explain import explain
    from oracle.dataset.seal import load_manifest
    from oracle.files import read_file

    bundle = None
    if function is not None:
        bundle = read_bundle(read_file(function, MAX_BUNDLE), document.agreement.fn.id)
    given = parse_pairs(manifests or (), "--manifest")
    loaded = {name: load_manifest(Path(path)) for name, path in given.items()}
    return explain(document, bundle=bundle, manifests=loaded, names=names, deployment=configured(config))


def known_names(keystore: Path | None, config: Path | None) -> dict[str, str]:
    """Names of the user's own for addresses. Whoever is about to sign is YOU: of all addresses, the one to look for."""
    from oracle.cli.common import DEFAULT_CONFIG
    from oracle.keys import read_wallet

    settings = read_config(config) if config is not None or DEFAULT_CONFIG.exists() else None
    names = {} if settings is None else {address: name for name, address in settings.names.items()}
    path = keystore or (settings.keystore if settings else None)
    return names if path is None else {**names, read_wallet(path).address: "YOU"}


def called(address: str, names: Mapping[str, str]) -> str:
    return f"{names[address]} ({address})" if address in names else address


def configured(config: Path | None) -> Deployment | None:
    """The configured contracts, for a draft that names none."""
    from enclave_app.protocol.structs import Chain
    from oracle.agreement.draft import Deployment
    from oracle.cli.common import DEFAULT_CONFIG

    if config is None and not DEFAULT_CONFIG.exists():
        return None
    found = read_config(config).deployment
    chain = Chain(chain_id=found.chain_id, agreement_registry=found.agreement_registry)
    return Deployment(chain=chain, oracle=found.oracle, enclave_registry=found.enclave_registry)
