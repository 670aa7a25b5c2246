"""`oracle collateral`: what Intel publishes about a platform: fetch it, see when it ends and what is coming."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from enclave_app.protocol.errors import Refused
from oracle.cli.common import ConfigFile, Json, Keystore, PasswordFile, make_client, open_wallet, read_config, run
from oracle.cli.screen import Screen, fields, grid, when

if TYPE_CHECKING:
    from oracle.attestation import Collateral, ParsedQuote
    from oracle.collateral import Feed, PcsConfig, Platform
    from oracle.collateral.outlook import Standing

app = typer.Typer(name="collateral", help="Collateral: what Intel signs about platforms.", no_args_is_help=True)
DAY = 86_400

Evidence = Annotated[
    Path | None,
    typer.Option("--evidence", metavar="FILE", help="A quote of the platform, which says all of the next three."),
]
TeeName = Annotated[Literal["sgx", "tdx"], typer.Option("--tee", help="The kind of TEE.")]
Fmspc = Annotated[str | None, typer.Option("--fmspc", metavar="HEX", help="The platform's kind: six bytes.")]
CaName = Annotated[
    Literal["platform", "processor"], typer.Option("--ca", help="Which of Intel's CAs certified the platform.")
]
Url = Annotated[str, typer.Option("--url", help="Intel's service (PCS, version 4) or a PCCS.")]
RootCrl = Annotated[
    str | None,
    typer.Option(
        "--root-crl", metavar="URL", help="Where the root's revocation list is. [default: Intel's, or the PCCS's]"
    ),
]
TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="PEM: whom to trust for a PCCS's own certificate.")
]
Root = Annotated[
    Path | None, typer.Option("--root", metavar="FILE", help="A development root, DER. [default: Intel's]")
]
INTEL = "https://api.trustedservices.intel.com"


@app.command("fetch")
def fetch(
    evidence: Evidence = None,
    tee: TeeName = "sgx",
    fmspc: Fmspc = None,
    ca: CaName = "platform",
    url: Url = INTEL,
    offline: Annotated[
        Path | None, typer.Option("--offline", metavar="FILE", help="Take it from a file, and ask no service.")
    ] = None,
    update: Annotated[
        Literal["standard", "early"], typer.Option(help="Intel's standard evaluation, or the one that is coming.")
    ] = "standard",
    evaluation: Annotated[int | None, typer.Option(help="The evaluation of this number instead.", min=1)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there.")] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Keep it in a folder, as brokers and workers read it.")
    ] = None,
    root: Root = None,
    root_crl: RootCrl = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Fetch collateral of one platform, check it to the root, and write it as QuoteCollateralV3 JSON.

    A folder's newer pieces stay: no service rolls them back.
    """
    import time

    from oracle.collateral.cache import Cache, write_whole
    from oracle.collateral.check import check_collateral
    from oracle.collateral.source import keep

    if (out is None) == (cache is None):
        raise typer.BadParameter("give --out or --cache, one of the two", param_hint="--out")
    screen, now = Screen(as_json), int(time.time())
    platform, der = _platform(_quote(evidence, tee), tee, fmspc, ca), _root(root)
    feed: Feed = update if evaluation is None else evaluation
    if offline is not None:
        collateral = _read(offline)
    else:
        with screen.busy("waiting for the service"):
            collateral = run(_fetch(_service(url, root_crl, tls_ca), platform, feed))
    if cache is None:
        check_collateral(collateral, platform, der, now)
        path = out or Path()
        write_whole(path, collateral.to_json().encode())
        rolled_back: tuple[str, ...] = ()
    else:
        rolled_back = keep(Cache(cache), platform, feed, collateral, der, now)
        path = Cache(cache).path(platform, feed)
        collateral = _read(path)
    if rolled_back:
        screen.warn(f"Older than what the folder held, which stays: {', '.join(rolled_back)}.")
    value: dict[str, Any] = {
        "platform": platform.name,
        "ca": platform.ca,
        "evaluation": collateral.tcb_evaluation,
        "file": str(path),
        "valid_until": collateral.window().end,
        "rolled_back": list(rolled_back),
    }
    shown = {**value, "valid_until": when(value["valid_until"])}
    del shown["rolled_back"]
    screen.answer(value, fields(shown))


