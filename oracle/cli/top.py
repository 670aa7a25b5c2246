"""`oracle worker top`: what a worker does, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from oracle.cli.common import Json, run
from oracle.cli.screen import Screen

if TYPE_CHECKING:
    from oracle.worker.dashboard import Page

DEFAULT = "http://127.0.0.1:9464"


def top(
    where: Annotated[
        str, typer.Argument(metavar="WHERE", help="What `health.listen` says: a URL, or `unix:` and a socket's path.")
    ] = DEFAULT,
    once: Annotated[bool, typer.Option("--once", help="Look for a second, print, and end.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=3600, help="Between two looks.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Show what a worker does: tasks, steps, chain, brokers, wallet, alerts. Ctrl-C ends it. --json looks once."""
    from oracle.worker.dashboard import Page, draw, look_twice

    page, screen = Page(where), Screen(as_json)
    if once or as_json:
        summary = run(look_twice(page, min(seconds, 1.0)))
        screen.answer(summary.as_json(), draw(summary, where))
        raise typer.Exit(1 if summary.alerts else 0)
    try:
        run(_show(page, where, seconds))
    except KeyboardInterrupt:
        return


async def _show(page: Page, where: str, seconds: float) -> None:
    import asyncio

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from oracle.errors import Retryable
    from oracle.worker.dashboard import Reading, draw, summarise

    before: Reading | None = None
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                reading = await page.read()
            except Retryable as error:
                # A worker that restarts comes back; until then the reason stands there.
                live.update(Text(f"{error.message}\nlooking again", style="bold red"), refresh=True)
            else:
                live.update(draw(summarise(reading, before), where), refresh=True)
                before = reading
            await asyncio.sleep(seconds)
