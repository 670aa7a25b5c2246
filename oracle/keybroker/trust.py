"""The broker's own appraisal of evidence: its roots, its collateral, its clock (R4, R13)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from enclave_app.protocol.digests import sha256
from oracle.attestation import (
    INTEL_ROOT_DIGEST,
    AttestationError,
    Collateral,
    DevelopmentRoot,
    ParsedQuote,
    Verified,
    evidence_refusal,
    intel_root,
    parse_evidence,
    verify,
)
from oracle.attestation.anchors import MAX_ROOT
from oracle.collateral import CollateralSource
from oracle.errors import Refused
from oracle.files import read_file
from oracle.keybroker.config import Anchors

KEEP_SECONDS = 300
"""How long a verified quote needs no second verification under the same collateral; appraisal is done each time."""
KEPT_QUOTES = 256


def load_roots(anchors: Anchors, chain_ids: tuple[int, ...]) -> dict[bytes, bytes]:
    """DER of each configured root by its digest. A development root beside a public chain is refused (R4)."""
    roots: dict[bytes, bytes] = {}
    try:
        if anchors.intel:
            roots[INTEL_ROOT_DIGEST] = intel_root()
        for path in anchors.development:
            root = DevelopmentRoot(read_file(path, MAX_ROOT))
            for chain_id in chain_ids:
                root.refuse_on_public_chain(chain_id)
            roots[root.digest] = root.der
    except AttestationError as error:
        raise Refused(f"anchors.{error.code}", str(error)) from None
    except Refused as error:
        raise Refused("anchors.unreadable", f"a development root cannot be read: {error.message}") from None
    return roots


class Trust:
    """Verifies quotes under the broker's roots. `clock` gives unix seconds."""

    def __init__(self, roots: Mapping[bytes, bytes], collateral: CollateralSource, clock: Callable[[], float]) -> None:
        self._roots, self._collateral, self._clock = dict(roots), collateral, clock
        self._kept: OrderedDict[tuple[int, bytes, bytes], Verified] = OrderedDict()

    @property
    def roots(self) -> tuple[bytes, ...]:
        return tuple(self._roots)

    def verify(self, tee: int, quote: bytes) -> Verified:
        """What holds about a quote, or a Refused or Retryable whose code is `evidence.` and the attestation code."""
        now = int(self._clock())
        try:
            parsed = parse_evidence(tee, quote)
            collateral = self._collateral.for_quote(parsed)
            place = tee, sha256(quote), collateral.digest
            kept = self._kept.get(place)
            if kept is not None and kept.verified_at <= now < min(kept.verified_at + KEEP_SECONDS, kept.valid_until):
                return kept
            verified = self._under_some_root(parsed, collateral, now)
        except AttestationError as error:
            raise evidence_refusal(error) from None
        self._kept[place] = verified
        while len(self._kept) > KEPT_QUOTES:
            self._kept.popitem(last=False)
        return verified

    def _under_some_root(self, parsed: ParsedQuote, collateral: Collateral, now: int) -> Verified:
        refusal: AttestationError | None = None
        for root in self._roots.values():
            try:
                return verify(parsed, collateral, root, now)
            except AttestationError as error:
                refusal = error
        raise refusal or Refused("anchors.none", "the broker has no trust anchor (R21)")
