"""Sealing, sharing, publishing and opening datasets, on the Wisconsin diagnostic breast cancer cases."""

from __future__ import annotations

import datetime
import json
import stat
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_breast_cancer

from enclave_app.protocol import pme
from enclave_app.protocol.digests import commitment, sha256
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.shares import DatasetBinding, open_shares, recover_key
from enclave_app.protocol.structs import Chain
from oracle.dataset.inspect import describe_public, inspect_dataset, preview_public
from oracle.dataset.keyfile import DatasetKeys, read_keys, write_keys
from oracle.dataset.open import open_dataset
from oracle.dataset.publish import publish_dataset
from oracle.dataset.seal import Sealed, load_manifest, seal
from oracle.dataset.share import share_dataset
from oracle.storage import FileStorage, open_storage

MARKER = "MARKER-5f1c0e"
CHAIN = Chain(chain_id=31337, agreement_registry="0x" + "11" * 20)
OWNER = "0x" + "22" * 20
CHEAP = 1 << 10


def wisconsin() -> pa.Table:
    data = load_breast_cancer()
    columns = {name.replace(" ", "_"): data.data[:, i] for i, name in enumerate(data.feature_names[:6])}
    marked = [f"{MARKER}-{i}" for i in range(len(data.target))]
    return pa.table({"patient": marked, "malignant": data.target == 0, **columns})


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return wisconsin()


@pytest.fixture
def sealed(table: pa.Table, tmp_path: Path) -> Sealed:
    return seal(table, tmp_path / "out", password=lambda: "correct horse", scrypt_n=CHEAP)


def test_a_sealed_dataset_opens_again_with_its_key_file(table: pa.Table, sealed: Sealed) -> None:
    keys = read_keys(sealed.keys_path, lambda: "correct horse")
    manifest = load_manifest(sealed.directory)
    assert open_dataset(manifest, keys, sealed.blobs).equals(table)
    assert open_dataset(manifest, keys, sealed.blobs, ["malignant"]).equals(table.select(["malignant"]))


def test_every_file_is_named_by_its_digest_and_the_manifest_is_among_them(sealed: Sealed) -> None:
    names = {path.name for path in sealed.blobs.iterdir()}
    assert names == {sha256(path.read_bytes()).hex() for path in sealed.blobs.iterdir()}
    assert names == {sealed.manifest.id.hex(), *(file.sha256.hex() for file in sealed.manifest.files)}


def test_every_column_has_its_own_key_and_every_key_is_committed(table: pa.Table, sealed: Sealed) -> None:
    manifest = sealed.manifest
    assert [c.name for c in manifest.columns] == table.column_names
    assert sorted(c.key for c in manifest.columns) == list(range(1, table.num_columns + 1))
    assert manifest.keys == tuple(commitment(key) for key in sealed.keys.keys)
    assert len(set(sealed.keys.keys)) == table.num_columns + 1


def test_a_column_needs_its_own_key_and_no_other(table: pa.Table, sealed: Sealed) -> None:
    data = (sealed.blobs / sealed.manifest.files[0].sha256.hex()).read_bytes()
    keys = dict(enumerate(sealed.keys.keys))
    for column in sealed.manifest.columns:
        without = pme.open_file(data, pme.ColumnKeys({i: k for i, k in keys.items() if i != column.key}))
        with pytest.raises(Exception, match=r"not released"):
            without.read(columns=[column.name], use_threads=False)
        alone = pme.open_file(data, pme.ColumnKeys({0: keys[0], column.key: keys[column.key]}))
        assert alone.read(columns=[column.name], use_threads=False).equals(table.select([column.name]))


def test_files_are_aes_gcm_v1_with_encrypted_footers(sealed: Sealed) -> None:
    for file in sealed.manifest.files:
        pme.check_container(memoryview((sealed.blobs / file.sha256.hex()).read_bytes()))


