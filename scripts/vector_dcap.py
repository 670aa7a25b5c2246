"""The values behind tests/vectors/dcap.json: what the DCAP verifier is told about recorded quotes of real machines, and what
it has to make of it; and measurements.

`evidence` is abi.encode(IDcapVerifier.Evidence), `challenge` what `judge` takes; the claims are those of the off-chain verifier
at `now`. `reportData` is all 64 bytes: recorded quotes bind other people's, whose second half need not be zero.
"""

from __future__ import annotations

from typing import Any

from enclave_app.protocol.measurement import SGX_BODY_BYTES, TDX_BODY_BYTES, sgx_measurement, tdx_measurement
from oracle.attestation import Tee, intel_root, parse_dcap, verify
from oracle.attestation.onchain.evidence import dcap_challenge, dcap_evidence, quote_chain, versions
from oracle.attestation.onchain.structs import Pck
from tests import recorded_kit


def dcap() -> dict[str, Any]:
    return {
        "cases": [_case(case, run) for case, run in recorded_kit.runs("sgx", "tdx") if run["expected"] == "ok"],
        "measurements": [_measurement(tee) for tee in (Tee.SGX, Tee.TDX)],
    }


def _measurement(tee: Tee) -> dict[str, Any]:
    """Of a report body that is different in every byte, as far as a quote may be: no two registers can be mixed up."""
    body = bytearray(range(1, 256)) + bytearray(range(1, 256)) + bytearray(range(1, 256))
    if tee is Tee.SGX:
        del body[SGX_BODY_BYTES:]
        body[48] = 0x05
        for start, end in ((20, 32), (96, 128), (160, 192), (262, 304), (352, 384)):
            body[start:end] = bytes(end - start)
    else:
        del body[TDX_BODY_BYTES[0] :]
        body[120:128] = bytes.fromhex("0000005000000080")
        body[552:584] = bytes(32)
    measured = sgx_measurement(bytes(body)) if tee is Tee.SGX else tdx_measurement(bytes(body))
    return {"tee": int(tee), "body": _hex(bytes(body)), "measurement": _hex(measured)}


def _case(case: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    parsed = parse_dcap(Tee[case["tee"].upper()], recorded_kit.evidence(case))
    collateral = recorded_kit.collateral(run["collateral"])
    claims = verify(parsed, collateral, intel_root(), run["now"])
    assert claims.tcb_status is not None, "a DCAP quote has a status"
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
