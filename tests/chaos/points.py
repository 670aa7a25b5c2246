"""Where a process of the chaos suite can be made to fail: `cross` is called at each boundary, and does there what was armed.

The control directory holds a file for each order, so that it outlives the process: `<role>.arm` says what happens at which
point; whoever crosses it renames it to `<role>.fired` first, so a fault that did not happen is never counted.
Nothing but the standard library is imported, because the enclave's process forks a sandbox from what is loaded.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOLD_SECONDS = 20.0
"""A hold that nobody ends is over by then."""


class Points:
    """One process's side. `role` is whose faults these are: `worker`, `enclave`, `broker-2`."""

    def __init__(self, directory: Path, role: str) -> None:
        self._directory, self._role = directory, role
        self._arm = directory / f"{role}.arm"
        self._clock = directory / f"{role}.clock"
        self.offset = 0.0
        self.names: list[str] = []

    def cross(self, point: str) -> str | None:
        """Kill this process where that is armed here; otherwise what else is to be done, if anything."""
        if self._clock.exists():
            self._set_clock()
        if not self._arm.exists():
            return None
        try:
            order = json.loads(self._arm.read_text())
            if order["point"] != point:
                return None
            self._arm.rename(self._directory / f"{self._role}.fired")
        except (OSError, ValueError):
            return None  # another thread of this process was first
        if order["action"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return str(order["action"])

    def fire(self) -> None:
        """Say that something happened that was armed from outside, as a limit of the kernel's."""
        os.close(os.open(self._directory / f"{self._role}.fired", os.O_CREAT | os.O_WRONLY, 0o600))

    def _set_clock(self) -> None:
        try:
            self.offset = float(self._clock.read_text())
            self._clock.rename(self._directory / f"{self._role}.fired")
        except (OSError, ValueError):
            return

    def _held(self) -> bool:
        return (self._directory / f"{self._role}.fired").exists()

    def wrap(self, owner: Any, name: str, label: str | None = None) -> None:
        """Two points around a function or coroutine function of a module or class: `label.before` and `label.after`.

        Raises AttributeError where there is none of that name: a point that is gone has to be named anew here.
        """
        inner = getattr(owner, name)
        label = label or name
        self.names += [f"{label}.before", f"{label}.after"]

        @functools.wraps(inner)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            await self._stop_at(f"{label}.before")
            answer = await inner(*args, **kwargs)
            await self._stop_at(f"{label}.after")
            return answer

        @functools.wraps(inner)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            self._stand_at(f"{label}.before")
            answer = inner(*args, **kwargs)
            self._stand_at(f"{label}.after")
            return answer

        setattr(owner, name, asynchronous if inspect.iscoroutinefunction(inner) else synchronous)

    def wrap_by(self, owner: Any, name: str, labels: Callable[..., str | None], known: list[str]) -> None:
        """The same around a coroutine function whose arguments say which boundary it is; `known` are those that there are."""
        inner = getattr(owner, name)
        self.names += [f"{label}.{side}" for label in known for side in ("before", "after")]

        @functools.wraps(inner)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            label = labels(*args, **kwargs)
            if label is None:
                return await inner(*args, **kwargs)
            await self._stop_at(f"{label}.before")
            answer = await inner(*args, **kwargs)
            await self._stop_at(f"{label}.after")
            return answer

        setattr(owner, name, asynchronous)

    async def _stop_at(self, point: str) -> None:
        if self.cross(point) == "hold":
            until = time.monotonic() + HOLD_SECONDS
            while self._held() and time.monotonic() < until:  # noqa: ASYNC110 (another process ends it)
                await asyncio.sleep(0.005)

    def _stand_at(self, point: str) -> None:
        if self.cross(point) == "hold":
            until = time.monotonic() + HOLD_SECONDS
            while self._held() and time.monotonic() < until:
                time.sleep(0.005)

    def tell(self) -> None:
        """Write down which points there are, for whoever arms them."""
        place = self._directory / f"{self._role}.points"
        place.with_suffix(".new").write_text("\n".join(self.names))
        place.with_suffix(".new").rename(place)


class Switch:
    """The other side: arms one fault of a role at a time, and sees whether it happened."""

    def __init__(self, directory: Path, role: str) -> None:
        self._directory, self.role = directory, role

    def arm(self, point: str, action: str) -> None:
        self.clear()
        new = self._directory / f"{self.role}.order"
        new.write_text(json.dumps({"point": point, "action": action}))
        new.rename(self._directory / f"{self.role}.arm")

    def jump(self, seconds: float) -> None:
        """Set a process's wall clock `seconds` away from the machine's."""
        self.clear()
        new = self._directory / f"{self.role}.order"
        new.write_text(str(seconds))
        new.rename(self._directory / f"{self.role}.clock")

    def has_fired(self) -> bool:
        return (self._directory / f"{self.role}.fired").exists()

    def clear(self) -> None:
        """Disarm, and end a hold."""
        for suffix in ("arm", "fired", "clock"):
            (self._directory / f"{self.role}.{suffix}").unlink(missing_ok=True)

    def points(self) -> list[str]:
        place = self._directory / f"{self.role}.points"
        return place.read_text().split("\n") if place.exists() else []
