"""Registering on the word of a verifier enclave: SEV-SNP and Nitro evidence, which no contract can check itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from eth_abi.abi import encode

from enclave_app.protocol import signing
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.evidence import Evidence, Voucher, registered_under
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.structs import Confirmation, RegisteredIdentity, VerifierStatement
from enclave_app.protocol.wire import MAX_CRL, AppraisalBody, Identity
from oracle.agreement.anchors import maker_of
from oracle.agreement.enclave import identity_of
from oracle.attestation import (
    AttestationError,
    DevelopmentRoot,
    NitroDocument,
    ParsedQuote,
    SnpReport,
    carried,
    evidence_refusal,
    parse_evidence,
)
from oracle.attestation.anchors import MAX_ROOT
from oracle.chain.deploy import Deployment
from oracle.chain.enclaves import RegisteredEnclave, registered_enclaves
from oracle.chain.reader import Standing
from oracle.chain.source import Block, SingleSource
from oracle.errors import Bug, Permanent, Refused, Retryable
from oracle.files import read_file
from oracle.worker.config import AttestationConfig
from oracle.worker.enclave import Enclave
from oracle.worker.register import check_evidence

ENDORSEMENTS = ("ek.der", "ask.der", "ark.der")
ATTESTED = f"({VerifierStatement.abi_type()},bytes32,address,{RegisteredIdentity.abi_type()},bytes)"
"""IAttestedVerifier.Attested."""


@dataclass(frozen=True)
class Vouching:
    """A verifier enclave, and what goes with the evidence that it is asked about. `root` is a development root's digest, None
    for the makers' own; `endorsements` and `crl` are files."""

    verifier: Enclave
    root: bytes | None
    endorsements: Path | None
    crl: Path | None


@asynccontextmanager
async def open_vouching(config: AttestationConfig | None, chain_id: int) -> AsyncIterator[Vouching | None]:
    """None where the configuration has no `vouchedBy`. Raises Refused `attestation.*`, `file.*`."""
    if config is None or config.vouched_by is None:
        yield None
        return
    root = None
    if config.root is not None:
        try:
            development = DevelopmentRoot(read_file(config.root, MAX_ROOT))
            development.refuse_on_public_chain(chain_id)  # R4
        except AttestationError as error:
            raise Refused(f"attestation.{error.code}", str(error)) from None
        root = development.digest
    async with Enclave(config.vouched_by) as verifier:
        yield Vouching(verifier, root, config.endorsements, config.crl)


