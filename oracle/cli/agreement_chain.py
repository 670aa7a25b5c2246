"""`oracle agreement`, on chain: activate, narrow (R8), revoke, status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.agreement import app
from oracle.cli.common import (
    ConfigFile,
    Json,
    Keystore,
    PasswordFile,
    Yes,
    make_client,
    open_wallet,
    parse_address,
    read_config,
    run,
)
from oracle.cli.consent import (
    DocumentFile,
    FunctionFile,
    Manifests,
    ask_consent,
    called,
    explain_with,
    find_id,
    known_names,
    summary,
)
from oracle.cli.screen import Screen, fee_fields, fields, when, with_ether

if TYPE_CHECKING:
    from oracle.agreement.document import AgreementDocument
    from oracle.chain.events import AgreementNarrowed
    from oracle.chain.sender import Receipt
    from oracle.client import Client
    from oracle.config import ClientConfig

AgreementRef = Annotated[str, typer.Argument(metavar="FILE|ID", help="The agreement's file, or its id.")]


@app.command("activate")
def activate(
    file: DocumentFile,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Bring an agreement into force, once every party signed it. Anyone may send this, and pays its gas."""
    from oracle.agreement.document import read_document

    document = read_document(file)
    settings = read_config(config)
    _same_chain(document, settings.deployment.chain_id, settings.deployment.agreement_registry)
    wallet = open_wallet(settings, keystore, password_file)

    async def send() -> tuple[bytes, Receipt]:
        async with make_client(settings, wallet=wallet) as client:
            posted = {} if not document.missing() else await client.posted(document.id)
            given = [
                signature or posted.get(party, b"")
                for party, signature in zip(document.agreement.parties(), document.ordered_signatures(), strict=True)
            ]
            return await client.activate(document.agreement, given, document.auditors)

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        _, receipt = run(send())
    screen.answer({**summary(document), "status": "active", **receipt_fields(receipt)})