def test_no_plaintext_reaches_any_written_file(sealed: Sealed) -> None:
    for path in sealed.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert MARKER.encode() not in content, path
            assert not any(key in content or key.hex().encode() in content for key in sealed.keys.keys), path
            if path.name not in ("manifest.json", sealed.manifest.id.hex()):
                assert b"mean_radius" not in content, path


@pytest.mark.parametrize("position", [4, 100, 5_000, -200, -12, -1])
def test_a_changed_bit_is_refused_by_digest(sealed: Sealed, position: int) -> None:
    path = sealed.blobs / sealed.manifest.files[0].sha256.hex()
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused) as refused:
        open_dataset(sealed.manifest, sealed.keys, sealed.blobs)
    assert refused.value.code == "blob.digest"


def test_a_large_table_becomes_several_files(table: pa.Table, tmp_path: Path) -> None:
    big = pa.concat_tables([table] * 300)
    sealed = seal(big, tmp_path / "out", dangerous_plaintext_keys=True, file_bytes=1 << 22)
    assert len(sealed.manifest.files) > 2
    assert sum(file.rows for file in sealed.manifest.files) == big.num_rows
    assert open_dataset(sealed.manifest, sealed.keys, sealed.blobs).equals(big)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".arrow", ".arrows"])
def test_files_of_each_kind_seal_alike(table: pa.Table, tmp_path: Path, suffix: str) -> None:
    paths = []
    for part in range(2):
        path = tmp_path / f"part{part}{suffix}"
        rows = table.slice(part * 300, 300)
        match suffix:
            case ".parquet":
                pq.write_table(rows, path)
            case ".csv":
                pyarrow.csv.write_csv(rows, path)
            case ".arrow":
                with pa.ipc.new_file(path, rows.schema) as writer:
                    writer.write_table(rows)
            case _:
                with pa.ipc.new_stream(path, rows.schema) as writer:
                    writer.write_table(rows)
        paths.append(path)
    sealed = seal(paths, tmp_path / "out", dangerous_plaintext_keys=True)
    assert open_dataset(sealed.manifest, sealed.keys, sealed.blobs).equals(table)


def test_types_reach_the_other_side_unchanged(tmp_path: Path) -> None:
    day = datetime.date(2026, 2, 28)
    utc = datetime.datetime(2026, 2, 28, 12, 30, tzinfo=datetime.UTC)
    noon = datetime.time(12, 0)
    table = pa.table(
        {
            "i8": pa.array([1, None], pa.int8()),
            "u64": pa.array([2**64 - 1, 0], pa.uint64()),
            "f32": pa.array([1.5, None], pa.float32()),
            "money": pa.array([Decimal("1.23"), None], pa.decimal128(12, 2)),
            "text": pa.array(["ä", None], pa.large_string()),
            "blob": pa.array([b"\x00\xff", b""], pa.large_binary()),
            "day": pa.array([day, None], pa.date32()),
            "at": pa.array([utc, None], pa.timestamp("us", "UTC")),
            "naive": pa.array([utc.replace(tzinfo=None), None], pa.timestamp("ns")),
            "t32": pa.array([noon, None], pa.time32("ms")),
            "t64": pa.array([noon, None], pa.time64("us")),
            "t9": pa.array([noon, None], pa.time64("ns")),
        }
    )
    sealed = seal(table, tmp_path / "out", dangerous_plaintext_keys=True)
    assert open_dataset(sealed.manifest, sealed.keys, sealed.blobs).equals(table)


