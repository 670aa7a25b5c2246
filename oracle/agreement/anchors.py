"""Names for the trust anchors that a hardware maker stands behind (R4); any other anchor is development or private.

An anchor is the SHA-256 of a root certificate in DER; `oracle/attestation/roots` has the makers', with their sources. Or it
stands for such a root and for the verifier enclave that vouches for evidence under it; which ones, its digest does not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.evidence import Voucher, registered_under
from oracle.attestation.anchors import MAKERS, PUBLIC_CHAINS

LABELS: Final = {"intel": "Intel (SGX, TDX)", "amd": "AMD (SEV-SNP)", "aws": "AWS (Nitro Enclaves)"}


def maker_of(anchor: bytes) -> str | None:
    """The name whose anchor this is; None for a development or private root."""
    return next((name for name, digests in MAKERS.items() if anchor in digests), None)


def development_anchors(anchors: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(anchor for anchor in anchors if maker_of(anchor) is None)


@dataclass(frozen=True)
class AttestedPath:
    """Evidence under `root`, on the word of `voucher`."""

    root: bytes
    voucher: Voucher

    @property
    def is_real(self) -> bool:
        """R4: makers stand behind both ends."""
        return maker_of(self.root) is not None and maker_of(self.voucher.anchor) == "intel"


def attested_paths(anchors: Sequence[bytes], vouchers: Iterable[Voucher]) -> dict[bytes, AttestedPath]:
    """Those of `anchors` that `vouchers` explain: a hint that is wrong makes another digest, and explains nothing."""
    roots = {*anchors, *(root for digests in MAKERS.values() for root in digests)}
    paths = (AttestedPath(root, voucher) for voucher in vouchers for root in roots)
    return {anchor: path for path in paths if (anchor := registered_under(path.root, path.voucher)) in anchors}


def check_anchors(anchors: Sequence[bytes], chain_id: int, vouchers: Iterable[Voucher] = ()) -> None:
    """Refuse an anchor of no hardware maker on a public chain: a simulated enclave could pass for real there (R4)."""
    paths = attested_paths(anchors, vouchers)
    strange = [anchor for anchor in development_anchors(anchors) if anchor not in paths or not paths[anchor].is_real]
    if strange and chain_id in PUBLIC_CHAINS:
        raise Refused(
            "agreement.development_anchor",
            f"a development or private trust anchor on {PUBLIC_CHAINS[chain_id]}, a chain that strangers use",
            found="0x" + strange[0].hex(),
            expected="intel, amd or aws, or a path over a verifier that the document names",
        )