@app.command("status")
def status(
    place: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Collateral: one file, or a folder of them.")],
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask the service which evaluations there are, and which is coming.")
    ] = False,
    url: Url = INTEL,
    evidence: Evidence = None,
    tee: TeeName = "sgx",
    warn_days: Annotated[
        float, typer.Option("--warn-days", min=0, help="Exit with 1 where something ends in fewer days than this.")
    ] = 0,
    config: ConfigFile = None,
    root: Root = None,
    root_crl: RootCrl = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Say when each piece was issued and ends; with --ask, which evaluations Intel offers and what is coming.

    With --config also whether the contracts have it; with --evidence the status that the platform has under it.
    """
    import time

    screen, now, der = Screen(as_json), int(time.time()), _root(root)
    parsed = _quote(evidence, tee)
    found = _files(place)
    if not found:
        raise Refused("collateral.none", "there is no collateral there", found=str(place))
    shown: list[Any] = []
    values: list[dict[str, Any]] = []
    for path, collateral in found:
        value = _standing_of(path, collateral, parsed, der, now)
        if config is not None:
            value["pieces"] = run(_kept(config, collateral, value["pieces"]))
        if ask:
            with screen.busy("waiting for the service"):
                value |= run(_offered(_service(url, root_crl, tls_ca), collateral, parsed, der, now))
        values.append(value)
        shown += _shown(value)
    ending = [value for value in values if value["days_left"] < warn_days]
    screen.answer({"collateral": values, "ok": not ending}, *shown)
    for value in ending:
        screen.warn(f"{value['file']} ends in {value['days_left']} days: {value['pieces'][0]['name']}.")
    if ending:
        raise typer.Exit(1)


@app.command("post")
def post(
    place: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Collateral: one file, or a folder of them.")],
    evidence: Evidence = None,
    tee: TeeName = "sgx",
    keystore: Keystore = None,
    config: ConfigFile = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Bring to the contracts what they lack of it. Anyone may; they check Intel's signatures.

    With --evidence the platform's own certificate, too. Workers do this by themselves for their enclaves.
    """
    settings = read_config(config)
    wallet = open_wallet(settings, keystore, password_file)
    parsed, found = _quote(evidence, tee), _files(place)
    if not found:
        raise Refused("collateral.none", "there is no collateral there", found=str(place))
    screen = Screen(as_json)

    async def send() -> list[dict[str, Any]]:
        from oracle.attestation.onchain.collateral import posts
        from oracle.chain.collateral import NAMES, anchor_of, post_missing, store_of
        from oracle.collateral.platform import quoted_chain

        chain = () if parsed is None else tuple(quoted_chain(parsed))
        done = []
        async with make_client(settings, wallet=wallet) as client:
            for path, collateral in found:
                store = store_of(settings.deployment)
                sent = await post_missing(
                    client.sender, client.source, store, posts(collateral, chain), anchor_of(collateral)
                )
                done.append({"file": str(path), "posted": [NAMES[each.function] for each in sent]})
        return done

    with screen.busy("waiting for the chain"):
        posted = run(send())
    shown = [f"{each['file']}: {', '.join(each['posted']) or 'nothing was missing'}" for each in posted]
    screen.answer({"collateral": posted}, *shown)


def _standing_of(
    path: Path, collateral: Collateral, parsed: ParsedQuote | None, root: bytes, now: int
) -> dict[str, Any]:
    from oracle.collateral.cache import evaluation_of
    from oracle.collateral.outlook import standing
    from oracle.collateral.pieces import pieces
    from oracle.collateral.platform import platform_named

    parts = [
        {
            "name": p.name,
            "issued": p.issued,
            "ends": p.ends,
            "days_left": _days(p.ends - now),
            "evaluation": p.evaluation,
        }
        for p in pieces(collateral)
    ]
    value = {
        "file": str(path),
        "platform": platform_named(collateral).name,
        "evaluation": evaluation_of(collateral),
        "days_left": parts[0]["days_left"],
        "pieces": parts,
    }
    if parsed is not None:
        value |= _status_of(standing(parsed, collateral, root, now))
    return value


