"""Names for the trust anchors that a hardware maker stands behind (R4); any other anchor is development or private.

An anchor is the SHA-256 of a root certificate in DER; `oracle/attestation/roots` has the makers', with their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from enclave_app.protocol.errors import Refused
from oracle.attestation.anchors import MAKERS, PUBLIC_CHAINS

LABELS: Final = {"intel": "Intel (SGX, TDX)", "amd": "AMD (SEV-SNP)", "aws": "AWS (Nitro Enclaves)"}


def maker_of(anchor: bytes) -> str | None:
    """The name whose anchor this is; None for a development or private root."""
    return next((name for name, digests in MAKERS.items() if anchor in digests), None)


def development_anchors(anchors: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(anchor for anchor in anchors if maker_of(anchor) is None)


def check_anchors(anchors: Sequence[bytes], chain_id: int) -> None:
    """Refuse an anchor of no hardware maker on a public chain: a simulated enclave could pass for real there (R4)."""
    strange = development_anchors(anchors)
    if strange and chain_id in PUBLIC_CHAINS:
        raise Refused(
            "agreement.development_anchor",
            f"a development or private trust anchor on {PUBLIC_CHAINS[chain_id]}, a chain that strangers use",
            found="0x" + strange[0].hex(),
            expected="intel, amd or aws",
        )
