"""Names for the trust anchors that a hardware maker stands behind (R4), directly or through a verifier enclave that appraised
the evidence; any other anchor is development or private.

An anchor is the SHA-256 of a root certificate in DER. Sources: Intel's from https://certificates.trustedservices.intel.com,
AMD's ARKs from https://kdsintf.amd.com/vcek/v1/{Milan,Genoa,Turin}/cert_chain, and AWS's from
https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from enclave_app.protocol.canonical import Document
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.evidence import Voucher, registered_under
from enclave_app.protocol.fields import Bytes32
from oracle.attestation.anchors import INTEL_ROOT_DIGEST, PUBLIC_CHAINS

MAKERS: Final = {
    "intel": (INTEL_ROOT_DIGEST,),
    "amd": tuple(
        bytes.fromhex(digest)
        for digest in (
            "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
            "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
            "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        )
    ),
    "aws": (bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"),),
}
"""AMD has one root per processor generation: Milan, Genoa, Turin."""
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
