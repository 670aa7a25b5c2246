"""The enclave's decoded tables: found again by the very same decoding only, and bounded."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest

from enclave_app.decoded import DecodedTables
from enclave_app.sandbox.memory import MemoryFile, map_read_only


def job(**changes: Any) -> dict[str, Any]:
    dataset = {"manifest": {"files": ["aa"]}, "wanted": ["x"], "keys": {"0": "01", "1": "02"}}
    return {"kind": "decode", "datasets": [dataset | changes]}


def keep(tables: DecodedTables, what: dict[str, Any], content: bytes) -> None:
    with MemoryFile("table", len(content)) as file:
        file.write_at(content, 0)
        file.seal()
        tables.keep(what, [file])


def content(tables: DecodedTables, what: dict[str, Any]) -> bytes | None:
    with ExitStack() as stack:
        found = tables.get(what, stack)
        return None if found is None else bytes(map_read_only(found[0].fd))


def test_the_same_decoding_finds_its_tables() -> None:
    tables = DecodedTables(1 << 20)
    keep(tables, job(), b"rows")
    assert content(tables, job()) == b"rows"
    assert content(tables, job()) == b"rows"


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": {"0": "01", "1": "03"}},
        {"keys": {"0": "01"}},
        {"wanted": ["y"]},
        {"manifest": {"files": ["ab"]}},
    ],
    ids=["another key", "a key less", "another column", "other data"],
)
def test_another_decoding_finds_nothing(changes: dict[str, Any]) -> None:
    tables = DecodedTables(1 << 20)
    keep(tables, job(), b"rows")
    assert content(tables, job(**changes)) is None


def test_the_least_recently_used_goes_first() -> None:
    tables = DecodedTables(40)
    for number in range(4):
        keep(tables, job(wanted=[str(number)]), bytes([number]) * 10)
    assert content(tables, job(wanted=["0"])) is not None
    keep(tables, job(wanted=["4"]), bytes(10))
    there = [content(tables, job(wanted=[str(number)])) is not None for number in range(5)]
    assert there == [True, False, True, True, True]


def test_a_large_table_is_not_kept_nor_does_it_push_others_out() -> None:
    tables = DecodedTables(40)
    keep(tables, job(), b"rows")
    keep(tables, job(wanted=["large"]), bytes(11))
    assert content(tables, job(wanted=["large"])) is None
    assert content(tables, job()) == b"rows"


def test_a_reader_keeps_its_table_when_it_is_dropped_meanwhile() -> None:
    tables = DecodedTables(40)
    keep(tables, job(), b"0123456789")
    with ExitStack() as stack:
        found = tables.get(job(), stack)
        assert found is not None
        for number in range(4):
            keep(tables, job(wanted=[str(number)]), bytes(10))
        assert content(tables, job()) is None
        assert bytes(map_read_only(found[0].fd)) == b"0123456789"


def test_no_descriptor_is_left_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a count, of no files)
    tables = DecodedTables(40)
    for number in range(100):
        keep(tables, job(wanted=[str(number)]), bytes(10))
        content(tables, job(wanted=[str(number)]))
    assert len(os.listdir("/proc/self/fd")) - before == 4  # noqa: PTH208
