"""A task inside the enclave: start → the brokers' answers → run → a signed result, collected file by file."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from enclave_app.agreed import KnownMaterials, Materials, check_task, input_size
from enclave_app.batches import Finished, sign_batch
from enclave_app.config import EnclaveConfig
from enclave_app.execution import Executor, FunctionError
from enclave_app.fetch import Storage
from enclave_app.identity import EnclaveIdentity
from enclave_app.logs import Log
from enclave_app.protocol.errors import Refused, Retryable
from enclave_app.protocol.output import MadeOutput, SealedOutput
from enclave_app.protocol.release import SignedRelease
from enclave_app.protocol.structs import Outcome
from enclave_app.protocol.wire import BatchAnswer, BatchBody, RunBody, TaskBody, TaskDone, TaskStarted
from enclave_app.release import Released, gather, make_requests
from enclave_app.results import seal_all, sign_result

NONCE_BYTES = 32


@dataclass
class _Task:
    id: bytes
    body: TaskBody
    materials: Materials
    releases: tuple[SignedRelease, ...]
    invalid_params: bool
    body_size: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    work: asyncio.Task[None] | None = None
    done: TaskDone | None = None
    files: dict[bytes, bytearray] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Bytes: what the task was started with, and the sealed outputs that wait to be collected."""
        return self.body_size + self.materials.size + sum(len(data) for data in self.files.values())


class Tasks:
    """The tasks that are started and not forgotten: bounded by number and by bytes, never by a clock."""

    def __init__(
        self, identity: EnclaveIdentity, storage: Storage, executor: Executor, config: EnclaveConfig, log: Log
    ) -> None:
        self._identity, self._executor, self._log = identity, executor, log
        self._materials = KnownMaterials(storage)
        self._config = config
        self._tasks: OrderedDict[bytes, _Task] = OrderedDict()
        self._running = asyncio.Semaphore(config.max_running)

    async def start(self, body: TaskBody) -> TaskStarted:
        """Check a task, read what it names, and ask its brokers with a new nonce.

        Starting a task again asks again: answers to an earlier nonce no longer count.
        """
        for each in body.over:
            self.forget(each)
        check_task(body, self._identity.measurement, self._identity.attester, self._config)
        task_id = body.request.typed_digest(body.chain.oracle_domain(body.agreement))
        materials = await self._materials.of(body)
        if (size := input_size(materials.manifests)) > self._config.max_input_bytes:
            raise Refused(
                "task.input_size",
                "the datasets are larger than this enclave takes",
                found=size,
                expected=self._config.max_input_bytes,
            )
        # R12: whatever was released before, this start is answered anew.
        releases = make_requests(body, task_id, secrets.token_bytes(NONCE_BYTES), self._identity)
        known = self._tasks.get(task_id)
        if known is not None and known.lock.locked():
            raise Retryable("task.running", "the task is running", hint="Wait for it, or forget it first")
        self._tasks[task_id] = _Task(
            task_id, body, materials, releases, _invalid(body, materials), len(body.canonical())
        )
        self._tasks.move_to_end(task_id)
        self._evict(task_id)
        self._log("task.started", task=task_id, agreement=body.request.agreement_id)
        return TaskStarted(task_id=task_id, releases=releases)

    async def run(self, task_id: bytes, body: RunBody) -> TaskDone:
        """Open the answers, run, seal, sign. Once done, the same bytes come back whatever is asked."""
        task = self._find(task_id)
        async with task.lock:
            if task.done is None:  # R16: done once, whatever is asked later
                await self._work(task, body)
            if task.done is None:
                raise Retryable("task.forgotten", "the task was forgotten", hint="Start it again")
            return task.done

    def file(self, task_id: bytes, digest: bytes) -> bytearray:
        """A ciphertext file of a finished task's outputs."""
        found = self._find(task_id).files.get(digest)
        if found is None:
            raise Refused("task.file", "the task has no such file", found=digest.hex())
        return found

    def batch(self, body: BatchBody) -> BatchAnswer:
        """One signature over the results of tasks that ran here and are not forgotten.

        Raises Refused `batch.…` or `task.unknown`, Retryable `batch.unfinished` for a task that has not run.
        """
        if len(set(body.tasks)) != len(body.tasks):
            raise Refused("batch.duplicate", "a batch names a task twice")
        finished = []
        for task_id in body.tasks:
            task = self._find(task_id)
            if task.done is None:
                raise Retryable(
                    "batch.unfinished", "a task of the batch has not run", found=task_id.hex(), hint="Run it"
                )
            finished.append(Finished(task.body, task.done))
        answer = sign_batch(finished, self._identity)
        self._log("batch.signed", agreement=answer.batch.agreement_id, tasks=len(finished))
        return answer

    def forget(self, task_id: bytes) -> None:
        """Drop a task with its outputs, and stop it where it runs; unknown ones are forgotten already."""
        task = self._tasks.pop(task_id, None)
        if task is not None and task.work is not None:
            task.work.cancel()

    async def _work(self, task: _Task, body: RunBody) -> None:
        """Run it as work of its own, which `forget` can end without ending the host's question."""
        if self._tasks.get(task.id) is not task:
            return  # forgotten while it waited for another run of it
        task.work = asyncio.create_task(self._run(task, body))
        try:
            await asyncio.wait([task.work])
            if not task.work.cancelled():
                task.work.result()
        finally:
            task.work.cancel()
            task.work = None

    async def _run(self, task: _Task, body: RunBody) -> None:
        started = time.monotonic()
        released = gather(task.body, task.materials, task.releases, body.answers, self._identity)
        for blame in released.blamed:
            self._log("release.blamed", task=task.id, broker=blame.broker, code=blame.code)
        made = await self._compute(task, released)
        task.done = sign_result(
            task.body, task.id, task.materials, released, made, self._identity, _milliseconds_since(started)
        )
        task.files = {
            output.manifest.files[0].sha256: output.ciphertext
            for output in made or ()
            if isinstance(output, SealedOutput)
        }
        self._evict(task.id)
        self._log("task.done", task=task.id, outcome=Outcome(task.done.result.outcome).name, ms=task.done.enclave_ms)

    async def _compute(self, task: _Task, released: Released) -> list[MadeOutput] | None:
        """The outputs, sealed where they have recipients; None where the parameters are invalid, or the function fails on
        any machine (R19)."""
        if task.invalid_params:
            return None
        try:
            async with self._running:
                plaintexts = await self._executor.run(task.body, task.materials, released.keys)
        except FunctionError:
            return None
        # Sealing a large output takes a while, and the loop has others to serve.
        return await asyncio.to_thread(
            seal_all, task.body, task.id, released, [bytes(plaintext) for plaintext in plaintexts]
        )

    def _find(self, task_id: bytes) -> _Task:
        task = self._tasks.get(task_id)
        if task is None:
            raise Refused("task.unknown", "no such task is started here", found=task_id.hex())
        return task

    def _evict(self, keep: bytes) -> None:
        """Forget the oldest tasks that nobody is running, until the rest fit: no clock decides it (R14)."""
        kept = sum(task.kept for task in self._tasks.values())
        for task in list(self._tasks.values()):
            if len(self._tasks) <= self._config.max_tasks and kept <= self._config.max_kept_bytes:
                return
            if task.id != keep and not task.lock.locked():
                kept -= task.kept
                del self._tasks[task.id]


def _invalid(body: TaskBody, materials: Materials) -> bool:
    """Whether the request's parameters lie outside the agreed domain, or outside the function's own."""
    try:
        materials.domain.read(body.request.params)
        materials.bundle.header.params.read(body.request.params)
    except Refused:
        return True
    return False


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
