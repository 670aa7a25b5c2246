"""The values behind the vector files that are not about EIP-712: digests, sealing, sharing, documents and outputs."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from enclave_app.protocol import bundle, canonical, measurement, params, release, shamir, shares, streaming
from enclave_app.protocol import evidence as ev
from enclave_app.protocol.digests import commitment, hash_abi, tag
from enclave_app.protocol.hpke import PublicKey, SealingKey
from enclave_app.protocol.manifest import Column, File, Manifest
from enclave_app.protocol.output import TaskSecret, associated_data, pad, seal_output
from enclave_app.protocol.structs import ANYONE, Chain
from scripts import vector_structs as vs
from scripts.vector_structs import address, hexed, word

ROOT = Path(__file__).resolve().parent.parent
TAGS = (
    "evidence",
    "measurement",
    "attested-anchor",
    "svn",
    "key-commitment",
    "share",
    "share-digest",
    "key-ids",
    "release-answer",
    "recipients",
    "output",
    "output-answer",
    "output-coefficient",
    "output-key",
    "output-key-context",
    "output-lineage",
    "output-nonce-prefix",
    "output-salt",
    "output-share",
    "task-secret",
)
CHAIN = Chain(chain_id=31337, agreement_registry=vs.DOMAIN.verifying_contract)
Sealer = Callable[[str, Mapping[str, str]], str]


def stream_bytes(seed: str, length: int) -> bytes:
    """Bytes that anyone can make again: SHAKE256 of the seed's text."""
    return hashlib.shake_256(seed.encode()).digest(length)


def digests() -> dict[str, Any]:
    signer, key, block = vs.signing_key().address, word("sealing key"), word("block")
    registry = address("enclave registry")
    pairs = [(0, 0), (0, 2), (1, 0), (1, 300)]
    recipients, result_key = (bytes(32), word("recipient")), word("result key")
    return {
        "tags": {name: hexed(tag(name)) for name in TAGS},
        "anyone": hexed(ANYONE),
        "reportData": {
            "version": ev.EVIDENCE_VERSION,
            "chainId": CHAIN.chain_id,
            "registry": registry,
            "signer": signer,
            "sealingKey": hexed(key),
            "blockHash": hexed(block),
            "reportData": hexed(ev.report_data(CHAIN.chain_id, registry, signer, key, block)),
        },
        "attestedAnchor": {
            "verifierAnchor": hexed(word("anchor")),
            "verifierMeasurement": hexed(word("measurement 2")),
            "root": hexed(word("root")),
            "anchor": hexed(ev.attested_anchor(word("anchor"), word("measurement 2"), word("root"))),
        },
        "identity": {
            **vs.IDENTITY.model_dump(mode="json", by_alias=True),
            "abi": hexed(vs.IDENTITY.abi_encode()),
            "digest": hexed(vs.IDENTITY.digest),
        },
        "commitment": {"key": hexed(word("data key")), "commitment": hexed(commitment(word("data key")))},
        "shareDigest": {
            "dataset": hexed(word("dataset")),
            "x": 2,
            "keyIndex": 258,
            "share": hexed(word("share")),
            "digest": hexed(shares.share_digest(word("dataset"), 2, 258, word("share"))),
        },
        "keyIds": {"pairs": pairs, "digest": hexed(shares.key_ids_digest(pairs))},
        "recipients": {
            "recipients": [hexed(r) for r in recipients],
            "resultKey": hexed(result_key),
            "digest": hexed(release.recipients_digest(recipients, result_key)),
        },
        "infos": infos(),
        "output": {
            "agreementId": hexed(vs.AGREEMENT_ID),
            "taskId": hexed(vs.TASK_ID),
            "name": "by_diagnosis",
            "associatedData": hexed(associated_data(vs.AGREEMENT_ID, vs.TASK_ID, "by_diagnosis")),
            "lineage": hexed(hash_abi("output-lineage", ["bytes32", "string"], [vs.AGREEMENT_ID, "by_diagnosis"])),
        },
        "measurement": [
            _measured("sgx", 384, measurement.sgx_measurement),
            _measured("tdx", 584, measurement.tdx_measurement),
            _measured("tdx", 648, measurement.tdx_measurement),
        ],
    }


