"""`oracle enclave`: which programs and which running enclaves there are, and putting one on chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enclave_app.protocol.errors import Permanent, Refused
from oracle.cli.common import (
    ConfigFile,
    Json,
    make_client,
    read_config,
    run,
)
from oracle.cli.screen import Screen, fields, when

if TYPE_CHECKING:
    from oracle.chain.enclaves import RegisteredEnclave
    from oracle.worker.config import HostConfig
    from oracle.worker.register import Enrolled

app = typer.Typer(name="enclave", help="Enclaves: measure, register, list, watch, challenge.", no_args_is_help=True)

PATIENCE = 60.0
"""Seconds for collateral that has to be fetched first."""

HostConfigFile = Annotated[
    Path,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The worker's configuration, or a host's: what names the enclave."
    ),
]


@app.command("measure")
def measure(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The enclave's own configuration, which is measured.")
    ],
    as_json: Json = False,
) -> None:
    """Print the measurement of the enclave program on this machine: what agreements list."""
    Screen(as_json).answer({"measurement": run(_measure(config))})


@app.command("register")
def register(config: HostConfigFile, as_json: Json = False) -> None:
    """Register a running enclave on chain, or renew its registration, as its worker would."""
    from oracle.worker.config import read_host

    _show(read_host(config), as_json)


@app.command("vouch")
def vouch(
    config: HostConfigFile,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHERE", help="The verifier enclave's socket or URL. [default: `vouchedBy`]"),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FILE", help="A development root, with --by. [default: the makers']"),
    ] = None,
    crl: Annotated[
        Path | None, typer.Option("--crl", metavar="FILE", help="What AMD revoked (DER), with --by.")
    ] = None,
    endorsements: Annotated[
        Path | None,
        typer.Option(
            "--endorsements",
            metavar="DIR",
            help="ek.der, ask.der and ark.der, with --by, where the host hands its guest none.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Register a running SEV-SNP or Nitro enclave on the word of a verifier enclave, or renew its registration."""
    from oracle.worker.config import AttestationConfig, read_host
    from oracle.yamlfile import validate_yaml

    settings = read_host(config)
    files = {name: str(each) for name, each in (("root", root), ("crl", crl), ("endorsements", endorsements)) if each}
    if by is not None:
        vouched = validate_yaml(AttestationConfig, {"vouchedBy": by, **files})
        settings = settings.model_copy(update={"attestation": vouched})
    elif settings.attestation is None or settings.attestation.vouched_by is None:
        raise Refused("vouch.by", "neither --by nor `attestation.vouchedBy` says which verifier enclave to ask")
    elif files:
        raise Refused("vouch.by", "--root, --crl and --endorsements go with --by", hint="Set them under `attestation`")
    _show(settings, as_json)


def _show(settings: HostConfig, as_json: bool) -> None:
    from enclave_app.protocol.structs import TcbStatus

    screen = Screen(as_json)
    with screen.busy("waiting for the enclave and the chain"):
        enrolled = run(_register(settings))
    if enrolled.identity.simulated:
        screen.warn("SIMULATED enclave: its root of trust is a development root. It protects nothing from its host.")
    identity, standing = enrolled.record.identity, enrolled.record.standing
    value = {
        "signer": enrolled.signer,
        "anchor": enrolled.anchor,
        "measurement": identity.measurement,
        "operator": identity.operator,
        "platform": identity.platform,
        "tcb_status": TcbStatus(standing.tcb_status),
        "evaluation": standing.evaluation,
        "simulated": enrolled.identity.simulated,
        "valid_until": standing.valid_until,
    }
    if any(identity.verifier):
        value["verifier"] = identity.verifier
    screen.answer(value, fields({**value, "valid_until": when(standing.valid_until)}))


