"""The values behind tests/vectors/dcap.json: what the DCAP verifier is told about recorded quotes of real machines, and what
it has to make of it.

`evidence` is abi.encode(IDcapVerifier.Evidence), `challenge` what `judge` takes; the claims are those of the off-chain verifier
at `now`. `reportData` is all 64 bytes: recorded quotes bind other people's, whose second half need not be zero.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oracle.attestation import Collateral, Tee, intel_root, parse_evidence, verify
from oracle.attestation.onchain.evidence import dcap_challenge, dcap_evidence, quote_chain, versions
from oracle.attestation.onchain.structs import Pck

RECORDED = Path(__file__).resolve().parent.parent / "tests" / "data" / "attestation"


def dcap() -> dict[str, Any]:
    cases = json.loads((RECORDED / "cases.json").read_text("utf-8"))
    return {"cases": [_case(case, run) for case in cases for run in case["verify"] if run["expected"] == "ok"]}


def _case(case: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    parsed = parse_evidence(Tee[case["tee"].upper()], (RECORDED / case["quote"]).read_bytes())
    collateral = Collateral.from_json((RECORDED / "collateral" / f"{run['collateral']}.json").read_text("utf-8"))
    claims = verify(parsed, collateral, intel_root(), run["now"])
    return {
        "name": f"{case['name']} {run['collateral']}",
        "now": run["now"],
        "evidence": _hex(dcap_evidence(parsed, collateral)),
        "challenge": _hex(dcap_challenge(versions(parsed, Pck.of(quote_chain(parsed))), collateral)),
        "tee": int(parsed.tee),
        "measurement": _hex(parsed.measurement),
        "reportData": _hex(parsed.report_data),
        "platform": _hex(claims.platform),
        "svnDigest": _hex(claims.svn_digest),
        "tcbStatus": int(claims.tcb_status),
        "evaluation": claims.evaluation,
    }


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
