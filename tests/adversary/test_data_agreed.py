"""Lies about data that everyone agreed on: datasets that are not what their manifests say, told to a running enclave.

An owner tells them, or whoever sealed for it. All digests fit, so only what lies inside can show them.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from enclave_app.protocol import pme
from enclave_app.protocol.manifest import File
from enclave_app.protocol.structs import DatasetPolicy, Outcome
from enclave_app.protocol.wire import TaskBody
from tests.adversary.lies import Refused, lie
from tests.enclave_kit import MARKER, RunningEnclave, Sealed, World, enclave, make_world, measured, seal, share

pytestmark = pytest.mark.asyncio(loop_scope="module")

Change = Callable[[World], TaskBody]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningEnclave]:
    async with enclave(tmp_path_factory.mktemp("enclave")) as found:
        yield found


@pytest.fixture
def agreed(tmp_path: Path) -> World:
    return make_world(tmp_path / "storage", measured())


def told(what: str, rules: str, reason: str, change: Change) -> Any:
    return pytest.param(change, marks=lie("data", what, rules, reason), id=what)


def naming(world: World, sealed: Sealed, **term: Any) -> TaskBody:
    """A task under an agreement whose first dataset is `sealed`."""
    world.datasets[0] = sealed
    named = {"id_or_stream": sealed.manifest.id, "shares_digest": sealed.shares.id, **term}
    first = world.agreement.data[0].model_copy(update=named)
    return world.body(world.changed(data=(first, *world.agreement.data[1:])))


def term(**changes: Any) -> Change:
    return lambda world: naming(world, world.datasets[0], **changes)


def with_manifest(world: World, **changes: Any) -> TaskBody:
    """The first dataset under a manifest that differs, with keys shared and everything agreed as ever."""
    sealed = world.datasets[0]
    changed = sealed.manifest.model_copy(update=changes)
    return naming(world, share("a", sealed.table, sealed.keys, changed, world.brokers, world.put))


def with_files(world: World, files: Sequence[bytes]) -> TaskBody:
    rows = [file.rows for file in world.datasets[0].manifest.files]
    described = [File(sha256=world.put(data), size=len(data), rows=n) for data, n in zip(files, rows, strict=True)]
    return with_manifest(world, files=tuple(described))


def plain_sized(world: World) -> list[bytes]:
    """The first dataset's files without compression: chunks of columns of one width are of one size."""
    sealed = world.datasets[0]
    half = sealed.table.num_rows // 2
    parts = (sealed.table.slice(0, half), sealed.table.slice(half))
    return [pme.encrypt_table(part, sealed.keys, sealed.manifest.columns, compression="none") for part in parts]


def chunk(world: World, data: bytes, name: str) -> slice:
    """Where the only chunk of a column lies in a file."""
    sealed = world.datasets[0]
    parquet: pq.ParquetFile = pme.open_file(data, pme.ColumnKeys(dict(enumerate(sealed.keys))))
    found = parquet.metadata.row_group(0).column(sealed.table.column_names.index(name))
    start = found.dictionary_page_offset or found.data_page_offset
    return slice(start, start + found.total_compressed_size)


def swapped_chunks(world: World) -> TaskBody:
    files = plain_sized(world)
    first, second = chunk(world, files[0], "id"), chunk(world, files[0], "x")
    assert first.stop - first.start == second.stop - second.start
    swapped = bytearray(files[0])
    swapped[first], swapped[second] = files[0][second], files[0][first]
    return with_files(world, [bytes(swapped), files[1]])


def chunk_of_another_file(world: World) -> TaskBody:
    files = plain_sized(world)
    mine, other = (chunk(world, file, "x") for file in files)
    assert mine.stop - mine.start == other.stop - other.start
    moved = bytearray(files[0])
    moved[mine] = files[1][other]
    return with_files(world, [bytes(moved), files[1]])


def unswapped(world: World) -> TaskBody:
    return with_files(world, plain_sized(world))


def swapped_keys(world: World) -> TaskBody:
    """`x` is released, and said to be under the key of `secret`, which is not."""
    columns = world.datasets[0].manifest.columns
    keys = {column.name: column.key for column in columns}
    keys["x"], keys["secret"] = keys["secret"], keys["x"]
    return with_manifest(world, columns=tuple(c.model_copy(update={"key": keys[c.name]}) for c in columns))


