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
from oracle.worker.process import EnclaveProcess
from oracle.worker.procfs import listener
from tests.worker_kit import until


def process(directory: Path) -> EnclaveProcess:
    config, platform, socket = directory / "enclave.json", directory / "platform", directory / "e.sock"
    if not platform.exists():
        make_platforms(platform, int(time.time()))
        config.write_bytes(dump(ENCLAVE_CONFIG))
    files = ("--config", str(config), "--socket", str(socket), "--platform", str(platform))
    return EnclaveProcess((sys.executable, "-m", "enclave_app", *files), socket, 30.0)


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
