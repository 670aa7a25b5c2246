"""`oracle keybroker`: make a broker, serve it, read and check its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import Json, PasswordFile, parse_address, password_from, run
from oracle.cli.screen import Screen, fields, grid, when

if TYPE_CHECKING:
    from oracle.keybroker.log import Entry

app = typer.Typer(name="keybroker", help="Key brokers: each holds one share of every data key.", no_args_is_help=True)
log = typer.Typer(name="log", help="A broker's hash-chained, signed log.", no_args_is_help=True)
app.add_typer(log)

LogPlace = Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A broker's directory, or its log.")]


@app.command("init")
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the broker's keys and its log will lie.")],
    url: Annotated[str | None, typer.Option(help="Where it will answer: a hint on its card.")] = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Make a broker's keys, and the card that it shows to everyone."""
    from oracle.card import CARD
    from oracle.keybroker.keys import init as init_broker

    card = init_broker(directory, password_from(password_file, str(directory), new=True)(), url=url)
    Screen(as_json).answer(
        {"directory": str(directory), "card": str(directory / CARD), "digest": card.digest, "signer": card.signer}
    )


@app.command("serve")
def serve(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The broker's configuration (YAML).")],
    as_json: Json = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C. What it did goes to stderr, one JSON line each."""
    import logging

    from oracle.hardening import forbid_dumps
    from oracle.keybroker.config import read_config
    from oracle.keybroker.server import serve as serve_broker
    from oracle.logs import configure

    forbid_dumps()
    settings, screen = read_config(config), Screen(as_json)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for part in ("collateral", "keybroker.watch", "keybroker.ledger"):
        configure("keybroker", settings.log_level, part=part)
    if settings.anchors.development:
        screen.warn("This broker takes SIMULATED enclaves: a development root is configured.")
    run(
        serve_broker(
            settings,
            ready=lambda address: screen.say(f"serving at {address}"),
            reload=lambda: read_config(config),
        )
    )
    screen.answer({"stopped": True})


@app.command("backup")
def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The broker's directory; it may be serving.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new file.")],
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Write a broker's keys, under its password, and how far its log is, to one file. The log itself is not in it."""
    from oracle.keybroker.backup import back_up

    content = back_up(directory, out, password_from(password_file, str(directory))())
    value = {"file": str(out), "digest": content.card.digest, "entries": content.length, "head": content.head}
    Screen(as_json).answer(value)


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `backup` wrote.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="The broker's new directory.")],
    log: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE", help="Its log: from the old directory, or a copy (logCopies).")
    ] = None,
    accept_lost_log: Annotated[
        bool, typer.Option("--accept-lost-log", help="Go on though entries are lost: no task of before gets anything.")
    ] = False,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Make a broker again from its backup and its log. Never while the old one may still run."""
    from oracle.keybroker.backup import restore as restore_broker

    screen = Screen(as_json)
    password = password_from(password_file, str(file))()
    made = restore_broker(file, into, password, log=log, accept_lost_log=accept_lost_log)
    if made.refused_until:
        screen.warn(
            f"THE LOG IS LOST: nobody can count what this broker released. It refuses every task that was asked as of "
            f"{when(made.refused_until)} or before. Tell the owners."
        )
    value = {"directory": str(into), "digest": made.card.digest, "entries": made.entries}
    if made.refused_until:
        value["refused_until"] = made.refused_until
    screen.answer(value)


@log.command("archive")
def archive(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A broker's directory; it may be serving.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the closed files go.")],
    as_json: Json = False,
) -> None:
    """Move closed files of a long log elsewhere, once they are checked. What caps count by stays."""
    from oracle.card import read_card
    from oracle.keybroker.backup import archive as archive_log

    moved = archive_log(_file(directory), read_card(directory).signer, to)
    Screen(as_json).answer({"moved": [str(each) for each in moved]})


@log.command("show")
def show(
    place: LogPlace,
    task: Annotated[str | None, typer.Option(help="Only what concerns this task.")] = None,
    as_json: Json = False,
) -> None:
    """Show a log's entries. They are not checked here; `verify` does."""
    from enclave_app.protocol.digests import parse_digest
    from oracle.keybroker.log import read_log
    from oracle.naming import naming

    file = _file(place)
    with naming(file):
        entries = list(read_log(file, task_id=None if task is None else parse_digest(task)))
    rows = [(e.seq, when(e.time), e.event.kind, *_about(e)) for e in entries]
    value = {"entries": [{**e.model_dump(mode="json", by_alias=True), "digest": e.digest} for e in entries]}
    Screen(as_json).answer(value, grid(("#", "time", "what", "task", "to"), rows))


@log.command("verify")
def verify(
    place: LogPlace,
    signer: Annotated[
        str | None, typer.Option(help="The broker's signing address. [default: the card's in the same directory]")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="The digest of an entry seen before, which must still be there.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="How many entries there were before, at least.")] = None,
    as_json: Json = False,
) -> None:
    """Check that a log is whole: every link, every signature. Fails where it is not."""
    from enclave_app.protocol.digests import parse_digest
    from oracle.card import read_card
    from oracle.keybroker.log import verify_log

    file = _file(place)
    address = parse_address(signer) if signer else read_card(file.parent).signer
    found = verify_log(file, address, head=None if head is None else parse_digest(head), length=length)
    if found.first_bad is not None:
        bad = found.first_bad
        raise Refused(
            bad.code, f"line {bad.line} of {bad.file}: {bad.message}", found=f"{found.length} good entries before"
        )
    value: dict[str, Any] = {
        "signer": address,
        "entries": found.length,
        **({"from_entry": found.first} if found.first else {}),
        "releases": found.releases,
        "outputs": found.outputs,
        "head": found.head,
    }
    screen = Screen(as_json)
    screen.answer({"ok": True, **value}, fields(value))
    if head is None and length is None:
        screen.say("", "Entries cut from the end leave no trace: keep this head, and give it with --head next time.")


def _file(place: Path) -> Path:
    from oracle.keybroker.keys import LOG_FILE

    file = place / LOG_FILE if place.is_dir() else place
    if not file.is_file():
        raise Refused("log.missing", f"there is no log at {file}", hint="Name a broker's directory, or its log")
    return file


def _about(entry: Entry) -> tuple[str, str]:
    """A task and whom something went to."""
    from oracle.keybroker.log import OutputReleased, Released

    event = entry.event
    if isinstance(event, Released):
        return "0x" + event.statement.task_id.hex(), event.statement.signer
    if isinstance(event, OutputReleased):
        return "0x" + event.task_id.hex(), "key 0x" + event.recipient.hex()[:16] + "…"
    return "", ""
