"""Bundles, share lists and sealed outputs, end to end and with one thing changed."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from enclave_app.protocol import canonical
from enclave_app.protocol.bundle import MAGIC, BundleHeader, pack, read_bundle
from enclave_app.protocol.digests import commitment, tag
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.manifest import Manifest, read_manifest
from enclave_app.protocol.output import TaskSecret, open_output, pad, seal_output, unpad
from enclave_app.protocol.shares import (
    DatasetBinding,
    ShareList,
    check_share,
    make_share_list,
    open_shares,
    random_coefficients,
    read_share_list,
    recover_key,
)

VECTORS_DIR = Path(__file__).parents[1] / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS_DIR / f"{name}.json").read_text("utf-8"))


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


# Bundles

BUNDLE = vectors("bundle")
RAW = raw(BUNDLE["bundle"])
FILES = json.loads(BUNDLE["header"])["files"]
HEADER_END = len(MAGIC) + 4 + len(BUNDLE["header"])


def test_bundle_reproduces_its_vector() -> None:
    bundle = read_bundle(RAW, raw(BUNDLE["id"]))
    assert bundle.header.canonical().decode() == BUNDLE["header"]
    assert {path: content.decode() for path, content in bundle.files.items()} == BUNDLE["files"]
    assert pack(bundle.header, bundle.files).raw == RAW
    assert bundle.entry_text() == BUNDLE["files"]["main.sql"]


def with_header(**changes: Any) -> bytes:
    head = canonical.dump({**json.loads(BUNDLE["header"]), **changes})
    return MAGIC + len(head).to_bytes(4, "big") + head + RAW[HEADER_END:]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bundle.format"),
        (MAGIC + b"\0\0\0", "bundle.format"),
        (b"EOFB\x02" + RAW[5:], "bundle.format"),
        (MAGIC + b"\xff\xff\xff\xff" + RAW[9:], "bundle.format"),
        (RAW[: HEADER_END - 1], "bundle.format"),
        (MAGIC + bytes(4) + RAW[9:], "json.syntax"),
        (with_header(kind="shell"), "document.invalid"),
        (RAW[:-1], "bundle.file"),
        (RAW[:-1] + b"2", "bundle.file"),
        (RAW + b"\0", "bundle.trailing"),
        (with_header(files=[{**f, "sha256": "0x" + "00" * 32} for f in FILES]), "bundle.file"),
        (with_header(files=[{**f, "size": str(1 << 63)} for f in FILES]), "bundle.file"),
    ],
)
def test_bundle_refuses(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        read_bundle(data, None)
    assert caught.value.code == code


def test_bundle_is_the_agreed_one() -> None:
    with pytest.raises(Refused) as caught:
        read_bundle(RAW, bytes(32))
    assert caught.value.code == "bundle.digest"


def test_entry_is_text() -> None:
    header = canonical.parse(BundleHeader, BUNDLE["header"].encode())
    with pytest.raises(Refused) as caught:
        pack(header, {"main.sql": b"\xff"}).entry_text()
    assert caught.value.code == "bundle.entry"


# Share lists

BROKERS = [SealingKey(bytes([n]) * 32) for n in (1, 2, 3)]
DATASET_KEYS = [bytes([100 + n]) * 32 for n in range(3)]
DATASET = hashlib.sha256(b"dataset").digest()
BINDING = DatasetBinding(chain_id=31337, registry="0x" + "11" * 20, owner="0x" + "22" * 20, dataset=DATASET)
LIST = make_share_list(DATASET, DATASET_KEYS, 2, [b.public for b in BROKERS], BINDING, random_coefficients(2))


OUTPUT_MANIFEST = seal_output(TaskSecret([bytes(range(32))], bytes(32), bytes(32)), "result", b"rows", 4096, 2).manifest


def test_any_two_of_three_brokers_recover_every_key() -> None:
    listed = read_share_list(LIST.canonical(), DATASET, LIST.id)
    opened = dict(open_shares(listed, broker, BINDING) for broker in BROKERS)
    for chosen in ((1, 2), (1, 3), (2, 3), (1, 2, 3)):
        for index, key in enumerate(DATASET_KEYS):
            assert recover_key({x: opened[x][index] for x in chosen}, 2, commitment(key)) == key


@pytest.mark.parametrize(
    "change",
    [{"owner": "0x" + "33" * 20}, {"registry": "0x" + "33" * 20}, {"chain_id": 1}, {"dataset": bytes(32)}],
)
def test_shares_open_for_nobody_else(change: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        open_shares(LIST, BROKERS[0], BINDING.model_copy(update=change))
    assert caught.value.code == "hpke.open"


def test_an_envelope_opens_for_its_own_threshold_and_place_only() -> None:
    lower = LIST.model_copy(update={"threshold": 1})
    fewer = LIST.model_copy(update={"brokers": LIST.brokers[:2]})
    moved = [LIST.brokers[1].model_copy(update={"broker": LIST.brokers[0].broker}), *LIST.brokers[1:]]
    for listed in (lower, fewer, LIST.model_copy(update={"brokers": tuple(moved)})):
        with pytest.raises(Refused) as caught:
            open_shares(listed, BROKERS[0], BINDING)
        assert caught.value.code == "hpke.open"


def test_swapped_brokers_do_not_swap_their_shares() -> None:
    swapped = LIST.model_copy(update={"brokers": (LIST.brokers[1], LIST.brokers[0], LIST.brokers[2])})
    with pytest.raises(Refused) as caught:
        open_shares(swapped, BROKERS[0], BINDING)
    assert caught.value.code == "shares.envelope"


@pytest.mark.parametrize(
    "plaintext", [b"", b"\x02\x01", b"\x01\x02", b"\x01\x01" + bytes(95), b"\x01\x01" + bytes(97), b"\x01\x01"]
)
def test_an_envelope_that_holds_something_else_is_refused(plaintext: bytes) -> None:
    body = plaintext + bytes(96) if plaintext in (b"\x02\x01", b"\x01\x02") else plaintext
    info = BINDING.info(2, 3, BROKERS[0].public.digest)
    entry = LIST.brokers[0].model_copy(update={"envelope": BROKERS[0].public.seal(body, info)})
    with pytest.raises(Refused) as caught:
        open_shares(LIST.model_copy(update={"brokers": (entry, *LIST.brokers[1:])}), BROKERS[0], BINDING)
    assert caught.value.code == "shares.envelope"


def test_an_envelope_with_another_share_than_its_list_commits_to_is_refused() -> None:
    x, opened = open_shares(LIST, BROKERS[0], BINDING)
    body = bytes([1, x]) + b"".join((opened[0], opened[1], opened[0]))
    sealed = BROKERS[0].public.seal(body, BINDING.info(2, 3, BROKERS[0].public.digest))
    entry = LIST.brokers[0].model_copy(update={"envelope": sealed})
    with pytest.raises(Refused) as caught:
        open_shares(LIST.model_copy(update={"brokers": (entry, *LIST.brokers[1:])}), BROKERS[0], BINDING)
    assert caught.value.code == "shares.wrong"


def test_brokers_with_different_numbers_of_shares_are_no_list() -> None:
    value = json.loads(LIST.canonical())
    value["brokers"][1]["digests"].pop()
    raw_list = canonical.dump(value)
    with pytest.raises(Refused) as caught:
        read_share_list(raw_list, DATASET, hashlib.sha256(raw_list).digest())
    assert caught.value.code == "document.invalid"


@pytest.mark.parametrize("field", ["keys", "files", "columns"])
def test_a_stream_is_one_file_under_one_key(field: str) -> None:
    value = json.loads(OUTPUT_MANIFEST.canonical())
    more = {
        "keys": "0x" + "11" * 32,
        "files": {**value["files"][0], "sha256": "0x" + "22" * 32},
        "columns": {"name": "age", "type": "int64", "key": 0},
    }[field]
    value[field].append(more)
    data = canonical.dump(value)
    with pytest.raises(Refused) as caught:
        read_manifest(data, hashlib.sha256(data).digest())
    assert caught.value.code == "document.invalid"


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_only_a_whole_key_is_committed_to(key: bytes) -> None:
    with pytest.raises(Refused) as caught:
        commitment(key)
    assert caught.value.code == "key.length"


def test_a_wrong_share_names_its_broker() -> None:
    x, opened = open_shares(LIST, BROKERS[1], BINDING)
    check_share(LIST, x, 2, opened[2])
    with pytest.raises(Refused, match=BROKERS[1].public.digest.hex()) as caught:
        check_share(LIST, x, 2, opened[1])
    assert caught.value.code == "shares.wrong"


@pytest.mark.parametrize(("x", "index"), [(0, 0), (4, 0), (1, -1), (1, 3)])
def test_a_share_of_no_place_is_refused(x: int, index: int) -> None:
    with pytest.raises(Refused) as caught:
        check_share(LIST, x, index, bytes(32))
    assert caught.value.code == "shares.index"


def test_a_stranger_has_no_shares() -> None:
    with pytest.raises(Refused) as caught:
        open_shares(LIST, SealingKey.generate(), BINDING)
    assert caught.value.code == "shares.broker"


def test_too_few_shares_or_the_wrong_key_are_refused() -> None:
    x, opened = open_shares(LIST, BROKERS[0], BINDING)
    with pytest.raises(Refused) as caught:
        recover_key({x: opened[0]}, 2, commitment(DATASET_KEYS[0]))
    assert caught.value.code == "shares.too_few"
    y, others = open_shares(LIST, BROKERS[1], BINDING)
    with pytest.raises(Refused) as caught:
        recover_key({x: opened[0], y: others[1]}, 2, commitment(DATASET_KEYS[0]))
    assert caught.value.code == "key.commitment"


def test_a_share_list_survives_its_bytes() -> None:
    assert canonical.parse(ShareList, LIST.canonical()) == LIST


# Outputs

OUTPUT = vectors("output")
SECRET = TaskSecret([raw(k) for k in OUTPUT["keys"]], raw(OUTPUT["agreementId"]), raw(OUTPUT["taskId"]))


def sealed(plaintext: bytes = raw(OUTPUT["plaintext"]), name: str = OUTPUT["name"]) -> Any:
    return seal_output(SECRET, name, plaintext, OUTPUT["sizeClass"], OUTPUT["threshold"])


def test_output_reproduces_its_vector() -> None:
    made = sealed()
    assert made.key == raw(OUTPUT["key"])
    assert list(made.coefficients) == [raw(c) for c in OUTPUT["coefficients"]]
    assert made.ciphertext == raw(OUTPUT["ciphertext"])
    assert made.length == len(raw(OUTPUT["padded"]))
    assert made.manifest.canonical().decode() == OUTPUT["manifest"]
    assert made.manifest.id == raw(OUTPUT["outputId"])


def hkdf_extract(salt: bytes, key: bytes) -> bytes:
    return hmac.digest(salt, key, "sha256")


def hkdf_expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869 for at most one block."""
    return hmac.digest(key, info + b"\x01", "sha256")[:length]


