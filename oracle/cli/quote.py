"""`oracle quote`: what a task will cost, before anyone signs or sends anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oracle.cli.common import (
    ConfigFile,
    Json,
    Keystore,
    make_client,
    parse_address,
    parse_pairs,
    read_config,
    run,
    typed_params,
)
from oracle.cli.screen import Screen, fields

if TYPE_CHECKING:
    from oracle.quote import Quote


def quote(
    agreement: Annotated[
        str, typer.Argument(metavar="AGREEMENT", help="Its file, signed or not; or the id of an active one.")
    ],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter, as for the request.")
    ] = None,
    requester: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Who would ask. [default: the configuration's wallet]")
    ] = None,
    keystore: Keystore = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Say what a task costs: the fee, what of it is kept if nothing comes of it, and the gas at the chain's present price.

    Nothing is signed or sent, and no password is asked for.
    """
    from oracle.agreement.document import read_document
    from oracle.cli.consent import find_id
    from oracle.keys import read_wallet
    from oracle.quote import quote as make_quote

    settings = read_config(config)
    document = read_document(Path(agreement)) if Path(agreement).exists() else None
    path = keystore or settings.keystore
    asks = parse_address(requester) if requester is not None else None if path is None else read_wallet(path).address
    given = parse_pairs(param or (), "--param")

    async def ask() -> Quote:
        async with make_client(settings) as client:
            under = find_id(agreement) if document is None else document
            terms = (await client.agreement(under)).agreement if isinstance(under, bytes) else under.agreement
            values: dict[str, Any] = {}
            if given:
                values = typed_params(given, await client.parameters(terms))
            listed = document.requesters if document is not None else None
            return await make_quote(client, under, values, requester=asks, requesters=listed)

    found = run(ask())
    screen = Screen(as_json)
    screen.answer(_value(found, document.id if document is not None else find_id(agreement)), fields(_shown(found)))
    if not found.estimated:
        screen.say("", f"The gas is what such requests took when it was measured: {found.because}.")


def _value(found: Quote, agreement_id: bytes) -> dict[str, Any]:
    price = found.agreement.price
    return {
        "agreement_id": agreement_id,
        "status": found.status,
        "token": price.token,
        "symbol": found.facts.symbol if found.facts else None,
        "decimals": found.facts.decimals if found.facts else None,
        "fee": str(price.fee),
        "failed_fee": str(price.failed_fee),
        "kept_on_expiry": str(price.min_fee),
        "gas": found.gas,
        "gas_estimated": found.estimated,
        "because": found.because or None,
        "transactions": found.transactions,
        "base_fee_wei": str(found.base_fee),
        "priority_fee_wei": str(found.tip),
        "gas_wei": str(found.gas_wei),
        "total_wei": str(found.total_wei),
    }


def _shown(found: Quote) -> dict[str, Any]:
    from enclave_app.protocol.fields import ZERO_ADDRESS
    from oracle.agreement.units import show_wei

    price = found.agreement.price
    show = show_wei if found.facts is None else found.facts.show
    shown: dict[str, Any] = {"status": found.status}
    if price.token != ZERO_ADDRESS:
        shown["token"] = f"{price.token}, which calls itself {found.facts.symbol if found.facts else None}"
    return {
        **shown,
        "fee": show(price.fee),
        "if the function fails": show(price.failed_fee),
        "if nobody answers": f"{show(price.min_fee)} is kept",
        "gas": f"{found.gas} ({'estimated by the node' if found.estimated else 'measured'})",
        "transactions": found.transactions,
        "gas price": f"{found.gas_price} wei, {found.base_fee} of it the base fee",
        "gas costs": show_wei(found.gas_wei),
        "in all": show_wei(found.total_wei) + ("" if found.facts is None else f", and {show(price.fee)}"),
    }