def _measured(tee: str, length: int, measure: Callable[[bytes], bytes]) -> dict[str, Any]:
    body = stream_bytes(f"{tee} report body", length)
    return {"tee": tee, "reportBody": hexed(body), "measurement": hexed(measure(body))}


def _dataset_binding() -> shares.DatasetBinding:
    return shares.DatasetBinding(
        chain_id=CHAIN.chain_id,
        registry=CHAIN.agreement_registry,
        owner=address("hospital_a owner"),
        dataset=word("hospital_a dataset"),
    )


def _output_binding() -> shares.OutputBinding:
    return shares.OutputBinding(
        chain_id=CHAIN.chain_id,
        oracle=vs.AGREEMENT.oracle,
        agreement_id=vs.AGREEMENT_ID,
        task_id=vs.TASK_ID,
        output=word("by_diagnosis output"),
    )


def infos() -> dict[str, Any]:
    """Every HPKE info string, with what goes into it."""
    broker, datasets = vs.BROKERS[0].hpke_key, [d.id_or_stream for d in vs.DATASETS]
    dataset, output = _dataset_binding(), _output_binding()
    signer, request = vs.signing_key().address, vs.RELEASE_REQUEST
    recipient = word("recipient")
    where = {"suite": [0x647A, 1, 2], "chainId": CHAIN.chain_id}
    task = {**where, "oracle": vs.AGREEMENT.oracle, "agreementId": hexed(vs.AGREEMENT_ID), "taskId": hexed(vs.TASK_ID)}
    return {
        "share": {
            **where,
            "registry": dataset.registry,
            "owner": dataset.owner,
            "dataset": hexed(dataset.dataset),
            "threshold": 2,
            "brokers": 3,
            "broker": hexed(broker),
            "info": hexed(dataset.info(2, 3, broker)),
        },
        "output-share": {
            **task,
            "output": hexed(output.output),
            "threshold": 2,
            "brokers": 3,
            "broker": hexed(broker),
            "info": hexed(output.info(2, 3, broker)),
        },
        "release-answer": {
            **task,
            "datasets": [hexed(d) for d in datasets],
            "signer": signer,
            "broker": hexed(broker),
            "nonce": hexed(request.nonce),
            "info": hexed(release.answer_info(CHAIN, vs.AGREEMENT, request, datasets, signer)),
        },
        "output-answer": {
            **task,
            "output": hexed(vs.OUTPUT_SHARES.output_id),
            "broker": hexed(broker),
            "recipient": hexed(recipient),
            "info": hexed(release.output_info(CHAIN, vs.AGREEMENT, vs.OUTPUT_SHARES, broker, recipient)),
        },
    }


