"""The worker launches the real enclave program, notices its end, and takes over one that was left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from enclave_app.attesters.platform import make_platforms
from enclave_app.protocol.canonical import dump
from oracle.devnet.network import ENCLAVE_CONFIG
from oracle.errors import Retryable
from oracle.worker.enclave import Enclave
from oracle.worker.process import TOO_OFTEN, EnclaveProcess
from oracle.worker.procfs import Pid, family, listener, running
from tests.worker_kit import until


def process(directory: Path, *, probe_seconds: float = 20.0) -> EnclaveProcess:
    config, platform, socket = directory / "enclave.json", directory / "platform", directory / "e.sock"
    if not platform.exists():
        make_platforms(platform, int(time.time()))
        config.write_bytes(dump(ENCLAVE_CONFIG))
    files = ("--config", str(config), "--socket", str(socket), "--platform", str(platform))
    return EnclaveProcess(
        (sys.executable, "-m", "enclave_app", *files), socket, 30.0, config=config, probe_seconds=probe_seconds
    )


def left(directory: Path) -> list[Pid]:
    """Processes whose command line names the enclave's socket: the enclave, its zygote and its children."""
    return running(("--socket", str(directory / "e.sock"), "--platform", str(directory / "platform")))


async def test_an_enclave_is_launched_and_stopped(tmp_path: Path) -> None:
    launched = process(tmp_path)
    await launched.start()
    async with Enclave(tmp_path / "e.sock") as enclave:
        assert (await enclave.identity()).simulated
        await launched.stop()
        assert not launched.is_running()
        with pytest.raises(Retryable) as raised:
            await enclave.identity()
    assert raised.value.code == "enclave.unreachable"


async def test_an_enclave_that_was_left_behind_is_taken_over_and_stopped(tmp_path: Path) -> None:
    crashed = process(tmp_path)
    await crashed.start()
    async with Enclave(tmp_path / "e.sock") as enclave:
        before = await enclave.identity()
        successor = process(tmp_path)
        await successor.start()
        assert (await enclave.identity()).signer == before.signer
    assert successor.is_running()
    await successor.stop()
    await asyncio.wait_for(crashed._process.wait(), 5)  # type: ignore[union-attr]
    assert not successor.is_running()


async def test_an_enclave_that_died_is_launched_anew_as_another_identity(tmp_path: Path) -> None:
    launched = process(tmp_path)
    await launched.start()
    async with Enclave(tmp_path / "e.sock") as enclave:
        before = await enclave.identity()
        pid = listener(tmp_path / "e.sock")
        assert pid is not None
        os.kill(pid.number, signal.SIGKILL)

        async def is_over() -> bool:
            return not launched.is_running()

        await until(is_over)
        await launched.start()
        assert (await enclave.identity()).signer != before.signer
    await launched.stop()


async def test_a_program_that_ends_at_once_is_reported(tmp_path: Path) -> None:
    launched = EnclaveProcess((sys.executable, "-c", "raise SystemExit(3)"), tmp_path / "e.sock", 10.0)
    with pytest.raises(Retryable, match="status 3"):
        await launched.start()


async def test_one_that_hangs_is_ended_with_all_its_children_and_replaced(tmp_path: Path) -> None:
    crashed = process(tmp_path)
    await crashed.start()
    assert crashed.pid is not None
    async with Enclave(tmp_path / "e.sock") as enclave:
        before = await enclave.identity()
    alive = Pid.of(crashed.pid)
    assert alive is not None
    old = family(alive)
    assert len(old) > 1  # the zygote of its sandbox
    os.kill(crashed.pid, signal.SIGSTOP)
    successor = process(tmp_path, probe_seconds=0.5)
    await successor.start()
    assert not any(pid.is_alive() for pid in old)
    async with Enclave(tmp_path / "e.sock") as enclave:
        assert (await enclave.identity()).signer != before.signer
    await successor.stop()
    assert left(tmp_path) == []
    assert not (tmp_path / "e.sock").exists()


async def test_one_of_another_measurement_is_ended_and_not_taken_over(tmp_path: Path) -> None:
    crashed = process(tmp_path)
    await crashed.start()
    async with Enclave(tmp_path / "e.sock") as enclave:
        before = await enclave.identity()
    (tmp_path / "enclave.json").write_bytes(dump({**ENCLAVE_CONFIG, "maxTasks": 255}))
    successor = process(tmp_path)
    await successor.start()
    async with Enclave(tmp_path / "e.sock") as enclave:
        assert (await enclave.identity()).measurement != before.measurement
    await successor.stop()
    assert left(tmp_path) == []


async def test_one_that_a_killed_worker_left_before_it_listened_is_ended(tmp_path: Path) -> None:
    unheard = process(tmp_path)
    early = asyncio.create_task(unheard.start())

    async def is_launched() -> bool:
        return unheard.pid is not None

    await until(is_launched)
    early.cancel()  # as a kill of the worker would: the process stays
    await asyncio.gather(early, return_exceptions=True)
    assert unheard.pid is not None
    successor = process(tmp_path)
    await successor.start()
    assert successor.pid != unheard.pid
    assert not unheard.is_running()
    await successor.stop()
    assert left(tmp_path) == []


async def test_one_that_ends_again_and_again_waits_longer_each_time_and_is_called_a_crash_loop(tmp_path: Path) -> None:
    now = 1000.0
    launched = EnclaveProcess(
        (sys.executable, "-c", "raise SystemExit(3)"), tmp_path / "e.sock", 10.0, monotonic=lambda: now
    )
    waits = []
    for _ in range(TOO_OFTEN):
        with pytest.raises(Retryable, match="status 3"):
            await launched.start()
        waits.append(launched._not_before - now)
        if waits[-1]:
            with pytest.raises(Retryable) as raised:
                await launched.start()
            assert raised.value.code == "enclave.backoff"
        now = max(now, launched._not_before)
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert launched.is_crash_looping
    assert launched.starts == TOO_OFTEN


def test_a_process_id_that_another_process_has_by_now_is_left_alone() -> None:
    ours = Pid.of(os.getpid())
    assert ours is not None
    assert ours.is_alive()
    earlier = Pid(ours.number, ours.born - 1)
    assert not earlier.is_alive()
    assert family(earlier) == []
    earlier.send(signal.SIGKILL)
