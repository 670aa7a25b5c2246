"""Tagged digests against the vectors; each is put together a second time here from plain 32-byte words."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import enclave_app.protocol
from enclave_app.protocol import evidence, measurement, release, shares
from enclave_app.protocol.digests import commitment, hash_abi, keccak, parse_digest, tag
from enclave_app.protocol.errors import MAX_MESSAGE, Refused
from enclave_app.protocol.output import associated_data
from enclave_app.protocol.structs import (
    ANYONE,
    Agreement,
    Chain,
    OutputShares,
    RegisteredIdentity,
    ReleaseRequest,
)

VECTORS_DIR = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((VECTORS_DIR / "digests.json").read_text("utf-8"))
CASES = {c["type"]: c["value"] for c in json.loads((VECTORS_DIR / "eip712.json").read_text("utf-8"))["cases"]}
INFOS = VECTORS["infos"]


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def word(value: int | str) -> bytes:
    """One ABI word: a number, or a hex address or digest, padded on the left."""
    return value.to_bytes(32, "big") if isinstance(value, int) else raw(value).rjust(32, b"\0")


def own_tag(name: str) -> bytes:
    return sha256(b"enclave-oracle/" + name.encode() + b"/1")


def words(name: str, *values: int | str) -> bytes:
    return sha256(own_tag(name) + b"".join(map(word, values)))


def array(values: list[Any]) -> bytes:
    return word(len(values)) + b"".join(map(word, values))


@pytest.mark.parametrize("name", VECTORS["tags"])
def test_tag(name: str) -> None:
    assert tag(name) == own_tag(name) == raw(VECTORS["tags"][name])


def test_the_code_uses_exactly_the_tags_of_the_vectors() -> None:
    program = Path(enclave_app.protocol.__path__[0]).parent
    source = "".join(p.read_text("utf-8") for part in ("protocol", "appraise") for p in (program / part).glob("*.py"))
    used = set(re.findall(r'\b(?:tag|hash_abi|derive)\(\s*"([a-z-]+)"', source))
    used |= set(re.findall(r'b"enclave-oracle/([a-z-]+)/1"', source))
    assert used == set(VECTORS["tags"])


def test_anyone() -> None:
    assert keccak(b"enclave-oracle/anyone") == ANYONE == raw(VECTORS["anyone"])


def test_report_data() -> None:
    v = VECTORS["reportData"]
    found = evidence.report_data(v["chainId"], v["registry"], v["signer"], raw(v["sealingKey"]), raw(v["blockHash"]))
    own = words("evidence", 1, v["chainId"], v["registry"], v["signer"], v["sealingKey"], v["blockHash"])
    assert found == own + bytes(32) == raw(v["reportData"])


def test_attested_anchor() -> None:
    v = VECTORS["attestedAnchor"]
    parts = (v["verifierAnchor"], v["verifierMeasurement"], v["root"])
    found = evidence.attested_anchor(*map(raw, parts))
    assert found == words("attested-anchor", *parts) == raw(v["anchor"])


def test_identity() -> None:
    v = dict(VECTORS["identity"])
    encoded, digest = raw(v.pop("abi")), raw(v.pop("digest"))
    own = b"".join(raw(v[name]) for name in ("measurement", "platform", "sealingKey", "svnDigest", "verifier"))
    own += bytes(12) + raw(v["operator"]) + bytes(31) + bytes([v["tee"]])
    assert encoded == own
    assert RegisteredIdentity.model_validate(v).digest == keccak(own) == digest


def test_commitment() -> None:
    v = VECTORS["commitment"]
    assert commitment(raw(v["key"])) == sha256(own_tag("key-commitment") + raw(v["key"])) == raw(v["commitment"])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_commitment_takes_256_bit_keys_only(length: int) -> None:
    with pytest.raises(Refused) as caught:
        commitment(bytes(length))
    assert caught.value.code == "key.length"


def test_share_digest() -> None:
    v = VECTORS["shareDigest"]
    found = shares.share_digest(raw(v["dataset"]), v["x"], v["keyIndex"], raw(v["share"]))
    own = sha256(own_tag("share-digest") + raw(v["dataset"]) + b"\x02" + b"\x01\x02" + raw(v["share"]))
    assert found == own == raw(v["digest"])


def test_key_ids_digest() -> None:
    v = VECTORS["keyIds"]
    datasets, keys = ([pair[i] for pair in v["pairs"]] for i in (0, 1))
    first = array(datasets)
    own = sha256(own_tag("key-ids") + word(96) + word(96 + len(first)) + first + array(keys))
    assert shares.key_ids_digest((d, k) for d, k in v["pairs"]) == own == raw(v["digest"])


def test_recipients_digest_puts_the_requesters_key_for_zero() -> None:
    v = VECTORS["recipients"]
    effective = [v["resultKey"], v["recipients"][1]]
    own = sha256(own_tag("recipients") + word(64) + array(effective))
    found = release.recipients_digest([raw(r) for r in v["recipients"]], raw(v["resultKey"]))
    assert found == own == raw(v["digest"])


def test_share_info() -> None:
    v = INFOS["share"]
    binding = shares.DatasetBinding(
        chain_id=v["chainId"], registry=v["registry"], owner=v["owner"], dataset=raw(v["dataset"])
    )
    own = words("share", *v["suite"], v["chainId"], v["registry"], v["owner"], v["dataset"], 2, 3, v["broker"])
    assert binding.info(2, 3, raw(v["broker"])) == own == raw(v["info"])


def test_output_share_info() -> None:
    v = INFOS["output-share"]
    task = (v["chainId"], v["oracle"], v["agreementId"], v["taskId"], v["output"])
    binding = shares.OutputBinding(
        chain_id=v["chainId"],
        oracle=v["oracle"],
        agreement_id=raw(v["agreementId"]),
        task_id=raw(v["taskId"]),
        output=raw(v["output"]),
    )
    own = words("output-share", *v["suite"], *task, 2, 3, v["broker"])
    assert binding.info(2, 3, raw(v["broker"])) == own == raw(v["info"])


def test_release_answer_info() -> None:
    v = INFOS["release-answer"]
    agreement, request = Agreement(**CASES["Agreement"]), ReleaseRequest(**CASES["ReleaseRequest"])
    chain = Chain(chain_id=v["chainId"], agreement_registry="0x" + "11" * 20)
    found = release.answer_info(chain, agreement, request, [raw(d) for d in v["datasets"]], v["signer"])
    head = [own_tag("release-answer"), *map(word, v["suite"]), word(v["chainId"]), word(v["oracle"])]
    head += [word(v["agreementId"]), word(v["taskId"]), word(12 * 32)]
    head += [word(v["signer"]), word(v["broker"]), word(v["nonce"])]
    assert len(head) == 12
    assert found == sha256(b"".join(head) + array(v["datasets"])) == raw(v["info"])


def test_output_answer_info() -> None:
    v = INFOS["output-answer"]
    agreement, words_of = Agreement(**CASES["Agreement"]), OutputShares(**CASES["OutputShares"])
    chain = Chain(chain_id=v["chainId"], agreement_registry="0x" + "11" * 20)
    found = release.output_info(chain, agreement, words_of, raw(v["broker"]), raw(v["recipient"]))
    task = (v["chainId"], v["oracle"], v["agreementId"], v["taskId"], v["output"])
    assert found == words("output-answer", *v["suite"], *task, v["broker"], v["recipient"]) == raw(v["info"])


def test_output_associated_data_and_lineage() -> None:
    v = VECTORS["output"]
    name = v["name"].encode()
    text = word(len(name)) + name.ljust(32, b"\0")
    own = sha256(own_tag("output") + word(v["agreementId"]) + word(v["taskId"]) + word(128) + text)
    assert associated_data(raw(v["agreementId"]), raw(v["taskId"]), v["name"]) == own == raw(v["associatedData"])
    lineage = sha256(own_tag("output-lineage") + word(v["agreementId"]) + word(96) + text)
    found = hash_abi("output-lineage", ["bytes32", "string"], [raw(v["agreementId"]), v["name"]])
    assert found == lineage == raw(v["lineage"])


# (offset, bytes) in the report body, from Intel's SDM vol. 3D (REPORTBODY) and the TD quote body of the DCAP library.
SGX = [(16, 4), (48, 16), (64, 32), (128, 32), (256, 2), (258, 2), (32, 16), (192, 64), (260, 2), (304, 16)]
TDX = [(120, 8), (128, 8), *((136 + 48 * i, 48) for i in range(8))]


@pytest.mark.parametrize("v", VECTORS["measurement"], ids=lambda v: f"{v['tee']}-{len(v['reportBody']) // 2 - 1}")
def test_measurement(v: dict[str, str]) -> None:
    body, sgx = raw(v["reportBody"]), v["tee"] == "sgx"
    parts = b"".join(body[offset : offset + size] for offset, size in (SGX if sgx else TDX))
    own = sha256(own_tag("measurement") + (b"\x01" if sgx else b"\x02") + parts)
    measure = measurement.sgx_measurement if sgx else measurement.tdx_measurement
    assert measure(body) == own == raw(v["measurement"])


@pytest.mark.parametrize("text", ["ab" * 32, "0x" + "AB" * 32])
def test_parse_digest(text: str) -> None:
    assert parse_digest(text) == b"\xab" * 32


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0x" + "ab" * 31, "digest.length"),
        ("", "digest.length"),
        ("0x0x" + "ab" * 32, "digest.hex"),
        ("ab " * 32, "digest.hex"),
        ("٠0" * 32, "digest.hex"),
        ("ab" * 32 + "\n", "digest.hex"),
    ],
)
def test_parse_digest_refuses(text: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_digest(text)
    assert caught.value.code == code


def test_an_error_quotes_no_more_than_its_limit() -> None:
    error = Refused("x", "y", found="z" * 10_000, hint="Do something")
    assert len(str(error)) == MAX_MESSAGE == len(error.message)
