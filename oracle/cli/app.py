"""The root command: its groups, and the one place where failures become exit codes.

0 done; 1 refused or failed; 2 the command line itself is wrong. An expected failure never shows a traceback.
"""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from enclave_app.protocol.errors import Bug, OracleError, Refused
from oracle.cli import (
    agreement,
    agreement_chain,
    collateral,
    contracts,
    dataset,
    devnet,
    doctor,
    enclave,
    enclave_chain,
    evidence,
    function,
    function_audit,
    keybroker,
    keys,
    quote,
    receipt,
    task,
    task_facts,
    task_relay,
    worker,
)
from oracle.cli.screen import file_error, report

ORDER = (
    "doctor",
    "devnet",
    "keys",
    "dataset",
    "function",
    "agreement",
    "task",
    "receipt",
    "quote",
    "withdraw",
    "enclave",
    "evidence",
    "collateral",
    "keybroker",
    "worker",
    "contracts",
)
"""As a newcomer meets them."""


class Root(TyperGroup):
    """Turns what a command raises into words and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        given = [*ctx._protected_args, *ctx.args]
        as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
        try:
            return super().invoke(ctx)
        except Bug:
            raise
        except OracleError as error:
            report(error, as_json)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            report(file_error(error), as_json)
        except typer.TyperException as error:
            if not as_json:
                raise
            report(Refused("usage", error.format_message()), as_json)
            raise typer.Exit(error.exit_code) from None
        raise typer.Exit(1)


app = typer.Typer(
    name="oracle",
    cls=Root,
    help="Private computations under signed agreements, in attested enclaves, with results that a chain accepts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's help costs 0.2 s a call
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_MORE = (
    agreement_chain,
    enclave_chain,
    function_audit,
    task_facts,
    task_relay,
)  # add their commands to a group of another module
for group in (
    devnet, keys, dataset, function, agreement, task, receipt, enclave, evidence, collateral, keybroker, worker,
    contracts,
):  # fmt: skip
    app.add_typer(group.app)
app.command("quote")(quote.quote)
app.command("withdraw")(task.withdraw)
app.command("doctor")(doctor.doctor)
