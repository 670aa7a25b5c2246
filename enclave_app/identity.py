"""Who this enclave is: two keys that live and die with this process (R1), and evidence that binds them (R2)."""

from __future__ import annotations

from typing import Final

from enclave_app.appraise.nitro import parse_document
from enclave_app.attesters.base import Attester
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.errors import Bug, Refused
from enclave_app.protocol.evidence import report_data
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.measurement import (
    SGX_BODY_BYTES,
    TDX_BODY_BYTES,
    TEE_NITRO,
    TEE_SGX,
    TEE_SNP,
    TEE_TDX,
    sgx_measurement,
    snp_measurement,
    tdx_measurement,
)
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Enrolment, Retire
from enclave_app.protocol.wire import EvidenceAnswer, EvidenceBody, Identity, RetireAnswer, RetireBody

_QUOTE_HEADER: Final = 48
_V5_BODY_HEADER: Final = 6


def quoted_measurement(tee: int, quote: bytes) -> bytes:
    """The measurement in an SGX (v3) or TDX (v4, v5) quote, an SNP report or a Nitro document: what verifiers will compute.

    Raises ValueError or Refused for evidence of another form, and Refused for a kind of TEE that is not known.
    """
    if tee == TEE_SNP:
        return snp_measurement(quote)
    if tee == TEE_NITRO:
        return parse_document(quote).measurement
    if tee not in (TEE_SGX, TEE_TDX):
        raise Refused("identity.measurement", "this program cannot measure evidence of this kind of TEE", found=tee)
    body = quote[_QUOTE_HEADER:]
    if tee == TEE_SGX:
        return sgx_measurement(body[:SGX_BODY_BYTES])
    version = int.from_bytes(quote[:2], "little")
    if version == 5:
        size = int.from_bytes(body[2:_V5_BODY_HEADER], "little")
        return tdx_measurement(body[_V5_BODY_HEADER : _V5_BODY_HEADER + size])
    return tdx_measurement(body[: TDX_BODY_BYTES[0]])


class EnclaveIdentity:
    """The keys and the evidence. `create` makes both keys anew: an identity is never read from anywhere (R1)."""

    def __init__(
        self, attester: Attester, measurement: bytes, sandbox: tuple[str, ...], signer: SigningKey, sealing: SealingKey
    ) -> None:
        self._attester, self._sandbox = attester, sandbox
        self.measurement, self.signer, self.sealing = measurement, signer, sealing

    @classmethod
    async def create(cls, attester: Attester, sandbox: tuple[str, ...]) -> EnclaveIdentity:
        """New keys, and this enclave's own measurement as its attester reports it. Raises what the attester raises."""
        try:
            measurement = quoted_measurement(attester.tee, await attester.quote(bytes(64)))
        except ValueError:
            raise Bug("identity.quote", "the attester's quote is not in its TEE's form") from None
        return cls(attester, measurement, sandbox, SigningKey.generate(), SealingKey.generate())

    @property
    def attester(self) -> str:
        """The kind of attester, after `auto` has chosen."""
        return self._attester.kind

    def describe(self) -> Identity:
        return Identity(
            signer=self.signer.address,
            sealing_key=self.sealing.public.wire,
            tee=self._attester.tee,
            attester=self._attester.kind,
            measurement=self.measurement,
            sandbox=self._sandbox,
            simulated=self._attester.simulated,
        )

    async def evidence(self, body: EvidenceBody) -> EvidenceAnswer:
        """A quote over these keys, a chain, its registry and a recent block (R2), and the proof of possession.

        The block hash is the host's word: whoever appraises the evidence compares it with the chain.
        """
        digest = self.sealing.public.digest
        quote = await self._attester.quote(
            report_data(body.chain_id, body.registry, self.signer.address, digest, body.block_hash)
        )
        enrolment = Enrolment(
            signer=self.signer.address, sealing_key=digest, block_hash=body.block_hash, operator=body.operator
        )
        domain = Domain(chain_id=body.chain_id, verifying_contract=body.registry)
        return EvidenceAnswer(
            quote=quote,
            proof_of_possession=self.signer.sign(enrolment.typed_digest(domain)),
            endorsements=await self._attester.endorsements(),
        )

    def retire(self, body: RetireBody) -> RetireAnswer:
        """The signer's word that it is over, for whoever brings it to the registry. The host may ask for it at any time: it can
        end this enclave as well."""
        domain = Domain(chain_id=body.chain_id, verifying_contract=body.registry)
        digest = Retire(signer=self.signer.address).typed_digest(domain)
        return RetireAnswer(signature=self.signer.sign(digest))

    def __repr__(self) -> str:
        return f"EnclaveIdentity({self.signer.address})"