@app.command("list")
def list_enclaves(
    every: Annotated[bool, typer.Option("--all", "-a", help="Those that are retired or expired, too.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """List the enclaves that the registry knows."""
    settings = read_config(config)

    async def read() -> tuple[RegisteredEnclave, ...]:
        async with make_client(settings) as client:
            return await client.enclaves()

    found = [enclave for enclave in run(read()) if every or enclave.valid]
    shown = [item for enclave in found for item in (fields(_readable(enclave)), "")]
    none = "No enclave is registered." if every else "No enclave is registered and valid."
    Screen(as_json).answer({"enclaves": [entry(enclave) for enclave in found]}, *(shown or [none]))


async def _measure(config: Path) -> bytes:
    """The digest, computed by the enclave program about itself: this side imports nothing of it."""
    import asyncio
    import sys

    from enclave_app.protocol.digests import parse_digest

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "enclave_app.measure",
        "--config",
        str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode != 0:
        last = (err.decode("utf-8", "replace").strip().splitlines() or ["no output"])[-1]
        raise Permanent("enclave.measure", "the enclave program cannot be measured", found=last[:500])
    return parse_digest(out.decode("ascii", "replace").strip())


async def _register(settings: HostConfig) -> Enrolled:
    from oracle.chain.deploy import Deployment
    from oracle.chain.sender import Sender
    from oracle.chain.source import SingleSource
    from oracle.worker.collateral import fetching, open_appraisal
    from oracle.worker.enclave import Enclave
    from oracle.worker.endpoints import open_endpoints
    from oracle.worker.keys import account, signing_key
    from oracle.worker.register import register_enclave
    from oracle.worker.registrars import make_registrar
    from oracle.worker.vouching import open_vouching

    deployment = Deployment.read(settings.deployment)
    operator = None if settings.operator is None else signing_key(settings.operator)
    rpc = open_endpoints(settings, deployment)
    try:
        async with (
            Enclave(settings.enclave.socket) as enclave,
            open_vouching(settings.attestation, deployment.chain_id) as vouching,
        ):
            sender, source = Sender(rpc, account(settings.wallet)), SingleSource(rpc)
            appraisal = open_appraisal(settings.attestation, deployment.chain_id)
            registrar = make_registrar(appraisal, deployment, sender, source, vouching)
            if registrar is None:
                raise Refused(
                    "register.attestation",
                    "the configuration has nothing to show the contract what the evidence rests on",
                    hint="Set `attestation`",
                )
            if appraisal is None:
                return await register_enclave(enclave, sender, source, deployment, registrar, operator)
            async with fetching(appraisal, PATIENCE) as fetched:
                return await fetched(lambda: register_enclave(enclave, sender, source, deployment, registrar, operator))
    finally:
        await rpc.close()


def entry(enclave: RegisteredEnclave) -> dict[str, Any]:
    from enclave_app.protocol.structs import TcbStatus, Tee

    identity, standing = enclave.record.identity, enclave.record.standing
    earlier = standing.earlier_status
    return {
        "signer": enclave.signer,
        "anchor": enclave.anchor,
        "maker": _maker(enclave.anchor),
        "verifier": identity.verifier if any(identity.verifier) else None,
        "measurement": identity.measurement,
        "tee": Tee(identity.tee),
        "tcb_status": TcbStatus(standing.tcb_status),
        "evaluation": standing.evaluation,
        "earlier_tcb_status": TcbStatus(earlier) if earlier else None,
        "earlier_evaluation": standing.earlier_evaluation if earlier else None,
        "changed_at": standing.changed_at if earlier else None,
        "operator": identity.operator,
        "platform": identity.platform,
        "state": _state(enclave),
        "evidence_at": standing.evidence_at,
        "valid_until": standing.valid_until,
    }


def _readable(enclave: RegisteredEnclave) -> dict[str, Any]:
    """The same for a person: whose root it is, and dates."""
    value = entry(enclave)
    maker, verifier = value.pop("maker"), value["verifier"]
    whose = maker or ("DEVELOPMENT or private" if verifier is None else "vouched for by an attested verifier")
    anchor = f"0x{enclave.anchor.hex()} ({whose})"
    dates = {
        name: when(value[name]) for name in ("changed_at", "evidence_at", "valid_until") if value[name] is not None
    }
    known = {name: each for name, each in value.items() if each is not None}
    return {**known, "anchor": anchor, **dates}


def _state(enclave: RegisteredEnclave) -> str:
    from enclave_app.protocol.structs import TcbStatus

    standing = enclave.record.standing
    if standing.retired:
        return "retired"
    if standing.tcb_status == TcbStatus.REVOKED:
        return "revoked"
    return "valid" if enclave.valid else "expired"


def _maker(anchor: bytes) -> str | None:
    from oracle.agreement.anchors import maker_of

    return maker_of(anchor)
