"""A pytest plugin for the scratch tree. `--mutants-record FILE`: which checks refuse in which test. `--mutants-try FILE`:
runs each test with the checks dropped that the plan names for it, one at a time, in a world that passed without.

A world that a dropped check left in disorder shows in the test's next plain run, and is made anew.
"""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import mutation_switch as switch  # type: ignore[import-not-found] # lies in the scratch tree's environment
import pytest
from _pytest.runner import runtestprotocol

HANG = 120
"""Seconds after which a test under a mutant counts as hanging: an error of the tool's, never a catch."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutants-record", type=Path)
    parser.addoption("--mutants-try", type=Path)
    parser.addoption("--mutants-out", type=Path)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--mutants-record"):
        config.pluginmanager.register(_Recorder(config.getoption("--mutants-record")))
    if config.getoption("--mutants-try"):
        config.pluginmanager.register(
            _Trier(json.loads(config.getoption("--mutants-try").read_text()), config.getoption("--mutants-out"))
        )


class _Recorder:
    """Writes a line of JSON for each test: whether it passed, how long it took, what refused in its setup and in it."""

    def __init__(self, path: Path) -> None:
        self._out = path.open("a")
        self._setup: list[int] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        switch.take_refused()
        yield
        self._setup = switch.take_refused()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._setup, self._good, started = [], True, time.monotonic()
        yield
        lie = next(iter(item.iter_markers("lie")), None)
        line = {
            "test": item.nodeid,
            "good": self._good,
            "seconds": round(time.monotonic() - started, 3),
            "setup": self._setup,
            "call": switch.take_refused(),
            "reason": lie.args[0].reason if lie else None,
            "seam": lie.args[0].seam if lie else None,
        }
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self._good = False


class _Sibling:
    """Stands for a next test beside `item`, so that only what belongs to `item` alone is torn down."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def listchain(self) -> list[Any]:
        return [*self._item.listchain()[:-1], self]


class Hang(BaseException):
    """A test ran on under a mutant."""


class _Trier:
    """`plan` has by test: the mutants to try, each with whether the world has to be made under it ("cold"), and whether
    the first that the test catches is enough."""

    def __init__(self, plan: dict[str, dict[str, Any]], out: Path) -> None:
        self._plan, self._out = plan, out.open("a")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._plan]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        plain = self._again(item)
        for number, cold in self._plan[item.nodeid]["tries"]:
            if not plain:
                self._say(item, number, "unusable", "")
                continue
            if cold:
                self._end(item, None)
            outcome, why = self._under(item, number)
            plain = self._again(item)
            if outcome == "failed" and not plain:
                outcome = "unusable"
            self._say(item, number, outcome, why)
            if outcome == "failed" and self._plan[item.nodeid]["first"]:
                break
        self._end(item, nextitem)
        return True

    def _again(self, item: pytest.Item) -> bool:
        """Whether the test passes with every check in place, in a new world if it has to be."""
        if self._run(item)[0] == "passed":
            return True
        self._end(item, None)
        return self._run(item)[0] == "passed"

    def _under(self, item: pytest.Item, number: int) -> tuple[str, str]:
        with _dropped(number):
            return self._run(item)

    def _run(self, item: pytest.Item) -> tuple[str, str]:
        try:
            with _alarm():
                reports = runtestprotocol(item, log=False, nextitem=_Sibling(item))  # type: ignore[arg-type]
        except Hang:
            return "hung", ""
        bad = next((report for report in reports if report.failed), None)
        if bad is None:
            return "passed", ""
        why = str(getattr(bad.longrepr, "reprcrash", None) or bad.longrepr)
        return ("hung" if "Hang" in why.split(":")[-1] else "failed"), why[-300:]

    def _end(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        item.session._setupstate.teardown_exact(nextitem)

    def _say(self, item: pytest.Item, number: int, outcome: str, why: str) -> None:
        self._out.write(json.dumps({"test": item.nodeid, "number": number, "outcome": outcome, "why": why}) + "\n")
        self._out.flush()


@contextmanager
def _dropped(number: int) -> Iterator[None]:
    switch.activate(number)
    _tell_chains(number)
    try:
        yield
    finally:
        switch.activate(0)
        _tell_chains(0)


def _tell_chains(number: int) -> None:
    """Every anvil that the scratch tree's wrapper started: the contracts' switch is the coinbase."""
    for noted in Path(switch.directory).glob("anvil-*"):
        port, _, base = noted.read_text().partition(" ")
        coinbase = f"0x{int(base) + number:040x}" if number else "0x" + "00" * 20
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "anvil_setCoinbase", "params": [coinbase]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}", body, {"Content-Type": "application/json"}, method="POST"
        )
        try:
            urllib.request.urlopen(request, timeout=5).read()  # noqa: S310 - our own anvil
        except OSError:
            noted.unlink(missing_ok=True)


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(signum: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
