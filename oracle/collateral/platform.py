"""Which collateral a quote needs: its kind of TEE, its platform's FMSPC, and the CA that certified the platform."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from enclave_app.protocol.canonical import check_depth
from oracle.attestation import Collateral, CollateralError, ParsedQuote, Tee
from oracle.attestation.anchors import load_root
from oracle.attestation.collateral import pem_chain
from oracle.attestation.quote import CERTIFICATION_PCK_CHAIN
from oracle.attestation.qvl import QvlRefused, pck_values
from oracle.errors import OracleError, Refused

Ca = Literal["platform", "processor"]
_CA_NAME = re.compile(r"SGX PCK (Platform|Processor) CA(?: |$)")


@dataclass(frozen=True)
class Platform:
    """A kind of machine as Intel's services know it. `fmspc` is 6 bytes."""

    tee: Tee
    fmspc: bytes
    ca: Ca

    def __post_init__(self) -> None:
        if self.tee not in (Tee.SGX, Tee.TDX) or len(self.fmspc) != 6:
            raise Refused("collateral.platform", "Intel publishes collateral for SGX and TDX, by an FMSPC of 6 bytes")

    @property
    def name(self) -> str:
        """`sgx-00906ed50000`: what its collateral's file is called."""
        return f"{self.tee.name.lower()}-{self.fmspc.hex()}"


def platform_of(parsed: ParsedQuote) -> Platform:
    """The platform that a quote says it is from. Raises Refused `evidence.pck_chain`. It proves nothing."""
    leaf = quoted_chain(parsed)[0]
    try:
        fmspc = pck_values(leaf.public_bytes(Encoding.PEM)).fmspc
    except QvlRefused as error:
        raise _unreadable(f"the platform's certificate cannot be read: {error}") from None
    return Platform(Tee(parsed.tee), fmspc, ca_of(leaf.issuer))


def platform_named(collateral: Collateral) -> Platform:
    """The platform that collateral says it is of. Raises Refused `collateral.platform`. It proves nothing."""
    try:
        check_depth(collateral.tcb_info.encode("utf-8", "surrogatepass"))
        value = json.loads(collateral.tcb_info)
        tee, fmspc = Tee[value["id"]], bytes.fromhex(value["fmspc"])
    except (ValueError, KeyError, TypeError, OracleError) as error:
        raise Refused("collateral.platform", "the TCB info names no platform", found=repr(error)[:200]) from None
    return Platform(tee, fmspc, ca_of(pem_chain(collateral.pck_crl_issuer_chain)[0].subject))


def quoted_chain(parsed: ParsedQuote) -> list[x509.Certificate]:
    """The certificates in a quote, the platform's first. Raises Refused `evidence.pck_chain`."""
    if parsed.section.certification_type != CERTIFICATION_PCK_CHAIN:
        raise _unreadable("the quote carries no PCK certificate chain")
    try:
        return pem_chain(parsed.section.certification.decode("latin-1"))
    except CollateralError as error:
        raise _unreadable(str(error)) from None


def ca_of(name: x509.Name) -> Ca:
    """Which of Intel's two PCK CAs has this name. Raises Refused `evidence.pck_chain`."""
    for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME):
        found = _CA_NAME.search(str(attribute.value))
        if found:
            return "platform" if found[1] == "Platform" else "processor"
    raise _unreadable("the platform's certificate was issued by neither of Intel's two PCK CAs")


def certified_root(parsed: ParsedQuote, roots: Mapping[bytes, bytes]) -> bytes | None:
    """DER of the root, one of `roots`, that certified the quote's platform; None where none of them did.

    Whoever asks for collateral is unknown: nothing is fetched for a platform that anyone could have invented.
    """
    chain = quoted_chain(parsed)
    for der in roots.values():
        try:
            root = load_root(der)
            for subject, issuer in zip(chain[:2], [chain[1] if len(chain) > 1 else root, root], strict=False):
                subject.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, Refused):
            continue
        return der
    return None


def _unreadable(found: str) -> Refused:
    return Refused("evidence.pck_chain", "the quote does not say which platform it is from", found=found)
