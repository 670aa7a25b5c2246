"""Follows a guide word for word, as its reader would: one shell, from the clone's folder, block after block.

In a guide
- every ```sh block is run, in order, in one bash with `set -eu`; a block that starts a service does it with `&`;
- a ```FORMAT block under `<!-- file: PATH -->` is written to PATH, before what follows it is run;
- a ```python block under `<!-- run -->` is run with the clone's `.venv/bin/python`;
- a ```text block under `<!-- output -->` is what the blocks since the last such one have printed, among other lines: each of
  its lines, with … for any text, in their order;
- an ```sh block under `<!-- terminal, until: TEXT -->` is what the reader leaves running in a terminal of its own, and has
  printed TEXT before the reader goes on;
- a block under `<!-- not run: WHY -->` is left alone, and WHY is a reason that a reader accepts.
Every other code block is a mistake, so that nothing in a guide goes untested by oversight.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
_BLOCK = re.compile(r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_STEP = "=-=-= step"
_TERMINAL = """\
(
{text}) > terminal-{n}.log 2>&1 &
until grep -qF -- {until} terminal-{n}.log; do
  kill -0 $! || {{ cat terminal-{n}.log; exit 1; }}
  sleep 0.1
done
"""


@dataclass(frozen=True)
class Step:
    """A piece of the script that the guide makes, and what must have been printed when it is done."""

    script: str
    output: tuple[str, ...] = ()


def steps(markdown: str, name: str) -> list[Step]:
    """The guide as a list of steps; AssertionError for a block that says nothing about how it is tested."""
    found: list[Step] = []
    for block in _BLOCK.finditer(markdown):
        note, kind, text = block["note"] or "", block["kind"], block["text"]
        if note.startswith("not run: "):
            continue
        if note.startswith("file: "):
            path = shlex.quote(note.removeprefix("file: "))
            found.append(Step(f"mkdir -p \"$(dirname {path})\"\ncat > {path} <<'END-OF-FILE'\n{text}END-OF-FILE\n"))
        elif note.startswith("terminal, until: ") and kind == "sh":
            found.append(Step(_TERMINAL.format(text=text, n=len(found), until=shlex.quote(note[17:]))))
        elif note == "run" and kind == "python":
            found.append(Step(f".venv/bin/python - <<'END-OF-FILE'\n{text}END-OF-FILE\n"))
        elif note == "output":
            found.append(Step("", tuple(line for line in text.splitlines() if line.strip())))
        elif kind == "sh":
            found.append(Step(text))
        else:
            raise AssertionError(
                f"{name}: a {kind or 'plain'} block is neither run, nor a file, nor an output:\n{text}"
            )
    return found


async def follow(name: str, clone: Path, *, seconds: float = 120, environment: dict[str, str] | None = None) -> str:
    """Run docs/guides/NAME.md in `clone`, a folder that looks like a clone; everything it printed.

    `clone` gets links to what a clone has (.venv, contracts, node_modules, ...). Processes that the guide leaves running are
    ended. Raises AssertionError for a command that fails, and for output that is not what the guide shows.
    """
    text = (GUIDES / f"{name}.md").read_text()
    found = steps(text, name)
    assert found, f"{name} has nothing to run"
    look_like_a_clone(clone)
    script = "set -eu\n" + "".join(f"echo '{_STEP} {n}'\n{step.script}\n" for n, step in enumerate(found))
    log = clone / f"{name}.out"
    home = {"PATH": os.defpath, "HOME": str(clone), "COLUMNS": "120", "LANG": "C.UTF-8", **(environment or {})}
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=clone, env=home, stdin=asyncio.subprocess.DEVNULL, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            status = -1
        finally:
            end_group(process.pid)
    printed = log.read_text("utf-8", "replace")
    assert status == 0, f"{name}: ended with {status}\n{printed[-4000:]}"
    check_output(name, found, printed)
    return printed


def look_like_a_clone(folder: Path) -> None:
    for name in ("contracts", "docs", "foundry.toml", "node_modules", "scripts", "package.json"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])


def end_group(leader: int) -> None:
    """End what the guide started: the processes of its session that are still there."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(leader, how)
        except ProcessLookupError:
            return


def check_output(name: str, found: list[Step], printed: str) -> None:
    parts = re.split(rf"^{re.escape(_STEP)} \d+\n", printed, flags=re.MULTILINE)[1:]
    since = ""
    for step, part in zip(found, parts, strict=True):
        since += part
        if step.output:
            for line in step.output:
                pattern = r".*".join(re.escape(piece.strip()) for piece in line.split("…"))
                match = re.search(pattern, since)
                assert match is not None, f"{name}: {line!r} was not printed; what was:\n{since[-3000:]}"
                since = since[match.end() :]
            since = ""
