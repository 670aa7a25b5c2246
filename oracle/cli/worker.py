"""`oracle worker`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oracle.cli.common import Json, run
from oracle.cli.screen import Screen, grid, to_json, when
from oracle.cli.top import top
from oracle.errors import Refused

if TYPE_CHECKING:
    from oracle.worker.journal import Journal
    from oracle.worker.rows import Task

app = typer.Typer(name="worker", help="The worker: runs agreed tasks in its enclave.", no_args_is_help=True)
app.command("top")(top)

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The worker's configuration (YAML).")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="A task's id, or as many of its first digits as tell it.")]


@app.command("run")
def run_worker(
    config: Config,
    as_json: Json = False,
) -> None:
    """Run until SIGTERM or Ctrl-C, which let running tasks finish. SIGHUP reads the configuration again.

    What it did goes to stderr, one JSON line each.
    """
    from oracle.hardening import forbid_dumps
    from oracle.logs import configure
    from oracle.worker.config import WorkerConfig
    from oracle.worker.daemon import Worker

    forbid_dumps()
    settings = WorkerConfig.read(config)
    configure("worker", settings.log_level)

    async def serve() -> None:
        worker = Worker(settings, config)
        worker.stop_on_signals()
        await worker.run()

    run(serve())
    Screen(as_json).answer({"stopped": True})


@app.command("tasks")
def tasks(
    config: Config,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", metavar="STATE", help="Only tasks in this state; may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the newest requests first.")] = 1000,
    as_json: Json = False,
) -> None:
    """List the journal's tasks. The worker may run meanwhile."""
    from oracle.worker.desk import overview, recent
    from oracle.worker.states import State

    try:
        states = tuple(State(each) for each in state) if state else tuple(State)
    except ValueError as error:
        raise Refused("task.state", str(error), expected=", ".join(State)) from None
    with _journal(config) as journal:
        counts, rows = overview(journal), recent(journal, states, limit)
    value = {"counts": counts, "tasks": rows}
    table = grid(
        ("task", "state", "block", "attempts", "code"),
        [(_short(r["id"]), r["state"], r["block_number"], r["attempts"], r["code"]) for r in rows],
    )
    summary = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no tasks"
    Screen(as_json).answer(value, table, summary)


@app.command("show")
def show_task(task: TaskId, config: Config, as_json: Json = False) -> None:
    """Everything that the journal knows of one task."""
    from oracle.worker.desk import find

    with _journal(config) as journal:
        task_id = find(journal, task)
        found, owed = journal.task(task_id), journal.receipt(task_id) is not None
    if found is None:
        raise Refused("task.unknown", f"the journal has no task {task}")
    Screen(as_json).answer(_facts(found, owed))


@app.command("retry")
def retry_task(
    config: Config,
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="A task's id, or its first digits.")] = None,
    all_parked: Annotated[bool, typer.Option("--all-parked", help="Every task that is parked.")] = False,
    as_json: Json = False,
) -> None:
    """Take up again what was given up, or end a task's wait. A running worker begins within seconds."""
    from oracle.worker.desk import find, retry, retry_parked

    if (task is None) != all_parked:
        raise typer.BadParameter("give a TASK, or --all-parked")
    with _journal(config) as journal:
        if task is None:
            Screen(as_json).answer({"retried": retry_parked(journal)})
            return
        task_id = find(journal, task)
        Screen(as_json).answer({"task": task_id, "state": str(retry(journal, task_id))})


@app.command("abandon")
def abandon_task(
    task: TaskId,
    config: Config,
    reason: Annotated[str, typer.Option(help="Why; kept with the task.")] = "abandoned by the operator",
    as_json: Json = False,
) -> None:
    """Do nothing more for a task. What was sent already may still settle it; `retry` takes it up again."""
    from oracle.worker.desk import abandon, find

    with _journal(config) as journal:
        task_id = find(journal, task)
        was = abandon(journal, task_id, reason)
    Screen(as_json).answer({"task": task_id, "was": str(was), "state": "abandoned"})


@app.command("export")
def export_journal(
    config: Config,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="[default: stdout]")] = None,
    as_json: Json = False,
) -> None:
    """Copy the journal as it is at one moment, one JSON object a line: for an auditor, or to keep."""
    from oracle.worker.desk import export

    if as_json and out is None:
        raise typer.BadParameter("--json needs --out: what is exported goes to stdout otherwise")
    with _journal(config) as journal:
        if out is None:
            for row in export(journal):
                typer.echo(to_json(row))
            return
        lines = 0
        # A name of its own until it is whole.
        partial = out.with_name(out.name + ".part")
        with partial.open("w", encoding="utf-8") as target:
            for row in export(journal):
                target.write(to_json(row) + "\n")
                lines += 1
        partial.replace(out)
    Screen(as_json).answer({"file": str(out), "lines": lines})


@contextmanager
def _journal(config: Path) -> Iterator[Journal]:
    """The journal of a worker, which may run."""
    from oracle.worker.config import WorkerConfig
    from oracle.worker.journal import Journal

    journal = Journal(WorkerConfig.read(config).journal, owner=False)
    try:
        yield journal
    finally:
        journal.close()


def _facts(task: Task, owed: bool) -> dict[str, Any]:
    request = task.request
    return {
        "task": task.id,
        "state": str(task.state),
        "code": task.code,
        "reason": task.reason,
        "attempts": task.attempts,
        "next_try": when(int(task.next_try)) if task.next_try else None,
        "agreement": task.agreement_id,
        "requester": request.requester,
        "deadline": when(request.deadline),
        "max_fee": str(request.max_fee),
        "hint": task.uri,
        "block": task.block_number,
        "block_hash": task.block_hash,
        "settlement": task.settlement,
        "over_since": None if task.ended_at is None else when(int(task.ended_at)),
        "receipt_owed": owed,
        "record": None if task.record is None else json.loads(task.record.canonical()),
    }


def _short(task_id: bytes) -> str:
    return "0x" + task_id.hex()[:16] + "…"
