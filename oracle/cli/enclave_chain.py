"""`oracle enclave status` and `challenge`: how registrations stand on chain, and lowering one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Refused, Retryable
from oracle.cli.common import (
    ConfigFile,
    Json,
    Keystore,
    PasswordFile,
    make_client,
    open_wallet,
    parse_address,
    read_config,
    run,
)
from oracle.cli.enclave import app, entry
from oracle.cli.screen import Screen, fields, when

if TYPE_CHECKING:
    from enclave_app.protocol.signing import SigningKey
    from oracle.chain.enclaves import RegisteredEnclave
    from oracle.config import ClientConfig

DAY = 86_400


@app.command("status")
def status(
    operator: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Only those that this operator hosts.")
    ] = None,
    signer: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Only the one with this signing address.")
    ] = None,
    grace_days: Annotated[
        int, typer.Option("--grace-days", min=0, help="The grace of the agreements that you serve.")
    ] = 0,
    warn_days: Annotated[
        float, typer.Option("--warn-days", min=0, help="Exit with 1 where one counts for fewer days than this.")
    ] = 0,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Say how long registrations count, what they rest on, and what of it ends first.

    Looks at those that are not retired and not replaced by another boot of the same machine. Exits 1 where there is none.
    """
    settings = read_config(config)
    wanted = {name: parse_address(text) for name, text in (("operator", operator), ("signer", signer)) if text}
    with Screen(as_json).busy("reading the chain"):
        found = run(_statuses(settings, wanted, grace_days))
    screen = Screen(as_json)
    ending = [each for each in found if each["state"] != "valid" or each["days_left"] < warn_days]
    ok = bool(found) and not (ending and warn_days)
    shown = [item for each in found for item in (fields(_told(each)), "")]
    screen.answer({"enclaves": found, "ok": ok}, *(shown or ["No such enclave is registered."]))
    if warn_days:
        for each in ending:
            what = f"counts for {each['days_left']} more days" if each["state"] == "valid" else f"is {each['state']}"
            screen.warn(f"{each['signer']} {what}.")
        if not found:
            screen.warn("No such enclave is registered.")
    if not ok:
        raise typer.Exit(1)


@app.command("challenge")
def challenge(
    signer: Annotated[str, typer.Argument(metavar="SIGNER", help="The enclave's signing address.")],
    collateral: Annotated[Path, typer.Option("--collateral", metavar="FILE", help="Newer collateral of its platform.")],
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Lower a registration under newer collateral. Anyone may, and nobody can raise one so.

    What the collateral store lacks is posted first. Refused where the enclave stands no lower under it.
    """
    settings, screen = read_config(config), Screen(as_json)
    wallet, address = open_wallet(settings, keystore, password_file), parse_address(signer)
    with screen.busy("waiting for the chain"):
        value = run(_challenge(settings, wallet, address, collateral))
    screen.answer(value)


async def _statuses(settings: ClientConfig, wanted: dict[str, str], grace_days: int) -> list[dict[str, Any]]:
    from oracle.chain.enclaves import registered_enclaves
    from oracle.chain.registrations import shown_evidence

    async with make_client(settings) as client:
        head = await client.head()
        known = await registered_enclaves(client.source, settings.deployment, head, wanted.get("signer"))
        operator = wanted.get("operator")
        chosen = [each for each in known if operator is None or each.record.identity.operator == operator]
        found = []
        for enclave in _latest(chosen):
            value, standing = entry(enclave), enclave.record.standing
            value["days_left"] = _days(standing.valid_until - head.timestamp)
            shown = await shown_evidence(client.source, settings.deployment, enclave, head)
            value["rests_on"] = (
                []
                if shown is None
                else [
                    {"name": name, "ends": end, "days_left": _days(end - head.timestamp)}
                    for name, end in shown.ends.items()
                ]
            )
            grace = standing.changed_at + grace_days * DAY - head.timestamp
            value["grace_days_left"] = max(0.0, _days(grace)) if standing.earlier_status else None
            found.append(value)
    return found


def _latest(enclaves: Sequence[RegisteredEnclave]) -> list[RegisteredEnclave]:
    """Without the retired, and of a machine and operator that several boots are registered for, the last."""
    last = {
        (each.anchor, each.record.identity.platform, each.record.identity.operator): each
        for each in sorted(enclaves, key=lambda each: each.record.standing.evidence_at)
        if not each.record.standing.retired
    }
    return list(last.values())


def _told(value: dict[str, Any]) -> dict[str, Any]:
    """The same for a person."""
    dates = ("changed_at", "evidence_at", "valid_until")
    told = {name: when(each) if name in dates and each is not None else each for name, each in value.items()}
    told["rests_on"] = {each["name"]: f"{when(each['ends'])}, {each['days_left']} days" for each in value["rests_on"]}
    return {name: each for name, each in told.items() if each not in (None, {})}


def _days(seconds: int) -> float:
    return round(seconds / DAY, 1)


async def _challenge(settings: ClientConfig, wallet: SigningKey, signer: str, place: Path) -> dict[str, Any]:
    from oracle.attestation import Collateral
    from oracle.attestation.collateral import MAX_COLLATERAL_BYTES
    from oracle.attestation.onchain.collateral import posts
    from oracle.attestation.onchain.evidence import dcap_challenge
    from oracle.chain.abi import load
    from oracle.chain.collateral import NAMES, post_missing, store_of
    from oracle.chain.enclaves import registered_enclaves
    from oracle.chain.reader import EnclaveReader
    from oracle.chain.registrations import shown_evidence
    from oracle.files import read_file

    collateral = Collateral.from_json(read_file(place, MAX_COLLATERAL_BYTES))
    deployment = settings.deployment
    async with make_client(settings, wallet=wallet) as client:
        head = await client.head()
        known = await registered_enclaves(client.source, deployment, head, signer)
        valid = [each for each in known if not each.record.standing.retired]
        if not valid:
            raise Refused("challenge.unknown", "no such enclave is registered", found=signer)
        enclave = valid[-1]
        shown = await shown_evidence(client.source, deployment, enclave, head)
        if shown is None:
            raise Refused("challenge.evidence", "its registration was not shown DCAP evidence that can be read back")
        store = store_of(deployment)
        posted = await post_missing(client.sender, client.source, store, posts(collateral), enclave.anchor)
        proof = dcap_challenge(shown.versions, collateral)
        call = load("EnclaveRegistry").call(
            "challenge", enclave.anchor, signer, enclave.record.identity, deployment.verifiers["dcap"], proof
        )
        receipt = await client.sender.transact(deployment.enclave_registry, call)
        if not receipt.ok:
            raise Retryable("challenge.reverted", "the challenge was mined and refused; the chain moved meanwhile")
        reader = EnclaveReader(client.source, deployment.enclave_registry)
        now = await reader.record(enclave.anchor, signer, await client.head())
    from enclave_app.protocol.structs import TcbStatus

    before = enclave.record.standing
    return {
        "signer": signer,
        "posted": [NAMES[each.function] for each in posted],
        "tcb_status_was": TcbStatus(before.tcb_status),
        "evaluation_was": before.evaluation,
        "tcb_status": None if now is None else TcbStatus(now.standing.tcb_status),
        "evaluation": None if now is None else now.standing.evaluation,
        "gas": receipt.gas_used,
    }
