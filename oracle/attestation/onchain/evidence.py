"""What DcapVerifier is told: evidence to register or renew, and proof for a challenge.

The contract is told which TCB level a platform meets and checks that no better one is met; here the level is found.
Source: IDcapVerifier.sol, whose structs these are.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final, NoReturn

from cryptography import x509
from eth_abi.abi import encode

from enclave_app.protocol.digests import hash_abi
from oracle.attestation.collateral import Collateral, pem_chain
from oracle.attestation.errors import Code, VerificationError
from oracle.attestation.onchain.structs import (
    PCK,
    QE_IDENTITY,
    TCB_INFO,
    TCB_LEVEL,
    TDX_MODULE,
    Pck,
    QeIdentity,
    TcbInfo,
)
from oracle.attestation.quote import ParsedQuote
from oracle.attestation.types import Tee

PROOF: Final = f"({TCB_INFO},{TCB_LEVEL}[],bytes32,bytes32[],{TDX_MODULE}[],{QE_IDENTITY})"
EVIDENCE: Final = f"(bytes,{PCK},{PROOF},{PROOF}[])"
VERSIONS: Final = "(uint8,bytes6,bytes2,bytes16,uint16,bytes16,bytes16,uint16,uint160,bytes32)"
_NO_SVN: Final = bytes(16)


@dataclass(frozen=True)
class Versions:
    """Every version that a status is judged by; the TEE's are zeros where a quote has none."""

    tee: Tee
    fmspc: bytes
    pce_id: bytes
    cpu_svn: bytes
    pce_svn: int
    tee_tcb_svn: bytes
    tee_tcb_svn2: bytes
    qe_svn: int
    pck_serial: int
    pck_issuer: bytes

    @property
    def digest(self) -> bytes:
        """H("svn", Versions): the `svnDigest` of an identity."""
        return hash_abi("svn", [VERSIONS], [astuple(self)])


def versions(parsed: ParsedQuote, pck: Pck) -> Versions:
    return Versions(
        tee=parsed.tee,
        fmspc=pck.fmspc,
        pce_id=pck.pce_id,
        cpu_svn=pck.cpu_svn,
        pce_svn=pck.pce_svn,
        tee_tcb_svn=parsed.report.tee_tcb_svn,
        tee_tcb_svn2=parsed.report.tee_tcb_svn2,
        qe_svn=int.from_bytes(parsed.section.qe_report.isv_svn, "little"),
        pck_serial=pck.serial,
        pck_issuer=pck.issuer,
    )


def quote_chain(parsed: ParsedQuote) -> list[x509.Certificate]:
    """The PCK chain in a quote, leaf first. Raises CollateralError."""
    return pem_chain(parsed.section.certification.decode("latin-1"))


def cut_quote(parsed: ParsedQuote) -> bytes:
    """The quote up to its certification data, which the contract has as a posted PCK."""
    return parsed.raw[: len(parsed.raw) - len(parsed.section.certification)]


def dcap_evidence(parsed: ParsedQuote, collateral: Collateral, earlier: Collateral | None = None) -> bytes:
    """abi.encode(Evidence) for `verify`; `earlier` is of a lower evaluation, for agreements with a grace.

    Raises CollateralError, and VerificationError where the platform meets no level of one of them.
    """
    pck = Pck.of(quote_chain(parsed))
    of = versions(parsed, pck)
    shown = [_proof(of, each) for each in (collateral, earlier) if each is not None]
    return encode([EVIDENCE], [(cut_quote(parsed), pck.abi(), shown[0], shown[1:])])


def dcap_challenge(of: Versions, collateral: Collateral) -> bytes:
    """abi.encode(Versions, Proof) for `judge`. Raises as `dcap_evidence`."""
    return encode([VERSIONS, PROOF], [astuple(of), _proof(of, collateral)])


def _proof(of: Versions, collateral: Collateral) -> tuple[object, ...]:
    tcb = TcbInfo.of(collateral)
    named = [_first_met(of, of.tee_tcb_svn, tcb)]
    modules = []
    if of.tee is Tee.TDX:
        modules.append(_module(of.tee_tcb_svn, tcb))
    if of.tee_tcb_svn2 not in (_NO_SVN, of.tee_tcb_svn):
        named.append(_first_met(of, of.tee_tcb_svn2, tcb))
        if of.tee_tcb_svn2[1] != of.tee_tcb_svn[1]:
            modules.append(_module(of.tee_tcb_svn2, tcb))
    if named[-1] > named[0]:
        _refuse("a TDX module that is older now than at the launch", "one that was updated under the running TD")
    shown = named[0] + 1
    return (
        tcb.abi(),
        [each.abi() for each in tcb.levels[:shown]],
        tcb.rest(shown),
        [each.digest for each in tcb.modules],
        modules,
        QeIdentity.of(collateral).abi(),
    )


def _first_met(of: Versions, tee_tcb_svn: bytes, tcb: TcbInfo) -> int:
    """Index of the best level that is met, as Intel evaluates them."""
    # A module that has a version of its own is judged by that module's levels.
    skipped = (16, 17) if tee_tcb_svn[1] else ()
    svns = of.cpu_svn + tee_tcb_svn
    for index, level in enumerate(tcb.levels):
        meets = all(
            have >= want or i in skipped for i, (have, want) in enumerate(zip(svns, level.components, strict=True))
        )
        if meets and of.pce_svn >= level.pce_svn:
            return index
    _refuse(f"a platform that meets none of {len(tcb.levels)} TCB levels", "one that meets the last at least")


def _module(tee_tcb_svn: bytes, tcb: TcbInfo) -> tuple[object, ...]:
    for module in tcb.modules:
        if module.version == tee_tcb_svn[1]:
            return module.abi()
    _refuse(f"TDX module version {tee_tcb_svn[1]}", "one that the TCB info names")


def _refuse(found: str, expected: str) -> NoReturn:
    raise VerificationError(
        Code.QUOTE_REFUSED,
        found=found,
        expected=expected,
        action="fetch collateral for this platform, or update the platform",
    )