@dataclass
class AttestedRegistrar:
    """Asks the verifier for a statement each time. Which registered enclave it is, is looked up by its signer: a verifier that
    restarted has another (R1), and speaks for the same anchor once it is registered again."""

    verifier: str
    vouching: Vouching
    deployment: Deployment
    source: SingleSource
    _vouches: RegisteredEnclave | None = None

    @classmethod
    def of(cls, vouching: Vouching, deployment: Deployment, source: SingleSource) -> AttestedRegistrar:
        """Raises Permanent `config.deployment`."""
        verifier = deployment.verifiers.get("attested")
        if verifier is None:
            raise Permanent("config.deployment", "the deployment has no verifier `attested`")
        return cls(verifier, vouching, deployment, source)

    async def voucher(self) -> Voucher | None:
        signer = (await self.vouching.verifier.identity()).signer
        head = await self.source.confirmed(Confirmation.LATEST)
        found = await registered_enclaves(self.source, self.deployment, head, signer)
        # A contract takes nobody's word for the word of another (AttestedVerifier_Nested).
        direct = [each for each in found if each.valid and not any(each.record.identity.verifier)]
        if not direct:
            raise Retryable(
                "register.verifier",
                "the verifier enclave is not registered by evidence of its own, or not any more",
                found=signer,
                hint="Its host runs `oracle enclave register`",
            )
        self._vouches = direct[-1]
        return Voucher(anchor=self._vouches.anchor, measurement=self._vouches.record.identity.measurement)

    def endorse(self, given: tuple[bytes, ...]) -> tuple[bytes, ...]:
        folder = self.vouching.endorsements
        if folder is None or len(given) == len(ENDORSEMENTS):
            return given
        # The host's table has the key's certificate alone, or nothing.
        return given + tuple(_read(folder / name) for name in ENDORSEMENTS[len(given) :])

    def identify(self, evidence: Evidence, claimed: Identity, now: int) -> tuple[bytes, RegisteredIdentity]:
        parsed = _parsed(evidence)
        if isinstance(parsed, SnpReport) and len(evidence.endorsements) != len(ENDORSEMENTS):
            raise Refused(
                "evidence.certificate_chain",
                "the guest has not all three certificates of the key that signs for it",
                found=f"{len(evidence.endorsements)} certificates",
                hint="Give `endorsements`, a folder with ek.der, ask.der and ark.der",
            )
        try:
            root, endorsements = carried(parsed, evidence.endorsements)
        except AttestationError as error:
            raise evidence_refusal(error) from None
        wanted, found = self.vouching.root, sha256(root)
        if found != wanted if wanted is not None else maker_of(found) is None:
            raise Refused(
                "evidence.root_mismatch",
                "the evidence is under another root than the configuration's",
                found=found.hex(),
                expected="a maker's" if wanted is None else wanted.hex(),
            )
        verified = check_evidence(evidence, claimed, endorsements, root, now)
        identity = identity_of(evidence, PublicKey(evidence.sealing_key).digest, verified)
        return registered_under(verified.root, evidence.voucher), identity

    async def proof(self, evidence: Evidence, registered: Standing | None, now: int) -> bytes:
        vouches, crl = self._vouches, self.vouching.crl
        if vouches is None:
            raise Bug("register.order", "nobody asked who vouches")
        body = AppraisalBody(
            chain_id=evidence.chain_id,
            registry=evidence.registry,
            tee=evidence.tee,
            quote=evidence.quote,
            endorsements=evidence.endorsements,
            crl=None if crl is None else _read(crl),
            now=now,
        )
        answer = await self.vouching.verifier.appraise(body)
        domain = Domain(chain_id=evidence.chain_id, verifying_contract=evidence.registry)
        signer = signing.recover(answer.statement.typed_digest(domain), answer.signature)
        if signer != vouches.signer:
            raise Retryable(
                "register.verifier", "another enclave answers as the verifier", found=signer, expected=vouches.signer
            )
        return encode(
            [ATTESTED],
            [
                (
                    answer.statement.to_abi(),
                    vouches.anchor,
                    vouches.signer,
                    vouches.record.identity.to_abi(),
                    answer.signature,
                )
            ],
        )


async def find_voucher(
    source: SingleSource, deployment: Deployment, at: Block, enclave: RegisteredEnclave, evidence: Evidence
) -> Voucher | None:
    """Who vouched for an enclave that somebody else registered; None where a contract checked its evidence.

    Raises Retryable `register.verifier` where no registered verifier leads to its anchor.
    """
    measurement = enclave.record.identity.verifier
    if not any(measurement):
        return None
    try:
        root, _ = carried(_parsed(evidence), evidence.endorsements)
    except AttestationError as error:
        raise evidence_refusal(error) from None
    for each in await registered_enclaves(source, deployment, at):
        voucher = Voucher(anchor=each.anchor, measurement=measurement)
        if registered_under(sha256(root), voucher) == enclave.anchor:
            return voucher
    raise Retryable("register.verifier", "no verifier leads to the enclave's anchor", found=enclave.anchor.hex())


def _parsed(evidence: Evidence) -> SnpReport | NitroDocument:
    try:
        parsed = parse_evidence(evidence.tee, evidence.quote)
    except AttestationError as error:
        raise evidence_refusal(error) from None
    if isinstance(parsed, ParsedQuote):
        raise Refused(
            "register.vouched",
            "a contract checks this evidence itself",
            hint="Give `attestation` a `collateral`, and no `vouchedBy`",
        )
    return parsed


def _read(path: Path) -> bytes:
    try:
        return read_file(path, MAX_CRL)
    except Refused as error:
        raise Retryable("attestation.file", f"what goes with the evidence cannot be read: {error.message}") from None
