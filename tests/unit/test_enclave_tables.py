"""Encrypted Parquet to Arrow: only what is agreed, only under its own key, only in the agreed form."""

from __future__ import annotations

import secrets
import sys
from io import BytesIO
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from enclave_app.protocol import pme
from enclave_app.protocol.digests import commitment, sha256
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import Column, File, Manifest
from enclave_app.tables import decode_dataset, read_stream

TABLE = pa.table(
    {
        "id": [1, 2, 3, 4],
        "name": ["a", None, "c", "d"],
        "nested": pa.array([[1], [], None, [2, 3]], pa.list_(pa.int64())),
        "hidden": ["MARKER-1", "MARKER-2", "MARKER-3", "MARKER-4"],
    }
)
COLUMNS = tuple(Column(name=f.name, type=str(f.type), key=i) for i, f in enumerate(TABLE.schema, 1))
KEYS = {index: secrets.token_bytes(32) for index in range(5)}


def manifest_of(files: list[bytes], rows: list[int], columns: tuple[Column, ...] = COLUMNS) -> Manifest:
    return Manifest(
        encryption="parquet-aes-gcm-v1",
        lineage=bytes(32),
        files=tuple(File(sha256=sha256(d), size=len(d), rows=r) for d, r in zip(files, rows, strict=True)),
        columns=columns,
        keys=tuple(commitment(key) for key in KEYS.values()),
    )


def decode(manifest: Manifest, wanted: list[str], keys: dict[int, bytes], files: list[bytes]) -> pa.Table:
    sink = BytesIO()
    decode_dataset(manifest, wanted, keys, memoryview(b"".join(files)), sink)  # type: ignore[arg-type]
    return read_stream(memoryview(sink.getvalue()))


def write(table: pa.Table = TABLE, **changes: Any) -> bytes:
    """A file as someone would write it who does not follow the convention in one point."""
    settings = {
        "footer_key": "k0",
        "column_keys": {pme.key_id(c.key): [c.name] for c in COLUMNS},
        "encryption_algorithm": "AES_GCM_V1",
        "plaintext_footer": False,
        "double_wrapping": False,
        "internal_key_material": True,
        "data_key_length_bits": 256,
        **changes,
    }
    factory = pe.CryptoFactory(lambda _: pme.ColumnKeys(KEYS))
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), pe.EncryptionConfiguration(**settings))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, table.schema, encryption_properties=properties, use_compliant_nested_type=False
    ) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def code(manifest: Manifest, files: list[bytes], wanted: list[str], keys: dict[int, bytes]) -> str:
    with pytest.raises(Refused) as caught:
        decode(manifest, wanted, keys, files)
    assert "MARKER" not in caught.value.message
    return caught.value.code


def test_wanted_columns_of_all_files_come_back_in_order() -> None:
    files = [pme.encrypt_table(part, list(KEYS.values()), COLUMNS) for part in (TABLE.slice(0, 1), TABLE.slice(1))]
    found = decode(manifest_of(files, [1, 3]), ["nested", "id"], {0: KEYS[0], 1: KEYS[1], 3: KEYS[3]}, files)
    assert found.column_names == ["nested", "id"]
    assert found.equals(TABLE.select(["nested", "id"]))


def test_a_file_holds_no_value_in_plaintext() -> None:
    assert b"MARKER" not in pme.encrypt_table(TABLE, list(KEYS.values()), COLUMNS, compression="none")


def test_an_empty_table_decodes() -> None:
    files = [pme.encrypt_table(TABLE.slice(0, 0), list(KEYS.values()), COLUMNS)]
    assert decode(manifest_of(files, [0]), ["id"], KEYS, files).num_rows == 0


def test_a_column_without_its_key_is_a_refusal_and_no_crash() -> None:
    files = [pme.encrypt_table(TABLE, list(KEYS.values()), COLUMNS)]
    assert code(manifest_of(files, [4]), files, ["hidden"], {0: KEYS[0], 1: KEYS[1]}) == "table.key_released"


def test_a_key_of_another_column_does_not_open_this_one() -> None:
    files = [pme.encrypt_table(TABLE, list(KEYS.values()), COLUMNS)]
    assert code(manifest_of(files, [4]), files, ["hidden"], {0: KEYS[0], 4: KEYS[1]}) == "table.key"


def test_two_columns_swapped_behind_one_manifest_do_not_open() -> None:
    swapped = TABLE.rename_columns(["id", "hidden", "nested", "name"]).select(["id", "name", "nested", "hidden"])
    order = {"id": 1, "name": 4, "nested": 3, "hidden": 2}
    columns = tuple(Column(name=f.name, type=str(f.type), key=order[f.name]) for f in swapped.schema)
    files = [pme.encrypt_table(swapped, list(KEYS.values()), columns)]
    # The file says key 4 for `name`; the manifest, and so the release, says key 2.
    assert code(manifest_of(files, [4]), files, ["name"], {0: KEYS[0], 2: KEYS[2]}) == "table.key_released"