def test_output_key_follows_from_the_documented_derivation() -> None:
    name, padded = OUTPUT["name"].encode(), raw(OUTPUT["padded"])
    pseudo_random = hkdf_extract(raw(OUTPUT["taskId"]), b"".join(raw(k) for k in OUTPUT["keys"]))
    secret = hkdf_expand(pseudo_random, tag("task-secret") + raw(OUTPUT["agreementId"]))
    words = (96).to_bytes(32, "big") + hashlib.sha256(padded).digest()
    text = len(name).to_bytes(32, "big") + name.ljust(32, b"\0")
    context = hashlib.sha256(tag("output-key-context") + words + text).digest()
    assert hkdf_expand(secret, tag("output-key") + context) == raw(OUTPUT["key"])
    ciphertext = raw(OUTPUT["ciphertext"])
    assert hkdf_expand(secret, tag("output-salt") + context) == ciphertext[1:33]
    assert hkdf_expand(secret, tag("output-nonce-prefix") + context, 7) == ciphertext[33:40]
    for power, coefficient in enumerate(OUTPUT["coefficients"], start=1):
        assert hkdf_expand(secret, tag("output-coefficient") + context + bytes([power])) == raw(coefficient)


def opened(**changes: Any) -> bytes:
    given: dict[str, Any] = {
        "manifest": read_manifest(OUTPUT["manifest"].encode(), raw(OUTPUT["outputId"])),
        "ciphertext": raw(OUTPUT["ciphertext"]),
        "key": raw(OUTPUT["key"]),
        "agreement_id": raw(OUTPUT["agreementId"]),
        "task_id": raw(OUTPUT["taskId"]),
        "name": OUTPUT["name"],
    }
    return open_output(**{**given, **changes})


