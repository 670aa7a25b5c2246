"""The broker's own appraisal of evidence: its roots, its collateral, its clock (R4, R13)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from enclave_app.protocol.digests import sha256
from oracle.attestation import (
    AttestationError,
    Collateral,
    DevelopmentRoot,
    ParsedQuote,
    SnpEndorsements,
    Verified,
    carried,
    evidence_refusal,
    maker_roots,
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
        for maker, taken in (("intel", anchors.intel), ("amd", anchors.amd), ("aws", anchors.aws)):
            roots |= maker_roots(maker) if taken else {}
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
    """Verifies evidence under the broker's roots. `clock` gives unix seconds."""

    def __init__(self, roots: Mapping[bytes, bytes], collateral: CollateralSource, clock: Callable[[], float]) -> None:
        self._roots, self._collateral, self._clock = dict(roots), collateral, clock
        self._kept: OrderedDict[tuple[int, bytes, bytes], Verified] = OrderedDict()

    @property
    def roots(self) -> tuple[bytes, ...]:
        return tuple(self._roots)

    def verify(self, tee: int, quote: bytes, endorsements: Sequence[bytes] = ()) -> Verified:
        """What holds about evidence, or a Refused or Retryable whose code is `evidence.` and the attestation code."""
        now = int(self._clock())
        try:
            parsed = parse_evidence(tee, quote)
            roots = self._roots
            beside: Collateral | SnpEndorsements | None
            if isinstance(parsed, ParsedQuote):
                beside = self._collateral.for_quote(parsed)
            else:
                root, beside = carried(parsed, endorsements)
                roots = {each: der for each, der in self._roots.items() if each == sha256(root)} or self._roots
            place = tee, sha256(quote), b"" if beside is None else beside.digest
            kept = self._kept.get(place)
            if kept is not None and kept.verified_at <= now < min(kept.verified_at + KEEP_SECONDS, kept.valid_until):
                return kept
            verified = _under_some(roots, lambda root: verify(parsed, beside, root, now))
        except AttestationError as error:
            raise evidence_refusal(error) from None
        self._kept[place] = verified
        while len(self._kept) > KEPT_QUOTES:
            self._kept.popitem(last=False)
        return verified


def _under_some(roots: Mapping[bytes, bytes], verify_under: Callable[[bytes], Verified]) -> Verified:
    refusal: AttestationError | None = None
    for root in roots.values():
        try:
            return verify_under(root)
        except AttestationError as error:
            refusal = error
    raise refusal or Refused("anchors.none", "the broker has no trust anchor (R21)")