@pytest.mark.parametrize("position", [100, -200, -30])
def test_a_flipped_bit_is_refused(position: int) -> None:
    data = bytearray(pme.encrypt_table(TABLE, list(KEYS.values()), COLUMNS))
    data[position] ^= 1
    assert code(manifest_of([bytes(data)], [4]), [bytes(data)], ["id", "name", "nested", "hidden"], KEYS).startswith(
        "table."
    )


def test_the_algorithm_that_lets_changes_through_is_refused() -> None:
    files = [write(encryption_algorithm="AES_GCM_CTR_V1")]
    assert code(manifest_of(files, [4]), files, ["id"], KEYS) == "table.algorithm"


def test_a_plaintext_footer_is_refused() -> None:
    files = [write(plaintext_footer=True)]
    assert code(manifest_of(files, [4]), files, ["id"], KEYS) == "table.footer"


def test_plain_parquet_is_refused() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    files = [bytes(sink.getvalue())]
    assert code(manifest_of(files, [4]), files, ["id"], KEYS) == "table.footer"


def test_a_column_left_in_plaintext_is_refused() -> None:
    files = [write(column_keys={"k1": ["id"], "k3": ["nested"], "k4": ["hidden"]})]
    manifest = manifest_of(files, [4])
    assert decode(manifest, ["id"], KEYS, files).num_rows == 4
    assert code(manifest, files, ["name"], KEYS) == "table.plaintext"


def test_a_column_under_the_footers_key_is_refused() -> None:
    files = [write(column_keys=None, uniform_encryption=True)]
    assert code(manifest_of(files, [4]), files, ["name"], KEYS) == "table.plaintext"


def test_columns_that_share_a_key_are_refused() -> None:
    files = [pme.encrypt_table(TABLE, list(KEYS.values()), COLUMNS)]
    shared = tuple(c.model_copy(update={"key": 1}) for c in COLUMNS)
    assert code(manifest_of(files, [4], shared), files, ["id"], KEYS) == "table.shared_key"
    with pytest.raises(Refused):
        pme.encrypt_table(TABLE, list(KEYS.values()), shared)


def test_another_type_name_or_number_of_rows_than_the_manifests_is_refused() -> None:
    files = [pme.encrypt_table(TABLE, list(KEYS.values()), COLUMNS)]
    other_type = (COLUMNS[0].model_copy(update={"type": "int32"}), *COLUMNS[1:])
    other_name = (COLUMNS[0].model_copy(update={"name": "key"}), *COLUMNS[1:])
    assert code(manifest_of(files, [4], other_type), files, ["id"], KEYS) == "table.schema"
    assert code(manifest_of(files, [4], other_name), files, ["key"], KEYS) == "table.schema"
    assert code(manifest_of(files, [5]), files, ["id"], KEYS) == "table.rows"


def test_a_table_that_is_not_its_manifests_is_not_written() -> None:
    for columns in (COLUMNS[:3], (COLUMNS[1], COLUMNS[0], *COLUMNS[2:])):
        with pytest.raises(Refused) as caught:
            pme.encrypt_table(TABLE, list(KEYS.values()), columns)
        assert caught.value.code == "table.schema"


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.large_string(), pa.timestamp("us", "UTC"), pa.date32(), pa.decimal128(9, 2)]
)
def test_types_come_back_as_they_were(kind: pa.DataType) -> None:
    table = pa.table({"x": pa.nulls(2, kind)})
    columns = (Column(name="x", type=str(kind), key=1),)
    files = [pme.encrypt_table(table, [KEYS[0], KEYS[1]], columns)]
    assert decode(manifest_of(files, [2], columns), ["x"], KEYS, files).schema.field("x").type == kind


def test_a_type_that_parquet_changes_is_refused_when_it_is_sealed() -> None:
    table = pa.table({"x": pa.array([1], pa.timestamp("s"))})
    with pytest.raises(Refused) as caught:
        pme.encrypt_table(table, [KEYS[0], KEYS[1]], (Column(name="x", type="timestamp[s]", key=1),))
    assert caught.value.code == "table.type"


@pytest.mark.parametrize("name", ["a,b", "a:b", "a;b", " a"])
def test_a_name_that_pyarrow_would_split_is_refused(name: str) -> None:
    table = pa.table({name: [1]})
    with pytest.raises(Refused) as caught:
        pme.encrypt_table(table, list(KEYS.values()), (Column(name=name, type="int64", key=1),))
    assert caught.value.code == "table.column_name"


def test_the_enclaves_own_process_loads_neither_pyarrow_nor_duckdb() -> None:
    """What parses foreign bytes in C++ stays out of the process that holds the keys (R6)."""
    modules = "server, tasks, execution, identity, agreed, release, results, fetch, main, sandbox.host"
    imports = "\n".join(f"import enclave_app.{name}" for name in modules.split(", "))
    script = (
        f"import sys\n{imports}\nprint([m for m in sys.modules if m.split('.')[0] in ('pyarrow', 'duckdb', 'numpy')])"
    )
    found = run_process(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert found.stdout.strip() == "[]"
