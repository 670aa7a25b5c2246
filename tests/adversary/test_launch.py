"""Lies about the enclave's program while it is started: what the host adds to it, and what it changes (R3).

Each is told to a real process, which either refuses, or is another enclave than the agreement names, or shows no effect:
then its task ends in the very result that the honest enclave signs (R16).
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from enclave_app.launch import ENVIRONMENT, FLAGS
from enclave_app.protocol.structs import Outcome, Result
from enclave_app.protocol.wire import TaskBody
from tests.adversary.lies import IGNORED, Footprint, Refused, lie, seen
from tests.enclave_kit import ROOT, RunningEnclave, World, enclave, enclave_config, make_world, measured

pytestmark = pytest.mark.asyncio(loop_scope="module")

SQL = "SELECT strftime(make_timestamp(0)::TIMESTAMPTZ, '%H') AS hour, sum(a.x) AS total FROM a GROUP BY 1"
"""What it gives depends on the time zone, were there one."""
WITNESS = "import pathlib; pathlib.Path({!r}).touch()\n"
"""Code of the host's, which would run beside the keys."""


@dataclass(frozen=True)
class Agreed:
    """A task, and the result that the agreed enclave signs when nobody lies."""

    world: World
    body: TaskBody
    result: Result

    async def run_by(self, running: RunningEnclave) -> Result:
        return (await running.whole(self.world, self.body)).result


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agreed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agreed]:
    base = tmp_path_factory.mktemp("agreed")
    world = make_world(base / "storage", measured(), sql=SQL)
    body = world.body()
    async with enclave(base / "honest") as running:
        done = await running.whole(world, body)
    assert done.result.outcome == Outcome.SUCCEEDED
    yield Agreed(world, body, done.result)


def logged(directory: Path, event: str) -> Footprint:
    """Whether the enclave of `directory` has logged `event`."""
    log = directory / "enclave.log"
    return seen(lambda: log.exists() and event in log.read_text())


def measurement(running: RunningEnclave) -> Footprint:
    async def footprint() -> object:
        return (await running.identity()).measurement

    return footprint


def told(what: str, reason: str, value: object) -> Any:
    return pytest.param(value, marks=lie("code", what, "R3", reason), id=what)


def copied_package(directory: Path) -> Path:
    """A copy of the program, below the directory that is returned."""
    shutil.copytree(ROOT / "enclave_app", directory / "enclave_app", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


# Arguments and configuration


@pytest.mark.parametrize(
    "arguments",
    [
        told("an argument that the program does not know", "enclave.arguments", ("--debug",)),
        told("a stray argument", "enclave.arguments", ("more",)),
        told("an argument cut short", "enclave.arguments", ("--plat", "x")),
    ],
)
async def test_other_arguments_start_nothing(tmp_path: Path, refused: Refused, arguments: Sequence[str]) -> None:
    refused.watch(logged(tmp_path, "enclave.ready"))
    async with refused(), enclave(tmp_path, arguments=arguments):
        pass


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param(
            ("-S", "-B", "-X", "pycache_prefix=/dev/null"),
            ENVIRONMENT,
            marks=lie("code", "an interpreter that is not isolated", "R3", "enclave.launch"),
            id="options",
        ),
        pytest.param(
            FLAGS,
            {**ENVIRONMENT, "MALLOC_CONF": "x"},
            marks=lie("code", "an environment behind the first process's back", "R3", "enclave.launch"),
            id="environment",
        ),
    ],
)
async def test_the_program_starts_in_one_way_only(
    tmp_path: Path, refused: Refused, options: Sequence[str], environment: dict[str, str]
) -> None:
    refused.watch(logged(tmp_path, "enclave.ready"))
    program = (*options, str(ROOT / "enclave_app" / "launch.py"), os.pathsep.join(sys.path))
    async with refused(), enclave(tmp_path, program=program, environment=environment):
        pass


@pytest.mark.parametrize(
    "config",
    [
        told("a configuration that leaves ceilings out", "document.canonical", b'{"attester":"software"}'),
        told("the configuration in other bytes", "json.canonical", enclave_config() + b"\n"),
        told("a configuration of a later version", "document.invalid", enclave_config().replace(b'"v":1', b'"v":2')),
        told("an unknown setting", "document.invalid", enclave_config().replace(b'"v":1', b'"unknown":1,"v":1')),
        told("an attester that the program does not have", "enclave.start", enclave_config(attester="absent")),
    ],
)
async def test_another_configuration_than_the_canonical_one_starts_nothing(
    tmp_path: Path, refused: Refused, config: bytes
) -> None:
    refused.watch(logged(tmp_path, "enclave.ready"))
    async with refused(), enclave(tmp_path, config=config):
        pass