def hpke(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Encapsulation is random, so messages that still open are kept as they are."""
    seeds = {name: word(f"hpke seed {name}") for name in ("broker", "enclave", "recipient")}
    keys = {name: SealingKey(seed) for name, seed in seeds.items()}
    share = word("share")
    plaintexts = {
        "share": ("broker", bytes([shares.ENVELOPE_VERSION, 1]) + share + word("share of key 1")),
        "output-share": ("broker", bytes([shares.ENVELOPE_VERSION, 1]) + share),
        "release-answer": ("enclave", release.pack_answer(1, {(0, 0): share, (1, 2): word("share of key 2")})),
        "output-answer": ("recipient", release.pack_answer(1, {(0, 0): share})),
        "empty": ("recipient", b""),
    }
    info = {name: value["info"] for name, value in infos().items()} | {"empty": "0x"}
    known = {(m["name"], m["sealedBy"]): m["message"] for m in stored.get("messages", [])}
    messages = []
    for name, (recipient, plaintext) in plaintexts.items():
        for sealer, seal in (("python", _seal_python), ("javascript", _seal_javascript)):
            message = known.get((name, sealer), "")
            if not _opens(keys[recipient], message, info[name], plaintext):
                message = seal(keys[recipient].public, info[name], plaintext)
            messages.append(
                {
                    "name": name,
                    "sealedBy": sealer,
                    "recipient": recipient,
                    "info": info[name],
                    "plaintext": hexed(plaintext),
                    "message": message,
                }
            )
    return {
        "keys": [
            {
                "name": name,
                "seed": hexed(seeds[name]),
                "publicKey": hexed(key.public.wire),
                "digest": hexed(key.public.digest),
            }
            for name, key in keys.items()
        ],
        "messages": messages,
    }


def _opens(key: SealingKey, message: str, info: str, plaintext: bytes) -> bool:
    if not message:
        return False
    return key.open(bytes.fromhex(message[2:]), bytes.fromhex(info[2:])) == plaintext


def _seal_python(key: PublicKey, info: str, plaintext: bytes) -> str:
    return hexed(key.seal(plaintext, bytes.fromhex(info[2:])))


def _seal_javascript(key: PublicKey, info: str, plaintext: bytes) -> str:
    given = json.dumps({"publicKey": hexed(key.wire), "info": info, "plaintext": hexed(plaintext)})
    script = ROOT / "tests" / "js" / "seal.mjs"
    done = subprocess.run(["node", script], input=given, capture_output=True, text=True, check=True)
    return done.stdout


FIRST = streaming.SEGMENT - streaming.HEADER - streaming.TAG
LATER = streaming.SEGMENT - streaming.TAG


def stream_cases() -> dict[str, Any]:
    cases = []
    for length in (0, 1, 100, FIRST - 1, FIRST, FIRST + 1, FIRST + LATER - 1, FIRST + LATER, FIRST + LATER + 1):
        name = f"{length} bytes"
        key, salt = word(f"stream key {length}"), word(f"stream salt {length}")
        prefix = word(f"stream prefix {length}")[:7]
        associated = name.encode() if length != 1 else b""
        ciphertext = streaming.encrypt(key, stream_bytes(name, length), associated, salt=salt, prefix=prefix)
        cases.append(
            {
                "plaintextShake256": name,
                "length": length,
                "key": hexed(key),
                "associatedData": hexed(associated),
                "salt": hexed(salt),
                "prefix": hexed(prefix),
                "ciphertextLength": len(ciphertext),
                "ciphertextSha256": hexed(hashlib.sha256(ciphertext).digest()),
                "ciphertext": hexed(ciphertext) if length <= 100 else None,
            }
        )
    return {"cases": cases}


def shamir_cases() -> dict[str, Any]:
    cases = []
    for threshold, count in ((1, 1), (1, 3), (2, 3), (3, 5), (16, 16), (2, 255)):
        name = f"{threshold} of {count}"
        secret = word(f"secret {name}")
        coefficients = [word(f"coefficient {name} {power}") for power in range(1, threshold)]
        split = shamir.split(secret, threshold, count, coefficients)
        shown = {x: split[x - 1] for x in range(1, count + 1) if x <= 16 or x == count}
        cases.append(
            {
                "threshold": threshold,
                "count": count,
                "secret": hexed(secret),
                "coefficients": [hexed(c) for c in coefficients],
                "shares": [{"x": x, "share": hexed(share)} for x, share in shown.items()],
            }
        )
    return {"cases": cases}


def table_manifest() -> Manifest:
    return Manifest(
        encryption="parquet-aes-gcm-v1",
        lineage=word("hospital_b lineage"),
        files=(
            File(sha256=word("file 0"), size=123_456, rows=400),
            File(sha256=word("file 1"), size=1 << 40, rows=169),
        ),
        columns=(
            Column(name="patient", type="string", key=1),
            Column(name="größe µm", type="double", key=2),
            Column(name="面積", type="int64", key=3),
        ),
        keys=tuple(commitment(word(f"table key {i}")) for i in range(4)),
    )


def stream_manifest() -> Manifest:
    return Manifest(
        encryption="tink-aes256-gcm-hkdf-1mb",
        lineage=word("stream lineage"),
        files=(File(sha256=word("stream file"), size=4096, rows=0),),
        columns=(),
        keys=(commitment(word("stream key")),),
    )


def manifests() -> dict[str, Any]:
    return {
        "cases": [
            {"name": name, "canonical": m.canonical().decode(), "id": hexed(m.id)}
            for name, m in (("table", table_manifest()), ("stream", stream_manifest()))
        ]
    }


def param_domain() -> params.ParamDomain:
    return canonical.validate(
        params.ParamDomain,
        {
            "format": "enclave-oracle/params",
            "v": 1,
            "params": [
                {"type": "integer", "name": "min_cases", "min": 1, "max": 100},
                {"type": "decimal", "name": "cutoff", "min": "-1.5", "max": "10.25"},
                {"type": "date", "name": "since", "min": "2000-01-01", "max": "2030-12-31"},
                {"type": "choice", "name": "unit", "values": ["mm", "µm"]},
                {"type": "boolean", "name": "strict"},
            ],
        },
    )


GOOD_PARAMS = {"min_cases": 5, "cutoff": "2.50", "since": "2024-02-29", "unit": "µm", "strict": True}


def param_cases() -> dict[str, Any]:
    domain = param_domain()
    bad = {
        "min_cases": [0, 101, "5", True, None],
        "cutoff": ["-1.51", "10.2500000000000001", "+1", "1e1", " 1", "1.", "01", 2, "NaN"],
        "since": ["1999-12-31", "2023-02-29", "2024-2-29", "20240229", "2024-02-29T00:00:00", 0],
        "unit": ["cm", "\u03bcm", 1],
        "strict": ["true", 1, 0],
    }
    refused = [
        {"params": canonical.dump({**GOOD_PARAMS, name: value}).decode(), "code": "params.value"}
        for name, values in bad.items()
        for value in values
    ]
    without = {name: value for name, value in GOOD_PARAMS.items() if name != "unit"}
    wrong: list[Any] = [{}, without, {**GOOD_PARAMS, "other": 1}, [], 5]
    for value in wrong:
        refused.append({"params": canonical.dump(value).decode(), "code": "params.names"})
    refused.append({"params": json.dumps(GOOD_PARAMS), "code": "json.canonical"})
    return {
        "domain": domain.canonical().decode(),
        "id": hexed(domain.id),
        "accepted": [canonical.dump(GOOD_PARAMS).decode()],
        "refused": refused,
    }


def sample_bundle() -> bundle.Bundle:
    files = {
        "main.sql": b"SELECT diagnosis, avg(area) FROM hospital_a JOIN hospital_b USING (patient) GROUP BY 1",
        "README": b"",
    }
    header = bundle.BundleHeader(
        kind="sql",
        name="Tumour size by diagnosis",
        description="Compares two hospitals.\nNo row leaves.",
        entry="main.sql",
        deterministic=True,
        tables=(
            bundle.InputTable(
                name="hospital_a",
                columns=(
                    bundle.InputColumn(name="patient", type="string"),
                    bundle.InputColumn(name="diagnosis", type="string"),
                ),
            ),
        ),
        params=param_domain(),
        outputs=("by_diagnosis",),
        files=(bundle.BundleFile(path="main.sql", size=0, sha256=bytes(32)),),
        salt=word("bundle salt"),
    )
    return bundle.pack(header, files)


def bundles() -> dict[str, Any]:
    packed = sample_bundle()
    return {
        "header": packed.header.canonical().decode(),
        "files": {path: content.decode() for path, content in packed.files.items()},
        "bundle": hexed(packed.raw),
        "id": hexed(packed.id),
    }


def outputs() -> dict[str, Any]:
    keys = [word(f"released key {i}") for i in range(3)]
    plaintext, name, size_class, threshold = b"an Arrow table", "by_diagnosis", 64, 3
    secret = TaskSecret(keys, vs.AGREEMENT_ID, vs.TASK_ID)
    sealed = seal_output(secret, name, plaintext, size_class, threshold)
    return {
        "keys": [hexed(key) for key in keys],
        "agreementId": hexed(vs.AGREEMENT_ID),
        "taskId": hexed(vs.TASK_ID),
        "name": name,
        "sizeClass": size_class,
        "threshold": threshold,
        "plaintext": hexed(plaintext),
        "padded": hexed(pad(plaintext, size_class)),
        "associatedData": hexed(associated_data(vs.AGREEMENT_ID, vs.TASK_ID, name)),
        "key": hexed(sealed.key),
        "coefficients": [hexed(c) for c in sealed.coefficients],
        "ciphertext": hexed(sealed.ciphertext),
        "manifest": sealed.manifest.canonical().decode(),
        "outputId": hexed(sealed.manifest.id),
    }


def canonicals() -> dict[str, Any]:
    accepted = [
        "null",
        "true",
        "0",
        "-1",
        str(canonical.MAX_SAFE_INTEGER),
        str(-canonical.MAX_SAFE_INTEGER),
        '""',
        "[]",
        "{}",
        '{"":[],"A":1,"a":2,"aa":3}',
        '"\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\\u007f/"',
        '"\\u00e9\\u9762\\ud83d\\ude00"',
        '{"\\ue000":1,"\\ud83d\\ude00":2}',
        "[" * (canonical.MAX_DEPTH + 1) + "]" * (canonical.MAX_DEPTH + 1),
    ]
    refused: list[tuple[bytes, str]] = [
        (b"", "json.syntax"),
        (b"\xef\xbb\xbf{}", "json.syntax"),
        (b"\xff", "json.syntax"),
        (b"{}{}", "json.syntax"),
        (b'"\n"', "json.syntax"),
        (b"[1,]", "json.syntax"),
        (b"01", "json.syntax"),
        (b"1.0", "json.float"),
        (b"1e3", "json.float"),
        (b"NaN", "json.float"),
        (b"-Infinity", "json.float"),
        (b"-0", "json.canonical"),
        (str(canonical.MAX_SAFE_INTEGER + 1).encode(), "json.integer"),
        (str(-canonical.MAX_SAFE_INTEGER - 1).encode(), "json.integer"),
        (b"9" * 100_000, "json.integer"),
        (b'{"a":1,"a":1}', "json.duplicate"),
        (b'{"b":1,"a":1}', "json.canonical"),
        (b'{"a": 1}', "json.canonical"),
        (b"[]\n", "json.canonical"),
        ('"é"'.encode(), "json.canonical"),
        (b'"\\u00E9"', "json.canonical"),
        (b'"\\/"', "json.canonical"),
        (b'"\x7f"', "json.canonical"),
        (b'"\\ud800"', "json.text"),
        (b'{"\\udc00":1}', "json.text"),
        (b"[" * (canonical.MAX_DEPTH + 2) + b"]" * (canonical.MAX_DEPTH + 2), "json.depth"),
        (b"[" * 200_000, "json.depth"),
        (b'{"":' * 100_000, "json.depth"),
        (b'"' + b"[" * 200_000, "json.syntax"),
        (b"[" + b"[]," * canonical.MAX_VALUES + b"[]]", "json.size"),
    ]
    return {
        "accepted": accepted,
        "refused": [
            {"bytes": hexed(data), "code": code} if len(data) <= 200 else {"repeat": _repeated(data), "code": code}
            for data, code in refused
        ],
    }


def _repeated(data: bytes) -> dict[str, Any]:
    """A long document as head ‖ unit × times ‖ tail, so that the file stays small."""
    unit = b"[]," if b"[]," in data else data[:1]
    times = data.count(unit)
    head = data[: data.index(unit)]
    return {
        "head": head.decode(),
        "unit": unit.decode(),
        "times": times,
        "tail": data[len(head) + len(unit) * times :].decode(),
    }