def swapped_names(world: World) -> TaskBody:
    """`grp` is released, and said to be what is `secret`, of the same type."""
    columns, names = world.datasets[0].manifest.columns, {"grp": "secret", "secret": "grp"}
    return with_manifest(
        world, columns=tuple(c.model_copy(update={"name": names.get(c.name, c.name)}) for c in columns)
    )


def shared_key(world: World) -> TaskBody:
    """`secret` is said to be under the key of `x`, which is released."""
    columns = world.datasets[0].manifest.columns
    keys = {column.name: column.key for column in columns}
    return with_manifest(
        world, columns=tuple(c.model_copy(update={"key": {**keys, "secret": keys["x"]}[c.name]}) for c in columns)
    )


def files_of_another(world: World) -> TaskBody:
    other = seal("a", world.datasets[0].table, world.brokers, world.put)
    return with_manifest(world, files=other.manifest.files)


def files_said(**more: int) -> Change:
    """A manifest that says so much more of each file."""

    def change(world: World) -> TaskBody:
        files = world.datasets[0].manifest.files
        said = ({name: getattr(file, name) + count for name, count in more.items()} for file in files)
        return with_manifest(world, files=tuple(f.model_copy(update=s) for f, s in zip(files, said, strict=True)))

    return change


def shares_of(world: World, keys: list[bytes]) -> TaskBody:
    sealed = world.datasets[0]
    return naming(world, share("a", sealed.table, keys, sealed.manifest, world.brokers, world.put))


def second_plaintext(world: World) -> TaskBody:
    """A whole second set of keys for one ciphertext: t brokers release it, and the enclave combines it."""
    return shares_of(world, [secrets.token_bytes(32) for _ in world.datasets[0].keys])


def shares_of_another_dataset(world: World) -> TaskBody:
    """Of the same owner's dataset `b`, said to be of this one."""
    moved = world.datasets[1].shares.model_copy(update={"dataset": world.datasets[0].manifest.id})
    world.put(moved.canonical())
    sealed = world.datasets[0]
    return naming(world, Sealed("a", sealed.table, sealed.keys, sealed.manifest, moved))


@pytest.mark.parametrize(
    "change",
    [
        told("a file with the chunks of two columns swapped", "R11", "table.decrypt", swapped_chunks),
        told("a file with a column's chunk of another file", "R11", "table.decrypt", chunk_of_another_file),
        told("a manifest that swaps the keys of two columns", "R11", "table.key_released", swapped_keys),
        told("a manifest that swaps the names of two columns", "R11", "table.schema", swapped_names),
        told("a manifest that has two columns under one key", "R10", "table.shared_key", shared_key),
        told("the files of another dataset behind the agreed keys", "R11", "table.key", files_of_another),
        told("a manifest with more rows than the files", "R11", "table.rows", files_said(rows=1)),
        told("a manifest with larger files than there are", "R11", "blob.digest", files_said(size=1)),
        told("a manifest with smaller files than there are", "R11", "blob.digest", files_said(size=-1)),
        told("shares of a second set of keys for one ciphertext", "R11", "key.commitment", second_plaintext),
        told("the share list of another dataset of the owner as this one's", "R10", "task.shares", shares_of_another_dataset),
        told(
            "a manifest with one commitment for two keys",
            "R11",
            "document.invalid",
            lambda world: with_manifest(world, keys=(*world.datasets[0].manifest.keys[:-1], world.datasets[0].manifest.keys[0])),
        ),
        told("a dataset of another lineage than agreed", "R9", "task.lineage", term(lineage=bytes([1]) * 32)),
        told("the release of a column that the dataset lacks", "R7", "manifest.column", term(columns=("id", "x", "grp", "age"))),
        # Streams are not built: no policy but a fixed dataset is known to anyone, so none can be served stale.
        *(
            told(f"a dataset under the policy {policy.name}", "R7b", "agreement.not_yet", term(policy=policy))
            for policy in DatasetPolicy
            if policy is not DatasetPolicy.FIXED
        ),
        told(
            "a request for an older version than agreed",
            "R7b",
            "request.versions",
            lambda world: world.body(
                versions=(seal("a", world.datasets[0].table, world.brokers, world.put).manifest.id, world.datasets[1].manifest.id)
            ),
        ),
    ],
)  # fmt: skip
async def test_a_dataset_is_what_it_says(
    running: RunningEnclave, agreed: World, refused: Refused, change: Change
) -> None:
    assert (await running.whole(agreed, unswapped(agreed))).result.outcome == Outcome.SUCCEEDED
    refused.watch(running.footprint)
    refused.keep(MARKER)
    body = change(agreed)
    async with refused():
        await running.whole(agreed, body)