# Another program


@lie("code", "an enclave with a higher ceiling in its configuration", "R3", "task.measurement")
async def test_another_configuration_is_another_enclave(agreed: Agreed, tmp_path: Path, refused: Refused) -> None:
    refused.watch(logged(tmp_path, "task.done"))
    async with enclave(tmp_path, config=enclave_config(max_time_seconds=601)) as running, refused():
        await agreed.run_by(running)


@lie("code", "an enclave with one byte of the program changed", "R3", "task.measurement")
async def test_a_changed_byte_is_another_enclave(agreed: Agreed, tmp_path: Path, refused: Refused) -> None:
    refused.watch(logged(tmp_path, "task.done"))
    root = copied_package(tmp_path / "changed")
    with (root / "enclave_app" / "agreed.py").open("ab") as source:
        source.write(b"\n")
    async with enclave(tmp_path, root=root) as running, refused():
        await agreed.run_by(running)


@lie("code", "an enclave with one byte of a dependency changed", "R3", "task.measurement")
async def test_a_changed_byte_of_a_dependency_is_another_enclave(
    agreed: Agreed, tmp_path: Path, refused: Refused
) -> None:
    refused.watch(logged(tmp_path, "task.done"))
    found = metadata.distribution("annotated-types")
    for entry in found.files or ():
        target = tmp_path / "site" / entry
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(found.locate_file(entry)), target)
    with (tmp_path / "site" / "annotated_types" / "__init__.py").open("ab") as source:
        source.write(b"\n")
    async with enclave(tmp_path, environment={"PYTHONPATH": str(tmp_path / "site")}) as running, refused():
        await agreed.run_by(running)


# Additions that no measurement covers: they have no effect


@lie("code", "modules where a dependency looks for some, by PYTHONPATH", "R3", IGNORED)
async def test_a_module_that_is_not_measured_is_not_loaded(agreed: Agreed, tmp_path: Path, refused: Refused) -> None:
    """One in place of a dependency, and one that a dependency uses where it is installed."""
    witness = tmp_path / "loaded"
    refused.watch(seen(witness.exists))
    (tmp_path / "site").mkdir()
    for name in ("annotated_types", "brotli"):
        (tmp_path / "site" / f"{name}.py").write_text(WITNESS.format(str(witness)))
    async with refused.ignored(), enclave(tmp_path, environment={"PYTHONPATH": str(tmp_path / "site")}) as running:
        assert await agreed.run_by(running) == agreed.result


@lie("code", "other bytecode beside the measured source", "R3", IGNORED)
async def test_bytecode_is_not_loaded(agreed: Agreed, tmp_path: Path, refused: Refused) -> None:
    witness = tmp_path / "loaded"
    refused.watch(seen(witness.exists))
    root = copied_package(tmp_path / "planted")
    source, other = root / "enclave_app" / "agreed.py", tmp_path / "other.py"
    other.write_text(source.read_text() + WITNESS.format(str(witness)))
    py_compile.compile(
        str(other),
        importlib.util.cache_from_source(str(source)),
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    async with refused.ignored(), enclave(tmp_path, root=root) as running:
        assert await agreed.run_by(running) == agreed.result


@lie("code", "a time zone in the environment", "R3 R14", IGNORED)
async def test_a_variable_does_not_reach_the_function(agreed: Agreed, tmp_path: Path, refused: Refused) -> None:
    async with enclave(tmp_path, environment={"TZ": "Asia/Tokyo"}) as running:
        refused.watch(measurement(running))
        async with refused.ignored():
            assert await agreed.run_by(running) == agreed.result


@lie("code", "a library of its own for the loader, by LD_PRELOAD", "R3", IGNORED)
async def test_a_preloaded_library_is_not_in_the_enclave(agreed: Agreed, tmp_path: Path, refused: Refused) -> None:
    """The loader complains of one that is not there, once for each program that is to load it."""
    async with enclave(tmp_path, environment={"LD_PRELOAD": str(tmp_path / "absent.so")}) as running:
        complaints = running.log.read_text().count("absent.so")
        assert complaints == 1, "more than the process that the enclave's replaces"
        refused.watch(measurement(running))
        async with refused.ignored():
            assert await agreed.run_by(running) == agreed.result
