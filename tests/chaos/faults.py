"""What is done to a world, fault by fault, in an order that a seed decides; a fault that did not happen is not counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oracle.chain.rpc import as_int
from tests.chaos.proxy import KINDS as RPC_KINDS
from tests.chaos.world import World

DEEPEST = 30
JUMPS = (-7200.0, -60.0, 60.0)
"""Seconds that a clock jumps: beyond every pause of the worker's, both ways."""
PATIENCE = 15.0
SPOILT = {"hang": 1, "stale": 6, "429": 8, "500": 6, "drop": 6, "lost_receipt": 3}
"""How many answers are spoilt in a fault of the RPC; 2 of the others."""

LIES = tuple(kind for kind in RPC_KINDS if kind not in ("swallow", "cut_logs"))


@dataclass(frozen=True)
class Fault:
    """`kind` is what the summary counts it under; `inject` says whether it happened."""

    kind: str
    name: str
    inject: Callable[[], Awaitable[bool]]


@dataclass
class Tally:
    injected: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    tasks: int = 0
    settled: int = 0
    again: int = 0
    transactions: int = 0
    refused: int = 0
    worlds: int = 0

    @property
    def total(self) -> int:
        return sum(self.injected.values())

    def line(self, seed: int, seconds: float) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.injected.items()))
        return (
            f"chaos: seed {seed}, {self.worlds} worlds, {seconds:.0f} s, {self.total} faults injected ({kinds}), "
            f"{self.tasks} tasks, lost {self.tasks - self.settled}, doubled 0, computed again {self.again}, "
            f"{self.transactions} transactions of which {self.refused} came to nothing; "
            f"did not happen: {len(self.missed)} {self.missed}"
        )


