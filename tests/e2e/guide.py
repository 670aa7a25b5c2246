"""Follows a guide word for word, as its reader would: one shell, from the clone's folder, block after block.

In a guide
- every ```sh block is run, in order, in one bash with `set -euo pipefail`; a block that starts a service does it with `&`;
- an ```sh block under `<!-- answer: TEXT -->` is asked something, and TEXT is what the reader types;
- an ```sh block under `<!-- refused: CODE -->` is one command that fails with exit code 1 and prints CODE;
- a ```FORMAT block under `<!-- file: PATH -->` is written to PATH, before what follows it is run;
- a ```python block under `<!-- run -->` is run with the clone's `.venv/bin/python`, in the clone's folder;
- a block under `<!-- output -->` is what the blocks since the last such one have printed, among other lines: each of
  its lines, with … for any text within a line, and any blanks or a wrapped line for any blanks, in their order;
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
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from oracle.yamlfile import YamlModel

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
_BLOCK = re.compile(r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
_STEP = "=-=-= step"
_TERMINAL = """\
(
{text}) > {log} 2>&1 < /dev/null &
until grep -qF -- {until} {log}; do
  kill -0 $! || {{ cat {log}; exit 1; }}
  sleep 0.1
done
"""
_REFUSED = """\
if GUIDE_SAID=$({{
{text}}} 2>&1); then GUIDE_STATUS=0; else GUIDE_STATUS=$?; fi
printf '%s\\n' "$GUIDE_SAID"
if [ "$GUIDE_STATUS" != 1 ] || ! grep -qF -- {code} <<< "$GUIDE_SAID"; then
  echo "the guide says that this is refused with "{code}"; exit code $GUIDE_STATUS"; exit 1
fi
"""
STOP_SECONDS = 20
"""What the processes that a guide leaves running have to end in, before they are killed."""


@dataclass(frozen=True)
class Step:
    """A piece of the script that the guide makes, and what must have been printed when it is done."""

    script: str
    output: tuple[str, ...] = ()


def steps(markdown: str, name: str, clone: Path, running: Collection[str] = ()) -> list[Step]:
    """The guide as a list of steps; AssertionError for a block that says nothing about how it is tested.

    `running` are the commands of terminals that are open already.
    """
    found: list[Step] = []
    seen = 0
    for number, block in enumerate(_BLOCK.finditer(markdown)):
        note, kind, text = block["note"] or "", block["kind"], block["text"]
        seen += len(_FENCE.findall(block[0]))
        if note.startswith("not run: "):
            continue
        if note.startswith("file: "):
            found.append(Step(_file(note.removeprefix("file: "), text)))
        elif note.startswith("terminal, until: ") and kind == "sh":
            until, log = shlex.quote(note[17:]), shlex.quote(str(clone / f"terminal-{number}.log"))
            found.append(Step("" if text.strip() in running else _TERMINAL.format(text=text, log=log, until=until)))
        elif note.startswith("refused: ") and kind == "sh":
            found.append(Step(_REFUSED.format(text=text, code=shlex.quote(note.removeprefix("refused: ")))))
        elif note.startswith("answer: ") and kind == "sh":
            found.append(Step(f"{{\n{text}}} {_given(note.removeprefix('answer: ') + chr(10))}"))
        elif note == "run" and kind == "python":
            python = f"cd {shlex.quote(str(clone))}\n.venv/bin/python -"
            found.append(Step(f"(\n{python} {_given(text)})\n"))
        elif note == "output":
            found.append(Step("", tuple(line for line in text.splitlines() if line.strip())))
        elif kind == "sh" and not note:
            found.append(Step(text))
        else:
            raise AssertionError(
                f"{name}: a {kind or 'plain'} block is neither run, nor a file, nor an output:\n{text}"
            )
    fences = len(_FENCE.findall(markdown))
    assert fences == seen, f"{name}: {fences - seen} fences belong to no block that was understood; is one indented?"
    return found


def _file(path: str, text: str) -> str:
    path = shlex.quote(path)
    return f'mkdir -p "$(dirname {path})"\ncat > {path} {_given(text)}'


def _given(text: str) -> str:
    return f"<<'END-OF-FILE'\n{text}END-OF-FILE\n"


async def follow(
    name: str | Path,
    clone: Path,
    *,
    seconds: float = 120,
    environment: dict[str, str] | None = None,
    replace: Mapping[str, str] | None = None,
    running: Collection[str] = (),
) -> str:
    """Run docs/guides/NAME.md, or another page, in `clone`, a folder that looks like a clone; everything it printed.

    `clone` gets links to what a clone has (.venv, contracts, node_modules, ...). Processes that the guide leaves running are
    ended. `replace` is put into the page's text, for what cannot be the same in every test, such as a port; terminals whose
    command is in `running` are taken to be open. Raises AssertionError for a command that fails, and for output that is not
    what the guide shows.
    """
    page = name if isinstance(name, Path) else GUIDES / f"{name}.md"
    text = page.read_text()
    for old, new in (replace or {}).items():
        assert old in text, f"{page.name} has no {old!r}"
        text = text.replace(old, new)
    found = steps(text, page.name, clone, running)
    assert found, f"{page.name} has nothing to run"
    look_like_a_clone(clone)
    script = "set -euo pipefail\n" + "".join(f"echo '{_STEP} {n}'\n{step.script}\n" for n, step in enumerate(found))
    log = clone / f"{page.stem}.out"
    home = {
        "PATH": os.defpath,
        "HOME": str(clone),
        "COLUMNS": "120",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **(environment or {}),
    }
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
            await asyncio.to_thread(end_group, process.pid)
            await process.wait()
    printed = log.read_text("utf-8", "replace")
    assert status == 0, f"{page.name}: ended with {status}\n{printed[-4000:]}"
    check_output(page.name, found, printed)
    return printed


def look_like_a_clone(folder: Path) -> None:
    for name in ("contracts", "docs", "foundry.toml", "node_modules", "scripts", "package.json"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])


def end_group(leader: int) -> None:
    """End what the guide started: the processes of its session that are still there get time to end their own."""
    for how, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 1)):
        try:
            os.killpg(leader, how)
        except ProcessLookupError:
            return
        limit = time.monotonic() + patience
        while _alive(leader) and time.monotonic() < limit:
            time.sleep(0.05)


def _alive(leader: int) -> bool:
    """Whether a process of the group still runs; one that has ended and that nobody waited for does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            return True
    return False


def check_output(name: str, found: list[Step], printed: str) -> None:
    parts = re.split(rf"^{re.escape(_STEP)} \d+\n", printed, flags=re.MULTILINE)[1:]
    since = ""
    for step, part in zip(found, parts, strict=True):
        since += part
        if step.output:
            for line in step.output:
                match = re.search(_pattern(line), since)
                assert match is not None, f"{name}: {line!r} was not printed; what was:\n{since[-3000:]}"
                since = since[match.end() :]
            since = ""


def _pattern(line: str) -> str:
    pieces = (r"\s+".join(map(re.escape, piece.split())) for piece in line.split("…"))
    return r".*".join(pieces)


def fields(model: type[BaseModel]) -> Iterator[str]:
    """What a YAML file of that model may say, its parts' fields included, as the file writes them."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for inner in _yaml_models(field.annotation):
            yield from fields(inner)


def _yaml_models(annotation: Any) -> Iterator[type[YamlModel]]:
    """The parts in a field's type that are written in the file itself; others come from files of their own."""
    if isinstance(annotation, type) and issubclass(annotation, YamlModel):
        yield annotation
    for part in get_args(annotation):
        yield from _yaml_models(part)
