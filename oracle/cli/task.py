"""`oracle task`: ask for a computation, follow it, open its result; and `oracle withdraw`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import (
    ConfigFile,
    Json,
    Keystore,
    PasswordFile,
    make_client,
    open_result_key,
    open_wallet,
    parse_pairs,
    read_config,
    run,
    typed_params,
)
from oracle.cli.screen import Screen, fee_fields, fields, grid, table_rows, when, with_ether

if TYPE_CHECKING:
    import pyarrow as pa

    from oracle.chain.reader import TaskOnChain
    from oracle.chain.sender import Receipt
    from oracle.config import ClientConfig
    from oracle.task import Task

SHOWN_ROWS = 50

app = typer.Typer(name="task", help="Tasks: request, watch, open the result.", no_args_is_help=True)

TaskId = Annotated[
    str, typer.Argument(metavar="TASK", help="The task's id, or a file with what `task request --json` printed.")
]
ResultKey = Annotated[
    Path | None,
    typer.Option(
        "--result-key", metavar="FILE", help="The HPKE key that opens results. [default: the configuration's]"
    ),
]
Patience = Annotated[
    float | None, typer.Option("--patience", metavar="SECONDS", help="How long to wait. [default: until it has ended]")
]


@app.command("request")
def request(
    agreement: Annotated[str, typer.Argument(metavar="AGREEMENT", help="Its id, or its file.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter, visible to everyone.")
    ] = None,
    seconds: Annotated[
        int, typer.Option(min=1, max=30 * 86400, help="How long it may take; after that the fee can be had back.")
    ] = 3600,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result's settlement.")] = False,
    patience: Patience = None,
    keystore: Keystore = None,
    result_key: ResultKey = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Ask for a computation, and pay its fee. The quota is spent with it, whatever comes of it."""
    from oracle.agreement.document import read_document
    from oracle.cli.agreement_chain import receipt_fields
    from oracle.cli.consent import find_id

    settings, agreement_id = read_config(config), find_id(agreement)
    given = parse_pairs(param or (), "--param")
    requesters = read_document(Path(agreement)).requesters if Path(agreement).exists() else {}
    wallet = open_wallet(settings, keystore, password_file)
    opener = open_result_key(settings, result_key, password_file)

    async def send() -> dict[str, Any]:
        async with make_client(settings, wallet=wallet, result_key=opener) as client:
            terms = (await client.agreement(agreement_id)).agreement
            values = typed_params(given, await client.parameters(terms))
            task = await client.request(agreement_id, values, seconds=seconds, requesters=requesters)
            value = {
                "task_id": task.id,
                "agreement_id": agreement_id,
                **fee_fields(terms.price.fee, terms.price.token),
                "paid": task.paid,
                "deadline": task.request.deadline,
                **(receipt_fields(task.receipt) if task.receipt is not None else {}),
            }
            state = await task.wait(patience=patience) if wait else (await task.state()).state
            return {**value, "state": state}

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        value = run(send())
    screen.answer(value, fields(with_ether({**value, "deadline": when(value["deadline"])})))
    screen.say("", f"Its result: oracle task result 0x{value['task_id'].hex()}")


