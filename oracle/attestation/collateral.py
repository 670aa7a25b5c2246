"""What Intel publishes about a platform, as nine strings, and how long all of it stays valid.

The JSON form is dcap-qvl's QuoteCollateralV3. Sources: Intel PCS API v4; RFC 5280 (certificates and CRLs).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from cryptography import x509

from enclave_app.protocol.canonical import check_depth
from enclave_app.protocol.errors import Refused
from oracle.attestation.errors import Code, CollateralError

MAX_COLLATERAL_BYTES: Final = 4 * 1024 * 1024
_HEX_FIELDS: Final = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
_PEM_CHAIN: Final = re.compile(
    r"(?:-----BEGIN CERTIFICATE-----\s+(?:[A-Za-z0-9+/=]{1,76}\s+)+-----END CERTIFICATE-----\s*){1,8}", re.ASCII
)


class Window(NamedTuple):
    """Valid from `start` on, and no longer at `end`: dcap-qvl, too, counts a CRL as expired at its nextUpdate."""

    start: int
    end: int


@dataclass(frozen=True)
class Collateral:
    """QuoteCollateralV3. CRLs and signatures are lower-case hex; chains are PEM; the rest is JSON exactly as signed.

    The quote's own PCK chain is the one that counts, so a `pck_certificate_chain` beside these is ignored.
    """

    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str

    @classmethod
    def from_json(cls, text: str | bytes) -> Collateral:
        """Read QuoteCollateralV3 JSON. Raises CollateralError for another form."""
        if len(text) > MAX_COLLATERAL_BYTES:
            raise _malformed(f"{len(text)} bytes", f"at most {MAX_COLLATERAL_BYTES}")
        try:
            value = _load(text)
        except (ValueError, Refused) as cause:
            raise _malformed(f"no readable JSON ({cause})", "a QuoteCollateralV3 object") from cause
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or value.keys() - {"pck_certificate_chain"} != names:
            raise _malformed("other keys", ", ".join(sorted(names)))
        strings = {name: value[name] for name in names}
        if not all(isinstance(each, str) for each in strings.values()):
            raise _malformed("a value that is not a string", "nine strings")
        for name in _HEX_FIELDS:
            strings[name] = strings[name].lower()
            if not re.fullmatch("(?:[0-9a-f]{2})+", strings[name]):
                raise _malformed(f"{name} that is not hex", "hex")
        return cls(**strings)

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, no spaces, ASCII only."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON: 32 bytes, the `collateral` of a VerifierStatement."""
        return hashlib.sha256(self.to_json().encode()).digest()

    @property
    def tcb_evaluation(self) -> int:
        """tcbEvaluationDataNumber of the TCB info. Raises CollateralError."""
        return _evaluation(self.tcb_info, "tcb_info")

    @property
    def qe_evaluation(self) -> int:
        """tcbEvaluationDataNumber of the QE identity. Raises CollateralError."""
        return _evaluation(self.qe_identity, "qe_identity")

    def window(self) -> Window:
        """When every piece of it, and every certificate behind a piece, is valid. Raises CollateralError."""
        chains = (self.pck_crl_issuer_chain, self.tcb_info_issuer_chain, self.qe_identity_issuer_chain)
        windows = [certificate_window(each) for chain in chains for each in pem_chain(chain)]
        windows += [crl_window(crl) for crl in (self.root_ca_crl, self.pck_crl)]
        windows += [document_window(self.tcb_info, "tcb_info"), document_window(self.qe_identity, "qe_identity")]
        return intersection(windows)


def intersection(windows: list[Window]) -> Window:
    """The window in which all of `windows` hold; its start lies behind its end when there is none."""
    return Window(max(each.start for each in windows), min(each.end for each in windows))


def pem_chain(text: str) -> list[x509.Certificate]:
    """Certificates of a PEM chain that holds nothing else, so that two readers cannot see two chains.

    Raises CollateralError.
    """
    if not _PEM_CHAIN.fullmatch(text.rstrip("\0")):
        raise _malformed("something else than certificates in a PEM chain", "one to eight CERTIFICATE blocks only")
    try:
        chain = x509.load_pem_x509_certificates(text.rstrip("\0").encode())
        for each in chain:
            # Each of these is read only when it is asked for, and can fail.
            _ = each.subject, each.issuer, each.not_valid_before_utc, each.not_valid_after_utc
    except (ValueError, x509.InvalidVersion) as cause:
        raise _malformed(f"an unreadable certificate ({cause})", "X.509 certificates") from cause
    return chain


def certificate_window(certificate: x509.Certificate) -> Window:
    return Window(_seconds(certificate.not_valid_before_utc), _seconds(certificate.not_valid_after_utc))


def crl_window(crl_hex: str) -> Window:
    try:
        crl = x509.load_der_x509_crl(bytes.fromhex(crl_hex))
        end = crl.next_update_utc
        start = crl.last_update_utc
    except (ValueError, x509.InvalidVersion) as cause:
        raise _malformed(f"an unreadable revocation list ({cause})", "a CRL in DER") from cause
    if end is None:
        raise _malformed("a revocation list without nextUpdate", "one that says when it ends")
    return Window(_seconds(start), _seconds(end))


def document_window(text: str, name: str) -> Window:
    value = document(text, name)
    try:
        start, end = (datetime.fromisoformat(value[key]) for key in ("issueDate", "nextUpdate"))
        if start.tzinfo is None or end.tzinfo is None:
            raise _malformed(f"dates without a time zone in {name}", "UTC")
        # A date at either end of the calendar has no counterpart in UTC.
        return Window(_seconds(start), _seconds(end))
    except (KeyError, TypeError, ValueError, OverflowError) as cause:
        raise _malformed(f"{name} without readable dates ({cause!r})", "issueDate and nextUpdate") from cause


def _evaluation(text: str, name: str) -> int:
    number = document(text, name).get("tcbEvaluationDataNumber")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**32:
        raise _malformed(f"{number!r} as tcbEvaluationDataNumber of {name}", "a 32-bit number")
    return number


def document(text: str, name: str) -> dict[str, Any]:
    """The JSON object `text`, which messages call `name`. Raises CollateralError."""
    try:
        value = _load(text)
    except (ValueError, Refused) as cause:
        raise _malformed(f"unreadable {name} ({cause})", "Intel's JSON") from cause
    if not isinstance(value, dict):
        raise _malformed(f"{name} that is no object", "Intel's JSON object")
    return value


def _load(text: str | bytes) -> Any:
    """Raises ValueError and Refused. Floats are Intel's business; depth and duplicates are ours."""
    # `json.loads` takes bytes in UTF-16 and UTF-32 too, whose depth would be counted wrongly.
    text = text.decode() if isinstance(text, bytes) else text
    check_depth(text.encode("utf-8", "surrogatepass"))
    return json.loads(text, object_pairs_hook=_no_duplicates)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _seconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())


def _malformed(found: str, expected: str) -> CollateralError:
    return CollateralError(
        Code.COLLATERAL_FORMAT, found=found, expected=expected, action="fetch the collateral from Intel's PCS or a PCCS"
    )
