"""Who opens a result: a client, the storage that a worker wrote, and brokers behind HTTP that see a real chain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.release import SignedShares, TaskRecord
from enclave_app.protocol.storage import blob_name, record_name
from enclave_app.protocol.structs import Result
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.keybroker import open_broker
from oracle.keybroker.server import start
from oracle.task import Task
from tests.broker_kit import Scene
from tests.output_kit import Finished, finished

TABLE = pa.table({"grp": ["red", "blue"], "n": [3, 4]})


def encoded(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@dataclass
class Reader:
    """The recipient of a task, two of its three brokers, and the storage that the host writes."""

    task: Finished
    storage: Path
    brokers: dict[bytes, str]
    opened: list[pa.Table] = field(default_factory=list)

    def client(self, rpc: str | None = None, brokers: dict[bytes, str] | None = None) -> Client:
        world = self.task.scene.world
        config = ClientConfig(
            rpc=rpc or world.url,
            deployment=world.deployment,
            storage=(self.storage.as_uri(),),
            brokers=self.brokers if brokers is None else brokers,
        )
        return Client(config, result_key=self.task.reader)

    async def open(self, rpc: str | None = None, brokers: dict[bytes, str] | None = None) -> None:
        """Open the result, trying each thing once."""
        async with self.client(rpc, brokers) as client:
            task = Task(client, self.task.task_id, self.task.agreement, self.task.request)
            self.opened.append(await task.result(patience=0.01))

    def put(self, record: TaskRecord) -> None:
        (self.storage / record_name(self.task.task_id)).write_bytes(record.canonical())

    def put_file(self, ciphertext: bytes | bytearray) -> None:
        (self.storage / blob_name(sha256(ciphertext))).write_bytes(ciphertext)

    async def footprint(self) -> object:
        return list(self.opened)


async def record_of(task: Finished, result: Result | None = None) -> TaskRecord:
    """What the worker of a task stores."""
    statement, result = task.statement(), result or task.result
    return TaskRecord(
        chain=task.chain,
        agreement=task.agreement,
        request=task.request,
        result=result,
        signature=task.sign(result),
        signer=task.scene.world.enclave.signer.address,
        outputs=(
            SignedShares(
                output=0,
                manifest=task.output.manifest.canonical(),
                share_list=task.shares.canonical(),
                shares=statement["shares"],
                signature=statement["shares_signature"],
            ),
        ),
        releases=(),
        evidence=await task.scene.evidence(),
        consents=task.scene.signatures(task.agreement),
        enclave=task.scene.world.identity,
    )


@asynccontextmanager
async def reading(scene: Scene, directory: Path) -> AsyncIterator[Reader]:
    """A settled task and its reader, who has opened the result once."""
    task = await finished(scene, plaintext=encoded(TABLE))
    await task.settle()
    storage = directory / "storage"
    storage.mkdir()
    async with AsyncExitStack() as stack:
        brokers = {}
        for index in (0, 1):
            config = scene.config(scene.broker_directory(directory, index))
            broker = await open_broker(config)
            stack.push_async_callback(broker.close)
            runner, address = await start(broker, config)
            stack.push_async_callback(runner.cleanup)
            brokers[scene.world.brokers[index].digest] = address
        reader = Reader(task, storage, brokers)
        reader.put_file(task.output.ciphertext)
        reader.put(await record_of(task))
        await reader.open()
        assert reader.opened.pop().equals(TABLE)
        yield reader
