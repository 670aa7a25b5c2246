"""Which way an output is read, a client knows from the agreement, before it asks anybody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from oracle.errors import Refused
from oracle.task import Task
from tests.receipt_kit import Story, make_story

PUBLIC, SEALED = make_story(public=bytes(32)), make_story()


def task(story: Story) -> Task:
    record = story.record
    return Task(cast(Any, None), record.result.task_id, record.agreement, record.request)


async def test_no_broker_is_asked_for_a_public_output() -> None:
    with pytest.raises(Refused) as refused:
        await task(PUBLIC).result()
    assert refused.value.code == "task.public_output"


async def test_a_sealed_output_is_not_looked_for_on_the_chain() -> None:
    with pytest.raises(Refused) as refused:
        await task(SEALED).public_output()
    assert refused.value.code == "task.sealed_output"


class Told(Task):
    """A public task, of whose settlement the chain tells other bytes than were signed."""

    async def wait(self, *, patience: float | None = None) -> Any:
        return None

    async def settlement(self) -> Any:
        return SimpleNamespace(result=PUBLIC.record.result)

    async def public_outputs(self, result: Any) -> Any:
        return (b"another",)


async def test_bytes_that_nobody_signed_are_no_public_output() -> None:
    record = PUBLIC.record
    with pytest.raises(Refused) as refused:
        await Told(cast(Any, None), record.result.task_id, record.agreement, record.request).public_output()
    assert refused.value.code.startswith("output.")