class Faults:
    """All faults that there are for a world."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng

    # --- which there are ------------------------------------------------------------------------------------------------

    def kills(self, role: str) -> list[Fault]:
        points = self.world.switches[role].points()
        return [Fault(f"kill-{role.partition('-')[0]}", f"{role}@{p}", self._killer(role, p)) for p in points]

    def reorgs(self, role: str, depths: Sequence[int]) -> list[Fault]:
        """A reorganisation while a process stands still at a boundary."""
        points = self.world.switches[role].points()
        chosen = [self.rng.choice(points) for _ in depths]
        return [
            Fault("reorg", f"reorg {d} at {role}@{p}", self._reorganiser(role, p, d))
            for d, p in zip(depths, chosen, strict=True)
        ]

    def lies(self, kinds: Sequence[str] = LIES) -> list[Fault]:
        return [Fault(f"rpc-{kind}", f"rpc {kind}", self._liar(kind)) for kind in kinds]

    def others(self) -> list[Fault]:
        jumps = [Fault("clock", f"clock {jump:+.0f} s", self._jumper(jump)) for jump in JUMPS]
        return [
            *jumps,
            Fault("disk-full", "no room on the disk", self.fill_disk),
            Fault("stuck-transaction", "a transaction drops out of the pool", self.drop_transaction),
            Fault("base-fee", "the base fee jumps above what was offered", self.raise_fee),
            Fault("enclave-hang", "the enclave stops", self.hang_enclave),
            Fault("storage-down", "storage refuses", self.lose_storage),
            Fault("sigterm", "SIGTERM under load", self.terminate),
        ]

    # --- how each is done -----------------------------------------------------------------------------------------------

    def _killer(self, role: str, point: str) -> Callable[[], Awaitable[bool]]:
        async def kill() -> bool:
            self.world.switches[role].arm(point, "kill")
            happened = await self._happens(role, point)
            if happened and role.startswith("broker"):
                # Two of three are needed: the next one is not killed before this one is back.
                await self.world.broker_serves(int(role.partition("-")[2]))
            return happened

        return kill

    def _reorganiser(self, role: str, point: str, depth: int) -> Callable[[], Awaitable[bool]]:
        async def reorganise() -> bool:
            switch = self.world.switches[role]
            switch.arm(point, "hold")
            happened = await self._happens(role, point)
            if happened:
                await self.world.reorg(depth)
            switch.clear()
            return happened

        return reorganise

    def _liar(self, kind: str) -> Callable[[], Awaitable[bool]]:
        async def lie() -> bool:
            asking = asyncio.create_task(self._keep_busy())
            try:
                return await self.world.proxy.misbehave(kind, SPOILT.get(kind, 2), PATIENCE) > 0
            finally:
                asking.cancel()

        return lie

    def _jumper(self, seconds: float) -> Callable[[], Awaitable[bool]]:
        async def jump() -> bool:
            switch = self.world.switches["worker"]
            switch.jump(seconds)
            happened = await self._happens("worker", "clock")
            await self.world.ask(2)
            await asyncio.sleep(1)
            switch.jump(0)
            await self._happens("worker", "clock")
            return happened

        return jump

    async def fill_disk(self) -> bool:
        """No file of the worker's may grow: RLIMIT_FSIZE, which works for any user, as root too."""
        switch, worker = self.world.switches["worker"], self.world.net.worker
        switch.clear()
        pid = worker.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (512, before[1]))
        happened = await self._happens("worker", "disk")
        await asyncio.sleep(1)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        switch.clear()
        return happened

    async def drop_transaction(self) -> bool:
        """Blocks stop; a transaction of the worker's is dropped from the pool; blocks go on."""
        rpc, operator = self.world.rpc, self.world.net.accounts["operator"].wallet.address
        await self.world.ask(2)
        await rpc.call("evm_setAutomine", False)
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                pool = (await rpc.call("txpool_content"))["pending"]
                mine: dict[str, dict[str, str]] = next(
                    (txs for address, txs in pool.items() if address.lower() == operator.lower()), {}
                )
                if mine:
                    await rpc.call("anvil_dropTransaction", next(iter(mine.values()))["hash"])
                    return True
                await asyncio.sleep(0.02)
            return False
        finally:
            await rpc.call("evm_setAutomine", True)
            await rpc.call("anvil_mine", "0x1")

    async def raise_fee(self) -> bool:
        """What waits in the pool offers less than the next blocks ask for."""
        rpc, operator = self.world.rpc, self.world.net.accounts["operator"].wallet.address
        await self.world.ask(2)
        await rpc.call("evm_setAutomine", False)
        happened = False
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and not happened:
                pool = (await rpc.call("txpool_content"))["pending"]
                happened = any(address.lower() == operator.lower() for address in pool)
                await asyncio.sleep(0.02)
            base = as_int((await rpc.call("eth_getBlockByNumber", "latest", False))["baseFeePerGas"])
            await rpc.call("anvil_setNextBlockBaseFeePerGas", hex(base * 5 + 1))
            await rpc.call("anvil_mine", "0x1")
        finally:
            await rpc.call("evm_setAutomine", True)
            await rpc.call("anvil_mine", "0x1")
        return happened

    async def hang_enclave(self) -> bool:
        """SIGSTOP, while tasks run; the worker has to notice by itself, and may kill it."""
        pid = listener(self.world.net.directory / "worker" / "enclave.sock")
        if pid is None:
            return False
        await self.world.ask(2)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(3)
            os.kill(pid, signal.SIGCONT)
        return True

    async def lose_storage(self) -> bool:
        """A file lies where the directory was: it can be neither read nor written."""
        place = self.world.net.directory / "storage"
        aside = place.with_name("storage.away")
        await self.world.ask(2)
        place.rename(aside)
        place.touch()
        await asyncio.sleep(1.5)
        place.unlink()
        aside.rename(place)
        return True

    async def terminate(self) -> bool:
        """Under load; the worker drains, ends with status 0, and whoever supervises it starts it again."""
        before, deadline = len(self.world.done), time.monotonic() + PATIENCE
        await self.world.crowd.ask(4)
        while len(self.world.done) <= before:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        child = self.world.net.worker._child
        # One that is only starting has nothing to drain, and no handler yet.
        if child is None or child.returncode is not None or not handles(child.pid, signal.SIGTERM):
            return False
        child.terminate()
        async with asyncio.timeout(40):
            status = await child.wait()
        assert status == 0, f"a stop under load ended with {status}"
        return True

    # --- what all need --------------------------------------------------------------------------------------------------

    async def _happens(self, role: str, point: str) -> bool:
        """Wait until it happened, with work enough that it can."""
        switch, deadline, asked = self.world.switches[role], time.monotonic() + PATIENCE, 0.0
        nudged = False
        while not switch.has_fired():
            now = time.monotonic()
            if now > deadline:
                switch.clear()
                return False
            if now > asked:
                await self.world.ask(2)
                asked = now + 0.7
            if not nudged and now > deadline - PATIENCE + 0.5:
                nudged = True
                await self._nudge(role, point)
            await asyncio.sleep(0.01)
        return True

    async def _nudge(self, role: str, point: str) -> None:
        """Some boundaries are crossed only after something else happened."""
        if point.startswith(("journal.rewind", "journal.start_over", "book.unmined")):
            await self.world.reorg(self.rng.randint(1, 5))
        if point.startswith(("identity", "evidence", "enclave.evidence", "journal.start_over", "decode")):
            pid = listener(self.world.net.directory / "worker" / "enclave.sock")
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        if point.startswith(("open", "log.open")) and role.startswith("broker"):
            await self.world.net.brokers[int(role.partition("-")[2]) - 1].process.kill()

    async def _keep_busy(self) -> None:
        while True:
            await self.world.ask(2)
            await asyncio.sleep(0.6)


async def play(faults: Sequence[Fault], tally: Tally, until: float) -> None:
    """One after the other; the rest is left out once it is `until` by the monotonic clock."""
    for fault in faults:
        if time.monotonic() > until:
            return
        started = time.monotonic()
        if await fault.inject():
            tally.injected[fault.kind] += 1
        else:
            tally.missed.append(fault.name)
        if os.environ.get("CHAOS_VERBOSE"):
            print(f"{time.monotonic() - started:6.2f} s  {fault.name}", file=sys.__stderr__, flush=True)


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process catches a signal (proc(5), SigCgt)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def listener(path: Path) -> int | None:
    """The process that listens on a Unix socket (unix(7), SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
        return int(struct.unpack("3i", raw)[0])
