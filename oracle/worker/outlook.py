"""Looks ahead for the worker: what of its registration ends when, and what a coming evaluation will make of its platform.

It renews where that stands the platform better, warns once for each thing that is coming, and sets the gauges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from enclave_app.protocol.digests import sha256
from oracle.attestation import AttestationError, ParsedQuote, TcbStatus, parse_dcap
from oracle.attestation.onchain.structs import TcbInfo
from oracle.attestation.types import intel_name
from oracle.chain.reader import Standing as Registered
from oracle.collateral.cache import write_whole
from oracle.collateral.outlook import Standing, choose, rank
from oracle.collateral.pieces import pieces
from oracle.errors import OracleError, Refused, Retryable
from oracle.logs import Log
from oracle.worker.collateral import Appraisal
from oracle.worker.enrolment import Enrolment
from oracle.worker.metrics import STATUSES, Metrics
from oracle.worker.register import Enrolled

INTERVAL: Final = 60.0
FIRST_INTERVAL: Final = 2.0
DAY: Final = 86_400
WARN_SECONDS: Final = 7 * DAY
"""Collateral that ends sooner than this is warned of; Intel issues it for 30 days, and anew all the time."""
REGISTRATION_WARN_SECONDS: Final = DAY // 2
"""The worker renews a day before a registration ends, so what is left by then was not renewed."""


class Outlook:
    """`now` is the chain's time in unix seconds. `file` receives the gauges, where it is set."""

    def __init__(
        self,
        enrolment: Enrolment,
        appraisal: Appraisal | None,
        gauges: Metrics,
        now: Callable[[], int],
        file: Path | None,
    ) -> None:
        self._enrolment, self._appraisal = enrolment, appraisal
        self._gauges, self._now, self._file = gauges, now, file
        self._told: set[tuple[object, ...]] = set()
        self._tried: tuple[object, ...] | None = None
        self._seen = False
        self._log = Log("worker.outlook")

    async def watch(self, interval: float = INTERVAL) -> None:
        """Until cancelled. What it cannot see now, it looks at again."""
        while True:
            try:
                await self.look()
            except OracleError as error:
                self._log.warning("the outlook cannot be seen", code=error.code, message=error.message)
            # At the start there is nothing to look at, for a moment.
            await asyncio.sleep(interval if self._seen else min(interval, FIRST_INTERVAL))

    async def look(self) -> None:
        """Once. Raises what the collateral's source does."""
        enrolled = await self._enrolment.reread()
        self._seen = enrolled is not None
        try:
            self._tell_registration(enrolled)
            if enrolled is not None and self._appraisal is not None and enrolled.anchor == sha256(self._appraisal.root):
                await self._look_ahead(enrolled, self._appraisal)
        finally:
            if self._file is not None:
                try:
                    await asyncio.to_thread(write_whole, self._file, self._gauges.text().encode())
                except Refused as error:
                    self._once(
                        ("file", error.code), "the gauges cannot be written", code=error.code, message=error.message
                    )

    def _tell_registration(self, enrolled: Enrolled | None) -> None:
        standing = None if enrolled is None else enrolled.record.standing
        good = standing is not None and not standing.retired and standing.tcb_status != TcbStatus.REVOKED
        now, gauges = self._now(), self._gauges
        gauges.set("registered", int(good and standing is not None and standing.valid_until >= now))
        if standing is None:
            return
        gauges.set("registration_valid_until", standing.valid_until)
        gauges.set("registration_evidence_at", standing.evidence_at)
        gauges.set("registration_evaluation", standing.evaluation)
        gauges.set_only("registration_tcb_status", {STATUSES[TcbStatus(standing.tcb_status)]: 1}, "status")
        gauges.set("registration_grace_from", standing.changed_at if standing.earlier_status else None)
        left = standing.valid_until - now
        if left < REGISTRATION_WARN_SECONDS:
            self._once(
                ("registration", standing.valid_until), "the registration ends soon and was not renewed", seconds=left
            )

    async def _look_ahead(self, enrolled: Enrolled, appraisal: Appraisal) -> None:
        try:
            parsed = parse_dcap(enrolled.evidence.tee, enrolled.evidence.quote)
        except AttestationError as error:
            raise Retryable(f"evidence.{error.code}", str(error)) from None
        now, registered = self._now(), enrolled.record.standing
        held = await asyncio.to_thread(appraisal.standings, parsed, now)
        choice = choose(held, registered.evaluation)
        self._gauges.set("collateral_available", int(choice is not None))
        if choice is None:
            self._once(
                ("none", registered.evaluation, now // DAY),
                "no collateral holds under which the enclave could be renewed",
                evaluation=registered.evaluation,
                reasons=[each.reason or "ended" for each in held],
            )
            return
        chosen, _ = choice
        self._tell_collateral(chosen, now)
        await self._tell_coming(parsed, appraisal, chosen, now)
        await self._move(chosen, registered)

    def _tell_collateral(self, chosen: Standing, now: int) -> None:
        found = pieces(chosen.collateral)
        self._gauges.set("collateral_evaluation", chosen.evaluation)
        self._gauges.set_only("collateral_ends", {each.name: each.ends for each in found}, "piece")
        if found[0].ends - now < WARN_SECONDS:
            self._once(
                ("ends", found[0].name, found[0].ends),
                "collateral ends soon and no newer was found",
                piece=found[0].name,
                days_left=round((found[0].ends - now) / DAY, 1),
            )

    async def _tell_coming(self, parsed: ParsedQuote, appraisal: Appraisal, chosen: Standing, now: int) -> None:
        coming = await asyncio.to_thread(appraisal.coming, parsed, now)
        self._gauges.set("coming_evaluation", None if coming is None else coming.evaluation)
        statuses = {} if coming is None or coming.status is None else {STATUSES[coming.status]: 1.0}
        self._gauges.set_only("coming_tcb_status", statuses, "status")
        worse = coming is not None and rank(coming.status) > rank(chosen.status)
        self._gauges.set("tcb_coming_down", int(worse))
        if coming is None:
            return
        say = self._once if worse else self._once_info
        say(
            ("coming", coming.evaluation, coming.status),
            "a coming evaluation lowers this platform: update it" if worse else "an evaluation is coming",
            evaluation=coming.evaluation,
            status_now=_name(chosen),
            status_then=_name(coming),
            fixes_from=TcbInfo.of(coming.collateral).changed_at,
        )

    async def _move(self, chosen: Standing, registered: Registered) -> None:
        """Renew where that is a step up, or no step down to a newer evaluation; once for each collateral."""
        was = rank(TcbStatus(registered.tcb_status))
        better = rank(chosen.status) < was or (rank(chosen.status) == was and chosen.evaluation > registered.evaluation)
        trial = (chosen.collateral.digest, registered.evaluation, registered.tcb_status)
        if not better or trial == self._tried:
            return
        self._tried = trial
        self._log.info(
            "renewing under another evaluation",
            evaluation=chosen.evaluation,
            was=registered.evaluation,
            status=_name(chosen),
            status_was=intel_name(TcbStatus(registered.tcb_status)),
        )
        try:
            await self._enrolment.renew()
        except Retryable:
            self._tried = None
            raise

    def _once(self, about: tuple[object, ...], event: str, **fields: object) -> None:
        if about not in self._told:
            self._told.add(about)
            self._log.warning(event, **fields)

    def _once_info(self, about: tuple[object, ...], event: str, **fields: object) -> None:
        if about not in self._told:
            self._told.add(about)
            self._log.info(event, **fields)


def _name(standing: Standing) -> str:
    return str(standing.reason) if standing.status is None else intel_name(standing.status)
