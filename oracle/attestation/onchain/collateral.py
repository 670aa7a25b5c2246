"""The calls that post collateral to DcapCollateral, in the order in which they work.

Nothing is checked here that the contract checks again; the structs that it keeps digests of are `structs`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from oracle.attestation.collateral import Collateral, pem_chain
from oracle.attestation.errors import Code, CollateralError
from oracle.attestation.onchain.structs import Pck, QeIdentity, TcbInfo, certificate_digest


@dataclass(frozen=True)
class Post:
    """A call of the store. `issued_at` in unix seconds, zero for what nothing replaces."""

    function: str
    arguments: tuple[bytes, ...]
    view: str
    key: tuple[Any, ...]
    issued_at: int

    def is_needed(self, answer: Any) -> bool:
        """Whether the store, whose function `view` gave `answer` for `key`, lacks this or has an older issue."""
        match self.view:
            case "isPck":
                return answer is False
            case "issuer":
                return bool(answer["serial"] == 0)
            case "crl":
                return bool(answer["issuedAt"] < self.issued_at)
            case _:
                return bool(answer[1] < self.issued_at)


def posts(collateral: Collateral, pck_chain: Sequence[x509.Certificate] = ()) -> list[Post]:
    """The calls that post `collateral` and a PCK certificate (leaf first; none given: none posted), in order.

    Each needs those before it only; skipping what is there is the caller's. Raises CollateralError and, for
    `pck_chain`, VerificationError.
    """
    crl_chain, tcb_chain, qe_chain = (
        pem_chain(each)
        for each in (
            collateral.pck_crl_issuer_chain,
            collateral.tcb_info_issuer_chain,
            collateral.qe_identity_issuer_chain,
        )
    )
    # A CA may have several certificates over one key; the contract looks for its list under the one that the PCK names.
    ca = pck_chain[1] if len(pck_chain) > 1 else crl_chain[0]
    calls = [
        Post("postIssuer", (_der(each),), "issuer", (digest,), 0)
        for digest, each in {certificate_digest(each): each for each in (ca, tcb_chain[0], qe_chain[0])}.items()
    ]
    calls += [
        # The root's list stands under the anchor, which is the digest of the whole certificate.
        _crl(collateral.root_ca_crl, hashlib.sha256(_der(crl_chain[-1])).digest()),
        _crl(collateral.pck_crl, certificate_digest(ca)),
    ]
    if pck_chain:
        pck = Pck.of(pck_chain)
        calls.append(Post("postPck", (_der(pck_chain[0]), pck.issuer), "isPck", (pck.digest,), 0))
    tcb, qe = TcbInfo.of(collateral), QeIdentity.of(collateral)
    calls.append(
        Post(
            "postTcbInfo",
            (collateral.tcb_info.encode(), bytes.fromhex(collateral.tcb_info_signature), tcb.signer),
            "tcbInfo",
            (int(tcb.tee), tcb.fmspc, tcb.evaluation),
            tcb.issued_at,
        )
    )
    calls.append(
        Post(
            "postQeIdentity",
            (collateral.qe_identity.encode(), bytes.fromhex(collateral.qe_identity_signature), qe.signer),
            "qeIdentity",
            (int(qe.tee), qe.evaluation),
            qe.issued_at,
        )
    )
    return calls


def _crl(crl_hex: str, issuer: bytes) -> Post:
    der = bytes.fromhex(crl_hex)
    try:
        issued = x509.load_der_x509_crl(der).last_update_utc
    except (ValueError, x509.InvalidVersion) as cause:
        raise CollateralError(
            Code.COLLATERAL_FORMAT,
            found=f"an unreadable revocation list ({cause})",
            expected="a CRL in DER",
            action="fetch the collateral from Intel's PCS or a PCCS",
        ) from cause
    return Post("postCrl", (der, issuer), "crl", (issuer,), int(issued.timestamp()))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
