#!/usr/bin/env python3
"""Writes tests/vectors/gas.json: minted and recorded evidence for the contracts' gas snapshots (contracts/test/dcap/Gas.t.sol).

Run it by hand, as `python scripts/vector_gas.py`, where the form of evidence changes: its keys and signatures are new each
time, and so is each cost, by some units. It is therefore no part of scripts/make-vectors. The attestation key is given away, so
that the test can bind quotes to its own registry and block.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.dcap_chain_kit import Material, cut, recorded, show  # noqa: E402
from tests.dcap_kit import NOW, Authority, Case, sgx_case, tdx_case  # noqa: E402

RECORDED = "phala-tdx-v4@1787894484"
"""Of the recorded platforms, one whose revocation list and TCB info are among the largest."""


def gas() -> dict[str, Any]:
    authority = Authority.make()
    cases = {"sgx": sgx_case(authority), "tdx": tdx_case(5, authority)}
    real = next(each for each in recorded() if each.name == RECORDED)
    return {
        "now": NOW,
        "minted": {name: _posts(Material.of(case)) | _quote(case) for name, case in cases.items()},
        "recorded": _posts(real.material),
    }


def _posts(material: Material) -> dict[str, str]:
    return {
        "root": _hex(material.root),
        "ca": _hex(material.ca),
        "signer": _hex(material.signer),
        "rootCrl": _hex(material.root_crl),
        "pckCrl": _hex(material.pck_crl),
        "pck": _hex(material.pck),
        "tcbInfo": _hex(material.tcb_info),
        "tcbSignature": _hex(material.tcb_signature),
        "qeIdentity": _hex(material.qe_identity),
        "qeSignature": _hex(material.qe_signature),
    }


def _quote(case: Case) -> dict[str, Any]:
    """Where the test has to write: report data, and the signature over everything before `signedEnd`."""
    signed_end = len(cut(case.quote)) - (384 + 64 + 2 + 32 + 6) - 128 - 4 - (6 if case.version > 3 else 0)
    return {
        "evidence": _hex(show(case)),
        "attestationKey": hex(case.key.private_numbers().private_value),
        "signedEnd": signed_end,
        "reportData": signed_end - (64 if case.version == 3 else 128),
        "signature": signed_end + 4,
    }


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


if __name__ == "__main__":
    (ROOT / "tests" / "vectors" / "gas.json").write_text(json.dumps(gas(), indent=1) + "\n")
