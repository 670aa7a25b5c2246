"""One complete agreement case: two hospitals, a lab, three brokers; everything made for real and small."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Chain
from oracle.agreement.draft import Draft, build_draft
from oracle.dataset.seal import seal
from oracle.dataset.share import share_dataset
from oracle.function.spec import FunctionSpec, pack_function
from oracle.keys import write_public_key
from oracle.yamlfile import validate_yaml

MISSING = object()
NOW = 1_790_000_000
HOSPITAL_A, HOSPITAL_B, LAB = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
OPERATOR = SigningKey(bytes([4]) * 32).address
CHAIN = Chain(chain_id=31337, agreement_registry="0x" + "a1" * 20)
QUERY = "SELECT malignant, avg(radius) AS radius FROM clinic JOIN imaging USING (patient) GROUP BY malignant"


@dataclass(frozen=True)
class Case:
    """A draft as a YAML value, in the directory that its paths count from, and the keys of its three parties."""

    base: Path
    value: dict[str, Any]
    now: int = NOW
    keys: tuple[SigningKey, ...] = (LAB, HOSPITAL_A, HOSPITAL_B)

    def draft(self) -> Draft:
        return build_draft(self.value, base=self.base, now=self.now)

    def set(self, path: str, value: object) -> None:
        """Write `value` at a dotted path; MISSING removes what is there."""
        *parents, last = path.split(".")
        inner: Any = self.value
        for part in parents:
            inner = inner[int(part)] if isinstance(inner, list) else inner[part]
        if value is MISSING:
            del inner[last]
        else:
            inner[int(last) if isinstance(inner, list) else last] = value


def make_case(base: Path) -> Case:
    clinic = pa.table({"patient": [1, 2], "malignant": [True, False], "age": [50, 60]})
    imaging = pa.table({"patient": [1, 2], "radius": [17.9, 11.2]})
    brokers = [SealingKey(bytes([9, n]) * 16).public for n in range(3)]
    for index, broker in enumerate(brokers):
        write_public_key(base / f"broker{index}.json", broker)
    for name, table, owner in (("clinic", clinic, HOSPITAL_A), ("imaging", imaging, HOSPITAL_B)):
        sealed = seal(table, base / name, dangerous_plaintext_keys=True)
        shares = share_dataset(sealed.manifest, sealed.keys, CHAIN, owner.address, brokers, 2)
        (base / name / "shares.json").write_bytes(shares.canonical())
    spec = validate_yaml(
        FunctionSpec,
        {
            "name": "radius",
            "description": "Mean radius by diagnosis",
            "kind": "sql",
            "entry": "query.sql",
            "tables": {
                "clinic": {"patient": "int64", "malignant": "bool"},
                "imaging": {"patient": "int64", "radius": "double"},
            },
            "params": [{"name": "smallest_group", "type": "integer", "min": 5, "max": 100}],
            "outputs": ["result"],
        },
    )
    (base / "function.eofb").write_bytes(pack_function(spec, QUERY).raw)
    (base / "enclave.txt").write_text("0x" + "e1" * 32 + "\n")
    value = {
        "chain": {
            "id": 31337,
            "agreementRegistry": CHAIN.agreement_registry,
            "oracle": "0x" + "a2" * 20,
            "enclaveRegistry": "0x" + "a3" * 20,
        },
        "parties": {"hospital_a": HOSPITAL_A.address, "hospital_b": HOSPITAL_B.address, "lab": LAB.address},
        "function": {
            "bundle": "function.eofb",
            "owner": "lab",
            "limits": {"memory": "512 MiB", "time": "30 s", "outputBytes": "1 MiB", "outputRows": 1000},
        },
        "data": [
            _data("clinic", "hospital_a", ["patient", "malignant"]),
            _data("imaging", "hospital_b", "all"),
        ],
        "enclaves": {
            "measurements": ["enclave.txt"],
            "anchors": ["intel"],
            "statuses": ["UP_TO_DATE"],
            "evaluationFloor": 17,
            "maxEvidenceAge": "24 h",
            "hosts": [OPERATOR],
        },
        "brokers": {
            "threshold": 2,
            "confirmation": "finalized",
            "list": [
                {"key": f"broker{n}.json", "signer": "0x" + f"b{n}" * 20, "url": f"https://broker{n}.example"}
                for n in range(3)
            ],
        },
        "outputs": [{"name": "result", "recipients": ["requester"], "owners": ["lab"]}],
        "access": {"requesters": ["lab", OPERATOR], "quota": 10, "quotaPerRequester": 5},
        "price": {"fee": "0.01 ether", "failedFee": "1 gwei", "shares": {"hospital_a": "30%", "hospital_b": "12.5%"}},
        "validity": {"until": "90 days", "activateBefore": "7 days"},
        "storage": ["https://storage.example/blobs"],
    }
    return Case(base, value)


def _data(name: str, owner: str, columns: object) -> dict[str, object]:
    return {
        "name": name,
        "owner": owner,
        "manifest": name,
        "shares": f"{name}/shares.json",
        "columns": columns,
    }


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def case(complete: Case) -> Case:
    """The complete case, to be changed in one place."""
    return Case(complete.base, copy.deepcopy(complete.value))
