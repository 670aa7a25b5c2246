"""docs/threat-model.md names tests; those have to exist. That its list of cases is complete is for scripts/check."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def existing() -> set[str]:
    python = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    solidity = "\n".join(path.read_text() for path in (ROOT / "contracts" / "test").glob("*.t.sol"))
    return {*re.findall(r"^(?:async )?def (test_\w+)", python, re.M), *re.findall(r"function (test\w+)\(", solidity)}


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(?:[\w/.]+::)?(test\w+)(?:\[[^`]*\])?`", PAGE))
    assert len(named) > 50
    assert named - existing() == set()


def test_every_line_of_the_tables_names_a_test_or_says_that_there_is_no_protection() -> None:
    before, _, _ = PAGE.partition("## The suite")
    rows = [line for line in before.splitlines() if line.startswith("| ") and not line.startswith("| it c")]
    rows = [line for line in rows if not re.match(r"\| (controls|they control|who|---)", line)]
    assert len(rows) > 30
    assert [row for row in rows if "`test" not in row and "**not protected**" not in row] == []
