"""Enclave Oracle: private computations under signed agreements, with results that a chain accepts.

`oracle.connect`, `oracle.read_agreement`, `oracle.Client` and `oracle.Task` are the Python API. They load on first use, so that
`import oracle` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracle.api import connect, read_agreement
    from oracle.client import Client
    from oracle.task import Task

__all__ = ["Client", "Task", "connect", "read_agreement"]


def __getattr__(name: str) -> Any:
    """PEP 562."""
    if name == "Client":
        from oracle.client import Client

        return Client
    if name == "Task":
        from oracle.task import Task

        return Task
    if name == "connect":
        from oracle.api import connect

        return connect
    if name == "read_agreement":
        from oracle.api import read_agreement

        return read_agreement
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