def test_dictionaries_and_seconds_are_stored_as_what_they_stand_for(tmp_path: Path) -> None:
    table = pa.table(
        {
            "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
            "at": pa.array([0, 1, 2], pa.timestamp("s")),
        }
    ).replace_schema_metadata({"pandas": MARKER})
    sealed = seal(table, tmp_path / "out", dangerous_plaintext_keys=True)
    opened = open_dataset(sealed.manifest, sealed.keys, sealed.blobs)
    assert [c.type for c in sealed.manifest.columns] == ["string", "timestamp[ms]"]
    assert opened["kind"].to_pylist() == ["a", "b", "a"]
    assert opened.schema.metadata is None


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (pa.array([[1]]), "dataset.type"),
        (pa.array([{"a": 1}]), "dataset.type"),
        (pa.array([1.0], pa.float16()), "dataset.type"),
        (pa.array([datetime.timedelta(1)]), "dataset.type"),
        (pa.nulls(1), "dataset.type"),
        (pa.array([Decimal(1)], pa.decimal256(50, 0)), "dataset.type"),
    ],
)
def test_types_that_a_query_would_not_see_unchanged_are_refused(column: pa.Array, code: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        seal(pa.table({"fine": [1], "odd": column}), tmp_path / "out", dangerous_plaintext_keys=True)
    assert refused.value.code == code
    assert "odd" in refused.value.message


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["a", "A"], "dataset.column"),
        (["a", "a"], "dataset.column"),
        (["a", ""], "dataset.column"),
        (["a", "b.c"], "dataset.column"),
        (["a", "b\n"], "dataset.column"),
        (["a", "x" * 129], "dataset.column"),
        (["a", "b,c"], "table.column_name"),
        (["a", "b;c"], "table.column_name"),
        (["a", " b"], "table.column_name"),
    ],
)
def test_column_names_that_would_lose_their_key_are_refused(names: list[str], code: str, tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=names)
    with pytest.raises(Refused) as refused:
        seal(table, tmp_path / "out", dangerous_plaintext_keys=True)
    assert refused.value.code == code
    assert not (tmp_path / "out").exists()


def test_an_empty_table_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        seal(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "out", dangerous_plaintext_keys=True)
    assert refused.value.code == "dataset.empty"
    assert list((tmp_path / "out").iterdir()) == []


def test_files_of_different_columns_are_refused(tmp_path: Path) -> None:
    for name, column in (("one", "a"), ("two", "b")):
        pq.write_table(pa.table({column: [1]}), tmp_path / f"{name}.parquet")
    with pytest.raises(Refused) as refused:
        seal([tmp_path / "one.parquet", tmp_path / "two.parquet"], tmp_path / "out", dangerous_plaintext_keys=True)
    assert refused.value.code == "dataset.schema"


@pytest.mark.parametrize("name", ["rows.xlsx", "missing.csv", "broken.parquet", "broken.arrow"])
def test_a_source_that_cannot_be_read_is_refused_without_quoting_it(tmp_path: Path, name: str) -> None:
    if not name.startswith("missing"):
        (tmp_path / name).write_text(MARKER)
    with pytest.raises(Refused) as refused:
        seal(tmp_path / name, tmp_path / "out", dangerous_plaintext_keys=True)
    assert refused.value.code == "dataset.source"
    assert MARKER not in refused.value.message


def test_csv_values_never_reach_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a\n" + "1\n" * 800_000 + f"{MARKER}\n")
    with pytest.raises(Refused) as refused:
        seal(path, tmp_path / "out", dangerous_plaintext_keys=True)
    assert refused.value.code == "dataset.source"
    assert MARKER not in refused.value.message


def test_a_dataset_is_never_sealed_over_another(table: pa.Table, sealed: Sealed) -> None:
    with pytest.raises(Refused) as refused:
        seal(table, sealed.directory, dangerous_plaintext_keys=True)
    assert refused.value.code == "seal.exists"


def test_keys_need_a_password_or_the_dangerous_word(table: pa.Table, tmp_path: Path) -> None:
    for arguments in ({}, {"password": lambda: "p", "dangerous_plaintext_keys": True}):
        with pytest.raises(Refused) as refused:
            seal(table, tmp_path / "out", **arguments)  # type: ignore[arg-type]
        assert refused.value.code == "keys.protection"


def test_the_key_file_is_for_its_owner_only_and_its_objects_show_nothing(sealed: Sealed) -> None:
    assert stat.S_IMODE(sealed.keys_path.stat().st_mode) == 0o600
    shown = repr(sealed) + repr(sealed.keys)
    assert not any(key.hex() in shown or repr(key) in shown for key in sealed.keys.keys)


