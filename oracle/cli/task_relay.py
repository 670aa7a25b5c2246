"""`oracle task`, without gas: a request signed by its requester, which anybody brings to the chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    parse_address,
    parse_pairs,
    read_config,
    run,
    typed_params,
)
from oracle.cli.screen import Screen, fee_fields, fields, when, with_ether
from oracle.cli.task import ResultKey, app


@app.command("sign-request")
def sign_request(
    agreement: Annotated[str, typer.Argument(metavar="AGREEMENT", help="Its id, or its file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The signed request, for whoever relays it.")
    ],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter, visible to everyone.")
    ] = None,
    seconds: Annotated[
        int, typer.Option(min=1, max=30 * 86400, help="How long it may take; after that the fee can be had back.")
    ] = 3600,
    contract: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="A contract wallet that asks, and signs by itself. [default: your wallet]"
        ),
    ] = None,
    keystore: Keystore = None,
    result_key: ResultKey = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Sign a request for somebody else to send: it costs you no gas. Whoever relays it has an hour."""
    from oracle.agreement.document import read_document
    from oracle.asking import SignedRequest
    from oracle.cli.consent import find_id

    settings, agreement_id = read_config(config), find_id(agreement)
    given = parse_pairs(param or (), "--param")
    requesters = read_document(Path(agreement)).requesters if Path(agreement).exists() else {}
    asks = None if contract is None else parse_address(contract)
    wallet = None if asks is not None else open_wallet(settings, keystore, password_file)
    opener = open_result_key(settings, result_key, password_file)

    async def sign() -> tuple[SignedRequest, bytes, dict[str, str]]:
        async with make_client(settings, wallet=wallet, result_key=opener) as client:
            terms = (await client.agreement(agreement_id)).agreement
            values = typed_params(given, await client.parameters(terms))
            document = await client.sign_request(
                agreement_id, values, seconds=seconds, requesters=requesters, contract=asks
            )
            task_id = document.request.typed_digest(client.chain.oracle_domain(terms))
            return document, task_id, fee_fields(terms.price.fee, terms.price.token)

    document, task_id, fee = run(sign())
    try:
        with out.open("xb") as target:
            target.write(document.canonical() + b"\n")
    except FileExistsError:
        raise Refused("file.exists", f"{out} is there already") from None
    value = {
        "task_id": task_id,
        "requester": document.request.requester,
        **fee,
        "paid": _paid(document.payment.kind, "token" in fee),
        "deadline": document.request.deadline,
        "file": str(out),
    }
    screen = Screen(as_json)
    screen.answer(value, fields(with_ether({**value, "deadline": when(document.request.deadline)})))
    if asks is not None:
        screen.say("", f"It is not signed yet: {asks} signs 0x{task_id.hex()}, which goes to `oracle task relay`.")


@app.command("relay")
def relay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `oracle task sign-request` wrote.")],
    signature: Annotated[
        str | None, typer.Option(metavar="HEX", help="The signature of a contract wallet, where the file has none.")
    ] = None,
    pay_fee: Annotated[
        bool,
        typer.Option(
            "--pay-fee", help="Pay the fee, too, where it is in the chain's own coin. None comes back to you."
        ),
    ] = False,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Send a request that somebody else signed, and pay its gas."""
    from oracle.asking import read_signed_request
    from oracle.cli.agreement_chain import receipt_fields

    settings, document = read_config(config), read_signed_request(file)
    if signature is not None:
        document = document.model_copy(update={"signature": _bytes(signature)})
    wallet = open_wallet(settings, keystore, password_file)

    async def send() -> dict[str, Any]:
        async with make_client(settings, wallet=wallet) as client:
            task = await client.relay(document, pay_fee=pay_fee)
            price = task.agreement.price
            return {
                "task_id": task.id,
                "agreement_id": task.request.agreement_id,
                "requester": task.request.requester,
                **fee_fields(price.fee, price.token),
                "paid": task.paid,
                **(receipt_fields(task.receipt) if task.receipt is not None else {}),
                "state": (await task.state()).state,
            }

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        value = run(send())
    screen.answer(value, fields(with_ether(value)))


def _paid(kind: int, in_token: bool) -> str:
    from enclave_app.protocol.structs import PaymentKind

    return PaymentKind(kind).name.lower() if in_token else "by whoever relays it"


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise Refused("signature.hex", "a signature is not hexadecimal", found=repr(text[:60])) from None
