"""The README, followed as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.guide import ROOT, follow


@pytest.mark.slow
async def test_the_walkthrough_gives_the_answer(tmp_path: Path) -> None:
    await follow(ROOT / "README.md", tmp_path)
