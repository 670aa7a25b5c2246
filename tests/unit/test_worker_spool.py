"""The spool: outputs that storage does not have yet outlive processes, within bounds."""

from __future__ import annotations

from pathlib import Path

from enclave_app.protocol.digests import sha256
from oracle.worker.spool import Spool

TASK, OTHER = b"\x01" * 32, b"\x02" * 32
DATA = b"ciphertext"
DIGEST = sha256(DATA)


async def test_a_kept_output_is_found_by_the_next_process(tmp_path: Path) -> None:
    assert await Spool(tmp_path / "spool").keep(TASK, DIGEST, DATA)
    later = Spool(tmp_path / "spool")
    later.open()
    assert later.has(TASK, (DIGEST,))
    assert await later.get(TASK, DIGEST) == DATA
    assert (later.results, later.size) == (1, len(DATA))


async def test_a_dropped_task_leaves_no_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    await spool.keep(TASK, DIGEST, DATA)
    await spool.drop(TASK)
    assert not spool.has(TASK, (DIGEST,))
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_sweep_takes_orphans_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for task_id in (TASK, OTHER):
        await spool.keep(task_id, DIGEST, DATA)
    assert await spool.sweep([OTHER]) == 1
    assert spool.tasks() == (OTHER,)
    assert [each.name for each in (tmp_path / "spool").iterdir()] == [OTHER.hex()]


async def test_a_changed_output_is_not_given_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    await spool.keep(TASK, DIGEST, DATA)
    (tmp_path / "spool" / TASK.hex() / DIGEST.hex()).write_bytes(b"another")
    assert await spool.get(TASK, DIGEST) is None
    assert not spool.has(TASK, (DIGEST,))


async def test_results_are_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_results=1)
    assert spool.has_room()
    assert await spool.keep(TASK, DIGEST, DATA)
    assert not spool.has_room()
    assert not await spool.keep(OTHER, DIGEST, DATA)


async def test_bytes_are_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=2 * len(DATA) - 1)
    assert await spool.keep(TASK, DIGEST, DATA)
    assert spool.has_room()
    assert not await spool.keep(OTHER, DIGEST, DATA)
    assert spool.size == len(DATA)


async def test_what_the_disk_does_not_take_stays_in_memory_under_the_same_bounds(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"a file where a folder should be")
    spool = Spool(tmp_path / "spool", max_results=1)
    spool.open()
    assert await spool.keep(TASK, DIGEST, DATA)
    assert await spool.get(TASK, DIGEST) == DATA
    assert not spool.has_room()
    await spool.drop(TASK)
    assert await spool.get(TASK, DIGEST) is None
