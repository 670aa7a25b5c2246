"""`oracle worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oracle.cli.common import Json, run
from oracle.cli.screen import Screen

app = typer.Typer(name="worker", help="The worker: runs agreed tasks in its enclave.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keeps `run` a command of a group."""


@app.command("run")
def run_worker(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The worker's configuration (YAML).")],
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
