"""What the journal says in numbers: read beside the work, by the worker itself and by `oracle worker top`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from oracle.worker.database import Database
from oracle.worker.metrics import ENDS, Metrics
from oracle.worker.retention import ENDED_TOTAL, totals
from oracle.worker.states import State

_BY_STATE: Final = "SELECT state, count(*) AS n FROM tasks GROUP BY state"


@dataclass(frozen=True)
class Figures:
    """`tasks` counts rows by state, `pruned` those that retention took; `cursor` is the last block followed, `bytes` what
    the journal takes on disk."""

    tasks: Mapping[State, int]
    pruned: Mapping[str, int]
    cursor: int | None
    bytes: int

    def tell(self, metrics: Metrics) -> None:
        metrics.set_only("tasks", {state.value: float(self.tasks.get(state, 0)) for state in State}, "state")
        for state in ENDS:
            metrics.total(
                "tasks_ended_total", self.tasks.get(state, 0) + self.pruned.get(state.value, 0), state=state.value
            )
        metrics.set("journal_bytes", self.bytes)


def read_figures(db: Database) -> Figures:
    """Sums over an indexed column. Raises what the database does."""
    tasks = {State(row["state"]): int(row["n"]) for row in db.execute(_BY_STATE)}
    cursor = [int(row["number"]) for row in db.execute("SELECT number FROM cursor")]
    return Figures(tasks, totals(db, (ENDED_TOTAL,)).get(ENDED_TOTAL, {}), cursor[0] if cursor else None, db.size())