async def _kept(config: Path, collateral: Collateral, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pieces with what the contracts' store has of each."""
    from oracle.chain.collateral import on_chain, store_of

    settings = read_config(config)
    async with make_client(settings) as client:
        found = await on_chain(client.source, store_of(settings.deployment), collateral)
    return [{**part, "on_chain": found[part["name"]]} for part in parts]


async def _offered(
    config: PcsConfig, held: Collateral, parsed: ParsedQuote | None, root: bytes, now: int
) -> dict[str, Any]:
    from oracle.attestation.onchain.structs import TcbInfo
    from oracle.collateral.cache import evaluation_of
    from oracle.collateral.outlook import STANDARD_AFTER, outlook, standing
    from oracle.collateral.pcs import Pcs
    from oracle.collateral.platform import platform_named

    async with Pcs(config) as pcs:
        offered, standard, early = await outlook(pcs, platform_named(held), root, now)
    value: dict[str, Any] = {
        "offered": [each.number for each in offered],
        "standard": evaluation_of(standard),
        "coming": None,
    }
    if early is not None:
        number = evaluation_of(early)
        recovery = next((each.recovery for each in offered if each.number == number), None)
        value["coming"] = {
            "evaluation": number,
            "changed_at": TcbInfo.of(early).changed_at,
            "standard_from": None if recovery is None else recovery + STANDARD_AFTER,
            **({} if parsed is None else _status_of(standing(parsed, early, root, now))),
        }
    return value


def _shown(value: dict[str, Any]) -> list[Any]:
    """The same for a person."""
    title = f"{value['file']}: {value['platform']}, evaluation {value['evaluation']}"
    if "tcb_status" in value:
        title += f", {value['tcb_status'] or value['reason']}"
    known = "on_chain" in value["pieces"][0]
    rows = [
        (
            p["name"],
            p["evaluation"],
            when(p["issued"]),
            when(p["ends"]),
            p["days_left"],
            *([p["on_chain"]] if known else []),
        )
        for p in value["pieces"]
    ]
    columns = ("piece", "evaluation", "issued", "ends", "days left", *(["on chain"] if known else []))
    shown: list[Any] = [grid(columns, rows, title=title)]
    if "offered" in value:
        lines: dict[str, Any] = {"offered": ", ".join(map(str, value["offered"])), "standard": value["standard"]}
        coming = value["coming"]
        if coming is not None:
            lines["coming"] = coming["evaluation"]
            lines["fixes from"] = when(coming["changed_at"])
            if coming["standard_from"] is not None:
                lines["standard from about"] = when(coming["standard_from"])
            if "tcb_status" in coming:
                lines["status then"] = coming["tcb_status"] or coming["reason"]
        shown += [fields(lines), ""]
    return shown


def _status_of(found: Standing) -> dict[str, Any]:
    from oracle.attestation.types import intel_name

    return {"tcb_status": None if found.status is None else intel_name(found.status), "reason": found.reason}


def _days(seconds: int) -> float:
    return round(seconds / DAY, 1)


async def _fetch(config: PcsConfig, platform: Platform, feed: Feed) -> Collateral:
    from oracle.collateral.pcs import Pcs

    async with Pcs(config) as pcs:
        return await pcs.collateral(platform, feed)


def _service(url: str, root_crl: str | None, tls_ca: Path | None) -> PcsConfig:
    from oracle.collateral.config import PcsConfig
    from oracle.yamlfile import validate_yaml

    value = {"pcs": url, "cache": Path(), "rootCrl": root_crl, "tlsCa": tls_ca}
    return validate_yaml(PcsConfig, value)


def _quote(path: Path | None, tee: str) -> ParsedQuote | None:
    from oracle.attestation import Tee, parse_dcap
    from oracle.attestation.quote import MAX_QUOTE_BYTES
    from oracle.files import read_file

    return None if path is None else parse_dcap(Tee[tee.upper()], read_file(path, MAX_QUOTE_BYTES))


def _platform(
    parsed: ParsedQuote | None, tee: str, fmspc: str | None, ca: Literal["platform", "processor"]
) -> Platform:
    from oracle.attestation import Tee
    from oracle.collateral.platform import Platform, platform_of

    if (parsed is None) == (fmspc is None):
        raise typer.BadParameter("give --evidence or --fmspc, one of the two", param_hint="--fmspc")
    if parsed is not None:
        return platform_of(parsed)
    try:
        return Platform(Tee[tee.upper()], bytes.fromhex((fmspc or "").removeprefix("0x")), ca)
    except ValueError:
        raise typer.BadParameter("six bytes in hex", param_hint="--fmspc") from None


def _root(path: Path | None) -> bytes:
    from oracle.attestation import DevelopmentRoot, intel_root
    from oracle.attestation.anchors import MAX_ROOT
    from oracle.files import read_file

    return intel_root() if path is None else DevelopmentRoot(read_file(path, MAX_ROOT)).der


def _read(path: Path) -> Collateral:
    from oracle.attestation import Collateral
    from oracle.attestation.collateral import MAX_COLLATERAL_BYTES
    from oracle.files import read_file

    return Collateral.from_json(read_file(path, MAX_COLLATERAL_BYTES))


def _files(place: Path) -> list[tuple[Path, Collateral]]:
    """The file, or those of a folder that are named after a platform; a file of another kind there is passed over."""
    from oracle.collateral.cache import Cache

    if not place.is_dir():
        return [(place, _read(place))]
    cache = Cache(place)
    paths = [cache.path(platform) for platform in cache.platforms()]
    return [(path, _read(path)) for path in paths]
