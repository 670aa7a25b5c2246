"""Which way an output is read, a client knows from the agreement, before it asks anybody."""

from __future__ import annotations

from typing import Any, cast

import pytest

from oracle.errors import Refused
from oracle.task import Task
from tests.receipt_kit import make_story


def task(public: bytes | None) -> Task:
    record = make_story(public=public).record
    return Task(cast(Any, None), record.result.task_id, record.agreement, record.request)


async def test_no_broker_is_asked_for_a_public_output() -> None:
    with pytest.raises(Refused) as refused:
        await task(bytes(32)).result()
    assert refused.value.code == "task.public_output"


async def test_a_sealed_output_is_not_looked_for_on_the_chain() -> None:
    with pytest.raises(Refused) as refused:
        await task(None).public_output()
    assert refused.value.code == "task.sealed_output"
