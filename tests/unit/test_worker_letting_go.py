"""Which message tells an enclave that a task is over."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from enclave_app.protocol.wire import MAX_OVER
from oracle.errors import Retryable
from oracle.worker import letting_go
from oracle.worker.enclave import Enclave
from oracle.worker.letting_go import LettingGo


class Told:
    def __init__(self, fault: Exception | None = None) -> None:
        self.forgotten: list[bytes] = []
        self.fault = fault
        self.answers = asyncio.Event()
        self.answers.set()

    async def forget(self, task_id: bytes, seconds: float) -> None:
        self.forgotten.append(task_id)
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault


def enclave(told: Told) -> Enclave:
    return cast(Enclave, cast(Any, told))


async def until(told: Told, task_id: bytes) -> None:
    async with asyncio.timeout(5):
        while task_id not in told.forgotten:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_the_next_start_takes_along_what_is_over_and_the_end_tells_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(letting_go, "PAUSE", 3600)
    told, other = Told(), Told()
    going = LettingGo()
    going.later(enclave(told), b"1")
    going.later(enclave(told), b"2")
    going.later(enclave(other), b"3")
    assert going.with_next(enclave(told)) == (b"1", b"2")
    assert going.with_next(enclave(told)) == ()
    async with asyncio.timeout(30):
        await going.close()
    assert (told.forgotten, other.forgotten) == ([], [b"3"])


async def test_what_no_start_takes_along_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letting_go, "PAUSE", 0.01)
    told = Told(Retryable("enclave.unreachable", "gone"))
    going = LettingGo()
    for task_id in (b"1", b"2"):
        going.later(enclave(told), task_id)
        await until(told, task_id)
    await going.close()
    assert told.forgotten == [b"1", b"2"]


async def test_a_start_during_a_reminder_takes_along_only_what_the_reminder_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(letting_go, "PAUSE", 0.01)
    told, going = Told(), LettingGo()
    told.answers.clear()
    for task_id in (b"1", b"2"):
        going.later(enclave(told), task_id)
    await until(told, b"2")
    going.later(enclave(told), b"3")
    going.later(enclave(told), b"4")
    assert going.with_next(enclave(told)) == (b"3", b"4")
    told.answers.set()
    going.later(enclave(told), b"5")
    await until(told, b"5")
    await going.close()
    assert told.forgotten == [b"1", b"2", b"5"]


async def test_a_start_takes_along_no_more_than_a_body_holds_and_nothing_is_lost() -> None:
    told, going = Told(), LettingGo()
    every = [bytes([n // 256, n % 256]) for n in range(MAX_OVER + 3)]
    for task_id in every:
        going.later(enclave(told), task_id)
    assert list(going.with_next(enclave(told))) == every[:MAX_OVER]
    await going.close()
    assert told.forgotten == every[MAX_OVER:]


async def test_a_task_is_stopped_at_once() -> None:
    told, going = Told(), LettingGo()
    going.at_once(enclave(told), b"1")
    await asyncio.sleep(0)
    assert told.forgotten == [b"1"]
    await going.close()
