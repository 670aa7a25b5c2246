"""A broker's rules one by one, where a chain cannot be brought to break one alone."""

from __future__ import annotations

import pytest

from enclave_app.protocol.structs import KeyRelease, TaskState
from oracle.chain.reader import TaskOnChain
from oracle.chain.source import Block
from oracle.errors import Retryable
from oracle.keybroker.checks import check_task

KEYS = KeyRelease(brokers=(), threshold=1, max_releases=1, confirmation=1, confirm_blocks=0, release_delay=0)


def at(number: int) -> Block:
    return Block(number=number, hash=bytes(32), parent=bytes(32), timestamp=1_800_000_000)


def test_a_task_from_a_block_that_is_not_confirmed_yet_waits_without_a_release_delay_too() -> None:
    task = TaskOnChain(TaskState.REQUESTED, 10, 1_800_000_100, 0, 0, b"", False)
    check_task(task, KEYS, at(10))
    with pytest.raises(Retryable) as caught:
        check_task(task, KEYS, at(9))
    assert caught.value.code == "task.delay"
