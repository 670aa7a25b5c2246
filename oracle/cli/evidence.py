"""`oracle evidence`: is this evidence of real hardware, and what does it claim? Offline, under the makers' pinned roots."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oracle.cli.common import Json
from oracle.cli.screen import Screen, fields, plain

if TYPE_CHECKING:
    from oracle.attestation import Parsed, SnpEndorsements, SnpReport, Verified

app = typer.Typer(name="evidence", help="Attestation evidence, checked by itself.", no_args_is_help=True)
MAX_EVIDENCE = 1 << 20
MAX_READ = 4 * 1024 * 1024 + 1
"""Bytes of a file: more than any of its readers takes, so that each refuses what was cut off here."""


class Kind(StrEnum):
    sgx = "sgx"
    tdx = "tdx"
    snp = "snp"
    nitro = "nitro"


@app.command("verify")
def verify(
    tee: Annotated[Kind, typer.Option("--tee", help="The kind of TEE that made it.")],
    evidence: Annotated[
        Path,
        typer.Option(
            "--evidence", metavar="FILE", exists=True, dir_okay=False, help="A quote, report or document, as raw bytes."
        ),
    ],
    at: Annotated[int, typer.Option("--at", metavar="UNIX_SECONDS", min=0, help="The time at which it has to hold.")],
    collateral: Annotated[
        Path | None,
        typer.Option(
            "--collateral",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="For sgx and tdx: Intel's collateral as QuoteCollateralV3 JSON.",
        ),
    ] = None,
    endorsements: Annotated[
        Path | None,
        typer.Option(
            "--endorsements",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="For snp: a folder with ek.der, ask.der and ark.der, and perhaps crl.der.",
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", metavar="FILE", exists=True, dir_okay=False, help="Also ask whether it is wanted: YAML."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether evidence is genuine: signed under Intel's, AMD's or AWS's root, complete, not debug, in its time.

    Genuine is not trusted: without --policy nothing says that this code, platform or TCB status is wanted.
    Exits 0 when it is genuine (and wanted, with --policy), 1 when it is refused, 2 for a wrong command line.
    """
    from oracle.attestation import AppraisalPolicy, AttestationError, PolicyError, appraise

    if (collateral is not None and tee not in (Kind.sgx, Kind.tdx)) or (
        endorsements is not None and tee is not Kind.snp
    ):
        raise typer.BadParameter("--collateral goes with --tee sgx or tdx, --endorsements with --tee snp")
    wanted = None
    if policy is not None:
        try:
            wanted = AppraisalPolicy.from_yaml(_read(policy, "--policy").decode("utf-8", "replace"))
        except PolicyError as error:
            raise typer.BadParameter(str(error), param_hint="--policy") from None
    data = _read(evidence, "--evidence", MAX_EVIDENCE)
    parsed: Parsed | None = None
    verified: Verified | None = None
    refusal: AttestationError | None = None
    cut = 0
    try:
        parsed, cut = _parse(tee, data)
        verified = _verify(parsed, collateral, endorsements, at)
        if wanted is not None:
            appraise(verified, wanted)
    except AttestationError as error:
        refusal = error
    answer = as_value(parsed, cut, verified, refusal)
    screen = Screen(as_json)
    screen.answer(answer, *([] if as_json else [fields(_shown(answer))]))
    if refusal is not None:
        if not as_json:
            screen.warn(plain(str(refusal)))
        raise typer.Exit(1)
    if wanted is None and not as_json:
        screen.say("Genuine is not trusted: give --policy to say which code, platforms and statuses you take.")


def as_value(parsed: Parsed | None, cut: int, verified: Verified | None, refusal: Exception | None) -> dict[str, Any]:
    """The answer for programs. Claims of refused evidence are what it says of itself."""
    from oracle.attestation import AttestationError
    from oracle.attestation.types import intel_name

    status = None if verified is None else verified.tcb_status
    return {
        "verdict": "genuine" if refusal is None else "refused",
        "tcb_status": None if status is None else intel_name(status),
        "advisory_ids": [] if verified is None else list(verified.advisory_ids),
        "claims": None if parsed is None else claims_of(parsed, verified),
        "reason": str(refusal.code) if isinstance(refusal, AttestationError) else None,
        "trailing_bytes": cut,
    }


def claims_of(parsed: Parsed, verified: Verified | None) -> dict[str, Any]:
    """Registers in hex by the names of their makers' documents; `enclave_measurement` is what agreements list (R3)."""
    from oracle.attestation import NitroDocument, SnpReport

    if isinstance(parsed, SnpReport):
        found = _snp_claims(parsed)
    elif isinstance(parsed, NitroDocument):
        found = {
            "module_id": parsed.module_id,
            "timestamp_ms": parsed.timestamp,
            "pcrs": {str(index): value.hex() for index, value in sorted(parsed.pcrs.items()) if any(value)},
            "n_pcrs": len(parsed.pcrs),
            "public_key": (parsed.public_key or b"").hex(),
            "user_data": (parsed.user_data or b"").hex(),
            "nonce": (parsed.nonce or b"").hex(),
            "debug": parsed.debug,
        }
    else:
        found = {"quote_version": parsed.version, **_quote_claims(parsed.report), "debug": parsed.report.debug}
    found |= {"report_data": parsed.report_data.hex(), "enclave_measurement": parsed.measurement.hex()}
    if verified is not None:
        found |= {
            "anchor": verified.root.hex(),
            "platform": verified.platform.hex(),
            "valid_until": verified.valid_until,
        }
        if verified.dcap is not None:
            dcap = verified.dcap
            found |= {
                "fmspc": dcap.fmspc.hex(),
                "tcb_evaluation": dcap.tcb_evaluation,
                "qe_evaluation": dcap.qe_evaluation,
            }
        if verified.snp is not None:
            found |= {"product": verified.snp.line.name, "tcb": verified.snp.tcb, "csp_id": verified.snp.csp}
    return found


