"""A typed door to dcap-qvl, which ships no type marker. Source: dcap-qvl 0.7.0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dcap_qvl

from oracle.attestation.collateral import Collateral


class QvlRefused(Exception):
    """dcap-qvl refused; the message is its own reason."""


@dataclass(frozen=True)
class QvlReport:
    """`status` is Intel's word for platform, module and QE merged; `report` the body's fields in hex, by name."""

    status: str
    advisory_ids: tuple[str, ...]
    ppid: bytes
    report: dict[str, str | int]


@dataclass(frozen=True)
class PckValues:
    """The SGX extension of a PCK certificate: PPID 16 bytes, CPUSVN 16, PCEID 2, FMSPC 6."""

    ppid: bytes
    cpu_svn: bytes
    pce_svn: int
    pce_id: bytes
    fmspc: bytes


def verify_quote(quote: bytes, collateral: Collateral, root_der: bytes, now: int) -> QvlReport:
    """Verify `quote` under `root_der` at `now` (unix seconds). Raises QvlRefused."""
    with _refusals():
        parsed = dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json())
        result = json.loads(dcap_qvl.verify_with_root_ca(quote, parsed, root_der, now).to_json())
    return QvlReport(
        status=result["status"],
        advisory_ids=tuple(result["advisory_ids"]),
        ppid=bytes.fromhex(result["ppid"]),
        report=_flat(result["report"]),
    )


def pck_values(leaf_pem: bytes) -> PckValues:
    """Read the SGX extension of a PCK certificate in PEM. Raises QvlRefused."""
    with _refusals():
        extension = dcap_qvl.parse_pck_extension_from_pem(leaf_pem)
        return PckValues(
            bytes(extension.ppid),
            bytes(extension.cpu_svn),
            int(extension.pce_svn),
            bytes(extension.pce_id),
            bytes(extension.fmspc),
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """dcap-qvl's own reasons. It is built so that a panic ends the process, so what is known to panic never gets here."""
    try:
        yield
    except ValueError as cause:
        raise QvlRefused(" ".join(str(cause).split())) from cause


def _flat(report: dict[str, Any]) -> dict[str, str | int]:
    """The fields of {"SgxEnclave": {…}}, {"TD10": {…}} or {"TD15": {"base": {…}, …}} in one dictionary."""
    (body,) = report.values()
    fields = dict(body)
    fields.update(fields.pop("base", {}))
    return fields
