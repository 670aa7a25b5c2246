"""The verifier's role: hold evidence that no contract can check against a measured policy, and sign what it is.

Whoever relies on a statement has agreed on this enclave's measurement, and so on its policy (R3). The clock is the host's:
a registry takes a statement only near its block's time (R14).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from enclave_app.appraise.claims import Claims
from enclave_app.appraise.errors import Code, EvidenceRefused
from enclave_app.appraise.nitro import parse_document, verify_document
from enclave_app.appraise.snp import SnpClaims, SnpEndorsements, parse_report, verify_report
from enclave_app.config import NitroPolicy, SnpPolicy, Svns, VerifierPolicy
from enclave_app.identity import EnclaveIdentity
from enclave_app.logs import Log
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.eip712 import Domain
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.structs import TcbStatus, Tee, VerifierStatement
from enclave_app.protocol.wire import AppraisalAnswer, AppraisalBody

ALIAS_CHECK_COMPLETE: Final = 1 << 5
"""Of PLATFORM_INFO (AMD 56860)."""
_BOUND: Final = 32


class Verifier:
    """Signs statements under one policy."""

    def __init__(self, identity: EnclaveIdentity, policy: VerifierPolicy, log: Log) -> None:
        self._identity, self._policy, self._log = identity, policy, log

    def appraise(self, body: AppraisalBody) -> AppraisalAnswer:
        """Raises Refused: `evidence.` and why it is not genuine, or `appraisal.` and what the policy does not take."""
        try:
            claims, status = self._judge(body)
        except EvidenceRefused as error:
            raise Refused(f"evidence.{error.code}", error.message) from None
        # R2: the second half is nobody's, and a statement has no room for it.
        if len(claims.report_data) != 2 * _BOUND or any(claims.report_data[_BOUND:]):
            raise _not_taken("report_data", "report data of another form", expected="32 bytes, then 32 zeros")
        statement = VerifierStatement(
            tee=claims.tee,
            measurement=claims.measurement,
            report_data=claims.report_data[:_BOUND],
            root=claims.root,
            tcb_status=status,
            evaluation=0,
            platform=claims.platform,
            svn_digest=claims.svn_digest,
            collateral=claims.collateral,
            appraised_at=body.now,
            # The registry takes it as the last second, claims as the first one behind.
            valid_until=claims.valid_until - 1,
        )
        domain = Domain(chain_id=body.chain_id, verifying_contract=body.registry)
        self._log("evidence.vouched", tee=claims.tee.name, measurement=claims.measurement, status=status.name)
        return AppraisalAnswer(
            statement=statement, signature=self._identity.signer.sign(statement.typed_digest(domain))
        )

    def _judge(self, body: AppraisalBody) -> tuple[Claims, TcbStatus]:
        if body.tee == Tee.SNP and self._policy.snp is not None:
            return _snp(body, self._policy.snp)
        if body.tee == Tee.NITRO and self._policy.nitro is not None:
            return _nitro(body, self._policy.nitro)
        raise _not_taken("tee", "this verifier does not vouch for evidence of this kind of TEE", found=body.tee)


def _snp(body: AppraisalBody, policy: SnpPolicy) -> tuple[Claims, TcbStatus]:
    report = parse_report(body.quote)
    endorsements = replace(SnpEndorsements.of(body.endorsements), crl=body.crl)
    if policy.crl == "require" and body.crl is None:
        raise _not_taken("crl", "AMD's revocation list is missing")
    root, revoked = _listed(sha256(endorsements.ark), policy.roots), False
    try:
        claims = verify_report(report, endorsements, root, body.now)
    except EvidenceRefused as error:
        if error.code != Code.CERTIFICATE_REVOKED:
            raise
        # Said and not refused, so that a registration from before can be challenged.
        claims, revoked = verify_report(report, replace(endorsements, crl=None), root, body.now), True
        claims = replace(claims, collateral=endorsements.digest)
    if report.vmpl not in policy.vmpl:
        raise _not_taken("vmpl", "a privilege level that may not ask", found=report.vmpl, expected=policy.vmpl)
    if report.signer.name not in policy.keys:
        raise _not_taken("key", "an endorsement key that does not count", found=report.signer.name)
    if policy.alias_check == "require" and not report.platform_info & ALIAS_CHECK_COMPLETE:
        raise _not_taken("alias_check", "a platform that did not check its memory for aliases")
    # R3: that an agent may copy the guest is measured, but not whose agent it is.
    if report.policy.migration_agent:
        raise _not_taken("migration", "a guest that a migration agent may copy")
    least = _least(policy, claims)
    status = TcbStatus.UP_TO_DATE if _reaches(claims.tcb, least) else TcbStatus.OUT_OF_DATE
    return claims, TcbStatus.REVOKED if revoked else status


def _nitro(body: AppraisalBody, policy: NitroPolicy) -> tuple[Claims, TcbStatus]:
    document = parse_document(body.quote)
    root = _listed(sha256(document.cabundle[0]), policy.roots)
    # AWS tells no status of its hypervisors: what its root signs today is what runs today.
    return verify_document(document, root, body.now), TcbStatus.UP_TO_DATE


def _listed(root: bytes, roots: tuple[bytes, ...]) -> bytes:
    # R4
    if root not in roots:
        raise _not_taken("root", "a root that this verifier does not take", found=root.hex())
    return root


def _least(policy: SnpPolicy, claims: SnpClaims) -> Svns:
    lines = {"Milan": policy.min_tcb.milan, "Genoa": policy.min_tcb.genoa, "Turin": policy.min_tcb.turin}
    least = lines[claims.line.name]
    if least is None:
        raise _not_taken("line", "a processor line that this verifier does not take", found=claims.line.name)
    return least


def _reaches(tcb: dict[str, int], least: Svns) -> bool:
    return all(tcb[name] >= number for name, number in least.model_dump().items())


def _not_taken(code: str, message: str, *, found: object = None, expected: object = None) -> Refused:
    return Refused(f"appraisal.{code}", message, found=found, expected=expected)
