"""`oracle dataset`: seal tables, share their keys among brokers, look at what is public, publish it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import ConfigFile, Json, PasswordFile, Yes, parse_address, password_from, read_config, run
from oracle.cli.screen import Screen, fields, grid

if TYPE_CHECKING:
    from enclave_app.protocol.hpke import PublicKey
    from enclave_app.protocol.shares import ShareList
    from enclave_app.protocol.structs import Chain

SHARES_NAME = "shares.json"

app = typer.Typer(name="dataset", help="Datasets: seal, share, inspect, publish.", no_args_is_help=True)

BrokerKeys = Annotated[
    list[Path],
    typer.Option("--broker", "-b", metavar="FILE", help="A broker's card or HPKE public key; once per broker."),
]
SharesFile = Annotated[
    Path | None,
    typer.Option("--shares", metavar="FILE", help="The share list. [default: shares.json in the dataset's directory]"),
]


@app.command("seal")
def seal(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Parquet, CSV or Arrow files of one table.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the sealed dataset goes.")],
    keys: Annotated[
        Path, typer.Option("--keys", metavar="FILE", help="Where its keys go: SECRET, and never handed to anyone.")
    ],
    lineage: Annotated[
        str | None,
        typer.Option(help="A former version's lineage (hex), so that privacy budgets carry over. [default: new data]"),
    ] = None,
    dangerous_plaintext_keys: Annotated[
        bool, typer.Option("--dangerous-plaintext-keys", help="Write the keys without a password.")
    ] = False,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Encrypt a table column by column. Nothing leaves this machine."""
    from enclave_app.protocol.digests import parse_digest
    from oracle.dataset.inspect import describe_public, preview_public
    from oracle.dataset.seal import seal as seal_dataset
    from oracle.dataset.sources import open_source

    screen = Screen(as_json)
    line = None if lineage is None else parse_digest(lineage)
    if keys.resolve().is_relative_to(out.resolve()):
        raise Refused(
            "keys.place",
            f"{keys} would lie inside the sealed dataset, which is made to be handed out",
            hint="Name a file outside it",
        )
    visible = preview_public(open_source(inputs).schema)
    screen.say("Whoever gets the sealed dataset will be able to see, without any key:")
    screen.say(*(f"  - {item}" for item in visible))
    screen.say("Nothing else: every value stays encrypted.", "")
    if dangerous_plaintext_keys:
        screen.warn("The keys will lie in plaintext: whoever reads the key file reads the data.")
    screen.confirm("Seal it?", yes)
    password = None
    if not dangerous_plaintext_keys:
        text = password_from(password_file, str(keys), new=True)()  # asked before the work, not after it
        password = lambda: text  # noqa: E731
    with _progress(as_json) as advance:
        sealed = seal_dataset(
            inputs,
            out,
            password=password,
            dangerous_plaintext_keys=dangerous_plaintext_keys,
            keys_path=keys,
            lineage=line,
            progress=advance,
        )
    manifest = sealed.manifest
    answer = {
        "dataset_id": manifest.id,
        "lineage": manifest.lineage,
        "directory": str(out),
        "keys": str(keys),
        "rows": sum(file.rows for file in manifest.files),
        "files": len(manifest.files),
        "size": sum(file.size for file in manifest.files),
        "columns": [column.name for column in manifest.columns],
        "public": describe_public(manifest),
    }
    screen.answer(answer, fields({name: value for name, value in answer.items() if name != "public"}))
    screen.say("", f"Keep {keys} safe and to yourself. Next: oracle dataset share {out} --keys {keys} …")


