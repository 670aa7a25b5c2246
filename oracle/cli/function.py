"""`oracle function`: pack a function, look at it, try it on sample rows, publish it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import ConfigFile, Json, parse_pairs, read_config, run, typed_params
from oracle.cli.screen import Screen, fields, grid, table_rows, to_plain

if TYPE_CHECKING:
    from enclave_app.protocol.bundle import Bundle
    from oracle.function.trial import PublicRow

MAX_UINT32 = (1 << 32) - 1
MAX_SAFE = (1 << 53) - 1

app = typer.Typer(name="function", help="Functions: pack, inspect, test, publish.", no_args_is_help=True)

BundleFile = Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `oracle function pack` wrote.")]


@app.command("pack")
def pack(
    source: Annotated[Path, typer.Argument(metavar="FUNCTION.yaml", help="The description; its code lies beside it.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the bundle goes.")],
    manifest: Annotated[
        list[str] | None,
        typer.Option(
            "--manifest", metavar="NAME=FILE", help="A dataset's manifest, for the types of a table's columns."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Pack a function into one file, whose digest is what agreements name."""
    from oracle.dataset.seal import load_manifest
    from oracle.function.spec import pack_directory

    given = parse_pairs(manifest or (), "--manifest")
    bundle = pack_directory(source, {name: load_manifest(Path(path)) for name, path in given.items()})
    if out.exists():
        raise Refused("file.exists", f"{out} is already there", hint="Name a new file: agreements name the old one")
    out.write_bytes(bundle.raw)
    answer = {
        "function_id": bundle.id,
        "param_domain": bundle.header.params.id,
        "file": str(out),
        "size": len(bundle.raw),
    }
    Screen(as_json).answer(answer)


@app.command("inspect")
def inspect(bundle: BundleFile, as_json: Json = False) -> None:
    """Show everything a bundle holds, its code included: what a data owner reads before signing."""
    from rich.text import Text

    from oracle.cli.screen import plain
    from oracle.function.inspect import inspect_function

    found = inspect_function(_read(bundle))
    value = to_plain(found)
    value = {"function_id": value.pop("id"), **value}
    brief = {name: item for name, item in value.items() if name not in ("tables", "params", "source", "files")}
    columns = [(name, column, kind) for name, listed in found.tables.items() for column, kind in listed.items()]
    params = [(p["name"], p["type"], _domain(p)) for p in found.params]
    Screen(as_json).answer(
        value,
        fields(brief),
        grid(("table", "column", "type"), columns),
        grid(("parameter", "type", "from a requester"), params),
        Text(plain(found.source.strip())),
    )


@app.command("test")
def try_out(
    bundle: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE|FUNCTION.yaml", help="A bundle, or the description or folder it is made of."),
    ],
    sample: Annotated[
        list[str],
        typer.Option(
            "--sample", "-s", metavar="NAME=FILE", help="Rows for a table: Parquet, CSV or Arrow. Once per table."
        ),
    ],
    param: Annotated[list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter.")] = None,
    memory: Annotated[int, typer.Option(min=1, max=MAX_UINT32, help="MiB of memory.")] = 512,
    seconds: Annotated[int, typer.Option(min=1, max=MAX_UINT32, help="Seconds of time.")] = 30,
    rows: Annotated[int, typer.Option(min=1, max=MAX_SAFE, help="Rows of output.")] = 100_000,
    size: Annotated[int, typer.Option(min=1, max=MAX_SAFE, help="Bytes of output.")] = 64 << 20,
    as_of: Annotated[
        int | None, typer.Option("--as-of", help="The request's time in unix seconds. [default: now]")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="As a public output: one row, in the bytes that a contract reads.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a function here on sample rows, under the enclave's own limits and in its sandbox."""
    from enclave_app.protocol.structs import Limits
    from oracle.function.spec import pack_directory
    from oracle.function.trial import try_function, try_public

    unpacked = bundle.is_dir() or bundle.suffix in (".yaml", ".yml")
    function = pack_directory(bundle) if unpacked else _read(bundle)
    samples = {name: Path(path) for name, path in parse_pairs(sample, "--sample").items()}
    params = typed_params(parse_pairs(param or (), "--param"), function.header.params)
    limits = Limits(memory_mib=memory, time_seconds=seconds, output_bytes=size, output_rows=rows)
    screen, started = Screen(as_json), time.monotonic()
    moment = int(time.time()) if as_of is None else as_of
    if public:
        with screen.busy("running"):
            rows_made = run(try_public(function, samples, params=params, limits=limits, as_of=moment))
        _show_public(screen, function, rows_made, round(time.monotonic() - started, 3))
        return
    with screen.busy("running"):
        outputs = run(try_function(function, samples, params=params, limits=limits, as_of=moment))
    seconds_taken = round(time.monotonic() - started, 3)
    rows_of = {name: table_rows(table) for name, table in outputs.items()}
    shown = [grid(table.column_names, rows_of[name], title=name) for name, table in outputs.items()]
    screen.answer(
        {
            "function_id": function.id,
            "outputs": {
                name: [dict(zip(table.column_names, row, strict=True)) for row in rows_of[name]]
                for name, table in outputs.items()
            },
            "seconds": seconds_taken,
        },
        *shown,
    )
    screen.say(f"{seconds_taken} s, with the sandbox's start")


def _show_public(screen: Screen, function: Bundle, made: dict[str, PublicRow], seconds: float) -> None:
    shown = {
        name: [
            {"column": column, "type": kind, "solidity": solidity, "value": str(value)}
            for (column, kind), solidity, value in zip(row.columns.items(), row.solidity, row.values, strict=True)
        ]
        for name, row in made.items()
    }
    screen.answer(
        {
            "function_id": function.id,
            "public_outputs": {
                name: {"columns": shown[name], "abi": f"({', '.join(row.solidity)})", "data": row.data}
                for name, row in made.items()
            },
            "seconds": seconds,
        },
        *(
            grid(["column", "type", "solidity", "value"], [list(each.values()) for each in shown[name]], title=name)
            for name in made
        ),
        fields({name: f"abi.decode(0x{row.data.hex()}, ({', '.join(row.solidity)}))" for name, row in made.items()}),
    )
    screen.say("PUBLIC: whoever runs it knows this before it is settled, and then everyone, for ever (R17).")


@app.command("publish")
def publish(
    bundle: BundleFile,
    storage: Annotated[
        list[str] | None,
        typer.Option(
            "--storage", metavar="URI", help="file:///dir or http(s)://…; again for more. [default: configured]"
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Put a function and its parameters' domain into storage, where enclaves and requesters find them."""
    from oracle.function.inspect import publish_function
    from oracle.storage import open_storage

    function = _read(bundle)
    uris = storage or list(read_config(config).storage)

    async def put() -> None:
        for uri in uris:
            async with open_storage(uri) as place:
                await publish_function(function, place)

    screen = Screen(as_json)
    screen.say("Whoever reads that storage can read this function.")
    run(put())
    screen.answer({"function_id": function.id, "param_domain": function.header.params.id, "storage": uris})


def _read(path: Path) -> Bundle:
    from enclave_app.protocol.bundle import MAX_BUNDLE, read_bundle
    from oracle.files import read_file

    return read_bundle(read_file(path, MAX_BUNDLE), None)


def _domain(param: dict[str, object]) -> str:
    if "values" in param:
        return f"one of {', '.join(map(str, param['values']))}" if isinstance(param["values"], list | tuple) else ""
    return f"{param['min']} to {param['max']}" if "min" in param else ""
