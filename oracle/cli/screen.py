"""Where a command's words go: its answer on stdout, a table for people or one JSON object for programs; all else on stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from enclave_app.protocol.errors import OracleError, Refused, Retryable
from oracle.cli.advice import advice

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pyarrow as pa
    from rich.console import Console, RenderableType

PIPE_WIDTH = 120
"""Columns where the output is no terminal, so that a 32-byte digest stays on one line."""


class Screen:
    """`as_json`: stdout holds one JSON object, and nothing else."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def answer(self, value: Mapping[str, Any], *shown: RenderableType) -> None:
        """The command's answer: `value` for programs, `shown` for people (its fields, where nothing is given)."""
        if self.as_json:
            typer.echo(to_json(value))
            return
        console = _console(stderr=False)
        for item in shown or (fields(value),):
            console.print(item)

    def say(self, *lines: str) -> None:
        """Words that are no answer: explanations, warnings. They go to stderr, so that a pipe holds the answer alone."""
        console = _console(stderr=True)
        for line in lines:
            console.print(plain(line))

    def tell(self, shown: RenderableType) -> None:
        """The same for a table."""
        _console(stderr=True).print(shown)

    def warn(self, *lines: str) -> None:
        """Words that must not be overlooked."""
        console = _console(stderr=True)
        for line in lines:
            console.print(plain(f"!! {line}"), style="bold red")

    def confirm(self, question: str, yes: bool) -> None:
        """Ask, unless `yes`; Refused `confirm.declined` for anything but a yes."""
        if yes:
            return
        try:
            agreed = typer.confirm(question, err=True)
        except typer.Abort:
            typer.echo(err=True)  # the question's line is still open
            raise Refused(
                "confirm.missing", "nobody answered the question; nothing was done", hint="Or give --yes"
            ) from (None)
        if not agreed:
            raise Refused("confirm.declined", "you said no; nothing was done")

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """A spinner on stderr while something runs; silent where nobody watches."""
        from contextlib import nullcontext

        console = _console(stderr=True)
        return nullcontext() if self.as_json or not console.is_terminal else console.status(plain(text))


def fields(value: Mapping[str, Any]) -> RenderableType:
    """One row per field: its name, its value."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, item in value.items():
        table.add_row(Text(name.replace("_", " ")), Text(show(item)))
    return table


def grid(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> RenderableType:
    """A table with a header."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None if title is None else Text(plain(title)), box=SIMPLE_HEAD, title_justify="left")
    for name in columns:
        table.add_column(Text(plain(name)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(show(item)) for item in row))
    return table


def table_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """A table's rows as Python values; Refused `result.values` where one has none, as a date of the year 12000."""
    try:
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    except (ValueError, ArithmeticError) as error:
        raise Refused(
            "result.values",
            "a value of the table cannot be shown",
            found=type(error).__name__,
            hint="Write the result to a file",
        ) from None


def show(value: Any) -> str:
    """A value for a person."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "\n".join(f"{plain(str(key))}: {show(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return "\n".join(show(item) for item in value) or "–"
    return plain(str(to_plain(value)))


def plain(text: str) -> str:
    """Text as it may stand on a terminal: what others wrote must not move the cursor, hide or reverse anything."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def when(seconds: int) -> str:
    """Unix seconds as a date."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def with_ether(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a person: amounts in ether, where programs read `…_wei`."""
    from oracle.agreement.units import show_wei

    found = {}
    for name, item in value.items():
        if name.endswith("_wei"):
            found[name.removesuffix("_wei")] = show_wei(int(item))
        else:
            found[name] = item
    return found


def fee_fields(amount: int, token: str, name: str = "fee") -> dict[str, str]:
    """An amount for an answer: in wei, or in the smallest unit of a token, which is then named."""
    from enclave_app.protocol.fields import ZERO_ADDRESS

    if token == ZERO_ADDRESS:
        return {f"{name}_wei": str(amount)}
    return {f"{name}_units": str(amount), "token": token}


def to_json(value: Any) -> str:
    return json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False)


def to_plain(value: Any) -> Any:
    """As JSON has it: bytes as 0x…, dates as ISO 8601, enumerations by name, numbers that are none as text."""
    if isinstance(value, Enum):
        return value.name.lower()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value.isoformat() if isinstance(value, date | time) else str(value)


def report(error: OracleError, as_json: bool) -> None:
    """An expected failure: what happened, its stable code, and whether trying again may help."""
    hint = advice(str(error.code))
    message = error.message if hint is None else f"{error.message}. {hint}"
    if as_json:
        body = {"code": str(error.code), "message": message, "retry": isinstance(error, Retryable)}
        typer.echo(to_json({"error": body}))
        return
    from rich.text import Text

    console = _console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), plain(message)))
    again = "; trying again may help" if isinstance(error, Retryable) else ""
    console.print(Text(f"       {plain(str(error.code))}{again}", style="dim"))


def file_error(error: OSError) -> Refused:
    """A file that cannot be read or written, as a refusal that names it."""
    where = f"{Path(str(error.filename))} " if error.filename is not None else "a file or socket "
    return Refused("file.io", f"{where}cannot be used", found=error.strerror or type(error).__name__)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)