def test_output_opens() -> None:
    assert opened() == raw(OUTPUT["plaintext"])


TABLE = canonical.parse(Manifest, vectors("manifest")["cases"][0]["canonical"].encode())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"manifest": TABLE}, "output.encryption"),
        ({"ciphertext": raw(OUTPUT["ciphertext"])[:-1] + b"\0"}, "output.digest"),
        ({"key": bytes(32)}, "output.digest"),
        ({"agreement_id": bytes(32)}, "stream.tampered"),
        ({"task_id": bytes(32)}, "stream.tampered"),
        ({"name": "other"}, "stream.tampered"),
    ],
)
def test_output_opens_with_everything_right_only(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        opened(**changes)
    assert caught.value.code == code


def test_another_plaintext_name_or_key_set_shares_no_key() -> None:
    first = sealed()
    others = [sealed(b"an Arrow tablf"), sealed(name="other")]
    for keys in (OUTPUT["keys"][:2], OUTPUT["keys"][::-1]):
        secret = TaskSecret([raw(k) for k in keys], raw(OUTPUT["agreementId"]), raw(OUTPUT["taskId"]))
        others.append(seal_output(secret, OUTPUT["name"], raw(OUTPUT["plaintext"]), 64, 3))
    assert len({made.key for made in [first, *others]}) == 5
    assert len({bytes(made.ciphertext[1:40]) for made in [first, *others]}) == 5


@pytest.mark.parametrize("keys", [[], [bytes(31)], [bytes(32), bytes(33)]])
def test_a_task_secret_takes_whole_keys(keys: list[bytes]) -> None:
    with pytest.raises(Refused) as caught:
        TaskSecret(keys, bytes(32), bytes(32))
    assert caught.value.code == "task.keys"


@pytest.mark.parametrize(("length", "size_class", "padded"), [(0, 1, 9), (0, 64, 64), (55, 64, 64), (56, 64, 128)])
def test_padding_fills_the_size_class(length: int, size_class: int, padded: int) -> None:
    plaintext = b"x" * length
    assert len(pad(plaintext, size_class)) == padded
    assert unpad(pad(plaintext, size_class)) == plaintext


@pytest.mark.parametrize(
    "padded",
    [
        b"",
        b"\x01",
        b"\x01" + bytes(7),
        b"\x02" + bytes(8),
        b"\x01" + (1).to_bytes(8, "big"),
        b"\x01" + b"\xff" * 8 + b"x",
        b"\x01" + (1).to_bytes(8, "big") + b"x" + b"\0\x01",
    ],
)
def test_wrong_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(Refused) as caught:
        unpad(padded)
    assert caught.value.code == "output.padding"


def test_a_size_class_of_zero_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        pad(b"", 0)
    assert caught.value.code == "output.size_class"
