"""One lie, told once: what a case of the host adversary suite is, and what it has to show.

A case starts from something valid and changes one thing. It is marked with `@lie(seam, what, rules, reason)` and tells its
lie inside `async with refused():`, which fails unless exactly `reason` comes back and nothing that is watched has changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

SEAMS = ("code", "data", "keys", "evidence", "consent", "results", "chain view", "SQL")
"""Where a lie can be told, as docs/threat-model.md orders them."""

Footprint = Callable[[], Awaitable[object]]
"""What the world looks like from one side: releases logged, tasks settled, files written, outputs opened."""


def seen(read: Callable[[], object]) -> Footprint:
    """The footprint that `read` gives, which waits for nothing."""

    async def footprint() -> object:
        return read()

    return footprint


IGNORED = "ignored"
"""The reason of a lie that has no effect, where there is nobody to refuse it: `refused.ignored()` shows that."""


@dataclass(frozen=True)
class Lie:
    """`what` completes "the host gives …"; `reason` is the code of the refusal, or the contract's error."""

    seam: str
    what: str
    rules: tuple[str, ...]
    reason: str


def lie(seam: str, what: str, rules: str, reason: str) -> pytest.MarkDecorator:
    """The mark of a case, for a test or for one of its parameters. `rules` are names of DESIGN section 3, by spaces."""
    return pytest.mark.lie(Lie(seam, what, tuple(rules.split()), reason))


class Refused:
    """Checks a case's refusal. `watch` what must not change; then `async with refused():` around the lie."""

    def __init__(self, told: Lie) -> None:
        self.told, self.seen = told, False
        self._watched: list[Footprint] = []
        self._secrets: list[str] = []

    def watch(self, footprint: Footprint) -> None:
        """`footprint` is taken before and after the lie, and has to be the same."""
        self._watched.append(footprint)

    def keep(self, secret: str) -> None:
        """`secret` must not be in what the liar is told."""
        self._secrets.append(secret)

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        assert self._watched, "a case watches something that must not happen"
        before = [await footprint() for footprint in self._watched]
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the reason is compared below
            yield
        self.as_reason(reason_of(caught.value), caught.value)
        assert not [secret for secret in self._secrets if secret in str(caught.value)], "a refusal tells a secret"
        assert [await footprint() for footprint in self._watched] == before, "a refused lie has left something behind"

    @asynccontextmanager
    async def ignored(self) -> AsyncIterator[None]:
        """Around a lie that has no effect: what is watched stays the same, and all that is inside holds."""
        assert self._watched, "a case watches something that must not happen"
        before = [await footprint() for footprint in self._watched]
        yield
        assert [await footprint() for footprint in self._watched] == before, "an ignored lie has left something behind"
        self.as_reason(IGNORED)

    def as_reason(self, found: str, error: BaseException | None = None) -> None:
        """For a refusal that is told and not raised, such as blame: `found` is its code."""
        if found != self.told.reason:
            raise AssertionError(f"refused as {found!r}, expected {self.told.reason!r}: {error}") from error
        self.seen = True


def reason_of(error: BaseException) -> str:
    """The stable name of a refusal: a contract's error by its name, everything else by its code."""
    name, code = getattr(error, "name", None), getattr(error, "code", None)
    if isinstance(name, str) and "_" in name:
        return name
    return code if isinstance(code, str) else type(error).__name__
