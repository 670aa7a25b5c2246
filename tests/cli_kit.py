"""The command line as a test sees it: exit code, stdout, stderr."""

from __future__ import annotations

import json
import os
from typing import Any

from typer.testing import CliRunner

from oracle.cli.app import app

CHEAP = 1 << 10
"""scrypt's cost for keys that protect nothing."""


class Ran:
    """One run of `oracle`."""

    def __init__(self, arguments: tuple[object, ...], given: str | None, env: dict[str, str | None] | None) -> None:
        clean = {name: None for name in os.environ if name.startswith("ORACLE_")}
        words = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, words, input=given, env={**clean, **(env or {})})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.stdout, self.stderr = result.exit_code, result.stdout, result.stderr


def oracle(*arguments: object, given: str | None = None, env: dict[str, str | None] | None = None) -> Ran:
    """Run a command; `given` is typed at it."""
    return Ran(arguments, given, env)


def answer(*arguments: object, **options: Any) -> dict[str, Any]:
    """The one JSON object that a command prints under --json when it succeeds."""
    ran = oracle(*arguments, "--json", **options)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("\n") == 1
    value = json.loads(ran.stdout)
    assert isinstance(value, dict)
    return value


def refusal(*arguments: object, **options: Any) -> dict[str, Any]:
    """The error object of a command that fails as expected."""
    ran = oracle(*arguments, "--json", **options)
    assert ran.code == 1, ran.stdout + ran.stderr
    value = json.loads(ran.stdout)
    assert set(value) == {"error"}
    assert set(value["error"]) == {"code", "message", "retry"}
    error: dict[str, Any] = value["error"]
    return error
