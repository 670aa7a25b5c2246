"""Names for the trust anchors that a hardware maker stands behind (R4), directly or through a verifier enclave that appraised
the evidence; any other anchor is development or private.

An anchor is the SHA-256 of a root certificate in DER; `oracle/attestation/roots` has the makers', with their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from enclave_app.protocol.canonical import Document
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.evidence import Voucher, registered_under
from enclave_app.protocol.fields import Bytes32
from oracle.attestation.anchors import MAKERS, PUBLIC_CHAINS

LABELS: Final = {"intel": "Intel (SGX, TDX)", "amd": "AMD (SEV-SNP)", "aws": "AWS (Nitro Enclaves)"}


def maker_of(anchor: bytes) -> str | None:
    """The name whose anchor this is; None for a development or private root."""
    return next((name for name, digests in MAKERS.items() if anchor in digests), None)


class AttestedPath(Document):
    """What is behind an attested anchor, whose digest says nothing by itself: the verifier enclave, and the maker's root under
    which it appraises evidence."""

    voucher: Voucher
    root: Bytes32

    @property
    def anchor(self) -> bytes:
        return registered_under(self.root, self.voucher)

    @property
    def is_hardware(self) -> bool:
        """Whether makers stand behind both, the evidence and the verifier enclave: assurance is the lowest along the path."""
        return maker_of(self.root) is not None and maker_of(self.voucher.anchor) is not None


def development_anchors(anchors: Sequence[bytes], paths: Sequence[AttestedPath] = ()) -> tuple[bytes, ...]:
    """Those that no maker stands behind; `paths` say what is behind attested ones."""
    through = {path.anchor for path in paths if path.is_hardware}
    return tuple(anchor for anchor in anchors if maker_of(anchor) is None and anchor not in through)


def check_anchors(anchors: Sequence[bytes], chain_id: int, paths: Sequence[AttestedPath] = ()) -> None:
    """Refuse an anchor of no hardware maker on a public chain: a simulated enclave could pass for real there (R4)."""
    strange = development_anchors(anchors, paths)
    if strange and chain_id in PUBLIC_CHAINS:
        raise Refused(
            "agreement.development_anchor",
            f"a development or private trust anchor on {PUBLIC_CHAINS[chain_id]}, a chain that strangers use",
            found="0x" + strange[0].hex(),
            expected="intel, amd or aws",
        )