def test_a_wrong_password_opens_nothing(sealed: Sealed) -> None:
    with pytest.raises(Refused) as refused:
        read_keys(sealed.keys_path, lambda: "incorrect horse")
    assert refused.value.code == "password.wrong"
    with pytest.raises(Refused) as refused:
        read_keys(sealed.keys_path, None)
    assert refused.value.code == "keys.password"


def test_a_key_file_renamed_to_another_dataset_does_not_open(sealed: Sealed) -> None:
    value = json.loads(sealed.keys_path.read_bytes())
    value["dataset"] = "0x" + "33" * 32
    sealed.keys_path.write_text(json.dumps(value))
    with pytest.raises(Refused) as refused:
        read_keys(sealed.keys_path, lambda: "correct horse")
    assert refused.value.code == "password.wrong"


def test_keys_of_another_dataset_are_refused(table: pa.Table, sealed: Sealed, tmp_path: Path) -> None:
    other = seal(table, tmp_path / "other", dangerous_plaintext_keys=True)
    for keys in (other.keys, DatasetKeys(sealed.manifest.id, other.keys.keys)):
        with pytest.raises(Refused) as refused:
            open_dataset(sealed.manifest, keys, sealed.blobs)
        assert refused.value.code == "keys.dataset"


def test_keys_are_for_the_dataset_that_they_name(sealed: Sealed) -> None:
    """Also where two manifests commit to the same keys, as a copy with other files would."""
    sealed.keys.check(sealed.manifest)
    with pytest.raises(Refused) as refused:
        sealed.keys.check(sealed.manifest.model_copy(update={"lineage": bytes([7]) * 32}))
    assert refused.value.code == "keys.dataset"


def test_keys_of_another_dataset_are_not_shared(table: pa.Table, sealed: Sealed, tmp_path: Path) -> None:
    other = seal(table, tmp_path / "other", dangerous_plaintext_keys=True)
    chain = Chain(chain_id=31337, agreement_registry="0x" + "11" * 20)
    broker = SealingKey.generate().public
    with pytest.raises(Refused) as refused:
        share_dataset(sealed.manifest, other.keys, chain, OWNER, [broker], 1)
    assert refused.value.code == "keys.dataset"


@pytest.mark.parametrize("dangerous", [False, True])
def test_a_key_file_is_written_in_one_of_two_ways(sealed: Sealed, tmp_path: Path, dangerous: bool) -> None:
    """With a password and the dangerous word, or with neither, nobody can tell which was meant (R21)."""
    password = (lambda: "correct horse") if dangerous else None
    with pytest.raises(Refused) as refused:
        write_keys(tmp_path / "keys.json", sealed.keys, password, dangerous_plaintext_keys=dangerous)
    assert refused.value.code == "keys.protection"
    assert not (tmp_path / "keys.json").exists()


def test_lineage_is_kept_where_given_and_fresh_otherwise(table: pa.Table, sealed: Sealed, tmp_path: Path) -> None:
    again = seal(table, tmp_path / "b", dangerous_plaintext_keys=True, lineage=sealed.manifest.lineage)
    fresh = seal(table, tmp_path / "c", dangerous_plaintext_keys=True)
    assert again.manifest.lineage == sealed.manifest.lineage != fresh.manifest.lineage
    with pytest.raises(Refused):
        seal(table, tmp_path / "d", dangerous_plaintext_keys=True, lineage=b"short")


def test_brokers_recover_every_key_from_a_share_list(sealed: Sealed) -> None:
    brokers = [SealingKey.generate() for _ in range(3)]
    shares = share_dataset(sealed.manifest, sealed.keys, CHAIN, OWNER, [b.public for b in brokers], 2)
    binding = DatasetBinding(chain_id=31337, registry=CHAIN.agreement_registry, owner=OWNER, dataset=sealed.manifest.id)
    opened = dict(open_shares(shares, broker, binding) for broker in brokers[1:])
    for index, key in enumerate(sealed.keys.keys):
        found = recover_key({x: mine[index] for x, mine in opened.items()}, 2, sealed.manifest.keys[index])
        assert found == key


