"""`oracle task`, what sends nothing: the tasks of an agreement, and what a contract passes to ask for one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from oracle.cli.common import ConfigFile, Json, make_client, parse_address, parse_pairs, read_config, run, typed_params
from oracle.cli.screen import Screen, fee_fields, fields
from oracle.cli.task import ResultKey, app


@app.command("list")
def list_tasks(
    agreement: Annotated[str, typer.Argument(metavar="AGREEMENT", help="Its id, or its file.")],
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """List every task that was requested under an agreement: who asked what, and how it stands."""
    import asyncio

    from oracle.cli.consent import called, find_id, known_names

    settings, agreement_id = read_config(config), find_id(agreement)

    async def read() -> list[dict[str, Any]]:
        async with make_client(settings) as client:
            found = await client.tasks(agreement_id)
            states = await asyncio.gather(*(task.state() for task in found))
            return [
                {
                    "task_id": task.id,
                    "requester": task.request.requester,
                    # A stranger's bytes: only a task whose parameters are valid is ever computed.
                    "params": task.request.params.decode("utf-8", "replace"),
                    "state": state.state,
                    "request": task.request.model_dump(mode="json", by_alias=True),
                }
                for task, state in zip(found, states, strict=True)
            ]

    tasks, names = run(read()), known_names(None, config)
    # An id on a line of its own, so that it can be copied whole.
    shown = [
        fields(
            {
                "task": t["task_id"],
                "asked by": called(t["requester"], names),
                "params": t["params"],
                "state": t["state"],
            }
        )
        for t in tasks
    ]
    screen = Screen(as_json)
    screen.answer({"agreement_id": agreement_id, "tasks": tasks}, *(shown or ["No task was requested under it."]))


@app.command("arguments")
def arguments(
    agreement: Annotated[str, typer.Argument(metavar="AGREEMENT", help="Its id, or its file.")],
    requester: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The contract's address, for its proof. [default: none, for no proof]"),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter, visible to everyone.")
    ] = None,
    result_key: ResultKey = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Print what a contract passes to ComputeOracle.request, as bytes, checked against the agreement."""
    from enclave_app.protocol.canonical import dump
    from enclave_app.protocol.onchain import admission
    from oracle.agreement.document import read_document
    from oracle.agreement.requesters import admission_of
    from oracle.cli.consent import find_id
    from oracle.keys import read_public_key

    settings, agreement_id = read_config(config), find_id(agreement)
    address = None if requester is None else parse_address(requester)
    requesters = read_document(Path(agreement)).requesters if Path(agreement).exists() else {}
    opener = result_key or settings.result_key

    async def read() -> dict[str, Any]:
        async with make_client(settings) as client:
            terms = (await client.agreement(agreement_id)).agreement
            domain = await client.parameters(terms)
            params = dump(typed_params(parse_pairs(param or (), "--param"), domain))
            domain.read(params)
            return {
                "oracle": terms.oracle,
                "agreement_id": agreement_id,
                "versions": [data.id_or_stream for data in terms.data],
                "params": params,
                "result_key": None if opener is None else read_public_key(opener).digest,
                **fee_fields(terms.price.fee, terms.price.token),
                "admission": (
                    admission(terms) if address is None else admission_of(terms, requesters, address)
                ).model_dump(mode="json", by_alias=True),
            }

    value = run(read())
    Screen(as_json).answer(value, fields(value))  # in wei, as the contract takes it