@app.command("watch")
def watch(
    task: TaskId,
    patience: Patience = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Follow a task until it has ended."""
    settings, task_id, screen = read_config(config), find_task_id(task), Screen(as_json)

    async def follow() -> dict[str, Any]:
        async with make_client(settings) as client:
            found = await client.task(task_id)
            before = await found.state()
            if not as_json:
                screen.say(_standing(before))
            state = await found.wait(patience=patience)
            return {"task_id": task_id, "agreement_id": found.request.agreement_id, "state": state}

    with screen.busy("waiting for the task to end"):
        value = run(follow())
    screen.answer(value)


@app.command("result")
def result(
    task: TaskId,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="A .csv, .parquet or .arrow file. [default: a table here]"),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Which output. [default: the only one]")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="TYPE",
            help="Of a public output: a column's type, as `function test --public` says. Once each.",
        ),
    ] = None,
    patience: Patience = None,
    result_key: ResultKey = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Open a task's result: waits for it, gathers the brokers' shares, checks it against the chain."""
    settings, task_id = read_config(config), find_task_id(task)
    if out is not None:
        _writer(out)
        if out.exists():
            raise Refused("file.exists", f"{out} is already there", hint="Name a new file")
    if _is_public(settings, task_id, output):
        if out is not None:
            raise Refused(
                "task.public_output", "a public output is one row, and goes to no file", hint="Leave --out away"
            )
        _show_public(Screen(as_json), settings, task_id, output, column or (), patience)
        return
    opener = open_result_key(settings, result_key, password_file)

    async def fetch() -> tuple[pa.Table, dict[str, Any]]:
        async with make_client(settings, result_key=opener) as client:
            found = await client.task(task_id)
            table = await found.result(output, patience=patience)
            settled = await found.settlement()
            listed = [{"name": o.name, "digest": o.digest} for o in settled.result.outputs]
            return table, {"signer": settled.signer, "result_digest": settled.result_digest, "outputs": listed}

    screen = Screen(as_json)
    with screen.busy("opening the result"):
        table, settled = run(fetch())
    value: dict[str, Any] = {"task_id": task_id, **settled, "columns": table.column_names, "row_count": table.num_rows}
    if out is not None:
        _writer(out)(table)
        screen.answer({**value, "file": str(out)}, fields({"file": out, "rows": table.num_rows}))
    else:
        rows = table_rows(table if as_json else table.slice(0, SHOWN_ROWS))
        named = [dict(zip(table.column_names, row, strict=True)) for row in rows]
        screen.answer({**value, "rows": named} if as_json else value, grid(table.column_names, rows[:SHOWN_ROWS]))
        if table.num_rows > SHOWN_ROWS:
            screen.say(f"{table.num_rows - SHOWN_ROWS} more rows; write them to a file with --out")


def _is_public(settings: ClientConfig, task_id: bytes, output: str | None) -> bool:
    async def look() -> bool:
        async with make_client(settings) as client:
            outputs = (await client.task(task_id)).agreement.outputs
            return any(each.is_public and output in (each.name, None) for each in outputs[: None if output else 1])

    return run(look())


def _show_public(
    screen: Screen,
    settings: ClientConfig,
    task_id: bytes,
    output: str | None,
    columns: Sequence[str],
    patience: float | None,
) -> None:
    from enclave_app.protocol.abi_output import decode_row, solidity_types
    from enclave_app.protocol.digests import sha256

    solidity_types(columns)

    async def fetch() -> bytes:
        async with make_client(settings) as client:
            return await (await client.task(task_id)).public_output(output, patience=patience)

    with screen.busy("waiting for the chain"):
        data = run(fetch())
    value: dict[str, Any] = {"task_id": task_id, "public": True, "digest": sha256(data), "data": data}
    if columns:
        value["values"] = [str(each) for each in decode_row(columns, data)]
    screen.answer(value)


@app.command("cancel")
def cancel(
    task: TaskId,
    agreement: Annotated[
        Path | None,
        typer.Option(
            "--agreement",
            metavar="FILE",
            help="The agreement's file with its list of requesters. [default: what the request showed]",
        ),
    ] = None,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Take a request back, with its fee and quota, while the agreement's release delay lasts."""
    from oracle.agreement.document import read_document

    listed = None if agreement is None else read_document(agreement).requesters

    def take_back(found: Task) -> Awaitable[Receipt]:
        found.requesters = listed
        return found.cancel()

    _end(task, take_back, keystore, config, password_file, as_json)


@app.command("expire")
def expire(
    task: TaskId,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Return the fee of a task whose deadline has passed to its requester, less what the agreement keeps. Anyone may. Quota and
    budget stay spent."""
    _end(task, lambda found: found.expire(), keystore, config, password_file, as_json)


@app.command("retry-callback")
def retry_callback(
    task: TaskId,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Call a contract back whose callback failed when its task was settled. Anyone may, and pays the gas."""
    _end(task, lambda found: found.retry_callback(), keystore, config, password_file, as_json)


def withdraw(
    token: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="An ERC-20 token. [default: the chain's own coin]")
    ] = None,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Collect what the contract holds for your wallet: fees earned, and fees returned. Shares that wait in agreements' pools are
    distributed first, to everyone who has one."""
    from enclave_app.protocol.fields import ZERO_ADDRESS
    from oracle import money
    from oracle.cli.agreement_chain import receipt_fields
    from oracle.cli.common import parse_address

    settings, paid_in = read_config(config), ZERO_ADDRESS if token is None else parse_address(token)
    wallet = open_wallet(settings, keystore, password_file)

    async def send() -> tuple[int, tuple[money.Pooled, ...], Receipt]:
        async with make_client(settings, wallet=wallet) as client:
            left = await money.hand_out(client, paid_in)
            held = await client.oracle.balance(wallet.address, await client.head(), paid_in)
            if held == 0:
                raise Refused("withdraw.nothing", "the contract holds nothing for this wallet", found=wallet.address)
            return held, left, await client.withdraw_balance(paid_in)

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        held, left, receipt = run(send())
    amount = fee_fields(held, paid_in, "amount")
    value = {"address": wallet.address, **amount, **receipt_fields(receipt)}
    screen.answer(value, fields(with_ether(value)))
    if left:
        screen.warn(f"{len(left)} pool(s) were left alone: your share is worth less than the gas of handing it out.")


def _standing(task: TaskOnChain) -> str:
    # The contract keeps the request's block only while the task stands.
    since = f" since block {task.request_block}" if task.request_block else ""
    return f"{task.state.name.lower()}{since}"


def find_task_id(text: str) -> bytes:
    from enclave_app.protocol.canonical import MAX_DOCUMENT, load
    from enclave_app.protocol.digests import parse_digest
    from oracle.cli.common import parse_id

    path = Path(text)
    if not path.is_file():
        return parse_id(text, "task")
    with path.open("rb") as source:
        said = load(source.read(MAX_DOCUMENT + 1), canonical=False)
    if not isinstance(said, dict) or not isinstance(said.get("task_id"), str):
        raise Refused("task.file", f"{path} names no task", expected="what `oracle task request --json` printed")
    return parse_digest(said["task_id"])


def _end(
    task: str,
    act: Callable[[Task], Awaitable[Receipt]],
    keystore: Path | None,
    config: Path | None,
    password_file: Path | None,
    as_json: bool,
) -> None:
    from oracle.cli.agreement_chain import receipt_fields

    settings, task_id = read_config(config), find_task_id(task)
    wallet = open_wallet(settings, keystore, password_file)

    async def send() -> dict[str, Any]:
        async with make_client(settings, wallet=wallet) as client:
            found = await client.task(task_id)
            receipt = await act(found)
            state = (await found.state()).state
            return {"task_id": task_id, "state": state, **receipt_fields(receipt)}

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        value = run(send())
    screen.answer(value)


def _writer(out: Path) -> Callable[[pa.Table], None]:
    """How a table goes to a file of that name; the file is for its owner alone, as it holds a result in plaintext."""
    import os

    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    def arrow(table: pa.Table, target: Any) -> None:
        with pa.ipc.new_file(target, table.schema) as writer:
            writer.write_table(table)

    formats: dict[str, Callable[[pa.Table, Any], None]] = {
        ".csv": pyarrow.csv.write_csv,
        ".parquet": pyarrow.parquet.write_table,
        ".arrow": arrow,
    }
    write = formats.get(out.suffix.lower())
    if write is None:
        raise Refused(
            "result.format", "a file's kind is not known by its name", found=out.name, expected=" or ".join(formats)
        )

    def save(table: pa.Table) -> None:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            write(table, target)

    return save