@app.command("post")
def post(
    file: DocumentFile,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Keep the file's signatures on chain, one by one, for whoever activates it. Anyone may send this, and pays its gas."""
    from oracle.agreement.document import read_document

    document, settings = read_document(file), read_config(config)
    _same_chain(document, settings.deployment.chain_id, settings.deployment.agreement_registry)
    signatures = {**document.signatures, **document.contract_signatures}
    if not signatures:
        raise Refused("agreement.unsigned", "the file has no signature yet", hint="`oracle agreement sign` adds yours")
    wallet = open_wallet(settings, keystore, password_file)

    async def send() -> list[Receipt]:
        async with make_client(settings, wallet=wallet) as client:
            return [await client.post(document.id, party, signature) for party, signature in signatures.items()]

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        receipts = run(send())
    value = {**summary(document), "posted": list(signatures), "transactions": [r.transaction_hash for r in receipts]}
    screen.answer(value)


@app.command("approve")
def approve(
    file: DocumentFile,
    function: FunctionFile = None,
    manifest: Manifests = None,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Consent by a transaction, for an account that cannot sign off chain; after saying what that allows."""
    from oracle.agreement.document import read_document
    from oracle.agreement.sign import check_signable

    screen, document = Screen(as_json), read_document(file)
    check_signable(document)
    read_config(config)  # where it is missing, say so before the question
    lines = explain_with(document, function, manifest, config, known_names(keystore, config))
    ask_consent(screen, document, lines, "Consent to it on chain?", yes)
    _transact(str(file), lambda client: client.approve(document.id), keystore, config, password_file, as_json)


@app.command("suspend")
def suspend(
    agreement: AgreementRef,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Stop new requests and key releases, until you resume."""
    agreement_id = find_id(agreement)
    _transact(agreement, lambda client: client.suspend(agreement_id), keystore, config, password_file, as_json)


@app.command("resume")
def resume(
    agreement: AgreementRef,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Take your own suspension back."""
    agreement_id = find_id(agreement)
    _transact(agreement, lambda client: client.resume(agreement_id), keystore, config, password_file, as_json)


@app.command("revoke")
def revoke(
    agreement: AgreementRef,
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """End an agreement for ever; a draft can be revoked before it is active."""
    agreement_id = find_id(agreement)
    Screen(as_json).confirm("Revoke it for ever? Nobody can undo this.", yes)
    _transact(agreement, lambda client: client.revoke(agreement_id), keystore, config, password_file, as_json)


@app.command("drop-measurement")
def drop_measurement(
    agreement: AgreementRef,
    measurement: Annotated[str, typer.Argument(help="The enclave program's measurement, 32 bytes in hex.")],
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """No longer accept an enclave program. This cannot be undone."""
    from enclave_app.protocol.digests import parse_digest

    agreement_id, dropped = find_id(agreement), parse_digest(measurement)
    Screen(as_json).confirm("Drop this program for ever?", yes)
    _transact(
        agreement,
        lambda client: client.drop_measurement(agreement_id, dropped),
        keystore,
        config,
        password_file,
        as_json,
    )


@app.command("drop-host")
def drop_host(
    agreement: AgreementRef,
    host: Annotated[str, typer.Argument(help="An operator's address, or a platform id of 32 bytes in hex.")],
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """No longer accept a host. This cannot be undone."""
    from enclave_app.protocol.digests import parse_digest
    from oracle.chain.reader import host_id

    agreement_id = find_id(agreement)
    dropped = host_id(parse_address(host)) if len(host) == 42 else parse_digest(host)
    Screen(as_json).confirm("Drop this host for ever?", yes)
    _transact(
        agreement, lambda client: client.drop_host(agreement_id, dropped), keystore, config, password_file, as_json
    )


@app.command("status")
def status(agreement: AgreementRef, config: ConfigFile = None, as_json: Json = False) -> None:
    """Show an agreement as it stands on chain."""
    settings = read_config(config)
    agreement_id = _find_here(agreement, settings)

    async def read() -> dict[str, Any]:
        async with make_client(settings) as client:
            return await _status(client, agreement_id)

    value, names = run(read()), known_names(None, config)
    shown = {name: when(item) if name.startswith("not_") and item else item for name, item in value.items()}
    shown["narrowed"] = [
        f"{item['how']} {item['what'] or ''}".rstrip()
        + (f" by {called(item['party'], names)}" if item["party"] else "")
        for item in value["narrowed"]
    ]
    Screen(as_json).answer(value, fields(with_ether(shown)))


def receipt_fields(receipt: Receipt) -> dict[str, Any]:
    return {"transaction": receipt.transaction_hash, "block": receipt.block_number, "gas": receipt.gas_used}


async def _status(client: Client, agreement_id: bytes) -> dict[str, Any]:
    record = await client.agreement_status(agreement_id)
    return {
        "agreement_id": agreement_id,
        "status": record.status.name.lower(),
        "not_before": record.not_before,
        "not_after": record.not_after,
        "quota": record.quota,
        "used": record.used,
        "quota_per_requester": record.quota_per_requester,
        **fee_fields(record.fee, record.token),
        "release_delay": record.release_delay,
        "narrowed": [
            {"how": _HOW[event.how], "what": _dropped(event), "party": event.party}
            for event in await client.narrowings(agreement_id)
        ],
    }


_HOW = {
    "AgreementSuspended": "suspended",
    "AgreementResumed": "resumed",
    "AgreementRevoked": "revoked",
    "AgreementSuperseded": "superseded by",
    "MeasurementDropped": "dropped measurement",
    "HostDropped": "dropped host",
}


def _dropped(event: AgreementNarrowed) -> str | None:
    """A measurement, a platform id, or an operator's address, which the registry keeps as a word."""
    from eth_utils.address import to_checksum_address

    if event.what is None:
        return None
    if event.how == "HostDropped" and not any(event.what[:12]):
        return str(to_checksum_address(event.what[12:]))
    return "0x" + event.what.hex()


def _transact(
    agreement: str,
    act: Callable[[Client], Awaitable[Receipt]],
    keystore: Path | None,
    config: Path | None,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Send one transaction about an agreement, and answer with the status after it."""
    settings = read_config(config)
    agreement_id = _find_here(agreement, settings)
    wallet = open_wallet(settings, keystore, password_file)

    async def send() -> dict[str, Any]:
        async with make_client(settings, wallet=wallet) as client:
            receipt = await act(client)
            after = await client.agreement_status(agreement_id)
            return {"agreement_id": agreement_id, "status": after.status.name.lower(), **receipt_fields(receipt)}

    screen = Screen(as_json)
    with screen.busy("waiting for the chain"):
        value = run(send())
    screen.answer(value)


def _find_here(agreement: str, settings: ClientConfig) -> bytes:
    """An agreement's id. One in a file has to be of the configured registry: another one would take a revocation, too, and
    the agreement would go on where it lives."""
    from oracle.agreement.document import read_document

    path = Path(agreement)
    if not path.exists():
        return find_id(agreement)
    document = read_document(path)
    _same_chain(document, settings.deployment.chain_id, settings.deployment.agreement_registry)
    return document.id


def _same_chain(document: AgreementDocument, chain_id: int, registry: str) -> None:
    found = (document.chain.chain_id, document.chain.agreement_registry)
    if found != (chain_id, registry):
        raise Refused(
            "agreement.chain",
            "the agreement is for another chain or registry than is configured",
            found=found,
            expected=(chain_id, registry),
        )
