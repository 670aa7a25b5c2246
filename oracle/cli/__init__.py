"""The command `oracle`: thin commands over the Python API, one module per group."""

from __future__ import annotations


def main() -> None:
    from oracle.cli.app import app

    app(prog_name="oracle")
