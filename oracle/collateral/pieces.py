"""Collateral piece by piece: when each was issued, when it ends, and which of two issues is the newer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from oracle.attestation import Collateral
from oracle.attestation.collateral import Window, certificate_window, crl_window, document_window, pem_chain


@dataclass(frozen=True)
class Piece:
    """`issued` and `ends` in unix seconds; at `ends` it no longer counts. `evaluation` where it has a number."""

    name: str
    issued: int
    ends: int
    evaluation: int | None = None


class _Part(NamedTuple):
    name: str
    window: Callable[[Collateral], Window]
    fields: tuple[str, ...]
    evaluation: Callable[[Collateral], int] | None = None


_SIGNED = (
    _Part("TCB info", lambda c: document_window(c.tcb_info, "tcb_info"),
          ("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain"), lambda c: c.tcb_evaluation),
    _Part("QE identity", lambda c: document_window(c.qe_identity, "qe_identity"),
          ("qe_identity", "qe_identity_signature", "qe_identity_issuer_chain"), lambda c: c.qe_evaluation),
    _Part("PCK CRL", lambda c: crl_window(c.pck_crl), ("pck_crl", "pck_crl_issuer_chain")),
    _Part("root CRL", lambda c: crl_window(c.root_ca_crl), ("root_ca_crl",)),
)  # fmt: skip


def pieces(collateral: Collateral) -> tuple[Piece, ...]:
    """What the collateral consists of, the earliest end first. Raises CollateralError."""
    found = [
        Piece(part.name, *part.window(collateral), None if part.evaluation is None else part.evaluation(collateral))
        for part in _SIGNED
    ]
    certificates = {
        "TCB signing certificate": pem_chain(collateral.tcb_info_issuer_chain)[0],
        "QE identity's signing certificate": pem_chain(collateral.qe_identity_issuer_chain)[0],
        "PCK CA": pem_chain(collateral.pck_crl_issuer_chain)[0],
        "root": pem_chain(collateral.pck_crl_issuer_chain)[-1],
    }
    if certificates["TCB signing certificate"] == certificates["QE identity's signing certificate"]:
        del certificates["QE identity's signing certificate"]
    found += [Piece(name, *certificate_window(each)) for name, each in certificates.items()]
    return tuple(sorted(found, key=lambda each: each.ends))


def newest(held: Collateral, fetched: Collateral, now: int) -> tuple[Collateral, tuple[str, ...]]:
    """Each piece that still holds at `now` from whichever has the higher evaluation or the later issue, and the names of
    those that `fetched` would have rolled back.

    A service must not hide a revocation by sending yesterday's list. Both are of one platform. Raises CollateralError.
    """
    kept, older = fetched, []
    for part in _SIGNED:
        if part.window(held).end > now and _rank(part, held) > _rank(part, fetched):
            kept = replace(kept, **{name: getattr(held, name) for name in part.fields})
            older.append(part.name)
    return kept, tuple(older)


def _rank(part: _Part, collateral: Collateral) -> tuple[int, int]:
    return 0 if part.evaluation is None else part.evaluation(collateral), part.window(collateral).start