@app.command("share")
def share(
    dataset: Annotated[Path, typer.Argument(metavar="DIR", help="The sealed dataset.")],
    keys: Annotated[Path, typer.Option("--keys", metavar="FILE", help="Its keys.")],
    broker: BrokerKeys,
    threshold: Annotated[int, typer.Option("--threshold", "-t", help="How many brokers are needed to open a key.")],
    owner: Annotated[
        str | None,
        typer.Option(help="The data owner that agreements will name. [default: the configured wallet's address]"),
    ] = None,
    out: SharesFile = None,
    config: ConfigFile = None,
    deployment: Annotated[
        Path | None,
        typer.Option("--deployment", metavar="FILE", help="Where the contracts are. [default: the configuration's]"),
    ] = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Split a dataset's keys among brokers. From then on, so many of them together could open it."""
    from enclave_app.protocol.storage import blob_name
    from oracle.dataset.keyfile import read_keys
    from oracle.dataset.seal import BLOBS_NAME, load_manifest
    from oracle.dataset.share import check_brokers, share_dataset

    screen = Screen(as_json)
    manifest, brokers = load_manifest(dataset), _read_brokers(broker)
    target = out or _beside(dataset)
    if target.exists():
        raise Refused("file.exists", f"{target} is already there", hint="Give --shares with a new file")
    check_brokers(brokers, threshold)
    chain, address = _chain(config, deployment), _owner(owner, config)
    screen.say(f"The keys of {len(manifest.columns)} column(s) will be split among {len(brokers)} broker(s).")
    if threshold == 1:
        screen.warn("ANY ONE of them ALONE can open this data without an enclave: choose at least two, if you can.")
    else:
        screen.warn(
            f"Any {threshold} of them together can open this data without an enclave: choose who will not collude."
        )
    screen.confirm("Share the keys?", yes)
    owned = read_keys(keys, password_from(password_file, str(keys)))
    shares = share_dataset(manifest, owned, chain, address, brokers, threshold)
    for key in brokers:
        # Enclaves look brokers' keys up in storage, by the digests in the list: they are published with it.
        (dataset / BLOBS_NAME / blob_name(key.digest)).write_bytes(key.wire)
    target.write_bytes(shares.canonical())
    screen.answer(
        {
            "dataset_id": manifest.id,
            "shares_digest": shares.id,
            "file": str(target),
            "threshold": threshold,
            "brokers": [key.digest for key in brokers],
            "owner": address,
            "chain_id": chain.chain_id,
            "agreement_registry": chain.agreement_registry,
        }
    )


def _owner(given: str | None, config: Path | None) -> str:
    from oracle.keys import read_wallet

    if given is not None:
        return parse_address(given)
    keystore = read_config(config).keystore
    if keystore is None:
        raise Refused(
            "share.owner", "nobody is named as the owner", hint="Give --owner, or a keystore in the configuration"
        )
    return read_wallet(keystore).address


@app.command("inspect")
def inspect(
    dataset: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A sealed dataset, or its manifest.")],
    shares: SharesFile = None,
    as_json: Json = False,
) -> None:
    """Show what a sealed dataset is, and what anyone can see of it."""
    from oracle.dataset.inspect import inspect_dataset
    from oracle.dataset.seal import load_manifest

    found = inspect_dataset(load_manifest(dataset), _read_shares(dataset, shares))
    value = {
        "dataset_id": found.id,
        "lineage": found.lineage,
        "encryption": found.encryption,
        "rows": found.rows,
        "size": found.size,
        "files": found.files,
        "columns": found.columns,
        "keys": found.keys,
        "shares": found.shares,
        "public": found.public,
    }
    brief = {name: value[name] for name in ("dataset_id", "lineage", "encryption", "rows", "size", "files")}
    if found.shares is not None:
        brief["shares_digest"] = found.shares.id
        brief["brokers"] = [f"{found.shares.threshold} of {len(found.shares.brokers)}:", *found.shares.brokers]
    columns = grid(("column", "type", "key"), [(c.name, c.type, c.key) for c in found.columns])
    public = fields({"anyone_sees": found.public})
    Screen(as_json).answer(value, fields(brief), columns, public)


@app.command("publish")
def publish(
    dataset: Annotated[Path, typer.Argument(metavar="DIR", help="The sealed dataset.")],
    storage: Annotated[
        list[str] | None,
        typer.Option(
            "--storage", metavar="URI", help="file:///dir or http(s)://…; again for more. [default: configured]"
        ),
    ] = None,
    shares: SharesFile = None,
    broker: BrokerKeys = [],  # noqa: B006
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Put the ciphertext, the manifest, the share list and its brokers' public keys into storage; secrets never."""
    from oracle.dataset.publish import publish_dataset
    from oracle.dataset.seal import BLOBS_NAME, load_manifest
    from oracle.storage import open_storage

    manifest, listed = load_manifest(dataset), _read_shares(dataset, shares)
    brokers = _brokers_of(dataset / BLOBS_NAME, listed, _read_brokers(broker))
    uris = storage or list(read_config(config).storage)

    async def put() -> Sequence[bytes]:
        stored: Sequence[bytes] = ()
        for uri in uris:
            async with open_storage(uri) as place:
                stored = await publish_dataset(manifest, dataset / BLOBS_NAME, place, shares=listed, brokers=brokers)
        return stored

    screen = Screen(as_json)
    with screen.busy("publishing"):
        stored = run(put())
    screen.answer(
        {
            "dataset_id": manifest.id,
            "shares_digest": None if listed is None else listed.id,
            "storage": uris,
            "blobs": stored,
        }
    )


def _read_brokers(paths: Sequence[Path]) -> list[PublicKey]:
    from oracle.keys import read_public_key

    return [read_public_key(path) for path in paths]


def _read_shares(dataset: Path, path: Path | None) -> ShareList | None:
    """The share list of a dataset: the named file, or the one beside it if there is one."""
    from enclave_app.protocol.canonical import parse
    from enclave_app.protocol.shares import MAX_SHARE_LIST, ShareList
    from oracle.files import read_file

    path = path or (_beside(dataset) if _beside(dataset).exists() else None)
    return None if path is None else parse(ShareList, read_file(path, MAX_SHARE_LIST))


def _brokers_of(blobs: Path, listed: ShareList | None, given: Sequence[PublicKey]) -> list[PublicKey]:
    """The public keys of a share list's brokers: given, or kept by `share`. Without them no enclave could seal an output."""
    from enclave_app.protocol.hpke import PUBLIC_KEY_BYTES, PublicKey
    from enclave_app.protocol.storage import blob_name
    from oracle.files import read_file

    known = {key.digest: key for key in given}
    for entry in () if listed is None else listed.brokers:
        kept = blobs / blob_name(entry.broker)
        if entry.broker not in known and kept.exists():
            key = PublicKey(read_file(kept, PUBLIC_KEY_BYTES))
            known[key.digest] = key
        if entry.broker not in known:
            raise Refused(
                "publish.broker",
                "the public key of a broker in the share list is not at hand",
                found="0x" + entry.broker.hex(),
                hint="Give its card or key with --broker",
            )
    return list(known.values())


def _beside(dataset: Path) -> Path:
    return (dataset if dataset.is_dir() else dataset.parent) / SHARES_NAME


def _chain(config: Path | None, deployment: Path | None) -> Chain:
    from enclave_app.protocol.structs import Chain
    from oracle.chain.deploy import Deployment

    found = Deployment.read(deployment) if deployment is not None else read_config(config).deployment
    return Chain(chain_id=found.chain_id, agreement_registry=found.agreement_registry)


@contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[int], None] | None]:
    """A counter of rows on stderr, where somebody watches."""
    import sys

    if as_json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("sealing: {task.completed:,.0f} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sealing", total=None)
        yield lambda rows: progress.advance(task, rows)
