"""What the journal says in numbers: read beside the work, by the worker itself and by `oracle worker top`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from oracle.worker.metrics import ENDS, Metrics
from oracle.worker.states import State

_BY_STATE: Final = "SELECT state, count(*) AS n FROM tasks GROUP BY state"


class Readable(Protocol):
    """A journal's database, or a connection that answers with named columns."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Figures:
    """`tasks` counts rows by state; `cursor` is the last block followed, `bytes` what the journal takes on disk."""

    tasks: Mapping[State, int]
    cursor: int | None
    bytes: int

    def tell(self, metrics: Metrics) -> None:
        metrics.set_only("tasks", {state.value: float(self.tasks.get(state, 0)) for state in State}, "state")
        for state in ENDS:
            metrics.total("tasks_ended_total", self.tasks.get(state, 0), state=state.value)
        metrics.set("journal_bytes", self.bytes)


def read_figures(db: Readable, path: Path) -> Figures:
    """Sums over an indexed column. Raises what the database does."""
    tasks = {State(row["state"]): int(row["n"]) for row in db.execute(_BY_STATE)}
    cursor = [int(row["number"]) for row in db.execute("SELECT number FROM cursor")]
    files = (path, path.with_name(path.name + "-wal"))
    return Figures(tasks, cursor[0] if cursor else None, sum(each.stat().st_size for each in files if each.exists()))
