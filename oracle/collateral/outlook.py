"""What becomes of a platform under each evaluation that is offered: where it stands now, and where it will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oracle.attestation import AttestationError, Collateral, ParsedQuote, TcbStatus, verify
from oracle.collateral.cache import evaluation_of
from oracle.collateral.check import Evaluation, check_collateral, check_evaluations
from oracle.collateral.pcs import Pcs
from oracle.collateral.platform import Platform

ORDER = (
    TcbStatus.UP_TO_DATE,
    TcbStatus.SW_HARDENING_NEEDED,
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    TcbStatus.TD_RELAUNCH_ADVISED,
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
    TcbStatus.OUT_OF_DATE,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.REVOKED,
)
"""Intel's order, the best first, as the contracts have it (TcbRank.sol)."""
STANDARD_AFTER = 365 * 86_400
"""Intel makes an evaluation the standard about this long after its recovery event."""


@dataclass(frozen=True)
class Standing:
    """A platform under one collateral. `status` is None where the evidence does not hold under it, and `reason` the code.

    Of collateral that `ended` it is the status of its last second: an earlier one to show, none to register with.
    """

    collateral: Collateral
    status: TcbStatus | None
    ended: bool = False
    reason: str | None = None

    @property
    def evaluation(self) -> int:
        return evaluation_of(self.collateral)

    @property
    def holds(self) -> bool:
        return not self.ended and self.status is not None and self.status is not TcbStatus.REVOKED


def standing(parsed: ParsedQuote, collateral: Collateral, root_der: bytes, now: int) -> Standing:
    """How a quote stands under `collateral`, whatever it binds. What it finds is never raised."""
    try:
        end = collateral.window().end
        ended = now >= end
        return Standing(collateral, verify(parsed, collateral, root_der, end - 1 if ended else now).tcb_status, ended)
    except AttestationError as error:
        return Standing(collateral, None, reason=str(error.code))


def rank(status: TcbStatus | None) -> int:
    """0 for the best; None, where nothing holds, is the lowest."""
    return len(ORDER) if status is None else ORDER.index(status)


def choose(candidates: Sequence[Standing], registered: int | None) -> tuple[Standing, Standing | None] | None:
    """Under which evaluation to register, and an earlier one to show beside it; None where none will do.

    The highest evaluation under which the platform stands best; but none below `registered`, which the registry refuses.
    Where it stood better under an earlier one, that is shown, so that agreements with a grace take it.
    """
    allowed = [each for each in candidates if each.holds and (registered is None or each.evaluation >= registered)]
    if not allowed:
        return None
    chosen = min(allowed, key=lambda each: (rank(each.status), -each.evaluation))
    earlier = [
        each for each in candidates if each.evaluation < chosen.evaluation and rank(each.status) < rank(chosen.status)
    ]
    return chosen, min(earlier, key=lambda each: (rank(each.status), -each.evaluation), default=None)


async def outlook(
    pcs: Pcs, platform: Platform, root_der: bytes, now: int
) -> tuple[tuple[Evaluation, ...], Collateral, Collateral | None]:
    """What the service offers: its evaluations, the standard collateral, and the early one where it is another.

    Raises what `Pcs` and the checks raise.
    """
    offered = check_evaluations(await pcs.evaluations(platform.tee), root_der, now)
    standard = await pcs.collateral(platform, "standard")
    check_collateral(standard, platform, root_der, now)
    early = await pcs.collateral(platform, "early")
    check_collateral(early, platform, root_der, now)
    return offered, standard, early if evaluation_of(early) != evaluation_of(standard) else None
