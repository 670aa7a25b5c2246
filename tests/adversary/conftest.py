"""The harness of the host adversary suite: every case names its lie, shows its refusal, and is counted by seam."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversary.lies import SEAMS, Lie, Refused
from tests.adversary.tally import REFUSED, TOLD

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lies", metavar="FILE", help="write the suite's cases to FILE as JSON")


def lie_of(item: pytest.Item) -> Lie:
    told = [mark.args[0] for mark in item.iter_markers("lie")]
    if len(told) != 1 or not isinstance(told[0], Lie) or told[0].seam not in SEAMS:
        raise pytest.UsageError(f"{item.nodeid} is no case: it needs one `lie` mark with a known seam")
    return told[0]


def pytest_collection_finish(session: pytest.Session) -> None:
    cases = [(item.nodeid, lie_of(item)) for item in session.items if HERE in item.path.parents]
    path = session.config.getoption("--lies", default=None)
    if path:
        rows = [{"test": node, **vars(told)} for node, told in cases]
        Path(path).write_text(json.dumps(rows, indent=1) + "\n")


@pytest.fixture
def refused(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Refused]:
    """The check of this case's refusal; a case that passes without one fails."""
    told = lie_of(request.node)
    TOLD[told.seam] += 1
    check = Refused(told)
    yield check
    assert check.seen, "the case ended without having seen its refusal"
    broken = [r for when in ("setup", "call") for r in caplog.get_records(when) if _is_broken_off(r)]
    assert not broken, f"who lies failed to tell the lie: {[r.exc_text for r in broken]}"
    REFUSED[told.seam] += 1


def _is_broken_off(record: logging.LogRecord) -> bool:
    """An HTTP server of a test that failed by itself. A reader that hangs up is no failure of it: refusals look so."""
    kind = record.exc_info[0] if record.exc_info else None
    hung_up = kind is not None and issubclass(kind, ConnectionResetError)
    return record.name == "aiohttp.server" and not hung_up


@pytest.fixture(autouse=True)
def _every_case_shows_its_refusal(refused: Refused) -> None:
    """A case cannot do without the check."""
