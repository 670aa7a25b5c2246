"""The broker's own appraisal of evidence: its roots, its collateral, its clock (R4, R13)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

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
    parse_dcap,
    verify,
)
from oracle.attestation.anchors import MAX_ROOT
from oracle.attestation.collateral import MAX_COLLATERAL_BYTES, pem_chain
from oracle.attestation.qvl import QvlRefused, pck_values
from oracle.errors import Refused, Retryable
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


class CollateralFiles:
    """Collateral that the broker's operator put there: one file, or a directory with one for each TEE and FMSPC.

    A file that changes is read again, so fresh collateral needs no restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[Path, tuple[int, Collateral]] = {}

    def for_quote(self, parsed: ParsedQuote) -> Collateral:
        path = self._path / _file_name(parsed) if self._path.is_dir() else self._path
        try:
            changed = path.stat().st_mtime_ns
            known = self._read.get(path)
            if known is None or known[0] != changed:
                known = self._read[path] = changed, Collateral.from_json(read_file(path, MAX_COLLATERAL_BYTES))
        except AttestationError as error:
            raise Retryable(f"collateral.{error.code}", "the broker's collateral cannot be read") from None
        except (OSError, Refused):
            raise Retryable(
                "collateral.missing", "the broker has no collateral for this platform", expected=path.name
            ) from None
        return known[1]


class Trust:
    """Verifies quotes under the broker's roots. `clock` gives unix seconds."""

    def __init__(self, roots: Mapping[bytes, bytes], collateral: CollateralFiles, clock: Callable[[], float]) -> None:
        self._roots, self._collateral, self._clock = dict(roots), collateral, clock
        self._kept: OrderedDict[tuple[int, bytes, bytes], Verified] = OrderedDict()

    @property
    def roots(self) -> tuple[bytes, ...]:
        return tuple(self._roots)

    def verify(self, tee: int, quote: bytes) -> Verified:
        """What holds about a quote, or a Refused or Retryable whose code is `evidence.` and the attestation code."""
        now = int(self._clock())
        try:
            parsed = parse_dcap(tee, quote)
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


def _file_name(parsed: ParsedQuote) -> str:
    leaf = pem_chain(parsed.section.certification.decode("latin-1"))[0]
    try:
        fmspc = pck_values(leaf.public_bytes(Encoding.PEM)).fmspc
    except QvlRefused as error:
        raise Refused("evidence.pck_chain", f"the platform's certificate cannot be read: {error}") from None
    return f"{parsed.tee.name.lower()}-{fmspc.hex()}.json"
