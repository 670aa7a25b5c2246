"""What a receipt needs beside the result: gathered before the brokers are asked, so that nothing can be missing after.

The collateral is looked up for each task, and kept with the result: it has to be that of the time of the releases, and may
have been replaced by the time the task is settled.
"""

from __future__ import annotations

from enclave_app.protocol.release import TaskRecord
from oracle.attestation import AttestationError, ParsedQuote, parse_evidence
from oracle.errors import Refused, Retryable
from oracle.logs import Log
from oracle.receipt import Papers, make_receipt
from oracle.worker.blobs import TOO_LARGE, BlobCache
from oracle.worker.collateral import Appraisal
from oracle.worker.plan import Plan


class PaperFile:
    """Without `attestation` in the configuration there is nothing to show Intel's evidence with, and so there are no receipts."""

    def __init__(self, blobs: BlobCache, appraisal: Appraisal | None, vouched: bool = False) -> None:
        self._blobs, self._appraisal, self._vouched = blobs, appraisal, vouched
        if appraisal is None and not vouched:
            Log("worker.receipts").warning("no receipts will be written: the configuration has no `attestation`")

    async def gather(self, plan: Plan) -> Papers | None:
        """Raises Retryable where storage or the configured files fail: a release that was spent brings a receipt, too."""
        if self._appraisal is None and not self._vouched:
            return None
        agreement, evidence = plan.agreement, plan.enrolled.evidence
        try:
            parsed, collateral, root = parse_evidence(evidence.tee, evidence.quote), None, None
            if self._appraisal is not None and isinstance(parsed, ParsedQuote):
                collateral, root = self._appraisal.collateral.for_quote(parsed), self._appraisal.root
            return Papers(
                function=await self._function(agreement.fn.id),
                param_domain=await self._blobs.get(agreement.param_domain),
                manifests=tuple([await self._blobs.get(version) for version in plan.request.versions]),
                collateral=collateral,
                root=root,
            )
        except AttestationError as error:
            raise Retryable(f"attestation.{error.code}", str(error)) from None

    async def _function(self, digest: bytes) -> bytes | None:
        try:
            return await self._blobs.get(digest)
        except Retryable as error:
            if error.code != TOO_LARGE:
                raise
            return None


def receipt_of(record: TaskRecord, papers: Papers | None, log: Log) -> bytes | None:
    """The receipt's bytes, or None where there is none to make: a result is worth settling all the same."""
    if papers is None:
        return None
    try:
        return make_receipt(record, papers)
    except Refused as error:
        log.error("no receipt can be made", code=error.code, message=error.message)
        return None