def test_a_share_list_does_not_open_for_another_owner(sealed: Sealed) -> None:
    broker = SealingKey.generate()
    shares = share_dataset(sealed.manifest, sealed.keys, CHAIN, OWNER, [broker.public], 1)
    stolen = DatasetBinding(
        chain_id=31337, registry=CHAIN.agreement_registry, owner="0x" + "44" * 20, dataset=sealed.manifest.id
    )
    with pytest.raises(Refused) as refused:
        open_shares(shares, broker, stolen)
    assert refused.value.code == "hpke.open"


@pytest.mark.parametrize(("count", "threshold", "code"), [(0, 1, "share.brokers"), (2, 3, "share.threshold")])
def test_impossible_thresholds_are_refused(sealed: Sealed, count: int, threshold: int, code: str) -> None:
    brokers = [SealingKey.generate().public for _ in range(count)]
    with pytest.raises(Refused) as refused:
        share_dataset(sealed.manifest, sealed.keys, CHAIN, OWNER, brokers, threshold)
    assert refused.value.code == code


def test_a_share_list_that_nobody_could_read_is_not_made(sealed: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    brokers = [SealingKey.generate().public]
    size = len(share_dataset(sealed.manifest, sealed.keys, CHAIN, OWNER, brokers, 1).canonical())
    monkeypatch.setattr("oracle.dataset.share.MAX_SHARE_LIST", size)
    share_dataset(sealed.manifest, sealed.keys, CHAIN, OWNER, brokers, 1)
    monkeypatch.setattr("oracle.dataset.share.MAX_SHARE_LIST", size - 1)
    with pytest.raises(Refused) as refused:
        share_dataset(sealed.manifest, sealed.keys, CHAIN, OWNER, brokers, 1)
    assert refused.value.code == "share.size"


async def test_publishing_puts_everything_public_and_nothing_secret(sealed: Sealed, tmp_path: Path) -> None:
    broker = SealingKey.generate().public
    shares = share_dataset(sealed.manifest, sealed.keys, CHAIN, OWNER, [broker], 1)
    target = tmp_path / "storage"
    async with open_storage(target.as_uri()) as storage:
        stored = await publish_dataset(sealed.manifest, sealed.blobs, storage, shares=shares, brokers=[broker])
        assert await storage.get(shares.id) == shares.canonical()
        assert await storage.get(sealed.manifest.id) == sealed.manifest.canonical()
        assert await storage.get(broker.digest) == broker.wire
    assert {path.name for path in target.iterdir()} == {digest.hex() for digest in stored}
    assert stored[-1] == sealed.manifest.id
    assert open_dataset(sealed.manifest, sealed.keys, target).num_rows == 569


async def test_a_changed_file_is_not_published_as_the_dataset(sealed: Sealed, tmp_path: Path) -> None:
    path = sealed.blobs / sealed.manifest.files[0].sha256.hex()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Refused) as refused:
        await publish_dataset(sealed.manifest, sealed.blobs, FileStorage(tmp_path / "storage"))
    assert refused.value.code == "blob.digest"
    assert not (tmp_path / "storage" / sealed.manifest.id.hex()).exists()


def test_what_becomes_public_is_said_before_and_after(table: pa.Table, sealed: Sealed) -> None:
    before, after = preview_public(table.schema), describe_public(sealed.manifest)
    assert before[0] == after[0]
    assert all(name in after[0] for name in table.column_names)
    assert "569 row(s)" in " ".join(after)
    shown = inspect_dataset(sealed.manifest)
    assert (shown.rows, shown.keys, shown.id) == (569, 9, "0x" + sealed.manifest.id.hex())
