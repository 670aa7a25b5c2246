"""The registrars that a configuration asks for: how evidence gets into the form that a verifier contract takes."""

from __future__ import annotations

from dataclasses import dataclass

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.evidence import Evidence, Voucher
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.structs import RegisteredIdentity
from enclave_app.protocol.wire import Identity
from oracle.agreement.enclave import identity_of
from oracle.attestation import AttestationError, Collateral, ParsedQuote, evidence_refusal, parse_dcap
from oracle.attestation.onchain.collateral import posts
from oracle.attestation.onchain.evidence import dcap_evidence, quote_chain
from oracle.chain.collateral import NAMES, is_newest, post_missing, store_of
from oracle.chain.deploy import Deployment
from oracle.chain.reader import Standing
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.collateral.cache import evaluation_of
from oracle.errors import Permanent, Retryable
from oracle.logs import Log
from oracle.worker.collateral import Appraisal
from oracle.worker.register import Registrar, check_evidence
from oracle.worker.vouching import AttestedRegistrar, Vouching


@dataclass(frozen=True)
class DcapRegistrar:
    """Intel DCAP, which the contract checks itself: what its collateral store lacks is posted first.

    It registers under the newest evaluation under which the platform stands no lower than under an earlier one that holds.
    Where only a lower standing is left, it shows the earlier one beside it, for agreements with a grace.
    """

    sender: Sender
    source: SingleSource
    store: str
    verifier: str
    appraisal: Appraisal

    async def voucher(self) -> Voucher | None:
        return None

    @property
    def anchor(self) -> bytes:
        return sha256(self.appraisal.root)

    def endorse(self, given: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return given

    def identify(self, evidence: Evidence, claimed: Identity, now: int) -> tuple[bytes, RegisteredIdentity]:
        # What an identity says lies in the quote and its certificate, whatever the evaluation.
        collateral = self.appraisal.collateral.for_quote(_parsed(evidence))
        verified = check_evidence(evidence, claimed, collateral, self.appraisal.root, now)
        return self.anchor, identity_of(evidence, PublicKey(evidence.sealing_key).digest, verified)

    async def proof(self, evidence: Evidence, registered: Standing | None, now: int) -> bytes:
        parsed = _parsed(evidence)
        choice = self.appraisal.choice(parsed, None if registered is None else registered.evaluation, now)
        if choice is None:
            raise Retryable(
                "register.collateral",
                "there is no collateral that holds and is not of an earlier evaluation than the registration's",
                expected=None if registered is None else registered.evaluation,
                hint="See `oracle collateral status`",
            )
        chosen, earlier = choice
        await self._post(chosen.collateral, parsed)
        if not await is_newest(self.source, self.store, chosen.collateral):
            self.appraisal.collateral.hurry(parsed)
            raise Retryable(
                "register.collateral",
                "the contracts have newer collateral than this worker; it has to be fetched",
                found=chosen.evaluation,
            )
        shown = None
        if earlier is not None:
            await self._post(earlier.collateral, parsed)
            # Where the chain has a later issue of it than we keep, agreements with a grace wait for that; others go on.
            shown = earlier.collateral if await is_newest(self.source, self.store, earlier.collateral) else None
        try:
            return dcap_evidence(parsed, chosen.collateral, shown)
        except AttestationError as error:
            raise evidence_refusal(error) from None

    async def _post(self, collateral: Collateral, parsed: ParsedQuote) -> None:
        try:
            wanted = posts(collateral, quote_chain(parsed))
        except AttestationError as error:
            raise evidence_refusal(error) from None
        posted = await post_missing(self.sender, self.source, self.store, wanted, self.anchor)
        if posted:
            Log("worker.registrar").info(
                "collateral posted",
                evaluation=evaluation_of(collateral),
                pieces=", ".join(NAMES[post.function] for post in posted),
            )


def make_registrar(
    appraisal: Appraisal | None,
    deployment: Deployment,
    sender: Sender,
    source: SingleSource,
    vouching: Vouching | None = None,
) -> Registrar | None:
    """None where others register the enclave. Raises Permanent `config.deployment`."""
    if vouching is not None:
        return AttestedRegistrar.of(vouching, deployment, source)
    if appraisal is None:
        return None
    verifier = deployment.verifiers.get("dcap")
    if verifier is None:
        raise Permanent("config.deployment", "the deployment has no verifier `dcap`")
    return DcapRegistrar(sender, source, store_of(deployment), verifier, appraisal)


def _parsed(evidence: Evidence) -> ParsedQuote:
    try:
        return parse_dcap(evidence.tee, evidence.quote)
    except AttestationError as error:
        raise evidence_refusal(error) from None
