"""How many examples: enough for every change, many more with `--all`; the same ones each time where CI is set."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES, MANY = 12, 500


def pytest_configure(config: pytest.Config) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    settings.register_profile(
        "here",
        max_examples=MANY if config.getoption("--all") else EXAMPLES,
        derandomize="CI" in os.environ,
        deadline=None,
        suppress_health_check=slow,
    )
    settings.load_profile("here")
