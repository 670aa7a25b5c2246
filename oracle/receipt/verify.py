"""Verifying a receipt: all links in order, up to the first that fails. Pure, and offline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from enclave_app.protocol.structs import Outcome, RegisteredIdentity
from oracle.chain.reader import Consent, EnclaveRecord
from oracle.errors import OracleError
from oracle.receipt.document import SIMULATED, Receipt, read_receipt
from oracle.receipt.links import LINKS, Case, Expected

FORMAT = "format"


class Verdict(StrEnum):
    AUTHENTIC = "authentic"
    CONSISTENT = "consistent, not authenticated"
    REFUSED = "refused"


@dataclass(frozen=True)
class LinkReport:
    """`ok` is None for a link that was not reached."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True)
class Report:
    """`failed` and `reason` name the first link that failed, and the code of why; both None where none did. `enclave` is what
    the evidence says that the registry holds, where it was reached."""

    verdict: Verdict
    simulated: bool
    links: tuple[LinkReport, ...]
    failed: str | None
    reason: str | None
    receipt: Receipt | None
    enclave: RegisteredIdentity | None = None

    @property
    def outcome(self) -> str | None:
        """The result's outcome, once the chain of links reached it."""
        if self.receipt is None or not any(link.name == "result" and link.ok for link in self.links):
            return None
        return Outcome(self.receipt.result.outcome).name.lower()


def verify_receipt(
    data: bytes,
    expected: Expected,
    now: int,
    *,
    allow_simulated: bool = False,
    recorded: Mapping[str, Consent] | None = None,
    registered: EnclaveRecord | None = None,
    function: bytes | None = None,
) -> Report:
    """What holds about a receipt's bytes. Never raises for what is in them.

    `now` is the verifier's clock in unix seconds, and only bounds the future; `recorded` are consents that the chain
    recorded, and `registered` what it held of the enclave (`oracle.receipt.onchain`); `function` is the bundle of a receipt
    that was made without one.
    """
    try:
        receipt = read_receipt(data)
    except OracleError as error:
        links = (LinkReport(FORMAT, False, error.message), *(LinkReport(name, None, "") for name in LINKS))
        return Report(Verdict.REFUSED, True, links, FORMAT, error.code, None)
    case = Case(receipt, expected, now, allow_simulated, recorded or {}, function, registered)
    links, reason = walk((name, partial(link, case)) for name, link in LINKS.items())
    return _report(case, (LinkReport(FORMAT, True, f"a receipt, {len(data)} bytes"), *links), reason)


def _report(case: Case, links: tuple[LinkReport, ...], reason: str | None) -> Report:
    failed = next((link.name for link in links if link.ok is False), None)
    verdict = Verdict.AUTHENTIC if case.expected.known else Verdict.CONSISTENT
    return Report(
        verdict=verdict if failed is None else Verdict.REFUSED,
        simulated=case.assurance == SIMULATED,
        links=links,
        failed=failed,
        reason=reason,
        receipt=case.receipt,
        enclave=case.identity,
    )


def walk(links: Iterable[tuple[str, Callable[[], str]]]) -> tuple[tuple[LinkReport, ...], str | None]:
    """Each link's report, up to the first that fails, and the code of its failure."""
    reports: list[LinkReport] = []
    reason: str | None = None
    for name, check in links:
        if reason is not None:
            reports.append(LinkReport(name, None, ""))
            continue
        try:
            reports.append(LinkReport(name, True, check()))
        except OracleError as error:
            reason = str(error.code)
            reports.append(LinkReport(name, False, error.message))
    return tuple(reports), reason
