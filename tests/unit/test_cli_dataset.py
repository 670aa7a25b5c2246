"""`oracle dataset`."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.shares import DatasetBinding, open_shares, read_share_list, recover_key
from oracle.dataset.keyfile import read_keys
from oracle.dataset.open import open_dataset
from oracle.dataset.seal import load_manifest
from oracle.keys import write_public_key
from tests.cli_kit import answer, oracle, refusal

MARKER = "MARKER-91ab"
OWNER = "0x" + "22" * 20
REGISTRY = "0x" + "11" * 20


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"patient": [1, 2, 3], "note": [MARKER, "b", "c"]}), path)
    return path


@pytest.fixture
def sealed(table: Path, tmp_path: Path) -> Path:
    answer(
        "dataset", "seal", table, "--out", tmp_path / "ds", "--keys", tmp_path / "k", "--dangerous-plaintext-keys", "-y"
    )
    return tmp_path / "ds"


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    path = tmp_path / "deployment.json"
    value = {
        "chainId": "31337",
        "agreementRegistry": REGISTRY,
        "enclaveRegistry": ZERO_ADDRESS,
        "streams": ZERO_ADDRESS,
        "audits": ZERO_ADDRESS,
        "oracle": ZERO_ADDRESS,
        "verifiers": {},
        "firstBlock": 0,
    }
    path.write_text(json.dumps(value))
    return path


def test_sealing_says_what_becomes_public_before_it_starts(table: Path, tmp_path: Path) -> None:
    ran = oracle("dataset", "seal", table, "--out", tmp_path / "ds", "--keys", tmp_path / "k", given="n\n")
    assert ran.code == 1
    assert "patient (int64), note (string)" in ran.stderr
    assert ran.stderr.index("patient (int64)") < ran.stderr.index("Seal it?")
    assert "confirm.declined" in ran.stderr
    assert not (tmp_path / "ds").exists()
    assert not (tmp_path / "k").exists()


def test_a_table_that_cannot_be_read_is_not_talked_about(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"a,b\n1,2\n{MARKER}\n")
    ran = oracle("dataset", "seal", tmp_path / "in.csv", "--out", tmp_path / "ds", "--keys", tmp_path / "k", "--yes")
    assert ran.code == 1
    assert "in.csv" in ran.stderr
    assert "Whoever gets" not in ran.stderr
    assert MARKER not in ran.stdout + ran.stderr


def test_keys_are_not_put_into_what_is_handed_out(table: Path, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "ds", "--keys", tmp_path / "ds" / "k", "--dangerous-plaintext-keys", "--yes")
    assert refusal("dataset", "seal", table, *words)["code"] == "keys.place"
    assert not (tmp_path / "ds").exists()


def test_a_question_that_nobody_answers_is_a_no(table: Path, tmp_path: Path) -> None:
    assert (
        refusal("dataset", "seal", table, "--out", tmp_path / "ds", "--keys", tmp_path / "k")["code"]
        == "confirm.missing"
    )


def test_a_sealed_dataset_opens_with_its_keys(table: Path, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("correct horse\n")
    words = ("--keys", tmp_path / "k", "--password-file", tmp_path / "pw", "--yes")
    made = answer("dataset", "seal", table, "--out", tmp_path / "ds", *words)
    manifest = load_manifest(tmp_path / "ds")
    assert made["dataset_id"] == "0x" + manifest.id.hex()
    assert (made["rows"], made["columns"]) == (3, ["patient", "note"])
    keys = read_keys(tmp_path / "k", lambda: "correct horse")
    assert open_dataset(manifest, keys, tmp_path / "ds" / "blobs").equals(pq.read_table(table))
    assert not any(MARKER.encode() in path.read_bytes() for path in (tmp_path / "ds").rglob("*") if path.is_file())


def test_plaintext_keys_are_shouted_about(table: Path, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "ds", "--keys", tmp_path / "k", "--dangerous-plaintext-keys", "--yes")
    ran = oracle("dataset", "seal", table, *words)
    assert ran.code == 0
    assert "!! The keys will lie in plaintext" in ran.stderr


def test_a_lineage_goes_on(sealed: Path, table: Path, tmp_path: Path) -> None:
    lineage = answer("dataset", "inspect", sealed)["lineage"]
    words = ("--keys", tmp_path / "k2", "--dangerous-plaintext-keys", "--yes", "--lineage", lineage)
    assert answer("dataset", "seal", table, "--out", tmp_path / "next", *words)["lineage"] == lineage


def test_inspect_shows_what_anyone_sees(sealed: Path) -> None:
    shown = answer("dataset", "inspect", sealed)
    assert (shown["rows"], shown["keys"], shown["shares"]) == (3, 3, None)
    assert shown["columns"] == [
        {"name": "patient", "type": "int64", "key": 1},
        {"name": "note", "type": "string", "key": 2},
    ]
    ran = oracle("dataset", "inspect", sealed / "manifest.json")
    assert ran.code == 0
    assert shown["dataset_id"] in ran.stdout


def test_inspect_refuses_what_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert refusal("dataset", "inspect", tmp_path)["code"] == "document.invalid"


def share(sealed: Path, deployment: Path, brokers: list[SealingKey], *more: object) -> tuple[object, ...]:
    for index, broker in enumerate(brokers):
        write_public_key(sealed.parent / f"b{index}", broker.public)
    named = [word for index in range(len(brokers)) for word in ("--broker", sealed.parent / f"b{index}")]
    words = ("--keys", sealed.parent / "k", "--owner", OWNER, "--deployment", deployment)
    return ("dataset", "share", sealed, *words, *named, *more)


def test_brokers_recover_the_keys_that_were_shared(sealed: Path, deployment: Path) -> None:
    brokers = [SealingKey.generate() for _ in range(3)]
    made = answer(*share(sealed, deployment, brokers, "--threshold", 2, "--yes"))
    manifest = load_manifest(sealed)
    listed = read_share_list(
        (sealed / "shares.json").read_bytes(), manifest.id, bytes.fromhex(made["shares_digest"][2:])
    )
    binding = DatasetBinding(chain_id=31337, registry=REGISTRY, owner=OWNER, dataset=manifest.id)
    opened = dict(open_shares(listed, broker, binding) for broker in brokers[1:])
    for index, commitment in enumerate(manifest.keys):
        recover_key({x: mine[index] for x, mine in opened.items()}, 2, commitment)
    assert answer("dataset", "inspect", sealed)["shares"]["threshold"] == 2


def test_sharing_says_who_could_collude(sealed: Path, deployment: Path) -> None:
    brokers = [SealingKey.generate() for _ in range(3)]
    ran = oracle(*share(sealed, deployment, brokers, "--threshold", 2), given="n\n")
    assert ran.code == 1
    assert "Any 2 of them together can open this data without an enclave" in ran.stderr
    assert not (sealed / "shares.json").exists()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--threshold", 4), "share.threshold"),
        (("--threshold", 0), "share.threshold"),
        (("--threshold", 1, "--owner", "0x12"), "address"),
    ],
)
def test_impossible_shares_are_refused(sealed: Path, deployment: Path, more: tuple[object, ...], code: str) -> None:
    brokers = [SealingKey.generate() for _ in range(3)]
    assert refusal(*share(sealed, deployment, brokers, *more, "--yes"))["code"] == code
    assert not (sealed / "shares.json").exists()


def test_nothing_is_said_about_shares_that_cannot_be(sealed: Path, deployment: Path) -> None:
    brokers = [SealingKey.generate() for _ in range(3)]
    ran = oracle(*share(sealed, deployment, brokers, "--threshold", 4, "--yes"))
    assert "expected 1 to 3; found 4" in ran.stderr
    assert "together" not in ran.stderr


def test_a_broker_named_twice_is_refused_as_such(sealed: Path, deployment: Path) -> None:
    broker = SealingKey.generate()
    error = refusal(*share(sealed, deployment, [broker, broker], "--threshold", 2, "--yes"))
    assert error["code"] == "share.brokers"
    assert "twice" in error["message"]


def test_one_broker_that_is_enough_is_said_loudly(sealed: Path, deployment: Path) -> None:
    brokers = [SealingKey.generate() for _ in range(2)]
    ran = oracle(*share(sealed, deployment, brokers, "--threshold", 1), given="n\n")
    assert "ANY ONE of them ALONE" in ran.stderr


def test_a_file_that_is_no_key_is_named(sealed: Path, deployment: Path) -> None:
    (sealed.parent / "notes.txt").write_text("hello")
    words = ("--threshold", 1, "--broker", sealed.parent / "notes.txt", "--yes")
    assert "notes.txt" in refusal(*share(sealed, deployment, [SealingKey.generate()], *words))["message"]


def test_publishing_stores_everything_but_the_keys(sealed: Path, deployment: Path, tmp_path: Path) -> None:
    made = answer(*share(sealed, deployment, [SealingKey.generate()], "--threshold", 1, "--yes"))
    target = tmp_path / "storage"
    stored = answer("dataset", "publish", sealed, "--storage", target.as_uri())
    assert stored["shares_digest"] == made["shares_digest"]
    assert {"0x" + path.name for path in target.iterdir()} == set(stored["blobs"])
    assert stored["dataset_id"] in stored["blobs"]
    secret = (tmp_path / "k").read_bytes()
    assert all(path.read_bytes() != secret for path in target.iterdir())


def test_brokers_keys_are_published_with_the_share_list(sealed: Path, deployment: Path, tmp_path: Path) -> None:
    broker = SealingKey.generate()
    answer(*share(sealed, deployment, [broker], "--threshold", 1, "--yes"))
    target = tmp_path / "storage"
    answer("dataset", "publish", sealed, "--storage", target.as_uri())
    assert (target / broker.public.digest.hex()).read_bytes() == broker.public.wire
    (sealed / "blobs" / broker.public.digest.hex()).unlink()
    error = refusal("dataset", "publish", sealed, "--storage", target.as_uri())
    assert error["code"] == "publish.broker"
    answer("dataset", "publish", sealed, "--storage", target.as_uri(), "--broker", tmp_path / "b0")


def test_a_changed_file_is_not_published(sealed: Path, tmp_path: Path) -> None:
    blob = next(path for path in (sealed / "blobs").iterdir() if path.stat().st_size > 1000)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    storage = (tmp_path / "storage").as_uri()
    assert refusal("dataset", "publish", sealed, "--storage", storage)["code"] == "blob.digest"
