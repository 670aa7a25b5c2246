"""The guides of data owners, function authors, requesters and contract developers, followed word for word.

They share one network, which is started as the guides say. What all guides say in passing, commands and codes, is checked
against the program.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from oracle.agreement.draft_file import DraftFile
from oracle.cli.app import app
from oracle.config import ClientConfig
from oracle.devnet.processes import free_port
from oracle.function.spec import FunctionSpec
from tests.e2e.guide import GUIDES, ROOT, end_group, fields, follow, look_like_a_clone, steps

PORT = "8545"
"""The chain's, in every guide; another one here, so that networks do not meet."""
START = f".venv/bin/oracle devnet --dir net --port {PORT}"
WITH_AGREEMENT = f"{START} --with-agreement"
START_SECONDS = 120
PAGES = sorted(GUIDES.glob("*.md"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder `net` of a running network, and its chain's port."""
    clone, port = tmp_path_factory.mktemp("network"), str(free_port())
    look_like_a_clone(clone)
    log = clone / "network.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            shlex.split(WITH_AGREEMENT.replace(PORT, port)), cwd=clone, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        limit = time.monotonic() + START_SECONDS
        while "Ctrl-C ends it" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.1)
        yield clone / "net", port
    finally:
        end_group(process.pid)
        process.wait()


@pytest.mark.parametrize("name", ["data-owner", "function-author", "requester", "contract-developer"])
async def test_a_reader_gets_through_the_guide(name: str, network: tuple[Path, str], tmp_path: Path) -> None:
    net, port = network
    (tmp_path / "net").symlink_to(net)
    running = [command.replace(PORT, port) for command in (START, WITH_AGREEMENT)]
    await follow(name, tmp_path, seconds=600, replace={PORT: port}, running=running)


@pytest.mark.parametrize("name", ["data-owner", "function-author", "requester", "contract-developer"])
def test_a_guide_has_its_reader_start_the_network_that_the_test_runs(name: str, tmp_path: Path) -> None:
    text = (GUIDES / f"{name}.md").read_text()
    started = [step.script for step in steps(text, name, tmp_path) if "oracle devnet --dir" in step.script]
    assert len(started) == 1
    assert any(f"\n{command}\n" in started[0] for command in (START, WITH_AGREEMENT))


@pytest.mark.parametrize(
    ("name", "file", "model"),
    [
        ("data-owner", "oracle.yaml", ClientConfig),
        ("requester", "oracle.yaml", ClientConfig),
        ("function-author", "function.yaml", FunctionSpec),
        ("function-author", "draft.yaml", DraftFile),
    ],
)
def test_a_file_that_is_called_complete_has_every_field(name: str, file: str, model: Any) -> None:
    found = re.search(
        rf"<!-- file: {re.escape(file)} -->\n```yaml\n(.*?)^```$", (GUIDES / f"{name}.md").read_text(), re.S | re.M
    )
    assert found is not None
    written = set(re.findall(r"(?:^|[\s{#])([A-Za-z]+):(?=\s|$)", found[1]))
    assert set(fields(model)) - written == set()


def spans(page: Path) -> Iterator[str]:
    """What stands between backticks in a page's prose and tables."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_command_that_a_guide_mentions_exists(page: Path) -> None:
    for span in spans(page):
        if span.startswith("oracle "):
            check_command(span)


def check_command(span: str) -> None:
    """AssertionError where a command or one of its options is not one; words in capitals and … stand for anything."""
    words = shlex.split(span.replace("…", ""))[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, span
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("-")} <= known, span


@pytest.fixture(scope="module")
def said() -> str:
    """Everything that the program can say: the sources, and the contracts' errors."""
    sources = [
        *(ROOT / "oracle").rglob("*.py"),
        *(ROOT / "enclave_app").rglob("*.py"),
        *(ROOT / "contracts/src").rglob("*.sol"),
    ]
    return "\n".join(source.read_text() for source in sources)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_code_that_a_guide_explains_exists(page: Path, said: str) -> None:
    table = page.read_text().rpartition("## ")[2]
    assert table.partition("\n")[0].lower().endswith("when something is refused"), "the last section"
    codes = [code for row in re.findall(r"^\|([^|]*)\|", table, re.MULTILINE) for code in re.findall(r"`([^`]+)`", row)]
    assert len(codes) >= 5
    for code in codes:
        name = re.escape(code.removeprefix("contract.")).replace("…", '[^"]*')
        family, _, reason = name.rpartition(r"\.")
        # Some are put together where they are raised: f"{family}.{reason}".
        put_together = family and re.search(rf'f"{family}\.{{', said) and re.search(rf'"{reason}"', said)
        assert put_together or re.search(rf'"{name}"|error {name}\(', said), code