def _quote_claims(report: Any) -> dict[str, Any]:
    from oracle.attestation import SgxReport

    if isinstance(report, SgxReport):
        return {
            "mr_enclave": report.mrenclave.hex(),
            "mr_signer": report.mrsigner.hex(),
            "attributes": report.attributes.hex(),
            "miscselect": report.miscselect.hex(),
            "cpu_svn": report.cpu_svn.hex(),
            "isv_prod_id": int.from_bytes(report.isv_prod_id, "little"),
            "isv_svn": int.from_bytes(report.isv_svn, "little"),
            "isv_ext_prod_id": report.isv_ext_prod_id.hex(),
            "isv_family_id": report.isv_family_id.hex(),
            "config_id": report.config_id.hex(),
            "config_svn": int.from_bytes(report.config_svn, "little"),
        }
    names = (
        *("mr_td", "mr_seam", "mr_signer_seam", "seam_attributes", "mr_config_id", "mr_owner", "mr_owner_config"),
        *("td_attributes", "xfam", "tee_tcb_svn", "tee_tcb_svn2", "mr_service_td"),
    )
    return {name: getattr(report, name).hex() for name in names} | {
        f"rt_mr{index}": getattr(report, f"rtmr{index}").hex() for index in range(4)
    }


def _snp_claims(report: SnpReport) -> dict[str, Any]:
    return {
        "report_version": report.version,
        "measurement": report.launch_measurement.hex(),
        "host_data": report.host_data.hex(),
        "policy": hex(report.policy.raw),
        "policy_debug": report.policy.debug,
        "policy_migrate_ma": report.policy.migration_agent,
        "policy_smt": report.policy.smt,
        "policy_single_socket": report.policy.single_socket,
        "guest_svn": report.guest_svn,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "vmpl": report.vmpl,
        "platform_info": hex(report.platform_info),
        "signing_key": int(report.signer),
        "cpuid_fam_mod_step": bytes([report.family, report.model, report.stepping]).hex(),
        "chip_id": report.chip_id.hex(),
        "current_tcb": report.current_tcb.hex(),
        "committed_tcb": report.committed_tcb.hex(),
        "reported_tcb": report.reported_tcb.hex(),
        "launch_tcb": report.launch_tcb.hex(),
        "debug": report.policy.debug,
    }


def _parse(tee: Kind, data: bytes) -> tuple[Parsed, int]:
    """The evidence, and how many bytes behind it were cut off. Raises AttestationError."""
    from oracle.attestation import Tee, parse_evidence
    from oracle.attestation.dstack import bare_document

    bare = bare_document(data) if tee is Kind.nitro else data
    parsed = parse_evidence(Tee[tee.name.upper()], bare)
    return parsed, parsed.trailing + len(data) - len(bare)


def _verify(parsed: Parsed, collateral: Path | None, endorsements: Path | None, at: int) -> Verified:
    """Raises AttestationError; typer.BadParameter where a file is missing that this evidence needs."""
    from oracle.attestation import Collateral, ParsedQuote, SnpReport, intel_root, maker_roots, verify
    from oracle.attestation.dcap import check_quote

    if isinstance(parsed, ParsedQuote):
        check_quote(parsed)
        if collateral is None:
            raise typer.BadParameter("this quote needs --collateral, what Intel says about its platform")
        given = Collateral.from_json(_read(collateral, "--collateral"))
        return verify(parsed, given, intel_root(), at)
    if isinstance(parsed, SnpReport):
        if endorsements is None:
            raise typer.BadParameter("this report needs --endorsements, the certificates of the key that signed it")
        certificates = _endorsements(endorsements)
        roots = maker_roots("amd")
        # A root that is none of AMD's is refused as such, under whichever of them.
        ours = next((der for der in roots.values() if der == certificates.ark), next(iter(roots.values())))
        return verify(parsed, certificates, ours, at)
    (root,) = maker_roots("aws").values()
    return verify(parsed, None, root, at)


def _endorsements(folder: Path) -> SnpEndorsements:
    from oracle.attestation import SnpEndorsements

    missing = [name for name in ("ek.der", "ask.der", "ark.der") if not (folder / name).is_file()]
    if missing:
        raise typer.BadParameter(f"{folder} has no {', '.join(missing)}", param_hint="--endorsements")
    ek, ask, ark = (_read(folder / name, "--endorsements") for name in ("ek.der", "ask.der", "ark.der"))
    crl = folder / "crl.der"
    # A list that is there and cannot be read is not one that was not given.
    given = crl.exists() or crl.is_symlink()
    return SnpEndorsements(ek, ask, ark, _read(crl, "--endorsements") if given else None)


def _read(path: Path, option: str, most: int = MAX_READ) -> bytes:
    """The first `most` bytes. Raises typer.BadParameter: exit 1 says that evidence was refused, and none was looked at."""
    try:
        with path.open("rb") as source:
            return source.read(most)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path} ({error.strerror})", param_hint=option) from None


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    """For people: claims in rows of their own."""
    claims = answer["claims"] or {}
    return {name: value for name, value in answer.items() if name != "claims"} | claims
