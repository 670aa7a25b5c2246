"""Unit tests run without a network: a test that opens a socket is an integration test, or a mistake."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest


class NetworkBlockedError(RuntimeError):
    """A unit test touched the network."""


def refusal(what: str) -> NetworkBlockedError:
    return NetworkBlockedError(f"unit tests have no network; found {what}; move the test to tests/integration")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every socket but AF_UNIX (which asyncio's own wake-up pipe needs), and name look-ups."""
    make: Callable[..., None] = socket.socket.__init__

    def guarded(self: socket.socket, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> None:
        if fileno is None and family != socket.AF_UNIX:
            raise refusal(f"a socket of family {family}")
        make(self, family, type, proto, fileno)
        if self.family != socket.AF_UNIX:
            self.detach()
            raise refusal(f"a file descriptor that is a socket of family {self.family}")

    def look_up(host: object, *_: object, **__: object) -> None:
        raise refusal(f"a look-up of {host!r}")

    monkeypatch.setattr(socket.socket, "__init__", guarded)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        monkeypatch.setattr(socket, name, look_up)
